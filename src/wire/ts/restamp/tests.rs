//! Real streams and made ones, looped: what restamping changes, and that it changes nothing else.

use super::*;
use crate::wire::ts::samples::{SAMPLES, damaged, ffprobe};

/// The file over and over, restamped.
fn passes(file: &[u8], passes: usize) -> Result<Vec<Vec<u8>>, NoClock> {
    let mut restamper = Restamper::default();
    Packet::all(file).for_each(|p| restamper.observe(p));
    let mut out = vec![file.to_vec()];
    for _ in 1..passes {
        restamper.next_pass()?;
        let mut pass = file.to_vec();
        pass.as_chunks_mut().0.iter_mut().for_each(|p| restamper.rewrite(p));
        out.push(pass);
    }
    assert_eq!(restamper.dropped_parts(), 0);
    Ok(out)
}

/// The packet without what may change: counter, PCR, OPCR, PTS, DTS (only whole PES headers).
fn masked(packet: &[u8]) -> Vec<u8> {
    let mut p = packet.to_vec();
    p[3] &= 0xf0;
    let mut at = 4;
    if p[3] & 0x20 != 0 {
        let flags = p[5];
        let mut field = 6;
        for flag in [0x10, 0x08] {
            if p[4] > 0 && flags & flag != 0 {
                p[field..field + 4].fill(0);
                p[field + 4] &= 0x7f;
                field += 6;
            }
        }
        at = 5 + usize::from(p[4]);
    }
    if p[1] & 0x40 != 0 && at + 19 <= 188 && p[at..at + 3] == [0, 0, 1] {
        for (flag, start) in [(0x80, 9), (0x40, 14)] {
            if p[at + 7] & flag != 0 {
                let t = &mut p[at + start..at + start + 5];
                t[0] &= 0xf1;
                t[1] = 0;
                t[2] &= 1;
                t[3] = 0;
                t[4] &= 1;
            }
        }
    }
    p
}

fn errors(stream: &[u8]) -> usize {
    let mut counters = vec![Counter::default(); 8192];
    Packet::all(stream)
        .filter(|p| p.pid() != NULL_PID)
        .filter(|p| matches!(counters[usize::from(p.pid())].check(*p), Continuity::Lost))
        .count()
}

/// (packet, PCR) of the first program.
fn clocks(stream: &[u8]) -> Vec<(i64, u64)> {
    let mut finder = FirstClock::default();
    (0..).zip(Packet::all(stream)).filter_map(|(i, p)| Some((i, finder.push(p)?))).collect()
}

fn timestamps(stream: &[u8]) -> Vec<(u16, u64, Option<u64>)> {
    Packet::all(stream)
        .filter(|p| p.starts_unit())
        .filter_map(|p| {
            let header = PesHeader::parse(p.payload()?)?;
            Some((p.pid(), header.pts?, header.dts))
        })
        .collect()
}

#[test]
fn every_sample_goes_on_and_nothing_else_changes() {
    for (name, file) in SAMPLES.iter() {
        let passes = passes(file, 4).unwrap();
        let joined = passes.concat();
        let packets = (file.len() / 188) as i64;
        let own = errors(file);
        assert_eq!(errors(&joined), 4 * own, "{name}: counters go on over the seam");

        let first = clocks(file);
        let all = clocks(&joined);
        assert_eq!(all.len(), 4 * first.len(), "{name}");
        let ((i0, c0), (i1, c1)) = (first[0], first[first.len() - 1]);
        let (step, mean) = (pcr_delta(c1, all[first.len()].1), pcr_delta(c0, c1) as f64 / (i1 - i0) as f64);
        assert!(step > 0 && step < 2_700_000, "{name}: step over the seam is {step}");
        if !name.contains("pcr_disc") {
            let wanted = mean * (packets - i1 + i0) as f64;
            assert!(
                (step as f64 - wanted).abs() <= wanted * 0.001 + 300.0,
                "{name}: {step}, wanted {wanted}"
            );
        }
        for (number, pass) in passes.iter().enumerate().skip(1) {
            for (old, new) in file.chunks(188).zip(pass.chunks(188)) {
                assert_eq!(masked(old), masked(new), "{name}");
                if Packet::new(old).unwrap().pid() == NULL_PID {
                    assert_eq!(old, new);
                }
            }
            let offset = pcr_delta(c0, all[first.len() * number].1);
            assert_eq!(offset % 300, 0);
            let moved = timestamps(pass);
            for ((pid, pts, dts), new) in timestamps(file).into_iter().zip(&moved) {
                let add = |t| (t + offset as u64 / 300) % PTS_WRAP;
                assert_eq!((pid, add(pts), dts.map(add)), *new, "{name} pass {number}");
            }
            for ((_, old), (_, new)) in first.iter().zip(&all[first.len() * number..]) {
                assert_eq!(pcr_delta(*old, *new), offset, "{name}");
            }
        }
    }
}

