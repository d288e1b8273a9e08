//! What a stream's metadata says enters, the events that tell it to TAK leave, at their pace: platform, point of
//! interest, footprint. Never tells a place that the sender does not know, nor one that an error code stands for.

use std::time::Duration;

use super::event::{Element, Event, Point};
use super::pace::Pace;
use crate::inspect::geo::{self, Footprint, Place, Scene, turn};
use crate::wire::klv::{Set, TimeScale};

/// Who a stream is to TAK.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Uid of the platform; those of its parts are this and a suffix.
    pub uid: String,
    /// Name on the map; where it is `None`, what the metadata calls the platform.
    pub callsign: Option<String>,
    /// Whose it is.
    pub affiliation: Affiliation,
    /// What it is, behind the affiliation: `A-M-F-Q` is a military fixed-wing drone.
    pub platform: String,
    /// Where the picture is to be had.
    pub video: Option<Video>,
    /// How long an event holds.
    pub stale: Duration,
    /// Between two events of one uid that say nothing new.
    pub every: Duration,
    /// What item 2 counts.
    pub time_scale: TimeScale,
}

/// Whose something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affiliation {
    /// Ours.
    #[default]
    Friend,
    /// The other side's.
    Hostile,
    /// Nobody's side.
    Neutral,
    /// Not known.
    Unknown,
}

/// Where the picture is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// Uid of the video.
    pub uid: String,
    /// Name in the list of videos.
    pub alias: String,
    /// Public URL, with credentials only where that was allowed.
    pub url: String,
}

/// A moment, on two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// From any fixed beginning; never goes back.
    pub monotonic: Duration,
    /// Milliseconds since 1970.
    pub utc: u64,
}

/// Tells one stream.
#[derive(Debug)]
pub struct Reporter {
    identity: Identity,
    platform: Pace,
    interest: Pace,
    footprint: Pace,
    /// What was told and not taken back: platform, interest, footprint.
    shown: [bool; 3],
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            uid: String::new(),
            callsign: None,
            affiliation: Affiliation::default(),
            platform: "A-M-F-Q".into(),
            video: None,
            stale: Duration::from_secs(10),
            every: Duration::from_secs(1),
            time_scale: TimeScale::default(),
        }
    }
}

impl Identity {
    /// The type of the platform's events.
    pub fn kind(&self) -> String {
        let side = match self.affiliation {
            Affiliation::Friend => 'f',
            Affiliation::Hostile => 'h',
            Affiliation::Neutral => 'n',
            Affiliation::Unknown => 'u',
        };
        format!("a-{side}-{}", self.platform)
    }
}

impl Reporter {
    /// Tells a stream as `identity`.
    pub fn new(identity: Identity) -> Self {
        let pace = Pace::new(identity.every);
        Self { identity, platform: pace.clone(), interest: pace.clone(), footprint: pace, shown: [false; 3] }
    }

    /// Tells the same stream otherwise from now on; all of it is due.
    pub fn change(&mut self, identity: Identity) {
        *self = Self { shown: self.shown, ..Self::new(identity) };
    }

    /// The events that are due now; `set` is what holds, `scene` what it says of the world.
    pub fn report(&mut self, set: &Set<'_>, scene: &Scene, now: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        let at = now.monotonic;
        if let Some(sensor) = scene.sensor {
            let azimuth = scene.sight.map(|sight| sight.azimuth).or(scene.heading);
            if self.platform.is_due(at, sensor.place, azimuth) {
                self.shown[0] = true;
                events.push(self.platform(set, scene, sensor, now));
            }
        }
        if let Some(spot) = scene.target.or(scene.center)
            && self.interest.is_due(at, spot.place, None)
        {
            self.shown[1] = true;
            events.push(self.interest(set, spot, now));
        }
        if let Some(footprint) = &scene.footprint
            && let Some(middle) = middle(footprint)
            && self.footprint.is_due(at, middle, None)
        {
            self.shown[2] = true;
            events.push(self.footprint(set, footprint, middle, now));
        }
        events
    }

    /// Takes back what was told, parts before the whole: a task to delete for each. All of it is due anew.
    pub fn withdraw(&mut self, utc: u64) -> Vec<Event> {
        let [platform, interest, footprint] = self.shown;
        let identity = &self.identity;
        let kind = identity.kind();
        let told =
            [(footprint, FOOTPRINT, "u-d-f"), (interest, INTEREST, "b-m-p-s-p-i"), (platform, "", &*kind)];
        let told = told.into_iter().filter(|told| told.0);
        let events =
            told.map(|(_, part, kind)| delete(&format!("{}{part}", identity.uid), kind, utc)).collect();
        *self = Self::new(self.identity.clone());
        events
    }

