//! Frames enter, the transport streams that leave are held against what ST 1402 and the documentation promise.

use bytes::Bytes;

use super::*;
use crate::media::AudioFormat;
use crate::mux::{Demuxer, DemuxerOptions};
use crate::wire::h26x::annex_b;
use crate::wire::ts::demux::{Demux, Event};
use crate::wire::ts::packet::{PAT_PID, PCR_WRAP, Packet, pcr_delta};
use crate::wire::ts::psi::Pmt;

const MS: Nanos = 1_000_000;
const SPS: &[u8] = &[0x67, 66, 0xc0, 30, 0x80];
const PPS: &[u8] = &[0x68, 0x80, 1];

fn tracks(list: Vec<(TrackId, Codec, Setup)>) -> Arc<Tracks> {
    let track = |(id, codec, setup)| Track { id, codec, setup, language: None };
    Arc::new(Tracks(list.into_iter().map(track).collect()))
}

fn pictures_and(codec: Codec, setup: Setup) -> Arc<Tracks> {
    let copy = |set: &'static [u8]| vec![Bytes::from_static(set)];
    let sets = Setup::ParameterSets { vps: Vec::new(), sps: copy(SPS), pps: copy(PPS) };
    tracks(vec![(0x101, Codec::H264, sets), (0x102, codec, setup)])
}

fn sound() -> Arc<Tracks> {
    let format = AudioFormat { rate: 48_000, channels: 2 };
    pictures_and(Codec::Aac, Setup::Aac { config: Bytes::from_static(&[0x11, 0x90]), format })
}

fn frame(tracks: &Arc<Tracks>, track: usize, dts: Ticks, arrival: Nanos, data: &[u8]) -> Frame {
    let (tracks, data) = (Arc::clone(tracks), Bytes::copy_from_slice(data));
    Frame { tracks, track, pts: dts, dts, random_access: false, arrival, data }
}

fn picture(tracks: &Arc<Tracks>, dts: Ticks, arrival: Nanos, random_access: bool) -> Frame {
    let mut data = Vec::new();
    let slice: &[u8] = if random_access { &[0x65, 0x88, 0x80] } else { &[0x41, 0x9a, 0x80] };
    h26x::put_length_prefixed(slice, &mut data);
    Frame { random_access, ..frame(tracks, 0, dts, arrival, &data) }
}

/// What a PID carries, PES packet for PES packet, the last one left out if only a next one would end it.
fn units(stream: &[u8], pid: u16) -> Vec<(Option<u64>, bool, Vec<u8>)> {
    let (mut demux, mut found) = (Demux::new(None), Vec::new());
    let mut take = |event: Event<'_>| {
        if let Event::Pes(pes) = event
            && pes.pid == pid
        {
            found.push((pes.header.pts, pes.header.data_alignment, pes.data.to_vec()));
        }
    };
    demux.push(stream, &mut take);
    demux.flush(&mut take);
    found
}

fn clocks(stream: &[u8]) -> Vec<u64> {
    Packet::all(stream).filter_map(Packet::pcr).collect()
}

#[test]
fn a_picture_starts_with_a_delimiter_and_every_start_has_its_parameter_sets() {
    let tracks = sound();
    let mut muxer = Muxer::new(MuxerOptions::default());
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8], _: Nanos| stream.extend_from_slice(datagram);
    for n in 0..4 {
        muxer.push(&picture(&tracks, n * 3600, 0, n % 2 == 0), &mut sink);
    }
    // parameter sets in the picture are not there twice, and a message in front of them goes behind
    let mut data = Vec::new();
    let message: &[u8] = &[6, 5, 1, 9, 0x80];
    [message, SPS, PPS, &[0x65, 0x88, 0x80]]
        .iter()
        .for_each(|unit| h26x::put_length_prefixed(unit, &mut data));
    muxer.push(&Frame { random_access: true, ..frame(&tracks, 0, 20_000, 0, &data) }, &mut sink);
    muxer.flush(&mut sink);
    let kinds: Vec<Vec<u8>> = units(&stream, 0x101)
        .iter()
        .map(|unit| annex_b(&unit.2).map(|nal| nal[0] & 0x1f).collect())
        .collect();
    assert_eq!(kinds, [&[9, 7, 8, 5][..], &[9, 1], &[9, 7, 8, 5], &[9, 1], &[9, 7, 8, 6, 5]]);
}

