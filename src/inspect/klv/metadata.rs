//! Observations of a stream enter, snapshots and subscriptions leave: the newest of each track, the way of its platform,
//! counts by name. Never holds more than sixteen tracks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use super::decoder::{Observation, Shared, TRACKS_MOST};
use crate::inspect::geo::{Place, Track};
use crate::media::Nanos;
use crate::telemetry::KlvStats;
use crate::wire::klv::{Checksum, Fault};

/// What is known of the KLV of one input.
#[derive(Debug)]
pub struct Metadata {
    stats: KlvStats,
    /// None when the input is gone.
    news: Mutex<Option<broadcast::Sender<Shared>>>,
    shown: Mutex<Shown>,
    subscribed: Notify,
}

/// A snapshot of one track.
#[derive(Debug, Clone)]
pub struct TrackView {
    /// PID in the source's transport stream, or number of the track.
    pub track: u16,
    /// The newest observation.
    pub latest: Arc<Observation>,
    /// The newest whose packet the state took in; none when there was none.
    pub accepted: Option<Arc<Observation>>,
    /// Where its platform was.
    pub trail: Track,
    /// What was counted.
    pub counts: Counts,
    /// Packets a second, over the last 5 s.
    pub rate: f64,
}

/// What was counted on a track since its source began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were decoded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets whose checksum is wrong.
    pub checksum_errors: u64,
    /// Packets of sets that are not read, or that do not start with a key.
    pub unknown: u64,
    /// Issues by name.
    pub issues: BTreeMap<&'static str, u64>,
    /// Deviations known from the field, by name.
    pub quirks: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct Shown {
    source: u32,
    latest: Option<Shared>,
    tracks: BTreeMap<u16, Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// None when the source of what is kept is gone.
    latest: Option<Shared>,
    accepted: Option<Shared>,
    trail: Track,
    /// The last place of the trail, and when the packet that told it arrived.
    last: Option<(Place, Nanos)>,
    counts: Counts,
    pace: Pace,
}

/// Packets in each of the last seconds.
#[derive(Debug, Default)]
struct Pace {
    since: Option<u64>,
    second: u64,
    counts: [u32; SECONDS],
}

impl Default for Metadata {
    fn default() -> Self {
        // Overflow policy: a subscriber that is slow loses the oldest, and is told how many.
        let news = broadcast::Sender::new(SUBSCRIPTION);
        Self {
            stats: KlvStats::default(),
            news: Mutex::new(Some(news)),
            shown: Mutex::default(),
            subscribed: Notify::new(),
        }
    }
}

impl Metadata {
    /// Every observation from now on. Ends when the input goes.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Observation>> {
        let subscription = match &*self.news.lock() {
            Some(news) => news.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        };
        self.subscribed.notify_waiters();
        subscription
    }

    /// Whether somebody subscribed.
    pub fn is_heard(&self) -> bool {
        self.news.lock().as_ref().is_some_and(|news| news.receiver_count() > 0)
    }

    /// Waits until somebody subscribed, at most for so long.
    pub(super) async fn heard_within(&self, time: Duration) {
        let subscribed = self.subscribed.notified();
        if !self.is_heard() {
            // Nobody did: time is up.
            let _ = tokio::time::timeout(time, subscribed).await;
        }
    }

    /// The newest observation, of whichever track.
    pub fn latest(&self) -> Option<Arc<Observation>> {
        self.shown.lock().latest.clone()
    }

    /// Every track that had KLV since its source began, at `now` on the clock of the shards, by number.
    pub fn tracks(&self, now: Nanos) -> Vec<TrackView> {
        let shown = self.shown.lock();
        let view = |(&track, held): (&u16, &Held)| {
            Some(TrackView {
                track,
                latest: held.latest.clone()?,
                accepted: held.accepted.clone(),
                trail: held.trail.clone(),
                counts: held.counts.clone(),
                rate: held.pace.rate(now),
            })
        };
        shown.tracks.iter().filter_map(view).collect()
    }

    /// Counters of the tap, written by the shard.
    pub fn stats(&self) -> &KlvStats {
        &self.stats
    }

    /// Shows an observation and hands it to everybody who subscribed.
    pub fn show(&self, observation: Observation) {
        let observation = Arc::new(observation);
        self.shown.lock().take(&observation);
        if let Some(news) = &*self.news.lock() {
            // An error says that nobody listens.
            let _ = news.send(observation);
        }
    }

    /// The input is gone: subscriptions end.
    pub fn close(&self) {
        self.news.lock().take();
    }
}

