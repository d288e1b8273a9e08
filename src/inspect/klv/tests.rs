//! Streams of `testdata` enter taps; what their readers see is compared with what the streams are known to hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::*;
use crate::media::{Codec, Frame, Nanos, Setup, Track, Tracks};
use crate::wire::klv::{Label, Value, write_packet};

const SECOND: Nanos = 1_000_000_000;

fn clocks() -> Clocks {
    Clocks { now: || 100 * SECOND, wall: || SystemTime::UNIX_EPOCH + Duration::from_secs(5_000) }
}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/ts/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Pushes a stream through a tap and lets its reader decode all of it.
async fn read(bytes: &[u8]) -> (Arc<Metadata>, Vec<Arc<Observation>>) {
    let metadata = Arc::new(Metadata::default());
    let mut seen = metadata.subscribe();
    let (mut tap, reader) = tap(Arc::clone(&metadata), clocks());
    tap.begin();
    let mut arrival = 10 * SECOND;
    let reading = reader.run();
    tokio::pin!(reading);
    let mut all = Vec::new();
    for datagram in bytes.chunks(188 * 7) {
        arrival += 15_000_000;
        tap.datagram(datagram, arrival);
        tokio::select! { biased; () = &mut reading => {}, () = tokio::task::yield_now() => {} }
        while let Ok(observation) = seen.try_recv() {
            all.push(observation);
        }
    }
    tap.end(arrival);
    tap.publish();
    drop(tap);
    reading.await;
    while let Ok(observation) = seen.try_recv() {
        all.push(observation);
    }
    (metadata, all)
}

fn sighting(packet: Vec<u8>, track: u16, arrival: Nanos, source: u32) -> Sighting {
    Sighting {
        bytes: packet.into(),
        arrival,
        wall: SystemTime::UNIX_EPOCH,
        pts: None,
        track,
        program: None,
        stream_type: None,
        stream_id: None,
        declared: None,
        carriage: Carriage::Asynchronous,
        source,
    }
}

