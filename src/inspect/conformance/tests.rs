//! Streams with one thing wrong each, made of the samples: exactly the rules that speak of it are broken, and of streams
//! with nothing wrong none is.

use std::collections::BTreeMap;

use super::{Conformance, Examiner, RULES, Verdict};
use crate::wire::klv::{PREFIX, sum16};
use crate::wire::ts::packet::{PACKET, Packet, pcr_delta, set_continuity, set_pcr};
use crate::wire::ts::psi::{Pmt, packetize};
use crate::wire::ts::{Analyzer, Framer, Restamper};

const PMT: u16 = 0x100;
const VIDEO: u16 = 0x101;
const KLV: u16 = 0x102;

fn stream(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/ts/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What is found in a file; `arrivals` = each datagram arrives when its clock says, else nobody knows when.
fn look(stream: &[u8], arrivals: bool) -> Conformance {
    look_over(stream, arrivals, None)
}

/// The same; `seam` = whoever makes the stream says that it begins anew with this packet.
fn look_over(stream: &[u8], arrivals: bool, seam: Option<u64>) -> Conformance {
    let (mut analyzer, mut examiner, mut framer) = (Analyzer::new(), Examiner::default(), Framer::stream());
    analyzer.keep_sample();
    seam.into_iter().for_each(|seam| analyzer.seam(seam));
    let (mut position, mut passed, mut last) = (0, 1u64, None);
    let mut take = |datagram: &[u8]| {
        let clock = Packet::all(datagram).filter(|packet| packet.pid() == VIDEO).find_map(Packet::pcr);
        if let Some(pcr) = clock
            && let Some(last) = last.replace(pcr)
        {
            passed += (pcr_delta(last, pcr) as u64).min(27_000_000) * 1000 / 27;
        }
        let arrival = if arrivals { passed } else { 0 };
        analyzer.datagram(position, datagram, arrival);
        position += 1;
        if position % 5 == 0
            && let Some(sample) = analyzer.take_sample()
        {
            examiner.take(&sample);
        }
    };
    framer.push(stream, &mut take);
    framer.finish(&mut take);
    if let Some(sample) = analyzer.take_sample() {
        examiner.take(&sample);
    }
    examiner.finish();
    analyzer.framing(framer.junk_bytes(), framer.resyncs());
    Conformance::new(&analyzer.report(0).vitals, &examiner, None)
}

fn failures(found: &Conformance) -> BTreeMap<&'static str, u64> {
    found.failed().map(|finding| (finding.rule.id, finding.count)).collect()
}

