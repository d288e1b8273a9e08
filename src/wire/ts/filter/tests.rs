//! Real streams through every filter: what must be gone is gone, what must stay is untouched.

use super::kind::LABEL;
use super::*;
use crate::wire::ts::packet::{Continuity, Counter, set_pcr};
use crate::wire::ts::psi::{Stream, packetize};
use crate::wire::ts::samples::{SAMPLES, damaged, ffprobe, sample};

fn strip(fill: Fill) -> FilterSpec {
    FilterSpec { strip_klv: true, fill, ..FilterSpec::default() }
}

fn run(spec: FilterSpec, stream: &[u8]) -> Vec<u8> {
    let (mut filter, mut out) = (Filter::new(spec), Vec::new());
    stream.chunks(7 * PACKET).for_each(|datagram| filter.push(datagram, &mut out));
    out
}

fn of(stream: &[u8], pid: u16) -> Vec<&[u8; PACKET]> {
    Packet::all(stream).filter(|p| p.pid() == pid).map(Packet::bytes).collect()
}

fn pids(stream: &[u8]) -> BTreeSet<u16> {
    Packet::all(stream).map(Packet::pid).filter(|pid| *pid != NULL_PID).collect()
}

fn sections(stream: &[u8], pid: u16) -> Vec<Vec<u8>> {
    let mut table = Table::default();
    Packet::all(stream).filter(|p| p.pid() == pid).flat_map(|p| table.read(p)).collect()
}

fn pmts(stream: &[u8], pid: u16) -> Vec<Pmt> {
    sections(stream, pid).iter().map(|s| Pmt::parse(s).unwrap()).collect()
}

fn pats(stream: &[u8]) -> Vec<Pat> {
    sections(stream, PAT_PID).iter().map(|s| Pat::parse(s).unwrap()).collect()
}

fn streams(pmt: &Pmt) -> Vec<u16> {
    pmt.streams.iter().map(|s| s.pid).collect()
}

fn losses(stream: &[u8]) -> BTreeMap<u16, usize> {
    let mut counters: BTreeMap<u16, Counter> = BTreeMap::new();
    let mut losses = BTreeMap::new();
    for packet in Packet::all(stream).filter(|p| p.pid() != NULL_PID) {
        let lost = counters.entry(packet.pid()).or_default().check(packet) == Continuity::Lost;
        *losses.entry(packet.pid()).or_default() += usize::from(lost);
    }
    losses
}

fn is_null(packet: &[u8]) -> bool {
    packet == NULL
}

/// A packet with a payload, filled up by an adaptation field.
fn packet(pid: u16, count: u8, payload: &[u8]) -> [u8; PACKET] {
    let mut p = [0xff; PACKET];
    p[..4].copy_from_slice(&[SYNC, (pid >> 8) as u8, pid as u8, 0x10 | count & 15]);
    let stuffing = 184 - payload.len();
    if stuffing > 0 {
        p[3] |= 0x20;
        p[4] = stuffing as u8 - 1;
        p[5] = if stuffing > 1 { 0 } else { p[5] };
    }
    p[4 + stuffing..].copy_from_slice(payload);
    p
}

fn es(stream_type: u8, pid: u16, descriptors: &[u8]) -> Stream {
    Stream { stream_type, pid, descriptors: descriptors.to_vec() }
}

/// PAT and PMT (program 1 on 0x100) in one packet each.
fn psi(streams: Vec<Stream>, version: u8, count: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let pat = Pat { programs: vec![(1, 0x100)], ..Pat::default() };
    let pcr_pid = streams.first().map_or(NULL_PID, |s| s.pid);
    let pmt = Pmt { program: 1, version, pcr_pid, streams, ..Pmt::default() };
    let mut counts = [count; 2];
    packetize(&pat.section().unwrap(), PAT_PID, &mut counts[0], |p| out.extend_from_slice(p));
    packetize(&pmt.section().unwrap(), 0x100, &mut counts[1], |p| out.extend_from_slice(p));
    out
}

