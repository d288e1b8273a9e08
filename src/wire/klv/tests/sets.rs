//! The sets inside ST 0601, and the other standards' packets. The bytes were written by another implementation
//! (`stanag4609` 0.4.0, whose decoder gives the same values) unless a test says otherwise.

use serde_json::{Value as Json, json};

use super::super::reader::Reader;
use super::super::{
    Checksum, EG0104, Fault, Kind, Label, Packet, Quirk, ST0102, ST0601, ST0903, ST1601, ST1602, Set,
    SetSpec, Special, Tags, Value, write_item, write_packet,
};

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

/// Reads a set without a fault, and sees that it is written as it came.
fn read(spec: &'static SetSpec, raw: &[u8]) -> Set<'static> {
    let mut reader = Reader::new();
    let set = reader.set(spec, raw).into_owned();
    assert_eq!(reader.issues, []);
    let mut written = Vec::new();
    set.items.iter().for_each(|item| write_item(set.spec, item, &mut written).expect("written"));
    assert_eq!(written, raw);
    set
}

fn read_packet(raw: &[u8], label: Label) -> Set<'static> {
    let packet = Packet::read(raw);
    assert_eq!((packet.label, &packet.issues), (label, &vec![]));
    let sum = if label.checksum().is_some() { Checksum::Right } else { Checksum::None };
    assert_eq!(packet.checksum, sum);
    assert_eq!(write_packet(label, &packet.set).expect("written"), raw);
    packet.set.into_owned()
}

fn json(value: Option<&Value<'_>>) -> Json {
    serde_json::to_value(value.expect("an item")).expect("JSON")
}

fn near(found: Option<f64>, expected: f64, step: f64) {
    let found = found.expect("a number");
    assert!((found - expected).abs() <= step, "{found} is not {expected}");
}

#[test]
fn vmti_is_read_with_targets_tracks_masks_and_objects() {
    let set = read(&ST0903, &bytes(VMTI));
    assert_eq!(set.text(3), Some("DSTO_ADSS_VMTI"));
    assert_eq!((set.number(5), set.number(8), set.number(9)), (Some(28.0), Some(1920.0), Some(1080.0)));
    near(set.number(11), 12.5, 0.01);
    let targets = set.value(101).expect("targets").list();
    assert_eq!(targets.len(), 1);
    assert_eq!(targets[0].field("id"), Some(&Value::Uint(1234)));
    let target = targets[0].field("items").and_then(Value::set).expect("items");
    assert_eq!(target.number(1), Some(409_600.0));
    assert_eq!(json(target.value(8)), json!({"red": 218, "green": 165, "blue": 32}));
    near(target.number(10), 10.0, 5e-6);
    near(target.number(11), -12.0, 5e-6);
    near(target.number(12), 10_000.0, 1.0);
    assert_eq!(json(target.value(23)), json!("active_moving"));
    let place = target.value(17).expect("a location");
    near(place.field("latitude").and_then(Value::number), 43.0, 1e-7);
    near(place.field("longitude").and_then(Value::number), -110.0, 3e-7);
    near(place.field("hae").and_then(Value::number), 1500.0, 1.0);
    near(place.field("rho_east_up").and_then(Value::number), -0.25, 1e-4);
    let mask = target.value(101).and_then(Value::set).expect("a mask");
    assert_eq!(json(mask.value(1)), json!([1, 100, 1_500_000]));
    assert_eq!(json(mask.value(2)), json!([{"start": 74, "length": 2}]));
    let track = target.value(104).and_then(Value::set).expect("a track");
    assert_eq!(json(track.value(1)), json!("f592f023-7336-4af8-aa91-62c00f2eb2da"));
    assert_eq!(json(track.value(3)), json!(1_577_836_800_000_000_u64));
    near(track.value(10).and_then(|v| v.field("north")).and_then(Value::number), -5.0, 0.1);
    let object = target.value(107).expect("objects").list()[0].set().expect("an object");
    near(object.number(4), 51.5, 1.0);
    assert_eq!(object.value(5).expect("features").list()[0].set().and_then(|f| f.number(3)), Some(9.0));
    assert_eq!(set.value(102).expect("algorithms").list()[0].set().and_then(|a| a.text(4)), Some("detector"));
    assert_eq!(set.value(103).expect("ontologies").list().len(), 2);
}

