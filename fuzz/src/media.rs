//! Access units: transport streams taken apart and put together, NAL units, frames of sound, metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millrace::media::{AudioFormat, Codec, Frame, Setup, Ticks, Track, Tracks};
use millrace::mux::{Damage, Demuxer, DemuxerOptions, Muxer, MuxerOptions};
use millrace::wire::aac::{Adts, Config, Latm, adts_header};
use millrace::wire::audio::{Splitter, Syntax, opus};
use millrace::wire::h26x::{
    ParameterSets, Picture, Record, Slice, Sps264, Sps265, Standard, annex_b, avcc, hvcc, length_prefixed,
    put_length_prefixed,
};
use millrace::wire::ts::metadata::{Metadata, klv_packets, put_cells};
use millrace::wire::ts::packet::{PACKET, SYNC};

use super::ts::mend_section;

/// Sync bytes and the checksums of short tables are put right. Whatever comes, times of each track only grow, and what
/// was taken apart can be put together and taken apart again without loss.
pub fn demuxer(data: &[u8]) {
    let Some((&[mode], data)) = data.split_first_chunk() else { return };
    let mut data = data.to_vec();
    let (packets, _) = data.as_chunks_mut::<PACKET>();
    for packet in packets.iter_mut() {
        packet[0] = SYNC;
        mend_section(packet);
    }
    let damage = if mode & 1 == 0 { Damage::GoOn } else { Damage::Wait };
    let program = (mode & 2 != 0).then_some(u16::from(mode >> 2));
    let mut demuxer = Demuxer::new(DemuxerOptions { program, damage });
    let mut frames = Vec::new();
    let packets: &[[u8; PACKET]] = packets;
    let mut arrival = 0;
    for datagram in packets.chunks(7) {
        arrival += u64::from(mode) * 1_000_000;
        demuxer.push(datagram.as_flattened(), arrival, &mut |frame| frames.push(frame));
    }
    demuxer.flush(arrival, &mut |frame| frames.push(frame));
    assert_eq!(demuxer.counters().frames, frames.len() as u64);
    check_times(&frames);
    let total: usize = frames.iter().map(|frame| frame.data.len()).sum();
    assert!(total <= 4 * data.len() + 64);
    let _ = (demuxer.skew(), demuxer.ignored().count());
    round_trip(&frames, (mode & 4 != 0).then_some(20_000_000));
}

/// Frames of any kind and any times: what leaves is whole packets, and comes back.
pub fn muxer(data: &[u8]) {
    let Some((&[mode, tracks], mut data)) = data.split_first_chunk() else { return };
    let tracks: Vec<Track> = (0..tracks % 8).map(|n| track(n, tracks >> 3)).collect();
    let kinds: Vec<Codec> = tracks.iter().map(|track| track.codec).collect();
    let tracks = Arc::new(Tracks(tracks));
    let mut frames = Vec::new();
    let (mut dts, mut last): (Ticks, BTreeMap<usize, Ticks>) = (i64::from(mode) << 26, BTreeMap::new());
    while let Some((&[track, later, step, length], rest)) = data.split_first_chunk() {
        let (body, rest) = rest.split_at(usize::from(length).min(rest.len()));
        data = rest;
        let track = usize::from(track % 8);
        dts += (Ticks::from(step) - 16) * 300;
        let own = last.get(&track).map_or(dts, |last| dts.max(last + 1));
        last.insert(track, own);
        let mut bytes = Vec::new();
        match kinds.get(track) {
            Some(Codec::H264) => put_length_prefixed(&[&[0x41, 0x9a], body, &[0x80]].concat(), &mut bytes),
            Some(Codec::H265) => put_length_prefixed(&[&[0x02, 0x01], body, &[0x80]].concat(), &mut bytes),
            _ => bytes.extend_from_slice(body),
        }
        if step == 255 {
            bytes = bytes.repeat(300);
        }
        frames.push(Frame {
            tracks: Arc::clone(&tracks),
            track,
            pts: own + Ticks::from(later) * 90,
            dts: own,
            random_access: later % 2 == 0,
            arrival: dts.max(0) as u64 * 11_111,
            data: Bytes::from(bytes),
        });
    }
    let mut muxer =
        Muxer::new(MuxerOptions { rate: (mode & 1 != 0).then_some(1_000_000), ..MuxerOptions::default() });
    let mut sink = |datagram: &[u8], _: u64| {
        assert!(
            !datagram.is_empty() && datagram.len() <= 7 * PACKET && datagram.len().is_multiple_of(PACKET)
        );
        assert!(datagram.iter().step_by(PACKET).all(|&byte| byte == SYNC));
    };
    for frame in &frames {
        muxer.push(frame, &mut sink);
        muxer.tick(frame.arrival + 15_000_000, &mut sink);
    }
    muxer.flush(&mut sink);
    assert_eq!(muxer.waiting_since(), None);
}

