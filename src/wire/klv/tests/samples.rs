//! The sample packets give the values that an independent decoder found, bit for bit.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::super::{Checksum, Fault, Label, Packet, Quirk, Unit, Value, split};
use super::{sample, testdata};

#[test]
fn the_dynamic_packet_gives_every_value_exactly() {
    let bytes = testdata("klv/DynamicOnlyMISMMSPacketData.bin");
    let packet = Packet::read(&bytes);
    assert_eq!((packet.label, packet.checksum), (Label::Uas, Checksum::Right));
    assert_eq!(packet.issues, []);
    assert_eq!(packet.time(), Some(1_231_798_102_000_000));
    let numbers = [
        (5, 159.97436484321355),
        (6, -0.4315317239906003),
        (7, 3.4058656575212867),
        (13, 60.176822966978335),
        (14, 128.42675904204452),
        (15, 14190.719462882429),
        (16, 144.5712977798123),
        (17, 152.64362554360267),
        (18, 160.71921143697557),
        (19, -168.79232483394085),
        (20, 0.0),
        (21, 68590.98329874477),
        (22, 722.8198672465095),
        (23, -10.542388633146132),
        (24, 29.157890122923018),
        (25, 3216.037232013428),
        (65, 6.0),
        (1, 51280.0),
    ];
    for (tag, number) in numbers {
        assert_eq!(packet.set.number(tag), Some(number), "item {tag}");
    }
    assert_eq!(packet.set.items.len(), numbers.len() + 1);
}

#[test]
fn the_constant_packet_gives_its_texts_its_security_and_its_identifier() {
    let bytes = testdata("klv/DynamicConstantMISMMSPacketData.fixed.bin");
    let packet = Packet::read(&bytes);
    assert_eq!((packet.checksum, packet.issues), (Checksum::Right, vec![]));
    let set = &packet.set;
    assert_eq!(set.text(3), Some("Mission 12"));
    assert_eq!(set.text(10), Some("Predator"));
    assert_eq!(set.text(11), Some("EO Nose"));
    assert_eq!(set.text(12), Some("Geodetic WGS84"));
    assert_eq!(set.number(20), Some(176.86543764939194));
    let security = set.value(48).and_then(Value::set).expect("a security set");
    let words = serde_json::to_value(security).expect("JSON");
    let says = |tag: u64| {
        let items = words["items"].as_array().expect("items");
        items.iter().find(|item| item["tag"] == tag).map(|item| item["value"].clone())
    };
    assert_eq!(says(1), Some("unclassified".into()));
    assert_eq!(says(2), Some("stanag_1059_three_letter".into()));
    assert_eq!(says(3), Some("//USA".into()));
    assert_eq!(says(12), Some("stanag_1059_three_letter".into()));
    assert_eq!(says(13), Some("USA".into()));
    assert_eq!(says(22), Some(10.into()));
    let miis = set.value(94).expect("an identifier");
    assert_eq!(
        miis.field("text").and_then(Value::text),
        Some("0170:F592-F023-7336-4AF8-AA91-62C0-0F2E-B2DA/16B7-4341-0008-41A0-BE36-5B5A-B96A-3645:D3")
    );
    assert_eq!(miis.field("sensor_quality").and_then(Value::count), Some(3));
    assert_eq!(miis.field("platform_quality").and_then(Value::count), Some(2));
}

#[test]
fn a_wrong_checksum_is_said_and_the_values_are_there_all_the_same() {
    let mut bytes = testdata("klv/DynamicConstantMISMMSPacketData.fixed.bin");
    // as klvdata has it
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&[0xaa, 0x43]);
    let packet = Packet::read(&bytes);
    assert_eq!(packet.checksum, Checksum::Wrong { stored: 0xaa43, computed: 0x3e1e });
    assert_eq!(packet.issues.len(), 1);
    assert_eq!(
        packet.issues[0].to_string(),
        "ST 0601 item 1 (Checksum): checksum is 0xaa43, the bytes make 0x3e1e"
    );
    assert_eq!(packet.set.text(10), Some("Predator"));
}