/// The stream with each PMT packet replaced by that of `change`d tables.
fn redeclared(stream: &[u8], change: impl Fn(&mut Pmt)) -> Vec<u8> {
    let mut out = Vec::new();
    for p in Packet::all(stream) {
        if p.pid() == 0x100 {
            let mut pmt = pmts(p.bytes(), 0x100).remove(0);
            change(&mut pmt);
            packetize(&pmt.section().unwrap(), 0x100, &mut p.continuity(), |p| out.extend_from_slice(p));
        } else {
            out.extend_from_slice(p.bytes());
        }
    }
    out
}

#[test]
fn every_sample_loses_its_klv_and_nothing_else() {
    for (name, stream) in SAMPLES.iter() {
        assert!(holds_label(stream), "{name}");
        let nulled = run(strip(Fill::Null), stream);
        let removed = run(strip(Fill::Remove), stream);
        assert_eq!(nulled.len(), stream.len(), "{name}");
        assert!(!holds_label(&nulled) && !holds_label(&removed), "{name}");

        let video: Vec<u16> = if name.contains("multiprog") { vec![0x101, 0x201] } else { vec![0x101] };
        for pid in &video {
            assert_eq!(of(stream, *pid), of(&nulled, *pid), "{name}: clock and pictures");
        }
        for pid in pids(&nulled) {
            assert!([0, 16, 0x100, 0x200].contains(&pid) || video.contains(&pid), "{name}: {pid:#x} is left");
        }
        for pid in [0x100, 0x200].into_iter().filter(|pid| pids(stream).contains(pid)) {
            let tables = pmts(&nulled, pid);
            assert!(tables.len() + 1 >= pmts(stream, pid).len(), "{name}");
            assert!(tables.iter().all(|pmt| streams(pmt) == [pid + 1] && *pmt == tables[0]), "{name}");
        }
        assert_eq!(pats(&nulled), pats(stream), "{name}");
        let before = losses(stream);
        for (pid, lost) in losses(&nulled) {
            assert_eq!(lost, before[&pid], "{name}: {pid:#x}");
        }
        // The same packets in the same places, and without the places of those taken out.
        let mut kept = Vec::new();
        for (old, new) in stream.chunks(PACKET).zip(nulled.chunks(PACKET)) {
            let psi = matches!(Packet::new(old).map(Packet::pid), Some(0 | 0x100 | 0x200));
            assert!(old == new || is_null(new) || psi, "{name}");
            if is_null(old) || !is_null(new) {
                kept.extend_from_slice(new);
            }
        }
        assert_eq!(kept, removed, "{name}");
        let mut whole = Vec::new();
        Filter::new(strip(Fill::Null)).push(stream, &mut whole);
        assert_eq!(whole, nulled, "{name}: however it is cut into datagrams");
    }
}

#[test]
fn ffprobe_reads_what_is_left() {
    let arguments = ["-show_entries", "stream=codec_type", "-of", "csv=p=0"];
    // A lost packet is an error in the pictures of that sample before any filter.
    for (name, stream) in SAMPLES.iter().filter(|sample| !sample.0.contains("cc_loss")) {
        let Some(printed) = ffprobe(&run(strip(Fill::Remove), stream), &arguments) else { return };
        assert!(printed.contains("video") && !printed.contains("data"), "{name}: {printed}");
    }
    let second = FilterSpec { program: Some(2), ..FilterSpec::default() };
    let one = run(second, sample("h264_multiprog.ts"));
    let printed = ffprobe(&one, &["-show_entries", "program=program_id:stream=id", "-of", "flat"]).unwrap();
    assert!(printed.contains("program_id=2") && !printed.contains("program_id=1"), "{printed}");
    assert!(printed.contains("0x201") && !printed.contains("0x101"), "{printed}");
}

