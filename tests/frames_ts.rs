//! Transport streams are taken apart into frames, put together and taken apart again: every access unit must come
//! through, with its times, and what was put together must please programs that others wrote.
#![allow(clippy::disallowed_methods, reason = "tests run other programs")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use millrace::media::{Codec, Frame, Kind, Nanos, Setup, Ticks, Tracks};
use millrace::mux::{Damage, Demuxer, DemuxerOptions, Muxer, MuxerOptions};
use millrace::wire::h26x::{self, Standard, length_prefixed};
use support::{require, streams, testdata, verified};

const DATAGRAM: usize = 7 * 188;

/// Every frame of a stream, its datagrams coming as fast as they are made at 1 Mb/s.
fn demux(stream: &[u8], options: DemuxerOptions) -> (Vec<Frame>, Demuxer) {
    let mut demuxer = Demuxer::new(options);
    let mut frames = Vec::new();
    let mut arrival = 0;
    for datagram in stream.chunks(DATAGRAM) {
        arrival += 10_000_000;
        demuxer.push(datagram, arrival, &mut |frame| frames.push(frame));
    }
    demuxer.flush(arrival, &mut |frame| frames.push(frame));
    (frames, demuxer)
}

/// The stream that frames make, and the muxer behind it.
fn mux(frames: &[Frame], options: MuxerOptions) -> (Vec<u8>, Muxer) {
    let mut muxer = Muxer::new(options);
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8], _: Nanos| {
        assert!(!datagram.is_empty() && datagram.len() <= DATAGRAM && datagram.len().is_multiple_of(188));
        stream.extend_from_slice(datagram);
    };
    frames.iter().for_each(|frame| muxer.push(frame, &mut sink));
    muxer.flush(&mut sink);
    (stream, muxer)
}

/// What must not change of a track: what it is, and (data, PTS, random access) of each frame.
#[derive(Debug, PartialEq)]
struct Heard {
    codec: Codec,
    language: Option<[u8; 3]>,
    frames: Vec<(Vec<Bytes>, Ticks, bool)>,
}

fn standard(codec: Codec) -> Option<Standard> {
    match codec {
        Codec::H264 => Some(Standard::H264),
        Codec::H265 => Some(Standard::H265),
        _ => None,
    }
}

/// Pictures: NAL units without delimiters, filler and parameter sets, which are compared as setups of the tracks. KLV
/// and sound: all bytes of a unit.
fn heard(frames: &[Frame], id: u16) -> Heard {
    let of_track = || frames.iter().filter(|frame| frame.track().is_some_and(|track| track.id == id));
    let first = of_track().next().unwrap_or_else(|| panic!("no frame of {id:#x}"));
    let track = first.track().expect("a track");
    let mut listed = Vec::new();
    for frame in of_track() {
        let units = match standard(track.codec) {
            None => vec![frame.data.clone()],
            Some(standard) => {
                let mut reader = length_prefixed(&frame.data, 4);
                let units = reader.by_ref().map(|unit| frame.data.slice_ref(unit)).collect::<Vec<_>>();
                assert!(reader.is_whole());
                let keep = |unit: &Bytes| match standard.kind_of(unit) {
                    h26x::Kind::Delimiter | h26x::Kind::Filler => panic!("a delimiter or filler is left"),
                    h26x::Kind::Vps | h26x::Kind::Sps | h26x::Kind::Pps => false,
                    _ => true,
                };
                units.into_iter().filter(keep).collect()
            }
        };
        listed.push((units, frame.pts - first.pts, frame.random_access));
    }
    Heard { codec: track.codec, language: track.language, frames: listed }
}

fn ids(tracks: &Tracks) -> Vec<u16> {
    tracks.0.iter().map(|track| track.id).collect()
}

fn check_order(frames: &[Frame], name: &str) {
    let mut last: std::collections::BTreeMap<usize, Ticks> = std::collections::BTreeMap::new();
    for frame in frames {
        assert!(frame.dts <= frame.pts, "{name}");
        let before = last.insert(frame.track, frame.dts);
        assert!(before.is_none_or(|before| before < frame.dts), "{name}: {before:?} {}", frame.dts);
    }
}

