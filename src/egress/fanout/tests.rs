//! Outputs on real sockets of loopback, walked on simulated time.

use std::net::UdpSocket;

use super::*;
use crate::hub::{Bounds, Lane, LaneWriter};
use crate::net::Poller;

const MS: Nanos = 1_000_000;
const STREAM: StreamKey = 7;

/// A fanout that reads one lane, and the sockets that it sends to.
struct Bench {
    fanout: Fanout,
    writer: LaneWriter,
    sinks: Vec<UdpSocket>,
    written: u32,
    _notices: mpsc::Receiver<Notice>,
}

impl Bench {
    fn new() -> Self {
        let (notices, _notices) = mpsc::channel(64);
        let bell = Poller::new().unwrap().doorbell();
        Self {
            fanout: Fanout::new(bell, notices, Arc::default(), 1),
            writer: Lane::new(Bounds::default()).1,
            sinks: Vec::new(),
            written: 0,
            _notices,
        }
    }

    fn target(&self, key: OutputKey, destination: SocketAddr, delay: Nanos) -> Target {
        Target {
            key,
            attempt: 1,
            stream: STREAM,
            local: true,
            lane: Arc::clone(self.writer.lane()),
            destination,
            socket: SendOptions::default(),
            framing: Framing::Udp,
            delay,
            paced: false,
            stats: Arc::default(),
        }
    }

    /// Adds an output with a socket of its own; its key is the socket's place.
    fn attach(&mut self, delay: Nanos) -> Arc<crate::telemetry::OutputStats> {
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        sink.set_nonblocking(true).unwrap();
        let target = self.target(self.sinks.len() as OutputKey, sink.local_addr().unwrap(), delay);
        self.sinks.push(sink);
        let stats = Arc::clone(&target.stats);
        self.fanout.handle(Command::Attach(Box::new(target)), 0);
        stats
    }

    fn detach(&mut self, key: OutputKey, now: Nanos) {
        self.fanout.handle(Command::Detach(key), now);
    }

    /// Writes so many numbered datagrams.
    fn write(&mut self, count: u32, now: Nanos) {
        for number in self.written..self.written + count {
            let mut datagram = [0x47; 188];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            self.writer.stage(&datagram, now, None);
        }
        self.written += count;
        assert!(self.writer.commit(now));
        self.fanout.arrived(STREAM, false, now);
    }

    /// As often as a shard would: a walk looks at the real clock for how long it goes on.
    fn walk(&mut self, now: Nanos) {
        while self.fanout.next_due().is_some_and(|due| due <= now) {
            self.fanout.walk(now, &mut |_| 0);
        }
    }

    /// The numbers that came to an output since they were last taken.
    fn got(&self, output: usize) -> Vec<u32> {
        let mut buffer = [0; 2048];
        let mut numbers = Vec::new();
        while let Ok(length) = self.sinks[output].recv(&mut buffer) {
            assert_eq!(length, 188);
            numbers.push(u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]));
        }
        numbers
    }

    /// Members of every cohort, largest first.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.fanout.cohorts.iter().flatten().map(|c| c.members.len()).collect();
        sizes.sort_unstable_by_key(|size| Reverse(*size));
        sizes
    }

    /// The books agree with each other.
    fn check(&self) {
        let fanout = &self.fanout;
        for (key, &(index, place)) in &fanout.outputs {
            assert_eq!(fanout.cohorts[index].as_ref().unwrap().members[place].key, *key);
        }
        assert_eq!(self.sizes().iter().sum::<usize>(), fanout.outputs.len());
        let mut slots: HashMap<(Nanos, u8), usize> = HashMap::new();
        for (index, cohort) in fanout.cohorts.iter().enumerate() {
            let Some(cohort) = cohort else { continue };
            assert!(!cohort.members.is_empty());
            let line = fanout.timetable.line(index).expect("every cohort is a line");
            *slots.entry((line.pace.delay, line.slot)).or_default() += cohort.members.len();
        }
        for delay in [0, 5, 10, 20, 40].map(|ms| ms * MS) {
            for slot in 0..4 {
                let members = slots.get(&(delay, slot)).copied().unwrap_or(0);
                assert_eq!(fanout.timetable.outputs_at(delay, slot), members);
            }
        }
        let grouped: usize = fanout.groups.values().map(Vec::len).sum();
        assert_eq!(grouped, self.sizes().len());
    }
}

