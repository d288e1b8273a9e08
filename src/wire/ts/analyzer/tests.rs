//! Streams with one thing wrong or unusual each, and what the analyzer says of them.

use super::*;
use crate::wire::ts::codec::Kind;
use crate::wire::ts::packet::{PCR_WRAP, SYNC, pcr_delta, set_pcr};
use crate::wire::ts::psi::{Pat, Pmt, Stream, packetize};
use proptest::prelude::*;

const VIDEO: u16 = 0x101;
const IDR: &[u8] = &[0, 0, 0, 1, 0x65, 0x88];
const SLICE: &[u8] = &[0, 0, 0, 1, 0x41, 0x88];
const MS: u64 = 27_000;

/// Writes a stream packet by packet; each packet is a datagram, so that positions are packet numbers.
#[derive(Default)]
struct Script {
    packets: Vec<[u8; PACKET]>,
    counters: std::collections::HashMap<u16, u8>,
}

impl Script {
    fn packet(
        &mut self,
        pid: u16,
        start: bool,
        adaptation: Option<&[u8]>,
        payload: &[u8],
    ) -> &mut [u8; PACKET] {
        let count = self.counters.entry(pid).or_default();
        let mut packet = [0xff; PACKET];
        let control = u8::from(!payload.is_empty()) | 2;
        let at = PACKET - payload.len();
        packet[..5].copy_from_slice(&[
            SYNC,
            u8::from(start) << 6 | (pid >> 8) as u8,
            pid as u8,
            control << 4 | *count,
            at as u8 - 5,
        ]);
        packet[at..].copy_from_slice(payload);
        if at > 5 {
            packet[5] = 0;
        }
        if let Some(field) = adaptation {
            packet[5..5 + field.len()].copy_from_slice(field);
        }
        *count = (*count + u8::from(!payload.is_empty())) & 15;
        self.packets.push(packet);
        self.packets.last_mut().unwrap()
    }

    fn section(&mut self, pid: u16, section: &[u8]) -> usize {
        let packets = &mut self.packets;
        let at = packets.len();
        packetize(section, pid, self.counters.entry(pid).or_default(), |p| packets.push(*p));
        at
    }

    fn pat(&mut self, programs: &[(u16, u16)]) -> usize {
        let pat = Pat { programs: programs.to_vec(), ..Pat::default() };
        self.section(PAT_PID, &pat.section().unwrap())
    }

    fn pmt(&mut self, streams: &[(u8, u16)]) -> usize {
        self.section(0x100, &pmt(1, 0, streams).section().unwrap())
    }

    /// A PES packet whose elementary bytes are cut into pieces of this size. Returns the number of its first packet.
    fn pes_cut(&mut self, pid: u16, adaptation: Option<&[u8]>, bytes: &[u8], size: usize) -> usize {
        let at = self.packets.len();
        let pes = [&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1][..], bytes].concat();
        for (n, piece) in pes.chunks(size).enumerate() {
            self.packet(pid, n == 0, adaptation.filter(|_| n == 0), piece);
        }
        at
    }

    fn pes(&mut self, pid: u16, bytes: &[u8]) -> usize {
        self.pes_cut(pid, None, bytes, 170)
    }

    /// Two pictures that need others, so that nothing is found by chance.
    fn slices(&mut self) {
        self.pes(VIDEO, SLICE);
        self.pes(VIDEO, SLICE);
    }

    /// (position of the datagram that showed it, position to start from).
    fn joins(&self) -> Vec<(usize, u64)> {
        self.analyze().1
    }

    fn analyze(&self) -> (Analyzer, Vec<(usize, u64)>) {
        let mut analyzer = Analyzer::new();
        let mut joins = Vec::new();
        for (n, packet) in self.packets.iter().enumerate() {
            let inspection = analyzer.datagram(n as u64, packet, n as u64 * 1_000_000);
            joins.extend(inspection.random_access.map(|join| (n, join)));
        }
        (analyzer, joins)
    }
}

