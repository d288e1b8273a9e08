//! Packets of a file and the clock in them enter, datagrams and the times they are due leave. Never waits, and
//! never looks for the clock itself.

use std::collections::VecDeque;

use crate::wire::ts::packet::{PACKET, PCR_HZ, pcr_delta};

/// Paces a file by the clock of one of its programs.
///
/// Between two PCRs bytes flow evenly (the model of ISO/IEC 13818-1, 2.4.2.2), so a datagram has a time only
/// when the PCR behind it is known: feed [`Self::push`] while [`Self::pull`] answers `None`. What stands
/// in front of the first PCR flows at the rate behind it, what stands behind the last one at the rate in front
/// of it. A PCR that is more than 1 s ahead of the one before, or behind it, tells nothing about the time
/// between them: the bytes go on at the last rate, without a gap or a burst. A repeated PCR is no PCR.
///
/// Holds at most 8 MB and a datagram: where no PCR comes for that long, the last rate goes on; without a first
/// rate the file cannot be paced.
#[derive(Debug)]
pub struct FilePacer {
    /// When tick 0 is.
    start: u64,
    /// What was pushed and not yet pulled stands from `head` on.
    buffer: Vec<u8>,
    head: usize,
    /// Bytes pulled and bytes pushed so far.
    pulled: u64,
    pushed: u64,
    /// Where the stretch in which the next datagram starts begins.
    passed: Point,
    /// The ends of that stretch and of those behind it: between two points time is linear.
    points: VecDeque<Point>,
    /// The last PCR: where, and its value.
    mark: Option<(u64, u64)>,
    rate: Option<Rate>,
    finished: bool,
}

/// The file cannot be paced: there are no two PCRs, in order and at most 1 s apart, in this many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no usable programme clock (PCR) in {0} bytes; a file is paced by the PCR of its first program")]
pub struct NoClock(pub u64);

/// A byte position and the ticks of 27 MHz until it is due.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    at: u64,
    ticks: u64,
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    ticks: u64,
    bytes: u64,
}

impl FilePacer {
    /// A pacer whose first byte is due at `start` (nanoseconds).
    pub fn new(start: u64) -> Self {
        Self {
            start,
            buffer: Vec::new(),
            head: 0,
            pulled: 0,
            pushed: 0,
            passed: Point::default(),
            points: VecDeque::new(),
            mark: None,
            rate: None,
            finished: false,
        }
    }

    /// Takes the next packet of the file; `pcr` is the clock in it (27 MHz) if it belongs to the program that
    /// paces.
    ///
    /// # Errors
    /// [`NoClock`]: 8 MB without a rate. The packet is not taken.
    pub fn push(&mut self, packet: &[u8; PACKET], pcr: Option<u64>) -> Result<(), NoClock> {
        if let Some(pcr) = pcr {
            self.mark(pcr);
        }
        if self.pushed - self.known().at >= LOOKAHEAD {
            self.extend_to(self.pushed);
            if self.rate.is_none() {
                return Err(NoClock(self.pushed));
            }
        }
        if self.head > LOOKAHEAD as usize / 8 || self.head == self.buffer.len() {
            self.buffer.drain(..self.head);
            self.head = 0;
        }
        self.buffer.extend_from_slice(packet);
        self.pushed += PACKET as u64;
        self.finished = false;
        Ok(())
    }

    /// The file ends here: what is left may be pulled, a short datagram last.
    ///
    /// # Errors
    /// [`NoClock`]: the whole file gave no rate.
    pub fn finish(&mut self) -> Result<(), NoClock> {
        self.finished = true;
        if self.rate.is_none() { Err(NoClock(self.pushed)) } else { Ok(()) }
    }

