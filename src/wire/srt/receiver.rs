//! Data packets enter as the network delivered them, payloads leave in order and at their time; acknowledgements
//! and loss reports leave. Holds a bounded number of packets.

use std::collections::VecDeque;
use std::time::Duration;

use super::link::nanos;
use super::loss::LossList;
use super::rate::{Meter, PairProbe};
use super::resend::NEVER;
use super::tsbpd::Tsbpd;
use super::{
    Ack, AckReport, Control, ControlPacket, DataHeader, Event, HEADER, KeyFlag, Link, Losses, Nanos,
    PAYLOAD_MOST, ReceiverStats, Rtt, Seq, SocketId,
};

/// What the handshake agreed on for the direction of receiving.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// The peer's socket.
    pub destination: SocketId,
    /// When the connection began here: timestamp 0 of what this end sends.
    pub start: Nanos,
    /// The number of the peer's first packet.
    pub initial: Seq,
    /// When the handshake packet that ties the clocks together arrived…
    pub tied_at: Nanos,
    /// …and the timestamp that it carried.
    pub tied_timestamp: u32,
    /// How long after its time a packet is delivered.
    pub latency: Duration,
    /// Most packets held: the flow window that was offered; libsrt has 8192.
    pub capacity: u32,
    /// The peer does not answer a loss twice within a round trip, however often it is reported: libsrt does so from
    /// 1.4.4 on.
    pub peer_holds_off: bool,
    /// Silence of the peer after which the connection is lost; libsrt has 5 s.
    pub idle_timeout: Duration,
}

/// The receiving end of one connection in live mode.
#[derive(Debug)]
pub struct Receiver {
    link: Link,
    capacity: usize,
    peer_holds_off: bool,
    /// The number of the packet that leaves next.
    first: Seq,
    /// Place `i` belongs to number `first + i`. The last place is never empty.
    slots: VecDeque<Slot>,
    /// Exactly the empty places.
    losses: LossList,
    /// Packets that were missing before the one that leaves next.
    gap: u32,
    tsbpd: Tsbpd,
    rtt: Rtt,
    acks: Acks,
    rate: Meter,
    probe: PairProbe,
    /// When a packet last found its place, and whether those since then lie out of reach.
    accepted: Nanos,
    out_of_reach: bool,
    /// Payloads that left: their memory is used again.
    spare: Vec<Vec<u8>>,
    /// The payload that left last.
    out: Vec<u8>,
    /// The loss list of the report being written.
    report: Vec<u8>,
    stats: ReceiverStats,
}

/// What ties the times of delivery to the peer's timestamps.
#[derive(Debug, Clone)]
pub struct Clock(Tsbpd);

/// A payload on its way out.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The payload, decrypted.
    pub payload: &'a [u8],
    /// The number of its packet.
    pub sequence: Seq,
    /// When it was to be delivered: arrivals, freed of the network's jitter.
    pub deliver_at: Nanos,
    /// Packets that are missing between the last payload and this one.
    pub missing: u32,
}

impl Receiver {
    /// A receiver that waits for the first packet. `now` starts its timers.
    pub fn new(config: &ReceiverConfig, now: Nanos) -> Self {
        let first = config.initial;
        Self {
            link: Link::new(config.destination, config.start, config.idle_timeout, now),
            capacity: config.capacity.clamp(32, CAPACITY_MOST) as usize,
            peer_holds_off: config.peer_holds_off,
            first,
            slots: VecDeque::new(),
            losses: LossList::default(),
            gap: 0,
            tsbpd: Tsbpd::new(config.tied_at, config.tied_timestamp, nanos(config.latency)),
            rtt: Rtt::default(),
            acks: Acks::new(first, now),
            rate: Meter::new(now),
            probe: PairProbe::default(),
            accepted: now,
            out_of_reach: false,
            spare: Vec::new(),
            out: Vec::new(),
            report: Vec::new(),
            stats: ReceiverStats::default(),
        }
    }

    /// When its packets are delivered.
    pub fn clock(&self) -> Clock {
        Clock(self.tsbpd.clone())
    }

    /// Makes this the receiver of one more link of a connection group: its packets are delivered by the clock of
    /// the group's first link, whichever link they come by.
    pub fn follow(&mut self, clock: Clock) {
        self.tsbpd = clock.0;
    }

