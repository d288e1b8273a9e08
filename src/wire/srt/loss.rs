//! Gaps in the order of arrival enter, the ranges to report leave. Every gap has its own clock: it is reported at
//! once and again every part of a round trip until it is closed, so that a report, or an answer, that is lost costs
//! little. Gaps whose time comes at almost the same moment share a report, and there are only so many reports a second.

use std::collections::VecDeque;

use super::resend::NEVER;
use super::{Losses, Nanos, Seq};

/// The packets that are missing before the last one that arrived, as ranges in order.
#[derive(Debug, Default)]
pub(super) struct LossList {
    gaps: VecDeque<Gap>,
    /// Not after the earliest `report_at` of the gaps that were not reported yet, and of the others.
    soonest: [Nanos; 2],
    /// When the last report was made; `None` before the first.
    reported_at: Option<Nanos>,
}

#[derive(Debug, Clone, Copy)]
struct Gap {
    first: Seq,
    last: Seq,
    /// `NEVER` when the sender has said that it will not send it again.
    report_at: Nanos,
    /// It, or what it is a part of, was reported.
    known: bool,
}

impl LossList {
    /// The first packet missing.
    #[inline]
    pub(super) fn first(&self) -> Option<Seq> {
        self.gaps.front().map(|gap| gap.first)
    }

    /// How many packets are missing from `sequence` on without a break.
    #[inline]
    pub(super) fn missing_from(&self, sequence: Seq) -> u32 {
        let mut end = sequence;
        // One hole is several gaps where parts of it were reported at different times.
        for gap in &self.gaps {
            if gap.first.is_after(end) {
                break;
            }
            end = end.later(gap.last + 1);
        }
        end.ahead_of(sequence) as u32
    }

    /// Adds a gap behind all others. It is to be reported at `report_at`.
    pub(super) fn append(&mut self, first: Seq, last: Seq, report_at: Nanos) {
        if self.gaps.is_empty() {
            self.soonest = [NEVER; 2];
        }
        self.soonest[0] = self.soonest[0].min(report_at);
        self.gaps.push_back(Gap { first, last, report_at, known: false });
    }

    /// Takes note that a packet arrived after all; whether it was missing.
    pub(super) fn close(&mut self, sequence: Seq) -> bool {
        if self.gaps.is_empty() {
            return false;
        }
        self.split(sequence);
        self.split(sequence + 1);
        let at = self.find(sequence);
        let missing = self.gaps.get(at).is_some_and(|gap| gap.first == sequence);
        if missing {
            self.gaps.remove(at);
        }
        missing
    }

    /// Takes note that the sender will not send this range again: it stays a gap, but is not reported.
    pub(super) fn give_up(&mut self, first: Seq, last: Seq) {
        self.split(first);
        self.split(last + 1);
        let at = self.find(first);
        for gap in self.gaps.range_mut(at..).take_while(|gap| !gap.last.is_after(last)) {
            gap.report_at = NEVER;
        }
    }

    /// Forgets everything before `sequence`.
    pub(super) fn forget_before(&mut self, sequence: Seq) {
        self.split(sequence);
        while self.gaps.front().is_some_and(|gap| gap.first.is_before(sequence)) {
            self.gaps.pop_front();
        }
    }

    /// Writes the ranges that are due, as many as fit in `most` bytes, and puts their next report `interval` off.
    /// Whether there were any.
    pub(super) fn report(&mut self, now: Nanos, interval: Nanos, most: usize, into: &mut Vec<u8>) -> bool {
        if self.soonest() > now {
            return false;
        }
        let due = |gap: &Gap| gap.report_at <= now;
        let ranges = self.gaps.iter().filter(|gap| due(gap)).map(|gap| (gap.first, gap.last));
        let count = Losses::encode(ranges, most, into);
        let mut left = false;
        for (at, gap) in self.gaps.iter_mut().filter(|gap| due(gap)).enumerate() {
            if at >= count {
                left = true;
                break;
            }
            // On the beat: reports and answers of one gap stay a whole number of intervals apart.
            gap.report_at = (gap.report_at + interval).max(now + interval / 2);
            gap.known = true;
        }
        self.soonest = [NEVER; 2];
        for gap in &self.gaps {
            let soonest = &mut self.soonest[usize::from(gap.known)];
            *soonest = gap.report_at.min(*soonest);
        }
        // What did not fit follows at once: it belongs to the same report.
        self.reported_at = if left { None } else { Some(now) };
        count > 0
    }

    /// When there is something to report; `NEVER` (the greatest time) while there is nothing.
    pub(super) fn soonest(&self) -> Nanos {
        let [new, again] = self.soonest;
        match self.reported_at {
            _ if self.gaps.is_empty() => NEVER,
            None => new.min(again),
            Some(last) => new.max(last + APART).min(again.max(last + APART_AGAIN)),
        }
    }

    /// Where the gap stands that ends at `sequence` or behind it.
    fn find(&self, sequence: Seq) -> usize {
        self.gaps.partition_point(|gap| gap.last.is_before(sequence))
    }

