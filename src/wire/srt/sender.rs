//! Positions of a ring enter, the headers to send their payload with leave; acknowledgements and loss reports
//! enter, what to send again leaves. Never holds payload.

mod disorder;
mod link_of_group;

use std::collections::VecDeque;
use std::time::Duration;

use super::link::nanos;
use super::rate::Cap;
use super::resend::{NEVER, Resend, Then};
use super::{
    Ack, Bandwidth, Boundary, Control, ControlPacket, DataHeader, Event, HEADER, KeyFlag, Link, Losses,
    MESSAGE_MOST, Nanos, Rtt, SenderStats, Seq, SocketId,
};

use disorder::Disorder;

/// What the handshake agreed on for the direction of sending.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// The peer's socket.
    pub destination: SocketId,
    /// When the connection began: timestamp 0.
    pub start: Nanos,
    /// The number of the first packet.
    pub initial: Seq,
    /// Packets that may be under way unacknowledged: the peer's flow window.
    pub window: u32,
    /// How long the peer holds packets before it delivers them.
    pub peer_latency: Duration,
    /// The peer gives up packets that come too late (flag TLPKTDROP).
    pub peer_drops_late: bool,
    /// The peer reports losses again and again (flag NAKREPORT). Where it does not, silence is answered with
    /// everything that is not acknowledged.
    pub peer_repeats_reports: bool,
    /// Silence of the peer after which the connection is lost; libsrt has 5 s.
    pub idle_timeout: Duration,
    /// How much may be sent.
    pub bandwidth: Bandwidth,
}

/// The sending end of one connection in live mode.
///
/// A packet has a *position*, where its payload lies in the ring that all senders of a stream share, and an
/// *index*, how many packets this connection sent before it. Sequence and message number are made of the index,
/// so what is skipped leaves no hole on the wire; the difference of position and index is kept for each run of
/// packets that is not yet acknowledged.
#[derive(Debug)]
pub struct Sender {
    link: Link,
    initial: Seq,
    /// Index of the next new packet.
    next: u64,
    /// Everything before it is acknowledged.
    acked: u64,
    /// Everything before it is too old to be sent again.
    given_up: u64,
    /// What `next` was at a time, to know later what is too old.
    mark: (u64, Nanos),
    window: u64,
    run: Run,
    /// Runs before `run` that are not all acknowledged.
    older: VecDeque<Run>,
    resend: Resend,
    /// How many packets may be sent again: no peer makes this end send thrice its stream for long.
    credit: u32,
    /// No packet is sent again before this time, for lack of credit or bandwidth.
    held_until: Nanos,
    /// Ranges that the peer is to be told not to wait for.
    hopeless: VecDeque<(u64, u64)>,
    /// The acknowledgement to answer.
    owed: Option<u32>,
    rtt: Rtt,
    cap: Cap,
    latency: Nanos,
    /// The age at which nobody waits for a packet any more.
    old: Nanos,
    /// Whether the peer then goes on without it.
    drops_late: bool,
    /// When silence is answered.
    timeout: Timeout,
    repeats_reports: bool,
    disorder: Disorder,
    /// When a loss was last reported.
    lost_at: Option<Nanos>,
    /// For a link of a connection group, whose positions say which number a packet has: the index of the first
    /// packet that it sent since it last began to carry the stream.
    begun: Option<u64>,
    /// Since when something sent is not acknowledged.
    awaits: Nanos,
    stats: SenderStats,
}

/// A packet to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retransmit {
    /// Where its payload lies in the ring.
    pub position: u64,
    /// Its header: number, message, timestamp and key of its first sending.
    pub header: DataHeader,
}

/// A packet that is still in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// When it arrived, as it was given to [`Sender::header`].
    pub arrival: Nanos,
    /// Bytes of payload.
    pub length: usize,
}

impl Sender {
    /// A sender at its first packet. `now` starts its timers.
    pub fn new(config: &SenderConfig, now: Nanos) -> Self {
        let latency = nanos(config.peer_latency);
        Self {
            link: Link::new(config.destination, config.start, config.idle_timeout, now),
            initial: config.initial,
            next: 0,
            acked: 0,
            given_up: 0,
            mark: (0, now),
            window: config.window.into(),
            run: Run::default(),
            older: VecDeque::new(),
            resend: Resend::default(),
            credit: CREDIT_FIRST,
            held_until: 0,
            hopeless: VecDeque::new(),
            owed: None,
            rtt: Rtt::default(),
            cap: Cap::new(config.bandwidth, latency.max(LEAST_BURST), now),
            latency,
            // libsrt: the latency or a second, and twice the interval of acknowledgements.
            old: latency.max(1000 * MS).saturating_add(20 * MS),
            drops_late: config.peer_drops_late,
            timeout: Timeout::new(now),
            repeats_reports: config.peer_repeats_reports,
            disorder: Disorder::default(),
            lost_at: None,
            begun: None,
            awaits: now,
            stats: SenderStats::default(),
        }
    }