#[track_caller]
fn expect(stream: &[u8], expected: &[(&'static str, u64)]) -> Conformance {
    let found = look(stream, false);
    assert_eq!(failures(&found), expected.iter().copied().collect(), "{found}");
    assert!(found.failed().all(|finding| finding.last.as_ref().is_some_and(|last| !last.text.is_empty())));
    found
}

/// The text of the last breach of a rule.
fn text(found: &Conformance, id: &str) -> String {
    let finding = found.failed().find(|finding| finding.rule.id == id).expect("a broken rule");
    finding.last.as_ref().expect("a last time").text.clone()
}

fn packets(stream: &mut [u8]) -> &mut [[u8; PACKET]] {
    stream.as_chunks_mut().0
}

fn view(packet: &[u8; PACKET]) -> Packet<'_> {
    Packet::new(packet).expect("a packet")
}

fn payload_at(packet: &[u8; PACKET]) -> usize {
    PACKET - view(packet).payload().map_or(0, <[u8]>::len)
}

/// Makes packets that are to vanish null packets, and lets the counters of their PID run on.
fn erase(stream: &mut [u8], pid: u16, mut goes: impl FnMut(usize, &[u8; PACKET]) -> bool) {
    let (mut count, mut number) = (None, 0);
    for packet in packets(stream) {
        if view(packet).pid() != pid {
            continue;
        }
        let gone = goes(number, packet);
        number += 1;
        if gone {
            packet[1..4].copy_from_slice(&[0x1f, 0xff, 0x10]);
            continue;
        }
        let next = match count {
            None => view(packet).continuity(),
            Some(count) => (count + u8::from(view(packet).has_payload())) & 0x0f,
        };
        set_continuity(packet, next);
        count = Some(next);
    }
}

/// Lets the bytes of each PES packet of a PID be changed in place; `change` is told its number.
fn edit_pes(stream: &mut [u8], pid: u16, mut change: impl FnMut(usize, &mut [u8])) {
    let mut places: Vec<Vec<usize>> = Vec::new();
    for (number, packet) in stream.as_chunks::<PACKET>().0.iter().enumerate() {
        if view(packet).pid() != pid {
            continue;
        }
        if view(packet).starts_unit() {
            places.push(Vec::new());
        }
        let start = number * PACKET;
        if let Some(places) = places.last_mut() {
            places.extend(start + payload_at(packet)..start + PACKET);
        }
    }
    for (number, places) in places.iter().enumerate() {
        let mut bytes: Vec<u8> = places.iter().map(|&at| stream[at]).collect();
        change(number, &mut bytes);
        for (&at, byte) in places.iter().zip(bytes) {
            stream[at] = byte;
        }
    }
}

/// The same for the KLV packet in each PES packet, whose checksum is put right behind the change.
fn edit_klv(stream: &mut [u8], mut change: impl FnMut(usize, &mut [u8])) {
    edit_pes(stream, KLV, |number, pes| {
        let start = pes.windows(4).position(|window| window == PREFIX).expect("a key");
        let klv = &mut pes[start..];
        // long form of one byte
        let length = if klv[16] == 0x81 { 18 + usize::from(klv[17]) } else { 17 + usize::from(klv[16]) };
        let klv = &mut klv[..length];
        change(number, klv);
        let sum = sum16(&klv[..length - 2]);
        klv[length - 2..].copy_from_slice(&sum.to_be_bytes());
    });
}

/// Where an item starts in a packet.
fn item(klv: &[u8], tag: u8) -> usize {
    let mut at = if klv[16] == 0x81 { 18 } else { 17 };
    while klv[at] != tag {
        at += 2 + usize::from(klv[at + 1]);
    }
    at
}

/// Writes another PMT in the place of each.
fn edit_pmt(stream: &mut [u8], change: impl Fn(&mut Pmt)) {
    for packet in packets(stream) {
        if view(packet).pid() != PMT {
            continue;
        }
        let at = payload_at(packet);
        let mut pmt = Pmt::parse(&packet[at + 1..]).expect("a PMT in one packet");
        change(&mut pmt);
        let mut count = view(packet).continuity();
        packetize(&pmt.section().expect("fits"), PMT, &mut count, |made| *packet = *made);
    }
}

#[test]
fn streams_with_nothing_wrong_break_no_rule() {
    for name in [
        "h264_async.ts",
        "h264_sync.ts",
        "h265_async.ts",
        "h265_sync.ts",
        "h264_async_multi.ts",
        "h264_dualklv.ts",
        "h264_multiprog.ts",
        "h264_nulls.ts",
        "h264_pat_nit.ts",
        "h264_pcr_disc.ts",
    ] {
        for arrivals in [false, true] {
            let found = look(&stream(name), arrivals);
            assert_eq!(failures(&found), BTreeMap::new(), "{name}: {found}");
            assert!(found.unexamined_packets == 0 && !found.metadata.is_empty(), "{name}");
        }
    }
    let found = look(&stream("h264_sync.ts"), false);
    assert_eq!(found.state, Verdict::Ok);
    let state = |id: &str| found.rules.iter().find(|f| f.rule.id == id).map(|f| f.state);
    for id in ["st1402.sequence", "st1402.delay", "st0604.agrees", "st0902.minimum", "tr101290.pts_error"] {
        assert_eq!(state(id), Some(Verdict::Ok), "{id}");
    }
    for id in ["st1402.alignment", "ts102034.pcr_jitter", "tr101290.cat_error"] {
        assert_eq!(state(id), Some(Verdict::NotApplicable), "{id}");
    }
    let facts = &found.metadata[0];
    assert_eq!((facts.pid, facts.carriage, facts.packets), (KLV, Some("synchronous"), 60));
    assert_eq!((facts.version, facts.pictures, facts.pictures_with_time), (Some(19), 180, 180));
    assert!((9.5..10.5).contains(&facts.packets_per_second), "{facts:?}");
}

#[test]
fn streams_that_were_made_wrong_break_what_they_are_named_after() {
    expect(&stream("h264_badsum.ts"), &[("st0601.checksum", 12)]);
    expect(&stream("h264_async_pts.ts"), &[("st1402.pts_forbidden", 60)]);
    expect(&stream("h264_cc_loss.ts"), &[("tr101290.continuity_count_error", 12)]);
}

#[test]
fn every_rule_has_a_name_of_its_own_and_says_what_it_measures() {
    let mut ids: Vec<_> = RULES.iter().map(|rule| rule.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), RULES.len());
    assert!(RULES.iter().all(|rule| !rule.measured.is_empty() && (1..=3).contains(&rule.priority)));
}