#[test]
fn vmti_before_the_fourth_edition_is_read_in_equal_steps() {
    // made here: version 3, field of view 0x8000 of 0xffff, a target with offsets and a location
    let set = read(
        &ST0903,
        &bytes(
            "04 01 03 0b 02 80 00 65 1c 1b 07
             0a 03 40 00 00 0b 03 c0 00 00 0c 02 2a 94
             11 0a 80 00 00 00 80 00 00 00 2a 94",
        ),
    );
    assert_eq!(set.spec.name, "ST 0903 before .4");
    near(set.number(11), 90.0, 0.002);
    let target =
        set.value(101).expect("targets").list()[0].field("items").and_then(Value::set).expect("items");
    near(target.number(10), 9.6, 2e-6);
    near(target.number(11), -9.6, 3e-6);
    near(target.number(12), 2409.834, 0.001);
    let place = target.value(17).expect("a location");
    near(place.field("latitude").and_then(Value::number), 0.0, 1e-7);
    near(place.field("longitude").and_then(Value::number), 0.0, 1e-7);
}

#[test]
fn a_remote_video_terminal_packet_is_read_with_its_points_and_areas() {
    let set = read_packet(&bytes(RVT), Label::Rvt);
    assert_eq!((set.number(3), set.number(16), set.text(15)), (Some(100.0), Some(12_345.0), Some("SFT")));
    let point = set.value(12).and_then(Value::set).expect("a point");
    near(point.number(2), 41.5, 5e-8);
    near(point.number(3), -104.25, 1e-7);
    near(point.number(4), 1800.0, 0.2);
    assert_eq!((json(point.value(5)), point.text(6)), (json!("hostile"), Some("bridge")));
    let area = set.value(13).and_then(Value::set).expect("an area");
    near(area.number(5), -104.0, 1e-7);
    let mut damaged = bytes(RVT);
    damaged[30] ^= 1;
    assert!(matches!(Packet::read(&damaged).checksum, Checksum::Wrong { .. }));
}

#[test]
fn a_sar_packet_is_read_with_its_polynomial() {
    let set = read_packet(&bytes(SAR), Label::Sar);
    near(set.number(1), 30.0, 0.003);
    near(set.number(2), -10.0, 0.006);
    assert_eq!((json(set.value(3)), json(set.value(4))), (json!("right"), json!("ground")));
    near(set.number(5), 0.5, 0.001);
    near(set.number(20), 9.6e9, 600.0);
    let polynomial = set.value(22).expect("an array");
    assert_eq!(json(polynomial.field("dimensions")), json!([2, 2]));
    assert_eq!(json(polynomial.field("algorithm")), json!("imap"));
    let values: Vec<f64> =
        polynomial.field("values").expect("values").list().iter().filter_map(Value::number).collect();
    for (found, expected) in values.iter().zip([1.0, 20.0, 300.0, 4000.0]) {
        near(Some(*found), expected, 32.0);
    }
    assert_eq!(values.len(), 4);
}

#[test]
fn a_range_image_packet_is_read_with_its_sections() {
    let set = read_packet(&bytes(RANGE), Label::RangeImage);
    assert_eq!(set.number(13), Some(1234.5));
    let section = set.value(20).expect("a section");
    assert_eq!(
        json(section.field("ranges").and_then(|array| array.field("values"))),
        json!([100.5, 101.5, 102.5, 103.5])
    );
    assert_eq!(json(section.field("uncertainty")), Json::Null);
    assert_eq!(json(section.field("plane_constant")), json!(10.0));
    let mut damaged = bytes(RANGE);
    damaged[40] ^= 1;
    assert!(matches!(Packet::read(&damaged).checksum, Checksum::Wrong { .. }));
}

