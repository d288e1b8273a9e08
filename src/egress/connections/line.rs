//! Connections of one lane and delay class, walked as one: what is new in the lane is read once for all that keep up.

use std::sync::Arc;

use crate::hub::{Cursor, Lane, StreamKey};
use crate::media::{Message, Nanos};

/// Connections that are walked as one.
pub(super) struct Line {
    pub(super) stream: StreamKey,
    pub(super) lane: Arc<Lane<Message>>,
    pub(super) delay: Nanos,
    /// Indexes of its connections.
    pub(super) members: Vec<usize>,
    /// Behind the last message of the run.
    cursor: Cursor,
    /// New messages, read once for everybody; empty between walks, so that it pins nothing.
    run: Vec<Message>,
}

impl Line {
    pub(super) fn new(stream: StreamKey, lane: Arc<Lane<Message>>, delay: Nanos) -> Self {
        let cursor = lane.live();
        Self { stream, lane, delay, members: Vec::new(), cursor, run: Vec::new() }
    }

    /// Up to where the lane was read.
    pub(super) fn position(&self) -> u64 {
        self.cursor.0
    }

    /// Reads what is new.
    pub(super) fn read(&mut self) {
        self.run.clear();
        let read = self.lane.read(&mut self.cursor, RUN, &mut self.run, |_| true);
        if read.skipped > 0 {
            // Each connection finds its own way.
            self.run.clear();
        }
    }

    /// Lets go of what was read.
    pub(super) fn forget(&mut self) {
        self.run.clear();
    }

    /// The messages from `at` on, where they are among those just read.
    pub(super) fn from(&self, at: Cursor) -> Option<&[Message]> {
        let first = self.cursor.0 - self.run.len() as u64;
        let skip = usize::try_from(at.0.checked_sub(first)?).ok()?;
        self.run.get(skip..).filter(|run| !run.is_empty())
    }
}

/// Messages read at once: more come with the next walk.
const RUN: usize = 512;
