//! RTP packets enter as the network delivered them and leave in the order of the sender. Holds a
//! bounded number of packets for a bounded time; never copies a packet that is in order.

use std::collections::VecDeque;
use std::time::Duration;

use super::header::{Header, MP2T, parse};

/// A packet in the order of the sender.
#[derive(Debug, Clone, Copy)]
pub struct InOrder<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: &'a [u8],
    /// Packets before it are missing, or its source began anew with it.
    pub gap: bool,
}

/// The reorder window of one RTP input.
///
/// A packet that is next in sequence leaves at once. One from beyond a gap waits until the gap closes, until
/// `window` has passed since the gap was found, or until more is held than the bounds allow (`max_packets`, at
/// most 1024, and 2 MB); what is missing then is counted lost and never waited for again.
///
/// A sequence number more than 1000 away from the expected one, or another SSRC, is not believed at once
/// (RFC 3550, A.1): such a packet is set aside, and when the very next one from outside continues it, both leave
/// and their source takes over. A packet of the current source in between throws the one set aside away. So a
/// stray packet of a stranger changes nothing, a sender that starts anew loses nothing, and neither invents a
/// loss. Packets just behind the expected one are late or duplicates, unless nothing was in order for half a
/// second: then they are treated like a jump, for a sender may start anew a little behind where it ended.
///
/// The first packet of all is believed; what was sent before it counts as late.
#[derive(Debug)]
pub struct Reorder {
    window: u64,
    max_packets: usize,
    /// Payload types that are taken, one bit each.
    types: u128,
    /// The next packet that leaves has a gap before it.
    gap: bool,
    source: Option<Source>,
    /// Place `i` belongs to sequence `next + i`. Empty, or the first is missing and the last is there.
    held: VecDeque<Option<Held>>,
    held_bytes: usize,
    /// When the gap in front of `held` was found: the arrival of the earliest packet beyond it.
    gap_since: u64,
    candidate: Option<Candidate>,
    counters: Counters,
}

/// What a [`Reorder`] saw so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets whose payload left.
    pub delivered: u64,
    /// Packets that were missing when their time was up.
    pub lost: u64,
    /// Packets that arrived after a later one and were put back in their place.
    pub reordered: u64,
    /// Packets that arrived twice, after they were counted lost, or from a stranger that did not go on.
    pub discarded: u64,
    /// How often another SSRC took over.
    pub ssrc_changes: u64,
    /// How often the sequence of the same SSRC began anew somewhere else.
    pub jumps: u64,
    /// Packets with another payload type, ignored.
    pub foreign_types: u64,
    /// Datagrams that are not RTP.
    pub malformed: u64,
}

#[derive(Debug)]
struct Source {
    ssrc: u32,
    /// The sequence number expected next.
    next: u16,
    /// When a packet last moved things on.
    last_accepted: u64,
}

#[derive(Debug)]
struct Held {
    header: Header,
    payload: Vec<u8>,
    arrived: u64,
}

/// The last packet from outside the current source: the next one decides.
#[derive(Debug)]
struct Candidate {
    header: Header,
    payload: Vec<u8>,
}

impl Reorder {
    /// A window for MP2T (payload type 33) that waits `window` for a gap to close (0 = never) and holds at most
    /// `max_packets` (0 to 1024).
    pub fn new(window: Duration, max_packets: usize) -> Self {
        Self::of_types(1 << MP2T, window, max_packets)
    }

    /// Like [`Self::new`] for other payload types: bit `n` of `types` takes those with number `n`.
    pub fn of_types(types: u128, window: Duration, max_packets: usize) -> Self {
        Self {
            types,
            gap: false,
            window: window.as_nanos().try_into().unwrap_or(u64::MAX),
            max_packets: if window.is_zero() { 0 } else { max_packets.min(MAX_PACKETS) },
            source: None,
            held: VecDeque::new(),
            held_bytes: 0,
            gap_since: 0,
            candidate: None,
            counters: Counters::default(),
        }
    }