fn pmt(program: u16, version: u8, streams: &[(u8, u16)]) -> Pmt {
    let stream = |&(stream_type, pid): &(u8, u16)| Stream { stream_type, pid, descriptors: Vec::new() };
    let pcr_pid = streams.first().map_or(NULL_PID, |s| s.1);
    Pmt { program, version, pcr_pid, descriptors: Vec::new(), streams: streams.iter().map(stream).collect() }
}

const H264: &[(u8, u16)] = &[(0x1b, VIDEO)];

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/ts/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Feeds a file in datagrams of seven, one every 20 ms.
fn analyze(bytes: &[u8]) -> (Report, Vec<Inspection>) {
    let mut analyzer = Analyzer::new();
    let seen = bytes
        .chunks(7 * PACKET)
        .zip(0..)
        .map(|(d, n)| analyzer.datagram(n, d, n * 20_000_000))
        .collect::<Vec<_>>();
    (analyzer.report(seen.len() as u64 * 20_000_000), seen)
}

#[test]
fn the_flag_is_enough() {
    let mut s = Script::default();
    let start = s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    s.slices();
    let at = s.pes_cut(VIDEO, Some(&[0x40]), SLICE, 170);
    s.pes_cut(VIDEO, Some(&[0x40]), SLICE, 170);
    // once for each PAT
    assert_eq!(s.joins(), [(at, start as u64)]);
}

#[test]
fn without_the_flag_the_picture_says_it() {
    let sps = [&[0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 2, 3][..], SLICE].concat();
    // intra refresh: a recovery point message, and no picture is an IDR
    let refresh = [&[0, 0, 1, 9, 0xf0, 0, 0, 1, 6, 6, 1, 0xc4, 0x80][..], SLICE].concat();
    for picture in [IDR, &sps, &refresh] {
        // start codes and messages straddle packets
        for size in [15, 16, 17, 18, 19, 20, 21, 22, 23, 170] {
            let mut s = Script::default();
            s.pat(&[(1, 0x100)]);
            s.pmt(H264);
            s.slices();
            let start = s.pat(&[(1, 0x100)]);
            s.pmt(H264);
            let at = s.pes_cut(VIDEO, None, picture, size);
            let joins = s.joins();
            assert!(matches!(joins[..], [(n, join)] if n >= at && join == start as u64), "{joins:?} {size}");
        }
    }
}

#[test]
fn other_codecs() {
    let h265: &[u8] = &[0, 0, 1, 0x46, 1, 0x50, 0, 0, 1, 19 << 1, 1];
    let h265_slice: &[u8] = &[0, 0, 1, 0x46, 1, 0x50, 0, 0, 1, 1 << 1, 1];
    let mpeg2: &[u8] = &[0, 0, 1, 0xb3, 0x2d];
    let mpeg2_slice: &[u8] = &[0, 0, 1, 0, 1, 2];
    for (stream_type, start, other) in [(0x24, h265, h265_slice), (2, mpeg2, mpeg2_slice)] {
        let mut s = Script::default();
        s.pat(&[(1, 0x100)]);
        s.pmt(&[(stream_type, VIDEO)]);
        s.pes(VIDEO, other);
        let at = s.pes(VIDEO, start);
        assert_eq!(s.joins(), [(at, 0)]);
    }
}

#[test]
fn tables_behind_the_picture_are_no_way_to_it() {
    let mut s = Script::default();
    let first = s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    s.slices();
    let at = s.pes(VIDEO, IDR);
    let second = s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    s.slices();
    let third = s.pat(&[(1, 0x100)]);
    // a PAT without a PMT behind it: the one before counts
    let at2 = s.pes(VIDEO, IDR);
    s.pmt(H264);
    let at3 = s.pes(VIDEO, IDR);
    assert_eq!(s.joins(), [(at, first as u64), (at2, second as u64), (at3, third as u64)]);
}

#[test]
fn nothing_before_the_tables() {
    let mut s = Script::default();
    s.pes(VIDEO, IDR);
    s.pmt(H264);
    s.pes(VIDEO, IDR);
    let start = s.pat(&[(1, 0x100)]);
    s.pes(VIDEO, IDR);
    s.pmt(H264);
    let at = s.pes(VIDEO, IDR);
    assert_eq!(s.joins(), [(at, start as u64)]);
}