#[test]
fn klv_is_found_by_its_bytes_whatever_the_pmt_says() {
    let undeclared = |pmt: &mut Pmt| pmt.streams.retain(|s| s.pid != 0x102);
    let as_type = |kind: u8, descriptors: &'static [u8]| {
        move |pmt: &mut Pmt| {
            for stream in pmt.streams.iter_mut().filter(|s| s.pid == 0x102) {
                (stream.stream_type, stream.descriptors) = (kind, descriptors.to_vec());
            }
        }
    };
    for name in ["h264_async.ts", "h264_async_pts.ts", "h264_sync.ts", "h264_async_multi.ts"] {
        let stream = sample(name);
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("private data without descriptor", redeclared(stream, as_type(0x06, b""))),
            ("user private", redeclared(stream, as_type(0xfe, b""))),
            ("0x15 without descriptor", redeclared(stream, as_type(0x15, b""))),
            ("said to be ID3", redeclared(stream, as_type(0x15, b"\x26\x0d\xff\xffID3 \xffID3 \x00\x0f"))),
            ("undeclared", redeclared(stream, undeclared)),
        ];
        for (case, stream) in cases {
            let out = run(strip(Fill::Null), &stream);
            assert!(!holds_label(&out) && of(&out, 0x102).is_empty(), "{name}: {case}");
            assert_eq!(of(&out, 0x101), of(&stream, 0x101), "{name}: {case}");
            let tables = pmts(&out, 0x100);
            let (first, last) = (&tables[0], &tables[tables.len() - 1]);
            assert_eq!(streams(last), [0x101], "{name}: {case}");
            let changed = streams(first) != streams(last);
            assert_eq!((last.version - first.version) & 0x1f, u8::from(changed), "{name}: {case}");
        }
        let bare: Vec<u8> = Packet::all(stream)
            .filter(|p| p.pid() != 0x100 && p.pid() != 0)
            .flat_map(|p| *p.bytes())
            .collect();
        let out = run(strip(Fill::Null), &bare);
        assert!(!holds_label(&out) && of(&out, 0x102).is_empty(), "{name} without PSI");
        assert_eq!(of(&out, 0x101), of(&bare, 0x101), "{name} without PSI");
    }
}

#[test]
fn a_label_split_over_two_packets_is_found() {
    for cut in 1..4 {
        for declared in [false, true] {
            let mut stream = psi(if declared { vec![es(6, 0x200, &[])] } else { vec![] }, 0, 0);
            let before = [&[0xaa; 100][..], &LABEL[..cut]].concat();
            let behind = [&LABEL[cut..], &[0xbb; 100]].concat();
            stream.extend(packet(0x200, 0, &[0x11; 184]));
            stream.extend(packet(0x200, 1, &before));
            stream.extend(packet(0x201, 0, &[0x34; 184]));
            stream.extend(packet(0x200, 2, &behind));
            stream.extend(packet(0x200, 3, &[0x22; 184]));
            let out = run(strip(Fill::Null), &stream);
            let left = of(&out, 0x200);
            assert_eq!(left.len(), if cut == 1 { 2 } else { 1 }, "{cut}");
            assert_eq!(left[0], &packet(0x200, 0, &[0x11; 184]));
            assert_eq!(of(&out, 0x201).len(), 1);
        }
    }
}

#[test]
fn media_is_never_damaged() {
    let label = packet(0x101, 1, &[&[0x55; 90][..], &LABEL, &[0x66; 90]].concat());
    let other = packet(0x101, 2, &[0x77; 184]);
    let tables = |count| psi(vec![es(0x1b, 0x101, &[]), es(6, 0x102, b"\x59\x00")], 0, count);
    let subtitles = packet(0x102, 0, &LABEL);
    let out = run(strip(Fill::Null), &[&tables(0)[..], &label, &other, &subtitles].concat());
    assert_eq!((of(&out, 0x101), of(&out, 0x102)), (vec![&label, &other], vec![&subtitles]));
    // Not yet known to be media: out, and back when the PMT says so.
    let out = run(strip(Fill::Null), &[&label[..], &other, &tables(0), &other, &label].concat());
    assert_eq!(of(&out, 0x101), [&other, &label]);
    assert_eq!(pmts(&out, 0x100)[0].streams.len(), 2);
}

