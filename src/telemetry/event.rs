//! Events of one input or output: a bounded ring, newest kept.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::Serialize;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For developers.
    Debug,
    /// A normal change.
    Info,
    /// Something an operator should look at.
    Warning,
    /// Something failed.
    Error,
}

/// One thing that happened to an input or output.
#[derive(Debug, Clone)]
pub struct Event {
    /// Counts up over the whole process, so that a reader can resume.
    pub id: u64,
    /// When.
    pub at: SystemTime,
    /// How much it matters.
    pub level: Level,
    /// What, in words for an operator. Never holds a secret.
    pub message: String,
}

/// The last events of one object: about 2 KB of them, some twenty. Thousands of outputs that flap at the same time
/// must not cost more than those that send. The oldest are dropped; the newest stays, however long it is.
#[derive(Debug, Default)]
pub struct EventRing {
    events: VecDeque<Event>,
    /// Bytes of their messages.
    text: usize,
}

impl EventRing {
    /// Adds an event. The same message as the last one only moves its time, so that a flapping
    /// object does not push its own history out.
    pub fn push(&mut self, event: Event) {
        if let Some(last) = self.events.back_mut()
            && last.message == event.message
            && last.level == event.level
        {
            *last = event;
            return;
        }
        self.text += event.message.len();
        while self.bytes(self.events.len() + 1) > MOST
            && let Some(oldest) = self.events.pop_front()
        {
            self.text -= oldest.message.len();
        }
        if self.events.len() == self.events.capacity() {
            // Not doubled: half of the places would stay empty.
            self.events.reserve_exact(STEP);
        }
        self.events.push_back(event);
    }

    /// Newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }

    /// What so many events take with all messages.
    fn bytes(&self, events: usize) -> usize {
        events * (size_of::<Event>() + MALLOC) + self.text
    }
}

const MOST: usize = 2048;
const STEP: usize = 4;
/// What the allocator adds to a message.
const MALLOC: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, message: &str) -> Event {
        Event { id, at: SystemTime::UNIX_EPOCH, level: Level::Info, message: message.into() }
    }

    /// Bytes on the heap.
    fn held(ring: &EventRing) -> usize {
        let text: usize = ring.events.iter().map(|event| event.message.len() + MALLOC).sum();
        ring.events.capacity() * size_of::<Event>() + text
    }

    #[test]
    fn keeps_the_newest_that_fit() {
        for length in [1, 8, 40, 90, 300] {
            let mut ring = EventRing::default();
            for id in 1..=300 {
                ring.push(event(id, &format!("{id:0length$}")));
                assert!(held(&ring) <= MOST + STEP * size_of::<Event>(), "{} bytes", held(&ring));
            }
            let ids: Vec<u64> = ring.newest().map(|event| event.id).collect();
            assert!(ids.iter().copied().eq((1..=300).rev().take(ids.len())), "{ids:?}");
            assert!(ids.len() >= 5 && (length > 40 || ids.len() >= 16), "{} of {length} bytes", ids.len());
        }
    }

    #[test]
    fn a_long_message_stays_until_the_next_one() {
        let mut ring = EventRing::default();
        ring.push(event(1, "short"));
        ring.push(event(2, &"x".repeat(2 * MOST)));
        assert_eq!(ring.newest().map(|event| event.id).collect::<Vec<_>>(), [2]);
        ring.push(event(3, "short"));
        assert_eq!(ring.newest().map(|event| event.id).collect::<Vec<_>>(), [3]);
        assert!(held(&ring) < MOST);
    }

    #[test]
    fn a_repeated_message_takes_one_place() {
        let mut ring = EventRing::default();
        ring.push(event(1, "a"));
        ring.push(event(2, "b"));
        ring.push(event(3, "b"));
        assert_eq!(ring.newest().map(|e| e.id).collect::<Vec<_>>(), [3, 1]);
    }
}