#[test]
fn scrambled_unknown_and_sound_start_anywhere() {
    for (stream_type, scrambled) in [(0x1b, true), (0xea, false), (0x0f, false), (0x06, false)] {
        let mut s = Script::default();
        s.pes(VIDEO, SLICE);
        s.pat(&[(1, 0x100)]);
        s.pmt(&[(stream_type, VIDEO)]);
        let at = s.pes(VIDEO, SLICE);
        if scrambled {
            s.packets[at][3] |= 0x80;
        }
        let (analyzer, joins) = s.analyze();
        assert_eq!(joins, [(at, 1)], "{stream_type:#x}");
        assert_eq!(analyzer.report(0).scrambled_packets, u64::from(scrambled));
    }
}

#[test]
fn video_comes_before_sound_and_the_first_program_before_the_second() {
    let mut s = Script::default();
    s.pat(&[(1, 0x100), (2, 0x200), (3, 0x300)]);
    s.pmt(&[(0x0f, 0x110)]);
    s.section(0x200, &pmt(2, 0, &[(0x0f, 0x111), (0x1b, VIDEO)]).section().unwrap());
    s.section(0x300, &pmt(3, 0, &[(0x1b, 0x112)]).section().unwrap());
    s.pes(0x110, b"sound");
    s.pes(0x111, b"sound");
    s.pes(0x112, IDR);
    let at = s.pes(VIDEO, IDR);
    assert_eq!(s.joins(), [(at, 0)]);
}

#[test]
fn a_new_pmt_moves_the_video() {
    let mut s = Script::default();
    s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    let at = s.pes(VIDEO, IDR);
    let next = s.pat(&[(1, 0x100)]);
    s.section(0x100, &pmt(1, 1, &[(0x1b, 0x222)]).section().unwrap());
    s.pes(VIDEO, IDR);
    let at2 = s.pes(0x222, IDR);
    // and a new PAT moves the PMT
    let moved = s.pat(&[(1, 0x300)]);
    s.pes(0x222, IDR);
    s.section(0x300, &pmt(1, 1, &[(0x1b, 0x223)]).section().unwrap());
    let at3 = s.pes(0x223, IDR);
    let (analyzer, joins) = s.analyze();
    assert_eq!(joins, [(at, 0), (at2, next as u64), (at3, moved as u64)]);
    let report = analyzer.report(0);
    assert_eq!(
        (report.pat_changes, report.programs[0].pmt_pid, report.programs[0].pmt_version),
        (1, 0x300, Some(1))
    );
    assert_eq!(report.programs[0].streams[0].pid, 0x223);
}

#[test]
fn a_long_pmt_counts_from_its_first_packet() {
    let mut long = pmt(1, 0, H264);
    long.streams.extend((0..20).map(|n| Stream {
        stream_type: 6,
        pid: 0x400 + n,
        descriptors: vec![5, 4, 1, 2, 3, 4, 9, 5, 1, 2, 3, 4, 5],
    }));
    let section = long.section().unwrap();
    let mut s = Script::default();
    let first = s.pat(&[(1, 0x100)]);
    let mut parts = Vec::new();
    packetize(&section, 0x100, &mut 0, |p| parts.push(*p));
    assert_eq!(parts.len(), 3);
    s.packets.push(parts[0]);
    s.pat(&[(1, 0x100)]);
    s.packets.extend(&parts[1..]);
    let at = s.pes(VIDEO, IDR);
    let (analyzer, joins) = s.analyze();
    assert_eq!(joins, [(at, first as u64)]);
    let report = analyzer.report(0);
    assert_eq!((report.programs[0].streams.len(), report.continuity_errors), (21, 0));
    // with a packet of it missing there is no PMT
    s.packets.remove(3);
    assert_eq!(s.joins(), []);
}

#[test]
fn a_gap_in_a_picture_hides_what_it_says() {
    let picture = [&[0, 0, 1, 6, 5, 40][..], &[1; 40], &[0x80], IDR].concat();
    let mut s = Script::default();
    s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    let at = s.pes_cut(VIDEO, None, &picture, 20);
    assert_eq!(s.joins().len(), 1);
    s.packets.remove(at + 1);
    let (analyzer, joins) = s.analyze();
    assert_eq!((joins.len(), analyzer.report(0).continuity_errors), (0, 1));
}