#[test]
fn private_data_and_null_packets_are_looked_at() {
    let field = [&[0x40 - 5, 0x12, 0, 0, 0, 1, 0x7e, 0, 20, 0xdf, 18][..], &LABEL].concat();
    let mut private = packet(0x101, 1, &[0x55; 100]);
    private[4] = 83;
    private[5..5 + field.len() - 1].copy_from_slice(&field[1..]);
    let tables = psi(vec![es(0x1b, 0x101, &[])], 0, 0);
    let out = run(strip(Fill::Null), &[&tables[..], &private].concat());
    let [left] = of(&out, 0x101)[..] else { panic!("the packet is lost") };
    assert_eq!(left[13..33], [0xff; 20]);
    assert_eq!((&left[..13], &left[33..]), (&private[..13], &private[33..]));
    assert!(Packet::new(left).unwrap().pcr().is_some());

    let undeclared = run(strip(Fill::Null), &private);
    let clock = Packet::new(&undeclared).unwrap();
    assert_eq!(
        (clock.pid(), clock.pcr(), clock.payload()),
        (0x101, Packet::new(&private).unwrap().pcr(), None)
    );
    assert!(!holds_label(&undeclared));

    let null = packet(NULL_PID, 0, &[&LABEL[..], &[1; 180]].concat());
    let clean = packet(NULL_PID, 7, &[1; 184]);
    let out = run(strip(Fill::Null), &[null, clean].concat());
    assert_eq!(out, [NULL, clean].concat());
    assert_eq!(run(strip(Fill::Remove), &[null, clean].concat()), clean);
}

#[test]
fn the_clock_of_a_dropped_pid_survives() {
    let clocks = |stream: &[u8]| -> Vec<(usize, u64)> {
        (0..).zip(Packet::all(stream)).filter_map(|(i, p)| Some((i, p.pcr()?))).collect()
    };
    for spec in [
        FilterSpec { drop_pids: BTreeSet::from([0x101]), ..FilterSpec::default() },
        FilterSpec { pids: Some(BTreeSet::from([0x102])), ..FilterSpec::default() },
    ] {
        let stream = sample("h264_async.ts");
        let out = run(spec.clone(), stream);
        let first = clocks(&out)[0].0;
        let wanted: Vec<_> = clocks(stream).into_iter().filter(|c| c.0 >= first).collect();
        assert_eq!(clocks(&out), wanted);
        assert!(clocks(stream).len() - wanted.len() <= 1);
        let left = of(&out, 0x101);
        assert!(left.iter().all(|p| p[3] == left[0][3] && p[3] & 0x30 == 0x20 && p[4] == 183));
        assert_eq!(of(&out, 0x102), of(stream, 0x102));
        let table = &pmts(&out, 0x100)[0];
        assert_eq!((streams(table), table.pcr_pid), (vec![0x102], 0x101));
        assert_eq!(
            run(FilterSpec { fill: Fill::Remove, ..spec }, stream).len(),
            PACKET * out.chunks(PACKET).filter(|p| !is_null(p)).count()
        );
    }
}

#[test]
fn one_program_is_left() {
    let stream = sample("h264_multiprog.ts");
    for (number, base) in [(1, 0x100), (2, 0x200)] {
        let spec = FilterSpec { program: Some(number), ..FilterSpec::default() };
        let out = run(spec.clone(), stream);
        assert_eq!(out.len(), stream.len());
        assert_eq!(pids(&out), BTreeSet::from([0, base, base + 1, base + 2]));
        assert!(pats(&out).iter().all(|pat| pat.programs == [(number, base)] && pat.nit_pid.is_none()));
        assert_eq!(pats(&out).len(), pats(stream).len());
        assert_eq!(pmts(&out, base), pmts(stream, base));
        let known = Packet::all(stream).position(|p| p.pid() == base).unwrap();
        for pid in [base + 1, base + 2] {
            assert_eq!(of(&out, pid), of(&stream[known * PACKET..], pid), "from the PMT on");
        }
        assert!(losses(&out).values().all(|lost| *lost == 0));
        let removed = run(FilterSpec { fill: Fill::Remove, strip_klv: true, ..spec }, stream);
        assert_eq!(pids(&removed), BTreeSet::from([0, base, base + 1]));
        assert!(!removed.chunks(PACKET).any(is_null));
    }
    let none = run(FilterSpec { program: Some(9), ..FilterSpec::default() }, stream);
    assert_eq!(pids(&none), BTreeSet::from([0]));
    assert!(pats(&none).iter().all(|pat| pat.programs.is_empty()));
}

