//! Where a platform was: its places enter with their time, the last of them leave. Never holds more than a number of
//! places, whatever the rate.

use std::collections::VecDeque;

use super::earth::Place;

/// The way of a platform.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// (microseconds since 1970, place), the oldest first.
    places: VecDeque<(u64, Place)>,
}

impl Track {
    /// Notes where the platform is; a place sooner than a second after the last one is not noted. A time that went back
    /// starts the track anew: another flight, or a replay.
    pub fn note(&mut self, time: u64, place: Place) {
        if let Some(&(last, _)) = self.places.back() {
            if time < last {
                self.places.clear();
            } else if time - last < SPACING {
                return;
            }
        }
        if self.places.len() >= PLACES_MAX {
            self.places.pop_front();
        }
        self.places.push_back((time, place));
    }

    /// The places, the oldest first.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.places.iter().map(|&(_, place)| place)
    }

    /// When it was there, microseconds since 1970.
    pub fn times(&self) -> impl Iterator<Item = u64> {
        self.places.iter().map(|&(time, _)| time)
    }
}

/// Microseconds between places.
const SPACING: u64 = 1_000_000;

/// Places that are kept: an hour of them.
const PLACES_MAX: usize = 3600;
