//! Counts durations in microseconds so that percentiles can be taken, and differences between two moments.

use serde::{Deserialize, Serialize};

/// A histogram with steps of at most 0.8 % of the value.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Histogram {
    /// Step and count, steps ascending; only steps that have a count when it travels as JSON.
    #[serde(with = "sparse")]
    counts: Vec<u64>,
}

impl Histogram {
    /// Counts one duration in nanoseconds.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        let step = step(nanoseconds / 1000);
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
    }

    /// The duration in milliseconds that a share of all counted ones does not exceed; `None` when nothing
    /// was counted.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.counts.iter().sum();
        let rank = ((total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(upper_end(found) as f64 / 1000.0)
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        Self { counts: self.counts.iter().zip(before).map(|(now, then)| now.saturating_sub(then)).collect() }
    }

    /// Adds the counts of another histogram.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }
}

/// Exact below 256 µs, then 128 steps per octave.
fn step(microseconds: u64) -> usize {
    let shift = microseconds.max(1).ilog2().saturating_sub(7);
    (u64::from(shift) * 128 + (microseconds >> shift)) as usize
}

/// The largest value of a step.
fn upper_end(step: usize) -> u64 {
    let shift = (step / 128).saturating_sub(1);
    ((step - shift * 128 + 1) as u64) << shift as u64
}

mod sparse {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(counts: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
        let filled: Vec<_> = counts.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        filled.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
        let filled = Vec::<(usize, u64)>::deserialize(deserializer)?;
        let mut counts = vec![0; filled.last().map_or(0, |(step, _)| step + 1)];
        for (step, count) in filled {
            if let Some(place) = counts.get_mut(step) {
                *place = count;
            }
        }
        Ok(counts)
    }
}
