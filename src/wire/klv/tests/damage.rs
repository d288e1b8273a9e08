//! Hostile bytes: nothing panics, nothing grows, and what is whole is still read.

use super::super::{Checksum, Fault, Label, PACKET_MAX, PREFIX, Packet, Unit, Value, split, write_packet};
use super::testdata;

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

#[test]
fn damaged_packets_are_read_without_harm() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let packets = ["DynamicOnlyMISMMSPacketData.bin", "DynamicConstantMISMMSPacketData.fixed.bin"]
        .map(|name| testdata(&format!("klv/{name}")));
    for round in 0..20_000 {
        let mut bytes = packets[round % 2].clone();
        for _ in 0..random.below(8) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = [0, 0xff, 0x80, 0x84][random.below(4)],
                2 => bytes.truncate(at.max(17)),
                _ => drop(bytes.splice(at..at, (0..random.below(30)).map(|i| i as u8))),
            }
        }
        let packet = Packet::read(&bytes);
        assert!(packet.issues.len() <= 64);
        assert!(serde_json::to_string(&packet).is_ok());
        // what was read is written; what was not understood goes on as it came
        let written = write_packet(Label::Uas, &packet.set);
        if let Ok(written) = written {
            let again = Packet::read(&written);
            for item in packet.set.items.iter().filter(|item| item.tag > 1) {
                assert!(again.set.item(item.tag).is_some());
            }
        }
    }
}

#[test]
fn a_packet_that_ends_early_says_so_and_keeps_its_rest() {
    let bytes = testdata("klv/DynamicOnlyMISMMSPacketData.bin");
    for length in 17..bytes.len() {
        let packet = Packet::read(&bytes[..length]);
        assert!(packet.issues.iter().any(|issue| issue.what == Fault::Truncated), "{length}");
    }
    let packet = Packet::read(&bytes[..60]);
    assert_eq!(packet.set.number(5), Some(159.97436484321355));
    let last = packet.set.items.last().expect("items");
    assert!(last.tag == 0 && matches!(last.value, Value::Raw(_)));
    assert_eq!(Packet::read(&bytes[..10]).issues[0].what, Fault::Key);
    assert_eq!(Packet::read(&[]).issues[0].what, Fault::Key);
}

#[test]
fn a_length_bomb_takes_no_memory() {
    let mut bytes = testdata("klv/DynamicOnlyMISMMSPacketData.bin");
    bytes.splice(16..17, [0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let packet = Packet::read(&bytes);
    assert_eq!(packet.issues[0].what, Fault::Truncated);
    assert!(packet.set.items.len() > 10);
}

#[test]
fn sets_in_sets_end_at_a_depth() {
    // a segment that holds a segment that …
    let mut inner = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![100];
        super::super::ber::write_length(inner.len() as u64, &mut outer);
        outer.extend_from_slice(&inner);
        inner = outer;
    }
    let mut bytes = Label::Uas.key().to_vec();
    super::super::ber::write_length(inner.len() as u64, &mut bytes);
    bytes.extend_from_slice(&inner);
    let packet = Packet::read(&bytes);
    assert!(packet.issues.iter().any(|issue| issue.what == Fault::TooMuch));
}

#[test]
fn a_packet_full_of_items_is_read_to_a_bound() {
    let mut bytes = Label::Uas.key().to_vec();
    let body: Vec<u8> = (0..PACKET_MAX - 20).map(|at| if at % 2 == 0 { 120 } else { 0 }).collect();
    super::super::ber::write_length(body.len() as u64, &mut bytes);
    bytes.extend_from_slice(&body);
    let packet = Packet::read(&bytes);
    assert!(packet.set.items.len() <= 20_000);
    assert!(packet.issues.len() <= 64);
}

#[test]
fn packets_are_found_in_junk_and_behind_damage() {
    let packet = testdata("klv/DynamicOnlyMISMMSPacketData.bin");
    let units = |bytes: &[u8]| {
        split(bytes)
            .map(|unit| match unit {
                Unit::Packet(bytes) => ('p', bytes.len()),
                Unit::Cut(bytes) => ('c', bytes.len()),
                Unit::Junk(bytes) => ('j', bytes.len()),
                Unit::Partial(bytes) => ('t', bytes.len()),
            })
            .collect::<Vec<_>>()
    };
    let len = packet.len();
    assert_eq!(units(&[&packet[..], &packet].concat()), [('p', len), ('p', len)]);
    assert_eq!(
        units(&[&[1, 2, 3], &packet[..], &[0x47; 5], &packet].concat()),
        [('j', 3), ('p', len), ('j', 5), ('p', len)]
    );
    assert_eq!(units(&packet[..50]), [('t', 50)]);
    assert_eq!(units(&[&packet[..], &packet[..3]].concat()), [('p', len), ('t', 3)]);
    // a prefix in junk whose key is none
    assert_eq!(
        units(&[&[0x06, 0x0e, 0x2b, 0x34, 0xff, 0xff, 0xff, 0xff][..], &packet].concat()),
        [('j', 8), ('p', len)]
    );
    // a length that was damaged reaches over the next packet
    let mut long = packet.clone();
    long.splice(16..17, [0x82, 0x7f]);
    assert_eq!(units(&[&long[..], &packet].concat()), [('c', len + 1), ('p', len)]);
    let mut bomb = packet.clone();
    bomb.splice(16..17, [0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(units(&[&bomb[..], &packet].concat()), [('c', len + 8), ('p', len)]);
    assert_eq!(units(&[]), []);
    // a prefix right before a label is none, and neither is a key that a label cuts off
    assert_eq!(units(&[&PREFIX[..], &packet].concat()), [('j', 4), ('p', len)]);
    let key = [&PREFIX[..], &[2, 3, 1, 1, 9], &packet].concat();
    assert_eq!(units(&[&key[..], &packet].concat()), [('j', 9), ('p', len), ('p', len)]);
}

#[test]
fn a_packet_that_is_too_short_does_not_take_the_next_one_along() {
    let packet = testdata("klv/DynamicOnlyMISMMSPacketData.bin");
    let len = packet.len();
    for short in [1, 5, 17, 60] {
        let bytes = [&packet[..len - short], &packet, &packet].concat();
        let units: Vec<Unit<'_>> = split(&bytes).collect();
        let want = [Unit::Cut(&packet[..len - short]), Unit::Packet(&packet), Unit::Packet(&packet)];
        assert_eq!(units, want, "{short}");
        // not even where the rest of the next one is yet to come
        let start = &bytes[..len + 2];
        if short > 5 {
            assert_eq!(split(start).next(), Some(want[0]), "{short}");
        }
    }
    // a key in a value is one where the checksum says that the packet is whole
    let mut set = Packet::read(&packet).set.into_owned();
    set.items[1].value = Value::Text("".into());
    let mut value = Label::Uas.key().to_vec();
    value.extend_from_slice(&[1, 2]);
    set.items[1].value = Value::Raw(value.into());
    set.items[1].spec = None;
    set.items[1].tag = 200;
    let held = write_packet(Label::Uas, &set).unwrap();
    assert!(held.len() > len && Packet::read(&held).checksum == Checksum::Right);
    let bytes = [&held[..], &packet].concat();
    assert_eq!(split(&bytes).collect::<Vec<_>>(), [Unit::Packet(&held), Unit::Packet(&packet)]);
}