impl Shown {
    fn take(&mut self, observation: &Shared) {
        let (sighting, now) = (&observation.sighting, observation.sighting.arrival);
        if self.source != sighting.source {
            self.source = sighting.source;
            // The way of a platform goes on over a short interruption; whether it is the same one, its place will tell.
            self.tracks.values_mut().for_each(|held| {
                *held = Held { trail: std::mem::take(&mut held.trail), last: held.last, ..Held::default() };
            });
        }
        if !self.tracks.contains_key(&sighting.track) && self.tracks.len() >= TRACKS_MOST {
            let arrival = |held: &Held| held.latest.as_ref().map_or(0, |latest| latest.sighting.arrival);
            let oldest = self.tracks.iter().min_by_key(|(_, held)| arrival(held)).map(|(&track, _)| track);
            oldest.and_then(|track| self.tracks.remove(&track));
        }
        let held = self.tracks.entry(sighting.track).or_default();
        held.pace.note(now);
        held.counts.take(observation);
        if let Some((time, place)) = observation.position() {
            if held.last.is_some_and(|last| jumped(last, place, now)) {
                held.trail = Track::default();
            }
            held.last = Some((place, now));
            held.trail.note(time, place);
        }
        if observation.accepted {
            held.accepted = Some(Arc::clone(observation));
        }
        held.latest = Some(Arc::clone(observation));
        self.latest = Some(Arc::clone(observation));
    }
}

impl Counts {
    fn take(&mut self, observation: &Observation) {
        let packet = &observation.packet;
        self.packets += 1;
        self.bytes += observation.sighting.bytes.len() as u64;
        self.checksum_errors += u64::from(matches!(packet.checksum, Checksum::Wrong { .. }));
        self.unknown += u64::from(matches!(packet.label, crate::wire::klv::Label::Other(_)));
        for issue in &packet.issues {
            let names = match issue.what {
                Fault::Salvaged(_) => &mut self.quirks,
                _ => &mut self.issues,
            };
            *names.entry(issue.what.name()).or_default() += 1;
        }
        if let Some(quirk) = observation.quirk {
            *self.quirks.entry(quirk.name()).or_default() += 1;
        }
    }
}

impl Pace {
    fn note(&mut self, now: Nanos) {
        let second = now / SECOND;
        self.since.get_or_insert(second);
        if second > self.second {
            let fresh = (second - self.second).min(SECONDS as u64);
            (0..fresh).for_each(|back| *self.slot(second - back) = 0);
            self.second = second;
        }
        let slot = self.slot(second);
        *slot = slot.saturating_add(1);
    }

    /// Packets a second over the last whole seconds, as far as there are any.
    fn rate(&self, now: Nanos) -> f64 {
        let Some(since) = self.since else { return 0.0 };
        let second = now / SECOND;
        // the first second is no whole one
        let first = (since + 1).max(second.saturating_sub(WINDOW));
        if first >= second {
            let begun = self.counts.iter().copied().map(f64::from).sum::<f64>();
            return begun / 2_f64.min((second - since.min(second) + 1) as f64);
        }
        let oldest = self.second.saturating_sub(SECONDS as u64 - 1);
        let count = (first..second).filter(|s| (oldest..=self.second).contains(s)).map(|s| self.count(s));
        count.sum::<f64>() / (second - first) as f64
    }

    fn count(&self, second: u64) -> f64 {
        self.counts.get((second % SECONDS as u64) as usize).copied().map_or(0.0, f64::from)
    }

    fn slot(&mut self, second: u64) -> &mut u32 {
        &mut self.counts[(second % SECONDS as u64) as usize]
    }
}

/// Whether a platform cannot have come from its last place to this one: it is another.
fn jumped((last, at): (Place, Nanos), place: Place, now: Nanos) -> bool {
    let seconds = now.saturating_sub(at) as f64 / SECOND as f64;
    last.look(place).range > NEAR + FASTEST * seconds
}

const SECOND: Nanos = 1_000_000_000;
/// Seconds that are counted apart, and those a rate is taken over.
const SECONDS: usize = 8;
const WINDOW: u64 = 5;
/// Observations that wait for a subscriber.
const SUBSCRIPTION: usize = 256;
/// Metres that a place may be off, and metres a second beyond which nothing flies here.
const NEAR: f64 = 5_000.0;
const FASTEST: f64 = 1_000.0;
