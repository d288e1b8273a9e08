//! KLV: packets, each set inside them, what they say of the world, time stamps of frames.

use std::time::Duration;

use millrace::inspect::geo::{AzimuthJudge, Scene, Track, collect};
use millrace::wire::klv::ber::{read_counted, read_length, read_oid, write_length, write_oid};
use millrace::wire::klv::{
    AMEND, EG0104, Label, Packet, SEGMENT, ST0102, ST0102_UNIVERSAL, ST0601, ST0806, ST0903, ST1002, ST1206,
    ST1601, ST1602, SetSpec, State, VTARGET, VTRACK, Value, read_timestamp, split, write_packet,
};

/// Bytes with packets in them: nothing is lost between them, what is read is drawn, and what is written is read again.
pub fn packet(data: &[u8]) {
    let mut length = 0;
    for unit in split(data) {
        let bytes = unit.bytes();
        assert!(!bytes.is_empty());
        length += bytes.len();
        look(bytes);
    }
    assert_eq!(length, data.len());
    look(data);
}

/// The first byte chooses a set, the rest is its inside, in a packet whose length and checksum are right.
pub fn set(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let roots =
        [Label::Uas, Label::Security, Label::SecurityUniversal, Label::Predator, Label::Rvt, Label::Vmti];
    let more = [Label::VTrack, Label::Sar, Label::RangeImage, Label::Miis];
    let nested: [(u32, &SetSpec); 10] = [
        (48, &ST0102),
        (73, &ST0806),
        (74, &ST0903),
        (95, &ST1206),
        (97, &ST1002),
        (98, &ST1601),
        (99, &ST1602),
        (100, &SEGMENT),
        (101, &AMEND),
        (102, &ST0601),
    ];
    let choice = usize::from(choice);
    let label = roots.iter().chain(&more).nth(choice % 20).copied();
    let mut inside = body.to_vec();
    let label = label.unwrap_or_else(|| {
        let (tag, _) = nested[choice % nested.len()];
        let mut item = Vec::new();
        write_oid(u64::from(tag), &mut item);
        write_length(body.len() as u64, &mut item);
        item.extend_from_slice(body);
        inside = item;
        Label::Uas
    });
    let mut packet = label.key().to_vec();
    write_length(inside.len() as u64, &mut packet);
    packet.extend_from_slice(&inside);
    look(&packet);
    // the tables themselves
    for spec in [&VTARGET, &VTRACK, &EG0104, &ST0102_UNIVERSAL] {
        assert!(spec.items.is_sorted_by_key(|item| item.tag));
    }
    if let Ok((value, rest)) = read_oid(body) {
        let mut out = Vec::new();
        write_oid(value, &mut out);
        assert!(out.len() <= body.len() - rest.len());
    }
    if let Ok((_, rest)) = read_length(body) {
        assert!(rest.len() < body.len());
    }
    if let Ok((counted, rest)) = read_counted(body) {
        assert!(counted.len() + rest.len() < body.len());
    }
}

/// The payload of an SEI message.
pub fn sei(data: &[u8]) {
    let _ = read_timestamp(data);
    // behind the right UUID
    let ids = [&b"MISPmicrosectime"[..], b"\xcf\x84\x82\x78\xee\x23\x30\x6c\x92\x65\xe8\xfe\xf2\x2f\xb8\xb8"];
    for id in ids {
        if let Some(stamp) = read_timestamp(&[id, data].concat()) {
            assert!(stamp.is_fine || stamp.nanoseconds.is_multiple_of(1000));
        }
    }
}

fn look(bytes: &[u8]) {
    let packet = Packet::read(bytes);
    assert!(packet.issues.len() <= 64);
    assert!(serde_json::to_string(&packet).is_ok());
    assert!(packet.issues.iter().all(|issue| !issue.to_string().contains('\n')));
    if let Ok(written) = write_packet(packet.label, &packet.set) {
        let again = Packet::read(&written);
        let tags = |packet: &Packet<'_>| {
            packet
                .set
                .items
                .iter()
                .map(|item| item.tag)
                .filter(|&tag| tag > 1 && tag != 21)
                .collect::<Vec<_>>()
        };
        assert_eq!(tags(&packet), tags(&again), "no item is lost or made");
        // text of zero bytes may be taken for another encoding; what has nothing wrong with it is written as it came
        if again.issues.is_empty()
            && let Ok(once_more) = write_packet(again.label, &again.set)
        {
            assert_eq!(written, once_more);
        }
    }
    let mut judge = AzimuthJudge::default();
    judge.take(&packet.set);
    let scene = Scene::read(&packet.set, judge.is_absolute());
    let mut track = Track::default();
    if let Some(sensor) = scene.sensor {
        assert!(sensor.place.latitude.abs() <= 90.0 && sensor.place.longitude.abs() <= 180.0);
        track.note(packet.time().unwrap_or(0), sensor.place);
    }
    assert!(collect(&scene, &track, packet.time()).is_object());
    let mut state = State::default();
    state.take(&packet, Duration::ZERO);
    let held = state.set(Duration::from_secs(1));
    assert!(held.items.iter().all(|item| item.tag != 1 && item.value != Value::Unknown));
}