#[test]
fn a_stream_without_anything_is_judged_by_nothing() {
    let found = look(&[], false);
    assert_eq!(found.failed().count(), 0);
    let json = serde_json::to_value(&found).expect("JSON");
    assert_eq!(json["rules"].as_array().map(Vec::len), Some(RULES.len()));
    assert_eq!(
        (&json["rules"][2]["state"], &json["rules"][2]["last"]),
        (&"not_applicable".into(), &serde_json::Value::Null)
    );
}

#[test]
fn damaged_packets_are_told_by_what_is_damaged() {
    let nulls = || stream("h264_nulls.ts");
    let whole = look(&nulls(), false);
    for id in ["tr101290.transport_error", "tr101290.continuity_count_error"] {
        let finding = whole.rules.iter().find(|finding| finding.rule.id == id).expect("the rule");
        assert_eq!(finding.state, Verdict::Ok, "{id} holds for packets that are all there");
    }
    let mut damaged = nulls();
    let null =
        packets(&mut damaged).iter().position(|packet| view(packet).pid() == 0x1fff).expect("a null packet");
    damaged[null * PACKET + 1] |= 0x80;
    expect(&damaged, &[("tr101290.transport_error", 1)]);
    let mut damaged = nulls();
    damaged[null * PACKET] = 0x46;
    let found = expect(&damaged, &[("tr101290.sync_byte_error", 1)]);
    assert!(text(&found, "tr101290.sync_byte_error").contains("188 bytes"));
    // bytes too few: the grid is somewhere else from there on
    let mut damaged = nulls();
    damaged.drain(null * PACKET..null * PACKET + 100);
    let found = look(&damaged, false);
    let ids: Vec<_> = failures(&found).into_keys().collect();
    assert_eq!(ids, ["tr101290.sync_byte_error", "tr101290.ts_sync_loss"], "{found}");

    let mut damaged = stream("h264_async.ts");
    let video: Vec<usize> = packets(&mut damaged)
        .iter()
        .enumerate()
        .filter(|(_, packet)| view(packet).pid() == VIDEO && !view(packet).starts_unit())
        .map(|(at, _)| at)
        .collect();
    let gone = video[video.len() / 2];
    damaged.drain(gone * PACKET..(gone + 1) * PACKET);
    let found = expect(&damaged, &[("tr101290.continuity_count_error", 1)]);
    let finding = found.failed().next().expect("one");
    assert_eq!(finding.last.as_ref().and_then(|last| last.pid), Some(VIDEO));
    assert!(
        finding.last.as_ref().is_some_and(|last| (2.0..4.0).contains(&last.stream_seconds)),
        "{finding:?}"
    );
}

