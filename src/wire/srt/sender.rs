//! Positions of a ring enter, the headers to send their payload with leave; acknowledgements and loss reports
//! enter, what to send again leaves. Never holds payload.

use std::collections::VecDeque;
use std::time::Duration;

use super::link::nanos;
use super::rate::Cap;
use super::resend::{NEVER, Resend};
use super::{
    Ack, Bandwidth, Boundary, Control, ControlPacket, DataHeader, Event, HEADER, KeyFlag, Link, Losses,
    MESSAGE_MOST, Nanos, Rtt, SenderStats, Seq, SocketId,
};

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
    /// When silence of a peer that does not repeat its reports is answered.
    timeout: Option<Timeout>,
    disorder: Disorder,
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
            hopeless: VecDeque::new(),
            owed: None,
            rtt: Rtt::default(),
            cap: Cap::new(config.bandwidth, latency.max(LEAST_BURST), now),
            latency,
            // libsrt: the latency or a second, and twice the interval of acknowledgements.
            old: latency.max(1000 * MS).saturating_add(20 * MS),
            drops_late: config.peer_drops_late,
            timeout: (!config.peer_repeats_reports).then_some(Timeout { since: now, count: 1 }),
            disorder: Disorder::default(),
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
        if self.in_flight() >= self.window {
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
        self.next += 1;
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
            if !self.cap.take_again(packet.length, now) {
                return None;
            }
            self.resend.sent(index, now, self.copy_at(tries, packet.arrival, now));
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
        self.answer_silence(now);
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
        let timeout = self.timeout.filter(|_| self.in_flight() > 0);
        let timeout = timeout.map_or(NEVER, |timeout| timeout.due(&self.rtt));
        self.link.due().min(self.resend.soonest()).min(timeout)
    }

    /// Whether nothing was heard of the peer for longer than the connection may be silent.
    pub fn is_peer_lost(&self, now: Nanos) -> bool {
        self.link.is_peer_lost(now)
    }

    /// Whether the path seems to change the order of packets: the peer reports packets missing that arrive all
    /// the same. Such a path wants packets sent one by one rather than in batches.
    pub fn is_disordered(&self) -> bool {
        self.disorder.score >= DISORDERED
    }

    /// Packets sent that are neither acknowledged nor too old.
    #[inline]
    pub fn in_flight(&self) -> u64 {
        self.next - self.acked.max(self.given_up)
    }

    /// Position of the oldest packet that is not acknowledged; `None` when all are.
    pub fn oldest_position(&self) -> Option<u64> {
        let run = self.run_of(self.acked).filter(|_| self.acked < self.next)?;
        Some(self.acked.wrapping_add(run.shift))
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
        let new = index.saturating_sub(self.acked);
        if new > 0 {
            self.acked = index;
            self.stats.acknowledged += new;
            // A packet that was sent again cannot be acknowledged for it in much less than a round trip.
            let early = now.saturating_sub(self.rtt.smoothed() - self.rtt.smoothed() / 4);
            let needless = self.resend.forget_before(index, early);
            self.stats.needless += needless;
            self.disorder.note(needless, now);
            self.forget_runs(index);
            if let Some(timeout) = &mut self.timeout {
                *timeout = Timeout { since: now, count: 1 };
            }
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
            self.stats.rtt.add(report.rtt.into());
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
        // A report less than a round trip after the packet was sent again left before that could arrive.
        let hold = self.rtt.smoothed().saturating_sub(self.rtt.variance());
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

    /// When the packet that is sent now for the `tries`+1st time should be sent once more without waiting for a
    /// report: it was lost again, and a third report could not be answered in time.
    fn copy_at(&self, tries: u8, arrival: Nanos, now: Nanos) -> Option<Nanos> {
        let last_chance = arrival.saturating_add(self.latency);
        let next_chance = now + self.rtt.smoothed() + self.rtt.nak_interval() / 2;
        let copy = now + (self.rtt.smoothed() / 8).min(COPY_AFTER);
        (tries == 1 && next_chance > last_chance && copy <= last_chance).then_some(copy)
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

    /// Without reports, what is not acknowledged in time is taken for lost (UDT's timeout; libsrt calls it
    /// FASTREXMIT).
    fn answer_silence(&mut self, now: Nanos) {
        let Some(timeout) = &mut self.timeout else { return };
        let first = self.acked.max(self.given_up);
        if first == self.next {
            *timeout = Timeout { since: now, count: 1 };
        } else if now > timeout.due(&self.rtt) {
            timeout.count += 1;
            let hold = self.rtt.smoothed();
            self.stats.lost += self.resend.want(first, self.next - 1, now, hold);
        }
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

#[derive(Debug, Clone, Copy)]
struct Timeout {
    since: Nanos,
    count: u32,
}

impl Timeout {
    fn due(&self, rtt: &Rtt) -> Nanos {
        let step = rtt.beyond() + 20 * MS;
        self.since.saturating_add(step.saturating_mul(self.count.into())).saturating_add(10 * MS)
    }
}

/// Grows with every packet that was sent again needlessly, shrinks with time.
#[derive(Debug, Default)]
struct Disorder {
    score: u32,
    since: Nanos,
}

impl Disorder {
    fn note(&mut self, needless: u64, now: Nanos) {
        let passed = now.saturating_sub(self.since) / (100 * MS);
        if passed > 0 {
            self.score = self.score.saturating_sub(passed.min(u32::MAX.into()) as u32);
            self.since = now;
        }
        self.score = (self.score + 8 * needless.min(100) as u32).min(DISORDER_MOST);
    }
}

fn event(new: u64) -> Event {
    if new > 0 { Event::Acknowledged(new) } else { Event::Quiet }
}

const MS: Nanos = 1_000_000;
/// A packet sent twice is lost twice where losses come in bursts: some distance helps.
const COPY_AFTER: Nanos = 5 * MS;
const LEAST_BURST: Nanos = 100 * MS;
/// Packets that are tried on a full peer, about once a second.
const PROBE: u64 = 16;
const RUNS_MOST: usize = 64;
const HOPELESS_MOST: usize = 64;
const DISORDERED: u32 = 24;
/// Ten seconds until it is forgotten.
const DISORDER_MOST: u32 = 100 + DISORDERED;
const _: () = assert!(size_of::<Sender>() < 1000 && HEADER == 16);