#[test]
fn geo_registration_is_read_with_its_arrays() {
    let set = read(&ST1601, &bytes(REGISTRATION));
    let values = |tag| json(set.value(tag).and_then(|array| array.field("values")));
    assert_eq!(values(4), json!([1, 2, 3, 400, 500, 600]));
    assert_eq!(values(5), json!([1.5, 2.5, 3.5, -4.5, -5.5, -6.5]));
    assert_eq!(values(8), json!([100.0, 0.5, -7.25]));
    // each row has bounds of its own
    let rows = set.value(10).and_then(|array| array.field("values")).expect("values").list();
    for (at, expected) in [(0, 1.0), (8, 0.0), (7, -0.5), (11, 30.0), (17, -1.0)] {
        near(rows[at].number(), expected, 0.04);
    }
}

#[test]
fn composite_imaging_is_read() {
    let set = read(
        &ST1602,
        &bytes("010800059b08c1fa40000201020302043804020780090201e00a0202800b01f60c0114110180120101"),
    );
    assert_eq!((set.number(11), set.number(12), set.number(17)), (Some(-10.0), Some(20.0), Some(128.0)));
}

#[test]
fn arrays_of_every_kind_are_read() {
    let array = |hex: &str, expected: Json| {
        let raw = bytes(hex);
        let mut reader = Reader::new();
        let value = reader.value(&Kind::Array(super::super::Element::Uint), &raw);
        assert_eq!((reader.issues.len(), json(Some(&value))), (0, expected));
        let mut out = Vec::new();
        super::super::st1303::write(super::super::Element::Uint, &value, &mut out).expect("written");
        assert_eq!(out, raw);
    };
    array(
        "070203030103b680",
        json!({"dimensions": [3, 3], "element_bytes": 1, "algorithm": "boolean", "values": [1, 0, 1, 1, 0, 1, 1, 0, 1]}),
    );
    array(
        "0b0104010405008227028763",
        json!({"dimensions": [4], "element_bytes": 1, "algorithm": "unsigned", "bias": 5, "values": [5, 300, 7, 1000]}),
    );
    array(
        "0d0264640205000700090a141e28",
        json!({"dimensions": [100, 100], "element_bytes": 2, "algorithm": "run_length", "default": 7,
               "patches": [{"value": 9, "start": [10, 20], "size": [30, 40]}]}),
    );
}

#[test]
fn an_array_that_promises_more_than_it_holds_stays_bytes() {
    for hex in [
        "0602 8fffff7f 02 01",
        "0a 01 8f ff ff ff 7f 01 01 00 00",
        "04 01 04 02 01",
        "05 00 01 01 01 00",
        "ff",
    ] {
        let raw = bytes(hex);
        let mut reader = Reader::new();
        let value = reader.value(&Kind::Array(super::super::Element::Uint), &raw);
        assert!(matches!(value, Value::Raw(_)), "{hex}: {value:?}");
        assert_eq!(reader.issues[0].what, Fault::Encoding);
    }
}

#[test]
fn security_packets_are_read_in_both_forms() {
    let set = read_packet(&bytes(SECURITY), Label::Security);
    assert_eq!(
        (json(set.value(1)), set.text(13), set.text(6)),
        (json!("secret"), Some("NZL;AUS"), Some("NZL AUS"))
    );
    let set = read_packet(&bytes(SECURITY_UNIVERSAL), Label::SecurityUniversal);
    assert_eq!(
        (set.text(1), set.text(12), set.text(13)),
        (Some("UNCLASSIFIED//"), Some("1059 Three Letter"), Some("USA;GBR"))
    );
    assert_eq!(set.number(22), Some(12.0));
}

#[test]
fn country_codes_are_read_in_the_wrong_encoding_and_named() {
    // made here: item 3 in UTF-16, item 13 in ASCII
    let raw = bytes("01 01 01 02 01 07 03 0a 002f 002f 0055 0053 0041 0c 01 07 0d 03 555341 16 02 000a");
    let mut reader = Reader::new();
    let set = reader.set(&ST0102, &raw);
    assert_eq!((set.text(3), set.text(13)), (Some("//USA"), Some("USA")));
    let named: Vec<_> = reader.issues.iter().map(|issue| (issue.tag, issue.what)).collect();
    assert_eq!(
        named,
        [(3, Fault::Salvaged(Quirk::Utf16CountryCode)), (13, Fault::Salvaged(Quirk::AsciiCountryCode))]
    );
}

