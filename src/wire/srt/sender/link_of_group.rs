//! A sender as a link of a connection group: positions and numbers that hold for all links enter, what this link does
//! about them leaves. Decides nothing about other links.

use super::{NEVER, Nanos, Run, Sender, Seq};

impl Sender {
    /// Makes this the sender of a link of a connection group, in which the packet at `position` has the number
    /// `sequence` on every link, before it has sent anything. What is skipped is a hole on the wire from now on, for
    /// another link may fill it.
    pub fn pin(&mut self, position: u64, sequence: Seq) {
        // Far from 0, so that the peer may ask for what was before this link's time.
        self.initial = sequence - PINNED as u32;
        self.run = Run { shift: position.wrapping_sub(PINNED), ..Run::default() };
        self.next = PINNED;
        (self.given_up, self.begun) = (PINNED, Some(PINNED));
        self.mark.0 = PINNED;
    }

    /// A link of a group begins to carry the stream, from `position` on: what came before is not its own.
    pub fn resume(&mut self, position: u64, now: Nanos) {
        let index = position.wrapping_sub(self.run.shift);
        if self.begun.is_some() && index > self.next && index - self.next <= u64::from(Seq::COUNT / 4) {
            self.next = index;
            (self.given_up, self.begun) = (index, Some(index));
            self.mark = (index, now);
            self.resend.forget_before(index, NEVER);
            self.forget_runs(index);
        }
    }

    /// A link of a group carries the stream no more: the peer is told with a keepalive.
    pub fn rest(&mut self) {
        self.link.rest();
    }

    /// The position up to which packets were sent or skipped.
    pub fn sent_to(&self) -> u64 {
        self.next.wrapping_add(self.run.shift)
    }

    /// The position up to which the peer has everything that this link sent, or is past it.
    pub fn acked_to(&self) -> u64 {
        self.acked.max(self.begun.unwrap_or(0)).wrapping_add(self.run.shift)
    }

    /// How long something sent has been waiting for a word of the peer.
    pub fn silence(&self, now: Nanos) -> Nanos {
        if self.in_flight() == 0 { 0 } else { now.saturating_sub(self.link.heard().max(self.awaits)) }
    }

    /// How long the peer holds packets before it delivers them.
    pub fn peer_latency(&self) -> Nanos {
        self.latency
    }

    /// Silence of the peer after which the connection is lost.
    pub fn idle_timeout(&self) -> Nanos {
        self.link.idle_timeout()
    }

    /// Goes to the number that belongs to a position of a group. The packets between were skipped, by the ring or by
    /// this link alone: they are as good as lost, and the peer asks for them if no other link has them. Whether the
    /// position lies ahead.
    #[cold]
    pub(super) fn reach(&mut self, position: u64) -> bool {
        let index = position.wrapping_sub(self.run.shift);
        if index < self.next || index - self.next > u64::from(Seq::COUNT / 4) {
            return false;
        }
        self.stats.skipped += index - self.next;
        self.next = index;
        true
    }
}

/// Index of the first packet of a link of a group.
const PINNED: u64 = 1 << 31;