#[test]
fn tables_that_stay_away_or_are_damaged_are_missed() {
    // a second without a PMT
    let mut damaged = stream("h264_async.ts");
    erase(&mut damaged, PMT, |number, _| (16..24).contains(&number));
    let found = expect(&damaged, &[("st1402.table_rate", 1), ("tr101290.pmt_error", 1)]);
    let said = text(&found, "tr101290.pmt_error");
    assert_eq!(said, "no PMT for 0.87 s");
    // the same of the PAT
    let mut damaged = stream("h264_async.ts");
    erase(&mut damaged, 0, |number, _| (16..24).contains(&number));
    expect(&damaged, &[("st1402.table_rate", 1), ("tr101290.pat_error", 1)]);
    // two of three missing is often enough for TR 101 290
    let mut damaged = stream("h264_async.ts");
    erase(&mut damaged, 0, |number, _| (16..24).contains(&number) && number % 3 != 0);
    let found = look(&damaged, false);
    assert_eq!(failures(&found).into_keys().collect::<Vec<_>>(), ["st1402.table_rate"], "{found}");

    let mut damaged = stream("h264_async.ts");
    let at = packets(&mut damaged).iter().rposition(|packet| view(packet).pid() == PMT).expect("a PMT");
    damaged[at * PACKET + 20] ^= 1;
    expect(&damaged, &[("tr101290.crc_error", 1)]);
}

#[test]
fn what_tables_name_must_come_and_nothing_else() {
    let mut damaged = stream("h264_multiprog.ts");
    for (pid, kept) in [(0x201, 20), (0x202, 9)] {
        erase(&mut damaged, pid, |number, _| number > kept);
    }
    let found = expect(&damaged, &[("tr101290.pid_error", 1)]);
    assert!(text(&found, "tr101290.pid_error").contains("though the tables name it"));

    let mut damaged = stream("h264_nulls.ts");
    let mut count = 0;
    for packet in packets(&mut damaged).iter_mut().filter(|packet| view(packet).pid() == 0x1fff) {
        packet[1..4].copy_from_slice(&[0x03, 0x00, 0x10 | count]);
        count = (count + 1) & 0x0f;
    }
    let found = expect(&damaged, &[("tr101290.unreferenced_pid", 1)]);
    assert_eq!(found.state, Verdict::Ok, "priority 3 only informs");

    let mut damaged = stream("h264_nulls.ts");
    let mut count = 0;
    for packet in packets(&mut damaged).iter_mut().filter(|packet| view(packet).pid() == 0x1fff) {
        packet[1..4].copy_from_slice(&[0x03, 0x00, 0xd0 | count]);
        count = (count + 1) & 0x0f;
    }
    expect(&damaged, &[("tr101290.cat_error", 1), ("tr101290.unreferenced_pid", 1)]);
}

/// Packets with a PCR.
fn clocks(stream: &[u8]) -> Vec<usize> {
    let all = stream.as_chunks::<PACKET>().0.iter().enumerate();
    all.filter(|(_, packet)| view(packet).pcr().is_some()).map(|(at, _)| at).collect()
}

#[test]
fn a_clock_that_pauses_jumps_or_lies_is_told() {
    let mut damaged = stream("h264_async.ts");
    for &at in &clocks(&damaged)[60..69] {
        // the place of the PCR becomes stuffing
        damaged[at * PACKET + 5] &= !0x10;
    }
    let found = expect(&damaged, &[("tr101290.pcr_repetition_error", 1)]);
    assert!(text(&found, "tr101290.pcr_repetition_error").starts_with("333 ms"), "{found}");
    // the same where datagrams tell that time passes
    let broken = failures(&look(&damaged, true));
    assert_eq!(broken, BTreeMap::from([("tr101290.pcr_repetition_error", 1)]));

    let mut damaged = stream("h264_pcr_disc.ts");
    for packet in packets(&mut damaged).iter_mut().filter(|packet| view(packet).is_discontinuity()) {
        packet[5] &= !0x80;
    }
    let found = look(&damaged, false);
    assert_eq!(failures(&found).get("tr101290.pcr_discontinuity_indicator_error"), Some(&1), "{found}");
    assert!(
        text(&found, "tr101290.pcr_discontinuity_indicator_error").contains("jumped by 1000."),
        "{found}"
    );
}

