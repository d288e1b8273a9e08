//! What is written is read again as the same: all 143 items of ST 0601, with values all over their range.

use std::borrow::Cow;

use super::super::reader::Reader;
use super::super::{
    Charset, Fault, Field, Item, Kind, Label, Packet, ST0601, Set, Shape, Spec, Value, write_item,
    write_packet,
};
use super::testdata;

/// Bytes that an item may have, of every length that it allows (of the longest 24), with `seed` in them.
fn bytes_of(kind: &Kind, length: usize, seed: u64) -> Option<Vec<u8>> {
    let noise = |at: usize| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at as u32 * 7) >> 24) as u8;
    Some(match kind {
        Kind::Text(Charset::Utf8 | Charset::Ascii) => (0..length).map(|at| b' ' + noise(at) % 95).collect(),
        Kind::Text(Charset::Utf16) => (0..length / 2).flat_map(|at| [0, b'A' + noise(at) % 26]).collect(),
        Kind::Choice(choices) => vec![choices[seed as usize % choices.len()].code as u8],
        Kind::Uint(min, max) => {
            let value = min + (seed.wrapping_mul(0x9e37_79b9) % (max - min).saturating_add(1).max(1));
            let value = value & (u64::MAX >> (64 - 8 * length.min(8)));
            value.to_be_bytes()[8 - length.min(8)..].to_vec()
        }
        Kind::Linear(_) | Kind::Imap(..) | Kind::Int | Kind::Time | Kind::Flags(_) | Kind::Opaque => {
            (0..length).map(noise).collect()
        }
        Kind::Bits => (0..length).map(noise).collect(),
        Kind::Uuid => (0..16).map(noise).collect(),
        Kind::Float(..) => 1.5_f64.to_be_bytes()[..].to_vec(),
        Kind::Miis => {
            let usage = [0x60, 0x08, 0x74, 0x02, 0x04][seed as usize % 5];
            let ids = (usage >> 5 & 3 > 0) as usize
                + (usage >> 3 & 3 > 0) as usize
                + (usage as u32 & 6).count_ones() as usize;
            [1, usage].into_iter().chain((0..16 * ids).map(noise)).collect()
        }
        Kind::Pack(shape) => bytes_of_shape(shape, seed),
        Kind::Sdcc => match seed % 3 {
            // mode 1, deviations as bytes, correlations mapped
            0 => [&[3, 0x22][..], &[0; 6], &[0x40, 0, 0x20, 0, 0x60, 0]].concat(),
            // mode 2, both as floats
            1 => [
                &[2, 0x84, 0x04][..],
                &2.5_f32.to_be_bytes(),
                &0.5_f32.to_be_bytes(),
                &(-0.25_f32).to_be_bytes(),
            ]
            .concat(),
            // mode 2, sparse: one of three correlations
            _ => [&[3, 0xb2, 0x00][..], &[0b0100_0000], &[0x50, 0]].concat(),
        },
        Kind::Array(_) => vec![6, 1, 2, 4, 4, 5, 1, 2][..7].to_vec(),
        Kind::Set(spec) => {
            let items: Vec<&Spec> = spec
                .items
                .iter()
                .filter(|item| !matches!(item.kind, Kind::Set(_) | Kind::Pack(_) | Kind::Array(_)))
                .collect();
            let item = items[seed as usize % items.len()];
            let length = usize::from(if item.bytes.usual > 0 { item.bytes.usual } else { item.bytes.min });
            let value = bytes_of(&item.kind, length, seed)?;
            [&[item.tag as u8, value.len() as u8][..], &value].concat()
        }
    })
}

fn bytes_of_shape(shape: &Shape, seed: u64) -> Vec<u8> {
    match shape {
        Shape::Oid => {
            if seed.is_multiple_of(3) {
                vec![0x81, (seed & 0x7f) as u8]
            } else {
                vec![(seed & 0x7f) as u8]
            }
        }
        Shape::Length => vec![(seed & 0x7f) as u8],
        Shape::Sized(count, kind) => {
            let mut bytes = bytes_of(kind, usize::from(*count), seed).expect("a kind");
            bytes.resize(usize::from(*count), 0);
            bytes
        }
        Shape::Rest(kind) => bytes_of(kind, 4, seed).expect("a kind"),
        Shape::Halves(..) => vec![0x10, 0, 1, 0x20, 0, (seed & 0x7f) as u8],
        Shape::Counted(inner) => {
            let inner = bytes_of_shape(inner, seed);
            [&[inner.len() as u8][..], &inner].concat()
        }
        Shape::Record(needed, parts) => {
            let count = needed + seed as usize % (parts.len() - needed + 1);
            (0..).zip(&parts[..count]).flat_map(|(at, part)| bytes_of_shape(&part.1, seed + at)).collect()
        }
        Shape::List(inner) => (0..1 + seed % 3).flat_map(|at| bytes_of_shape(inner, seed + at)).collect(),
    }
}

