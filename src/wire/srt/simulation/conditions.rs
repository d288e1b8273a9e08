//! What connections live through: wraps, drift, silence, skips, full peers.

use super::*;

const LATENCY: Nanos = 250 * MS;
const WAY: Nanos = 20 * MS;

type Pair = World<Ours, OurReceiver>;

/// A connection over a path that loses 2 %, whose numbers and timestamps wrap soon: 500 packets, and 5 s, after it
/// begins.
fn pair(change: impl FnOnce(&mut SenderConfig, &mut ReceiverConfig)) -> Pair {
    let initial = Seq::new(Seq::COUNT - 500);
    let before: u64 = (1 << 32) - 5_000_000;
    let mut sender = sender_config(LATENCY, initial);
    let mut receiver = receiver_config(LATENCY, initial, WAY);
    sender.start = START - before * 1000;
    receiver.tied_timestamp = before as u32;
    change(&mut sender, &mut receiver);
    let path = Path { delay: WAY, jitter: 3 * MS, loss: 20_000, copies: 10_000 };
    let sender = Ours::new(Sender::new(&sender, START), 10 * MS);
    let receiver = OurReceiver::new(Receiver::new(&receiver, 7 * SECOND), 2 * MS);
    World::new(sender, receiver, path, path, 11)
}

/// How far deliveries were from the arrival of their packet, the way and the latency: early and late.
fn timing(world: &Pair, arrival: impl Fn(u64) -> Nanos) -> (i64, i64) {
    let errors = world
        .delivered
        .iter()
        .map(|&(position, at, _)| at as i64 - (arrival(position) + WAY + LATENCY) as i64);
    errors.fold((0, 0), |(early, late), error| (early.min(error), late.max(error)))
}

#[test]
fn numbers_and_timestamps_wrap_unnoticed() {
    let mut world = pair(|_, _| {});
    world.run(12 * SECOND, true);
    let tally = world.tally();
    assert!(tally.sent > 4500 && tally.lost > 50 && tally.missing == 0, "{tally:?}");
    let (early, late) = timing(&world, |position| START + position * world.interval);
    assert!(early > -(MS as i64) / 100 && late < MS as i64 / 100, "{early} {late}");
    for (position, at, now) in &world.delivered {
        assert!(now - at <= 3 * MS, "{position} was due at {at} and left at {now}");
    }
}

#[test]
fn a_starved_connection_stays_and_goes_on_even_across_a_wrap() {
    for silence in [10, 90] {
        let mut world = pair(|_, _| {});
        world.run(3 * SECOND, true);
        let before = world.delivered.len();
        for _ in 0..silence {
            world.run(SECOND, false);
            assert!(!world.sender.sender.is_peer_lost(world.now));
            assert!(!world.receiver.receiver.is_peer_lost(world.receiver_clock(world.now)));
        }
        assert!(world.delivered.len() > before, "the last ones left");
        world.run(3 * SECOND, true);
        let tally = world.tally();
        assert!(
            tally.sent > 2200 && tally.missing <= 1,
            "at most the last one before the silence: {tally:?}"
        );
        let last = world.delivered.last().unwrap();
        assert!(world.now - last.1 < 10 * MS, "on time again");
    }
}

#[test]
fn hours_of_drift_move_no_delivery_far() {
    for ppm in [-200, 200] {
        let mut world = pair(|_, receiver| receiver.capacity = 64);
        (world.ppm, world.step, world.interval) = (ppm, 10 * MS, 50 * MS);
        (world.sender.slot, world.receiver.slot) = (10 * MS, 10 * MS);
        world.run(2 * 3600 * SECOND, true);
        let tally = world.tally();
        // The clocks go 1.4 s apart.
        assert!(tally.sent > 140_000 && tally.missing < tally.lost / 20, "{tally:?}");
        let (early, late) = timing(&world, |position| START + position * 50 * MS);
        // The mean of 1000 answers, of which there are 20 a second, is up to 100 s old: 20 ms. Time has steps of 10.
        assert!(early > -30 * MS as i64 && late < 30 * MS as i64, "{ppm} ppm: {early} {late}");
    }
}

#[test]
fn what_the_reader_skips_is_no_hole_on_the_wire() {
    let mut world = pair(|_, _| {});
    world.keep = 150 * MS;
    for _ in 0..5 {
        world.run(SECOND, true);
        world.sender.stalled = true;
        world.run(SECOND, true);
        world.sender.stalled = false;
    }
    world.run(SECOND, true);
    let tally = world.tally();
    let (sent, got) = (world.sender.sender.stats(), world.receiver.receiver.stats());
    assert!(sent.skipped > 5 * 200, "{sent:?}");
    // What was lost just before each pause comes too late after it.
    assert!(tally.missing <= 5 * 3 && got.dropped == tally.missing, "{tally:?} {got:?}");
}

#[test]
fn a_peer_that_is_full_gets_what_it_has_room_for() {
    let mut world = pair(|sender, receiver| {
        (sender.window, receiver.capacity) = (64, 64);
        receiver.latency = Duration::from_secs(1);
    });
    world.run(10 * SECOND, true);
    let tally = world.tally();
    let sent = world.sender.sender.stats();
    assert!(sent.refused_by_window > 2000 && sent.skipped <= sent.refused_by_window, "{sent:?}");
    assert!(tally.sent > 9 * 50, "64 fit in each latency: {tally:?}");
    assert!(tally.missing <= tally.lost, "{tally:?}");
    let last = world.delivered.last().unwrap();
    assert!(world.now - last.1 < SECOND, "it still goes on");
}

#[test]
fn what_the_ring_has_lost_is_not_waited_for() {
    let mut world = pair(|_, _| {});
    world.keep = 20 * MS;
    (world.forth.path.jitter, world.back.path.jitter) = (0, 0);
    world.run(5 * SECOND, true);
    let tally = world.tally();
    let (sent, got) = (world.sender.sender.stats(), world.receiver.receiver.stats());
    assert!(tally.again == 0 && tally.missing > 0 && sent.dropped >= tally.missing, "{tally:?} {sent:?}");
    assert!(got.drop_requests > 0 && got.dropped == tally.missing, "{got:?}");
    assert!(got.naks < 4 * tally.lost, "what will not come is not asked for again: {got:?}");
}

#[test]
fn a_dead_path_ends_both_sides() {
    let mut world = pair(|_, _| {});
    world.run(2 * SECOND, true);
    world.forth.path.loss = 1_000_000;
    world.back.path.loss = 1_000_000;
    world.run(5 * SECOND - 100 * MS, true);
    let clock = world.receiver_clock(world.now);
    assert!(!world.sender.sender.is_peer_lost(world.now) && !world.receiver.receiver.is_peer_lost(clock));
    world.run(300 * MS, true);
    let clock = world.receiver_clock(world.now);
    assert!(world.sender.sender.is_peer_lost(world.now) && world.receiver.receiver.is_peer_lost(clock));
}