    /// Sees to it that no gap crosses the border before `sequence`.
    fn split(&mut self, sequence: Seq) {
        let at = self.find(sequence);
        if let Some(gap) = self.gaps.get_mut(at).filter(|gap| gap.first.is_before(sequence)) {
            let behind = Gap { first: sequence, ..*gap };
            gap.last = sequence - 1;
            self.gaps.insert(at + 1, behind);
        }
    }
}

/// Between two reports: whoever leaves out every other packet is not answered with as many.
const APART: Nanos = 1_000_000;
/// The same where nothing new is missing.
const APART_AGAIN: Nanos = 5_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;
    const NEAR_END: Seq = Seq::new(Seq::COUNT - 2);

    fn reported(list: &mut LossList, now: Nanos) -> Vec<(i32, i32)> {
        let mut bytes = Vec::new();
        if !list.report(now * MS, 20 * MS, 1456, &mut bytes) {
            assert!(bytes.is_empty());
            return Vec::new();
        }
        let ranges = Losses::parse(&bytes).unwrap();
        ranges.ranges().map(|(a, b)| (a.ahead_of(NEAR_END), b.ahead_of(NEAR_END))).collect()
    }

    #[test]
    fn a_gap_is_reported_at_once_and_again_until_it_is_closed() {
        let mut list = LossList::default();
        list.append(NEAR_END, NEAR_END + 5, 100 * MS);
        list.append(NEAR_END + 8, NEAR_END + 8, 105 * MS);
        assert_eq!(reported(&mut list, 99), []);
        assert_eq!(reported(&mut list, 100), [(0, 5)]);
        assert_eq!(list.soonest(), 105 * MS);
        assert_eq!(reported(&mut list, 105), [(8, 8)]);
        assert!(list.close(NEAR_END + 2) && !list.close(NEAR_END + 2) && !list.close(NEAR_END + 6));
        assert_eq!(reported(&mut list, 125), [(0, 1), (3, 5), (8, 8)]);
        assert!(list.close(NEAR_END + 8));
        list.forget_before(NEAR_END + 4);
        assert_eq!((list.first(), list.missing_from(NEAR_END + 4)), (Some(NEAR_END + 4), 2));
        assert_eq!(reported(&mut list, 145), [(4, 5)]);
        list.forget_before(NEAR_END + 6);
        assert_eq!((list.first(), list.soonest()), (None, NEVER));
    }

    #[test]
    fn what_will_not_come_is_not_asked_for() {
        let mut list = LossList::default();
        list.append(NEAR_END, NEAR_END + 9, 0);
        list.give_up(NEAR_END + 3, NEAR_END + 4);
        assert_eq!(reported(&mut list, 0), [(0, 2), (5, 9)]);
        list.give_up(NEAR_END, NEAR_END + 20);
        assert_eq!((reported(&mut list, 1000), list.soonest()), (vec![], NEVER));
        assert_eq!(list.first(), Some(NEAR_END), "it is still a gap");
        assert_eq!((list.missing_from(NEAR_END), list.missing_from(NEAR_END - 1)), (10, 0));
    }

    #[test]
    fn what_is_due_at_almost_the_same_moment_shares_a_report() {
        let mut list = LossList::default();
        for n in 0..4 {
            list.append(NEAR_END + 3 * n, NEAR_END + 3 * n, u64::from(n) * 2 * MS);
            assert_eq!(reported(&mut list, u64::from(n) * 2), [(3 * n as i32, 3 * n as i32)], "at once");
        }
        // They are due at 20, 22, 24 and 26.
        assert_eq!(list.soonest(), 20 * MS);
        assert_eq!(reported(&mut list, 20), [(0, 0)]);
        assert_eq!(list.soonest(), 25 * MS);
        assert_eq!(reported(&mut list, 25), [(3, 3), (6, 6)]);
        // Something new is not kept waiting for the others, and takes them along.
        list.append(NEAR_END + 20, NEAR_END + 20, 40 * MS);
        assert_eq!(reported(&mut list, 40), [(0, 0), (9, 9), (20, 20)]);
    }

    #[test]
    fn holes_without_end_bring_no_reports_without_end() {
        let mut list = LossList::default();
        let mut bytes = Vec::new();
        let mut reports = 0;
        for n in 0..50_000 {
            let now = u64::from(n) * 20_000;
            list.append(NEAR_END + 2 * n, NEAR_END + 2 * n, now);
            list.forget_before(NEAR_END + (2 * n).saturating_sub(5000));
            while list.report(now, 20 * MS, 16_384, &mut bytes) {
                reports += 1;
            }
        }
        assert!((900..=1000).contains(&reports), "{reports} in a second");
    }

    #[test]
    fn what_does_not_fit_is_reported_next() {
        let mut list = LossList::default();
        for n in 0..5 {
            list.append(NEAR_END + 2 * n, NEAR_END + 2 * n, 0);
        }
        let mut bytes = Vec::new();
        assert!(list.report(0, 20, 12, &mut bytes));
        assert_eq!(bytes.len(), 12);
        assert_eq!(reported(&mut list, 0), [(6, 6), (8, 8)]);
    }
}
