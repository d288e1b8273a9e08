//! Many machines and their timers: events by id and time enter, actions by id leave. Holds no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::{Action, Class, Event, Machine, Nanos, Policy};

/// The machines of every input and output, by id, with one timer each at most: what is removed leaves nothing
/// behind.
#[derive(Debug, Default)]
pub struct Keeper<Id> {
    machines: BTreeMap<Id, Kept>,
    timers: BTreeSet<(Nanos, Id)>,
}

impl<Id: Copy + Ord + Debug> Keeper<Id> {
    /// No machines.
    pub fn new() -> Self {
        Self { machines: BTreeMap::new(), timers: BTreeSet::new() }
    }

    /// Adds an object at rest. `false` = the id is known; nothing changed.
    pub fn insert(&mut self, id: Id, policy: Policy, now: Nanos) -> bool {
        if self.machines.contains_key(&id) {
            return false;
        }
        self.machines.insert(id, Kept { machine: Machine::new(policy, now), timer: None });
        true
    }

    /// Forgets an object and returns what has to be closed.
    #[must_use = "the action has to be done"]
    pub fn remove(&mut self, id: &Id) -> Option<Action> {
        let kept = self.machines.remove(id)?;
        if let Some(at) = kept.timer {
            self.timers.remove(&(at, *id));
        }
        kept.machine.attempt().map(Action::Close)
    }

    /// Passes an event to one machine; see [`Machine::handle`]. An unknown id: whatever connected late is
    /// closed.
    #[must_use = "the action has to be done"]
    pub fn handle(&mut self, id: Id, event: Event, now: Nanos, random: f64) -> Option<Action> {
        if let Event::Failed { class: Class::Bug, reason, .. } = &event {
            tracing::error!(?id, reason, "a mistake of our own");
        }
        let Some(kept) = self.machines.get_mut(&id) else {
            return match event {
                Event::Connected { attempt, .. } => Some(Action::Close(attempt)),
                _ => None,
            };
        };
        let action = kept.machine.handle(event, now, random);
        kept.arm(id, &mut self.timers);
        action
    }

    /// Ticks every machine whose time has come and returns them with what is to be done, if anything: the
    /// state of each may have changed. `random` gives numbers uniform in `[0, 1)`.
    #[must_use = "the actions have to be done"]
    pub fn expire(&mut self, now: Nanos, mut random: impl FnMut() -> f64) -> Vec<(Id, Option<Action>)> {
        let mut ticked = Vec::new();
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(kept) = self.machines.get_mut(&id) else { continue };
            kept.timer = None;
            if kept.machine.deadline().is_some_and(|deadline| deadline <= now) {
                ticked.push((id, kept.machine.handle(Event::Tick, now, random())));
            }
            kept.arm(id, &mut self.timers);
        }
        ticked
    }

    /// When [`expire`](Self::expire) may have something to do.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// One machine.
    pub fn machine(&self, id: &Id) -> Option<&Machine> {
        self.machines.get(id).map(|kept| &kept.machine)
    }

    /// Replaces the policy of one machine; see [`Machine::adopt`]. `false` = the id is unknown.
    pub fn adopt(&mut self, id: Id, policy: Policy) -> bool {
        let Some(kept) = self.machines.get_mut(&id) else { return false };
        kept.machine.adopt(policy);
        kept.arm(id, &mut self.timers);
        true
    }

    /// All machines, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Machine)> {
        self.machines.iter().map(|(id, kept)| (id, &kept.machine))
    }
}

#[derive(Debug)]
struct Kept {
    machine: Machine,
    /// Its entry among the timers: never later than its deadline.
    timer: Option<Nanos>,
}

