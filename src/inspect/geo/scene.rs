//! A set of ST 0601 (or EG 0104) items enters, what it says of the world leaves: where the sensor is, where it looks,
//! what it sees. Never makes a place from an error code, and says what each figure comes from.

use super::earth::{Look, Place, Vector, between, turn};
use super::footprint::{self, Footprint};
use super::geoid;
use crate::wire::klv::{EG0104, Quirk, Set, Value, eg0104_tag};

/// What a set says of the world.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scene {
    /// Where the sensor is, and so the platform.
    pub sensor: Option<Point>,
    /// What the middle of the picture shows.
    pub center: Option<Point>,
    /// What is tracked, where that is said.
    pub target: Option<Point>,
    /// Heading of the platform, degrees from true north.
    pub heading: Option<f64>,
    /// Course over ground, degrees from true north.
    pub course: Option<f64>,
    /// Speed over ground, m/s.
    pub speed: Option<f64>,
    /// Where the sensor looks.
    pub sight: Option<Sight>,
    /// Horizontal and vertical field of view, degrees.
    pub fov: (Option<f64>, Option<f64>),
    /// Distance from sensor to ground along the line of sight.
    pub range: Option<Range>,
    /// Width of what the picture shows, metres.
    pub width: Option<Width>,
    /// The ground that the picture shows.
    pub footprint: Option<Footprint>,
    /// Targets that VMTI found.
    pub targets: Vec<Target>,
}

/// A place, and what its height comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The place; height 0 where none is known.
    pub place: Place,
    /// What the height comes from; `None` when the set has none.
    pub height: Option<Height>,
}

/// What a height comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Height {
    /// Said above the ellipsoid.
    Ellipsoid,
    /// Said above mean sea level, brought to the ellipsoid through EGM96.
    SeaLevel,
}

/// Where the sensor looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// Degrees clockwise from true north.
    pub azimuth: f64,
    /// Degrees above the horizontal; `None` where only the azimuth is known.
    pub elevation: Option<f64>,
    /// Degrees of the picture's clockwise turn about the line of sight, from level; `None` where not known.
    pub roll: Option<f64>,
    /// What it comes from.
    pub source: Source,
}

/// What a line of sight comes from, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The bearing from the sensor to the frame centre.
    FrameCenter,
    /// Heading, pitch and roll of the platform, and azimuth and elevation of the sensor on it.
    Rotation,
    /// Item 18, which in this stream is the absolute azimuth.
    AbsoluteAzimuth,
    /// Heading plus relative azimuth: off by degrees when the platform banks.
    Heading,
    /// Said as such (EG 0104).
    Stated,
}

/// Distance along the line of sight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Metres, as the sender says (item 21).
    pub stated: Option<f64>,
    /// Metres, from sensor to frame centre.
    pub computed: Option<f64>,
}

/// Width of what the picture shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Width {
    /// Metres.
    pub meters: f64,
    /// Whether it was computed from range and field of view.
    pub is_computed: bool,
}

/// A target that VMTI found.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its number.
    pub id: u64,
    /// Where it is.
    pub point: Point,
    /// How sure it is, percent.
    pub confidence: Option<f64>,
    /// What it does, as ST 0903 names it.
    pub status: Option<&'static str>,
}

/// Whether item 18 of a stream holds the absolute azimuth, as some senders have it. One such packet may be chance; a
/// stream of them is not.
#[derive(Debug, Clone, Default)]
pub struct AzimuthJudge {
    /// How many of the last packets spoke for it, less those against.
    votes: i32,
}

impl AzimuthJudge {
    /// Looks at a packet.
    pub fn take(&mut self, set: &Set<'_>) {
        let (Some(sensor), Some(center), Some(said)) = (sensor(set), center(set), set.number(18)) else {
            return;
        };
        let look = sensor.place.look(center.place);
        // at steep angles every azimuth fits
        if look.elevation < -75.0 {
            return;
        }
        let relative =
            rotation(set).map(|(sight, _)| sight.azimuth()).or(set.number(5).map(|h| turn(h + said)));
        let Some(relative) = relative else { return };
        let (as_absolute, as_relative) = (between(said, look.azimuth), between(relative, look.azimuth));
        // only a packet in which the two readings lie apart says anything
        if as_absolute < 1.0 && as_relative > 5.0 {
            self.votes = (self.votes + 1).min(VOTES);
        } else if as_relative < as_absolute {
            self.votes = (self.votes - 1).max(-VOTES);
        }
    }

    /// Whether item 18 is taken for the absolute azimuth.
    pub fn is_absolute(&self) -> bool {
        self.votes >= VOTES / 2
    }

    /// The same, by the name of the deviation.
    pub fn quirk(&self) -> Option<Quirk> {
        self.is_absolute().then_some(Quirk::AbsoluteAzimuth)
    }
}

