//! Streams enter that are whole, cut, damaged or changing; what leaves is held against them.

use proptest::prelude::*;

use super::super::multiplexer::{Multiplexer, Options, Unit};
use super::super::packet::{PACKET, SYNC};
use super::super::samples::{SAMPLES, damaged, sample};
use super::*;

/// What a stream came to: (PID, PTS, bytes, damaged).
type Found = Vec<(u16, Option<u64>, Vec<u8>, bool)>;

fn take(demux: &mut Demux, stream: &[u8], found: &mut Found) {
    demux.push(stream, &mut |event| {
        if let Event::Pes(pes) = event {
            found.push((pes.pid, pes.header.pts, pes.data.to_vec(), pes.damaged));
        }
    });
}

fn read(stream: &[u8]) -> (Found, Demux) {
    let mut demux = Demux::new(None);
    let mut found = Found::new();
    take(&mut demux, stream, &mut found);
    demux.flush(&mut |event| {
        if let Event::Pes(pes) = event {
            found.push((pes.pid, pes.header.pts, pes.data.to_vec(), pes.damaged));
        }
    });
    (found, demux)
}

fn count(found: &Found, pid: u16) -> usize {
    found.iter().filter(|unit| unit.0 == pid).count()
}

#[test]
fn every_sample_is_read_whole() {
    for (name, stream) in SAMPLES.iter().filter(|sample| sample.0 != "h264_cc_loss.ts") {
        let (found, demux) = read(stream);
        assert!(found.iter().all(|unit| !unit.3), "{name}");
        assert_eq!((count(&found, 0x101), count(&found, 0x102)), (180, 60), "{name}");
        let counters = demux.counters();
        assert_eq!((counters.losses, counters.refused, counters.changes), (0, 0, 0), "{name}");
        assert_eq!(counters.packets, (stream.len() / PACKET) as u64);
    }
}

#[test]
fn a_packet_that_says_its_length_leaves_with_its_last_byte() {
    let stream = sample("h264_sync.ts");
    let mut demux = Demux::new(None);
    let (mut seen, mut last) = (0, None);
    for (index, packet) in Packet::all(stream).enumerate() {
        if packet.pid() == 0x102 {
            last = Some(index);
        }
        demux.push(packet.bytes(), &mut |event| {
            if let Event::Pes(pes) = event
                && pes.pid == 0x102
            {
                assert_eq!(last, Some(index));
                seen += 1;
            }
        });
    }
    assert_eq!(seen, 60);
}

#[test]
fn a_picture_leaves_with_its_last_packet_once_stuffing_proved_to_be_the_end() {
    let mut demux = Demux::new(None);
    let (mut last, mut at_once, mut pictures) = (None, 0, 0);
    let stream = sample("h264_async.ts");
    for (index, packet) in Packet::all(stream).enumerate() {
        if packet.pid() == 0x101 {
            last = Some(index);
        }
        demux.push(packet.bytes(), &mut |event| {
            if let Event::Pes(pes) = event
                && pes.pid == 0x101
            {
                pictures += 1;
                at_once += usize::from(last == Some(index) && !packet.starts_unit());
            }
        });
    }
    // the first 64 leave with the next one
    assert!(at_once > 100 && pictures >= 179, "{at_once} of {pictures}");
}

#[test]
fn stuffing_in_the_middle_of_a_picture_is_not_taken_for_its_end_again() {
    let assembly = |packets: &[(&[u8], bool, bool)], assembly: &mut Assembly| {
        let mut whole = Vec::new();
        for &(payload, starts, stuffed) in packets {
            if starts {
                if assembly.finish() == Progress::Whole {
                    whole.push(assembly.packet().unwrap().1.len());
                }
                assembly.start(false);
            }
            if assembly.push(payload, stuffed).1 == Progress::Whole {
                whole.push(assembly.packet().unwrap().1.len());
                assembly.clear();
            }
        }
        whole
    };
    let head: &[u8] = &[0, 0, 1, 0xe0, 0, 0, 0x80, 0, 0, 1, 2, 3];
    let mut state = Assembly::new(Format::H264);
    let steady = [(head, true, false), (&[4, 5][..], false, true)].repeat(70);
    assert_eq!(assembly(&steady, &mut state), [5; 70]);
    // one picture of three packets, the second of which is filled up: it is cut, and it is the last one that is
    let odd = [(head, true, false), (&[4, 5], false, true), (&[6], false, true)];
    assert_eq!(assembly(&odd, &mut state), [5]);
    assert_eq!(assembly(&odd.repeat(2), &mut state), [6]);
    assert_eq!(assembly(&odd, &mut state), [6]);
}