#[test]
fn pcrs_of_a_constant_rate_are_held_against_their_neighbours() {
    let mut constant = stream("h264_async.ts");
    for (packet, number) in packets(&mut constant).iter_mut().zip(0..) {
        set_pcr(packet, 27_000_000 + number * 40_000);
    }
    let of = |stream: &[u8]| {
        let found = look(stream, false);
        found
            .rules
            .into_iter()
            .find(|finding| finding.rule.id == "tr101290.pcr_accuracy_error")
            .expect("the rule")
    };
    assert_eq!(of(&constant).state, Verdict::Ok);
    assert_eq!(of(&stream("h264_async.ts")).state, Verdict::NotApplicable);
    // 10 us
    let mut wrong = constant;
    let at = clocks(&wrong)[100];
    let pcr = view(wrong[at * PACKET..][..PACKET].try_into().expect("a packet")).pcr().expect("a PCR");
    set_pcr(&mut wrong[at * PACKET..][..PACKET], pcr + 270);
    let found = of(&wrong);
    assert_eq!((found.state, found.count), (Verdict::Failed, 1), "{found:?}");
    assert!(
        found.last.is_some_and(|last| last.text.contains("10.0 us") || last.text.contains("9.")),
        "off by 10 us"
    );
}

#[test]
fn the_clock_of_every_program_is_held_against_its_rules() {
    const SECOND: u16 = 0x201;
    let original = stream("h264_multiprog.ts");
    let is_second = |packet: &[u8; PACKET]| view(packet).pid() == SECOND && view(packet).pcr().is_some();
    let breach = |stream: &[u8], id: &str| {
        let found = look(stream, true);
        let finding = found.rules.iter().find(|finding| finding.rule.id == id).expect("the rule");
        (finding.count, finding.last.as_ref().and_then(|last| last.pid))
    };
    // its PCRs on a line, but for one that is off by 10 us
    let mut constant = original.clone();
    for (packet, number) in packets(&mut constant).iter_mut().zip(0..) {
        set_pcr(packet, 27_000_000 + number * 32_000);
    }
    assert_eq!(breach(&constant, "tr101290.pcr_accuracy_error"), (0, None));
    let wrong = packets(&mut constant).iter_mut().filter(|packet| is_second(packet)).nth(100);
    let wrong = wrong.expect("a PCR of the second program");
    let pcr = view(wrong).pcr().expect("a PCR");
    set_pcr(wrong, pcr + 270);
    assert_eq!(breach(&constant, "tr101290.pcr_accuracy_error"), (1, Some(SECOND)));
    // from one picture on it is 45 ms ahead, and what it comes with is not
    let mut early = original;
    assert_eq!(breach(&early, "ts102034.pcr_jitter"), (0, None));
    for packet in packets(&mut early).iter_mut().filter(|packet| is_second(packet)).skip(60) {
        let pcr = view(packet).pcr().expect("a PCR");
        set_pcr(packet, pcr + 45 * 27_000);
    }
    assert_eq!(breach(&early, "ts102034.pcr_jitter"), (1, Some(SECOND)));
}

