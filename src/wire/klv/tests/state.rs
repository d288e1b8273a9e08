//! What holds now: items that are repeated, taken back, or forgotten after 30 s; time scales.

use std::time::Duration;

use super::super::{Label, Packet, ST0601, Set, State, TimeScale, Value, write_packet};

fn packet(set: Set<'_>) -> Vec<u8> {
    let items = set.items;
    let mut set = Set::new(&ST0601).with(2, Value::Time(1));
    set.items.extend(items);
    write_packet(Label::Uas, &set).expect("a packet")
}

#[test]
fn items_hold_until_taken_back_or_not_repeated_for_thirty_seconds() {
    let at = Duration::from_secs;
    let mut state = State::default();
    let full = packet(Set::new(&ST0601).with(5, Value::Real(90.0)).with(3, Value::Text("one".into())));
    assert!(state.take(&Packet::read(&full), at(100)));
    let brief = packet(Set::new(&ST0601).with(5, Value::Real(180.0)));
    assert!(state.take(&Packet::read(&brief), at(110)));
    let set = state.set(at(120));
    assert_eq!(set.number(5).map(f64::round), Some(180.0));
    assert_eq!(set.text(3), Some("one"));
    assert_eq!(state.age(3, at(120)), Some(at(20)));
    let set = state.set(at(131));
    assert_eq!((set.number(5).map(f64::round), set.text(3)), (Some(180.0), None));
    state.expire(at(131));
    // zero length takes back
    let unknown = packet(Set::new(&ST0601).with(5, Value::Unknown));
    state.take(&Packet::read(&unknown), at(132));
    assert_eq!(state.set(at(132)).number(5), None);
    state.reset();
    assert!(state.set(at(132)).items.is_empty());
}

#[test]
fn a_damaged_packet_changes_nothing() {
    let mut state = State::default();
    let mut bytes = packet(Set::new(&ST0601).with(5, Value::Real(90.0)));
    let end = bytes.len();
    bytes[end - 1] ^= 1;
    assert!(!state.take(&Packet::read(&bytes), Duration::ZERO));
    assert!(state.set(Duration::ZERO).items.is_empty());
}

#[test]
fn several_of_one_tag_stand_side_by_side() {
    let mut state = State::default();
    let segment = |id| {
        let id = Value::Record(vec![super::super::Field { name: "id", value: Value::Uint(id) }]);
        Value::Set(Box::new(Set::new(&super::super::SEGMENT).with(143, id)))
    };
    for round in 1..3 {
        let bytes = packet(Set::new(&ST0601).with(100, segment(1)).with(100, segment(2)));
        state.take(&Packet::read(&bytes), Duration::from_secs(round));
        let set = state.set(Duration::from_secs(round));
        assert_eq!(set.items.iter().filter(|item| item.tag == 100).count(), 2);
    }
}

#[test]
fn a_time_scale_is_recognized_and_never_shifts_unasked() {
    let utc = 1_800_000_000_000_000;
    assert_eq!(TimeScale::recognize(utc + 300_000, utc, 27), Some(TimeScale::Utc));
    assert_eq!(TimeScale::recognize(utc + 27_100_000, utc, 27), Some(TimeScale::Misp { leap_seconds: 27 }));
    assert_eq!(TimeScale::recognize(utc - 3_600_000_000, utc, 27), None);
    assert_eq!(TimeScale::Utc.quirk(), Some(super::super::Quirk::UtcTimestamp));
    assert_eq!(TimeScale::Misp { leap_seconds: 27 }.quirk(), None);
    let set = Set::new(&ST0601).with(2, Value::Time(utc));
    assert_eq!(TimeScale::Utc.utc(&set), Some(utc));
    assert_eq!(TimeScale::Misp { leap_seconds: 27 }.utc(&set), Some(utc - 27_000_000));
    let set = set.with(136, Value::Int(30)).with(137, Value::Int(-5));
    assert_eq!(TimeScale::Misp { leap_seconds: 27 }.utc(&set), Some(utc - 30_000_005));
    assert_eq!(TimeScale::Utc.utc(&set), Some(utc - 5));
    assert_eq!(TimeScale::Utc.utc(&Set::new(&ST0601)), None);
}