/// NAL units, parameter sets, slices and records of both standards.
pub fn h26x(data: &[u8]) {
    for standard in [Standard::H264, Standard::H265] {
        let mut sets = ParameterSets::new(standard);
        let mut picture = Picture::default();
        let mut sample = Vec::new();
        let mut bytes = 0;
        for unit in annex_b(data) {
            bytes += unit.len();
            picture.take(standard, unit);
            sets.take(unit);
            let _ = Slice::parse(standard, unit);
            put_length_prefixed(unit, &mut sample);
        }
        assert!(bytes <= data.len());
        assert!(annex_b(data).eq(length_prefixed(&sample, 4)));
        assert!(length_prefixed(data, 1 + data.len() % 4).map(<[u8]>::len).sum::<usize>() <= data.len());
        let _ = (picture.is_random_access(true), sets.is_complete(), sets.sequence());
        let record = match standard {
            Standard::H264 => avcc(&sets),
            Standard::H265 => hvcc(&sets),
        };
        if let Ok(record) = record {
            // A record says a set once; whatever was taken comes back.
            let read = Record::parse(standard, &record).expect("what was made can be read");
            assert!(read.sets.all().eq(sets.all()));
        }
        let _ = Record::parse(standard, data);
    }
    let _ = (Sps264::parse(&[&[0x67], data].concat()), Sps265::parse(&[&[0x42, 0x01], data].concat()));
}

/// ADTS, LATM, AudioSpecificConfig and the frames of other sound.
pub fn sound(data: &[u8]) {
    let Some((&[cut], data)) = data.split_first_chunk() else { return };
    if let Some(config) = Config::parse(data) {
        let again = Config::parse(&config.to_bytes()).expect("what was written can be read");
        assert_eq!(
            (again.rate, again.channels, again.object_type),
            (config.rate, config.channels, config.object_type)
        );
    }
    if let Some(adts) = Adts::parse(data) {
        assert!(adts.header_len < adts.length);
        let header = adts_header(adts.config, adts.length - adts.header_len);
        let same = header.and_then(|header| Adts::parse(&header)).map(|again| again.config);
        assert!(adts.config.channels == 0 || adts.length > 8184 || same == Some(adts.config));
    }
    let size = usize::from(cut).max(1);
    for syntax in [Syntax::Adts, Syntax::Loas, Syntax::Mpeg, Syntax::Ac3] {
        let (mut splitter, mut latm, mut bytes) = (Splitter::new(syntax), Latm::new(), 0);
        for payload in data.chunks(size) {
            splitter.push(payload, &mut |found| {
                assert_eq!(found.frame.len(), found.header.length);
                bytes += found.frame.len();
                let element = found.frame.get(3..).unwrap_or_default();
                let _ = latm.push(element, true, &mut |unit| assert!(unit.len() <= element.len()));
            });
        }
        assert!(bytes as u64 + splitter.junk_bytes() <= data.len() as u64);
    }
    let mut latm = Latm::with_config(data).unwrap_or_default();
    let _ = latm.push(data, false, &mut |_| {});
    let mut rest = data;
    while let Some((packet, behind)) = opus::split(rest) {
        let _ = opus::samples(packet);
        rest = behind;
    }
    let mut written = Vec::new();
    opus::put_header(data.len(), &mut written);
    written.extend_from_slice(data);
    assert!(data.is_empty() || opus::split(&written) == Some((data, &[][..])));
}