#[test]
fn the_network_entry_goes_with_the_other_programs() {
    let stream = sample("h264_pat_nit.ts");
    assert_eq!(pats(&run(strip(Fill::Null), stream))[0].nit_pid, Some(16));
    let one = run(FilterSpec { program: Some(1), ..FilterSpec::default() }, stream);
    assert_eq!(pats(&one)[0].nit_pid, None);
}

#[test]
fn nothing_but_psi_passes_until_the_tables_are_known() {
    let tables = psi(vec![es(0x1b, 0x101, b"\x09\x04\x00\x01\xe3\x00"), es(0x0f, 0x102, &[])], 0, 0);
    let media: Vec<u8> =
        [0x10, 0x01, 0x101, 0x102, 0x300, 0x301].iter().flat_map(|pid| packet(*pid, 0, &[7; 184])).collect();
    let stream = [&media[..], &tables, &media].concat();
    let seen = |spec: FilterSpec| {
        let out = run(FilterSpec { fill: Fill::Null, ..spec }, &stream);
        let (before, behind) = out.split_at(media.len());
        (pids(before).into_iter().collect::<Vec<_>>(), pids(behind).into_iter().collect::<Vec<_>>())
    };
    let program = FilterSpec { program: Some(1), ..FilterSpec::default() };
    assert_eq!(seen(program), (vec![1], vec![0, 1, 0x100, 0x101, 0x102, 0x300]));
    let pids = FilterSpec { pids: Some(BTreeSet::from([0x101, 0x301])), ..FilterSpec::default() };
    assert_eq!(seen(pids), (vec![1, 0x10], vec![0, 1, 0x10, 0x100, 0x101, 0x300, 0x301]));
    let drop = FilterSpec { drop_pids: BTreeSet::from([0x101, 0x301]), ..FilterSpec::default() };
    assert_eq!(seen(drop), (vec![1, 0x10, 0x102, 0x300], vec![0, 1, 0x10, 0x100, 0x102, 0x300]));
}

#[test]
fn a_long_pmt_keeps_its_places_and_counts_its_versions() {
    let stream = sample("h264_bigpmt.ts");
    let spec = FilterSpec { drop_pids: BTreeSet::from([0x305]), ..FilterSpec::default() };
    let out = run(spec, stream);
    assert_eq!(out.len(), stream.len());
    let (old, new) = (pmts(stream, 0x100), pmts(&out, 0x100));
    assert!(of(stream, 0x100).len() >= 3 * old.len());
    assert_eq!(new.len(), old.len() - 1, "the last one waits for a repetition");
    let mut want = old[0].clone();
    want.streams.retain(|s| s.pid != 0x305);
    assert!(new.iter().all(|pmt| *pmt == want));

    // Declared, found by its bytes, gone from the input, another stream in its place.
    let klv = packet(0x102, 0, &LABEL);
    let both = vec![es(0x1b, 0x101, &[]), es(6, 0x102, &[])];
    let only = vec![es(0x1b, 0x101, &[])];
    let new = vec![es(0x1b, 0x101, &[]), es(0x0f, 0x103, &[])];
    let stream = [
        psi(both.clone(), 31, 0),
        psi(both.clone(), 31, 1),
        klv.to_vec(),
        psi(both, 31, 2),
        psi(only, 0, 3),
        psi(new, 1, 4),
    ];
    let versions: Vec<_> = pmts(&run(strip(Fill::Null), &stream.concat()), 0x100)
        .iter()
        .map(|p| (p.version, streams(p).len()))
        .collect();
    assert_eq!(versions, [(31, 2), (31, 2), (0, 1), (0, 1), (1, 2)]);
}