#[test]
fn a_predator_set_is_read_under_the_numbers_of_st_0601() {
    let set = Set::new(&EG0104)
        .with(2, Value::Time(1_231_798_102_000_000))
        .with(5, Value::Real(1.5))
        .with(13, Value::Real(41.25))
        .with(10, Value::Text("Predator".into()));
    let raw = write_packet(Label::Predator, &set).expect("written");
    let read = Packet::read(&raw);
    assert_eq!((read.label, &read.issues), (Label::Predator, &vec![]));
    assert_eq!(read.time(), Some(1_231_798_102_000_000));
    assert_eq!((read.set.number(5), read.set.number(13)), (Some(1.5), Some(41.25)));
    assert_eq!(read.set.text(10), Some("Predator"));
    // a key that nobody knows stays, with its value; so does it when written again
    let mut strange = raw.clone();
    strange[17 + 14] = 0x7e;
    let read = Packet::read(&strange);
    assert_eq!(read.set.items[0].tag, 0);
    assert_eq!(write_packet(Label::Predator, &read.set).expect("written"), strange);
}

#[test]
fn numbers_of_a_predator_set_that_are_none_are_named() {
    let read = |tag: u32, value: f64| {
        let set = Set::new(&EG0104).with(2, Value::Time(1)).with(5, Value::Real(1.5));
        let mut raw = write_packet(Label::Predator, &set).expect("written");
        let Tags::Universal(keys) = EG0104.tags else { unreachable!() };
        let key = keys.iter().find(|(_, number)| *number == tag).expect("a key").0;
        raw.extend_from_slice(&key);
        raw.push(4);
        raw.extend_from_slice(&(value as f32).to_be_bytes());
        raw[16] += 21;
        let packet = Packet::read(&raw);
        let faults: Vec<_> = packet.issues.iter().map(|issue| (issue.tag, issue.what)).collect();
        (packet.set.value(tag).cloned().map(Value::into_owned), faults)
    };
    let range = |tag| vec![(tag, Fault::Range)];
    assert_eq!(read(14, -180.0), (Some(Value::Real(-180.0)), vec![]));
    assert_eq!(read(24, 500.0), (Some(Value::Special(Special::AboveMaximum)), range(24)));
    assert_eq!(read(13, -90.5), (Some(Value::Special(Special::BelowMinimum)), range(13)));
    assert_eq!(read(25, 1e30), (Some(Value::Special(Special::AboveMaximum)), range(25)));
    assert_eq!(read(15, f64::NEG_INFINITY), (Some(Value::Special(Special::NegativeInfinity)), range(15)));
    assert_eq!(read(15, f64::NAN), (Some(Value::Special(Special::NotANumber(0x7fc0_0000))), range(15)));
}

#[test]
fn an_identifier_of_its_own_is_read() {
    let value = bytes("0170f592f02373364af8aa9162c00f2eb2da16b74341000841a0be365b5ab96a3645");
    let raw = [&Label::Miis.key()[..], &[value.len() as u8], &value].concat();
    let set = read_packet(&raw, Label::Miis);
    let text = set.value(94).and_then(|id| id.field("text")).and_then(Value::text).expect("a text");
    assert!(text.starts_with("0170:F592-F023") && text.ends_with(":D3"), "{text}");
}

#[test]
fn packs_are_read_as_records() {
    let raw = bytes(
        "7a 0c 01 0e 03 43414e 00 04 4652 4131
         7f 04 8f 03 87 69
         8100 16 15 15 0000 07d0 0000 0fa0 4e4e4952 00000000000000 0000",
    );
    let mut reader = Reader::new();
    let set = reader.set(&ST0601, &raw[..14]);
    assert_eq!(
        json(set.value(122)),
        json!({"coding_method": "genc_three_letter", "overflight": "CAN", "operator": null, "manufacture": "FRA1"})
    );
    let set = reader.set(&ST0601, &raw[14..20]);
    assert_eq!(json(set.value(127)), json!({"numerator": 1923, "denominator": 1001}));
}