    /// Forgets what comes before `next` without acknowledging it: another link of the group has had it. Nothing of
    /// what is held is lost, so this is for a link that holds nothing.
    pub fn skip_to(&mut self, next: Seq) {
        if self.slots.is_empty() && next.is_after(self.first) {
            self.first = next;
            self.acks.begin_at(next);
        }
    }

    /// The number before which everything arrived or is given up.
    pub fn next_missing(&self) -> Seq {
        self.first + self.solid() as u32
    }

    /// The number behind the latest packet that arrived.
    pub fn end(&self) -> Seq {
        self.first + self.slots.len() as u32
    }

    /// Takes a data packet for this connection that arrived at `now`. `decrypt` gets its header, as fields and as
    /// bytes, and its payload, makes the payload clear in place and answers how long it is then; `None` refuses it:
    /// there is no key, it does not fit, or the payload is clear where it must not be ([`accept_clear`] suits a
    /// connection without encryption). A packet that was refused counts as arrived, and is missing from what leaves.
    pub fn handle_data(
        &mut self,
        header: &[u8; HEADER],
        payload: &[u8],
        now: Nanos,
        decrypt: impl FnOnce(&DataHeader, &[u8; HEADER], &mut [u8]) -> Option<usize>,
    ) {
        self.link.hear(now);
        self.stats.packets += 1;
        self.stats.bytes += payload.len() as u64;
        self.rate.add(payload.len(), now);
        let Ok(fields) = DataHeader::parse(header) else {
            self.stats.refused += 1;
            return;
        };
        self.stats.retransmitted += u64::from(fields.retransmitted);
        self.acks.unlit += 1;
        let place = fields.sequence.ahead_of(self.first);
        let Ok(place) = usize::try_from(place) else {
            self.stats.late += 1;
            return;
        };
        if place >= self.capacity || payload.len() > PAYLOAD_MOST {
            self.stats.refused += 1;
            // A gap wider than the buffer: nothing that comes can be believed to belong here any more.
            let stuck = self.slots.is_empty() && now.saturating_sub(self.accepted) > OUT_OF_REACH;
            self.out_of_reach |= stuck && place >= self.capacity;
            return;
        }
        if self.slots.get(place).is_some_and(|slot| !slot.is_empty()) {
            self.stats.duplicates += 1;
            return;
        }
        self.accepted = now;
        let time = self.tsbpd.unwrap(fields.timestamp, now);
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PAYLOAD_MOST));
        buffer.clear();
        buffer.extend_from_slice(payload);
        let slot = match decrypt(&fields, header, &mut buffer) {
            Some(length) => {
                buffer.truncate(length);
                Slot::Held { time, payload: buffer }
            }
            None => {
                self.stats.undecrypted += 1;
                self.recycle(buffer);
                Slot::Refused { time }
            }
        };
        self.insert(place, &fields, slot, now);
    }

    /// Takes a control packet for this connection that carries `timestamp` and arrived at `now`.
    pub fn handle(&mut self, packet: &ControlPacket<'_>, now: Nanos) -> Event {
        self.link.hear(now);
        match packet.control {
            Control::AckAck { number } => {
                if let Some(sent) = self.acks.confirm(number) {
                    let rtt = now.saturating_sub(sent);
                    self.rtt.measure(rtt);
                    self.stats.rtt.add(rtt / 1000);
                    self.tsbpd.sample(packet.timestamp, now, rtt);
                }
            }
            Control::DropRequest { first, last, .. } => self.give_up(first, last),
            Control::Shutdown => return Event::Shutdown,
            Control::PeerError { code } => return Event::PeerError(code),
            Control::Handshake(_) | Control::User(..) => return Event::Unhandled,
            Control::KeepAlive | Control::CongestionWarning | Control::Ack(_) | Control::Nak(_) => {}
        }
        Event::Quiet
    }

    /// Takes note that the peer lives, by a packet that is not for [`Self::handle`].
    pub fn hear(&mut self, now: Nanos) {
        self.link.hear(now);
    }

    /// The next payload that is due at `now`; call it until `None`. What is missing before a payload that is due
    /// has come too late (4.6).
    pub fn pop(&mut self, now: Nanos) -> Option<Delivery<'_>> {
        loop {
            let (place, deliver_at) = self.head()?;
            if deliver_at > now {
                return None;
            }
            for _ in 0..place {
                self.slots.pop_front();
            }
            self.stats.dropped += place as u64;
            self.gap = self.gap.saturating_add(place as u32);
            let sequence = self.first + place as u32;
            self.first = sequence + 1;
            let slot = self.slots.pop_front()?;
            if place > 0 {
                self.losses.forget_before(self.first);
            }
            match slot {
                Slot::Held { payload, .. } => {
                    let old = std::mem::replace(&mut self.out, payload);
                    self.recycle(old);
                    self.stats.delivered += 1;
                    let missing = std::mem::take(&mut self.gap);
                    return Some(Delivery { payload: &self.out, sequence, deliver_at, missing });
                }
                Slot::Refused { .. } | Slot::Empty => self.gap = self.gap.saturating_add(1),
            }
        }
    }

    /// Writes the next control packet that is due at `now` into `into`, which it clears; call it until `false`.
    /// Take all packets that have arrived first, and all payloads that are due: what they fill is not reported
    /// missing, and what was given up with them is acknowledged.
    pub fn next_control(&mut self, now: Nanos, into: &mut Vec<u8>) -> bool {
        into.clear();
        if let Some(packet) = self.next_ack(now) {
            packet.write(into);
            return true;
        }
        self.report.clear();
        let interval =
            if self.peer_holds_off { self.rtt.dense_nak_interval() } else { self.rtt.nak_interval() };
        if self.losses.report(now, interval, PAYLOAD_MOST, &mut self.report)
            && let Ok(losses) = Losses::parse(&self.report)
        {
            self.stats.naks += 1;
            self.link.send(now);
            self.link.control(Control::Nak(losses), now).write(into);
            return true;
        }
        let Some(packet) = self.link.keep_alive(now) else { return false };
        packet.write(into);
        true
    }

    /// A control packet of the owner's making, such as a shutdown or key material, with this connection's
    /// destination and timestamp.
    pub fn control<'a>(&mut self, control: Control<'a>, now: Nanos) -> ControlPacket<'a> {
        self.link.send(now);
        self.link.control(control, now)
    }

    /// When there is something to do without a packet having arrived: a payload, an acknowledgement, a report.
    pub fn next_due(&self) -> Nanos {
        let head = self.head().map_or(NEVER, |(_, deliver_at)| deliver_at);
        head.min(self.acks.due(self.next_missing(), &self.rtt))
            .min(self.losses.soonest())
            .min(self.link.due())
    }

    /// Whether nothing was heard of the peer for longer than the connection may be silent.
    pub fn is_peer_lost(&self, now: Nanos) -> bool {
        self.link.is_peer_lost(now)
    }

    /// Whether the peer's numbers have run away from this end, by more than the buffer holds: the connection
    /// cannot go on.
    pub fn is_out_of_reach(&self) -> bool {
        self.out_of_reach
    }

    /// Packets held, and how much time they span in nanoseconds.
    pub fn held(&self) -> (usize, Nanos) {
        let time = |slot: &Slot| match slot {
            Slot::Held { time, .. } => Some(*time),
            Slot::Refused { .. } | Slot::Empty => None,
        };
        let span = self.slots.iter().find_map(time).zip(self.slots.iter().rev().find_map(time));
        (self.slots.len(), span.map_or(0, |(first, last)| last.abs_diff(first)))
    }

    /// The peer's socket.
    pub fn destination(&self) -> SocketId {
        self.link.destination()
    }

    /// The round-trip time.
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Nanoseconds by which the peer's clock has drifted from ours since it was last followed.
    pub fn drift(&self) -> i64 {
        self.tsbpd.drift()
    }

    /// Bytes of payload per second, over the last half second.
    pub fn byte_rate(&self) -> u64 {
        self.rate.bytes_per_second()
    }

    /// What was seen so far.
    pub fn stats(&self) -> &ReceiverStats {
        &self.stats
    }

    /// The first place that is not empty, and when it is due.
    #[inline]
    fn head(&self) -> Option<(usize, Nanos)> {
        let place = self.losses.missing_from(self.first) as usize;
        match self.slots.get(place)? {
            Slot::Held { time, .. } | Slot::Refused { time } => Some((place, self.tsbpd.deliver_at(*time))),
            Slot::Empty => None,
        }
    }

    fn insert(&mut self, place: usize, fields: &DataHeader, slot: Slot, now: Nanos) {
        if place < self.slots.len() {
            self.losses.close(fields.sequence);
            self.stats.reordered += u64::from(!fields.retransmitted);
        } else {
            if !fields.retransmitted {
                self.probe.add(fields.sequence, slot.length(), now);
            }
            let missing = place - self.slots.len();
            if missing > 0 {
                self.stats.lost += missing as u64;
                self.losses.append(self.first + self.slots.len() as u32, fields.sequence - 1, now);
            }
            self.slots.resize_with(place + 1, || Slot::Empty);
        }
        if let Some(empty) = self.slots.get_mut(place) {
            *empty = slot;
        }
    }

    /// The peer will not send these: they stay missing until their time has come, but are not asked for.
    fn give_up(&mut self, first: Seq, last: Seq) {
        self.stats.drop_requests += 1;
        self.losses.give_up(first, last);
    }

    /// How many places from the first on are not empty.
    #[inline]
    fn solid(&self) -> usize {
        let missing = self.losses.first().map(|missing| missing.ahead_of(self.first).max(0) as usize);
        missing.unwrap_or(self.slots.len())
    }

    fn next_ack(&mut self, now: Nanos) -> Option<ControlPacket<'static>> {
        let next = self.next_missing();
        let available = (self.capacity - self.solid().min(self.capacity)) as u32;
        if let Some(number) = self.acks.next(next, available, now, &self.rtt) {
            self.rate.close(now);
            self.stats.acks += 1;
            self.stats.held.add(self.held().1 / 1000);
            self.link.send(now);
            let report = AckReport {
                rtt: micros(self.rtt.smoothed()),
                rtt_variance: micros(self.rtt.variance()),
                available,
                packet_rate: self.rate.packets_per_second().min(u32::MAX.into()) as u32,
                link_capacity: self.probe.packets_per_second(),
                byte_rate: self.rate.bytes_per_second().min(u32::MAX.into()) as u32,
            };
            return Some(self.link.control(Control::Ack(Ack { number, next, report: Some(report) }), now));
        }
        if self.acks.next_light(next) {
            self.stats.light_acks += 1;
            self.link.send(now);
            return Some(self.link.control(Control::Ack(Ack { number: 0, next, report: None }), now));
        }
        None
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MOST && buffer.capacity() > 0 {
            self.spare.push(buffer);
        }
    }
}

