//! A sender and a receiver that keep the timing rules of libsrt 1.5 (facts of its live mode with its defaults), to
//! measure ours against and to let ours talk to. Numbers do not wrap here.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Sends a packet as it comes, and again what is reported, unless that was done less than a round trip less four
/// deviations ago.
pub(super) struct LibSender {
    initial: Seq,
    cursor: u64,
    acked: u64,
    lost: BTreeSet<u64>,
    again: BTreeMap<u64, Nanos>,
    rtt: Rtt,
    answered: Nanos,
    sent: Nanos,
}

impl LibSender {
    pub(super) fn new(initial: Seq) -> Self {
        let (lost, again) = (BTreeSet::new(), BTreeMap::new());
        Self { initial, cursor: 0, acked: 0, lost, again, rtt: Rtt::default(), answered: 0, sent: 0 }
    }

    fn header(&self, index: u64, arrival: Nanos, retransmitted: bool) -> DataHeader {
        DataHeader {
            sequence: self.initial + index as u32,
            boundary: Boundary::Solo,
            in_order: false,
            key: KeyFlag::Clear,
            retransmitted,
            message: index as u32 + 1,
            timestamp: ((arrival - START) / 1000) as u32,
            destination: SocketId(2),
        }
    }
}

impl Transmit for LibSender {
    fn turn(&mut self, ring: &Ring, inbox: &mut Vec<Vec<u8>>, now: Nanos, out: &mut Vec<Vec<u8>>) {
        let control = |control| {
            let mut bytes = Vec::new();
            let timestamp = ((now - START) / 1000) as u32;
            ControlPacket { timestamp, destination: SocketId(2), control }.write(&mut bytes);
            bytes
        };
        for bytes in inbox.drain(..) {
            let Ok(Packet::Control(packet)) = Packet::parse(&bytes) else { panic!("not a control packet") };
            match packet.control {
                Control::Ack(ack) => {
                    self.acked = self.acked.max(ack.next.ahead_of(self.initial) as u64);
                    self.lost = self.lost.split_off(&self.acked);
                    self.again = self.again.split_off(&self.acked);
                    if let Some(report) = ack.report {
                        self.rtt.adopt(report.rtt, report.rtt_variance);
                        if now > self.answered + 10 * MS {
                            self.answered = now;
                            out.push(control(Control::AckAck { number: ack.number }));
                        }
                    }
                }
                Control::Nak(losses) => {
                    for (first, last) in losses.ranges() {
                        let (first, last) = (first.ahead_of(self.initial), last.ahead_of(self.initial));
                        assert!((last as u64) < self.cursor, "a report of what was never sent");
                        self.lost.extend((first as u64..=last as u64).filter(|&i| i >= self.acked));
                    }
                }
                _ => {}
            }
        }
        while let Some(arrival) = ring.arrival(self.cursor) {
            out.push(datagram(self.header(self.cursor, arrival, false), self.cursor));
            self.cursor += 1;
            self.sent = now;
        }
        let since = (now + 4 * self.rtt.variance()).saturating_sub(self.rtt.smoothed());
        while let Some(index) = self.lost.pop_first() {
            if self.again.get(&index).is_none_or(|&at| at < since)
                && let Some(arrival) = ring.arrival(index)
            {
                self.again.insert(index, now);
                out.push(datagram(self.header(index, arrival, true), index));
            }
        }
        if now > self.sent + SECOND {
            self.sent = now;
            out.push(control(Control::KeepAlive));
        }
    }
}

/// Reports a gap at once, and all that is missing every half round trip but not below 20 ms; acknowledges every
/// 10 ms; goes on without what is missing when the packet behind it is due.
pub(super) struct LibReceiver {
    initial: Seq,
    latency: Nanos,
    way: Nanos,
    /// Index that leaves next, and the one behind the last that arrived.
    first: u64,
    end: u64,
    held: BTreeMap<u64, (u64, Nanos)>,
    lost: BTreeSet<u64>,
    rtt: Rtt,
    next_nak: Nanos,
    interval: Nanos,
    next_ack: Nanos,
    ack: (u32, u64, Nanos),
    confirmed: u64,
    open: BTreeMap<u32, (u64, Nanos)>,
}