#[test]
fn an_output_that_leaves_gets_what_waits_for_it_and_no_more() {
    let mut bench = Bench::new();
    let stats = bench.attach(40 * MS);
    bench.attach(40 * MS);
    bench.write(7, 0);
    bench.walk(0);
    assert_eq!(bench.got(0), [0; 0], "its delay class is 40 ms");
    bench.detach(0, MS);
    assert_eq!(bench.got(0), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!((stats.datagrams.load(Relaxed), stats.bytes.load(Relaxed)), (7, 7 * 188));
    bench.write(3, 2 * MS);
    bench.walk(50 * MS);
    assert_eq!(bench.got(0), [0; 0]);
    assert_eq!(bench.got(1), (0..10).collect::<Vec<_>>(), "its neighbour gets each datagram once");
    bench.check();
}

#[test]
fn what_is_detached_reads_its_own_stream_first() {
    let mut bench = Bench::new();
    bench.attach(10 * MS);
    assert_eq!(bench.fanout.reads(&Command::Detach(0)), Some(STREAM));
    assert_eq!(bench.fanout.reads(&Command::Detach(9)), None);
    let target = bench.target(5, bench.sinks[0].local_addr().unwrap(), 0);
    assert_eq!(bench.fanout.reads(&Command::Attach(Box::new(target))), None);
}

#[test]
fn a_shard_that_ends_sends_what_waits() {
    let mut bench = Bench::new();
    [0, 10, 40, 40].into_iter().for_each(|delay| drop(bench.attach(delay * MS)));
    bench.write(5, 0);
    bench.fanout.finish(MS);
    (0..4).for_each(|output| assert_eq!(bench.got(output), [0, 1, 2, 3, 4], "{output}"));
    bench.fanout.finish(2 * MS);
    (0..4).for_each(|output| assert_eq!(bench.got(output), [0; 0], "{output}"));
}

#[test]
fn cohorts_that_churn_left_sparse_are_merged() {
    let mut bench = Bench::new();
    let outputs = 3 * COHORT + 10;
    (0..outputs).for_each(|_| drop(bench.attach(10 * MS)));
    assert_eq!(bench.sizes(), [COHORT, COHORT, COHORT, 10]);
    bench.check();
    bench.write(2, 0);
    bench.walk(20 * MS);
    // A third of each is left.
    let stay = |output: usize| output.is_multiple_of(3);
    (0..outputs).filter(|&o| !stay(o)).for_each(|output| bench.detach(output as OutputKey, 20 * MS));
    assert_eq!(bench.sizes().len(), 4);
    for round in 1..=4 {
        bench.write(3, (20 + round) * MS);
        bench.fanout.publish((20 + round) * MS);
        bench.check();
    }
    assert_eq!(bench.sizes().len(), 2, "{:?}", bench.sizes());
    let lines = (0..bench.fanout.cohorts.len()).filter_map(|index| bench.fanout.timetable.line(index));
    let slots: Vec<u8> = lines.map(|line| line.slot).collect();
    assert_ne!(slots[0], slots[1], "they leave at different moments");
    bench.walk(60 * MS);
    for output in (0..outputs).filter(|&o| stay(o)) {
        assert_eq!(bench.got(output), (0..14).collect::<Vec<_>>(), "{output}");
    }
    for output in (0..outputs).filter(|&o| stay(o)) {
        bench.detach(output as OutputKey, 70 * MS);
    }
    assert!(bench.sizes().is_empty() && bench.fanout.groups.is_empty());
    assert_eq!(bench.fanout.next_due(), None);
    bench.check();
}

#[test]
fn members_that_a_path_moved_apart_come_together_again() {
    let mut bench = Bench::new();
    let stats: Vec<_> = (0..6).map(|_| bench.attach(20 * MS)).collect();
    let now = 20 * MS;
    // Two at a time, between which the stream goes on: each pair gets a cohort of its own.
    for _ in 0..3 {
        bench.write(2, now);
        let index = bench.fanout.groups[&key(&bench, 0)][0];
        let cursor = bench.fanout.cohorts[index].as_ref().unwrap().cursor;
        let moves = [0, 1].map(|index| Move { index, cursor, packets: 5, segmented: true });
        bench.fanout.apply_moves(index, moves.into(), now);
        bench.fanout.flush(index, now);
        bench.check();
    }
    assert_eq!(bench.sizes(), [2, 2, 2]);
    for round in 1..=3 {
        bench.fanout.publish(now + round * MS);
        bench.check();
    }
    assert_eq!(bench.sizes(), [6]);
    bench.write(4, now + 5 * MS);
    bench.walk(now + 50 * MS);
    for (output, stats) in stats.iter().enumerate() {
        assert_eq!(bench.got(output), (0..10).collect::<Vec<_>>(), "{output}");
        bench.detach(output as OutputKey, now + 50 * MS);
        assert_eq!(stats.datagrams.load(Relaxed), 10);
    }
}

#[test]
fn rtp_cohorts_keep_their_numbering() {
    let mut bench = Bench::new();
    for key in 0..4 {
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        let destination = sink.local_addr().unwrap();
        bench.sinks.push(sink);
        let target = Target { framing: Framing::Rtp, ..bench.target(key, destination, 10 * MS) };
        bench.fanout.handle(Command::Attach(Box::new(target)), 0);
    }
    let cursor = bench.writer.lane().live();
    for now in [0, 20 * MS] {
        bench.write(2, now);
        let apart = Move { index: 0, cursor, packets: 5, segmented: true };
        bench.fanout.apply_moves(0, vec![apart], now);
        bench.walk(now + 10 * MS);
    }
    assert_eq!(bench.sizes(), [2, 1, 1]);
    bench.fanout.publish(40 * MS);
    assert_eq!(bench.sizes(), [2, 1, 1]);
}

/// What the cohort of an unmoved output has in common.
fn key(bench: &Bench, packets: u8) -> CohortKey {
    *bench.fanout.groups.keys().find(|key| key.packets == packets).unwrap()
}