/// What a connection without encryption decrypts with: clear payloads pass, others do not.
pub fn accept_clear(header: &DataHeader, _: &[u8; HEADER], payload: &mut [u8]) -> Option<usize> {
    (header.key == KeyFlag::Clear).then_some(payload.len())
}

#[derive(Debug)]
enum Slot {
    /// Missing.
    Empty,
    /// Arrived, and could not be decrypted.
    Refused { time: i64 },
    /// Arrived; its time of the connection in nanoseconds.
    Held { time: i64, payload: Vec<u8> },
}

impl Slot {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn length(&self) -> usize {
        match self {
            Self::Held { payload, .. } => payload.len(),
            Self::Empty | Self::Refused { .. } => 0,
        }
    }
}

/// When to acknowledge, and the acknowledgements that wait for their answer.
#[derive(Debug)]
struct Acks {
    /// Number of the last full one.
    number: u32,
    /// What it said, and when it was sent.
    said: Seq,
    said_at: Nanos,
    /// Whether it said that nothing more fits.
    said_full: bool,
    /// The most that the peer has shown to know.
    confirmed: Seq,
    /// No full one before this time.
    due: Nanos,
    /// Number, content and time of those that are not answered.
    open: VecDeque<(u32, Seq, Nanos)>,
    /// Packets that arrived since the last full one…
    unlit: u32,
    /// …and how many of them the next light one waits for.
    light_after: u32,
}