    /// The header for the packet at `position` of the ring, which arrived at `arrival` and has `length` bytes of
    /// payload, to be sent at `now` for the first time, encrypted with `key`. Positions only grow. `None`: this
    /// packet is not to be sent, because the peer's buffer or the limit of bandwidth is exhausted; the next one
    /// that may go follows on the wire as if it had not been there.
    #[inline]
    pub fn header(
        &mut self,
        position: u64,
        arrival: Nanos,
        length: usize,
        key: KeyFlag,
        now: Nanos,
    ) -> Option<DataHeader> {
        if now.saturating_sub(self.mark.1) >= self.old {
            self.age(now);
        }
        if self.begun.is_some() && !self.reach(position) {
            return None;
        }
        let in_flight = self.in_flight();
        if in_flight >= self.window {
            self.stats.refused_by_window += 1;
            return None;
        }
        if !self.cap.take_new(length, now) {
            self.stats.refused_by_bandwidth += 1;
            return None;
        }
        let index = self.next;
        let shift = position.wrapping_sub(index);
        if shift != self.run.shift || key != self.run.key || index == 0 {
            self.begin_run(shift, key);
        }
        if in_flight == 0 {
            self.timeout = Timeout::new(now);
            self.awaits = now;
        }
        self.next += 1;
        self.credit = (self.credit + CREDIT_EACH).min(CREDIT_MOST);
        self.link.send(now);
        self.stats.packets += 1;
        self.stats.bytes += length as u64;
        Some(self.header_of(index, arrival, key, false))
    }

    /// Takes a control packet for this connection that arrived at `now`. One that names what was never sent
    /// changes nothing.
    pub fn handle(&mut self, control: &Control<'_>, now: Nanos) -> Event {
        self.link.hear(now);
        match *control {
            Control::Ack(ack) => return self.take_ack(ack, now),
            Control::Nak(losses) => self.take_nak(losses, now),
            Control::Shutdown => return Event::Shutdown,
            Control::PeerError { code } => return Event::PeerError(code),
            Control::Handshake(_) | Control::User(..) => return Event::Unhandled,
            Control::KeepAlive
            | Control::CongestionWarning
            | Control::AckAck { .. }
            | Control::DropRequest { .. } => {}
        }
        Event::Quiet
    }

    /// Takes note that the peer lives, by a packet that is not for [`Self::handle`].
    pub fn hear(&mut self, now: Nanos) {
        self.link.hear(now);
    }

    /// The next packet to send again at `now`; call it until `None`. `stored` looks a position up in the ring: what
    /// is no longer there, or too old, is given up, and the peer is told.
    pub fn next_retransmit(
        &mut self,
        now: Nanos,
        mut stored: impl FnMut(u64) -> Option<Stored>,
    ) -> Option<Retransmit> {
        self.answer_silence(now);
        while let Some((index, tries)) = self.resend.next(now) {
            let run = self.run_of(index);
            let place = run.and_then(|run| {
                let position = index.wrapping_add(run.shift);
                Some((run, position, stored(position)?))
            });
            let late = |arrival: Nanos| self.drops_late && now.saturating_sub(arrival) > self.old;
            let Some((run, position, packet)) = place.filter(|(_, _, packet)| !late(packet.arrival)) else {
                self.resend.forget(index);
                self.stats.dropped += 1;
                self.give_up(index, index);
                continue;
            };
            if self.credit == 0 || !self.cap.take_again(packet.length, now) {
                self.held_until = now + HELD_FOR;
                return None;
            }
            self.credit -= 1;
            self.resend.sent(index, now, self.follow_up(tries, packet.arrival, now));
            if index == self.acked.max(self.given_up) {
                self.timeout.since = now;
            }
            self.link.send(now);
            self.stats.retransmitted += 1;
            self.stats.retransmitted_bytes += packet.length as u64;
            return Some(Retransmit {
                position,
                header: self.header_of(index, packet.arrival, run.key, true),
            });
        }
        None
    }

