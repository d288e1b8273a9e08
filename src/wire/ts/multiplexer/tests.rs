//! Units enter, the packets that leave are held against them: counters, clocks, tables, bytes.

use proptest::prelude::*;

use super::super::demux::{Demux, Event};
use super::super::packet::{Continuity, Counter, PCR_WRAP, Packet, pcr_delta};
use super::*;

const MS: i64 = 27_000;
const VIDEO: u16 = 0x101;

fn options(rate: Option<u64>) -> Options {
    Options { transport_stream_id: 1, program: 1, pmt_pid: 0x1000, rate }
}

fn described(rate: Option<u64>) -> Multiplexer {
    let mut multiplexer = Multiplexer::new(options(rate));
    let stream = |pid, stream_type| Stream { stream_type, pid, descriptors: Vec::new() };
    multiplexer.describe(vec![stream(VIDEO, 0x1b), stream(0x102, 0x0f)], VIDEO).unwrap();
    multiplexer
}

fn unit<'a>(pid: u16, pts: i64, parts: &'a [&'a [u8]]) -> Unit<'a> {
    let stream_id = if pid == VIDEO { 0xe0 } else { 0xc0 };
    Unit { pid, stream_id, pts: Some(pts), dts: None, random_access: false, aligned: true, parts }
}

/// Every packet counts right; where tables and clocks are: (packet, PCR) and packets with PATs.
fn check(stream: &[u8]) -> (Vec<(usize, u64)>, Vec<usize>) {
    let mut counters: BTreeMap<u16, Counter> = BTreeMap::new();
    let (mut clocks, mut tables) = (Vec::new(), Vec::new());
    assert_eq!(Packet::all(stream).count() * PACKET, stream.len());
    for (index, packet) in Packet::all(stream).enumerate() {
        if packet.pid() == NULL_PID {
            continue;
        }
        let counter = counters.entry(packet.pid()).or_default();
        assert_eq!(counter.check(packet), Continuity::Ok, "packet {index} of {:#x}", packet.pid());
        clocks.extend(packet.pcr().map(|pcr| (index, pcr)));
        tables.extend((packet.pid() == PAT_PID).then_some(index));
    }
    (clocks, tables)
}

#[test]
fn clock_and_tables_come_often_enough_whatever_the_frame_rate() {
    for frame in [10, 33, 40, 41, 100, 500, 900] {
        let mut multiplexer = described(None);
        let mut stream = Vec::new();
        let mut sink = |datagram: &[u8]| stream.extend_from_slice(datagram);
        for n in 0..50 {
            let time = n * frame * MS;
            multiplexer.write(&unit(VIDEO, time / 300, &[&[1; 3000]]), time, &mut sink);
        }
        multiplexer.flush(&mut sink);
        let (clocks, tables) = check(&stream);
        let steps = clocks.windows(2).map(|pair| pcr_delta(pair[0].1, pair[1].1));
        assert!(steps.into_iter().all(|step| (1..=40 * MS).contains(&step)), "{frame}");
        assert!(tables.len() as i64 >= (49 * frame / 100).max(1), "{frame}: {}", tables.len());
        assert_eq!(tables[0], 0);
    }
}

#[test]
fn a_constant_rate_is_kept_to_the_packet() {
    let rate = 3_000_000;
    let mut multiplexer = described(Some(rate));
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8]| {
        assert_eq!(datagram.len(), PACK);
        stream.extend_from_slice(datagram);
    };
    for n in 0..100 {
        let time = n * 40 * MS;
        // a picture of 60 kB takes four times as long as it lasts
        let size = if n % 25 == 0 { 60_000 } else { 5_000 };
        multiplexer.write(&unit(VIDEO, time / 300 + 90_000, &[&vec![1; size]]), time, &mut sink);
        multiplexer.advance(time + 20 * MS, &mut sink);
    }
    let (clocks, tables) = check(&stream);
    let seconds = 4.0;
    let bits = stream.len() as f64 * 8.0;
    assert!((bits / seconds / rate as f64 - 1.0).abs() < 0.02, "{bits}");
    let first = clocks[0];
    for pair in clocks.windows(2) {
        let step = pcr_delta(pair[0].1, pair[1].1);
        assert!((1..=40 * MS).contains(&step));
        let exact = (pair[1].0 - first.0) as f64 * 8.0 * 188.0 * 27e6 / rate as f64;
        assert!((pcr_delta(first.1, pair[1].1) as f64 - exact).abs() < 2.0);
    }
    assert!(tables.len() >= 40);
    let longest = tables.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest as f64 * 8.0 * 188.0 / rate as f64 <= 0.1, "{longest}");
}

