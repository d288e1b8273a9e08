//! What the picture shows of the ground: corners that the sender gives, or rays through the picture's corners. Never
//! closes a footprint that reaches over the horizon.

use super::earth::{Place, Vector};
use super::scene::{Point, Sight};
use crate::wire::klv::{Set, Special, Value};

/// The ground that a picture shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Footprint {
    /// The corners that lie on the ground: upper left, upper right, lower right, lower left of the picture.
    pub corners: Vec<Place>,
    /// Whether a corner lies beyond the horizon: the ground goes on where the corners end.
    pub is_open: bool,
    /// What it comes from.
    pub source: CornerSource,
}

/// What corners come from, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CornerSource {
    /// Given in full (items 82 to 89).
    Full,
    /// Given as offsets from the frame centre (items 26 to 33).
    Offset,
    /// Rays through the corners of the picture, met with the height of the frame centre.
    Projected,
}

impl CornerSource {
    /// A name for machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full_corners",
            Self::Offset => "offset_corners",
            Self::Projected => "projected",
        }
    }
}

/// The footprint of a set, by the best that it has.
pub(super) fn read(
    set: &Set<'_>,
    sensor: Option<Point>,
    center: Option<Point>,
    sight: Option<Sight>,
    fov: (Option<f64>, Option<f64>),
) -> Option<Footprint> {
    full(set, center).or_else(|| offset(set, center)).or_else(|| projected(sensor?, center, sight?, fov))
}

fn full(set: &Set<'_>, center: Option<Point>) -> Option<Footprint> {
    let height = center.map_or(0.0, |center| center.place.hae);
    given(set, 82, CornerSource::Full, |latitude, longitude| Place::new(latitude, longitude, height))
}

fn offset(set: &Set<'_>, center: Option<Point>) -> Option<Footprint> {
    let center = center?.place;
    given(set, 26, CornerSource::Offset, |north, east| {
        Place::new(center.latitude + north, center.longitude + east, center.hae)
    })
}

/// Four pairs of items from `first` on. A pair that is missing means that there are no such corners; one that says "off
/// earth" opens the footprint.
fn given(
    set: &Set<'_>,
    first: u32,
    source: CornerSource,
    place: impl Fn(f64, f64) -> Option<Place>,
) -> Option<Footprint> {
    let mut corners = Vec::with_capacity(4);
    let mut is_open = false;
    for corner in 0..4 {
        let (a, b) = (set.value(first + 2 * corner)?, set.value(first + 2 * corner + 1)?);
        match (a.number(), b.number()) {
            (Some(a), Some(b)) => corners.push(place(a, b)?),
            _ if [a, b].iter().any(|value| **value == Value::Special(Special::OffEarth)) => is_open = true,
            _ => return None,
        }
    }
    // all four in one spot: a sender that fills the items with nothing
    let first = *corners.first()?;
    if corners.iter().all(|corner| corner.latitude == first.latitude && corner.longitude == first.longitude) {
        return None;
    }
    Some(Footprint { corners, is_open, source })
}

fn projected(
    sensor: Point,
    center: Option<Point>,
    sight: Sight,
    fov: (Option<f64>, Option<f64>),
) -> Option<Footprint> {
    sight.elevation?;
    // a field of view of half a circle or more has no flat picture
    let tangent =
        |fov: Option<f64>| fov.filter(|&fov| fov > 0.0 && fov < 179.0).map(|f| (f / 2.0).to_radians().tan());
    let (wide, high) = (tangent(fov.0)?, tangent(fov.1)?);
    // without a frame centre the ground is taken at sea level, and only from a height that is known
    sensor.height?;
    let ground = center.filter(|center| center.height.is_some()).map_or_else(
        || super::geoid::undulation(sensor.place.latitude, sensor.place.longitude),
        |center| center.place.hae,
    );
    let roll = sight.roll.unwrap_or(0.0);
    let azimuth = sight.azimuth;
    let elevation = sight.elevation.unwrap_or(0.0);
    let mut corners = Vec::with_capacity(4);
    for (right, down) in [(-wide, -high), (wide, -high), (wide, high), (-wide, high)] {
        let ray = Vector { x: 1.0, y: right, z: down }.roll(roll).pitch(elevation).yaw(azimuth);
        if let Some(corner) = sensor.place.meet(ray, ground) {
            corners.push(corner);
        }
    }
    let is_open = corners.len() < 4;
    (!corners.is_empty()).then_some(Footprint { corners, is_open, source: CornerSource::Projected })
}