#[test]
fn carriage_that_is_declared_wrong_is_told_by_what_the_bytes_are() {
    let mut damaged = stream("h264_sync.ts");
    edit_pmt(&mut damaged, |pmt| pmt.streams[1].stream_type = 0x06);
    let found = expect(&damaged, &[("st1402.stream_type", 1)]);
    assert!(text(&found, "st1402.stream_type").contains("0x06; it carries metadata access unit cells"));
    let mut damaged = stream("h264_async.ts");
    edit_pmt(&mut damaged, |pmt| pmt.streams[1].stream_type = 0x15);
    expect(&damaged, &[("st1402.stream_type", 1)]);
    let mut damaged = stream("h264_async.ts");
    edit_pmt(&mut damaged, |pmt| pmt.streams[1].descriptors.clear());
    expect(&damaged, &[("st1402.registration", 1)]);
    let mut damaged = stream("h264_sync.ts");
    edit_pmt(&mut damaged, |pmt| pmt.streams[1].descriptors.clear());
    expect(&damaged, &[("st1402.metadata_descriptor", 1), ("st1402.metadata_std", 1)]);

    let mut damaged = stream("h264_sync.ts");
    edit_pes(&mut damaged, KLV, |_, pes| pes[3] = 0xbd);
    expect(&damaged, &[("st1402.stream_id", 60)]);
    let mut damaged = stream("h264_async.ts");
    edit_pes(&mut damaged, KLV, |number, pes| pes[6] &= if number < 7 { !0x04 } else { 0xff });
    expect(&damaged, &[("st1402.alignment", 7)]);
    // flags of a PTS gone, its place becomes stuffing
    let mut damaged = stream("h264_sync.ts");
    edit_pes(&mut damaged, KLV, |_, pes| {
        pes[7] = 0;
        pes[9..14].fill(0xff);
    });
    expect(&damaged, &[("st1402.pts_required", 60)]);
    // twelve seconds early
    let mut damaged = stream("h264_sync.ts");
    edit_pes(&mut damaged, KLV, |number, pes| {
        if number == 30 {
            crate::wire::ts::pes::set_pts(pes, 40 * 90_000);
        }
    });
    let found = look(&damaged, false);
    assert_eq!(failures(&found).get("st1402.delay"), Some(&1), "{found}");
}

#[test]
fn cells_are_held_to_their_form() {
    let mut damaged = stream("h264_sync.ts");
    edit_pes(&mut damaged, KLV, |number, pes| {
        if number == 20 {
            pes[15] = pes[15].wrapping_add(5);
        }
    });
    // the jump there, and the one back
    let found = expect(&damaged, &[("st1402.sequence", 2)]);
    assert!(text(&found, "st1402.sequence").contains("was expected"));
    let mut damaged = stream("h264_sync.ts");
    edit_pes(&mut damaged, KLV, |number, pes| pes[16] &= if number == 3 { 0xf0 } else { 0xff });
    expect(&damaged, &[("st1402.cells", 1)]);
}

#[test]
fn packets_are_held_against_st_0601() {
    let edited = |change: &mut dyn FnMut(usize, &mut [u8])| {
        let mut damaged = stream("h264_async.ts");
        edit_klv(&mut damaged, |number, klv| change(number, klv));
        damaged
    };
    // the checksum becomes a laser code: a packet without a checksum
    let mut damaged = stream("h264_async.ts");
    edit_pes(&mut damaged, KLV, |number, pes| {
        let start = pes.windows(4).position(|window| window == PREFIX).expect("a key");
        let end = start + 18 + usize::from(pes[start + 17]);
        assert_eq!(pes[end - 4..end - 2], [1, 2]);
        if number < 5 {
            pes[end - 4] = 62;
        }
    });
    let found = expect(&damaged, &[("st0601.mandatory", 5)]);
    assert_eq!(text(&found, "st0601.mandatory"), "ST 0601 item 1 (Checksum): missing");

    // items 2 and 3 have the same length: they change places
    let damaged = edited(&mut |number, klv| {
        if number == 9 {
            let at = item(klv, 2);
            klv[at..at + 20].rotate_left(10);
        }
    });
    expect(&damaged, &[("st0601.order", 1)]);
    let damaged = edited(&mut |number, klv| {
        let at = item(klv, 65) + 2;
        klv[at] = if number == 0 { 0 } else { klv[at] };
    });
    expect(&damaged, &[("st0601.version", 1)]);
    // 0.2 s back: less than what pictures and metadata may lie apart
    let damaged = edited(&mut |number, klv| {
        let at = item(klv, 2) + 2;
        let time = u64::from_be_bytes(klv[at..at + 8].try_into().expect("8 bytes"));
        let time = if number == 30 { time - 200_000 } else { time };
        klv[at..at + 8].copy_from_slice(&time.to_be_bytes());
    });
    let found = expect(&damaged, &[("st0601.time", 1)]);
    assert_eq!(text(&found, "st0601.time"), "the time stamp goes back by 0.100 s");
    // an angle of four bytes in two
    let damaged = edited(&mut |number, klv| {
        if number == 4 {
            let at = item(klv, 5);
            klv[at] = 90;
        }
    });
    let found = expect(&damaged, &[("st0601.items", 1)]);
    assert!(text(&found, "st0601.items").contains("2 bytes, must have 4"));
    // the place of the security set that holds the object country codes becomes a comment
    let damaged = edited(&mut |number, klv| {
        if number == 4 {
            let at = item(klv, 48) + 2;
            let inside =
                klv[at..].iter().zip(&klv[at + 1..]).position(|(&tag, &length)| tag == 13 && length == 6);
            klv[at + inside.expect("codes")] = 14;
        }
    });
    let found = look(&damaged, false);
    assert_eq!(failures(&found).get("st0102.mandatory"), Some(&1), "{found}");
}

