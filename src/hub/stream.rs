//! One stream on its shard: when it wants to be polled, and what polls found. Polls of its intake enter, its next
//! moment leaves; never waits.

use super::shard::{Intake, Tools};
use crate::media::Nanos;

/// A stream that this shard owns.
pub(super) struct Stream<I> {
    pub(super) intake: I,
    /// Polled at given moments instead of when it becomes readable.
    pub(super) ticking: bool,
    /// Moments of its own, where those of this shard's outputs are missing or too rare.
    pub(super) own_ticks: Option<Nanos>,
    /// The poller will tell when it becomes readable.
    pub(super) armed: bool,
    pub(super) polled_at: Nanos,
    /// A burst is arriving: since when, and how many datagrams so far.
    pub(super) burst: Option<(Nanos, u32)>,
    pub(super) repoll_at: Option<Nanos>,
    /// Its entry among the timers: never later than `next_due`.
    pub(super) timer: Option<Nanos>,
    /// Counted since the last review.
    pub(super) clusters: u32,
    pub(super) datagrams: u32,
}

impl<I: Intake> Stream<I> {
    pub(super) fn new(intake: I) -> Self {
        Self {
            intake,
            ticking: false,
            own_ticks: None,
            armed: false,
            polled_at: 0,
            burst: None,
            repoll_at: None,
            timer: None,
            clusters: 0,
            datagrams: 0,
        }
    }

    pub(super) fn poll(&mut self, tools: &mut Tools, now: Nanos) -> u32 {
        let polled = self.intake.poll(tools, now);
        self.polled_at = now;
        self.clusters += polled.clusters;
        self.datagrams += polled.datagrams;
        if polled.more {
            self.repoll_at = Some(now);
        }
        polled.datagrams
    }

    pub(super) fn next_due(&self) -> Option<Nanos> {
        // On a common grid, so that many streams wake the thread together.
        let tick = match self.own_ticks {
            Some(period) => Some((self.polled_at / period + 1) * period),
            // Outputs that leave take their moments with them: until the next review this one is kept.
            None => self.ticking.then_some(self.polled_at + BACKSTOP),
        };
        earliest(earliest(self.intake.next_due(), self.repoll_at), tick)
    }
}

/// The first of two moments.
pub(super) fn earliest(a: Option<Nanos>, b: Option<Nanos>) -> Option<Nanos> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// How long a stream may go without a poll when its outputs' moments are gone.
const BACKSTOP: Nanos = 50_000_000;