    /// Takes one datagram that arrived at `now` (nanoseconds) and emits every packet that is due. A gap whose
    /// time is up is given up after this packet had its chance to close it.
    pub fn push(&mut self, packet: &[u8], now: u64, emit: &mut impl FnMut(InOrder<'_>)) {
        self.take(packet, now, emit);
        self.expire(now, emit);
    }

    /// Gives up every gap whose time is up at `now` (nanoseconds) and emits what waited behind it.
    pub fn expire(&mut self, now: u64, emit: &mut impl FnMut(InOrder<'_>)) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.give_up(emit);
        }
    }

    /// When [`Self::expire`] has something to do, in nanoseconds; `None` while nothing is held.
    pub fn deadline(&self) -> Option<u64> {
        (!self.held.is_empty()).then(|| self.gap_since.saturating_add(self.window))
    }

    /// What was seen so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn take(&mut self, packet: &[u8], now: u64, emit: &mut impl FnMut(InOrder<'_>)) {
        let Ok((header, payload)) = parse(packet) else {
            self.counters.malformed += 1;
            return;
        };
        if self.types >> header.payload_type & 1 == 0 {
            self.counters.foreign_types += 1;
            return;
        }
        let source = self.source.get_or_insert(Source {
            ssrc: header.ssrc,
            next: header.sequence,
            last_accepted: now,
        });
        let ahead = header.sequence.wrapping_sub(source.next);
        let behind = ahead.wrapping_neg();
        let silent = now.saturating_sub(source.last_accepted) > SILENCE;
        if header.ssrc != source.ssrc || (ahead > FAR && (behind > FAR || silent)) {
            self.weigh(&header, payload, now, emit);
        } else if ahead > FAR {
            self.counters.discarded += 1;
        } else {
            source.last_accepted = now;
            self.counters.discarded += u64::from(self.candidate.take().is_some());
            self.accept(header, payload, now, emit);
        }
    }