#[test]
fn packets_wait_for_their_datagram_for_ten_milliseconds() {
    let tracks = sound();
    let mut muxer = Muxer::new(MuxerOptions::default());
    let mut sent = Vec::new();
    let mut sink = |datagram: &[u8], arrival: Nanos| sent.push((datagram.len() / 188, arrival));
    muxer.push(&picture(&tracks, 9000, 100 * MS, true), &mut sink);
    assert_eq!(muxer.waiting_since(), Some(100 * MS));
    muxer.tick(109 * MS, &mut sink);
    muxer.tick(110 * MS, &mut sink);
    assert_eq!(muxer.waiting_since(), None);
    // tables, the picture and the clock behind it
    assert_eq!(sent, [(3, 100 * MS)]);
}

#[test]
fn clock_and_tables_go_on_while_nothing_comes_and_stop_before_frames_would_be_late() {
    let tracks = sound();
    let mut muxer = Muxer::new(MuxerOptions::default());
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8], _: Nanos| stream.extend_from_slice(datagram);
    muxer.push(&picture(&tracks, 90_000, 0, true), &mut sink);
    for now in 1..100 {
        muxer.tick(now * 10 * MS, &mut sink);
    }
    // it comes late, and its time is still ahead
    muxer.push(&picture(&tracks, 93_600, 1_000 * MS, false), &mut sink);
    muxer.flush(&mut sink);
    let clocks = clocks(&stream);
    assert!(clocks.windows(2).all(|pair| (1..=40 * 27_000).contains(&pcr_delta(pair[0], pair[1]))));
    let last = *clocks.last().unwrap();
    assert!(pcr_delta(clocks[0], last) >= 140 * 27_000 && (last as i64) < 93_600 * 300);
    assert_eq!(muxer.counters().late, 0);
    assert!(Packet::all(&stream).filter(|packet| packet.pid() == PAT_PID).count() >= 2);
}

#[test]
fn the_delay_grows_to_what_the_tracks_need_and_the_clock_never_goes_back() {
    let tracks = sound();
    let mut muxer = Muxer::new(MuxerOptions::default());
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8], _: Nanos| stream.extend_from_slice(datagram);
    for n in 0..200 {
        let dts = 1_000_000 + n * 3600;
        muxer.push(&picture(&tracks, dts, n as u64 * 40 * MS, n % 25 == 0), &mut sink);
        // sound comes a second behind
        muxer.push(&frame(&tracks, 1, dts - 90_000, n as u64 * 40 * MS, &[1; 100]), &mut sink);
    }
    let late = muxer.counters().late;
    assert!((1..50).contains(&late), "{late}");
    for n in 200..400 {
        let dts = 1_000_000 + n * 3600;
        muxer.push(&picture(&tracks, dts, n as u64 * 40 * MS, n % 25 == 0), &mut sink);
        muxer.push(&frame(&tracks, 1, dts - 90_000, n as u64 * 40 * MS, &[1; 100]), &mut sink);
    }
    muxer.flush(&mut sink);
    assert_eq!(muxer.counters().late, late);
    let clocks = clocks(&stream);
    assert!(clocks.windows(2).all(|pair| (1..=40 * 27_000).contains(&pcr_delta(pair[0], pair[1]))));
}

/// A KLV packet of this many bytes of value.
fn klv(length: usize) -> Vec<u8> {
    let mut packet = b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x01\x01\x00\x00\x00\x83".to_vec();
    packet.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    packet.extend((0..length).map(|i| i as u8));
    packet
}