#[test]
fn ffprobe_finds_one_stream_without_a_break() {
    for (name, file) in SAMPLES.iter() {
        if ["cc_loss", "pcr_disc", "multiprog"].iter().any(|fault| name.contains(fault)) {
            continue;
        }
        let looped = passes(file, 3).unwrap().concat();
        let arguments = ["-select_streams", "v:0", "-show_entries", "packet=dts", "-of", "csv=p=0"];
        let Some(printed) = ffprobe(&looped, &arguments) else { return };
        let dts: Vec<i64> = printed
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.trim_end_matches(',').parse().unwrap())
            .collect();
        assert!(dts.len() > 500);
        assert!(dts.windows(2).all(|w| w[1] > w[0] && w[1] - w[0] < 9_000), "{name}");
    }
}

/// A packet of `pid` that carries exactly this payload.
fn packet(pid: u16, count: u8, start: bool, payload: &[u8]) -> [u8; PACKET] {
    let mut p = [0xff; PACKET];
    let stuffing = 184 - payload.len();
    p[..4].copy_from_slice(&[0x47, u8::from(start) << 6 | (pid >> 8) as u8, pid as u8, 0x10 | count & 15]);
    if stuffing > 0 {
        p[3] |= 0x20;
        p[4] = stuffing as u8 - 1;
        if stuffing > 1 {
            p[5] = 0;
        }
    }
    p[4 + stuffing..].copy_from_slice(payload);
    p
}

fn pes(pts: u64, dts: Option<u64>) -> Vec<u8> {
    let (flags, len) = if dts.is_some() { (0xc0, 10) } else { (0x80, 5) };
    let mut pes = vec![0, 0, 1, 0xe0, 0, 0, 0x80, flags, len, 0x21, 0, 1, 0, 1];
    if dts.is_some() {
        pes.extend([0x11, 0, 1, 0, 1]);
    }
    pes.extend([0xdd; 30]);
    set_pts(&mut pes, pts);
    set_dts(&mut pes, dts.unwrap_or(0));
    pes
}

/// PAT, PMT, and two PCRs that are 100 ms apart around `middle`, 10 packets apart.
fn framed(middle: &[[u8; PACKET]], base: u64) -> Vec<u8> {
    use crate::wire::ts::psi::{Pat, Pmt, packetize};
    let mut file = Vec::new();
    let pat = Pat { programs: vec![(1, 0x10)], ..Pat::default() }.section().unwrap();
    let pmt = Pmt { program: 1, pcr_pid: 0x20, ..Pmt::default() }.section().unwrap();
    packetize(&pat, 0, &mut 0, |p| file.extend_from_slice(p));
    packetize(&pmt, 0x10, &mut 0, |p| file.extend_from_slice(p));
    let clock = |pcr| {
        let mut p = [0xff; PACKET];
        p[..6].copy_from_slice(&[0x47, 0, 0x20, 0x20, 183, 0x10]);
        p[6..12].fill(0);
        set_pcr(&mut p, pcr);
        p
    };
    file.extend(clock(base % PCR_WRAP));
    middle.iter().for_each(|p| file.extend_from_slice(p));
    file.extend(clock((base + 2_700_000) % PCR_WRAP));
    file
}