impl LibReceiver {
    pub(super) fn new(latency: Nanos, initial: Seq, way: Nanos) -> Self {
        Self {
            initial,
            latency,
            way,
            first: 0,
            end: 0,
            held: BTreeMap::new(),
            lost: BTreeSet::new(),
            rtt: Rtt::default(),
            next_nak: 0,
            interval: 300 * MS,
            next_ack: 0,
            ack: (0, 0, 0),
            confirmed: 0,
            open: BTreeMap::new(),
        }
    }

    fn control(control: Control<'_>, now: Nanos) -> Vec<u8> {
        let mut bytes = Vec::new();
        let timestamp = ((now - 7 * SECOND) / 1000) as u32;
        ControlPacket { timestamp, destination: SocketId(1), control }.write(&mut bytes);
        bytes
    }

    fn report(&mut self, lost: impl IntoIterator<Item = u64>, now: Nanos, out: &mut Vec<Vec<u8>>) {
        let mut ranges: Vec<(Seq, Seq)> = Vec::new();
        for sequence in lost.into_iter().map(|index| self.initial + index as u32) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == sequence => *last = sequence,
                _ => ranges.push((sequence, sequence)),
            }
        }
        let mut list = Vec::new();
        Losses::encode(ranges, 1456, &mut list);
        out.push(Self::control(Control::Nak(Losses::parse(&list).unwrap()), now));
        self.interval = self.rtt.nak_interval();
    }
}

impl Receive for LibReceiver {
    fn turn(
        &mut self,
        inbox: &mut Vec<Vec<u8>>,
        now: Nanos,
        out: &mut Vec<Vec<u8>>,
        got: &mut Vec<(u64, Nanos)>,
    ) {
        for bytes in inbox.drain(..) {
            match Packet::parse(&bytes).unwrap() {
                Packet::Data(header, payload) => {
                    let index = header.sequence.ahead_of(self.initial) as u64;
                    if index < self.first {
                        continue;
                    }
                    let due = 7 * SECOND + self.way + u64::from(header.timestamp) * 1000 + self.latency;
                    self.held.entry(index).or_insert((position_of(payload), due));
                    if index > self.end {
                        self.lost.extend(self.end..index);
                        self.report(self.end..index, now, out);
                    }
                    self.end = self.end.max(index + 1);
                    self.lost.remove(&index);
                }
                Packet::Control(packet) => match packet.control {
                    Control::AckAck { number } => {
                        if let Some((said, at)) = self.open.remove(&number) {
                            self.rtt.measure(now - at);
                            self.confirmed = self.confirmed.max(said);
                        }
                        self.open = self.open.split_off(&number);
                    }
                    Control::DropRequest { first, last, .. } => {
                        let (first, last) = (first.ahead_of(self.initial), last.ahead_of(self.initial));
                        self.lost.retain(|i| !(first as u64..=last as u64).contains(i));
                    }
                    _ => {}
                },
            }
        }
        if now > self.next_ack {
            self.next_ack = now + 10 * MS;
            let mut next = self.first;
            while self.held.contains_key(&next) {
                next += 1;
            }
            let (number, said, at) = self.ack;
            if next != self.confirmed && (next > said || now - at >= self.rtt.beyond()) {
                let number = number + 1;
                self.ack = (number, next, now);
                self.open.insert(number, (next, now));
                let (rtt, variance) = (self.rtt.smoothed() / 1000, self.rtt.variance() / 1000);
                let available = 8192 - (next - self.first) as u32;
                let (rtt, rtt_variance) = (rtt as u32, variance as u32);
                let report = AckReport { rtt, rtt_variance, available, ..AckReport::default() };
                let ack = Ack { number, next: self.initial + next as u32, report: Some(report) };
                out.push(Self::control(Control::Ack(ack), now));
            }
        }
        if self.lost.is_empty() {
            self.next_nak = now + self.interval;
        } else if now > self.next_nak {
            let lost: Vec<u64> = self.lost.iter().copied().collect();
            self.report(lost, now, out);
            self.next_nak = now + self.interval;
        }
        while let Some(entry) = self.held.first_entry()
            && entry.get().1 <= now
        {
            let (index, delivered) = entry.remove_entry();
            self.first = index + 1;
            self.lost = self.lost.split_off(&self.first);
            got.push(delivered);
        }
    }
}
