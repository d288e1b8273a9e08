//! Packets enter, one GeoJSON FeatureCollection leaves, feature by feature, so that it may be of any length. Never keeps
//! more of a flight than an hour of its track.

use std::collections::BTreeMap;
use std::io::{self, Write};

use millrace::inspect::geo::{AzimuthJudge, Scene, Track, collect};
use millrace::wire::klv::{Checksum, Label};
use serde_json::Value as Json;

use super::json::stamp;
use super::{Found, Render};

/// Writes scenes and tracks.
pub(super) struct GeoJson {
    /// Seconds between scenes.
    every: f64,
    begun: bool,
    first: bool,
    flights: BTreeMap<Key, Flight>,
}

type Key = (Option<u16>, Option<u16>);

/// What one stream of metadata says over time.
#[derive(Default)]
struct Flight {
    judge: AzimuthJudge,
    track: Track,
    places: usize,
    last_time: u64,
    /// When the last scene was drawn.
    drawn: Option<f64>,
}

impl GeoJson {
    pub(super) fn new(every: f64) -> Self {
        Self { every, begun: false, first: true, flights: BTreeMap::new() }
    }

    fn begin(&mut self, to: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        to.write_all(b"{\"type\":\"FeatureCollection\",\"features\":[\n")
    }
}

impl Render for GeoJson {
    fn packet(&mut self, found: &Found<'_>, to: &mut dyn Write) -> io::Result<()> {
        let packet = &found.packet;
        let wrong = matches!(packet.checksum, Checksum::Wrong { .. });
        if wrong || !matches!(packet.label, Label::Uas | Label::Predator) {
            return Ok(());
        }
        self.begin(to)?;
        let key = (found.program, found.pid);
        let flight = self.flights.entry(key).or_default();
        flight.judge.take(&found.set);
        let scene = Scene::read(&found.set, flight.judge.is_absolute());
        if let (Some(time), Some(sensor)) = (packet.time(), scene.sensor) {
            // a time that went back starts a track anew, and a full one would lose its beginning
            if time < flight.last_time || flight.places >= TRACK_MOST {
                write_all(track(flight), key, None, &mut self.first, to)?;
                (flight.track, flight.places) = (Track::default(), 0);
            }
            flight.last_time = time;
            flight.track.note(time, sensor.place);
            flight.places = flight.track.places().count();
        }
        let now = found.seconds.unwrap_or(0.0);
        if flight.drawn.is_some_and(|drawn| (0.0..self.every).contains(&(now - drawn))) {
            return Ok(());
        }
        flight.drawn = Some(now);
        let scene = collect(&scene, &Track::default(), packet.time());
        write_all(scene, key, packet.time(), &mut self.first, to)
    }

    fn end(&mut self, to: &mut dyn Write) -> io::Result<()> {
        self.begin(to)?;
        for (key, flight) in std::mem::take(&mut self.flights) {
            write_all(track(&flight), key, None, &mut self.first, to)?;
        }
        to.write_all(b"\n]}\n")
    }
}

fn track(flight: &Flight) -> Json {
    collect(&Scene::default(), &flight.track, None)
}

/// Writes the features of a collection, each with where it came and when.
fn write_all(
    mut collection: Json,
    (program, pid): Key,
    time: Option<u64>,
    first: &mut bool,
    to: &mut dyn Write,
) -> io::Result<()> {
    let features = collection.get_mut("features").map(Json::take).unwrap_or_default();
    let Json::Array(features) = features else { return Ok(()) };
    for mut feature in features {
        if let Some(Json::Object(properties)) = feature.get_mut("properties") {
            let mut add = |name: &str, value: Option<Json>| {
                if let Some(value) = value {
                    properties.insert(name.into(), value);
                }
            };
            add("program", program.map(Json::from));
            add("pid", pid.map(Json::from));
            add("time", time.map(Json::from));
            add("time_utc", time.map(stamp).map(Json::from));
        }
        if !std::mem::replace(first, false) {
            to.write_all(b",\n")?;
        }
        serde_json::to_writer(&mut *to, &feature)?;
    }
    Ok(())
}

/// Places of a track in one feature: as many as a [`Track`] keeps.
const TRACK_MOST: usize = 3600;
