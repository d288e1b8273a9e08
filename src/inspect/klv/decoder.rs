//! Sightings enter, observations leave: the packet decoded, what holds behind it, and the scene of that. No queue, no
//! clock; one decoder serves all tracks of a stream.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::tap::Sighting;
use crate::inspect::geo::{AzimuthJudge, Place, Scene};
use crate::media::Nanos;
use crate::wire::klv::{Label, Packet, Quirk, Set, State};

/// What one KLV packet told, and what is known with it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The packet as it passed.
    pub sighting: Sighting,
    /// How many packets of the stream were decoded before it.
    pub number: u64,
    /// The packet, decoded, with what is wrong with it.
    pub packet: Packet<'static>,
    /// Whether the state took it in: it has a set that is kept, and its checksum is not wrong.
    pub accepted: bool,
    /// What holds on its track behind it, by report on change (MISB ST 0107), in the order of tags. The items of EG 0104
    /// hold until the next packet.
    pub set: Set<'static>,
    /// When each tag of `set` was last sent, on the clock of the shards, in the order of tags.
    pub sent: Vec<(u32, Nanos)>,
    /// What `set` says of the world.
    pub scene: Scene,
    /// A deviation of the whole track that no single packet shows.
    pub quirk: Option<Quirk>,
}

/// Makes observations of sightings.
#[derive(Debug, Default)]
pub struct Decoder {
    source: u32,
    number: u64,
    lanes: Vec<Lane>,
}

/// What is kept of a track.
#[derive(Debug)]
struct Lane {
    track: u16,
    arrival: Nanos,
    state: State,
    judge: AzimuthJudge,
    /// What holds of a set that has no report on change.
    whole: Option<(Set<'static>, Nanos)>,
    scene: Scene,
}

impl Decoder {
    /// Decodes a packet.
    pub fn take(&mut self, sighting: Sighting) -> Observation {
        if self.source != sighting.source {
            // Another sender: nothing of what the one before said holds.
            self.source = sighting.source;
            self.lanes.clear();
        }
        let packet = Packet::read(&sighting.bytes).into_owned();
        let number = self.number;
        self.number += 1;
        let lane = self.lane(&sighting);
        // Two packets of one datagram arrive together, and yet one follows the other.
        lane.arrival = sighting.arrival.max(lane.arrival + 1);
        let now = lane.arrival;
        let mut accepted = lane.state.take(&packet, Duration::from_nanos(now));
        if accepted {
            lane.judge.take(&packet.set);
            lane.whole = None;
            lane.state.expire(Duration::from_nanos(now));
        } else if packet.label == Label::Predator {
            lane.whole = Some((packet.set.clone(), now));
            accepted = true;
        }
        let (set, sent) = lane.holds(now);
        if accepted {
            lane.scene = Scene::read(&set, lane.judge.is_absolute());
        }
        let (scene, quirk) = (lane.scene.clone(), lane.judge.quirk());
        Observation { sighting, number, packet, accepted, set, sent, scene, quirk }
    }

    fn lane(&mut self, sighting: &Sighting) -> &mut Lane {
        let at = self.lanes.iter().position(|lane| lane.track == sighting.track).unwrap_or_else(|| {
            if self.lanes.len() >= TRACKS_MOST {
                // The one that has been silent for the longest time makes room.
                let oldest = self.lanes.iter().enumerate().min_by_key(|(_, lane)| lane.arrival);
                if let Some((at, _)) = oldest {
                    self.lanes.swap_remove(at);
                }
            }
            self.lanes.push(Lane::new(sighting.track));
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }
}

impl Lane {
    fn new(track: u16) -> Self {
        Self {
            track,
            arrival: 0,
            state: State::default(),
            judge: AzimuthJudge::default(),
            whole: None,
            scene: Scene::default(),
        }
    }

    /// The items that hold, and when each tag was sent.
    fn holds(&self, now: Nanos) -> (Set<'static>, Vec<(u32, Nanos)>) {
        if let Some((set, at)) = &self.whole {
            let mut sent: Vec<(u32, Nanos)> = set.items.iter().map(|item| (item.tag, *at)).collect();
            sent.sort_unstable();
            sent.dedup();
            return (set.clone(), sent);
        }
        let time = Duration::from_nanos(now);
        let set = self.state.set(time);
        let mut sent: Vec<(u32, Nanos)> = Vec::with_capacity(set.items.len());
        for item in &set.items {
            if sent.last().is_none_or(|&(tag, _)| tag != item.tag)
                && let Some(age) = self.state.age(item.tag, time)
            {
                sent.push((item.tag, now.saturating_sub(age.as_nanos() as Nanos)));
            }
        }
        (set, sent)
    }
}

impl Observation {
    /// When a tag of the set was last sent, on the clock of the shards.
    pub fn sent_at(&self, tag: u32) -> Option<Nanos> {
        let at = self.sent.binary_search_by_key(&tag, |&(tag, _)| tag).ok()?;
        self.sent.get(at).map(|&(_, at)| at)
    }

    /// How long before `now` a tag of the set was last sent; none when it is no longer known (ST 0107: 30 s).
    pub fn age(&self, tag: u32, now: Nanos) -> Option<Duration> {
        let age = now.saturating_sub(self.sent_at(tag)?);
        (age <= HOLD).then(|| Duration::from_nanos(age))
    }

    /// Microseconds since 1970, as the packet says, in the sender's time scale.
    pub fn time(&self) -> Option<u64> {
        self.packet.time()
    }

    /// Microseconds since 1970 at its arrival.
    pub fn wall_micros(&self) -> u64 {
        let since = self.sighting.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.as_micros() as u64
    }

    /// Where the platform is, and when that was (the sender's time, else that of the arrival), in microseconds.
    pub fn position(&self) -> Option<(u64, Place)> {
        let point = self.scene.sensor.filter(|_| self.accepted)?;
        Some((self.time().unwrap_or_else(|| self.wall_micros()), point.place))
    }
}

/// What is shared with those who subscribe.
pub(super) type Shared = Arc<Observation>;
/// Tracks of a stream that are followed at the same time.
pub(super) const TRACKS_MOST: usize = 16;
/// What was not repeated for so long is no longer known (ST 0107).
const HOLD: Nanos = 30_000_000_000;