    /// The next control packet to send at `now`; call it until `None`. Send it soon: its timestamp and what it
    /// answers are what the peer measures the link by.
    pub fn next_control(&mut self, now: Nanos) -> Option<ControlPacket<'static>> {
        let control = if let Some(number) = self.owed.take() {
            Control::AckAck { number }
        } else if let Some((first, last)) = self.hopeless.pop_front() {
            // Message 0: the range alone says what is meant.
            Control::DropRequest { message: 0, first: self.sequence(first), last: self.sequence(last) }
        } else {
            return self.link.keep_alive(now);
        };
        self.link.send(now);
        Some(self.link.control(control, now))
    }

    /// A control packet of the owner's making, such as a shutdown or key material, with this connection's
    /// destination and timestamp.
    pub fn control<'a>(&mut self, control: Control<'a>, now: Nanos) -> ControlPacket<'a> {
        self.link.send(now);
        self.link.control(control, now)
    }

    /// When there is something to do without a packet having arrived: control packets, or packets to send again.
    /// 0 is at once.
    pub fn next_due(&self) -> Nanos {
        if self.owed.is_some() || !self.hopeless.is_empty() {
            return 0;
        }
        self.link.due().min(self.resend.soonest().max(self.held_until)).min(self.silence_due())
    }

    /// Whether nothing was heard of the peer for longer than the connection may be silent.
    pub fn is_peer_lost(&self, now: Nanos) -> bool {
        self.link.is_peer_lost(now)
    }

    /// Whether the path seems to change the order of packets: the peer reports packets missing that arrive all
    /// the same. Such a path wants packets sent one by one rather than in batches.
    pub fn is_disordered(&self) -> bool {
        self.disorder.is_high()
    }

    /// Whether packets get lost on the path: a loss was reported lately.
    pub fn is_lossy(&self, now: Nanos) -> bool {
        self.lost_at.is_some_and(|at| now < at.saturating_add(LOSSY))
    }

    /// Whether packets are to leave as soon as may be rather than in batches: the path changes their order, or it
    /// loses some and the peer's latency has room for a few round trips only.
    pub fn wants_haste(&self, now: Nanos) -> bool {
        self.is_disordered() || self.is_lossy(now) && self.latency < 4 * self.rtt.smoothed()
    }

    /// Packets sent that are neither acknowledged nor too old.
    #[inline]
    pub fn in_flight(&self) -> u64 {
        self.next - self.acked.max(self.given_up)
    }

    /// Position of the oldest packet that is not acknowledged; `None` when all are.
    pub fn oldest_position(&self) -> Option<u64> {
        let oldest = self.acked.max(self.given_up);
        let run = self.run_of(oldest).filter(|_| oldest < self.next)?;
        Some(oldest.wrapping_add(run.shift))
    }

    /// Packets that may be under way unacknowledged: the peer's flow window.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// The number that the next new packet will have.
    pub fn next_sequence(&self) -> Seq {
        self.sequence(self.next)
    }

    /// The peer's socket.
    pub fn destination(&self) -> SocketId {
        self.link.destination()
    }

    /// The round-trip time as the peer measures it.
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// What was done and heard so far.
    pub fn stats(&self) -> &SenderStats {
        &self.stats
    }

    #[inline]
    fn header_of(&self, index: u64, arrival: Nanos, key: KeyFlag, retransmitted: bool) -> DataHeader {
        DataHeader {
            sequence: self.sequence(index),
            boundary: Boundary::Solo,
            in_order: false,
            key,
            retransmitted,
            message: (index % u64::from(MESSAGE_MOST)) as u32 + 1,
            timestamp: self.link.timestamp(arrival),
            destination: self.link.destination(),
        }
    }

    #[inline]
    fn sequence(&self, index: u64) -> Seq {
        self.initial + index as u32
    }

    /// The index of a packet that was sent, or the one behind the last.
    #[inline]
    fn index(&self, sequence: Seq) -> Option<u64> {
        let ahead = i64::from(sequence.ahead_of(self.sequence(self.next)));
        self.next.checked_add_signed(ahead).filter(|&index| index <= self.next)
    }

    #[cold]
    fn begin_run(&mut self, shift: u64, key: KeyFlag) {
        let run = Run { first: self.next, shift, key };
        if self.next > 0 {
            // Positions may start anywhere, but from then on only grow.
            self.stats.skipped += shift.wrapping_sub(self.run.shift);
            if self.older.len() >= RUNS_MOST {
                self.older.pop_front();
            }
            self.older.push_back(self.run);
        }
        self.run = run;
    }

    fn run_of(&self, index: u64) -> Option<Run> {
        if index >= self.run.first {
            return Some(self.run);
        }
        self.older.iter().rev().find(|run| run.first <= index).copied()
    }

    /// Gives up what was sent before the last mark, and sets a new one.
    #[cold]
    fn age(&mut self, now: Nanos) {
        let old = self.mark.0;
        let from = self.acked.max(self.given_up);
        if old > from && self.drops_late {
            self.stats.dropped += old - from;
            self.given_up = old;
            self.resend.forget_before(old, NEVER);
            self.forget_runs(old);
            self.timeout = Timeout::new(now);
        }
        if self.in_flight() == 0 && self.window < PROBE {
            // A peer whose buffer was full has nothing to acknowledge when it has room again: ask it.
            self.window = PROBE;
        }
        self.mark = (self.next, now);
    }

    fn forget_runs(&mut self, before: u64) {
        while !self.older.is_empty() && self.older.get(1).unwrap_or(&self.run).first <= before {
            self.older.pop_front();
        }
    }

    fn take_ack(&mut self, ack: Ack, now: Nanos) -> Event {
        let Some(index) = self.index(ack.next) else {
            self.stats.refused_controls += 1;
            return Event::Quiet;
        };
        let new = index.saturating_sub(self.acked.max(self.begun.unwrap_or(0)));
        if new > 0 {
            if self.stats.acknowledged == 0 {
                self.rtt.guess(now.saturating_sub(self.timeout.since));
            }
            self.acked = index;
            self.stats.acknowledged += new;
            // A packet that was sent again cannot be acknowledged for it in much less than a round trip.
            let early = now.saturating_sub(self.rtt.smoothed() - self.rtt.smoothed() / 4);
            let needless = self.resend.forget_before(index, early);
            self.stats.needless += needless;
            self.disorder.note(needless, now);
            self.forget_runs(index);
            self.timeout = Timeout::new(now);
        }
        let Some(report) = ack.report else {
            self.stats.light_acks += 1;
            self.window = self.window.saturating_sub(new);
            return event(new);
        };
        self.stats.acks += 1;
        self.owed = Some(ack.number);
        if index < self.acked {
            // Overtaken by a newer one on the way: its number is to be answered, but what it says is old.
            return Event::Quiet;
        }
        self.window = report.available.into();
        self.rtt.adopt(report.rtt, report.rtt_variance);
        if self.rtt.is_measured() {
            self.stats.rtt.add(self.rtt.smoothed() / 1000);
        }
        self.stats.peer_packet_rate = report.packet_rate;
        self.stats.peer_byte_rate = report.byte_rate;
        self.stats.link_capacity = report.link_capacity;
        event(new)
    }

    fn take_nak(&mut self, losses: Losses<'_>, now: Nanos) {
        let sent = |sequence| self.index(sequence).is_some_and(|index| index < self.next);
        if !losses.ranges().all(|(_, last)| sent(last)) {
            self.stats.refused_controls += 1;
            return;
        }
        self.stats.naks += 1;
        self.lost_at = Some(now);
        let hold = self.hold();
        for (first, last) in losses.ranges() {
            let Some(last) = self.index(last).filter(|&last| last >= self.acked) else { continue };
            // What lies before the connection's first packet, or is acknowledged, is not missing.
            let first = self.index(first).unwrap_or(0).max(self.acked);
            if first < self.given_up {
                self.give_up(first, last.min(self.given_up - 1));
            }
            let first = first.max(self.given_up);
            if first <= last {
                self.stats.lost += self.resend.want(first, last, now, hold);
            }
        }
    }

    /// What follows on the packet that is sent again now, where a report that this answer was lost too may come too
    /// late to be answered.
    fn follow_up(&self, tries: u8, arrival: Nanos, now: Nanos) -> Then {
        let (round, last_chance) = (self.rtt.smoothed(), arrival.saturating_add(self.latency));
        let soon = now + (round / 8).clamp(MS, COPY_AFTER);
        let latest = last_chance.saturating_sub(self.rtt.variance());
        let heard = latest.min(now + self.rtt.beyond() + ACKNOWLEDGED_EVERY);
        let reported_late = now + round + self.rtt.nak_interval() > last_chance;
        match tries {
            _ if soon > last_chance => Then::Wait,
            // So young a connection that its receiver does not know yet how soon to repeat a report (libsrt: 300 ms).
            0 if !self.rtt.is_measured() => Then::Again(soon),
            // With time to hear that it has arrived, and then to be without: acknowledged packets are forgotten.
            0 if reported_late => Then::AgainIfMissing(heard.max(soon)),
            1 if reported_late => Then::Again(soon),
            _ => Then::Wait,
        }
    }

    fn give_up(&mut self, first: u64, last: u64) {
        let full = self.hopeless.len() >= HOPELESS_MOST;
        match self.hopeless.back_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            Some(&mut (begin, end)) if begin <= first && last <= end => {}
            // The peer asks again for what it still misses.
            _ if full => {}
            _ => self.hopeless.push_back((first, last)),
        }
    }

    /// Sends again what a peer that goes on living acknowledges in no time, although it has reported nothing.
    ///
    /// A peer that repeats its reports may have lost the last packet before a pause, which it cannot know; or the
    /// very first report, which libsrt repeats after 300 ms only. So it gets the first packet that it has not
    /// acknowledged, and no more: three times, ever more slowly. A peer that does not repeat its reports gets all that it has
    /// not acknowledged (UDT's timeout, libsrt's FASTREXMIT).
    fn answer_silence(&mut self, now: Nanos) {
        if now < self.silence_due() {
            return;
        }
        self.timeout = Timeout { since: now, count: self.timeout.count.saturating_add(1) };
        let first = self.acked.max(self.given_up);
        let last = if self.repeats_reports { first } else { self.next - 1 };
        self.resend.want(first, last, now, self.hold());
    }

    /// How long nothing is sent again that was: a report that comes sooner left before that could arrive.
    fn hold(&self) -> Nanos {
        self.rtt.smoothed().saturating_sub(self.rtt.variance()).max(LEAST_HOLD)
    }

    fn silence_due(&self) -> Nanos {
        let over = self.repeats_reports && self.timeout.count > PROBES;
        if self.in_flight() == 0 || over { NEVER } else { self.timeout.due(&self.rtt) }
    }
}

