//! Round-trip times enter, their smoothed value, its deviation and the intervals made from them leave. Never reads
//! a clock.

use super::Nanos;

/// The round-trip time of a connection, smoothed (draft-sharabayko-srt-01, 4.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtt {
    smoothed: Nanos,
    variance: Nanos,
    measured: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { smoothed: 100 * MS, variance: 50 * MS, measured: false }
    }
}

impl Rtt {
    /// The smoothed round-trip time; 100 ms until one was measured.
    pub fn smoothed(&self) -> Nanos {
        self.smoothed
    }

    /// The mean deviation from it; 50 ms until one was measured.
    pub fn variance(&self) -> Nanos {
        self.variance
    }

    /// Whether a time was measured.
    pub fn is_measured(&self) -> bool {
        self.measured
    }

    /// Takes a time that this end measured.
    pub(super) fn measure(&mut self, sample: Nanos) {
        let sample = sample.min(LONGEST);
        if self.measured {
            let deviation = sample.abs_diff(self.smoothed);
            self.variance = (3 * self.variance + deviation) / 4;
            self.smoothed = (7 * self.smoothed + sample) / 8;
        } else {
            *self = Self { smoothed: sample, variance: sample / 2, measured: true };
        }
    }

    /// Takes what the receiving end measured and reports, in microseconds. Its first reports are the initial
    /// values: they say nothing.
    pub(super) fn adopt(&mut self, smoothed: u32, variance: u32) {
        let smoothed = (u64::from(smoothed) * 1000).min(LONGEST);
        let variance = (u64::from(variance) * 1000).min(LONGEST);
        if self.measured || (smoothed != 100 * MS && variance != 50 * MS) {
            *self = Self { smoothed, variance, measured: true };
        }
    }

    /// Takes the time that the first acknowledgement took, which contains the receiver's wait before it sent it: better
    /// than the initial value until something is measured.
    pub(super) fn guess(&mut self, sample: Nanos) {
        if !self.measured {
            let smoothed = sample.min(LONGEST);
            *self = Self { smoothed, variance: smoothed / 4, measured: false };
        }
    }

    /// How long a receiver waits before it reports the same loss again: half a round trip, so that a report that is
    /// lost costs little, but not below 20 ms (4.8.2).
    pub(super) fn nak_interval(&self) -> Nanos {
        (self.beyond() / 2).max(20 * MS)
    }

    /// The same towards a peer that does not answer a loss twice within a round trip: more reports cost nothing
    /// there. The fourth one finds the first one's answer arrived, if only just, and the third one is early
    /// enough to be ignored.
    pub(super) fn dense_nak_interval(&self) -> Nanos {
        ((self.smoothed + 2 * self.variance) / 4).max(10 * MS)
    }

    /// When an answer is overdue: the round trip and four deviations.
    pub(super) fn beyond(&self) -> Nanos {
        self.smoothed + 4 * self.variance
    }
}

const MS: Nanos = 1_000_000;
/// No report is believed beyond a minute, so that sums stay far from their ends.
const LONGEST: Nanos = 60_000 * MS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_replaces_the_guess() {
        let mut rtt = Rtt::default();
        assert_eq!((rtt.nak_interval(), rtt.is_measured()), (150 * MS, false));
        rtt.measure(40 * MS);
        assert_eq!((rtt.smoothed(), rtt.variance()), (40 * MS, 20 * MS));
        rtt.measure(48 * MS);
        assert_eq!((rtt.smoothed(), rtt.variance()), (41 * MS, 17 * MS));
        for _ in 0..100 {
            rtt.measure(30 * MS);
        }
        assert!(rtt.beyond() < 31 * MS, "{rtt:?}");
        assert_eq!(rtt.nak_interval(), 20 * MS);
    }

    #[test]
    fn initial_reports_of_the_peer_say_nothing_and_absurd_ones_are_cut() {
        let mut rtt = Rtt::default();
        rtt.guess(52 * MS);
        rtt.adopt(100_000, 50_000);
        assert_eq!((rtt.smoothed(), rtt.variance(), rtt.is_measured()), (52 * MS, 13 * MS, false));
        rtt.adopt(30_000, 1_000);
        rtt.guess(52 * MS);
        assert_eq!((rtt.smoothed(), rtt.variance()), (30 * MS, MS));
        rtt.adopt(u32::MAX, u32::MAX);
        assert_eq!(rtt.beyond(), 5 * 60_000 * MS);
    }
}