#[test]
fn what_may_not_stand_at_the_root_is_said() {
    let id = Value::Record(vec![super::super::Field { name: "id", value: Value::Uint(1) }]);
    let part = |spec| Value::Set(Box::new(Set::new(spec).with(143, id.clone())));
    let set = Set::new(&ST0601)
        .with(65, Value::Uint(19))
        .with(2, Value::Time(1))
        .with(100, part(&super::super::SEGMENT))
        .with(101, part(&super::super::AMEND))
        .with(143, id.clone())
        .with(5, Value::Real(1.0))
        .with(5, Value::Real(2.0));
    let raw = write_packet(Label::Uas, &set).expect("written");
    let packet = Packet::read(&raw);
    let said: Vec<_> = packet.issues.iter().map(|issue| (issue.tag, issue.what)).collect();
    assert_eq!(
        said,
        [(5, Fault::Duplicate), (2, Fault::Misplaced), (143, Fault::Misplaced), (101, Fault::Misplaced)]
    );
    // the last of two counts
    assert_eq!(packet.set.number(5).map(f64::round), Some(2.0));
    let packet = write_packet(Label::Uas, &Set::new(&ST0601).with(5, Value::Real(1.0))).expect("written");
    let lacks: Vec<_> = Packet::read(&packet).issues.iter().map(|issue| issue.tag).collect();
    assert_eq!(lacks, [2, 65]);
}

const VMTI: &str = "\
    020800059b08c1fa4000030e4453544f5f414453535f564d544904010605011c06010108020780090204380a07454f204e6f \
    73650b0206400c0205006581bf81bd895201030640000203063da8030306457804011b0501500803daa5200a033a66670b03 \
    0e66670c022a941116428000001180000009600140028003c060003000400013020368140204711701016510010801010164 \
    0316e360020403014a02684a0110f592f02373364af8aa9162c00f2eb2da030800059b08c1fa4000040800059b08c1fa4000 \
    070132091716428000001180000009600140028003c06000300040000a0638e037f038506b100f0301030401330507060301 \
    09040119661b1a01010102026b360304322e366104086465746563746f7205010a67602f0101030312687474703a2f2f612e \
    6578616d706c652f6f0416687474703a2f2f612e6578616d706c652f6f236361722f0101090312687474703a2f2f612e6578 \
    616d706c652f6f0416687474703a2f2f612e6578616d706c652f6f23726564";
const RVT: &str = "\
    060e2b34020b01010e010301020000006b020800059b08c1fa4000030200640801040c1f0102000702043b05b05b0304b5dd \
    ddde040222bc05010206066272696467650d1f0102000802043b05b05b0304b5ddddde04043aaaaaaa0504b60b60b7060103 \
    0e010d0f035346541003003039110300d4310104080c162e";
const SAR: &str = "\
    060e2b34020b01010e0103030d0000003901021e0002022800030101040101050400000400090204001404011e1a30161615 \
    02020202020000000049742400000000000009007d1c0101";
const RANGE: &str = "\
    060e2b34020b01010e0103030c00000057010800059b08c1fa40000b01030c01490d0840934a000000000014370101010116 \
    15020202040142c9000042cb000042cd000042cf000000083fe0000000000000083fd0000000000000084024000000000000 \
    150252fa";
const REGISTRATION: &str = "\
    0101020203616c670303312e300412110202030201000100020003019001f40258051e1d02020304013fc000004020000040 \
    600000c0900000c0b00000c0d00000080b0a0103020156403800c7400a2a2902060302010020004000600020004000606000 \
    200040000140028003c0500040000000500040000000";
const SECURITY: &str = "\
    060e2b34020301010e010303020000002d01010402010e03052f2f4e5a4c06074e5a4c204155530c010e0d0e004e005a004c \
    003b0041005500531602000c";
const SECURITY_UNIVERSAL: &str = "\
    060e2b3402010101020802000000000081ab060e2b340101010302080201000000000e554e434c41535349464945442f2f06 \
    0e2b340101010307012001020700001131303539205468726565204c6574746572060e2b3401010103070120010208000005 \
    2f2f555341060e2b340101010307012001020600001131303539205468726565204c6574746572060e2b3401010103070120 \
    01020101000e005500530041003b004700420052060e2b34010101010e0102050400000002000c";