/// The PES bytes of 0x100 in a stream.
fn elementary(stream: &[u8]) -> Vec<u8> {
    Packet::all(stream).filter(|p| p.pid() == 0x100).flat_map(|p| p.payload().unwrap().to_vec()).collect()
}

#[test]
fn a_header_split_anywhere_is_restamped() {
    for dts in [None, Some(PTS_WRAP - 200)] {
        let whole = pes(PTS_WRAP - 100, dts);
        for first in 1..=19 {
            for second in 1..=19 {
                for twice in [false, true] {
                    let (a, rest) = whole.split_at(first);
                    let (b, c) = rest.split_at(second);
                    let mut parts = Vec::new();
                    for (count, part) in (0..).zip([a, b, c]) {
                        let p = packet(0x100, count, count == 0, part);
                        parts.extend(std::iter::repeat_n(p, 1 + usize::from(twice)));
                    }
                    // another PID in between must not matter
                    parts.insert(1, packet(0x101, 0, true, &pes(5, Some(4))[..12]));
                    let file = framed(&parts, PCR_WRAP - 1_000_000);
                    let passes = passes(&file, 3).unwrap();
                    let packets = parts.len() as u64 + 4;
                    let pass = 2_700_000 + 2_700_000 * 3 / (packets - 3);
                    for (number, stream) in (0..).zip(&passes) {
                        let moved = number * ((pass + 150) / 300);
                        let want = pes(PTS_WRAP - 100 + moved, dts.map(|dts| dts + moved));
                        let got = elementary(stream);
                        let got: Vec<u8> = if twice {
                            assert_eq!(got.len(), 2 * want.len());
                            let mut once = got[..a.len()].to_vec();
                            assert_eq!(got[a.len()..2 * a.len()], once, "the duplicate is one still");
                            let (mid, end) = got[2 * a.len()..].split_at(2 * b.len());
                            assert_eq!(mid[..b.len()], mid[b.len()..]);
                            once.extend_from_slice(&mid[..b.len()]);
                            once.extend_from_slice(&end[..c.len()]);
                            once
                        } else {
                            got
                        };
                        assert_eq!(got, want, "split at {first}, {second}, pass {number}");
                        assert_eq!(stream.len(), file.len());
                    }
                }
            }
        }
    }
}

#[test]
fn scrambled_and_damaged_payloads_keep_every_byte() {
    let mut scrambled = packet(0x100, 3, true, &pes(90_000, None));
    scrambled[3] |= 0x80;
    let mut damaged = packet(0x100, 4, true, &pes(90_000, None));
    damaged[1] |= 0x80;
    let file = framed(&[scrambled, damaged], 0);
    let second = passes(&file, 2).unwrap().remove(1);
    assert_eq!(elementary(&second), elementary(&file));
    let counts: Vec<u8> = Packet::all(&second).filter(|p| p.pid() == 0x100).map(Packet::continuity).collect();
    assert_eq!(counts, [4, 5]);
}

#[test]
fn a_file_without_a_clock_is_refused() {
    let file = framed(&[], 0);
    assert_eq!(passes(&file[..3 * 188], 2), Err(NoClock(3 * 188)), "one PCR");
    assert_eq!(passes(&file[2 * 188..], 2), Err(NoClock(2 * 188)), "no PMT");
    assert_eq!(passes(&[], 2), Err(NoClock(0)));
}

/// Damaged files: no panic, same length, and only what may change does.
#[test]
fn damage_is_survived() {
    let mut restamped = 0;
    for stream in damaged(1000) {
        let file: Vec<u8> = Packet::all(&stream).flat_map(|p| *p.bytes()).collect();
        let Ok(passes) = passes(&file, 3) else { continue };
        restamped += 1;
        for (old, new) in file.chunks(188).zip(passes[2].chunks(188)) {
            assert_eq!(old[..3], new[..3]);
            assert_eq!(old[3] & 0xf0, new[3] & 0xf0);
            let changed = old.iter().zip(new).filter(|(old, new)| old != new).count();
            assert!(changed <= 1 + 6 + 6 + 5 + 5);
            assert!(changed == 0 || Packet::new(old).unwrap().pid() != NULL_PID);
        }
    }
    assert!(restamped > 500);
}