/// Takes apart, puts together, takes apart, and compares.
fn round_trip(name: &str, stream: &[u8], options: MuxerOptions) -> (Vec<Frame>, Vec<u8>) {
    let (frames, demuxer) = demux(stream, DemuxerOptions::default());
    assert!(!frames.is_empty(), "{name}");
    check_order(&frames, name);
    let tracks = Arc::clone(demuxer.tracks());
    let (made, muxer) = mux(&frames, options);
    assert_eq!(muxer.refused(), [], "{name}");
    // ffmpeg collects half a second of sound in a PES packet: it takes the delay two or three of them to grow to that.
    assert!(muxer.counters().late <= 3, "{name}: {}", muxer.counters().late);
    let (again, second) = demux(&made, DemuxerOptions::default());
    check_order(&again, name);
    assert_eq!(second.packets().losses + second.packets().damaged + second.packets().refused, 0, "{name}");
    let silent = |id: &u16| frames.iter().all(|frame| frame.track().is_none_or(|track| track.id != *id));
    let mut heard_of = ids(second.tracks());
    heard_of.retain(|id| !silent(id));
    let mut wanted = ids(&tracks);
    // A stream that the tables name and nobody sends has nothing to compare.
    wanted.retain(|id| !silent(id));
    assert_eq!(heard_of, wanted, "{name}");
    for track in tracks.0.iter().filter(|track| !silent(&track.id)) {
        let (mut before, mut after) = (heard(&frames, track.id), heard(&again, track.id));
        if track.setup == (Setup::Klv { synchronous: false }) {
            // It has no time on the wire.
            for heard in [&mut before, &mut after] {
                heard.frames.iter_mut().for_each(|frame| frame.1 = 0);
            }
        }
        assert_eq!(before.frames.len(), after.frames.len(), "{name} {}", track.codec.name());
        for (n, (before, after)) in before.frames.iter().zip(&after.frames).enumerate() {
            assert!((before.1 - after.1).abs() <= 1, "{name} {n}: {} {}", before.1, after.1);
            // Without the bytes: nobody could read them.
            assert!((&before.0, before.2) == (&after.0, after.2), "{name} {n} {}", track.codec.name());
        }
        assert_eq!(before.language, after.language, "{name}");
        let setup = |tracks: &Tracks| tracks.0.iter().find(|t| t.id == track.id).map(|t| t.setup.clone());
        assert_eq!(setup(&tracks), setup(second.tracks()), "{name}");
    }
    (frames, made)
}

#[test]
fn every_access_unit_of_every_sample_comes_through() {
    for (name, stream) in streams() {
        for rate in [None, Some(2_000_000)] {
            let (frames, _) = round_trip(&name, &stream, MuxerOptions { rate, ..MuxerOptions::default() });
            let of = |kind: Kind| {
                frames.iter().filter(|f| f.track().map(|t| t.codec.kind()) == Some(kind)).count()
            };
            let (pictures, metadata) = (of(Kind::Video), of(Kind::Metadata));
            match name.as_str() {
                // twelve packets are missing, two of them the first of a picture, which takes the one before along
                "h264_cc_loss.ts" => assert_eq!(pictures, 166),
                _ => assert_eq!(pictures, 180, "{name}"),
            }
            assert_eq!(metadata, if name == "h264_dualklv.ts" { 120 } else { 60 }, "{name}");
        }
    }
}

#[test]
fn an_independent_verifier_finds_nothing_wrong_with_what_is_put_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let constant = MuxerOptions { rate: Some(2_000_000), ..MuxerOptions::default() };
    for name in ["h264_async.ts", "h264_sync.ts", "h265_sync.ts"] {
        let stream = std::fs::read(testdata("ts").join(name)).expect("a stream");
        for (options, rate) in [(MuxerOptions::default(), "variable"), (constant, "constant")] {
            let (_, made) = round_trip(name, &stream, options);
            let file = folder.path().join(format!("{rate}_{name}"));
            std::fs::write(&file, &made).expect("a file");
            let Some(errors) = verified(&file) else { return };
            assert_eq!(errors, [""; 0], "{name} at a {rate} rate");
        }
    }
}

#[test]
fn what_is_kept_behind_a_loss_can_be_decoded_if_asked() {
    let (_, stream) = streams().into_iter().find(|(name, _)| name == "h264_cc_loss.ts").expect("the sample");
    let (frames, demuxer) =
        demux(&stream, DemuxerOptions { damage: Damage::Wait, ..DemuxerOptions::default() });
    let pictures: Vec<_> =
        frames.iter().filter(|f| f.track().is_some_and(|t| t.codec == Codec::H264)).collect();
    assert_eq!((pictures.len(), demuxer.counters().damaged), (11, 12));
    assert_eq!(demuxer.counters().waiting, 180 - 14 - 11);
    // every place where something is missing ends at a place to start
    for pair in pictures.windows(2) {
        assert!(pair[1].pts - pair[0].pts == 3000 || pair[1].random_access);
    }
}

/// A clip that ffmpeg made: its name, and the codecs and frames that must come out.
const CLIPS: [(&str, [(Codec, usize); 2]); 6] = [
    ("h264_bframes_aac.ts", [(Codec::H264, 100), (Codec::Aac, 189)]),
    ("h265_bframes_mp2.ts", [(Codec::H265, 100), (Codec::MpegAudio, 167)]),
    ("h264_ac3.ts", [(Codec::H264, 100), (Codec::Ac3, 125)]),
    ("h264_opus.ts", [(Codec::H264, 100), (Codec::Opus, 201)]),
    ("h264_refresh_latm.ts", [(Codec::H264, 100), (Codec::Aac, 189)]),
    ("h264_fields_mp3.ts", [(Codec::H264, 100), (Codec::MpegAudio, 168)]),
];

fn clip(name: &str) -> Vec<u8> {
    std::fs::read(testdata("clips").join(name)).expect("a clip")
}