#[test]
fn damaged_tables_are_counted_and_change_nothing() {
    let mut s = Script::default();
    s.pat(&[(1, 0x100)]);
    let at = s.pmt(H264);
    s.pmt(H264);
    s.packets[at][20] ^= 1;
    let report = s.analyze().0.report(0);
    assert_eq!(
        (report.psi_errors, report.programs[0].pmt_version, report.programs[0].pmt_changes),
        (1, Some(0), 0)
    );
}

#[test]
fn counters_per_pid() {
    let mut s = Script::default();
    for _ in 0..3 {
        s.pes(VIDEO, SLICE);
    }
    s.packets.push(s.packets[2]);
    s.pes(VIDEO, SLICE);
    s.pes(VIDEO, SLICE);
    s.packets.remove(4);
    let broken = s.pes(VIDEO, SLICE);
    s.packets[broken][1] |= 0x80;
    s.pes(VIDEO, SLICE);
    s.packets.push([0x1f; PACKET]);
    let null = s.packets.len();
    s.packets[null - 1][..4].copy_from_slice(&[SYNC, 0x1f, 0xff, 0x15]);
    s.packets.push(s.packets[null - 1]);
    let report = s.analyze().0.report(0);
    let video = report.pids.iter().find(|p| p.pid == VIDEO).unwrap();
    // the packet taken out and the one with bit errors
    assert_eq!((video.continuity_errors, video.duplicate_packets, video.transport_errors), (2, 1, 1));
    assert_eq!((video.packets, report.packets, report.null_packets, report.transport_errors), (6, 9, 2, 1));
}

#[test]
fn programme_time_goes_on_between_pcrs_and_over_a_jump() {
    let pcr = |clock: u64, jump: bool| {
        let mut field = [0; 7];
        field[0] = 0x10 | u8::from(jump) << 7;
        (field, clock)
    };
    let mut s = Script::default();
    s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    let mut clock = PCR_WRAP - 95 * MS;
    for n in 0..20 {
        let jump = n == 10;
        clock = (if jump { 7_777 * MS } else { clock + 40 * MS }) % PCR_WRAP;
        let (field, clock) = pcr(clock, jump);
        set_pcr(s.packet(VIDEO, false, Some(&field), &[1; 100]), clock);
        for _ in 0..3 {
            s.packet(VIDEO, false, None, &[1; 100]);
        }
    }
    let mut analyzer = Analyzer::new();
    let mut before: Option<u64> = None;
    for (n, packet) in s.packets.iter().enumerate() {
        let time = analyzer.datagram(n as u64, packet, n as u64 * 10_000_000).pcr;
        assert_eq!(time.is_some(), n >= 6, "{n}");
        if let (Some(before), Some(time)) = (before, time) {
            let step = pcr_delta(before, time);
            let jump = n == 42;
            assert_eq!((9 * MS as i64..=11 * MS as i64).contains(&step), !jump, "{n}: {step}");
        }
        before = time;
    }
    let report = analyzer.report(0);
    let clock = report.pids.iter().find(|p| p.pid == VIDEO).unwrap().pcr.unwrap();
    assert_eq!((clock.count, clock.discontinuities, clock.late), (20, 1, 0));
    assert!(clock.jitter_peak_us < 1.0 && (clock.interval_avg_ms - 40.0).abs() < 1e-6);
}

#[test]
fn time_does_not_step_back_where_the_rate_ran_ahead() {
    let mut s = Script::default();
    s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    // two slow packets between PCRs, then twelve in the same time
    let mut clock = 0;
    for gap in [2, 2, 2, 12, 12, 2, 2] {
        clock += 40 * MS;
        set_pcr(s.packet(VIDEO, false, Some(&[0x10, 0, 0, 0, 0, 0, 0]), &[1; 100]), clock);
        for _ in 0..gap {
            s.packet(VIDEO, false, None, &[1; 100]);
        }
    }
    let mut analyzer = Analyzer::new();
    let times: Vec<_> = s.packets.iter().filter_map(|p| analyzer.datagram(0, p, 0).pcr).collect();
    assert!(times.len() > 20 && times.is_sorted(), "{times:?}");
    assert!(times.last() <= Some(&(clock + 40 * MS)));
}