    fn event(&self, set: &Set<'_>, uid: String, kind: String, how: &str, point: Point, now: Moment) -> Event {
        // the time is the metadata's own, so that a replay says when it was, but never later than now (a clock that is
        // ahead, or leap seconds); it holds by the clock on the wall
        let time = self.identity.time_scale.utc(set).map_or(now.utc, |micros| (micros / 1000).min(now.utc));
        let stale = now.utc.saturating_add(self.identity.stale.as_millis() as u64);
        Event { uid, kind, how: how.into(), time, start: time, stale, point, detail: Vec::new() }
    }

    fn callsign(&self, set: &Set<'_>) -> String {
        let said =
            [59, 4, 10].into_iter().find_map(|tag| set.text(tag).filter(|text| !text.trim().is_empty()));
        self.identity.callsign.as_deref().or(said).unwrap_or(&self.identity.uid).to_owned()
    }

    fn platform(&self, set: &Set<'_>, scene: &Scene, sensor: geo::Point, now: Moment) -> Event {
        let identity = &self.identity;
        let mut event = self.event(set, identity.uid.clone(), identity.kind(), "m-g", point(sensor), now);
        event.detail.push(Element::new("contact").with("callsign", self.callsign(set)));
        let course = scene.course.or(scene.heading);
        if course.is_some() || scene.speed.is_some() {
            let track = Element::new("track").with_some("course", course.map(decimal));
            event.detail.push(track.with_some("speed", scene.speed.map(decimal)));
        }
        event.detail.extend(sensor_view(set, scene));
        event.detail.push(Element::new("precisionlocation").with("geopointsrc", "GPS").with_some(
            "altsrc",
            sensor.height.map(|height| match height {
                geo::Height::Ellipsoid => "GPS",
                geo::Height::SeaLevel => "EGM96",
            }),
        ));
        if let Some(video) = &identity.video {
            event.detail.push(video_link(video, identity));
        }
        event.detail.push(Element::new("_flow-tags_").with("millrace", super::stamp::write(now.utc)));
        event
    }

    fn interest(&self, set: &Set<'_>, spot: geo::Point, now: Moment) -> Event {
        // ST 0805: 90 % errors brought to one sigma
        let (ce, le) = (set.number(45).map(|ce90| ce90 / 2.146), set.number(46).map(|le90| le90 / 1.645));
        let place = Point { ce, le, ..point(spot) };
        let uid = format!("{}{INTEREST}", self.identity.uid);
        let mut event = self.event(set, uid, "b-m-p-s-p-i".into(), "m-p", place, now);
        event.detail.push(Element::new("contact").with("callsign", format!("{} SPI", self.callsign(set))));
        event.detail.push(self.link());
        event
    }

    fn footprint(&self, set: &Set<'_>, footprint: &Footprint, middle: Place, now: Moment) -> Event {
        let uid = format!("{}{FOOTPRINT}", self.identity.uid);
        let place = Point {
            latitude: middle.latitude,
            longitude: middle.longitude,
            hae: Some(middle.hae),
            ce: None,
            le: None,
        };
        let mut event = self.event(set, uid, "u-d-f".into(), "m-p", place, now);
        let mut corners: Vec<Place> = footprint.corners.clone();
        if !footprint.is_open {
            // a polygon ends where it began; an open one stays a line
            corners.extend(footprint.corners.first().copied());
        }
        for corner in corners {
            let at =
                format!("{},{},{}", degrees(corner.latitude), degrees(corner.longitude), decimal(corner.hae));
            event.detail.push(Element::new("link").with("point", at));
        }
        event
            .detail
            .push(Element::new("contact").with("callsign", format!("{} footprint", self.callsign(set))));
        event.detail.push(Element::new("strokeColor").with("value", "-256"));
        event.detail.push(Element::new("strokeWeight").with("value", "2.0"));
        // yellow, one part in eight
        event.detail.push(Element::new("fillColor").with("value", "536870656"));
        event.detail.push(Element::new("labels_on").with("value", "false"));
        event.detail.push(self.link());
        event
    }

    /// To the platform that it is a part of.
    fn link(&self) -> Element {
        Element::new("link")
            .with("relation", "p-p")
            .with("uid", &self.identity.uid)
            .with("type", self.identity.kind())
    }
}

