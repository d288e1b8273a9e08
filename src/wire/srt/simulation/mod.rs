//! A sender, a network and a receiver in simulated time: seeds and conditions enter, what was lost, sent again and
//! delivered leaves. The same seed gives the same run.

mod conditions;
mod libsrt;
mod recovery;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;

pub(super) const MS: Nanos = 1_000_000;
pub(super) const SECOND: Nanos = 1000 * MS;
/// Where the sender's clock stands when the connection begins.
pub(super) const START: Nanos = 10_000 * SECOND;

/// Something that sends a stream.
pub(super) trait Transmit {
    /// Takes what the ring holds (the arrival of each position), datagrams that have arrived, and sends.
    fn turn(&mut self, ring: &Ring, inbox: &mut Vec<Vec<u8>>, now: Nanos, out: &mut Vec<Vec<u8>>);
}

/// Something that receives a stream.
pub(super) trait Receive {
    /// Takes datagrams that have arrived, sends, and delivers (position, deliver at).
    fn turn(
        &mut self,
        inbox: &mut Vec<Vec<u8>>,
        now: Nanos,
        out: &mut Vec<Vec<u8>>,
        got: &mut Vec<(u64, Nanos)>,
    );
}

/// When the packets of the stream arrived; the first ones may have left.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) first: u64,
    pub(super) arrivals: VecDeque<Nanos>,
}

impl Ring {
    pub(super) fn arrival(&self, position: u64) -> Option<Nanos> {
        self.arrivals.get(position.checked_sub(self.first)? as usize).copied()
    }
}

/// What the network does to each datagram of one direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) delay: Nanos,
    /// Up to this much more, evenly; datagrams overtake each other.
    pub(super) jitter: Nanos,
    /// Of a million datagrams.
    pub(super) loss: u64,
    /// Of a million, arrive twice.
    pub(super) copies: u64,
}

/// One direction: what is under way, by time of arrival.
#[derive(Debug)]
struct Way {
    path: Path,
    random: Random,
    flying: BTreeMap<(Nanos, u64), Vec<u8>>,
    count: u64,
    data: u64,
    data_again: u64,
    data_lost: u64,
    /// Positions in the order of their first sending.
    first_sent: Vec<u64>,
}

impl Way {
    fn new(path: Path, seed: u64) -> Self {
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (flying, first_sent) = (BTreeMap::new(), Vec::new());
        Self { path, random, flying, count: 0, data: 0, data_again: 0, data_lost: 0, first_sent }
    }

    fn send(&mut self, datagrams: &mut Vec<Vec<u8>>, now: Nanos) {
        for datagram in datagrams.drain(..) {
            let lost = self.random.below(1_000_000) < self.path.loss;
            if let Ok(Packet::Data(header, payload)) = Packet::parse(&datagram) {
                if !header.retransmitted {
                    self.first_sent.push(position_of(payload));
                }
                self.data += u64::from(!header.retransmitted);
                self.data_again += u64::from(header.retransmitted);
                self.data_lost += u64::from(lost && !header.retransmitted);
            }
            if lost {
                continue;
            }
            let copies = 1 + u64::from(self.random.below(1_000_000) < self.path.copies);
            for _ in 0..copies {
                let at = now + self.path.delay + self.random.below(self.path.jitter + 1);
                self.count += 1;
                self.flying.insert((at, self.count), datagram.clone());
            }
        }
    }

    fn arrive(&mut self, now: Nanos, into: &mut Vec<Vec<u8>>) {
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= now
        {
            into.push(entry.remove());
        }
    }
}

/// xorshift64.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}

/// A stream through a network. Time is the sender's; the receiver's clock may go otherwise.
pub(super) struct World<S, R> {
    pub(super) sender: S,
    pub(super) receiver: R,
    pub(super) ring: Ring,
    forth: Way,
    back: Way,
    /// Time between two packets of the stream.
    pub(super) interval: Nanos,
    /// How long the ring keeps a packet.
    pub(super) keep: Nanos,
    /// How finely time is cut.
    pub(super) step: Nanos,
    /// How much faster the receiver's clock goes.
    pub(super) ppm: i64,
    pub(super) now: Nanos,
    next_arrival: Nanos,
    inboxes: (Vec<Vec<u8>>, Vec<Vec<u8>>),
    /// Position, when it was to be delivered and when it was, on the sender's clock.
    pub(super) delivered: Vec<(u64, Nanos, Nanos)>,
}

