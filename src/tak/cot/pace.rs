//! When to say again where something is: places and moments enter, yes or no leaves. Never more than five times a
//! second, however fast it moves.

use std::time::Duration;

use crate::inspect::geo::{Place, between};

/// The pace of one uid.
#[derive(Debug, Clone)]
pub struct Pace {
    every: Duration,
    last: Option<Said>,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    at: Duration,
    place: Place,
    azimuth: Option<f64>,
}

impl Pace {
    /// Once in `every`, and sooner on a large change.
    pub fn new(every: Duration) -> Self {
        Self { every: every.max(SOONEST), last: None }
    }

    /// Whether to say it now, at `now` from any fixed beginning. Yes is taken for done.
    pub fn is_due(&mut self, now: Duration, place: Place, azimuth: Option<f64>) -> bool {
        let due = self.last.is_none_or(|last| {
            let since = now.saturating_sub(last.at);
            let moved = last.place.look(place).range >= FAR;
            let turned = last.azimuth.zip(azimuth).is_some_and(|(a, b)| between(a, b) >= TURNED);
            since >= self.every || since >= SOONEST && (moved || turned)
        });
        if due {
            self.last = Some(Said { at: now, place, azimuth });
        }
        due
    }
}

/// A change that is said at once: metres and degrees.
const FAR: f64 = 100.0;
const TURNED: f64 = 10.0;

/// Between two of the same, whatever changes.
const SOONEST: Duration = Duration::from_millis(200);
