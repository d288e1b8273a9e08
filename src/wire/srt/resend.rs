//! Reports of missing packets enter, the packets to send again leave, oldest first. Never the same one twice
//! within a round trip, however often it is reported.

use super::Nanos;

/// Packets that the peer misses, as ranges of their indexes. Empty, and without memory, on a clean path.
#[derive(Debug, Default)]
pub(super) struct Resend {
    /// In order, without overlap.
    ranges: Vec<Range>,
    /// Not after the earliest `due`.
    soonest: Nanos,
}

/// Packets with a common fate.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: u64,
    last: u64,
    /// When to send it; `NEVER` while an answer is awaited.
    due: Nanos,
    /// When it was sent again last.
    sent: Nanos,
    /// When to send it once more if it is reported before that could have arrived; `NEVER` = not.
    spare: Nanos,
    /// How often it was sent again.
    tries: u8,
}

/// What follows when a packet was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Another report is awaited.
    Wait,
    /// It is sent once more at this time.
    Again(Nanos),
    /// The same, if a report comes that was on its way before it could arrive: the packet was missing and not
    /// just late.
    AgainIfMissing(Nanos),
}

impl Resend {
    /// Takes a report that `first..=last` are missing. Packets sent again less than `hold` ago are left out: the
    /// report was on its way before they could arrive. Answers how many packets have become wanted.
    pub(super) fn want(&mut self, first: u64, last: u64, now: Nanos, hold: Nanos) -> u64 {
        if self.ranges.len() + 2 > MOST {
            return 0;
        }
        let soonest = self.soonest();
        self.split(first);
        self.split(last + 1);
        let mut wanted = 0;
        let mut spared = NEVER;
        let mut cursor = first;
        let mut at = self.ranges.partition_point(|r| r.last < first);
        while cursor <= last {
            let known = self.ranges.get_mut(at).filter(|r| r.first <= last);
            let end = match known {
                Some(range) if range.first == cursor => {
                    if range.due > now && now >= range.sent.saturating_add(hold) {
                        range.due = now;
                        wanted += range.count();
                    } else if range.due == NEVER && range.spare != NEVER {
                        range.due = range.spare.max(now);
                        spared = spared.min(range.due);
                    }
                    range.last
                }
                known => {
                    let end = known.map_or(last, |r| r.first - 1);
                    if self.ranges.len() >= MOST {
                        break;
                    }
                    self.ranges.insert(
                        at,
                        Range { first: cursor, last: end, due: now, sent: 0, spare: NEVER, tries: 0 },
                    );
                    wanted += end - cursor + 1;
                    end
                }
            };
            cursor = end + 1;
            at += 1;
        }
        self.soonest = soonest.min(if wanted > 0 { now } else { spared });
        wanted
    }

    /// The oldest packet to send now, and how often it was sent again before.
    #[inline]
    pub(super) fn next(&mut self, now: Nanos) -> Option<(u64, u8)> {
        if self.ranges.is_empty() || self.soonest > now {
            return None;
        }
        let found = self.ranges.iter().find(|r| r.due <= now).map(|r| (r.first, r.tries));
        if found.is_none() {
            self.soonest = self.ranges.iter().map(|r| r.due).min().unwrap_or(NEVER);
        }
        found
    }

    /// Takes note that a packet was sent again.
    pub(super) fn sent(&mut self, index: u64, now: Nanos, then: Then) {
        self.split(index);
        self.split(index + 1);
        let at = self.ranges.partition_point(|r| r.last < index);
        let Some(range) = self.ranges.get_mut(at).filter(|r| r.first == index) else { return };
        range.sent = now;
        range.tries = range.tries.saturating_add(1);
        (range.due, range.spare) = match then {
            Then::Wait => (NEVER, NEVER),
            Then::Again(at) => (at, NEVER),
            Then::AgainIfMissing(at) => (NEVER, at),
        };
        let range = *range;
        // A range that is sent packet by packet becomes one again; where there are too many, roughly.
        let full = self.ranges.len() >= MOST;
        if let Some(before) = at.checked_sub(1).and_then(|at| self.ranges.get_mut(at))
            && before.last + 1 == index
            && (before.due, before.spare) == (range.due, range.spare)
            && (full || (before.sent, before.tries) == (range.sent, range.tries))
        {
            before.last = index;
            before.sent = range.sent;
            self.ranges.remove(at);
        }
    }

    /// Forgets a packet that cannot be sent.
    pub(super) fn forget(&mut self, index: u64) {
        self.split(index);
        self.split(index + 1);
        let at = self.ranges.partition_point(|r| r.last < index);
        if self.ranges.get(at).is_some_and(|r| r.first == index) {
            self.ranges.remove(at);
        }
    }

    /// Forgets everything before `index`, which has arrived or is given up. Answers how many of these packets
    /// were sent again, for the first time, after `since`.
    pub(super) fn forget_before(&mut self, index: u64, since: Nanos) -> u64 {
        if self.ranges.first().is_none_or(|r| r.first >= index) {
            return 0;
        }
        self.split(index);
        let end = self.ranges.partition_point(|r| r.last < index);
        let recent = |r: Range| if r.tries == 1 && r.sent > since { r.count() } else { 0 };
        let count = self.ranges.drain(..end).map(recent).sum();
        if self.ranges.is_empty() {
            self.ranges = Vec::new();
        }
        count
    }