#[test]
fn a_place_to_start_has_the_tables_at_the_start_of_its_datagram() {
    let mut multiplexer = described(None);
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    let mut sink = |datagram: &[u8]| datagrams.push(datagram.to_vec());
    for n in 0..10 {
        let random_access = n == 7;
        let unit = Unit { random_access, ..unit(VIDEO, n * 900, &[&[1; 300]]) };
        multiplexer.write(&unit, n * 10 * MS, &mut sink);
    }
    multiplexer.flush(&mut sink);
    let starts = |datagram: &Vec<u8>| {
        let flagged = |p: Packet<'_>| p.adaptation().is_some_and(|a| a.is_random_access());
        let pids: Vec<_> = Packet::all(datagram).map(Packet::pid).collect();
        Packet::all(datagram).any(flagged).then_some(pids)
    };
    let found: Vec<_> = datagrams.iter().filter_map(starts).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0][..3], [0, 0x1000, VIDEO]);
}

#[test]
fn a_change_counts_the_version_up_and_a_leap_is_announced() {
    let mut multiplexer = described(None);
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8]| stream.extend_from_slice(datagram);
    multiplexer.write(&unit(VIDEO, 0, &[&[1; 300]]), 0, &mut sink);
    let streams = vec![Stream { stream_type: 0x24, pid: VIDEO, descriptors: Vec::new() }];
    multiplexer.describe(streams.clone(), VIDEO).unwrap();
    multiplexer.describe(streams, VIDEO).unwrap();
    multiplexer.write(&unit(VIDEO, 900, &[&[1; 300]]), 10 * MS, &mut sink);
    multiplexer.write(&unit(VIDEO, 900_000, &[&[1; 300]]), 10_000 * MS, &mut sink);
    multiplexer.flush(&mut sink);
    let pmts: Vec<_> = Packet::all(&stream).filter(|p| p.pid() == 0x1000).collect();
    let versions: Vec<_> =
        pmts.iter().map(|p| Pmt::parse(&p.payload().unwrap()[1..]).unwrap().version).collect();
    assert_eq!(versions, [0, 1, 1]);
    let jumps: Vec<_> = Packet::all(&stream).filter(|p| p.is_discontinuity()).map(|p| p.pcr()).collect();
    assert_eq!(jumps, [Some(10_000 * MS as u64)]);
    let too_many = vec![Stream { stream_type: 6, pid: 5, descriptors: vec![0; 900] }; 2];
    assert!(multiplexer.describe(too_many, 5).is_err());
}

proptest! {
    /// Whatever is written comes out of the demultiplexer again, with its times.
    #[test]
    fn units_survive(
        sizes in prop::collection::vec((1usize..100_000, 1usize..4, any::<bool>(), any::<bool>()), 1..8),
        start in 0i64..1 << 33, constant in any::<bool>(),
    ) {
        let mut multiplexer = described(constant.then_some(50_000_000));
        let mut demux = Demux::new(None);
        let (mut want, mut found) = (Vec::new(), Vec::new());
        let (mut datagrams, mut time) = (Vec::new(), start * 300);
        for (n, &(size, parts, sound, later)) in sizes.iter().enumerate() {
            let bytes: Vec<u8> = (0..size).map(|i| (i + n) as u8).collect();
            let pieces: Vec<&[u8]> = bytes.chunks(size.div_ceil(parts)).collect();
            let pid = if sound && size < 60_000 { 0x102 } else { VIDEO };
            let pts = time / 300 + 9000;
            let dts = later.then_some(pts - 3000);
            let unit = Unit { dts, ..unit(pid, pts, &pieces) };
            multiplexer.write(&unit, time, &mut |datagram| datagrams.push(datagram.to_vec()));
            let wrap = |time: i64| Some(time.rem_euclid(1 << 33) as u64);
            want.push((pid, wrap(pts), dts.and_then(wrap), bytes));
            time += 20 * MS;
        }
        multiplexer.flush(&mut |datagram| datagrams.push(datagram.to_vec()));
        let mut take = |event: Event<'_>| {
            if let Event::Pes(pes) = event {
                assert!(!pes.damaged);
                found.push((pes.pid, pes.header.pts, pes.header.dts, pes.data.to_vec()));
            }
        };
        datagrams.iter().for_each(|datagram| demux.push(datagram, &mut take));
        demux.flush(&mut take);
        prop_assert!(datagrams.iter().all(|d| d.len() <= PACK && d.len() % PACKET == 0));
        let clocks = check(&datagrams.concat()).0;
        prop_assert!(clocks.iter().all(|clock| clock.1 < PCR_WRAP));
        // Pictures without a length leave with the next one: each PID keeps its own order.
        found.sort_by_key(|unit| unit.0);
        want.sort_by_key(|unit| unit.0);
        prop_assert_eq!(found, want);
    }
}