/// An ST 0601 packet with these items.
fn packet(items: &[(u32, Value<'static>)]) -> Vec<u8> {
    let mut set = crate::wire::klv::Set::new(Label::Uas.spec());
    for (tag, value) in items {
        set = set.with(*tag, value.clone());
    }
    write_packet(Label::Uas, &set).unwrap()
}

#[tokio::test]
async fn every_packet_of_a_stream_is_seen_once_with_its_carriage_and_place() {
    for (name, carriage, timed) in [
        ("h264_async.ts", Carriage::Asynchronous, false),
        ("h264_async_pts.ts", Carriage::Asynchronous, true),
        ("h264_sync.ts", Carriage::Synchronous, true),
        ("h265_sync.ts", Carriage::Synchronous, true),
    ] {
        let (metadata, all) = read(&sample(name)).await;
        assert_eq!(all.len(), 60, "{name}");
        for (number, observation) in all.iter().enumerate() {
            let seen = &observation.sighting;
            assert_eq!((observation.number, seen.track, seen.source), (number as u64, 0x102, 1), "{name}");
            assert_eq!((seen.carriage, seen.declared), (carriage, Some(carriage)), "{name}");
            assert_eq!(seen.pts.is_some(), timed, "{name}");
            assert!(observation.accepted && observation.packet.issues.is_empty(), "{name}");
            assert!(observation.scene.sensor.is_some() && observation.scene.center.is_some(), "{name}");
            assert_eq!(observation.set.value(2), observation.packet.set.value(2), "{name}");
            let age = Duration::from_nanos(100 * SECOND - seen.arrival);
            assert_eq!(seen.wall, SystemTime::UNIX_EPOCH + Duration::from_secs(5_000) - age, "{name}");
        }
        let [view] = &metadata.tracks(12 * SECOND)[..] else { panic!("{name}: one track") };
        assert_eq!((view.track, view.counts.packets, view.counts.checksum_errors), (0x102, 60, 0));
        assert_eq!(view.latest.number, 59);
        assert!(view.trail.places().count() >= 6, "{name}");
        assert_eq!(metadata.latest().unwrap().number, 59);
        let stats = metadata.stats();
        assert_eq!((stats.packets.load(Relaxed), stats.dropped.load(Relaxed)), (60, 0));
        assert_eq!((stats.damaged.load(Relaxed), stats.foreign.load(Relaxed)), (0, 0));
    }
}

#[tokio::test]
async fn a_wrong_checksum_changes_nothing_that_holds() {
    let (metadata, all) = read(&sample("h264_badsum.ts")).await;
    assert_eq!(all.len(), 60);
    assert_eq!(all.iter().filter(|o| !o.accepted).count(), 12);
    let [view] = &metadata.tracks(0)[..] else { panic!("one track") };
    assert_eq!((view.counts.checksum_errors, view.counts.issues["checksum"]), (12, 12));
    for pair in all.windows(2) {
        if !pair[1].accepted {
            assert_eq!(pair[1].set.value(2), pair[0].set.value(2));
            assert_eq!(pair[1].scene, pair[0].scene);
        }
    }
}

#[tokio::test]
async fn streams_with_two_klv_pids_or_two_programs_have_two_tracks() {
    for (name, tracks) in [("h264_dualklv.ts", [0x102, 0x103]), ("h264_multiprog.ts", [0x102, 0x202])] {
        let (metadata, all) = read(&sample(name)).await;
        let views = metadata.tracks(0);
        assert_eq!(views.iter().map(|view| view.track).collect::<Vec<_>>(), tracks, "{name}");
        assert_eq!(views.iter().map(|view| view.counts.packets).sum::<u64>(), all.len() as u64, "{name}");
    }
}

#[test]
fn what_is_not_repeated_holds_for_thirty_seconds_and_says_its_age() {
    let mut decoder = Decoder::default();
    let text = |text: &'static str| Value::Text(text.into());
    let first = packet(&[(2, Value::Time(1)), (3, text("Mission")), (10, text("Kestrel"))]);
    decoder.take(sighting(first, 1, SECOND, 0));
    let next =
        decoder.take(sighting(packet(&[(2, Value::Time(2)), (10, Value::Unknown)]), 1, 20 * SECOND, 0));
    assert_eq!(next.set.text(3), Some("Mission"));
    assert_eq!(next.set.item(10), None, "taken back");
    assert_eq!(next.age(3, 25 * SECOND), Some(Duration::from_secs(24)));
    assert_eq!(next.age(2, 25 * SECOND), Some(Duration::from_secs(5)));
    assert_eq!(next.age(3, 32 * SECOND), None);
    let last = decoder.take(sighting(packet(&[(2, Value::Time(3))]), 1, 32 * SECOND, 0));
    assert_eq!(last.set.text(3), None, "no longer known");
}

#[test]
fn packets_that_arrive_together_do_not_run_into_one_another() {
    let mut decoder = Decoder::default();
    let control = |code| (115, Value::Raw(vec![code, 1].into()));
    let one = packet(&[(2, Value::Time(1)), control(1), control(2)]);
    let count = |o: &Observation| o.set.items.iter().filter(|item| item.tag == 115).count();
    let first = decoder.take(sighting(one.clone(), 1, SECOND, 0));
    let before = count(&first);
    assert_eq!(count(&decoder.take(sighting(one, 1, SECOND, 0))), before);
}

#[test]
fn another_source_begins_with_nothing() {
    let mut decoder = Decoder::default();
    let first = packet(&[(2, Value::Time(1)), (3, Value::Text("Mission".into()))]);
    decoder.take(sighting(first, 1, SECOND, 1));
    let next = decoder.take(sighting(packet(&[(2, Value::Time(2))]), 1, 2 * SECOND, 2));
    assert_eq!(next.set.text(3), None);
}

fn at(latitude: f64, time: u64, arrival: Nanos, source: u32) -> Sighting {
    let items = [(2, Value::Time(time)), (13, Value::Real(latitude)), (14, Value::Real(8.0))];
    sighting(packet(&items), 1, arrival, source)
}

#[test]
fn the_way_of_a_platform_survives_a_reconnect_but_not_another_platform() {
    let (mut decoder, metadata) = (Decoder::default(), Metadata::default());
    let places = |metadata: &Metadata| metadata.tracks(0)[0].trail.places().count();
    for step in 0..5 {
        let time = step * 1_000_000;
        metadata.show(decoder.take(at(50.0 + step as f64 * 1e-3, time, step * SECOND, 1)));
    }
    assert_eq!(places(&metadata), 5);
    metadata.show(decoder.take(at(50.01, 9_000_000, 9 * SECOND, 2)));
    assert_eq!(places(&metadata), 6);
    assert_eq!(metadata.tracks(0)[0].counts.packets, 1, "counts begin with the source");
    metadata.show(decoder.take(at(-20.0, 11_000_000, 11 * SECOND, 3)));
    assert_eq!(places(&metadata), 1);
}

#[test]
fn more_tracks_than_are_followed_replace_the_oldest() {
    let (mut decoder, metadata) = (Decoder::default(), Metadata::default());
    for track in 0..40 {
        let packet = packet(&[(2, Value::Time(1))]);
        metadata.show(decoder.take(sighting(packet, track, SECOND + u64::from(track), 0)));
    }
    let views = metadata.tracks(0);
    assert_eq!(views.iter().map(|view| view.track).collect::<Vec<_>>(), (24..40).collect::<Vec<_>>());
}

#[test]
fn the_rate_is_that_of_the_last_seconds() {
    let (mut decoder, metadata) = (Decoder::default(), Metadata::default());
    let rate = |metadata: &Metadata, now| metadata.tracks(now)[0].rate;
    let packet = packet(&[(2, Value::Time(1))]);
    let mut now = 7 * SECOND + SECOND / 2;
    for _ in 0..200 {
        metadata.show(decoder.take(sighting(packet.clone(), 1, now, 0)));
        now += SECOND / 20;
    }
    assert!((rate(&metadata, now) - 20.0).abs() < 0.5, "{}", rate(&metadata, now));
    assert!((rate(&metadata, now + 2 * SECOND) - 12.0).abs() < 4.1);
    assert_eq!(rate(&metadata, now + 20 * SECOND), 0.0);
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_packets_and_nothing_else() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let metadata = Arc::new(Metadata::default());
    let clocks = Clocks { now: || NOW.load(Relaxed), wall: || SystemTime::UNIX_EPOCH };
    let (mut tap, reader) = tap(Arc::clone(&metadata), clocks);
    let bytes = sample("h264_async.ts");
    for round in 0..20 {
        for datagram in bytes.chunks(188 * 7) {
            tap.datagram(datagram, round * 6 * SECOND);
        }
    }
    let stats = metadata.stats();
    let (packets, dropped) = (stats.packets.load(Relaxed), stats.dropped.load(Relaxed));
    // the end of a round and the start of the next do not fit together: a packet or two may be damaged there
    assert!(packets >= 1160, "{packets}");
    assert_eq!(packets - dropped, 1024, "as many as the queue holds");
    drop(tap);
    reader.run().await;
    assert_eq!(metadata.latest().unwrap().number, 1023);
}

#[test]
fn a_flood_is_cut_down_to_what_may_be_decoded() {
    let metadata = Arc::new(Metadata::default());
    let (mut tap, reader) = tap(Arc::clone(&metadata), clocks());
    let klv = Track { id: 1, codec: Codec::Klv, setup: Setup::Unknown, language: None };
    let mut data = Vec::new();
    (0..2_000).for_each(|_| data.extend(packet(&[(2, Value::Time(1))])));
    let frame = Frame {
        tracks: Arc::new(Tracks(vec![klv])),
        track: 0,
        pts: -1,
        dts: -1,
        random_access: true,
        arrival: SECOND,
        data: Bytes::from(data),
    };
    tap.frame(&frame);
    let stats = metadata.stats();
    assert_eq!(stats.packets.load(Relaxed), 2_000);
    assert!(stats.dropped.load(Relaxed) >= 1_500);
    drop(reader);
}

#[tokio::test]
async fn frames_of_klv_tracks_are_seen_as_they_came() {
    let metadata = Arc::new(Metadata::default());
    let mut seen = metadata.subscribe();
    let (mut tap, reader) = tap(Arc::clone(&metadata), clocks());
    let track = |id, codec| Track { id, codec, setup: Setup::Unknown, language: None };
    let tracks = Arc::new(Tracks(vec![track(1, Codec::H264), track(7, Codec::Klv)]));
    let data: Bytes = [packet(&[(2, Value::Time(5))]), packet(&[(2, Value::Time(6))])].concat().into();
    for index in [0, 1] {
        tap.frame(&Frame {
            tracks: Arc::clone(&tracks),
            track: index,
            pts: (1 << 33) + 9,
            dts: 0,
            random_access: true,
            arrival: SECOND,
            data: data.clone(),
        });
    }
    drop(tap);
    reader.run().await;
    for time in [5, 6] {
        let observation = seen.try_recv().unwrap();
        assert_eq!((observation.time(), observation.sighting.track), (Some(time), 7));
        assert_eq!(observation.sighting.pts, Some(9));
        assert_eq!(observation.sighting.carriage.name(), "rtp");
    }
    assert_eq!(seen.try_recv().err(), Some(TryRecvError::Closed), "the reader is gone");
    assert_eq!(metadata.subscribe().recv().await.err(), Some(RecvError::Closed));
}

#[test]
fn a_tap_is_heard_as_long_as_somebody_subscribed() {
    let metadata = Arc::new(Metadata::default());
    let (tap, _reader) = tap(Arc::clone(&metadata), clocks());
    assert!(!tap.is_heard());
    let first = metadata.subscribe();
    let second = metadata.subscribe();
    drop(first);
    assert!(tap.is_heard());
    drop(second);
    assert!(!tap.is_heard());
    let _late = metadata.subscribe();
    metadata.close();
    assert!(!tap.is_heard());
}

#[tokio::test]
async fn what_nobody_hears_waits_and_the_first_who_does_need_not() {
    let metadata = Arc::new(Metadata::default());
    let (mut tap, mut reader) = tap(Arc::clone(&metadata), clocks());
    reader.pause = Duration::from_secs(3600);
    tap.begin();
    let reading = reader.run();
    tokio::pin!(reading);
    let decoded = || metadata.tracks(0).iter().map(|track| track.counts.packets).sum::<u64>();
    let bytes = sample("h264_async.ts");
    let mut parts = bytes.chunks(bytes.len() / 188 / 4 * 188);
    let mut totals = Vec::new();
    let mut seen = None;
    for turn in 0..4 {
        let datagrams = parts.next().into_iter().flat_map(|part| part.chunks(1316));
        datagrams.for_each(|datagram| tap.datagram(datagram, 1));
        let passed = metadata.stats().packets.load(Relaxed);
        totals.push(passed);
        if turn == 2 {
            seen = Some(metadata.subscribe());
        }
        tokio::select! { biased; () = &mut reading => {}, () = tokio::task::yield_now() => {} }
        // The first does not wait, the second does; with the third somebody listens.
        assert_eq!(decoded(), if turn < 2 { totals[0] } else { passed }, "{turn}");
    }
    assert!(totals[0] > 0 && totals.is_sorted_by(|a, b| a < b), "{totals:?}");
    assert_eq!(seen.unwrap().try_recv().unwrap().number, totals[0]);
}