    /// Appends the next datagram (7 packets) to `out` and returns when it is due (nanoseconds, never less than
    /// before); `None` until more is pushed. When it was due more than 1 s before `now` (the machine slept), it
    /// and all behind it are moved to now: there is no burst.
    pub fn pull(&mut self, now: u64, out: &mut Vec<u8>) -> Option<u64> {
        let rate = self.rate?;
        let left = self.buffer.get(self.head..)?;
        let ready =
            self.finished && !left.is_empty() || left.len() >= DATAGRAM && self.pulled <= self.known().at;
        if !ready {
            return None;
        }
        while let Some(point) = self.points.pop_front_if(|p| p.at <= self.pulled) {
            self.passed = point;
        }
        let stretch = self.points.front().map_or(rate, |end| Rate {
            ticks: end.ticks - self.passed.ticks,
            bytes: end.at - self.passed.at,
        });
        let ticks = self.passed.ticks + stretch.ticks_of(self.pulled - self.passed.at);
        let due = self.start.saturating_add(nanos(ticks));
        let late = now.saturating_sub(due);
        let moved = if late > LATE_MAX { late } else { 0 };
        self.start += moved;

        let datagram = left.get(..DATAGRAM).unwrap_or(left);
        out.extend_from_slice(datagram);
        self.pulled += datagram.len() as u64;
        self.head += datagram.len();
        Some(due + moved)
    }

    /// The next packet carries this clock.
    fn mark(&mut self, pcr: u64) {
        let Some((at, before)) = self.mark else {
            self.mark = Some((self.pushed, pcr));
            return;
        };
        let step = pcr_delta(before, pcr);
        if step == 0 || self.pushed == at {
            return;
        }
        self.mark = Some((self.pushed, pcr));
        if step > 0 && step as u64 <= PCR_HZ {
            self.rate = Some(Rate { ticks: step as u64, bytes: self.pushed - at });
            self.extend_to(at);
        }
        self.extend_to(self.pushed);
    }

    /// The last byte whose time is known.
    fn known(&self) -> Point {
        self.points.back().copied().unwrap_or(self.passed)
    }

    /// Time goes on at the last rate up to this byte.
    fn extend_to(&mut self, at: u64) {
        let known = self.known();
        if let Some(rate) = self.rate.filter(|_| at > known.at) {
            self.points.push_back(Point { at, ticks: known.ticks + rate.ticks_of(at - known.at) });
        }
    }
}

impl Rate {
    fn ticks_of(self, bytes: u64) -> u64 {
        (u128::from(bytes) * u128::from(self.ticks) / u128::from(self.bytes.max(1))) as u64
    }
}

fn nanos(ticks: u64) -> u64 {
    (u128::from(ticks) * 1000 / 27) as u64
}

/// Packets that leave together.
const DATAGRAM: usize = 7 * PACKET;

/// How far ahead a PCR is looked for: 100 ms, the longest distance allowed (2.7.2), at 640 Mb/s.
const LOOKAHEAD: u64 = 8_000_000;