    /// When there is something to send; `NEVER` (the greatest time) while there is nothing.
    pub(super) fn soonest(&self) -> Nanos {
        if self.ranges.is_empty() { NEVER } else { self.soonest }
    }

    /// Sees to it that no range crosses the border before `index`.
    fn split(&mut self, index: u64) {
        let at = self.ranges.partition_point(|r| r.last < index);
        if let Some(range) = self.ranges.get_mut(at).filter(|r| r.first < index) {
            let behind = Range { first: index, ..*range };
            range.last = index - 1;
            self.ranges.insert(at + 1, behind);
        }
    }
}

impl Range {
    fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

pub(super) const NEVER: Nanos = Nanos::MAX;
/// More ranges than this are not kept; the peer reports what is still missing again.
const MOST: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(resend: &mut Resend, now: Nanos) -> Vec<u64> {
        let mut out = Vec::new();
        while let Some((index, _)) = resend.next(now) {
            resend.sent(index, now, Then::Wait);
            out.push(index);
        }
        out
    }

    #[test]
    fn a_report_is_answered_once_a_round_trip() {
        let mut resend = Resend::default();
        assert_eq!(resend.soonest(), NEVER);
        assert_eq!(resend.want(3, 5, 100, 40), 3);
        assert_eq!(resend.want(4, 7, 100, 40), 2);
        assert_eq!(resend.soonest(), 100);
        assert_eq!(all(&mut resend, 100), [3, 4, 5, 6, 7]);
        assert_eq!(resend.ranges.len(), 1, "one range again: {:?}", resend.ranges);
        assert_eq!(resend.want(3, 8, 139, 40), 1);
        assert_eq!(all(&mut resend, 139), [8]);
        assert_eq!(resend.want(2, 8, 140, 40), 6);
        assert_eq!(all(&mut resend, 140), [2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_copy_follows_when_asked_for() {
        let mut resend = Resend::default();
        resend.want(1, 1, 10, 5);
        assert_eq!(resend.next(10), Some((1, 0)));
        resend.sent(1, 10, Then::Again(12));
        assert_eq!(resend.next(11), None);
        assert_eq!(resend.soonest(), 12);
        assert_eq!(resend.next(12), Some((1, 1)));
        resend.sent(1, 12, Then::Wait);
        assert_eq!(resend.next(NEVER - 1), None);
        assert_eq!(resend.soonest(), NEVER);
    }

    #[test]
    fn what_arrived_is_forgotten() {
        let mut resend = Resend::default();
        resend.want(10, 19, 0, 0);
        for index in 10..13 {
            resend.sent(index, 50, Then::Wait);
        }
        assert_eq!(resend.forget_before(12, 49), 2);
        assert_eq!(resend.forget_before(15, 50), 0);
        resend.forget(17);
        assert_eq!(all(&mut resend, 60), [15, 16, 18, 19]);
        assert_eq!(resend.forget_before(100, 0), 4);
        assert_eq!((resend.ranges.capacity(), resend.soonest()), (0, NEVER));
    }

    #[test]
    fn memory_is_bounded() {
        let mut resend = Resend::default();
        for index in 0..2000 {
            resend.want(3 * index, 3 * index, 0, 0);
        }
        let held = resend.ranges.len() as u64;
        assert!(held + 2 >= MOST as u64 && held <= MOST as u64, "{held}");
        assert_eq!(all(&mut resend, 1).len() as u64, held);
        resend.forget_before(u64::MAX, 0);
        resend.want(0, 9999, 0, 0);
        for now in 0..10_000 {
            let (index, _) = resend.next(now).unwrap();
            resend.sent(index, now, Then::Wait);
        }
        assert!(resend.ranges.len() <= MOST + 2, "{}", resend.ranges.len());
    }

    proptest::proptest! {
        /// Against a map from packet to (due, sent): the same packets in the same order.
        #[test]
        fn ranges_do_what_single_packets_would(
            steps in proptest::collection::vec((0u64..3, 0u64..60, 0u64..9, 0u64..30), 1..80),
        ) {
            let mut resend = Resend::default();
            let mut model = std::collections::BTreeMap::<u64, (Nanos, Nanos)>::new();
            let mut now = 0;
            for (what, first, length, step) in steps {
                now += step;
                match what {
                    0 => {
                        let mut wanted = 0;
                        for index in first..=first + length {
                            let entry = model.entry(index).or_insert((NEVER, 0));
                            if entry.0 == NEVER && (entry.1 == 0 || now >= entry.1 + 25) {
                                entry.0 = now;
                                wanted += 1;
                            }
                        }
                        // A packet never sent again has `sent` 0, so a first report always counts.
                        proptest::prop_assert_eq!(resend.want(first, first + length, now + 100, 25), wanted);
                    }
                    1 => {
                        for _ in 0..length {
                            let expected = model.iter().find(|(_, e)| e.0 != NEVER).map(|(i, _)| *i);
                            let found = resend.next(now + 100).map(|(index, _)| index);
                            proptest::prop_assert_eq!(found, expected);
                            if let Some(index) = found {
                                resend.sent(index, now + 100, Then::Wait);
                                model.insert(index, (NEVER, now.max(1)));
                            }
                        }
                    }
                    _ => {
                        resend.forget_before(first, 0);
                        model.retain(|index, _| *index >= first);
                    }
                }
                let mut end = 0;
                for range in &resend.ranges {
                    proptest::prop_assert!(range.first >= end && range.first <= range.last);
                    end = range.last + 1;
                }
            }
        }
    }
}