impl Acks {
    fn new(first: Seq, now: Nanos) -> Self {
        Self {
            number: 0,
            said: first,
            said_at: now,
            said_full: false,
            confirmed: first,
            due: now + ACK_INTERVAL,
            open: VecDeque::new(),
            unlit: 0,
            light_after: LIGHT_EVERY,
        }
    }

    /// Everything before `next` is none of its business: libsrt ends a connection that acknowledges what it has not
    /// sent.
    fn begin_at(&mut self, next: Seq) {
        (self.said, self.confirmed) = (next, next);
        self.open.clear();
    }

    /// When a full one is due that says `next`: every 10 ms while there is news, and as long as the peer has not
    /// answered, again after a round trip (3.2.4, 4.8.1).
    fn due(&self, next: Seq, rtt: &Rtt) -> Nanos {
        if next == self.confirmed {
            NEVER
        } else if next == self.said {
            self.due.max(self.said_at + rtt.beyond())
        } else {
            self.due
        }
    }

    /// The number of the full one to send now.
    fn next(&mut self, next: Seq, available: u32, now: Nanos, rtt: &Rtt) -> Option<u32> {
        // A peer that was told to stop has to hear that there is room again.
        let reopened = self.said_full && available > 0 && now >= self.due;
        if now < self.due(next, rtt) && !reopened {
            return None;
        }
        self.number = self.number % ACK_NUMBER_MOST + 1;
        (self.said, self.said_at, self.said_full) = (next, now, available == 0);
        self.due = now + ACK_INTERVAL;
        (self.unlit, self.light_after) = (0, LIGHT_EVERY);
        if self.open.len() >= OPEN_MOST {
            self.open.pop_front();
        }
        self.open.push_back((self.number, next, now));
        Some(self.number)
    }