/// Packets of one difference between position and index, and of one key.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// Index of the first one.
    first: u64,
    /// Position less index.
    shift: u64,
    key: KeyFlag,
}

/// Counts from the last progress, or the last time that the packet it waits for was sent.
#[derive(Debug, Clone, Copy)]
struct Timeout {
    since: Nanos,
    count: u32,
}

impl Timeout {
    fn new(now: Nanos) -> Self {
        Self { since: now, count: 1 }
    }

    fn due(&self, rtt: &Rtt) -> Nanos {
        let step = rtt.beyond() + 20 * MS;
        self.since.saturating_add(step.saturating_mul(self.count.into())).saturating_add(10 * MS)
    }
}

fn event(new: u64) -> Event {
    if new > 0 { Event::Acknowledged(new) } else { Event::Quiet }
}

const MS: Nanos = 1_000_000;
/// A packet sent twice is lost twice where losses come in bursts: some distance helps.
const COPY_AFTER: Nanos = 5 * MS;
/// How often a receiver acknowledges in full (3.2.4).
const ACKNOWLEDGED_EVERY: Nanos = 10 * MS;
/// Shorter than any peer waits before it repeats a report.
const LEAST_HOLD: Nanos = 5 * MS;
/// Enough for the losses of a connection's first moments.
const CREDIT_FIRST: u32 = 64;
/// Beyond that losses would be two thirds and more: hopeless.
const CREDIT_EACH: u32 = 2;
/// An outage's worth: half a second of 100 Mb/s.
const CREDIT_MOST: u32 = 4096;
const HELD_FOR: Nanos = 5 * MS;
const LEAST_BURST: Nanos = 100 * MS;
/// Packets that are tried on a full peer, about once a second.
const PROBE: u64 = 16;
/// How often the first packet that is not acknowledged is sent without a report.
const PROBES: u32 = 3;
const RUNS_MOST: usize = 64;
const HOPELESS_MOST: usize = 64;
/// How long after a report the path counts as lossy.
const LOSSY: Nanos = 10_000 * MS;
const _: () = assert!(size_of::<Sender>() < 1000 && HEADER == 16);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::AckReport;
    use super::*;

    const INITIAL: Seq = Seq::new(Seq::COUNT - 3);
    const SECOND: Nanos = 1000 * MS;

    fn config() -> SenderConfig {
        SenderConfig {
            destination: SocketId(9),
            start: 0,
            initial: INITIAL,
            window: 8192,
            peer_latency: Duration::from_millis(120),
            peer_drops_late: true,
            peer_repeats_reports: true,
            idle_timeout: Duration::from_secs(5),
            bandwidth: Bandwidth::Unlimited,
        }
    }

    fn sender() -> Sender {
        sender_with(&config())
    }

    fn sender_with(config: &SenderConfig) -> Sender {
        let mut sender = Sender::new(config, 0);
        sender.rtt.adopt(40_000, 1000);
        sender
    }

    fn send(sender: &mut Sender, positions: std::ops::Range<u64>, now: Nanos) -> Vec<DataHeader> {
        positions.filter_map(|p| sender.header(p, now, 1316, KeyFlag::Clear, now)).collect()
    }

    fn ack(number: u32, index: u32, available: u32) -> Control<'static> {
        let report = AckReport { rtt: 40_000, rtt_variance: 1000, available, ..AckReport::default() };
        Control::Ack(Ack { number, next: INITIAL + index, report: Some(report) })
    }

    fn nak(sender: &mut Sender, ranges: &[(u32, u32)], now: Nanos) {
        let mut list = Vec::new();
        Losses::encode(ranges.iter().map(|&(a, b)| (INITIAL + a, INITIAL + b)), 1456, &mut list);
        assert_eq!(sender.handle(&Control::Nak(Losses::parse(&list).unwrap()), now), Event::Quiet);
    }

    fn again(sender: &mut Sender, now: Nanos) -> Vec<u64> {
        let stored = |_| Some(Stored { arrival: 0, length: 1316 });
        std::iter::from_fn(|| sender.next_retransmit(now, stored)).map(|r| r.position).collect()
    }

    fn controls(sender: &mut Sender, now: Nanos) -> Vec<Control<'static>> {
        std::iter::from_fn(|| sender.next_control(now)).map(|packet| packet.control).collect()
    }

    #[test]
    fn a_link_of_a_group_gives_each_position_its_number() {
        let mut sender = sender();
        let number = Seq::new(Seq::COUNT - 2);
        sender.pin(1000, number);
        let numbers = |headers: Vec<DataHeader>| -> Vec<i32> {
            headers.iter().map(|header| header.sequence.ahead_of(number)).collect()
        };
        assert_eq!(numbers(send(&mut sender, 1000..1002, 0)), [0, 1]);
        // What is skipped is a hole, which the peer may ask for; what was sent is not sent again as if it were new.
        assert_eq!(numbers(send(&mut sender, 1001..1006, MS)), [2, 3, 4, 5]);
        assert_eq!(numbers(send(&mut sender, 1009..1010, MS)), [9]);
        assert_eq!((sender.sent_to(), sender.stats().skipped, sender.in_flight()), (1010, 3, 10));
        let from = number.ahead_of(INITIAL) as u32;
        nak(&mut sender, &[(from + 6, from + 8)], 10 * MS);
        assert_eq!(again(&mut sender, 10 * MS), [1006, 1007, 1008]);
        // What was before this link's time is not its own.
        nak(&mut sender, &[(from.wrapping_sub(4), from.wrapping_sub(1))], 10 * MS);
        let drop = Control::DropRequest { message: 0, first: number - 4, last: number - 1 };
        assert_eq!(controls(&mut sender, 10 * MS), [drop]);
        assert_eq!(sender.handle(&ack(1, from + 2, 8192), 40 * MS), Event::Acknowledged(2));
        assert_eq!((sender.acked_to(), sender.silence(70 * MS)), (1002, 30 * MS));
    }

    #[test]
    fn a_link_that_takes_over_begins_where_it_is_told_to() {
        let mut sender = sender();
        sender.pin(1000, INITIAL);
        send(&mut sender, 1000..1003, 0);
        sender.resume(1500, SECOND);
        assert_eq!((sender.in_flight(), sender.silence(2 * SECOND)), (0, 0));
        let headers = send(&mut sender, 1500..1502, SECOND);
        assert_eq!(headers[0].sequence, INITIAL + 500);
        assert_eq!((sender.in_flight(), sender.acked_to()), (2, 1500));
        nak(&mut sender, &[(2, 499)], SECOND);
        let drop = Control::DropRequest { message: 0, first: INITIAL + 2, last: INITIAL + 499 };
        assert_eq!(controls(&mut sender, SECOND), [drop]);
        assert_eq!(sender.handle(&ack(1, 502, 8192), SECOND), Event::Acknowledged(2));
        controls(&mut sender, SECOND);
        sender.resume(1400, SECOND);
        assert_eq!(sender.sent_to(), 1502, "it never goes back");
        sender.rest();
        assert_eq!(controls(&mut sender, SECOND), [Control::KeepAlive]);
        assert_eq!(controls(&mut sender, SECOND), []);
    }

    #[test]
    fn numbers_follow_each_other_whatever_is_skipped() {
        let mut sender = sender();
        let mut headers = send(&mut sender, 70..72, 5 * MS);
        headers.extend(send(&mut sender, 90..93, 7 * MS));
        let seen: Vec<_> =
            headers.iter().map(|h| (h.sequence.ahead_of(INITIAL), h.message, h.timestamp)).collect();
        assert_eq!(seen, [(0, 1, 5000), (1, 2, 5000), (2, 3, 7000), (3, 4, 7000), (4, 5, 7000)]);
        assert_eq!(headers[3].sequence, Seq::new(0));
        assert_eq!(sender.stats().skipped, 18);
        nak(&mut sender, &[(1, 2), (4, 4)], 50 * MS);
        assert_eq!(again(&mut sender, 50 * MS), [71, 90, 92]);
        assert_eq!(sender.oldest_position(), Some(70));
        assert_eq!(sender.handle(&ack(1, 2, 100), 60 * MS), Event::Acknowledged(2));
        assert_eq!(sender.oldest_position(), Some(90));
        assert!(sender.older.is_empty(), "the run before the skip is forgotten");
    }

    #[test]
    fn message_and_sequence_numbers_wrap_apart() {
        let mut sender = sender();
        for next in [u64::from(MESSAGE_MOST) - 1, (1 << 31) * 3 + 1] {
            (sender.next, sender.acked, sender.run.first) = (next, next, next);
            let headers = send(&mut sender, next..next + 4, 0);
            for (index, header) in (next..).zip(&headers) {
                assert_eq!(u64::from(header.message), index % u64::from(MESSAGE_MOST) + 1);
                assert_eq!(header.sequence, INITIAL + (index % (1 << 31)) as u32);
            }
            assert_eq!(headers.len(), 4);
        }
    }

    #[test]
    fn a_full_acknowledgement_is_answered_and_gives_the_window() {
        let mut sender = sender();
        send(&mut sender, 0..10, 0);
        assert_eq!(sender.handle(&ack(7, 6, 5), 40 * MS), Event::Acknowledged(6));
        assert_eq!(sender.next_due(), 0);
        assert_eq!(controls(&mut sender, 40 * MS), [Control::AckAck { number: 7 }]);
        assert_eq!(sender.handle(&ack(8, 6, 5), 50 * MS), Event::Quiet);
        assert_eq!(send(&mut sender, 10..14, 50 * MS).len(), 1, "4 in flight of 5");
        assert_eq!(sender.stats().refused_by_window, 3);
        let light = Control::Ack(Ack { number: 0, next: INITIAL + 8, report: None });
        assert_eq!(sender.handle(&light, 51 * MS), Event::Acknowledged(2));
        assert_eq!(send(&mut sender, 14..16, 51 * MS).len(), 0, "a light one makes no room");
        sender.handle(&ack(9, 11, 5), 60 * MS);
        assert_eq!(send(&mut sender, 16..18, 60 * MS).len(), 2);
        assert_eq!(sender.stats().skipped, 5);
        assert_eq!(sender.rtt().smoothed(), 40 * MS);
    }

    #[test]
    fn a_round_trip_that_cannot_be_is_not_told() {
        let mut sender = sender();
        send(&mut sender, 0..10, 0);
        let report =
            AckReport { rtt: u32::MAX, rtt_variance: u32::MAX, available: 9, ..AckReport::default() };
        let _ = sender.handle(&Control::Ack(Ack { number: 1, next: INITIAL + 1, report: Some(report) }), MS);
        assert_eq!(sender.stats().rtt.latest(), Some(60_000_000), "a minute");
    }

    #[test]
    fn a_full_peer_is_asked_again_after_a_while() {
        let mut sender = sender();
        send(&mut sender, 0..10, 0);
        sender.handle(&ack(1, 10, 0), 40 * MS);
        assert_eq!(send(&mut sender, 10..400, 1000 * MS).len(), 0);
        assert_eq!(send(&mut sender, 400..500, 2100 * MS).len(), PROBE as usize);
    }

    #[test]
    fn what_was_never_sent_is_neither_lost_nor_acknowledged() {
        let mut sender = sender();
        send(&mut sender, 0..10, 0);
        nak(&mut sender, &[(3, 3), (9, 10)], MS);
        nak(&mut sender, &[(20, 30)], MS);
        sender.handle(&ack(1, 11, 5), MS);
        sender.handle(&ack(2, 1 << 30, 5), MS);
        assert_eq!(
            sender.handle(&Control::Ack(Ack { number: 0, next: INITIAL - 1, report: None }), MS),
            Event::Quiet
        );
        assert_eq!(sender.stats().refused_controls, 5);
        assert_eq!((again(&mut sender, MS), controls(&mut sender, MS)), (vec![], vec![]));
        assert_eq!((sender.in_flight(), sender.stats().lost, sender.window), (10, 0, 8192));
    }

    #[test]
    fn what_is_acknowledged_or_from_before_the_start_is_not_sent_again() {
        let mut sender = sender();
        send(&mut sender, 0..10, 0);
        sender.handle(&ack(1, 6, 100), MS);
        let mut list = Vec::new();
        Losses::encode([(INITIAL - 5, INITIAL + 7)], 1456, &mut list);
        sender.handle(&Control::Nak(Losses::parse(&list).unwrap()), 2 * MS);
        assert_eq!(again(&mut sender, 2 * MS), [6, 7]);
    }

    #[test]
    fn what_the_ring_lost_or_is_too_old_is_given_up_and_the_peer_told() {
        let mut sender = sender();
        send(&mut sender, 0..10, 0);
        nak(&mut sender, &[(2, 6)], 50 * MS);
        let stored = |position| (position != 4).then_some(Stored { arrival: 0, length: 1316 });
        let sent: Vec<_> =
            std::iter::from_fn(|| sender.next_retransmit(50 * MS, stored)).map(|r| r.position).collect();
        assert_eq!(sent, [2, 3, 5, 6]);
        let told = Control::DropRequest { message: 0, first: INITIAL + 4, last: INITIAL + 4 };
        assert_eq!(controls(&mut sender, 50 * MS), [told]);
        nak(&mut sender, &[(2, 3), (8, 9)], 1100 * MS);
        assert_eq!(again(&mut sender, 1100 * MS), [0u64; 0]);
        // The first one was not acknowledged for so long that it would have been tried.
        let ranges = [(0, 0), (2, 3), (8, 9)];
        let told =
            ranges.map(|(a, b)| Control::DropRequest { message: 0, first: INITIAL + a, last: INITIAL + b });
        assert_eq!(controls(&mut sender, 1100 * MS), told);
        assert_eq!(sender.stats().dropped, 6);
    }

    #[test]
    fn what_nobody_acknowledges_is_not_sent_for_ever() {
        let mut sender = sender_with(&SenderConfig { window: 100, ..config() });
        let (mut sent, mut probes) = (0, 0);
        for ms in 0..5000 {
            sent += send(&mut sender, ms..ms + 1, ms * MS).len();
            assert!(sender.in_flight() <= 100);
            probes += again(&mut sender, ms * MS).len();
        }
        // Each time that the window's packets have become too old, others may go.
        assert!((300..=500).contains(&sent), "{sent}");
        assert!(probes <= 15, "silence is no report of losses: {probes}");
        assert!(!sender.is_peer_lost(5000 * MS) && sender.is_peer_lost(5000 * MS + 1));
    }

    #[test]
    fn silence_of_a_peer_that_never_repeats_a_report_is_answered() {
        let mut sender = sender_with(&SenderConfig { peer_repeats_reports: false, ..config() });
        send(&mut sender, 0..5, 0);
        sender.handle(&ack(1, 2, 100), 40 * MS);
        assert_eq!(controls(&mut sender, 40 * MS), [Control::AckAck { number: 1 }]);
        // A round trip of 44 ms with its deviations, twice 10 ms, and 10 ms.
        assert_eq!(sender.next_due(), 114 * MS);
        assert_eq!(again(&mut sender, 114 * MS), [2, 3, 4]);
        assert_eq!(sender.next_due(), 252 * MS, "ever more slowly");
        assert_eq!(again(&mut sender, 251 * MS), [0u64; 0]);
        assert_eq!(again(&mut sender, 252 * MS), [2, 3, 4]);
    }

    #[test]
    fn the_first_packet_that_is_not_acknowledged_is_tried_again_a_few_times() {
        let mut sender = sender();
        send(&mut sender, 0..5, 0);
        sender.handle(&ack(1, 2, 100), 40 * MS);
        controls(&mut sender, 40 * MS);
        assert_eq!(sender.next_due(), 114 * MS);
        let mut sent = Vec::new();
        for ms in 40..900 {
            sent.extend(again(&mut sender, ms * MS).into_iter().map(|position| (ms, position)));
        }
        assert_eq!(sent, [(114, 2), (114 + 138, 2), (252 + 202, 2)]);
        sender.handle(&ack(2, 3, 100), 900 * MS);
        assert_eq!(again(&mut sender, 974 * MS), [3], "what follows begins anew");
    }

    #[test]
    fn a_second_answer_without_time_for_a_third_is_sent_twice() {
        let mut sender = sender();
        send(&mut sender, 0..3, 0);
        sender.handle(&ack(1, 1, 100), 40 * MS);
        nak(&mut sender, &[(1, 1)], 45 * MS);
        assert_eq!(again(&mut sender, 45 * MS), [1]);
        nak(&mut sender, &[(1, 1)], 66 * MS);
        assert_eq!(again(&mut sender, 66 * MS), [0u64; 0], "the first answer is still on its way");
        nak(&mut sender, &[(1, 1)], 87 * MS);
        assert_eq!(again(&mut sender, 87 * MS), [1]);
        controls(&mut sender, 87 * MS);
        assert_eq!(sender.next_due(), 92 * MS);
        assert_eq!(again(&mut sender, 92 * MS), [1]);
        assert_eq!(again(&mut sender, 150 * MS), [0u64; 0]);
    }

    /// What is sent again of packets 1 and 2, of 120 ms, after a first answer at 60 ms: a report that it was lost
    /// may come as late as 122 ms. Before it can have arrived, at 80 ms, `missing` is reported.
    fn answered_late(missing: (u32, u32), then: impl FnOnce(&mut Sender)) -> Vec<u64> {
        let mut sender = sender();
        send(&mut sender, 0..3, 0);
        sender.handle(&ack(1, 1, 100), 40 * MS);
        nak(&mut sender, &[(1, 2)], 60 * MS);
        assert_eq!(again(&mut sender, 60 * MS), [1, 2]);
        nak(&mut sender, &[missing], 80 * MS);
        controls(&mut sender, 80 * MS);
        then(&mut sender);
        assert_eq!(again(&mut sender, 113 * MS), [0u64; 0], "it is awaited that they have arrived");
        let mut sent = again(&mut sender, 114 * MS);
        sent.extend(again(&mut sender, 150 * MS));
        sent
    }

    #[test]
    fn an_answer_whose_loss_would_be_reported_too_late_is_repeated() {
        let due = |sender: &mut Sender| assert_eq!(sender.next_due(), 114 * MS);
        assert_eq!(
            answered_late((1, 2), due),
            [1, 2, 1, 2],
            "twice, like any second answer without time for a third"
        );
        assert_eq!(answered_late((1, 1), due), [1, 1], "what is not reported again was only late");
        let arrived = |sender: &mut Sender| {
            sender.handle(&ack(2, 2, 100), 104 * MS);
        };
        assert_eq!(answered_late((1, 2), arrived), [2, 2]);
        let reported = |sender: &mut Sender| {
            nak(sender, &[(1, 1)], 102 * MS);
            assert_eq!(again(sender, 102 * MS), [1], "at once, if the report comes after all");
            assert_eq!(again(sender, 107 * MS), [1]);
        };
        assert_eq!(answered_late((1, 2), reported), [2, 2]);
    }

    #[test]
    fn a_limit_holds_back_what_is_sent_again_before_what_is_new() {
        // 100 kB/s; a burst of 120 ms is 12 kB, half of it for what is new.
        let bandwidth = Bandwidth::Fixed(100_000);
        let mut sender = sender_with(&SenderConfig { bandwidth, ..config() });
        assert_eq!(send(&mut sender, 0..3, 0).len(), 3);
        nak(&mut sender, &[(0, 2)], 0);
        let first = again(&mut sender, 0).len();
        assert_eq!(first, 2);
        assert_eq!(send(&mut sender, 3..20, 0).len(), 4);
        assert_eq!(sender.stats().refused_by_bandwidth, 13);
        assert_eq!(again(&mut sender, 20 * MS).len(), 0);
        assert_eq!(again(&mut sender, 70 * MS), [2], "it waited");
    }

    #[test]
    fn a_peer_that_cries_wolf_gets_three_times_its_stream_at_most() {
        let mut sender = sender();
        sender.rtt.adopt(0, 0);
        let (mut new, mut sent) = (0, 0);
        for ms in 0..20_000 {
            new += send(&mut sender, ms..ms + 1, ms * MS).len();
            let oldest = (new as u32).saturating_sub(900);
            nak(&mut sender, &[(oldest, new as u32 - 1)], ms * MS);
            let arrival = |position: u64| Some(Stored { arrival: position * MS, length: 1316 });
            sent += std::iter::from_fn(|| sender.next_retransmit(ms * MS, arrival)).count();
            controls(&mut sender, ms * MS);
            assert!(sender.next_due() > ms * MS);
        }
        assert!(sent <= 2 * new + CREDIT_FIRST as usize && sent > new, "{sent} of {new}");
    }

    proptest! {
        /// Whatever is reported and acknowledged: a packet sent again is one in flight, with the header of its first
        /// sending, and not within a round trip unless as a copy.
        #[test]
        fn retransmits_repeat_the_first_sending(
            steps in prop::collection::vec((0u8..8, 0u32..40, 0u32..6, 0u64..30), 1..200),
        ) {
            let mut sender = sender();
            let mut sent: Vec<(u64, DataHeader)> = Vec::new();
            let (mut position, mut now, mut acked, mut key) = (1000, 0, 0, KeyFlag::Clear);
            for (what, a, b, step) in steps {
                now += step * MS;
                match what {
                    0..4 => {
                        position += u64::from(a / 30);
                        if a % 8 == 0 {
                            key = if key == KeyFlag::Even { KeyFlag::Odd } else { KeyFlag::Even };
                        }
                        for _ in 0..b {
                            if let Some(header) = sender.header(position, now, 1316, key, now) {
                                sent.push((position, header));
                            }
                            position += 1;
                        }
                    }
                    4 => {
                        acked = (acked + a / 4).min(sent.len() as u32);
                        sender.handle(&ack(1, acked, 8192), now);
                    }
                    5..7 => {
                        let first = (sent.len() as u32).saturating_sub(a);
                        nak(&mut sender, &[(first, first + b)], now);
                    }
                    _ => {}
                }
                prop_assert_eq!(sender.next_sequence(), INITIAL + sent.len() as u32);
                let arrivals = |position: u64| {
                    let at = sent.iter().position(|s| s.0 == position)?;
                    Some(Stored { arrival: u64::from(sent[at].1.timestamp) * 1000, length: 1316 })
                };
                while let Some(again) = sender.next_retransmit(now, arrivals) {
                    let index = again.header.sequence.ahead_of(INITIAL) as usize;
                    prop_assert!(index >= acked as usize);
                    let (position, first) = sent[index];
                    prop_assert_eq!(again.position, position);
                    prop_assert_eq!(again.header, DataHeader { retransmitted: true, ..first });
                }
                controls(&mut sender, now);
                prop_assert!(sender.next_due() > now || sender.is_peer_lost(now));
                prop_assert!(sender.in_flight() <= sent.len() as u64 - u64::from(acked));
            }
        }
    }
}