#[test]
fn bit_rates_are_of_the_last_second() {
    let mut s = Script::default();
    s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    for _ in 0..3000 {
        s.pes(VIDEO, SLICE);
    }
    let (analyzer, _) = s.analyze();
    let now = s.packets.len() as u64 * 1_000_000;
    let report = analyzer.report(now);
    // a packet each millisecond
    assert!((1_500_000..=1_508_000).contains(&report.bitrate_bps), "{}", report.bitrate_bps);
    assert!(analyzer.report(now + 60 * SECOND).bitrate_bps < 30_000);
    let early = Script { packets: s.packets[..100].to_vec(), ..Script::default() };
    let rate = early.analyze().0.report(100_000_000).bitrate_bps;
    assert!((1_500_000..=1_508_000).contains(&rate), "{rate}");
}

#[test]
fn an_input_stays_small_and_new_tables_find_room() {
    assert!(size_of::<Pid>() * SLOTS + (1 << 13) < 48_000, "{}", size_of::<Pid>());
    let mut s = Script::default();
    s.pat(&[(1, 0x100)]);
    s.pmt(H264);
    for pid in 0x400..0x800 {
        s.pes(pid, SLICE);
    }
    s.pat(&[(1, 0x900)]);
    s.section(0x900, &pmt(1, 0, &[(0x1b, 0x901)]).section().unwrap());
    let at = s.pes(0x901, IDR);
    let (analyzer, joins) = s.analyze();
    assert_eq!(joins.last().map(|j| j.0), Some(at));
    assert!(analyzer.pids.len() <= SLOTS && analyzer.report(0).untracked_packets > 700);
}

#[test]
fn the_samples_are_what_their_page_says() {
    // name, continuity errors, streams of the first program, nulls, clock jumps, PCRs
    let expected = [
        ("h264_async.ts", 0, 2, 0, 0, 180),
        ("h264_sync.ts", 0, 2, 0, 0, 180),
        ("h265_sync.ts", 0, 2, 0, 0, 180),
        ("h264_bigpmt.ts", 0, 22, 0, 0, 180),
        ("h264_cc_loss.ts", 12, 2, 0, 0, 178),
        ("h264_dualklv.ts", 0, 3, 0, 0, 180),
        ("h264_multiprog.ts", 0, 2, 0, 0, 180),
        ("h264_nulls.ts", 0, 2, 900, 0, 180),
        ("h264_pat_nit.ts", 0, 2, 0, 0, 180),
        ("h264_pcr_disc.ts", 0, 2, 0, 1, 180),
    ];
    for (name, lost, streams, nulls, jumps, pcrs) in expected {
        let (report, seen) = analyze(&sample(name));
        assert_eq!((report.continuity_errors, report.null_packets), (lost, nulls), "{name}");
        assert_eq!((report.psi_errors, report.transport_errors, report.pat_changes), (0, 0, 0), "{name}");
        let program = &report.programs[0];
        assert_eq!(
            (program.streams.len(), program.pmt_changes, program.pcr_pid),
            (streams, 0, Some(VIDEO)),
            "{name}"
        );
        let clock = report.pids.iter().find(|p| p.pid == VIDEO).unwrap().pcr.unwrap();
        assert_eq!((clock.count, clock.discontinuities), (pcrs, jumps), "{name}");
        assert!(report.klv_declared, "{name}");
        assert_eq!(program.streams[0].codec, if name.starts_with("h265") { "H.265" } else { "H.264" });
        let klv = program.streams.iter().filter(|s| s.kind == Kind::Klv).count();
        assert_eq!(klv, streams - 1, "{name}");
        assert_eq!(report.network_pid.is_some(), name == "h264_pat_nit.ts");
        assert_eq!(report.programs.len(), 1 + usize::from(name == "h264_multiprog.ts"));
        // one of the missing packets may be the start of a picture
        let joins = report.random_access_points;
        assert!(joins == 6 || lost > 0 && joins >= 4, "{name}: {joins}");
        assert!(seen.iter().skip(20).all(|i| i.pcr.is_some()), "{name}");
    }
}