/// PES packets of metadata, labels put where they are looked for; cells survive being made and read.
pub fn metadata(data: &[u8]) {
    const LABEL: [u8; 4] = [0x06, 0x0e, 0x2b, 0x34];
    let mut metadata = Metadata::default();
    let (mut bytes, mut taken) = (0, 0);
    let mut rest = data;
    while let Some((&[place, length], behind)) = rest.split_first_chunk() {
        let (payload, next) = behind.split_at((usize::from(length) * 4).min(behind.len()));
        let mut payload = payload.to_vec();
        let at = [0, 5, 20, usize::MAX][usize::from(place % 4)];
        if let Some(label) = payload.get_mut(at..at.saturating_add(4)) {
            label.copy_from_slice(&LABEL);
        }
        if place & 4 != 0 && payload.len() > 5 {
            let length = (payload.len() - 5) as u16;
            payload[3..5].copy_from_slice(&length.to_be_bytes());
        }
        metadata.start();
        let step = usize::from(place >> 3) * 8 + 1;
        payload.chunks(step).for_each(|part| metadata.feed(part, &mut |unit, _| bytes += unit.len()));
        metadata.finish(&mut |unit, _| bytes += unit.len());
        if place & 7 == 7 {
            metadata.reset();
        }
        // Nothing leaves twice.
        taken += payload.len();
        assert!(bytes <= taken);
        assert_eq!(klv_packets(&payload).map(<[u8]>::len).sum::<usize>(), payload.len());
        rest = next;
    }
    metadata.flush(&mut |unit, _| bytes += unit.len());
    assert!(bytes <= taken);
    let length = (data.len() as u32).to_be_bytes();
    let unit = [&LABEL[..], &[2, 3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x84], &length, data].concat();
    let (mut sequence, mut cells, mut found) = (7, Vec::new(), Vec::new());
    put_cells(&unit, data.len() / 3 + 8, &mut sequence, &mut cells);
    Metadata::default().push(&cells, &mut |unit, _| found.push(unit.to_vec()));
    assert!(found == [unit]);
}

/// What was taken apart once goes through a muxer and a demuxer: the same frames of each track come out, and no packet
/// is missing in between.
fn round_trip(frames: &[Frame], rate: Option<u64>) {
    let mut muxer = Muxer::new(MuxerOptions { rate, ..MuxerOptions::default() });
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8], _: u64| stream.extend_from_slice(datagram);
    frames.iter().for_each(|frame| muxer.push(frame, &mut sink));
    muxer.flush(&mut sink);
    let mut demuxer = Demuxer::new(DemuxerOptions::default());
    let mut again = Vec::new();
    for datagram in stream.chunks(7 * PACKET) {
        demuxer.push(datagram, 0, &mut |frame| again.push(frame));
    }
    demuxer.flush(0, &mut |frame| again.push(frame));
    let counters = demuxer.packets();
    assert_eq!((counters.errors, counters.losses, counters.damaged), (0, 0, 0));
    check_times(&again);
}

fn check_times(frames: &[Frame]) {
    // A PID that carries something else from here on is another track.
    let mut last: BTreeMap<(u16, Codec), Ticks> = BTreeMap::new();
    for frame in frames {
        let track = frame.track().expect("a frame has a track");
        assert!(frame.dts <= frame.pts);
        let before = last.insert((track.id, track.codec), frame.dts);
        assert!(before.is_none_or(|before| before < frame.dts), "{before:?} {}", frame.dts);
        if let Codec::H264 | Codec::H265 = track.codec {
            let mut units = length_prefixed(&frame.data, 4);
            assert!(units.by_ref().count() > 0 && units.is_whole());
        }
    }
}

/// One of the kinds of track that there are.
fn track(n: u8, variant: u8) -> Track {
    let format = AudioFormat { rate: if variant & 1 == 0 { 48_000 } else { 22_050 }, channels: variant };
    let (codec, setup) = match (n + variant) % 10 {
        0 | 1 => (Codec::H264, Setup::Unknown),
        2 => (Codec::H265, Setup::Unknown),
        3 => (Codec::Aac, Setup::Aac { config: Bytes::from_static(&[0x11, 0x90]), format }),
        4 => (Codec::MpegAudio, Setup::Audio(format)),
        5 => (Codec::Ac3, Setup::Audio(format)),
        6 => (Codec::Opus, Setup::Audio(format)),
        7 => (Codec::Klv, Setup::Klv { synchronous: true }),
        8 => (Codec::Klv, Setup::Klv { synchronous: false }),
        _ => (Codec::PcmA, Setup::Audio(format)),
    };
    Track { id: u16::from(n) * u16::from(variant), codec, setup, language: Some(*b"eng") }
}
