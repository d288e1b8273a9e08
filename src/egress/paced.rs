//! Datagrams that leave at their PCR time: datagrams of a lane enter as they come, two at most leave at once.

use std::collections::VecDeque;

use crate::hub::{Cursor, Lane};
use crate::media::{Datagram, Nanos};
use crate::wire::ts::LivePacer;

/// The schedule of a paced cohort.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pacer: LivePacer,
    /// Departure, position in the lane, datagram.
    waiting: VecDeque<(Nanos, u64, Datagram)>,
    scratch: Vec<Datagram>,
    /// When the last pair left.
    left: Nanos,
}

/// What one look at the schedule gave.
pub(super) struct Due {
    /// Position of the first datagram that is due.
    pub(super) from: Cursor,
    /// Datagrams of the lane that were skipped.
    pub(super) skipped: u64,
}

impl Paced {
    /// Takes what is new in the lane into the schedule and appends what is due, at most two datagrams.
    pub(super) fn take_due(
        &mut self,
        lane: &Lane,
        cursor: &mut Cursor,
        now: Nanos,
        out: &mut Vec<Datagram>,
    ) -> Due {
        let mut skipped = 0;
        while self.waiting.len() < WAITING_MOST {
            self.scratch.clear();
            let read = lane.read(cursor, WAITING_MOST - self.waiting.len(), &mut self.scratch, |_| true);
            skipped += read.skipped;
            if read.taken == 0 {
                break;
            }
            let first = cursor.0 - read.taken as u64;
            for (position, datagram) in (first..).zip(self.scratch.drain(..)) {
                let departure = self.pacer.depart(datagram.arrival, datagram.pcr);
                self.waiting.push_back((departure, position, datagram));
            }
        }
        let from = self.position().unwrap_or(*cursor);
        if now < self.left + APART {
            return Due { from, skipped };
        }
        let mut length = None;
        while out.len() < AT_ONCE
            && let Some((departure, _, datagram)) = self.waiting.front()
            && *departure <= now + EARLY
            && length.is_none_or(|length| length == datagram.bytes.len())
        {
            length = Some(datagram.bytes.len());
            out.extend(self.waiting.pop_front().map(|(_, _, datagram)| datagram));
            self.left = now;
        }
        Due { from, skipped }
    }

    /// Position of the first datagram that waits.
    pub(super) fn position(&self) -> Option<Cursor> {
        self.waiting.front().map(|(_, position, _)| Cursor(*position))
    }

    /// When the next datagram leaves.
    pub(super) fn next_due(&self, now: Nanos) -> Option<Nanos> {
        let (departure, _, _) = self.waiting.front()?;
        Some((*departure).max(self.left + APART).max(now))
    }
}

/// Datagrams that may leave together.
const AT_ONCE: usize = 2;
/// Distance between two departures when the schedule is behind.
const APART: Nanos = 300_000;
/// So much before its time a datagram leaves with the one before it rather than with a wake of its own.
const EARLY: Nanos = 100_000;
/// A second at 100 Mb/s; what is beyond waits in the lane.
const WAITING_MOST: usize = 10_000;
