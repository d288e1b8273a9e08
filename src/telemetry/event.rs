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

/// The last events of one object; the oldest is dropped when it is full.
#[derive(Debug, Default)]
pub struct EventRing {
    events: VecDeque<Event>,
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
        if self.events.len() == CAPACITY {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }
}

const CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, message: &str) -> Event {
        Event { id, at: SystemTime::UNIX_EPOCH, level: Level::Info, message: message.into() }
    }

    #[test]
    fn keeps_the_newest() {
        let mut ring = EventRing::default();
        for id in 0..200 {
            ring.push(event(id, &format!("m{id}")));
        }
        let ids: Vec<u64> = ring.newest().map(|e| e.id).collect();
        assert_eq!(ids.len(), CAPACITY);
        assert_eq!((ids[0], ids[CAPACITY - 1]), (199, 136));
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