impl Scene {
    /// What a set says. `absolute` is what [`AzimuthJudge`] found out about the stream.
    pub fn read(set: &Set<'_>, absolute: bool) -> Self {
        let sensor = sensor(set);
        let center = center(set);
        let look = sensor.zip(center).map(|(sensor, center)| sensor.place.look(center.place));
        // between places without heights only the bearing means anything
        let level = sensor.zip(center).is_none_or(|(a, b)| a.height.is_none() || b.height.is_none());
        let rotation = if absolute { None } else { rotation(set) };
        let sight = sight(set, look, level, rotation, absolute);
        let fov = (set.number(16), set.number(17));
        // a range of zero is no range: some senders fill the item so
        let range = Range {
            stated: set.number(21).filter(|&range| range > 0.0),
            computed: look.map(|look| look.range).filter(|&range| range > 0.0 && !level),
        };
        let range = (range.stated.is_some() || range.computed.is_some()).then_some(range);
        let course = set.number(112).or_else(|| velocity(set).map(|(course, _)| course));
        let speed = set.number(56).or_else(|| velocity(set).map(|(_, speed)| speed));
        Self {
            sensor,
            center,
            target: target(set),
            heading: set.number(5),
            course,
            speed,
            sight,
            fov,
            range,
            width: width(set, fov.0, range),
            footprint: footprint::read(set, sensor, center, sight, fov),
            targets: targets(set, center),
        }
    }
}

impl Range {
    /// The better of the two: what the sender says, unless it lies far off what the places say.
    pub fn meters(self) -> Option<f64> {
        if self.agrees() == Some(false) { self.computed } else { self.stated.or(self.computed) }
    }

    /// Relative difference of what is said and what is computed.
    pub fn error(self) -> Option<f64> {
        let (stated, computed) = (self.stated?, self.computed?);
        Some((stated - computed).abs() / computed)
    }

    /// Whether they agree within a twentieth; `None` where one is missing.
    pub fn agrees(self) -> Option<bool> {
        self.error().map(|error| error <= 0.05)
    }
}

impl Sight {
    /// The line of sight as north, east, down; level where no elevation is known.
    pub fn direction(self) -> Vector {
        Vector::pointing(self.azimuth, self.elevation.unwrap_or(0.0))
    }
}

impl Source {
    /// A name for machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FrameCenter => "frame_center",
            Self::Rotation => "rotation",
            Self::AbsoluteAzimuth => "absolute_azimuth",
            Self::Heading => "heading",
            Self::Stated => "stated",
        }
    }
}

/// The place of the sensor (13, 14), its height from 104, 75 or 15.
fn sensor(set: &Set<'_>) -> Option<Point> {
    point(set.number(13)?, set.number(14)?, set.number(104).or(set.number(75)), set.number(15))
}

/// The frame centre (23, 24), its height from 78 or 25.
fn center(set: &Set<'_>) -> Option<Point> {
    point(set.number(23)?, set.number(24)?, set.number(78), set.number(25))
}

/// The tracked target (40, 41, 42); its height counts as that of the frame centre does.
fn target(set: &Set<'_>) -> Option<Point> {
    let (hae, msl) = if set.number(78).is_some() { (set.number(42), None) } else { (None, set.number(42)) };
    point(set.number(40)?, set.number(41)?, hae, msl)
}

fn point(latitude: f64, longitude: f64, hae: Option<f64>, msl: Option<f64>) -> Option<Point> {
    let (height, source) = match (hae, msl) {
        (Some(hae), _) => (hae, Some(Height::Ellipsoid)),
        (None, Some(msl)) => (geoid::ellipsoidal(latitude, longitude, msl), Some(Height::SeaLevel)),
        (None, None) => (0.0, None),
    };
    Some(Point { place: Place::new(latitude, longitude, height)?, height: source })
}

/// The line of sight and the picture's right-hand side, as north, east, down, from the whole rotation: platform by
/// heading, pitch and roll, sensor on it by azimuth, elevation and roll.
fn rotation(set: &Set<'_>) -> Option<(Vector, Vector)> {
    let heading = set.number(5)?;
    let (pitch, roll) = (set.number(90).or(set.number(6))?, set.number(91).or(set.number(7))?);
    let (azimuth, elevation) = (set.number(18)?, set.number(19)?);
    let turn = |v: Vector| v.pitch(elevation).yaw(azimuth).roll(roll).pitch(pitch).yaw(heading);
    let right = Vector { x: 0.0, y: 1.0, z: 0.0 }.roll(set.number(20).unwrap_or(0.0));
    Some((turn(Vector::X), turn(right)))
}

