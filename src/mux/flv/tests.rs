//! Frames through messages and back: what goes in comes out, with its times and its parameter sets.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::media::{AudioFormat, Frame, Ticks};
use crate::wire::flv::read_metadata;
use crate::wire::h26x::{ParameterSets, Standard, annex_b, avcc};
use crate::wire::rtmp::{Limits, Message, Reader, kind, read_data};

const CHUNK: u32 = 4096;

fn sets(standard: Standard) -> ParameterSets {
    let (file, first): (_, &[u8]) = match standard {
        Standard::H264 => ("h264_async.ts", &[0, 0, 1, 0x67]),
        Standard::H265 => ("h265_async.ts", &[0, 0, 1, 0x40, 1]),
    };
    let stream = std::fs::read(format!("{}/testdata/ts/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let at = stream.windows(first.len()).position(|w| w == first).unwrap();
    let mut sets = ParameterSets::new(standard);
    for unit in annex_b(&stream[at..at + 170]) {
        sets.take(unit);
    }
    assert!(sets.is_complete());
    sets
}

fn setup(sets: &ParameterSets) -> Setup {
    Setup::ParameterSets {
        vps: sets.vps().cloned().collect(),
        sps: sets.sps().cloned().collect(),
        pps: sets.pps().cloned().collect(),
    }
}

fn track(id: u16, codec: Codec, setup: Setup) -> Track {
    Track { id, codec, setup, language: None }
}

fn aac() -> Setup {
    let format = AudioFormat { rate: 48_000, channels: 2 };
    Setup::Aac { config: Bytes::from_static(&[0x11, 0x90]), format }
}

fn tracks(video: Standard) -> Arc<Tracks> {
    let codec = if video == Standard::H264 { Codec::H264 } else { Codec::H265 };
    Arc::new(Tracks(vec![track(1, codec, setup(&sets(video))), track(2, Codec::Aac, aac())]))
}

fn prefixed(units: &[&[u8]]) -> Bytes {
    let length = |unit: &[u8]| (unit.len() as u32).to_be_bytes();
    units.iter().flat_map(|unit| [&length(unit)[..], unit].concat()).collect::<Vec<_>>().into()
}

/// A slice of a picture: the first bit says that it is the first one, and the next that it is of any kind (H.264).
fn slice(standard: Standard, key: bool, fill: u8) -> Bytes {
    let head: &[u8] = match (standard, key) {
        (Standard::H264, true) => &[0x65, 0x88],
        (Standard::H264, false) => &[0x41, 0x9A],
        (Standard::H265, true) => &[0x26, 0x01, 0x80],
        (Standard::H265, false) => &[0x02, 0x01, 0x80],
    };
    prefixed(&[&[head, &vec![fill; 6000]].concat()])
}

fn frame(tracks: &Arc<Tracks>, track: usize, (pts, dts): (Ticks, Ticks), key: bool, data: Bytes) -> Frame {
    Frame { tracks: tracks.clone(), track, pts, dts, random_access: key, arrival: 5, data }
}

/// A second with B-frames and sound from `start` on.
fn second(standard: Standard, start: Ticks) -> Vec<Frame> {
    let tracks = tracks(standard);
    let mut frames = Vec::new();
    for i in 0..30 {
        let dts = start + i * 3000;
        // I P B B P B B: shown at 1 4 2 3 7 5 6
        let shown = [1, 4, 2, 3, 7, 5, 6, 10, 8, 9][i as usize % 10] + i / 10 * 10;
        let pts = start + shown * 3000;
        frames.push(frame(&tracks, 0, (pts, dts), i == 0, slice(standard, i == 0, i as u8)));
        frames.push(frame(&tracks, 1, (dts + 30, dts + 30), true, vec![0x21, i as u8].into()));
    }
    frames
}

fn mux(frames: &[Frame]) -> (FlvMux, Vec<FlvMessage>) {
    let mut mux = FlvMux::new(FlvConfig { chunk_size: CHUNK, stream: 1 });
    let mut out = Vec::new();
    frames.iter().for_each(|frame| mux.push(frame, &mut out));
    (mux, out)
}

fn read(bytes: &[u8]) -> Vec<Message> {
    let mut reader = Reader::new(Limits::default());
    reader.resize(CHUNK).unwrap();
    let mut input = bytes;
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input).unwrap() {
        assert_eq!(message.stream, 1);
        messages.push(message);
    }
    messages
}

fn demux(messages: &[FlvMessage]) -> (FlvDemux, Vec<Frame>) {
    let mut demux = FlvDemux::new();
    let bytes: Vec<u8> = messages.iter().flat_map(|message| message.bytes.to_vec()).collect();
    let frames = read(&bytes).iter().filter_map(|message| demux.push(message, 5).unwrap()).collect();
    (demux, frames)
}

#[test]
fn frames_come_back_with_their_times_and_sets() {
    for standard in [Standard::H264, Standard::H265] {
        let start = 777_777;
        let sent = second(standard, start);
        let (mux, messages) = mux(&sent);
        assert_eq!(mux.waiting(), 0);
        let (demux, got) = demux(&messages);
        assert_eq!(got.len(), sent.len());
        assert_eq!(**demux.tracks(), *tracks(standard));
        for (got, sent) in got.iter().zip(&sent) {
            assert_eq!((got.track, got.random_access), (sent.track, sent.random_access));
            assert_eq!(got.data, sent.data);
            let error = |got: Ticks, sent: Ticks| sent - start - got;
            assert!((0..90).contains(&error(got.dts, sent.dts)), "dts");
            assert!((0..90).contains(&error(got.pts, sent.pts)), "pts");
        }
        let metadata = demux.metadata().unwrap();
        assert_eq!((metadata.width, metadata.height), (Some(640.0), Some(360.0)));
        assert_eq!((metadata.sample_rate, metadata.stereo), (Some(48_000.0), Some(true)));
    }
}

#[test]
fn setup_comes_first_once_and_with_every_place_to_start() {
    let mut sent = second(Standard::H264, 0);
    sent.extend(second(Standard::H264, 90_000));
    let (_, messages) = mux(&sent);
    let kinds: Vec<FlvKind> = messages.iter().take(6).map(|message| message.kind).collect();
    let setup = FlvKind::Setup;
    assert_eq!(kinds, [setup, setup, setup, FlvKind::Key, FlvKind::Audio, FlvKind::Inter]);
    // The second has tracks of its own that say the same.
    assert_eq!(messages.iter().filter(|message| message.kind == setup).count(), 3);
    let starts: Vec<&FlvMessage> = messages.iter().filter(|message| message.setup.is_some()).collect();
    assert!(starts.iter().all(|message| message.kind == FlvKind::Key));
    let times: Vec<u32> = starts.iter().map(|message| message.timestamp).collect();
    assert_eq!(times, [0, 1000]);
    let setup = read(starts[1].setup.as_ref().unwrap());
    let said: Vec<(u8, u32)> = setup.iter().map(|message| (message.kind, message.timestamp)).collect();
    assert_eq!(said, [(kind::DATA, 1000), (kind::VIDEO, 1000), (kind::AUDIO, 1000)]);
    assert!(read_metadata(&read_data(&setup[0]).0).is_some());
    assert_eq!(setup[1].payload[5..], avcc(&sets(Standard::H264)).unwrap());
    assert_eq!(setup[2].payload[..], [0xAF, 0, 0x11, 0x90]);
}

#[test]
fn new_parameter_sets_in_the_stream_are_announced() {
    let mut sent = second(Standard::H264, 0);
    let mut changed = second(Standard::H264, 90_000);
    // the same set but for its level
    let mut sps = sets(Standard::H264).sps().next().unwrap().to_vec();
    sps[3] += 1;
    changed[0].data = [prefixed(&[&sps]), changed[0].data.clone()].concat().into();
    sent.extend(changed);
    let (_, messages) = mux(&sent);
    let at = messages.iter().rposition(|message| message.kind == FlvKind::Setup).unwrap();
    assert_eq!((messages[at].timestamp, messages[at + 1].kind), (1000, FlvKind::Key));
    let [record] = read(&messages[at].bytes).try_into().unwrap();
    assert_eq!(record.payload[8], sps[3]);
    let (demux, _) = demux(&messages);
    let Setup::ParameterSets { sps: got, .. } = &demux.tracks().0[0].setup else { panic!() };
    assert_eq!(got[0], sps);
}

#[test]
fn nothing_is_sent_that_no_decoder_could_start_with() {
    let bare =
        Arc::new(Tracks(vec![track(1, Codec::H264, Setup::Unknown), track(2, Codec::Aac, Setup::Unknown)]));
    let frames = [
        frame(&bare, 0, (0, 0), true, slice(Standard::H264, true, 1)),
        frame(&bare, 1, (0, 0), true, vec![1].into()),
    ];
    let (mux, messages) = mux(&frames);
    assert_eq!(mux.waiting(), 2);
    assert!(messages.iter().all(|message| message.kind == FlvKind::Setup), "{messages:?}");
}

#[test]
fn times_pass_2_24_and_2_32_milliseconds() {
    for wrap in [1i64 << 24, 1 << 32] {
        let sent: Vec<Frame> =
            [0, wrap - 500, wrap + 500].iter().flat_map(|start| second(Standard::H264, start * 90)).collect();
        let (_, messages) = mux(&sent);
        let media: Vec<&FlvMessage> = messages.iter().filter(|m| m.kind != FlvKind::Setup).collect();
        assert_eq!(media.len(), sent.len());
        for (message, sent) in media.iter().zip(&sent) {
            assert_eq!(message.timestamp, (sent.dts / 90) as u32);
        }
        // What a reader gets who comes in the middle: its setup, and the last two seconds.
        let mut late = vec![FlvMessage { bytes: media[60].setup.clone().unwrap(), ..media[60].clone() }];
        late.extend(media[60..].iter().map(|message| (*message).clone()));
        let (_, got) = demux(&late);
        assert_eq!(got.len(), 120);
        for (got, sent) in got.iter().zip(&sent[60..]) {
            assert_eq!((got.dts, got.pts), (sent.dts / 90 * 90, sent.pts / 90 * 90));
        }
    }
}

#[test]
fn a_publisher_whose_clock_jumps_goes_on() {
    let mut demux = FlvDemux::new();
    let mut at = |timestamp: u32, arrival_ms: u64| {
        let message = Message { kind: kind::AUDIO, timestamp, stream: 1, payload: vec![0x72, 0x55].into() };
        demux.push(&message, arrival_ms * 1_000_000).unwrap().unwrap().dts / 90
    };
    assert_eq!(at(u32::MAX - 9, 0), i64::from(u32::MAX) - 9);
    assert_eq!(at(10, 20), i64::from(u32::MAX) + 11, "a wrap is no jump");
    let last = at(30, 40);
    assert_eq!(at(3_600_000, 60), last + 20, "an hour forward");
    assert_eq!(at(3_600_020, 80), last + 40);
    assert_eq!(at(0, 100), last + 60, "and back to the start");
    assert_eq!(at(15_000, 15_100), last + 15_060, "a pause is no jump");
    assert_eq!(at(14_990, 15_110), last + 15_060, "never back within a track");
}

#[test]
fn tracks_without_a_slot_are_named() {
    let format = |rate, channels| Setup::Audio(AudioFormat { rate, channels });
    let all = Tracks(vec![
        track(1, Codec::Klv, Setup::Klv { synchronous: true }),
        track(2, Codec::Opus, format(48_000, 6)),
        track(3, Codec::H265, Setup::Unknown),
        track(4, Codec::PcmA, format(16_000, 1)),
        track(5, Codec::PcmU, format(8000, 1)),
        track(6, Codec::H264, Setup::Unknown),
        track(7, Codec::Aac, aac()),
    ]);
    let dropped = dropped_tracks(&all);
    let named: Vec<usize> = dropped.iter().map(|dropped| dropped.track).collect();
    assert_eq!(named, [0, 1, 3, 5, 6]);
    let way = "RTMP has no slot for KLV metadata; an output klv+udp://HOST:PORT beside this one carries it";
    assert_eq!(dropped[0].reason, way);
    assert_eq!(dropped_tracks(&tracks(Standard::H264)), []);
}

#[test]
fn mpeg_audio_of_layer_2_is_named_when_it_comes() {
    let layer = |layer: u8| {
        let tracks = Arc::new(Tracks(vec![track(1, Codec::MpegAudio, Setup::Unknown)]));
        let data = vec![0xFF, 0xF9 | (4 - layer) << 1, 0x90, 0, 0, 0, 0, 0];
        mux(&[frame(&tracks, 0, (0, 0), true, data.into())])
    };
    let (mux, messages) = layer(2);
    assert_eq!((mux.dropped().len(), messages.len()), (1, 0));
    let (mux, messages) = layer(3);
    assert_eq!(mux.dropped().len(), 0);
    let format = AudioFormat { rate: 48_000, channels: 2 };
    let told = |layer| Tracks(vec![track(1, Codec::MpegAudio, Setup::MpegAudio { layer, format })]);
    assert_eq!(dropped_tracks(&told(2))[0].reason, "RTMP carries MPEG audio of layer 3 only");
    assert_eq!(dropped_tracks(&told(3)), []);
    assert_eq!(messages.last().map(|message| message.kind), Some(FlvKind::Audio));
}

#[test]
fn sound_alone_can_be_started_once_a_second() {
    let tracks = Arc::new(Tracks(vec![track(1, Codec::PcmA, Setup::Unknown)]));
    let frames: Vec<Frame> =
        (0..100).map(|i| frame(&tracks, 0, (i * 1800, i * 1800), true, vec![0x55; 160].into())).collect();
    let (_, messages) = mux(&frames);
    let starts: Vec<u32> = messages.iter().filter(|m| m.setup.is_some()).map(|m| m.timestamp).collect();
    assert_eq!(starts, [0, 1000]);
    let (demux, got) = demux(&messages);
    assert_eq!(got.len(), 100);
    let format = AudioFormat { rate: 8000, channels: 1 };
    assert_eq!(demux.tracks().0[0].setup, Setup::Audio(format));
}

#[test]
fn delimiters_filler_and_short_lengths_of_a_publisher_are_made_good() {
    let sets = sets(Standard::H264);
    let mut record = avcc(&sets).unwrap();
    // lengths of two bytes
    record[4] = 0xFD;
    let tag = |head: [u8; 5], body: &[u8]| Message {
        kind: kind::VIDEO,
        timestamp: 40,
        stream: 1,
        payload: [&head[..], body].concat().into(),
    };
    let mut demux = FlvDemux::new();
    let early = tag([0x17, 1, 0, 0, 0], &[0, 2, 0x65, 0x88]);
    assert_eq!(demux.push(&early, 0).unwrap_err(), BadMedia::Early("video"));
    assert!(demux.push(&tag([0x17, 0, 0, 0, 0], &record), 0).unwrap().is_none());
    let units = [0, 2, 0x09, 0xF0, 0, 3, 0x65, 0x88, 7, 0, 3, 0x0C, 0xFF, 0x80];
    let got = demux.push(&tag([0x17, 1, 0, 0, 80], &units), 9).unwrap().unwrap();
    assert_eq!(got.data, prefixed(&[&[0x65, 0x88, 7]]));
    assert_eq!((got.dts, got.pts, got.random_access, got.arrival), (3600, 10_800, true, 9));
    let lie = demux.push(&tag([0x27, 1, 0, 0, 0], &[0, 9, 0x41]), 0);
    assert_eq!(lie.unwrap_err(), BadMedia::Units);
    let delimiter = demux.push(&tag([0x27, 1, 0, 0, 0], &[0, 2, 0x09, 0xF0]), 0);
    assert!(delimiter.unwrap().is_none());
    let before = demux.push(&tag([0x27, 1, 0xFF, 0xFF, 0xD8], &[0, 3, 0x41, 0x9A, 1]), 0).unwrap().unwrap();
    assert_eq!((before.pts, before.dts), (3600, 3600), "never decoded behind its presentation, never back");
}

#[test]
fn sound_that_metadata_promise_is_a_track_before_it_comes_and_none_if_it_never_does() {
    let (_, messages) = mux(&second(Standard::H264, 0));
    let mut pending = 0;
    for comes in [true, false] {
        let mut demux = FlvDemux::new();
        let sent = messages.iter().flat_map(|message| read(&message.bytes));
        for (n, message) in sent.filter(|message| comes || message.kind != kind::AUDIO).enumerate() {
            let arrival = n as u64 * 100_000_000;
            let Some(frame) = demux.push(&message, arrival).unwrap() else { continue };
            let told: Vec<_> = frame.tracks.0.iter().map(|track| track.codec).collect();
            let overdue = arrival > 2_100_000_000;
            let want: &[Codec] = if comes || !overdue { &[Codec::H264, Codec::Aac] } else { &[Codec::H264] };
            assert_eq!(told, want, "{comes} {n}");
            pending += usize::from(frame.tracks.0.get(1).is_some_and(|track| track.setup == Setup::Unknown));
        }
        assert_eq!(demux.tracks().0.get(1).map(|track| &track.setup), comes.then(aac).as_ref());
    }
    assert!(pending > 0);
}
