//! Requests to dial enter, grants leave: at most so many dials at once per host and in all, first come first
//! served. Never dials, never waits.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// How many dials may be under way. An id is known from its [`request`](Self::request) to its
/// [`release`](Self::release), once, so memory is bounded by the number of supervised objects.
#[derive(Debug)]
pub struct DialBudget<Id> {
    per_host: usize,
    total: usize,
    /// Dials under way.
    dialing: usize,
    /// Dials under way by host.
    hosts: HashMap<Arc<str>, usize>,
    /// Everybody who dials or waits.
    places: HashMap<Id, Place>,
    /// Who waits, by ticket: the oldest first. None of them could be granted now.
    queue: BTreeMap<u64, Id>,
    next_ticket: u64,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Dial now.
    Granted,
    /// Wait until a [`release`](DialBudget::release) returns this id.
    Queued,
}

impl<Id: Copy + Eq + Hash> DialBudget<Id> {
    /// `per_host` and `total` dials at once; 0 counts as 1.
    pub fn new(per_host: usize, total: usize) -> Self {
        Self {
            per_host: per_host.max(1),
            total: total.max(1),
            dialing: 0,
            hosts: HashMap::new(),
            places: HashMap::new(),
            queue: BTreeMap::new(),
            next_ticket: 0,
        }
    }

    /// Asks to dial `host` on behalf of `id`. Asking again before the release changes nothing.
    pub fn request(&mut self, host: &str, id: Id) -> Grant {
        if let Some(place) = self.places.get(&id) {
            return if place.ticket.is_none() { Grant::Granted } else { Grant::Queued };
        }
        let fits = self.fits(host);
        // The name is shared, so that thousands who wait for one host hold it once.
        let host = self.hosts.get_key_value(host).map_or_else(|| host.into(), |(known, _)| known.clone());
        if fits {
            self.start(host.clone());
            self.places.insert(id, Place { host, ticket: None });
            return Grant::Granted;
        }
        self.queue.insert(self.next_ticket, id);
        self.places.insert(id, Place { host, ticket: Some(self.next_ticket) });
        self.next_ticket += 1;
        Grant::Queued
    }

    /// The dial of `id` is over or no longer wanted, whether it was granted or waits. Returns the id that is
    /// granted instead: it dials now. An unknown id changes nothing.
    #[must_use = "the id returned holds a grant and must dial or be released"]
    pub fn release(&mut self, id: &Id) -> Option<Id> {
        let place = self.places.remove(id)?;
        if let Some(ticket) = place.ticket {
            self.queue.remove(&ticket);
            return None;
        }
        self.end(&place.host);
        // One dial ended, so at most one can begin: the oldest whose host has room.
        let fits = |id: &Id| self.places.get(id).is_some_and(|place| self.fits(&place.host));
        let (ticket, next) = self.queue.iter().find(|(_, id)| fits(id)).map(|(ticket, id)| (*ticket, *id))?;
        self.queue.remove(&ticket);
        let place = self.places.get_mut(&next)?;
        place.ticket = None;
        let host = place.host.clone();
        self.start(host);
        Some(next)
    }

    /// Dials under way.
    pub fn dialing(&self) -> usize {
        self.dialing
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    fn fits(&self, host: &str) -> bool {
        self.dialing < self.total && self.hosts.get(host).is_none_or(|count| *count < self.per_host)
    }

    fn start(&mut self, host: Arc<str>) {
        self.dialing += 1;
        *self.hosts.entry(host).or_default() += 1;
    }

    fn end(&mut self, host: &str) {
        self.dialing -= 1;
        if let Some(count) = self.hosts.get_mut(host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(host);
            }
        }
    }
}

/// Where somebody stands.
#[derive(Debug)]
struct Place {
    host: Arc<str>,
    /// Its place in the queue; `None` = it dials.
    ticket: Option<u64>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_host_never_takes_more_than_its_share() {
        let mut budget = DialBudget::new(2, 3);
        assert_eq!(budget.request("dead", 1), Grant::Granted);
        assert_eq!(budget.request("dead", 2), Grant::Granted);
        assert_eq!(budget.request("dead", 3), Grant::Queued);
        assert_eq!(budget.request("good", 4), Grant::Granted);
        assert_eq!(budget.request("good", 5), Grant::Queued);
        // The total has room again, the dead host has not: the later request of the good host goes first.
        assert_eq!(budget.release(&4), Some(5));
        assert_eq!(budget.release(&1), Some(3));
        assert_eq!(budget.release(&2), None);
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut budget = DialBudget::new(1, 1);
        assert_eq!(budget.request("a", 0), Grant::Granted);
        for (id, host) in [(1, "b"), (2, "a"), (3, "b")] {
            assert_eq!(budget.request(host, id), Grant::Queued);
        }
        assert_eq!(budget.release(&0), Some(1));
        assert_eq!(budget.release(&1), Some(2));
        assert_eq!(budget.release(&2), Some(3));
        assert_eq!(budget.release(&3), None);
        assert_eq!((budget.dialing(), budget.queued()), (0, 0));
    }

    #[test]
    fn asking_twice_and_releasing_twice_change_nothing() {
        let mut budget = DialBudget::new(1, 8);
        assert_eq!(budget.request("a", 1), Grant::Granted);
        assert_eq!(budget.request("a", 1), Grant::Granted);
        assert_eq!(budget.request("a", 2), Grant::Queued);
        assert_eq!(budget.request("a", 2), Grant::Queued);
        assert_eq!((budget.dialing(), budget.queued()), (1, 1));
        assert_eq!(budget.release(&2), None);
        assert_eq!(budget.release(&1), None);
        assert_eq!(budget.release(&1), None);
        assert_eq!(budget.request("a", 3), Grant::Granted);
    }

    proptest! {
        /// Whatever is asked and released: the limits hold, and nobody waits while there is room.
        #[test]
        fn limits_hold_and_no_room_is_wasted(
            steps in prop::collection::vec((any::<bool>(), 0u8..40, 0u8..4), 1..300),
        ) {
            const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
            let (per_host, total) = (3, 5);
            let mut budget = DialBudget::new(per_host, total);
            let mut known = BTreeMap::new();
            for (ask, id, host) in steps {
                if ask {
                    known.entry(id).or_insert(host);
                    budget.request(HOSTS[usize::from(known[&id])], id);
                } else {
                    known.remove(&id);
                    if let Some(next) = budget.release(&id) {
                        prop_assert!(known.contains_key(&next));
                    }
                }
                prop_assert_eq!(budget.dialing() + budget.queued(), known.len());
                prop_assert!(budget.dialing() <= total);
                prop_assert!(budget.hosts.values().all(|count| (1..=per_host).contains(count)));
                prop_assert_eq!(budget.hosts.values().sum::<usize>(), budget.dialing());
                prop_assert!(budget.queue.values().all(|id| !budget.fits(&budget.places[id].host)));
            }
        }
    }
}