#[test]
fn metadata_of_any_length_comes_through_in_both_carriages() {
    for synchronous in [false, true] {
        let tracks = pictures_and(Codec::Klv, Setup::Klv { synchronous });
        let mut muxer = Muxer::new(MuxerOptions::default());
        let mut demuxer = Demuxer::new(DemuxerOptions::default());
        let mut stream = Vec::new();
        let mut sink = |datagram: &[u8], _: Nanos| stream.extend_from_slice(datagram);
        let packets: Vec<_> = [10, 300, 65_500, 65_600, 200_000, 40].map(klv).into();
        for (n, packet) in packets.iter().enumerate() {
            let dts = n as Ticks * 3600;
            muxer.push(&picture(&tracks, dts, 0, true), &mut sink);
            muxer.push(&frame(&tracks, 1, dts, 0, packet), &mut sink);
        }
        muxer.flush(&mut sink);
        let found = units(&stream, 0x102);
        assert!(found.iter().all(|unit| unit.0.is_some() == synchronous));
        // what goes on with a packet is not aligned, but every part of synchronous metadata starts with a cell
        let aligned = found.iter().filter(|unit| unit.1).count();
        assert_eq!((found.len(), aligned), if synchronous { (11, 11) } else { (10, 6) });
        if synchronous {
            let cells: Vec<u8> = found.iter().map(|unit| unit.2[1]).collect();
            assert_eq!(cells, (0..11).collect::<Vec<u8>>());
        }
        let mut heard = Vec::new();
        demuxer.push(&stream, 0, &mut |frame| {
            if frame.track == 1 {
                heard.push(frame.data.to_vec());
            }
        });
        assert!(heard == packets, "{synchronous}");
        let setup = demuxer.tracks().0[1].setup.clone();
        assert_eq!(setup, Setup::Klv { synchronous });
    }
}

#[test]
fn several_packets_in_a_frame_get_cells_of_their_own() {
    let tracks = pictures_and(Codec::Klv, Setup::Klv { synchronous: true });
    let mut muxer = Muxer::new(MuxerOptions::default());
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8], _: Nanos| stream.extend_from_slice(datagram);
    muxer.push(&frame(&tracks, 1, 0, 0, &[klv(5), klv(6)].concat()), &mut sink);
    muxer.flush(&mut sink);
    let found = units(&stream, 0x102);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].2.len(), klv(5).len() + klv(6).len() + 10);
}

#[test]
fn the_program_changes_only_when_a_track_travels_otherwise() {
    let first = pictures_and(Codec::Klv, Setup::Klv { synchronous: false });
    let mut other = (*first).clone();
    other.0[0].setup = Setup::Unknown;
    let (other, third) = (Arc::new(other), pictures_and(Codec::Klv, Setup::Klv { synchronous: true }));
    let mut muxer = Muxer::new(MuxerOptions::default());
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8], _: Nanos| stream.extend_from_slice(datagram);
    for (n, tracks) in [&first, &other, &third].into_iter().enumerate() {
        muxer.push(&picture(tracks, n as Ticks * 3600, 0, true), &mut sink);
    }
    muxer.flush(&mut sink);
    let pmts =
        Packet::all(&stream).filter(|packet| packet.pid() == PMT_PID).filter_map(|packet| packet.payload());
    let pmts: Vec<_> = pmts.map(|payload| Pmt::parse(&payload[1..]).unwrap()).collect();
    let mut said: Vec<_> = pmts.iter().map(|pmt| (pmt.version, pmt.streams[1].stream_type)).collect();
    said.dedup();
    assert_eq!(said, [(0, 0x06), (1, 0x15)]);
    assert!(pmts.iter().all(|pmt| pmt.pcr_pid == 0x101));
    assert!(clocks(&stream).iter().all(|&clock| clock < PCR_WRAP));
}

#[test]
fn pids_are_those_of_the_tracks_where_they_can_be() {
    let mut used = vec![PMT_PID];
    let ids = [0x21, 0x21, 0, PMT_PID, 0x1fff, 0x102].map(|id| free_pid(id, &mut used));
    assert_eq!(ids, [0x21, 0x101, 0x102, 0x103, 0x104, 0x105]);
}
