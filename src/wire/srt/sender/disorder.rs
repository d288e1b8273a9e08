//! Packets that were sent again needlessly enter; whether the path changes the order of packets leaves.

use super::{MS, Nanos};

/// Grows with every packet that was sent again needlessly, shrinks with time.
#[derive(Debug, Default)]
pub(super) struct Disorder {
    score: u32,
    since: Nanos,
}

impl Disorder {
    /// Whether the path seems to change the order of packets.
    pub(super) fn is_high(&self) -> bool {
        self.score >= DISORDERED
    }

    /// Takes note of packets that were sent again needlessly.
    pub(super) fn note(&mut self, needless: u64, now: Nanos) {
        let passed = now.saturating_sub(self.since) / (100 * MS);
        if passed > 0 {
            self.score = self.score.saturating_sub(passed.min(u32::MAX.into()) as u32);
            self.since = now;
        }
        self.score = (self.score + 8 * needless.min(100) as u32).min(DISORDER_MOST);
    }
}

const DISORDERED: u32 = 24;
/// Ten seconds until it is forgotten.
const DISORDER_MOST: u32 = 100 + DISORDERED;