#[test]
fn a_loss_marks_the_packet_that_it_hits() {
    let stream = sample("h264_async.ts");
    // the third packet of the fourth picture
    let starts = |p: &Packet<'_>| p.pid() == 0x101 && p.starts_unit();
    let picture = Packet::all(stream).enumerate().filter(|(_, p)| starts(p)).nth(3).unwrap().0;
    let gone = Packet::all(stream)
        .enumerate()
        .skip(picture)
        .filter(|(_, packet)| packet.pid() == 0x101)
        .nth(2)
        .unwrap()
        .0;
    let lossy = [&stream[..gone * PACKET], &stream[(gone + 1) * PACKET..]].concat();
    let (found, demux) = read(&lossy);
    let pictures: Vec<_> = found.iter().filter(|unit| unit.0 == 0x101).collect();
    assert_eq!(pictures.len(), 180);
    assert!(pictures.iter().enumerate().all(|(n, unit)| unit.3 == (n == 3)));
    assert_eq!((demux.counters().losses, demux.counters().damaged), (1, 1));
    // a legal duplicate instead is none
    let twice = [&stream[..(gone + 1) * PACKET], &stream[gone * PACKET..]].concat();
    let (found, demux) = read(&twice);
    assert!(found.iter().all(|unit| !unit.3));
    assert_eq!(demux.counters().duplicates, 1);
}

#[test]
fn a_program_is_chosen_by_number_or_the_first() {
    let stream = sample("h264_multiprog.ts");
    for (wanted, number, pids) in [(None, 1, [0x101, 0x102]), (Some(2), 2, [0x201, 0x202])] {
        let mut demux = Demux::new(wanted);
        let mut found = Found::new();
        take(&mut demux, stream, &mut found);
        assert_eq!(demux.program(), Some(number));
        let mut seen: Vec<_> = found.iter().map(|unit| unit.0).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, pids);
    }
    let mut demux = Demux::new(Some(9));
    let mut found = Found::new();
    take(&mut demux, stream, &mut found);
    assert_eq!((demux.program(), found.len()), (None, 0));
}

#[test]
fn a_change_of_the_program_costs_no_packet() {
    let options = Options { transport_stream_id: 1, program: 1, pmt_pid: 0x1000, rate: None };
    let mut multiplexer = Multiplexer::new(options);
    let entry = |pid, stream_type| Stream { stream_type, pid, descriptors: Vec::new() };
    let mut stream = Vec::new();
    let mut sink = |datagram: &[u8]| stream.extend_from_slice(datagram);
    for n in 0..60 {
        // every ten pictures the sound goes to another PID, and the pictures stay
        let sound = 0x110 + n / 10;
        multiplexer.describe(vec![entry(0x101, 0x1b), entry(sound as u16, 0x0f)], 0x101).unwrap();
        let time = n * 40 * 27_000;
        let unit = |pid, stream_id, parts| Unit {
            pid,
            stream_id,
            pts: Some(time / 300),
            dts: None,
            random_access: false,
            aligned: true,
            parts,
        };
        multiplexer.write(&unit(0x101, 0xe0, &[&[1; 70_000]]), time, &mut sink);
        multiplexer.write(&unit(sound as u16, 0xc0, &[&[2; 300]]), time, &mut sink);
    }
    multiplexer.flush(&mut sink);
    let (found, demux) = read(&stream);
    assert_eq!(count(&found, 0x101), 60);
    assert_eq!(found.len(), 120);
    assert!(found.iter().all(|unit| !unit.3));
    assert_eq!(demux.counters().changes, 5);
}

#[test]
fn a_picture_beyond_reason_is_given_up() {
    let mut demux = Demux::new(None);
    let mut found = Found::new();
    let stream = sample("h264_async.ts");
    take(&mut demux, &stream[..100 * PACKET], &mut found);
    let mut endless = [0xaa; PACKET];
    let mut count = Packet::all(stream).take(100).filter(|p| p.pid() == 0x101).last().unwrap().continuity();
    for _ in 0..50_000 {
        count = (count + 1) & 0x0f;
        endless[..4].copy_from_slice(&[SYNC, 0x01, 0x01, 0x10 | count]);
        take(&mut demux, &endless, &mut found);
        assert!(demux.held <= 9 << 20);
    }
    assert_eq!(demux.counters().refused, 1);
}

#[test]
fn damaged_streams_are_safe_and_hold_little() {
    for stream in damaged(200) {
        let (_, demux) = read(&stream);
        assert_eq!(demux.held, 0);
    }
}

proptest! {
    /// However datagrams are cut, the same comes out.
    #[test]
    fn what_comes_out_does_not_depend_on_datagrams(index in 0usize..14, sizes in prop::collection::vec(1usize..40, 1..10)) {
        let stream = &SAMPLES[index].1[..1500 * PACKET];
        let (whole, _) = read(stream);
        let mut demux = Demux::new(None);
        let mut found = Found::new();
        let mut rest = stream;
        for size in sizes.iter().cycle() {
            let (datagram, behind) = rest.split_at((size * PACKET).min(rest.len()));
            take(&mut demux, datagram, &mut found);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        demux.flush(&mut |event| {
            if let Event::Pes(pes) = event {
                found.push((pes.pid, pes.header.pts, pes.data.to_vec(), pes.damaged));
            }
        });
        prop_assert!(whole == found);
    }
}
