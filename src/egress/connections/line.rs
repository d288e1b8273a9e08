//! Connections of one lane and delay class, walked as one: what is new in the lane is read once for all that keep up.

use std::sync::Arc;

use super::fan::{Fan, Leg, Shape, Total};
use crate::hub::{Cursor, Lane, StreamKey};
use crate::media::{Message, Nanos};

/// Connections that are walked as one.
pub(super) struct Line {
    pub(super) stream: StreamKey,
    pub(super) lane: Arc<Lane<Message>>,
    pub(super) delay: Nanos,
    /// Indexes of its connections; where media leave as datagrams, of those that stand at the cursor.
    pub(super) members: Vec<usize>,
    /// Connections that belong to it.
    pub(super) users: usize,
    /// How media leave, where not over the connections.
    pub(super) crowd: Option<Crowd>,
    /// Behind the last message of the run.
    cursor: Cursor,
    /// New messages, read once for everybody; empty between walks, so that it pins nothing.
    run: Vec<Message>,
}

/// Those whose media leave as datagrams through the same sockets, on the same channels.
pub(super) struct Crowd {
    pub(super) shape: Shape,
    /// The members, in their order.
    pub(super) fan: Fan,
    /// Who listens to the group that the one member stands for.
    pub(super) followers: Vec<usize>,
}

impl Line {
    pub(super) fn new(
        stream: StreamKey,
        lane: Arc<Lane<Message>>,
        delay: Nanos,
        shape: Option<Shape>,
    ) -> Self {
        let cursor = lane.live();
        let crowd = shape.map(|shape| Crowd { fan: Fan::new(&shape), shape, followers: Vec::new() });
        Self { stream, lane, delay, members: Vec::new(), users: 0, crowd, cursor, run: Vec::new() }
    }

    /// Where it stands.
    pub(super) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What each member of the crowd was sent.
    pub(super) fn total(&self) -> Total {
        self.crowd.as_ref().map_or_else(Total::default, |crowd| crowd.fan.total)
    }

    /// Channel, source and last sequence number of what the crowd was sent.
    pub(super) fn sources(&self) -> Vec<(u8, u32, u16)> {
        self.crowd.as_ref().map_or_else(Vec::new, |crowd| crowd.fan.sources().collect())
    }

    /// Lets one go along with the crowd that stands where it does.
    pub(super) fn take_along(&mut self, index: usize, legs: &[Leg]) {
        if let Some(crowd) = &mut self.crowd {
            crowd.fan.push(legs);
            self.members.push(index);
        }
    }

    /// Lets one listen to the group that goes along already; false = none does.
    pub(super) fn follow(&mut self, index: usize) -> bool {
        match &mut self.crowd {
            Some(crowd) if !self.members.is_empty() => {
                crowd.followers.push(index);
                true
            }
            _ => false,
        }
    }

    /// Lets it go along no more. Of a group a follower takes its place: which one that is.
    pub(super) fn leave_behind(&mut self, index: usize) -> Option<usize> {
        let crowd = self.crowd.as_mut()?;
        crowd.followers.retain(|follower| *follower != index);
        let place = self.members.iter().position(|member| *member == index)?;
        if let Some(next) = crowd.followers.pop() {
            *self.members.get_mut(place)? = next;
            return Some(next);
        }
        crowd.fan.swap_remove(place);
        self.members.swap_remove(place);
        None
    }

    /// Reads what is new for a crowd: behind what left the ring, at a random access point. Answers how much that was.
    pub(super) fn read_on(&mut self) -> u64 {
        self.run.clear();
        self.lane.read(&mut self.cursor, RUN, &mut self.run, |_| true).skipped
    }

    /// What was read, and who gets it.
    pub(super) fn run_and_crowd(&mut self) -> (&[Message], Option<&mut Crowd>) {
        (&self.run, self.crowd.as_mut())
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
