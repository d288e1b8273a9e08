//! How far a lane is written: the head that readers look at without a lock, and who is rung for. Knows nothing of what
//! the lane holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::net::Doorbell;

/// The head of a lane and its watchers.
#[derive(Debug, Default)]
pub struct Pulse {
    head: AtomicU64,
    watchers: Mutex<Vec<Arc<Doorbell>>>,
    watched: AtomicU64,
    distant: AtomicU64,
}

impl Pulse {
    /// The position that the next item of the lane will have.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    /// Rings `bell` at every write, for a shard that must not wait for its own clock. Look at the head once more
    /// afterwards: what was written before is not rung for.
    pub fn watch(&self, bell: &Arc<Doorbell>) {
        let mut watchers = self.watchers.lock();
        if !watchers.iter().any(|w| Arc::ptr_eq(w, bell)) {
            watchers.push(Arc::clone(bell));
        }
        self.watched.store(watchers.len() as u64, Ordering::SeqCst);
    }

    /// Stops ringing.
    pub fn unwatch(&self, bell: &Arc<Doorbell>) {
        let mut watchers = self.watchers.lock();
        watchers.retain(|w| !Arc::ptr_eq(w, bell));
        self.watched.store(watchers.len() as u64, Ordering::SeqCst);
    }

    /// Whether a shard asked to be woken at every write.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst) > 0
    }

    /// Counts a reader on another shard than the writer's: its stream has to be polled often enough for it.
    pub fn add_distant_reader(&self) {
        self.distant.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes one back.
    pub fn remove_distant_reader(&self) {
        self.distant.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a shard other than the writer's reads it.
    pub fn has_distant_readers(&self) -> bool {
        self.distant.load(Ordering::Acquire) > 0
    }

    /// Shows readers that everything before `head` is there.
    pub(super) fn beat(&self, head: u64) {
        // Sequentially consistent with `watch`: either this sees the watcher, or the watcher sees this head.
        self.head.store(head, Ordering::SeqCst);
        if self.is_watched() {
            self.watchers.lock().iter().for_each(|bell| bell.ring());
        }
    }
}