#[test]
fn every_sample_file_gives_exactly_the_expected_values() {
    for (name, packets) in [
        ("DynamicOnlyMISMMSPacketData.bin", 1),
        ("DynamicConstantMISMMSPacketData.fixed.bin", 1),
        ("day-flight.klv", 0),
        ("truck.klv", 711),
    ] {
        let (Some(bytes), Some(expected)) =
            (sample(&format!("klv/{name}")), sample(&format!("expected/{name}.json")))
        else {
            continue;
        };
        let numbers = numbers(&expected);
        let expected: Json = serde_json::from_slice(&expected).expect("JSON");
        let expected = expected["packets"].as_array().expect("packets");
        let units: Vec<Unit<'_>> = split(&bytes).collect();
        assert_eq!(units.len(), expected.len(), "{name}");
        assert!(packets == 0 || packets == expected.len());
        for (at, (unit, expected)) in units.iter().zip(expected).enumerate() {
            let Unit::Packet(bytes) = unit else { panic!("{name}: {unit:?}") };
            let packet = Packet::read(bytes);
            assert_eq!(packet.checksum == Checksum::Right, expected["checksum_ok"] == true, "{name} {at}");
            compare(&packet, expected, &numbers[at], &format!("{name} packet {at}"));
        }
    }
}

/// The numbers of each packet by tag, to the last bit: serde_json rounds them a little. The files have an item a line.
fn numbers(json: &[u8]) -> Vec<HashMap<u32, f64>> {
    let mut packets = Vec::new();
    for line in std::str::from_utf8(json).expect("UTF-8").lines() {
        if line.contains("\"checksum_ok\"") {
            packets.push(HashMap::new());
        }
        let Some((name, value)) = line.trim().trim_end_matches(',').split_once(": ") else { continue };
        if let (Ok(tag), Ok(number)) = (name.trim_matches('"').parse(), value.parse())
            && let Some(packet) = packets.last_mut()
        {
            packet.insert(tag, number);
        }
    }
    packets
}

fn compare(packet: &Packet<'_>, expected: &Json, numbers: &HashMap<u32, f64>, at: &str) {
    let items = expected["items"].as_object().expect("items");
    let salvaged: Vec<u64> = expected["issues"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|issue| issue["tag"].as_u64())
        .collect();
    for (tag, expected) in items {
        let tag: u32 = tag.parse().expect("a tag");
        let value = packet.set.value(tag).unwrap_or_else(|| panic!("{at}: no item {tag}"));
        match expected {
            Json::Number(_) => {
                let found = value.number().or_else(|| value.count().map(|count| count as f64));
                assert_eq!(found, Some(numbers[&tag]), "{at}: item {tag}");
            }
            Json::String(text) => assert_eq!(value.text(), Some(text.as_str()), "{at}: item {tag}"),
            Json::Object(object) if object.get("special").is_some_and(|special| special == "unknown") => {
                assert_eq!(*value, Value::Unknown, "{at}: item {tag}");
            }
            // a set, as the other decoder's own words
            Json::Object(object) if object.contains_key("repr") => {
                assert!(matches!(value, Value::Set(_) | Value::Record(_)), "{at}: item {tag} is {value:?}");
            }
            other => panic!("{at}: item {tag} is expected to be {other}"),
        }
    }
    for item in &packet.set.items {
        let known = items.contains_key(&item.tag.to_string()) || salvaged.contains(&u64::from(item.tag));
        assert!(known, "{at}: item {} is not expected", item.tag);
    }
}

#[test]
fn a_target_width_of_four_bytes_is_read_and_named() {
    let Some(bytes) = sample("klv/day-flight.klv") else { return };
    let first = split(&bytes).next().expect("a packet");
    let Unit::Packet(first) = first else { panic!("{first:?}") };
    let packet = Packet::read(first);
    let width = packet.set.number(22).expect("a width");
    assert!((width - 69.73).abs() < 0.01, "{width}");
    let named: Vec<_> = packet.issues.iter().map(|issue| (issue.tag, issue.what)).collect();
    assert_eq!(named, [(22, Fault::Salvaged(Quirk::WideTargetWidth))]);
}

#[test]
fn what_a_security_set_lacks_is_said_and_the_rest_is_read() {
    let Some(bytes) = sample("klv/truck.klv") else { return };
    let Some(Unit::Packet(first)) = split(&bytes).next() else { panic!("no packet") };
    let packet = Packet::read(first);
    let security = packet.set.value(48).and_then(Value::set).expect("a security set");
    assert_eq!(security.text(6), Some("CA"));
    let lacks: Vec<u32> =
        packet.issues.iter().filter(|issue| issue.what == Fault::Missing).map(|issue| issue.tag).collect();
    assert_eq!(lacks, [12, 13]);
}