#[test]
fn every_access_unit_of_every_clip_comes_through() {
    for (name, tracks) in CLIPS {
        let (frames, _) = round_trip(name, &clip(name), MuxerOptions::default());
        let found: Vec<_> = frames[0].tracks.0.iter().map(|track| track.codec).collect();
        assert_eq!(found, tracks.map(|track| track.0), "{name}");
        for (codec, count) in tracks {
            let frames = frames.iter().filter(|f| f.track().map(|t| t.codec) == Some(codec));
            assert_eq!(frames.count(), count, "{name} {}", codec.name());
        }
        let starts = frames.iter().filter(|f| f.random_access && f.track == 0).count();
        assert!(starts >= 4, "{name}: {starts}");
    }
}

/// What ffprobe says of the packets of a stream, checked to be without errors: (stream, PTS, DTS).
fn probe(stream: &[u8]) -> Vec<(usize, i64, i64)> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), stream).expect("written");
    let out = std::process::Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "packet=stream_index,pts,dts", "-of", "csv=p=0"])
        .arg(file.path())
        .output()
        .expect("ffprobe");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    let text = String::from_utf8(out.stdout).expect("text");
    let mut packets: Vec<_> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut fields = line.split(',').map(|field| field.parse().unwrap_or(i64::MIN));
            let mut field = || fields.next().expect("three fields");
            (field() as usize, field(), field())
        })
        .collect();
    packets.sort_by_key(|packet| packet.0);
    packets
}

#[test]
fn ffmpeg_sees_the_same_packets_and_decodes_them_without_errors() {
    require!("ffprobe", "ffmpeg");
    for (name, _) in CLIPS {
        let stream = clip(name);
        for rate in [None, Some(1_000_000)] {
            let (_, made) = round_trip(name, &stream, MuxerOptions { rate, ..MuxerOptions::default() });
            let (before, after) = (probe(&stream), probe(&made));
            assert_eq!(before.len(), after.len(), "{name}");
            for (before, after) in before.iter().zip(&after) {
                assert!(
                    before.0 == after.0 && (before.1 - after.1).abs() <= 1 && (before.2 - after.2).abs() <= 1,
                    "{name} {before:?} {after:?}"
                );
            }
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), &made).expect("written");
            let out = std::process::Command::new("ffmpeg")
                .args(["-v", "warning", "-xerror", "-err_detect", "explode", "-i"])
                .arg(file.path())
                .args(["-f", "null", "-"])
                .output()
                .expect("ffmpeg");
            assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{name}");
            assert!(out.status.success());
        }
    }
}

#[test]
fn a_stream_that_starts_ten_seconds_before_the_wrap_goes_through() {
    const WRAP: i64 = 1 << 33;
    // sound is longer than pictures by a part of a frame
    const LENGTH: i64 = 4 * 90_000 + 3_600;
    let (mut frames, _) = demux(&clip("h264_bframes_aac.ts"), DemuxerOptions::default());
    // six times in a row, each behind the other, from ten seconds before the wrap on
    let start = frames.iter().map(|frame| frame.dts).min().expect("frames");
    let once = frames.clone();
    for turn in 1..6 {
        let turn = once.iter().map(|frame| Frame {
            pts: frame.pts + turn * LENGTH,
            dts: frame.dts + turn * LENGTH,
            ..frame.clone()
        });
        frames.extend(turn);
    }
    for frame in &mut frames {
        let shift = WRAP - 10 * 90_000 - start;
        (frame.pts, frame.dts) = (frame.pts + shift, frame.dts + shift);
    }
    let (made, muxer) = mux(&frames, MuxerOptions::default());
    assert!(muxer.counters().late <= 3);
    let (again, demuxer) = demux(&made, DemuxerOptions::default());
    assert_eq!((again.len(), demuxer.timeline().jumps()), (frames.len(), 0));
    check_order(&again, "wrap");
    let mut last = again.iter().filter(|frame| frame.track == 0);
    let first = last.next().expect("a picture");
    assert!(first.dts < WRAP && last.next_back().expect("another").dts > WRAP);
    for (before, after) in [0, 1].map(|track| {
        let of =
            |frames: &[Frame]| frames.iter().filter(|f| f.track == track).map(|f| f.pts).collect::<Vec<_>>();
        (of(&frames), of(&again))
    }) {
        assert!(before.iter().zip(&after).all(|(before, after)| (before - after).abs() <= 1));
    }
}

#[test]
fn what_a_transport_stream_cannot_carry_is_refused_by_name() {
    let (frames, _) = demux(&clip("h264_ac3.ts"), DemuxerOptions::default());
    let mut tracks = (*frames[0].tracks).clone();
    tracks.0[1].codec = Codec::PcmA;
    let tracks = Arc::new(tracks);
    let frames: Vec<_> =
        frames.into_iter().map(|frame| Frame { tracks: Arc::clone(&tracks), ..frame }).collect();
    let (made, muxer) = mux(&frames, MuxerOptions::default());
    let said: Vec<_> = muxer.refused().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["Unsupported: track 257 is G.711 A-law, for which a transport stream has no stream type"]
    );
    assert_eq!(muxer.counters().refused, 125);
    let (again, demuxer) = demux(&made, DemuxerOptions::default());
    assert_eq!((again.len(), demuxer.tracks().0.len()), (100, 1));
}