#[test]
fn all_143_items_are_written_as_the_bytes_they_were_read_from() {
    let mut raw_items = 0;
    for spec in ST0601.items {
        let lengths = usize::from(spec.bytes.min)..=usize::from(spec.bytes.max).min(24);
        let mut understood = 0;
        for length in lengths {
            for seed in 0..40 {
                let bytes = bytes_of(&spec.kind, length, seed).expect("a kind");
                let fits = (usize::from(spec.bytes.min)..=usize::from(spec.bytes.max)).contains(&bytes.len());
                if !fits {
                    continue;
                }
                let mut packed = Vec::new();
                super::super::ber::write_oid(u64::from(spec.tag), &mut packed);
                super::super::ber::write_length(bytes.len() as u64, &mut packed);
                packed.extend_from_slice(&bytes);
                let set = Reader::new().set(&ST0601, &packed);
                let item = &set.items[0];
                assert_eq!((item.tag, &*item.raw), (spec.tag, &bytes[..]));
                understood += usize::from(!matches!(item.value, Value::Raw(_)));
                let mut written = Vec::new();
                let result = write_item(&ST0601, item, &mut written);
                if let Err(error) = result {
                    panic!("{error}: {:?} from {bytes:x?}", item.value);
                }
                // 7 and 8 bytes of a mapped item hold more than a double does; so do code words of a range above it
                let coarse =
                    matches!(spec.kind, Kind::Imap(..)) && length > 6 && matches!(item.value, Value::Real(_));
                if coarse {
                    let again = Reader::new().set(&ST0601, &written);
                    assert_eq!(again.items[0].value, item.value, "item {} from {bytes:x?}", spec.tag);
                } else {
                    assert_eq!(written, packed, "item {} reads {:?}", spec.tag, item.value);
                }
            }
        }
        raw_items += usize::from(understood == 0);
        assert!(
            understood > 0 || matches!(spec.kind, Kind::Opaque),
            "item {} was never understood",
            spec.tag
        );
    }
    assert_eq!((ST0601.items.len(), raw_items), (143, 1));
}

#[test]
fn all_143_items_say_the_same_after_being_written_and_read() {
    let mut set = Set::new(&ST0601).with(2, Value::Time(1_700_000_000_000_000));
    for spec in ST0601.items {
        // the checksum is the writer's; 143 may not stand here
        if matches!(spec.tag, 1 | 2) {
            continue;
        }
        let length =
            if spec.bytes.usual > 0 { spec.bytes.usual } else { spec.bytes.min.max(3).min(spec.bytes.max) };
        let bytes = bytes_of(&spec.kind, usize::from(length), u64::from(spec.tag)).expect("a kind");
        let mut reader = Reader::new();
        let value = reader.value(&spec.kind, &bytes).into_owned();
        // sets of one item lack others; not every code word is a number
        reader.issues.retain(|issue| !matches!(issue.what, Fault::Missing | Fault::Range));
        assert_eq!(reader.issues, [], "item {}: {value:?}", spec.tag);
        set = set.with(spec.tag, value);
    }
    let packet = write_packet(Label::Uas, &set).expect("a packet");
    let read = Packet::read(&packet);
    assert_eq!(read.checksum, super::super::Checksum::Right);
    assert_eq!(read.set.items.len(), 143);
    for item in &set.items {
        let found = read.set.value(item.tag).expect("an item");
        let strip = |value: &Value<'_>| format!("{value:?}").replace("raw: []", "");
        if let (Value::Set(a), Value::Set(b)) = (found, &item.value) {
            let values =
                |set: &Set<'_>| set.items.iter().map(|item| format!("{:?}", item.value)).collect::<Vec<_>>();
            assert_eq!(values(a), values(b), "item {}", item.tag);
        } else {
            assert_eq!(strip(found), strip(&item.value), "item {}", item.tag);
        }
    }
}

#[test]
fn the_worked_packets_are_written_as_they_came() {
    for name in ["DynamicOnlyMISMMSPacketData.bin", "DynamicConstantMISMMSPacketData.fixed.bin"] {
        let bytes = testdata(&format!("klv/{name}"));
        let packet = Packet::read(&bytes);
        let written = write_packet(Label::Uas, &packet.set).expect("a packet");
        assert_eq!(written, bytes, "{name}");
    }
}

#[test]
fn a_value_that_its_item_cannot_say_is_an_error_that_names_it() {
    let refused = |tag, value| {
        let mut out = Vec::new();
        write_item(&ST0601, &Item::new(tag, value), &mut out).expect_err("an error").to_string()
    };
    assert_eq!(
        refused(5, Value::Real(361.0)),
        "ST 0601 item 5 (Platform Heading Angle): outside what the item can say"
    );
    assert_eq!(
        refused(3, Value::Real(1.0)),
        "ST 0601 item 3 (Mission ID): not of the kind that the item holds"
    );
    assert_eq!(
        refused(3, Value::Text("x".repeat(128).into())),
        "ST 0601 item 3 (Mission ID): needs more bytes than the item may have"
    );
    assert_eq!(
        refused(8, Value::Uint(256)),
        "ST 0601 item 8 (Platform True Airspeed): outside what the item can say"
    );
    assert!(
        refused(127, Value::Record(vec![Field { name: "denominator", value: Value::Uint(1) }]))
            .contains("kind")
    );
    // the error indicator, and what was not understood, can be said
    for value in
        [Value::Special(super::super::Special::OffEarth), Value::Raw(Cow::Borrowed(&[1, 2])), Value::Unknown]
    {
        write_item(&ST0601, &Item::new(23, value), &mut Vec::new()).expect("written");
    }
}