    /// A packet of the current source that is expected now or soon.
    fn accept(&mut self, header: Header, payload: &[u8], now: u64, emit: &mut impl FnMut(InOrder<'_>)) {
        loop {
            let Some(source) = &mut self.source else { return };
            let ahead = usize::from(header.sequence.wrapping_sub(source.next));
            if ahead == 0 {
                source.next = source.next.wrapping_add(1);
                self.counters.reordered += u64::from(self.held.pop_front().is_some());
                self.deliver(header, payload, emit);
                return self.release(emit);
            }
            if let Some(Some(_)) = self.held.get(ahead) {
                self.counters.discarded += 1;
                return;
            }
            if ahead <= self.max_packets && self.held_bytes + payload.len() <= MAX_BYTES {
                return self.hold(ahead, Held { header, payload: payload.to_vec(), arrived: now });
            }
            if self.held.is_empty() {
                self.counters.lost += ahead as u64;
                self.gap = true;
                source.next = header.sequence;
            } else {
                self.give_up(emit);
            }
        }
    }

    fn hold(&mut self, place: usize, packet: Held) {
        if self.held.is_empty() {
            self.gap_since = packet.arrived;
        }
        self.held_bytes += packet.payload.len();
        if place < self.held.len() {
            self.counters.reordered += 1;
        } else {
            self.held.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.held.get_mut(place) {
            *slot = Some(packet);
        }
    }

    /// Counts the gap in front as lost and emits what waited behind it, up to the next gap.
    fn give_up(&mut self, emit: &mut impl FnMut(InOrder<'_>)) {
        let missing = self.held.iter().take_while(|slot| slot.is_none()).count();
        self.held.drain(..missing);
        self.counters.lost += missing as u64;
        self.gap |= missing > 0;
        if let Some(source) = &mut self.source {
            // At most 1024 places are held.
            source.next = source.next.wrapping_add(missing as u16);
        }
        self.release(emit);
    }

    /// Emits what is held up to the next gap.
    fn release(&mut self, emit: &mut impl FnMut(InOrder<'_>)) {
        while let Some(Some(packet)) = self.held.pop_front_if(|slot| slot.is_some()) {
            self.held_bytes -= packet.payload.len();
            self.deliver(packet.header, &packet.payload, emit);
            if let Some(source) = &mut self.source {
                source.next = source.next.wrapping_add(1);
            }
        }
        self.gap_since = self.held.iter().flatten().map(|p| p.arrived).min().unwrap_or(0);
    }

    /// A packet that does not belong to the current source or its sequence.
    fn weigh(&mut self, header: &Header, payload: &[u8], now: u64, emit: &mut impl FnMut(InOrder<'_>)) {
        let next = header.sequence.wrapping_add(1);
        let first = match self.candidate.take() {
            Some(first)
                if first.header.ssrc == header.ssrc
                    && first.header.sequence.wrapping_add(1) == header.sequence =>
            {
                first
            }
            other => {
                self.counters.discarded += u64::from(other.is_some());
                self.candidate = Some(Candidate { header: *header, payload: payload.to_vec() });
                return;
            }
        };
        while !self.held.is_empty() {
            self.give_up(emit);
        }
        let new = Source { ssrc: header.ssrc, next, last_accepted: now };
        match self.source.replace(new) {
            Some(old) if old.ssrc == header.ssrc => self.counters.jumps += 1,
            _ => self.counters.ssrc_changes += 1,
        }
        self.gap = true;
        self.deliver(first.header, &first.payload, emit);
        self.deliver(*header, payload, emit);
    }

    fn deliver(&mut self, header: Header, payload: &[u8], emit: &mut impl FnMut(InOrder<'_>)) {
        self.counters.delivered += 1;
        emit(InOrder { header, payload, gap: std::mem::take(&mut self.gap) });
    }
}

/// Most packets held, whatever was asked for.
const MAX_PACKETS: usize = 1024;

/// Most bytes of payload held.
const MAX_BYTES: usize = 2 << 20;

/// A sequence number further away than this, ahead or behind, is a jump. RFC 3550, A.1 has 3000 ahead and 100
/// behind; behind must be as wide as what can be waited for, or the late rest of a long gap would look like
/// a restart.
const FAR: u16 = 1000;

/// After this long with nothing in order, a packet just behind may be a sender that started anew (ns).
const SILENCE: u64 = 500_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::header::{HEADER, write_header};
    use super::*;

    const MS: u64 = 1_000_000;

    fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
        let mut header = [0; HEADER];
        write_header(&mut header, sequence, 0, ssrc, false);
        [header.as_slice(), &sequence.to_be_bytes()].concat()
    }

    /// Pushes `(ssrc, sequence, ms)` and returns what came out, as sequence numbers.
    struct Bench {
        reorder: Reorder,
        out: Vec<u16>,
    }

    impl Bench {
        fn new(window_ms: u64, max_packets: usize) -> Self {
            Self { reorder: Reorder::new(Duration::from_millis(window_ms), max_packets), out: Vec::new() }
        }

        fn push(&mut self, ssrc: u32, sequence: u16, ms: u64) {
            let out = &mut self.out;
            self.reorder.push(&packet(ssrc, sequence), ms * MS, &mut |p: InOrder<'_>| {
                out.push(u16::from_be_bytes([p.payload[0], p.payload[1]]));
            });
        }

        fn expire(&mut self, ms: u64) {
            let out = &mut self.out;
            self.reorder.expire(ms * MS, &mut |p: InOrder<'_>| {
                out.push(u16::from_be_bytes([p.payload[0], p.payload[1]]));
            });
        }

        fn take(&mut self) -> Vec<u16> {
            std::mem::take(&mut self.out)
        }
    }

    #[test]
    fn in_order_packets_leave_at_once_and_uncopied() {
        let mut reorder = Reorder::new(Duration::from_millis(50), 100);
        for sequence in [65534, 65535, 0, 1] {
            let bytes = packet(1, sequence);
            let mut seen = None;
            reorder.push(&bytes, 0, &mut |p: InOrder<'_>| seen = Some(p.payload.as_ptr()));
            assert_eq!(seen, Some(bytes[HEADER..].as_ptr()));
        }
        assert_eq!(reorder.counters(), Counters { delivered: 4, ..Counters::default() });
    }

    #[test]
    fn a_gap_waits_for_its_packet_then_for_the_window() {
        let mut b = Bench::new(50, 100);
        b.push(1, 65534, 0);
        b.push(1, 0, 10);
        b.push(1, 2, 30);
        assert_eq!((b.take(), b.reorder.deadline()), (vec![65534], Some(60 * MS)));
        b.push(1, 65535, 40);
        assert_eq!((b.take(), b.reorder.deadline()), (vec![65535, 0], Some(80 * MS)));
        b.expire(79);
        assert_eq!(b.take(), [0u16; 0]);
        b.expire(80);
        assert_eq!((b.take(), b.reorder.deadline()), (vec![2], None));
        b.push(1, 1, 81);
        b.push(1, 2, 81);
        b.push(1, 3, 82);
        assert_eq!(b.take(), [3]);
        let want = Counters { delivered: 5, lost: 1, reordered: 1, discarded: 2, ..Counters::default() };
        assert_eq!(b.reorder.counters(), want);
    }

    #[test]
    fn the_packet_that_closes_a_gap_at_its_deadline_is_kept() {
        let mut b = Bench::new(50, 100);
        b.push(1, 1, 0);
        b.push(1, 3, 0);
        b.push(1, 2, 70);
        assert_eq!((b.take(), b.reorder.counters().lost), (vec![1, 2, 3], 0));
    }

    #[test]
    fn window_zero_never_waits() {
        let mut b = Bench::new(0, 100);
        for sequence in [1, 4, 2, 3, 5] {
            b.push(1, sequence, 0);
        }
        assert_eq!(b.take(), [1, 4, 5]);
        assert_eq!((b.reorder.counters().lost, b.reorder.counters().discarded), (2, 2));
        assert_eq!(b.reorder.deadline(), None);
    }

    #[test]
    fn bounds_of_packets_and_bytes_are_held() {
        let mut b = Bench::new(1000, 4);
        b.push(1, 1, 0);
        for sequence in [3, 5, 6, 7] {
            b.push(1, sequence, 0);
        }
        assert_eq!(b.take(), [1, 3]);
        b.push(1, 200, 0);
        assert_eq!((b.take(), b.reorder.counters().lost), (vec![5, 6, 7, 200], 2 + 192));

        let mut reorder = Reorder::new(Duration::from_secs(1), 1024);
        let big = |sequence| [packet(1, sequence), vec![0; 60_000]].concat();
        let mut left = 0;
        for sequence in (0..80).map(|i| 2 * i) {
            reorder.push(&big(sequence), 0, &mut |_: InOrder<'_>| left += 1);
            assert!(reorder.held_bytes <= MAX_BYTES);
        }
        assert_eq!(left + MAX_BYTES / 60_002, 80);
    }

    #[test]
    fn a_restart_and_another_ssrc_take_over_without_invented_loss() {
        let mut b = Bench::new(50, 100);
        b.push(1, 10, 0);
        b.push(1, 12, 0);
        for sequence in [40_000, 40_001, 40_002] {
            b.push(1, sequence, 1);
        }
        assert_eq!(b.take(), [10, 12, 40_000, 40_001, 40_002]);
        b.push(2, 7, 2);
        b.push(2, 8, 2);
        assert_eq!(b.take(), [7, 8]);
        let want = Counters { delivered: 7, lost: 1, jumps: 1, ssrc_changes: 1, ..Counters::default() };
        assert_eq!(b.reorder.counters(), want);
    }

    #[test]
    fn a_restart_just_behind_is_found_after_a_silence() {
        let mut b = Bench::new(50, 100);
        b.push(1, 500, 0);
        b.push(1, 0, 100);
        b.push(1, 1, 200);
        b.push(1, 200, 501);
        b.push(1, 201, 502);
        assert_eq!(b.take(), [500, 200, 201]);
        assert_eq!((b.reorder.counters().discarded, b.reorder.counters().jumps), (2, 1));
    }

    #[test]
    fn strays_change_nothing() {
        let mut b = Bench::new(50, 100);
        for i in 0..100 {
            b.push(1, i, 0);
            b.push(2, 7 * i, 0);
            b.push(1, 30_000 + i, 0);
            b.push(3, 9, 0);
        }
        assert_eq!(b.take(), (0..100).collect::<Vec<_>>());
        let want = Counters { delivered: 100, discarded: 299, ..Counters::default() };
        assert_eq!(b.reorder.counters(), want);
        let mut other = packet(1, 100);
        other[1] = 96;
        b.reorder.push(&other, 0, &mut |_: InOrder<'_>| panic!("a foreign type left"));
        b.reorder.push(&other[..5], 0, &mut |_: InOrder<'_>| panic!("half a header left"));
        assert_eq!((b.reorder.counters().foreign_types, b.reorder.counters().malformed), (1, 1));
    }

    /// The same damaged headers every time.
    #[test]
    fn damage_is_survived() {
        let mut random = 1u64;
        let mut next = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut reorder = Reorder::new(Duration::from_millis(20), 64);
        let (mut pushed, mut left) = (0, 0);
        for i in 0..200_000u64 {
            let mut bytes = packet((next(100) == 0).into(), (i + next(8)) as u16);
            bytes.resize(bytes.len() + next(40) as usize, 0);
            for _ in 0..next(3) {
                let at = next(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << next(8);
            }
            bytes.truncate(bytes.len() - next(4) as usize);
            pushed += u64::from(parse(&bytes).is_ok());
            reorder.push(&bytes, i * MS, &mut |_: InOrder<'_>| left += 1);
            assert!(reorder.held.len() <= 65 && reorder.deadline().is_none_or(|d| d > i * MS));
        }
        reorder.expire(u64::MAX, &mut |_: InOrder<'_>| left += 1);
        let c = reorder.counters();
        assert_eq!(c.delivered, left);
        let pending = u64::from(reorder.candidate.is_some());
        assert_eq!(c.delivered + c.discarded + c.foreign_types + pending, pushed);
        assert_eq!(c.malformed, 200_000 - pushed);
    }

    proptest! {
        /// Every packet is delayed by less than the window: all come out, in order.
        #[test]
        fn any_permutation_within_the_window_is_put_right(
            start: u16,
            delays in prop::collection::vec(0u64..50, 1..400),
        ) {
            let mut arrivals: Vec<(u64, u16)> = delays.iter().zip(0..).map(|(d, i)| (u64::from(i) + d, i)).collect();
            arrivals[0].0 = 0;
            arrivals.sort();
            let mut b = Bench::new(50, 1024);
            for (ms, i) in arrivals {
                b.expire(ms);
                b.push(1, start.wrapping_add(i), ms);
            }
            let want: Vec<u16> = (0..delays.len() as u16).map(|i| start.wrapping_add(i)).collect();
            prop_assert_eq!(b.take(), want);
            prop_assert_eq!(b.reorder.counters().lost, 0);
            prop_assert_eq!(b.reorder.deadline(), None);
        }

        /// Some never arrive, some arrive twice, the rest in disorder: what arrived comes out once and in
        /// order, and the count of lost ones is the number of holes.
        #[test]
        fn loss_is_counted_exactly(
            start: u16,
            fates in prop::collection::vec((0u64..50, 0u8..10), 2..400),
        ) {
            let mut arrivals = vec![(0, 0)];
            let last = fates.len() as u16;
            for (i, (delay, fate)) in (1..last).zip(&fates) {
                if *fate > 0 {
                    arrivals.push((u64::from(i) + delay, i));
                }
                if *fate == 9 {
                    arrivals.push((u64::from(i) + delay + 1, i));
                }
            }
            arrivals.push((u64::from(last) + 50, last));
            arrivals.sort();
            let mut arrived: Vec<u16> = arrivals.iter().map(|a| a.1).collect();
            arrived.sort_unstable();
            let total = arrived.len();
            arrived.dedup();
            let mut b = Bench::new(50, 1024);
            for (ms, i) in arrivals {
                b.expire(ms);
                b.push(1, start.wrapping_add(i), ms);
            }
            b.expire(1_000);
            let counters = b.reorder.counters();
            let unwrapped: Vec<u16> = b.take().into_iter().map(|s| s.wrapping_sub(start)).collect();
            prop_assert_eq!(&unwrapped, &arrived);
            prop_assert_eq!(counters.lost, u64::from(last) + 1 - arrived.len() as u64);
            prop_assert_eq!(counters.discarded, (total - arrived.len()) as u64);
        }

        /// Whatever bytes and times come: bounds hold and what comes out was put in.
        #[test]
        fn nothing_breaks_it(
            window in 0u64..3,
            input in prop::collection::vec((0u32..3, any::<u16>(), 0u64..10, any::<bool>()), 0..300),
        ) {
            let mut b = Bench::new(window, 16);
            let mut now = 0;
            for (i, (ssrc, sequence, step, near)) in input.iter().enumerate() {
                now += step;
                b.push(*ssrc, if *near { i as u16 } else { *sequence }, now);
                prop_assert!(b.reorder.held.len() <= 17);
                prop_assert!(b.reorder.held.front().is_none_or(Option::is_none));
                prop_assert!(b.reorder.deadline().is_none_or(|d| d > now * MS));
            }
            b.expire(u64::MAX / MS);
            let c = b.reorder.counters();
            prop_assert_eq!(c.delivered, b.out.len() as u64);
            let pending = u64::from(b.reorder.candidate.is_some());
            prop_assert_eq!(c.delivered + c.discarded + pending, input.len() as u64);
        }
    }
}
