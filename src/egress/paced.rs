//! Datagrams that leave at their PCR time: datagrams of a lane enter as they come, two at most leave at once.

use std::collections::VecDeque;

use crate::hub::{Cursor, Lane};
use crate::media::{Datagram, Nanos};
use crate::wire::ts::LivePacer;

/// The schedule of a paced cohort.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pacer: LivePacer,
    waiting: VecDeque<(Nanos, Datagram)>,
    scratch: Vec<Datagram>,
    /// When the last pair left.
    left: Nanos,
}

impl Paced {
    /// Takes what is new in the lane into the schedule and appends what is due, at most two datagrams. Answers
    /// how many datagrams of the lane were skipped.
    pub(super) fn take_due(
        &mut self,
        lane: &Lane,
        cursor: &mut Cursor,
        now: Nanos,
        out: &mut Vec<Datagram>,
    ) -> u64 {
        let mut skipped = 0;
        while self.waiting.len() < WAITING_MOST {
            self.scratch.clear();
            let read = lane.read(cursor, WAITING_MOST - self.waiting.len(), &mut self.scratch, |_| true);
            skipped += read.skipped;
            if read.taken == 0 {
                break;
            }
            for datagram in self.scratch.drain(..) {
                let departure = self.pacer.depart(datagram.arrival, datagram.pcr);
                self.waiting.push_back((departure, datagram));
            }
        }
        if now < self.left + APART {
            return skipped;
        }
        let mut length = None;
        while out.len() < AT_ONCE
            && let Some((departure, datagram)) = self.waiting.front()
            && *departure <= now + EARLY
            && length.is_none_or(|length| length == datagram.bytes.len())
        {
            length = Some(datagram.bytes.len());
            out.extend(self.waiting.pop_front().map(|(_, datagram)| datagram));
            self.left = now;
        }
        skipped
    }

    /// When the next datagram leaves.
    pub(super) fn next_due(&self, now: Nanos) -> Option<Nanos> {
        let (departure, _) = self.waiting.front()?;
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