#[test]
fn a_checksum_that_spells_the_label_is_avoided() {
    // The last four bytes of the table are chosen so that its CRC is the label: the register run backwards.
    let mut pmt = Pmt {
        program: 1,
        pcr_pid: 0x101,
        streams: vec![es(0x1b, 0x101, &[0x80, 4, 0, 0, 0, 0])],
        ..Pmt::default()
    };
    let section = pmt.section().unwrap();
    let register = mpeg2ts_reader::mpegts_crc::sum32(&section[..section.len() - 8]);
    let mut wanted = u32::from_be_bytes(LABEL);
    for _ in 0..32 {
        wanted = if wanted & 1 == 1 { (wanted ^ 0x04c1_1db7) >> 1 | 0x8000_0000 } else { wanted >> 1 };
    }
    pmt.streams[0].descriptors[2..].copy_from_slice(&(register ^ wanted).to_be_bytes());
    let section = pmt.section().unwrap();
    assert!(section.ends_with(&LABEL));
    let mut stream = psi(vec![], 5, 0)[..PACKET].to_vec();
    packetize(&section, 0x100, &mut 0, |p| stream.extend_from_slice(p));
    let out = run(strip(Fill::Null), &stream);
    assert_eq!(pmts(&out, 0x100), [Pmt { version: 1, ..pmt.clone() }]);
    assert!(!holds_label(&out));
    let kept = run(FilterSpec { program: Some(1), ..FilterSpec::default() }, &stream);
    assert_eq!(pmts(&kept, 0x100), [pmt]);
}

/// Damaged streams: no panic, no packet more or fewer, and no label but in declared media.
#[test]
fn damage_is_survived() {
    let pid = |seed: usize, at: usize| 0x100 + (seed >> at & 7) as u16;
    for (seed, stream) in damaged(1000).enumerate() {
        let spec = FilterSpec {
            program: (seed & 3 == 0).then_some(1 + (seed >> 2 & 1) as u16),
            pids: (seed & 5 == 0).then(|| BTreeSet::from([pid(seed, 3), pid(seed, 4)])),
            drop_pids: if seed & 9 == 0 { BTreeSet::from([pid(seed, 5)]) } else { BTreeSet::new() },
            strip_klv: true,
            fill: if seed & 16 == 0 { Fill::Null } else { Fill::Remove },
        };
        let out = run(spec.clone(), &stream);
        assert!(spec.fill == Fill::Remove || out.len() == stream.len());
        assert!(out.len() <= stream.len() && out.len().is_multiple_of(PACKET));
        for packet in Packet::all(&out).filter(|p| holds_label(p.bytes())) {
            assert!(media_of_any(&stream).contains(&packet.pid()), "{seed}: {:#x}", packet.pid());
        }
    }
}

/// PIDs that some PMT declares to be media.
fn media_of_any(stream: &[u8]) -> BTreeSet<u16> {
    pids(stream)
        .into_iter()
        .flat_map(|pid| sections(stream, pid))
        .filter_map(|section| Pmt::parse(&section).ok())
        .flat_map(|pmt| pmt.streams)
        .filter(|stream| kind(stream) == Kind::Media)
        .map(|stream| stream.pid)
        .collect()
}

#[test]
fn clock_packets_are_read_back() {
    let mut clock = packet(0x101, 9, &[1; 100]);
    clock[5] = 0x90;
    set_pcr(&mut clock, 1_234_567);
    let out = run(FilterSpec { drop_pids: BTreeSet::from([0x101]), ..FilterSpec::default() }, &clock);
    let left = Packet::new(&out).unwrap();
    assert_eq!((left.pcr(), left.is_discontinuity(), left.has_payload()), (Some(1_234_567), true, false));
    assert_eq!(out[12..], [0xff; 176]);
}