    /// Whether a light one is due.
    fn next_light(&mut self, next: Seq) -> bool {
        if self.unlit < self.light_after || next == self.said {
            return false;
        }
        self.light_after = self.unlit + LIGHT_EVERY;
        true
    }

    /// When the acknowledgement was sent that is answered; `None` when it is not known.
    fn confirm(&mut self, number: u32) -> Option<Nanos> {
        let at = self.open.iter().position(|open| open.0 == number)?;
        let (_, said, sent) = self.open.drain(..=at).next_back()?;
        self.confirmed = self.confirmed.later(said);
        Some(sent)
    }
}

fn micros(time: Nanos) -> u32 {
    (time / 1000).min(i32::MAX as u64) as u32
}

const ACK_INTERVAL: Nanos = 10_000_000;
const ACK_NUMBER_MOST: u32 = i32::MAX as u32;
const LIGHT_EVERY: u32 = 64;
/// Two and a half seconds of round trip.
const OPEN_MOST: usize = 256;
const SPARE_MOST: usize = 64;
const CAPACITY_MOST: u32 = 1 << 17;
const OUT_OF_REACH: Nanos = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Boundary, Packet};
    use super::*;

    const MS: Nanos = 1_000_000;
    const INITIAL: Seq = Seq::new(Seq::COUNT - 2);

    struct Bench {
        receiver: Receiver,
        out: Vec<(i32, u32, Nanos)>,
    }

    impl Bench {
        fn new(latency: u64, capacity: u32) -> Self {
            let config = ReceiverConfig {
                destination: SocketId(4),
                start: 0,
                initial: INITIAL,
                tied_at: 0,
                tied_timestamp: 0,
                latency: Duration::from_millis(latency),
                capacity,
                peer_holds_off: false,
                idle_timeout: Duration::from_secs(5),
            };
            Self { receiver: Receiver::new(&config, 0), out: Vec::new() }
        }

        /// Packet `index`, one a millisecond, arrives at `ms`.
        fn push(&mut self, index: u32, ms: u64) {
            self.push_with(index, ms, false, accept_clear);
        }

        fn push_with(
            &mut self,
            index: u32,
            ms: u64,
            retransmitted: bool,
            decrypt: impl FnOnce(&DataHeader, &[u8; HEADER], &mut [u8]) -> Option<usize>,
        ) {
            let header = DataHeader {
                sequence: INITIAL + index,
                boundary: Boundary::Solo,
                in_order: false,
                key: KeyFlag::Clear,
                retransmitted,
                message: 1,
                timestamp: index * 1000,
                destination: SocketId(1),
            };
            self.receiver.handle_data(&header.to_bytes(), &index.to_be_bytes(), ms * MS, decrypt);
        }

        /// What leaves at `ms`: index, packets missing before it, when it was due.
        fn pop(&mut self, ms: u64) -> Vec<(i32, u32, Nanos)> {
            let mut out = Vec::new();
            while let Some(delivery) = self.receiver.pop(ms * MS) {
                let index = delivery.sequence.ahead_of(INITIAL);
                assert_eq!(delivery.payload, index.to_be_bytes());
                out.push((index, delivery.missing, delivery.deliver_at / MS));
            }
            self.out.extend(&out);
            out
        }

        fn controls(&mut self, ms: u64) -> Vec<String> {
            let (mut bytes, mut out) = (Vec::new(), Vec::new());
            while self.receiver.next_control(ms * MS, &mut bytes) {
                let Ok(Packet::Control(packet)) = Packet::parse(&bytes) else { panic!("{bytes:?}") };
                out.push(match packet.control {
                    Control::Ack(Ack { number, next, report }) => {
                        let room = report.map_or(-1, |r| i64::from(r.available));
                        format!("ack {number} {} room {room}", next.ahead_of(INITIAL))
                    }
                    Control::Nak(losses) => losses.ranges().fold("nak".into(), |list, (first, last)| {
                        format!("{list} {}-{}", first.ahead_of(INITIAL), last.ahead_of(INITIAL))
                    }),
                    other => format!("{other:?}"),
                });
            }
            out
        }

        fn control(&mut self, control: Control<'_>, ms: u64) -> Event {
            let packet = ControlPacket { timestamp: (ms * 1000) as u32, destination: SocketId(1), control };
            self.receiver.handle(&packet, ms * MS)
        }
    }

    #[test]
    fn a_link_of_a_group_leaves_to_others_what_they_had() {
        let (mut b, mut leader) = (Bench::new(50, 100), Bench::new(50, 100));
        leader.receiver.tsbpd = Tsbpd::new(7 * MS, 0, 50 * MS);
        b.receiver.follow(leader.receiver.clock());
        b.receiver.skip_to(INITIAL + 5000);
        // Nothing of it is acknowledged before something behind it came.
        assert_eq!(b.controls(500), [""; 0]);
        b.push(4999, 5000);
        b.push(5000, 5000);
        b.receiver.skip_to(INITIAL + 6000);
        assert_eq!((b.controls(5010), b.pop(5056)), (vec!["ack 1 5001 room 99".into()], vec![]));
        assert_eq!(b.pop(5057), [(5000, 0, 5057)], "by the clock of the leader");
        assert_eq!((b.receiver.end(), b.receiver.next_missing()), (INITIAL + 5001, INITIAL + 5001));
        assert_eq!(b.receiver.stats().late, 1);
    }

    #[test]
    fn payloads_leave_in_order_at_their_time() {
        let mut b = Bench::new(50, 100);
        for (index, ms) in [(0, 20), (2, 22), (1, 23), (2, 24), (3, 25)] {
            b.push(index, ms);
        }
        assert_eq!(b.pop(49), []);
        assert_eq!(b.receiver.next_due(), 10 * MS, "the first acknowledgement");
        assert_eq!(b.pop(51), [(0, 0, 50), (1, 0, 51)]);
        assert_eq!(b.pop(60), [(2, 0, 52), (3, 0, 53)]);
        let stats = b.receiver.stats();
        assert_eq!((stats.delivered, stats.lost, stats.reordered, stats.duplicates), (4, 1, 1, 1));
        b.push(2, 61);
        assert_eq!(b.receiver.stats().late, 1);
    }

    #[test]
    fn what_comes_too_late_is_gone_without() {
        let mut b = Bench::new(50, 100);
        b.push(1, 20);
        b.push(5, 25);
        assert_eq!(b.pop(51), [(1, 1, 51)]);
        assert_eq!(b.pop(54), []);
        assert_eq!(b.pop(55), [(5, 3, 55)]);
        b.push(3, 56);
        b.push(6, 56);
        assert_eq!(b.pop(60), [(6, 0, 56)]);
        let stats = b.receiver.stats();
        assert_eq!((stats.dropped, stats.lost, stats.late), (4, 4, 1));
    }

    #[test]
    fn acknowledgements_keep_their_beat_and_stop_when_answered() {
        let mut b = Bench::new(50, 100);
        assert_eq!(b.controls(10), [""; 0], "nothing to acknowledge");
        b.push(0, 10);
        b.push(1, 12);
        assert_eq!(b.controls(12), ["ack 1 2 room 98"]);
        b.push(2, 13);
        assert_eq!(b.controls(21), [""; 0]);
        assert_eq!(b.controls(22), ["ack 2 3 room 97"]);
        assert_eq!(b.controls(300), [""; 0], "not again within a round trip");
        assert_eq!(b.controls(322), ["ack 3 3 room 97"]);
        assert_eq!(b.control(Control::AckAck { number: 9 }, 350), Event::Quiet);
        assert!(!b.receiver.rtt().is_measured(), "an answer to nothing");
        b.control(Control::AckAck { number: 3 }, 362);
        assert_eq!(b.receiver.rtt().smoothed(), 40 * MS);
        b.control(Control::AckAck { number: 1 }, 363);
        assert_eq!(b.receiver.rtt().smoothed(), 40 * MS, "overtaken answers are not measured");
        assert_eq!(b.controls(1000), [""; 0]);
        assert_eq!(b.controls(1400), ["KeepAlive"]);
    }

    #[test]
    fn many_packets_bring_light_acknowledgements() {
        let mut b = Bench::new(500, 1000);
        b.push(0, 0);
        assert_eq!(b.controls(10), ["ack 1 1 room 999"]);
        (1..64).for_each(|index| b.push(index, 11));
        assert_eq!(b.controls(11), [""; 0]);
        b.push(64, 12);
        assert_eq!(b.controls(12), ["ack 0 65 room -1"]);
        (65..193).for_each(|index| b.push(index, 13));
        assert_eq!(b.controls(13), ["ack 0 193 room -1"]);
        assert_eq!(b.controls(20), ["ack 2 193 room 807"]);
    }

    #[test]
    fn losses_are_reported_at_once_and_again() {
        let mut b = Bench::new(1000, 100);
        b.push(0, 0);
        assert_eq!(b.controls(10), ["ack 1 1 room 99"]);
        b.control(Control::AckAck { number: 1 }, 50);
        b.push(3, 51);
        b.push(5, 52);
        assert_eq!(b.controls(52), ["nak 1-2 4-4"]);
        b.push(2, 53);
        // A round trip of 40 ms and 20 ms of deviation: 60 ms.
        assert_eq!(b.controls(110), [""; 0]);
        assert_eq!(b.controls(112), ["nak 1-1 4-4"]);
        b.control(Control::DropRequest { message: 0, first: INITIAL + 4, last: INITIAL + 4 }, 113);
        assert_eq!(b.controls(172), ["nak 1-1"]);
        b.push_with(1, 173, true, accept_clear);
        assert_eq!(b.controls(500), ["ack 2 4 room 96"], "up to what will not come");
        assert_eq!(b.pop(1100), [(0, 0, 1000), (1, 0, 1001), (2, 0, 1002), (3, 0, 1003), (5, 1, 1005)]);
    }

    #[test]
    fn what_cannot_be_decrypted_is_missing_but_has_arrived() {
        let mut b = Bench::new(50, 100);
        b.push(0, 0);
        b.push_with(1, 1, false, |_, _, _| None);
        b.push_with(3, 3, false, |header, bytes, payload| {
            assert_eq!((header.to_bytes(), &*payload), (*bytes, &3u32.to_be_bytes()[..]));
            Some(payload.len())
        });
        assert_eq!(b.controls(10), ["ack 1 2 room 98", "nak 2-2"]);
        b.push(2, 11);
        assert_eq!(b.pop(100), [(0, 0, 50), (2, 1, 52), (3, 0, 53)]);
        assert_eq!((b.receiver.stats().undecrypted, b.receiver.stats().dropped), (1, 0));
        let encrypted = DataHeader::parse(&[0, 0, 0, 0, 0xC8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(accept_clear(&encrypted, &[0; HEADER], &mut [1]), None);
    }

    #[test]
    fn a_clock_that_runs_backwards_spans_time_too() {
        let mut b = Bench::new(50, 64);
        b.push(1, 0);
        let header = DataHeader {
            sequence: INITIAL + 2,
            boundary: Boundary::Solo,
            in_order: false,
            key: KeyFlag::Clear,
            retransmitted: false,
            message: 1,
            timestamp: 0,
            destination: SocketId(1),
        };
        b.receiver.handle_data(&header.to_bytes(), &[0], 0, accept_clear);
        assert_eq!(b.receiver.held(), (3, MS));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut b = Bench::new(50, 64);
        b.push(63, 0);
        b.push(64, 0);
        assert_eq!((b.receiver.held().0, b.receiver.stats().refused), (64, 1));
        assert_eq!(b.pop(113), [(63, 63, 113)]);
        b.push(64 + 64, 500);
        assert!(!b.receiver.is_out_of_reach());
        b.push(64 + 64, 1500);
        assert!(b.receiver.is_out_of_reach(), "nothing has fitted for a second");
        let long = [0; PAYLOAD_MOST + 1];
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&(INITIAL + 70).value().to_be_bytes());
        b.receiver.handle_data(&header, &long, 1500 * MS, |_, _, _| panic!("must not be looked at"));
        assert_eq!(b.receiver.stats().refused, 4);
    }

    #[test]
    fn a_peer_that_was_full_hears_of_new_room() {
        let mut b = Bench::new(50, 32);
        (0..32).for_each(|index| b.push(index, 1));
        assert_eq!(b.controls(10), ["ack 1 32 room 0"]);
        b.control(Control::AckAck { number: 1 }, 11);
        assert_eq!(b.controls(30), [""; 0]);
        assert_eq!(b.pop(60).len(), 11);
        assert_eq!(b.controls(60), ["ack 2 32 room 11"]);
        assert_eq!(b.controls(80), [""; 0]);
    }

    #[test]
    fn a_peer_that_leaves_is_seen() {
        let mut b = Bench::new(50, 32);
        assert_eq!(b.control(Control::Shutdown, 1), Event::Shutdown);
        assert_eq!(b.control(Control::PeerError { code: 4000 }, 1), Event::PeerError(4000));
        assert_eq!(b.control(Control::Handshake(&[]), 1), Event::Unhandled);
        assert!(!b.receiver.is_peer_lost(5001 * MS) && b.receiver.is_peer_lost(5002 * MS));
    }

    proptest! {
        /// Any packets at any time: what leaves is in order, every number left, is held, or is missing, and the
        /// memory is bounded.
        #[test]
        fn numbers_are_accounted_for(
            steps in prop::collection::vec((0u8..10, 0u32..90, 0u64..15), 1..300),
        ) {
            let mut b = Bench::new(60, 64);
            let (mut now, mut end) = (0, 0u32);
            for (what, n, step) in steps {
                now += step;
                match what {
                    0..4 => {
                        b.push(end, now);
                        end += 1;
                    }
                    4 => b.push(end + n, now),
                    5 => b.push_with(end.saturating_sub(n), now, true, accept_clear),
                    6 => b.push_with(end + n % 3, now, false, |_, _, _| None),
                    7 => {
                        let first = INITIAL + end.saturating_sub(n);
                        b.control(Control::DropRequest { message: 0, first, last: first + n }, now);
                    }
                    8 => drop(b.control(Control::AckAck { number: n % 8 }, now)),
                    _ => end += n % 4,
                }
                b.pop(now);
                b.controls(now);
                prop_assert!(b.receiver.next_due() > now * MS || b.receiver.is_peer_lost(now * MS));
                prop_assert!(b.receiver.slots.len() <= 64);
                prop_assert!(!matches!(b.receiver.slots.back(), Some(Slot::Empty)));
                let mut expected = 0;
                for &(index, missing, _) in &b.out {
                    prop_assert_eq!(index as u32, expected + missing);
                    expected = index as u32 + 1;
                }
                prop_assert_eq!(b.receiver.first, INITIAL + expected + b.receiver.gap);
                for (place, slot) in b.receiver.slots.iter().enumerate() {
                    let missing = b.receiver.losses.missing_from(b.receiver.first + place as u32);
                    prop_assert_eq!(missing > 0, slot.is_empty());
                }
            }
        }
    }
}