impl Kept {
    /// Sets the timer if the deadline came nearer. A deadline that moved away, as it does at every look while
    /// data flows, is noticed when the timer goes off.
    fn arm<Id: Copy + Ord>(&mut self, id: Id, timers: &mut BTreeSet<(Nanos, Id)>) {
        let deadline = self.machine.deadline();
        if self.timer.is_some_and(|timer| deadline.is_none_or(|deadline| timer <= deadline)) {
            return;
        }
        if let Some(timer) = self.timer.take() {
            timers.remove(&(timer, id));
        }
        if let Some(deadline) = deadline {
            timers.insert((deadline, id));
        }
        self.timer = deadline;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::supervise::{Backoff, Role};
    use crate::telemetry::State;

    const SECOND: Nanos = 1_000_000_000;

    fn policy() -> Policy {
        Policy {
            role: Role::Input,
            backoff: Backoff::new(Duration::from_secs(5), Duration::from_secs(30), 0.0).unwrap(),
            auto_reconnect: true,
            max_attempts: 0,
            fatal_retry: None,
            stall_after: Some(Duration::from_secs(3)),
            redial_on_stall: false,
            serves: false,
            hold: None,
        }
    }

    /// Adds an object and lets its first attempt fail or go live.
    fn start(keeper: &mut Keeper<u32>, id: u32, now: Nanos, live: bool) {
        assert!(keeper.insert(id, policy(), now));
        let Some(Action::Dial(attempt)) = keeper.handle(id, Event::Start, now, 0.5) else {
            panic!("no dial of {id}")
        };
        let event = if live {
            Event::Connected { attempt, answering: false }
        } else {
            Event::Failed { attempt, class: Class::Retry, reason: "refused".into() }
        };
        let _ = keeper.handle(id, event, now, 0.5);
        if live {
            assert_eq!(keeper.handle(id, Event::Flowing, now, 0.5), None);
        }
    }

    #[test]
    fn ticks_those_whose_time_has_come_in_order() {
        let mut keeper = Keeper::new();
        start(&mut keeper, 1, 2 * SECOND, false);
        start(&mut keeper, 2, 0, false);
        start(&mut keeper, 3, SECOND, true);
        assert_eq!(keeper.next_deadline(), Some(4 * SECOND));
        assert_eq!(keeper.expire(4 * SECOND - 1, || 0.5), []);
        // A state that changes without an action is reported too.
        assert_eq!(keeper.expire(4 * SECOND, || 0.5), [(3, None)]);
        assert_eq!(keeper.machine(&3).unwrap().state(), State::Stalled);
        let dialled: Vec<u32> = keeper.expire(7 * SECOND, || 0.5).into_iter().map(|(id, _)| id).collect();
        assert_eq!(dialled, [2, 1]);
        assert_eq!(keeper.next_deadline(), None);
    }

    #[test]
    fn data_that_flows_puts_the_stall_off() {
        let mut keeper = Keeper::new();
        start(&mut keeper, 1, 0, true);
        for second in 1..100 {
            assert_eq!(keeper.handle(1, Event::Flowing, second * SECOND, 0.5), None);
            assert_eq!(keeper.expire(second * SECOND, || 0.5), []);
            assert_eq!(keeper.timers.len(), 1);
        }
        assert_eq!(keeper.expire(102 * SECOND - 1, || 0.5), []);
        assert_eq!(keeper.expire(102 * SECOND, || 0.5), [(1, None)]);
    }

    #[test]
    fn a_new_policy_moves_the_timer() {
        let mut keeper = Keeper::new();
        start(&mut keeper, 1, 0, true);
        assert!(keeper.adopt(1, Policy { stall_after: Some(Duration::from_secs(1)), ..policy() }));
        assert_eq!(keeper.next_deadline(), Some(SECOND));
        assert!(!keeper.adopt(2, policy()));
    }

    #[test]
    fn ids_are_unique_and_unknown_ones_harmless() {
        let mut keeper = Keeper::new();
        start(&mut keeper, 1, 0, true);
        let attempt = keeper.machine(&1).unwrap().attempt().unwrap();
        assert!(!keeper.insert(1, policy(), 0));
        assert_eq!(keeper.remove(&1), Some(Action::Close(attempt)));
        assert_eq!(keeper.remove(&1), None);
        assert_eq!(keeper.handle(1, Event::Start, 0, 0.5), None);
        // A connection that comes of a dial begun before the removal must not be left open.
        let late = Event::Connected { attempt, answering: false };
        assert_eq!(keeper.handle(1, late, 0, 0.5), Some(Action::Close(attempt)));
    }

    #[test]
    fn churn_leaves_nothing_behind() {
        let mut keeper = Keeper::new();
        for id in 0..10 {
            start(&mut keeper, id, 0, true);
        }
        for id in 10..2_010 {
            start(&mut keeper, id, 0, id % 2 == 0);
            assert!(keeper.timers.len() <= keeper.machines.len());
            let _ = keeper.remove(&id);
        }
        assert_eq!((keeper.iter().count(), keeper.timers.len()), (10, 10));
    }
}