#[test]
fn the_samples_with_the_flag_cleared_say_the_same() {
    for name in ["h264_async.ts", "h265_async.ts", "h264_bigpmt.ts"] {
        let flagged = sample(name);
        let mut cleared = flagged.clone();
        let mut flags = 0;
        for packet in cleared.chunks_mut(PACKET) {
            if packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x40 != 0 {
                packet[5] &= !0x40;
                flags += 1;
            }
        }
        assert_eq!(flags, 6);
        let joins =
            |bytes: &[u8]| analyze(bytes).1.iter().filter_map(|i| i.random_access).collect::<Vec<_>>();
        assert_eq!(joins(&cleared), joins(&flagged), "{name}");
        // each starts with a PAT that has a PMT behind it
        for join in joins(&flagged) {
            let from = &flagged[join as usize * 7 * PACKET..];
            let pids: Vec<_> = Packet::all(from).map(Packet::pid).collect();
            let (pat, pmt) = (pids.iter().position(|&p| p == 0), pids.iter().position(|&p| p == 0x100));
            assert!(pat < pmt && pat < Some(7), "{name}");
        }
    }
}

#[test]
fn the_report_reads_well() {
    let (report, _) = analyze(&sample("h264_sync.ts"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["programs"][0]["streams"][1]["kind"], "klv");
    assert_eq!(json["programs"][0]["streams"][1]["descriptors"][0]["hex"], "0100ff4b4c5641000f");
    let text = report.render();
    for line in [
        "Program 1: PMT PID 0x0100 (256) version 0, clock PID 0x0101 (257)",
        "type 0x1b  H.264 video",
        "type 0x15  KLV metadata",
        "descriptor 0x26 metadata: application format 0x0100, format \"KLVA\"",
        "KLV declared; 6 places where a decoder can start",
        "Faults: none",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let empty = Analyzer::new().report(0);
    assert!(empty.render().starts_with("Transport stream without a PAT: 0 b/s, 0 packets"));
}

#[test]
fn clocks_beyond_a_bound_are_not_followed() {
    let mut s = Script::default();
    let programs: Vec<(u16, u16)> = (1..=40).map(|number| (number, 0x300 + number)).collect();
    s.pat(&programs);
    for &(number, pid) in &programs {
        s.section(pid, &pmt(number, 0, &[(0x1b, 0x400 + number)]).section().unwrap());
    }
    let (mut analyzer, _) = s.analyze();
    assert_eq!(analyzer.watch.clocks(), 16);
    // all but one are gone
    s.packets.clear();
    let pat = Pat { programs: vec![(1, 0x301)], version: 1, ..Pat::default() };
    s.section(PAT_PID, &pat.section().unwrap());
    for packet in &s.packets {
        analyzer.datagram(0, packet, 0);
    }
    assert_eq!(analyzer.watch.clocks(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_safe(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1400), 0..20), arrivals: [u64; 4]) {
        let mut analyzer = Analyzer::new();
        for (n, mut datagram) in datagrams.into_iter().enumerate() {
            datagram.iter_mut().step_by(PACKET).for_each(|b| *b = SYNC);
            analyzer.datagram(n as u64, &datagram, arrivals[n % 4]);
        }
        prop_assert!(!analyzer.report(arrivals[0]).render().is_empty());
    }
}

/// Not a test: `cargo test --release --lib wire::ts::analyzer -- --ignored --nocapture` prints what a packet costs.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn cost_of_a_packet() {
    for name in ["h264_async.ts", "h265_sync.ts", "h264_multiprog.ts", "h264_nulls.ts"] {
        let bytes = sample(name);
        let mut analyzer = Analyzer::new();
        let (mut position, mut best) = (0, f64::MAX);
        for _ in 0..50 {
            let start = std::time::Instant::now();
            for datagram in bytes.chunks(7 * PACKET) {
                position += 1;
                std::hint::black_box(analyzer.datagram(position, datagram, position * 2_000_000));
            }
            best = best.min(start.elapsed().as_nanos() as f64 / (bytes.len() / PACKET) as f64);
        }
        println!("{name}: {best:.1} ns per packet");
    }
}
