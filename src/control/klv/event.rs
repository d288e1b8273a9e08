//! Observations enter, JSON leaves: events of a stream, each encoded once for everybody who made the same choice, and the
//! document of an input. The one place that says how KLV looks in the API.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use parking_lot::Mutex;
use serde::ser::{Serialize, Serializer};

use super::choice::Fields;
use crate::inspect::klv::{Observation, TrackView};
use crate::store::InputId;
use crate::telemetry::KlvStats;
use crate::wire::klv::{Checksum, Issue, Item};

/// Makes events of one input for one choice of items.
#[derive(Debug)]
pub(super) struct Encoder {
    input: InputId,
    fields: Fields,
    /// The last events by the numbers of their observations: clients follow one another closely.
    made: Mutex<VecDeque<(u64, Bytes)>>,
}

impl Encoder {
    pub(super) fn new(input: InputId, fields: Fields) -> Self {
        Self { input, fields, made: Mutex::default() }
    }

    /// The event of an observation, one line of JSON with its line feed, which says that nothing was lost before it.
    pub(super) fn encode(&self, observation: &Observation) -> Bytes {
        // Under the lock: the second client waits for the first and then has it for nothing.
        let mut made = self.made.lock();
        if let Some((_, text)) = made.iter().rev().find(|(number, _)| *number == observation.number) {
            return text.clone();
        }
        let event = Event {
            dropped: 0,
            kind: "klv",
            input_id: self.input,
            number: observation.number,
            head: Head(observation),
            items: Items { observation, aged: Duration::ZERO, fields: &self.fields },
            issues: &observation.packet.issues,
        };
        let mut text = Vec::with_capacity(4096);
        // Numbers, texts and lists into memory: nothing of it can fail.
        if serde_json::to_writer(&mut text, &event).is_err() {
            text.clear();
        }
        text.push(b'\n');
        let text = Bytes::from(text);
        if made.len() >= KEPT {
            made.pop_front();
        }
        made.push_back((observation.number, text.clone()));
        text
    }
}

/// The same event for a client that lost so many before it.
pub(super) fn with_dropped(event: Bytes, dropped: u64) -> Bytes {
    match event.strip_prefix(NONE_DROPPED) {
        Some(rest) if dropped > 0 => [format!("{{\"dropped\":{dropped},").as_bytes(), rest].concat().into(),
        _ => event,
    }
}

/// An event of the stream.
#[derive(serde::Serialize)]
struct Event<'a> {
    /// First, so that another number can be put in its place.
    dropped: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    input_id: InputId,
    number: u64,
    #[serde(flatten)]
    head: Head<'a>,
    items: Items<'a>,
    issues: &'a [Issue],
}

/// The answer to `GET …/klv`.
#[derive(serde::Serialize)]
pub(super) struct Document<'a> {
    pub(super) input_id: InputId,
    pub(super) counters: &'a KlvStats,
    pub(super) tracks: Vec<Track<'a>>,
}

/// A track in the document.
#[derive(serde::Serialize)]
pub(super) struct Track<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    age_ms: u64,
    /// Packets a second.
    rate: f64,
    packets: u64,
    bytes: u64,
    checksum_errors: u64,
    unknown_sets: u64,
    issues: &'a std::collections::BTreeMap<&'static str, u64>,
    quirks: &'a std::collections::BTreeMap<&'static str, u64>,
    items: Items<'a>,
    last_issues: &'a [Issue],
}

impl<'a> Track<'a> {
    /// What is known of a track, `aged` after its newest observation.
    pub(super) fn new(view: &'a TrackView, aged: Duration, fields: &'a Fields) -> Self {
        let (latest, counts) = (&*view.latest, &view.counts);
        let told = view.accepted.as_deref().unwrap_or(latest);
        let between = latest.sighting.arrival.saturating_sub(told.sighting.arrival);
        Self {
            head: Head(latest),
            age_ms: millis(aged),
            rate: (view.rate * 100.0).round() / 100.0,
            packets: counts.packets,
            bytes: counts.bytes,
            checksum_errors: counts.checksum_errors,
            unknown_sets: counts.unknown,
            issues: &counts.issues,
            quirks: &counts.quirks,
            items: Items { observation: told, aged: aged + Duration::from_nanos(between), fields },
            last_issues: &latest.packet.issues,
        }
    }
}

/// What is known of a packet besides its items.
struct Head<'a>(&'a Observation);

impl Serialize for Head<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Carried {
            declared: Option<&'static str>,
            actual: &'static str,
        }
        #[derive(serde::Serialize)]
        struct Fields<'a> {
            pid: u16,
            program: Option<u16>,
            stream_type: Option<u8>,
            stream_id: Option<u8>,
            carriage: Carried,
            pts: Option<u64>,
            received_us: u64,
            timestamp_us: Option<u64>,
            set: &'static str,
            checksum: &'a Checksum,
            accepted: bool,
        }
        let (sighting, packet) = (&self.0.sighting, &self.0.packet);
        Fields {
            pid: sighting.track,
            program: sighting.program,
            stream_type: sighting.stream_type,
            stream_id: sighting.stream_id,
            carriage: Carried {
                declared: sighting.declared.map(|carriage| carriage.name()),
                actual: sighting.carriage.name(),
            },
            pts: sighting.pts,
            received_us: self.0.wall_micros(),
            timestamp_us: self.0.time(),
            set: packet.set.spec.name,
            checksum: &packet.checksum,
            accepted: self.0.accepted,
        }
        .serialize(to)
    }
}

/// The items that hold, each with its age; of a packet that changed nothing its own.
struct Items<'a> {
    observation: &'a Observation,
    /// Time since the observation.
    aged: Duration,
    fields: &'a Fields,
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Aged<'a> {
            #[serde(flatten)]
            item: &'a Item<'static>,
            age_ms: u64,
        }
        let observation = self.observation;
        let now = observation.sighting.arrival + self.aged.as_nanos() as u64;
        let accepted = observation.accepted;
        let set = if accepted { &observation.set } else { &observation.packet.set };
        to.collect_seq(set.items.iter().filter(|item| self.fields.has(item.tag)).filter_map(|item| {
            let age = if accepted { observation.age(item.tag, now)? } else { self.aged };
            Some(Aged { item, age_ms: millis(age) })
        }))
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// Makes an encoder shared.
pub(super) type Shared = Arc<Encoder>;
/// How an event begins that nothing was lost before.
const NONE_DROPPED: &[u8] = b"{\"dropped\":0,";
/// Events that are kept for clients that are a little behind.
const KEPT: usize = 64;