impl<S: Transmit, R: Receive> World<S, R> {
    pub(super) fn new(sender: S, receiver: R, forth: Path, back: Path, seed: u64) -> Self {
        Self {
            sender,
            receiver,
            ring: Ring::default(),
            forth: Way::new(forth, seed * 2 + 1),
            back: Way::new(back, seed * 2 + 2),
            interval: 2_632_000,
            keep: 8 * SECOND,
            step: MS / 4,
            ppm: 0,
            now: START,
            next_arrival: START,
            inboxes: (Vec::new(), Vec::new()),
            delivered: Vec::new(),
        }
    }

    /// The receiver's clock at a time of the sender's.
    pub(super) fn receiver_clock(&self, now: Nanos) -> Nanos {
        let passed = (now - START) as i64;
        (7 * SECOND as i64 + passed + (passed as i128 * self.ppm as i128 / 1_000_000) as i64) as Nanos
    }

    /// Lets that much time pass, with the stream coming in or not.
    pub(super) fn run(&mut self, time: Nanos, streaming: bool) {
        let end = self.now + time;
        let (mut out, mut got) = (Vec::new(), Vec::new());
        while self.now < end {
            self.now += self.step;
            while self.next_arrival <= self.now {
                if streaming {
                    self.ring.arrivals.push_back(self.next_arrival);
                }
                self.next_arrival += self.interval;
            }
            while self.ring.arrivals.front().is_some_and(|&arrival| arrival + self.keep < self.now) {
                self.ring.arrivals.pop_front();
                self.ring.first += 1;
            }
            self.back.arrive(self.now, &mut self.inboxes.0);
            self.sender.turn(&self.ring, &mut self.inboxes.0, self.now, &mut out);
            self.forth.send(&mut out, self.now);
            self.forth.arrive(self.now, &mut self.inboxes.1);
            let clock = self.receiver_clock(self.now);
            self.receiver.turn(&mut self.inboxes.1, clock, &mut out, &mut got);
            self.back.send(&mut out, self.now);
            let offset = clock as i64 - self.now as i64;
            let back = |(position, at): (u64, Nanos)| (position, (at as i64 - offset) as Nanos, self.now);
            self.delivered.extend(got.drain(..).map(back));
        }
    }

    /// Takes the tally, and checks that what came out went in, in order and not twice. What may still be on its way
    /// is not missing: packets behind the last one delivered.
    pub(super) fn tally(&self) -> Tally {
        for pair in self.delivered.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].0, pair[1].0);
        }
        let Way { data, data_again, data_lost, first_sent, .. } = &self.forth;
        let open = self.delivered.last().map_or(*data, |last| {
            data - first_sent.iter().position(|position| *position == last.0).unwrap() as u64 - 1
        });
        let missing = data - open - self.delivered.len() as u64;
        Tally { sent: *data, again: *data_again, lost: *data_lost, missing }
    }
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Packets sent for the first time.
    pub(super) sent: u64,
    /// Packets sent again.
    pub(super) again: u64,
    /// First sendings that the network lost.
    pub(super) lost: u64,
    /// Packets that were not delivered.
    pub(super) missing: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.again += other.again;
        self.lost += other.lost;
        self.missing += other.missing;
    }
}

/// Our sender as a shard drives it: every quarter of a delay class it reads what arrived and answers, and sends
/// what is new in one of the four.
pub(super) struct Ours {
    pub(super) sender: Sender,
    pub(super) slot: Nanos,
    pub(super) slots: u64,
    pub(super) cursor: u64,
    /// Does nothing: its shard stands still.
    pub(super) stalled: bool,
    turns: u64,
    next: Nanos,
}

impl Ours {
    pub(super) fn new(sender: Sender, class: Nanos) -> Self {
        Self { sender, slot: class / 4, slots: 4, cursor: 0, stalled: false, turns: 0, next: START }
    }
}

