//! What holds now in a stream of packets (ST 0107 report on change): packets enter with their arrival, the items that
//! still hold leave. Never keeps what the sender took back (zero length) or did not repeat for 30 s.

use std::collections::BTreeMap;
use std::time::Duration;

use super::issue::Quirk;
use super::label::Label;
use super::packet::{Checksum, Packet};
use super::st0601::ST0601;
use super::value::{Item, Set, Value};

/// What holds now. Time is that of arrival, from any fixed beginning.
#[derive(Debug, Default)]
pub struct State {
    held: BTreeMap<u32, Held>,
}

/// The items of one tag from the last packet that had it.
#[derive(Debug)]
struct Held {
    since: Duration,
    items: Vec<Item<'static>>,
}

/// What item 2 counts (ST 0603). Nothing is ever shifted unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeScale {
    /// As sent: taken for UTC, as most of the field sends it.
    #[default]
    Utc,
    /// MISP time: leap seconds of item 136 are taken off, or so many where the stream has none.
    Misp {
        /// Leap seconds to take off where item 136 does not say.
        leap_seconds: i32,
    },
}

impl State {
    /// Takes an ST 0601 packet that arrived at `now`. A packet with a wrong checksum, or of another set, changes nothing;
    /// so says the answer.
    pub fn take(&mut self, packet: &Packet<'_>, now: Duration) -> bool {
        if packet.label != Label::Uas || matches!(packet.checksum, Checksum::Wrong { .. }) {
            return false;
        }
        for item in &packet.set.items {
            // the checksum holds for its packet only; what no table knows cannot be taken back
            if item.tag == 1 || item.spec.is_none() {
                continue;
            }
            if item.value == Value::Unknown {
                self.held.remove(&item.tag);
                continue;
            }
            let item = item.clone().into_owned();
            match self.held.get_mut(&item.tag) {
                // several of one packet stand side by side
                Some(held) if held.since == now && item.spec.is_some_and(|spec| spec.repeats) => {
                    if held.items.len() < REPEATS_MAX {
                        held.items.push(item);
                    }
                }
                _ => {
                    self.held.insert(item.tag, Held { since: now, items: vec![item] });
                }
            }
        }
        true
    }

    /// The items that hold at `now`, by tag.
    pub fn set(&self, now: Duration) -> Set<'static> {
        let items = self.held.values().filter(|held| holds(held.since, now));
        Set { spec: &ST0601, items: items.flat_map(|held| held.items.iter().cloned()).collect() }
    }

    /// How long ago an item was last sent, while it holds.
    pub fn age(&self, tag: u32, now: Duration) -> Option<Duration> {
        self.held.get(&tag).filter(|held| holds(held.since, now)).map(|held| now.saturating_sub(held.since))
    }

    /// Forgets what no longer holds.
    pub fn expire(&mut self, now: Duration) {
        self.held.retain(|_, held| holds(held.since, now));
    }

    /// Forgets everything: another sender took over.
    pub fn reset(&mut self) {
        self.held.clear();
    }
}

impl TimeScale {
    /// UTC in microseconds since 1970, from item 2 and, where they are, the correction offset (item 137) and the leap
    /// seconds (item 136).
    pub fn utc(self, set: &Set<'_>) -> Option<u64> {
        let Some(&Value::Time(time)) = set.value(2) else { return None };
        let whole = |tag| if let Some(&Value::Int(value)) = set.value(tag) { Some(value) } else { None };
        let leap = match self {
            Self::Utc => 0,
            Self::Misp { leap_seconds } => whole(136).unwrap_or(i64::from(leap_seconds)),
        };
        let shift = i128::from(whole(137).unwrap_or(0)) - i128::from(leap) * 1_000_000;
        u64::try_from(i128::from(time) + shift).ok()
    }

    /// The name of the deviation, where it is one: ST 0603 says MISP time.
    pub fn quirk(self) -> Option<Quirk> {
        (self == Self::Utc).then_some(Quirk::UtcTimestamp)
    }

    /// What a stream seems to count, from item 2 and the wall clock's UTC at its arrival, both in microseconds: UTC when
    /// they are within two seconds, MISP time when item 2 is ahead by the leap seconds. `None` when neither: a replay.
    pub fn recognize(time: u64, utc: u64, leap_seconds: i32) -> Option<Self> {
        let ahead = i128::from(time) - i128::from(utc);
        let near = |expected: i128| (ahead - expected).abs() <= 2_000_000;
        if near(0) {
            Some(Self::Utc)
        } else if near(i128::from(leap_seconds) * 1_000_000) {
            Some(Self::Misp { leap_seconds })
        } else {
            None
        }
    }
}

fn holds(since: Duration, now: Duration) -> bool {
    now.saturating_sub(since) <= HOLD
}

/// What was not repeated for so long is no longer known (ST 0107).
const HOLD: Duration = Duration::from_secs(30);

/// Items of one tag that are kept.
const REPEATS_MAX: usize = 64;