#[test]
fn items_of_the_minimum_set_are_missed() {
    let mut damaged = stream("h264_async.ts");
    edit_klv(&mut damaged, |_, klv| {
        let at = item(klv, 3);
        klv[at] = 107;
    });
    let found = expect(&damaged, &[("st0902.minimum", 1)]);
    assert_eq!(text(&found, "st0902.minimum"), "never came: 3 Mission ID");
}

#[test]
fn a_seam_that_is_told_is_nobody_s_fault_and_all_else_still_is() {
    for name in ["h264_sync.ts", "h264_async.ts", "h265_sync.ts"] {
        let first = stream(name);
        let mut restamper = Restamper::default();
        first.as_chunks().0.iter().for_each(|packet| restamper.observe(view(packet)));
        restamper.next_pass().expect("a clock");
        let mut second = first.clone();
        packets(&mut second).iter_mut().for_each(|packet| restamper.rewrite(packet));
        let twice = [&first[..], &second].concat();
        let seam = (first.len() / PACKET) as u64;
        let untold = failures(&look(&twice, false));
        assert!(
            untold.contains_key("st0601.time") && untold.contains_key("st0604.order"),
            "{name}: {untold:?}"
        );
        assert_eq!(failures(&look_over(&twice, false, Some(seam))), BTreeMap::new(), "{name}");
        // what goes back elsewhere is told as before
        let again = [&twice[..], &first].concat();
        let told = failures(&look_over(&again, false, Some(seam)));
        assert_eq!(told.get("st0601.time"), Some(&1), "{name}: {told:?}");
    }
}

#[test]
fn pictures_are_held_against_st_0604() {
    let edited = |change: &mut dyn FnMut(usize, &mut [u8])| {
        let mut damaged = stream("h264_sync.ts");
        edit_pes(&mut damaged, VIDEO, |number, pes| {
            let at = pes.windows(16).position(|window| window == b"MISPmicrosectime").expect("a time stamp");
            change(number, &mut pes[at..at + 28]);
        });
        damaged
    };
    let damaged = edited(&mut |number, stamp| {
        if number % 60 == 7 {
            stamp[0] = b'X';
        }
    });
    let found = expect(&damaged, &[("st0604.present", 3)]);
    assert_eq!((found.metadata[0].pictures, found.metadata[0].pictures_with_time), (180, 177));
    expect(&edited(&mut |_, stamp| stamp[16] |= 0x80), &[("st0604.locked", 180)]);

    let mut damaged = stream("h264_sync.ts");
    edit_klv(&mut damaged, |_, klv| {
        let at = item(klv, 2) + 2;
        let time = u64::from_be_bytes(klv[at..at + 8].try_into().expect("8 bytes")) + 18_000_000;
        klv[at..at + 8].copy_from_slice(&time.to_be_bytes());
    });
    let found = expect(&damaged, &[("st0604.agrees", 60)]);
    assert!(text(&found, "st0604.agrees").starts_with("metadata is 18.0"), "{found}");
}