/// A task to delete. Whom it is about says the link, of which ATAK wants uid, relation and type; without `__forcedelete` it
/// only ages markers, and leaves shapes.
fn delete(uid: &str, kind: &str, utc: u64) -> Event {
    Event {
        uid: format!("{uid}-delete"),
        kind: "t-x-d-d".into(),
        how: "m-g".into(),
        time: utc,
        start: utc,
        stale: utc.saturating_add(DELETE_STALE),
        point: Point { latitude: 0.0, longitude: 0.0, hae: None, ce: None, le: None },
        detail: vec![
            Element::new("link").with("relation", "p-p").with("uid", uid).with("type", kind),
            Element::new("__forcedelete"),
        ],
    }
}

/// `<sensor>`: ATAK draws a cone only where azimuth, field of view and range are all there, CloudTAK none where the
/// azimuth is exactly 0. `hideFov` and `fovLabels` switch on by being there, whatever they say, so they are not.
fn sensor_view(set: &Set<'_>, scene: &Scene) -> Option<Element> {
    let sight = scene.sight?;
    let range = scene.range.and_then(geo::Range::meters);
    let azimuth = turn(sight.azimuth);
    let azimuth = if azimuth < 0.005 { 0.01 } else { azimuth };
    let angle = |value: Option<f64>| value.filter(|value| (0.0..360.0).contains(value)).map(decimal);
    let roll = sight.roll.map(|roll| if turn(roll) > 180.0 { turn(roll) - 360.0 } else { turn(roll) });
    Some(
        Element::new("sensor")
            // rounding may not make a whole circle of it
            .with("azimuth", decimal(azimuth.min(359.99)))
            .with_some("elevation", sight.elevation.map(|elevation| decimal(elevation.clamp(-90.0, 90.0))))
            .with_some("roll", roll.map(decimal))
            .with_some("fov", angle(scene.fov.0))
            .with_some("vfov", angle(scene.fov.1))
            .with_some("range", range.map(decimal))
            .with_some("model", set.text(11).filter(|text| !text.trim().is_empty())),
    )
}

/// `<__video>`: the URL goes into `address` as a whole, under protocol `raw`, since ATAK drops the query from any other
/// (an SRT stream id or a token would be lost); with a query there is no port beside it.
fn video_link(video: &Video, identity: &Identity) -> Element {
    let port = if video.url.contains('?') { None } else { port(&video.url) };
    let entry = Element::new("ConnectionEntry")
        .with("uid", &video.uid)
        .with("alias", &video.alias)
        .with("protocol", "raw")
        .with("address", &video.url)
        .with("port", port.map_or_else(|| "-1".to_owned(), |port| port.to_string()))
        .with("path", "")
        .with("roverPort", "-1")
        .with("networkTimeout", "5000")
        .with("bufferTime", "-1")
        .with("rtspReliable", "0")
        .with("ignoreEmbeddedKLV", "false");
    Element::new("__video")
        .with("uid", &video.uid)
        .with("url", &video.url)
        .with("sensor", &identity.uid)
        .with("spi", format!("{}{INTEREST}", identity.uid))
        .holding(entry)
}

/// The port that a URL names.
fn port(url: &str) -> Option<u16> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', '#']).next()?;
    let (_, port) = host.rsplit_once(':')?;
    port.parse().ok()
}

fn point(point: geo::Point) -> Point {
    Point {
        latitude: point.place.latitude,
        longitude: point.place.longitude,
        hae: point.height.map(|_| point.place.hae),
        ce: None,
        le: None,
    }
}

/// The middle of the corners, by way of earth-centred coordinates.
fn middle(footprint: &Footprint) -> Option<Place> {
    let count = footprint.corners.len();
    let first = footprint.corners.first()?;
    let sum = footprint.corners.iter().skip(1).fold(first.ecef(), |sum, corner| sum + corner.ecef());
    let middle = Place::from_ecef(sum * (1.0 / count as f64));
    Place::new(middle.latitude, middle.longitude, first.hae)
}

/// Two decimals, and no exponent.
fn decimal(value: f64) -> String {
    format!("{value:.2}")
}

/// Seven decimals: a centimetre.
fn degrees(value: f64) -> String {
    format!("{value:.7}")
}

/// How long a task to delete holds, milliseconds: clocks of clients are off by less.
const DELETE_STALE: u64 = 60_000;
/// What uids of parts end in.
const INTEREST: &str = "-spi";
const FOOTPRINT: &str = "-footprint";