impl Transmit for Ours {
    fn turn(&mut self, ring: &Ring, inbox: &mut Vec<Vec<u8>>, now: Nanos, out: &mut Vec<Vec<u8>>) {
        if now < self.next || self.stalled {
            return;
        }
        self.next = now + self.slot;
        self.turns += 1;
        for datagram in inbox.drain(..) {
            if let Ok(Packet::Control(packet)) = Packet::parse(&datagram) {
                self.sender.handle(&packet.control, now);
            }
        }
        let slots = if self.sender.wants_haste(now) { 1 } else { self.slots };
        if self.turns.is_multiple_of(slots) {
            self.cursor = self.cursor.max(ring.first);
            while let Some(arrival) = ring.arrival(self.cursor) {
                if let Some(header) = self.sender.header(self.cursor, arrival, 1316, KeyFlag::Clear, now) {
                    out.push(datagram(header, self.cursor));
                }
                self.cursor += 1;
            }
        }
        let stored = |position| ring.arrival(position).map(|arrival| Stored { arrival, length: 1316 });
        while let Some(again) = self.sender.next_retransmit(now, stored) {
            out.push(datagram(again.header, again.position));
        }
        while let Some(packet) = self.sender.next_control(now) {
            let mut bytes = Vec::new();
            packet.write(&mut bytes);
            out.push(bytes);
        }
        let due = self.sender.next_due();
        assert!(due > now || self.sender.is_peer_lost(now), "all that was due is done");
    }
}

/// Our receiver, polled at that interval.
pub(super) struct OurReceiver {
    pub(super) receiver: Receiver,
    pub(super) slot: Nanos,
    next: Nanos,
}

impl OurReceiver {
    pub(super) fn new(receiver: Receiver, slot: Nanos) -> Self {
        Self { receiver, slot, next: 0 }
    }
}

impl Receive for OurReceiver {
    fn turn(
        &mut self,
        inbox: &mut Vec<Vec<u8>>,
        now: Nanos,
        out: &mut Vec<Vec<u8>>,
        got: &mut Vec<(u64, Nanos)>,
    ) {
        if now < self.next {
            return;
        }
        self.next = now + self.slot;
        for datagram in inbox.drain(..) {
            match Packet::parse(&datagram) {
                Ok(Packet::Data(_, payload)) => {
                    let header = datagram.first_chunk().unwrap();
                    self.receiver.handle_data(header, payload, now, accept_clear);
                }
                Ok(Packet::Control(packet)) => drop(self.receiver.handle(&packet, now)),
                Err(error) => panic!("{error}"),
            }
        }
        while let Some(delivery) = self.receiver.pop(now) {
            got.push((position_of(delivery.payload), delivery.deliver_at));
        }
        let mut bytes = Vec::new();
        while self.receiver.next_control(now, &mut bytes) {
            out.push(bytes.clone());
        }
        let due = self.receiver.next_due();
        assert!(due > now || self.receiver.is_peer_lost(now), "all that was due is done");
    }
}

/// A datagram whose payload says where it stood in the ring.
pub(super) fn datagram(header: DataHeader, position: u64) -> Vec<u8> {
    [&header.to_bytes()[..], &position.to_be_bytes()].concat()
}

pub(super) fn position_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload.try_into().unwrap())
}

pub(super) fn sender_config(latency: Nanos, initial: Seq) -> SenderConfig {
    SenderConfig {
        destination: SocketId(2),
        start: START,
        initial,
        window: 8192,
        peer_latency: Duration::from_nanos(latency),
        peer_drops_late: true,
        peer_repeats_reports: true,
        idle_timeout: Duration::from_secs(5),
        bandwidth: Bandwidth::Unlimited,
    }
}

/// The receiver's side; the packet that ties the clocks together took `way` to arrive.
pub(super) fn receiver_config(latency: Nanos, initial: Seq, way: Nanos) -> ReceiverConfig {
    ReceiverConfig {
        destination: SocketId(1),
        start: 7 * SECOND,
        initial,
        tied_at: 7 * SECOND + way,
        tied_timestamp: 0,
        latency: Duration::from_nanos(latency),
        capacity: 8192,
        peer_holds_off: true,
        idle_timeout: Duration::from_secs(5),
    }
}
