//! Recovery of losses, next to what libsrt's rules reach under the same conditions.

use super::libsrt::{LibReceiver, LibSender};
use super::*;

/// One cell of the table: 40 ms of round trip, loss both ways.
#[derive(Debug, Clone, Copy)]
struct Cell {
    latency: Nanos,
    per_cent: u64,
    jitter: Nanos,
}

const SEEDS: u64 = 5;

fn cells() -> impl Iterator<Item = Cell> {
    [120, 250].into_iter().flat_map(|latency| {
        [(1, 0), (5, 0), (10, 0), (1, 5), (5, 5), (10, 5)].map(|(per_cent, jitter)| Cell {
            latency: latency * MS,
            per_cent,
            jitter: jitter * MS,
        })
    })
}

/// Twenty seconds of 4 Mb/s for each of five seeds, summed.
fn run<S: Transmit, R: Receive>(
    cell: Cell,
    sender: impl Fn(Nanos) -> S,
    receiver: impl Fn(Nanos, Nanos) -> R,
) -> Tally {
    let mut sum = Tally::default();
    for seed in 1..=SEEDS {
        let path = Path { delay: 20 * MS, jitter: cell.jitter, loss: cell.per_cent * 10_000, copies: 0 };
        let way = 20 * MS + Random(seed * 77 + 5).below(cell.jitter + 1);
        let (sender, receiver) = (sender(cell.latency), receiver(cell.latency, way));
        let mut world = World::new(sender, receiver, path, path, seed + cell.per_cent * 100);
        world.run(20 * SECOND, true);
        sum += world.tally();
    }
    sum
}

fn ours(latency: Nanos) -> Ours {
    Ours::new(Sender::new(&sender_config(latency, Seq::new(5000)), START), 10 * MS)
}

fn our_receiver(latency: Nanos, way: Nanos) -> OurReceiver {
    let config = receiver_config(latency, Seq::new(5000), way);
    OurReceiver::new(Receiver::new(&config, 7 * SECOND), 2 * MS + MS / 2)
}

fn lib(_: Nanos) -> LibSender {
    LibSender::new(Seq::new(5000))
}

fn lib_receiver(latency: Nanos, way: Nanos) -> LibReceiver {
    LibReceiver::new(latency, Seq::new(5000), way)
}

/// Where libsrt sends again what was not lost (its receiver reports every packet that was overtaken), so may we;
/// where it does not, nearly never.
fn check(cell: Cell, role: &str, ours: Tally, reference: Tally) {
    println!("{cell:?} {role}: {ours:?}, libsrt {reference:?}");
    let allowed = reference.missing as f64 + f64::max(3.0, 2.0 * (reference.missing as f64).sqrt());
    assert!(ours.missing as f64 <= allowed, "{cell:?} {role}: {} missing of {allowed}", ours.missing);
    if cell.per_cent <= 5 && cell.latency == 250 * MS {
        assert_eq!(ours.missing, 0, "{cell:?} {role}");
    }
    let (again, most) = match cell.jitter {
        0 => (ours.again as f64, 1.3 * ours.lost as f64),
        _ => (ours.again as f64, 1.2 * reference.again as f64),
    };
    assert!(again <= most, "{cell:?} {role}: {again} sent again of {most}");
}

#[test]
fn losses_are_recovered_as_well_as_by_libsrt() {
    for cell in cells() {
        let reference = run(cell, lib, lib_receiver);
        check(cell, "sending", run(cell, ours, lib_receiver), reference);
        check(cell, "receiving", run(cell, lib, our_receiver), reference);
        check(cell, "both", run(cell, ours, our_receiver), reference);
    }
}

#[test]
fn a_path_that_changes_the_order_is_noticed() {
    let disordered = |jitter| {
        let path = Path { delay: 20 * MS, jitter, loss: 10_000, copies: 0 };
        let mut world = World::new(ours(250 * MS), lib_receiver(250 * MS, 20 * MS), path, path, 3);
        world.run(3 * SECOND, true);
        world.sender.sender.is_disordered()
    };
    assert!(!disordered(0) && disordered(5 * MS));
}

#[test]
fn a_wide_path_is_recovered_within_its_memory() {
    // 100 Mb/s, 5 % lost, 200 ms of round trip: thousands in flight, hundreds missing at any time.
    let path = Path { delay: 100 * MS, jitter: 0, loss: 50_000, copies: 5_000 };
    let mut world = World::new(ours(800 * MS), our_receiver(800 * MS, 100 * MS), path, path, 9);
    world.interval = 105_000;
    world.run(6 * SECOND, true);
    let tally = world.tally();
    assert!(tally.lost > 2000 && tally.missing == 0, "{tally:?}");
    assert!(tally.again as f64 <= 1.3 * tally.lost as f64, "{tally:?}");
}