/// Later than this is not caught up with (ns).
const LATE_MAX: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ts::packet::PCR_WRAP;

    const BLANK: [u8; PACKET] = [0x47; PACKET];
    const START: u64 = 5_000_000_000;

    /// Feeds packets with these clocks and returns the due times, relative to the start.
    fn dues(pcrs: impl IntoIterator<Item = Option<u64>>) -> Vec<u64> {
        let mut pacer = FilePacer::new(START);
        let (mut dues, mut out) = (Vec::new(), Vec::new());
        let mut fed = 0;
        for pcr in pcrs {
            pacer.push(&BLANK, pcr).unwrap();
            fed += PACKET;
            while let Some(due) = pacer.pull(0, &mut out) {
                dues.push(due - START);
            }
        }
        pacer.finish().unwrap();
        while let Some(due) = pacer.pull(0, &mut out) {
            dues.push(due - START);
        }
        assert_eq!(out.len(), fed);
        assert_eq!(dues.len(), fed.div_ceil(DATAGRAM));
        dues
    }

    /// `every` packets a PCR that is 27 ticks (1 us) per packet further on, from `offset` packets on.
    fn steady(packets: u64, every: u64, offset: u64, base: u64) -> impl Iterator<Item = Option<u64>> {
        (0..packets).map(move |i| (i % every == offset).then_some((base + 27 * i) % PCR_WRAP))
    }

    #[test]
    fn bytes_between_two_clocks_flow_evenly() {
        for base in [0, PCR_WRAP - 27 * 500] {
            let want: Vec<u64> = (0..200).map(|i| i * 7_000).collect();
            assert_eq!(dues(steady(1400, 50, 13, base)), want, "from the first packet to the last");
        }
    }

    #[test]
    fn the_rate_follows_the_clock() {
        // 70 packets in 70 us, then 70 packets in 140 us
        let dues = dues((0..141).map(|i| (i % 70 == 0).then(|| [0, 27 * 70, 27 * 210][i / 70])));
        let want: Vec<u64> = (0..10).map(|i| i * 7_000).chain((0..11).map(|i| 70_000 + i * 14_000)).collect();
        assert_eq!(dues, want);
    }

    #[test]
    fn a_step_leaves_neither_gap_nor_burst() {
        for jump in [PCR_HZ + 1, 20 * PCR_HZ, PCR_WRAP - 1, PCR_WRAP - 5 * PCR_HZ, PCR_WRAP / 2] {
            for at in [1, 200, 700] {
                let pcrs = steady(1400, 50, 0, 0).enumerate().map(|(i, pcr)| match pcr {
                    Some(pcr) if i >= at => {
                        Some((pcr + jump - 27 * 50 * u64::from(jump > PCR_WRAP / 2)) % PCR_WRAP)
                    }
                    other => other,
                });
                let want: Vec<u64> = (0..200).map(|i| i * 7_000).collect();
                assert_eq!(dues(pcrs), want, "step of {jump} at {at}");
            }
        }
    }

    #[test]
    fn a_repeated_clock_changes_nothing() {
        let twice = steady(1400, 50, 0, 0).scan(None, |last, pcr| {
            let now = pcr.or(last.take());
            *last = pcr;
            Some(now)
        });
        assert_eq!(dues(twice), (0..200).map(|i| i * 7_000).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_clock_it_is_an_error_within_bounds() {
        for pcrs in [&[][..], &[5][..], &[5, 5, 5], &[100, 99, 98], &[0, 2 * PCR_HZ, 9 * PCR_HZ]] {
            let mut pacer = FilePacer::new(0);
            for pcr in pcrs {
                pacer.push(&BLANK, Some(*pcr)).unwrap();
            }
            assert_eq!(pacer.pull(0, &mut Vec::new()), None);
            assert_eq!(pacer.finish(), Err(NoClock(pcrs.len() as u64 * 188)));
            let refused = (0..100_000).find(|_| pacer.push(&BLANK, None).is_err());
            assert_eq!(refused, Some(LOOKAHEAD.div_ceil(188) - pcrs.len() as u64));
            assert!(pacer.buffer.len() as u64 <= LOOKAHEAD + 188);
        }
    }

    #[test]
    fn a_clock_that_stops_is_replaced_by_the_last_rate() {
        let packets = 2 * LOOKAHEAD / 188;
        let dues = dues(steady(packets, 50, 0, 0).take(500).chain((500..packets).map(|_| None)));
        assert!(dues.iter().zip(0..).all(|(due, i)| *due == i * 7_000));
    }

    #[test]
    fn a_late_caller_is_moved_and_not_flooded() {
        let mut pacer = FilePacer::new(0);
        for pcr in steady(701, 50, 0, 0) {
            pacer.push(&BLANK, pcr).unwrap();
        }
        let mut out = Vec::new();
        assert_eq!(pacer.pull(LATE_MAX, &mut out), Some(0));
        assert_eq!(pacer.pull(LATE_MAX + 7_001, &mut out), Some(LATE_MAX + 7_001));
        assert_eq!(pacer.pull(LATE_MAX, &mut out), Some(LATE_MAX + 14_001));
    }

    proptest! {
        #[test]
        fn due_times_never_go_back(pcrs in prop::collection::vec(prop::option::weighted(0.2, 0..PCR_WRAP), 1..500)) {
            let pcrs = pcrs.into_iter().chain([Some(0), Some(27)]);
            prop_assert!(dues(pcrs).is_sorted());
        }
    }
}