fn sight(
    set: &Set<'_>,
    look: Option<Look>,
    level: bool,
    rotation: Option<(Vector, Vector)>,
    absolute: bool,
) -> Option<Sight> {
    let rotated = rotation.map(|(sight, right)| Sight {
        azimuth: sight.azimuth(),
        elevation: Some(sight.elevation()),
        roll: Some(lean(sight, right)),
        source: Source::Rotation,
    });
    // the picture's own roll, from level: what the rotation says of it, else item 20
    let roll = rotated.and_then(|sight| sight.roll).or(set.number(20));
    let turned = rotated.and_then(|sight| sight.elevation);
    let toward = |look: Look| Sight {
        azimuth: look.azimuth,
        elevation: if level { turned } else { Some(look.elevation) },
        roll,
        source: Source::FrameCenter,
    };
    match (look, rotated) {
        // straight down every bearing is as good as any other: a metre of error turns it
        (Some(look), Some(rotated)) if (if level { turned } else { Some(look.elevation) }) < Some(NADIR) => {
            Some(rotated)
        }
        (Some(look), _) if look.range > 0.0 => Some(toward(look)),
        (_, Some(rotated)) => Some(rotated),
        _ if absolute => set.number(18).map(|azimuth| Sight {
            azimuth: turn(azimuth),
            elevation: set.number(19),
            roll,
            source: Source::AbsoluteAzimuth,
        }),
        _ if set.spec == &EG0104 => set.number(eg0104_tag::ANGLE_TO_NORTH).map(|azimuth| Sight {
            azimuth: turn(azimuth),
            elevation: set.number(eg0104_tag::OBLIQUITY).map(|angle| 180.0 - angle),
            roll: set.number(eg0104_tag::SENSOR_ROLL),
            source: Source::Stated,
        }),
        _ => set.number(5).zip(set.number(18)).map(|(heading, azimuth)| Sight {
            azimuth: turn(heading + azimuth),
            elevation: set.number(19),
            roll,
            source: Source::Heading,
        }),
    }
}

/// How far the right-hand side of the picture hangs below the horizon, degrees.
fn lean(sight: Vector, right: Vector) -> f64 {
    // level and to the right of the line of sight
    let level = Vector { x: -sight.y, y: sight.x, z: 0.0 };
    let Some(level) = level.unit() else { return right.azimuth() - 90.0 };
    let below = sight.cross(level);
    right.dot(below).atan2(right.dot(level)).to_degrees()
}

/// Course and speed over ground from the velocities (79, 80).
fn velocity(set: &Set<'_>) -> Option<(f64, f64)> {
    let (north, east) = (set.number(79)?, set.number(80)?);
    Some((turn(east.atan2(north).to_degrees()), north.hypot(east)))
}

fn width(set: &Set<'_>, fov: Option<f64>, range: Option<Range>) -> Option<Width> {
    let said = set.number(96).or(set.number(22)).filter(|&width| width > 0.0);
    if let Some(meters) = said {
        return Some(Width { meters, is_computed: false });
    }
    let fov = fov.filter(|&fov| fov > 0.0 && fov < 180.0)?;
    let meters = 2.0 * range?.meters()? * (fov / 2.0).to_radians().tan();
    Some(Width { meters, is_computed: true })
}

/// The targets of item 74 that have a place: their own (17), or an offset from the frame centre (10, 11, 12).
fn targets(set: &Set<'_>, center: Option<Point>) -> Vec<Target> {
    let Some(vmti) = set.value(74).and_then(Value::set) else { return Vec::new() };
    let series = vmti.value(101).map(Value::list).unwrap_or_default();
    let one = |target: &Value<'_>| {
        let items = target.field("items").and_then(Value::set)?;
        let own = items.value(17).and_then(|place| {
            let part = |name| place.field(name).and_then(Value::number);
            point(part("latitude")?, part("longitude")?, part("hae"), None)
        });
        let offset = || {
            let center = center?;
            let (north, east) = (items.number(10)?, items.number(11)?);
            let height = items.number(12);
            let found = point(center.place.latitude + north, center.place.longitude + east, height, None)?;
            // without a height of its own it stands where the frame centre does
            Some(if height.is_some() {
                found
            } else {
                Point { place: Place { hae: center.place.hae, ..found.place }, height: center.height }
            })
        };
        Some(Target {
            id: target.field("id").and_then(Value::count)?,
            point: own.or_else(offset)?,
            confidence: items.number(5),
            status: match items.value(23) {
                Some(Value::Choice(choice)) => Some(choice.label),
                _ => None,
            },
        })
    };
    series.iter().filter_map(one).take(TARGETS_MAX).collect()
}

/// Within five degrees of straight down the azimuth comes from the rotation.
const NADIR: f64 = -85.0;

/// Votes that a stream can gather for its item 18 being absolute.
const VOTES: i32 = 10;

/// Targets of one set that are placed.
const TARGETS_MAX: usize = 1000;
