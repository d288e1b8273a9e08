//! A scene and a track enter, a GeoJSON FeatureCollection (RFC 7946) leaves. Never draws a line around the wrong side of
//! the world: what crosses the antimeridian is cut there, what holds a pole reaches it.

use serde_json::{Map, Value as Json, json};

use super::earth::Place;
use super::footprint::Footprint;
use super::scene::{Height, Point, Scene};
use super::track::Track;

/// One feature for each thing that a scene knows, its `role` among the properties. `time` is microseconds since 1970.
pub fn collect(scene: &Scene, track: &Track, time: Option<u64>) -> Json {
    let mut features = Vec::new();
    if let Some(sensor) = scene.sensor {
        features.push(feature(
            "platform",
            point(sensor.place),
            &[
                ("heading", json!(scene.heading)),
                ("course", json!(scene.course)),
                ("speed", json!(scene.speed)),
                ("height", height(sensor)),
                ("time", json!(time)),
            ],
        ));
        let sight = scene.sight;
        features.push(feature(
            "sensor",
            point(sensor.place),
            &[
                ("azimuth", json!(sight.map(|sight| sight.azimuth))),
                ("elevation", json!(sight.and_then(|sight| sight.elevation))),
                ("roll", json!(sight.and_then(|sight| sight.roll))),
                ("azimuth_from", json!(sight.map(|sight| sight.source.name()))),
                ("hfov", json!(scene.fov.0)),
                ("vfov", json!(scene.fov.1)),
            ],
        ));
    }
    let range = scene.range;
    if let Some(center) = scene.center {
        features.push(feature(
            "frame_center",
            point(center.place),
            &[
                ("height", height(center)),
                ("width", json!(scene.width.map(|width| width.meters))),
                ("width_is_computed", json!(scene.width.map(|width| width.is_computed))),
            ],
        ));
    }
    if let (Some(sensor), Some(center)) = (scene.sensor, scene.center) {
        features.push(feature(
            "line_of_sight",
            line(&[sensor.place, center.place]),
            &[
                ("slant_range", json!(range.and_then(|range| range.stated))),
                ("computed_range", json!(range.and_then(|range| range.computed))),
                ("range_agrees", json!(range.and_then(|range| range.agrees()))),
            ],
        ));
    }
    if let Some(target) = scene.target {
        features.push(feature("target", point(target.place), &[("height", height(target))]));
    }
    if let Some(footprint) = &scene.footprint
        && let Some(geometry) = outline(footprint)
    {
        features.push(feature(
            "footprint",
            geometry,
            &[("from", json!(footprint.source.name())), ("open", json!(footprint.is_open))],
        ));
    }
    for target in &scene.targets {
        features.push(feature(
            "vmti_target",
            point(target.point.place),
            &[
                ("id", json!(target.id)),
                ("confidence", json!(target.confidence)),
                ("status", json!(target.status)),
            ],
        ));
    }
    let places: Vec<Place> = track.places().collect();
    if places.len() > 1 {
        features.push(feature(
            "track",
            line(&places),
            &[("times", json!(track.times().collect::<Vec<_>>()))],
        ));
    }
    json!({"type": "FeatureCollection", "features": features})
}

/// The ground that a picture shows, as a polygon; as a line where it is open.
pub fn outline(footprint: &Footprint) -> Option<Json> {
    match (footprint.corners.as_slice(), footprint.is_open) {
        ([], _) => None,
        (&[only], _) => Some(point(only)),
        (corners, true) => Some(line(corners)),
        (corners, false) if corners.len() > 2 => Some(polygon(corners)),
        (corners, false) => Some(line(corners)),
    }
}

fn feature(role: &str, geometry: Json, properties: &[(&str, Json)]) -> Json {
    let mut all = Map::new();
    all.insert("role".into(), role.into());
    let known = properties.iter().filter(|(_, value)| !value.is_null());
    all.extend(known.map(|(name, value)| ((*name).into(), value.clone())));
    json!({"type": "Feature", "geometry": geometry, "properties": all})
}

fn height(point: Point) -> Json {
    match point.height {
        Some(Height::Ellipsoid) => "ellipsoid".into(),
        Some(Height::SeaLevel) => "egm96".into(),
        None => Json::Null,
    }
}

fn position(longitude: f64, latitude: f64, hae: f64) -> Json {
    // seven decimals are a centimetre; more is noise
    let round = |value: f64, steps: f64| (value * steps).round() / steps;
    json!([round(longitude, 1e7), round(latitude, 1e7), round(hae, 1e3)])
}

fn point(place: Place) -> Json {
    json!({"type": "Point", "coordinates": position(place.longitude, place.latitude, place.hae)})
}

/// (longitude that goes on beyond 180, latitude, height)
type Corner = (f64, f64, f64);

/// Longitudes that go on from one place to the next, the short way round.
fn unwrap(places: &[Place]) -> Vec<Corner> {
    let mut out: Vec<Corner> = Vec::with_capacity(places.len());
    for place in places {
        let last = out.last().map_or(place.longitude, |corner| corner.0);
        let step = (place.longitude - last + 180.0).rem_euclid(360.0) - 180.0;
        out.push((last + step, place.latitude, place.hae));
    }
    out
}

/// A line, cut where it crosses the antimeridian (RFC 7946, 3.1.9).
fn line(places: &[Place]) -> Json {
    let corners = unwrap(places);
    let mut parts: Vec<Vec<Corner>> = Vec::new();
    let mut part: Vec<Corner> = Vec::new();
    for pair in corners.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if part.is_empty() {
            part.push(a);
        }
        if world(a.0) != world(b.0) {
            let edge = 360.0 * world(a.0).max(world(b.0)) - 180.0;
            let cut = cross(a, b, edge);
            part.push(cut);
            parts.push(std::mem::take(&mut part));
            part.push(cut);
        }
        part.push(b);
    }
    parts.push(part);
    let mut lines: Vec<Json> = parts
        .iter()
        .map(|part| {
            // both ends of a part may lie on the edge: the middle says which world it is in
            let middle = part.iter().map(|corner| corner.0).sum::<f64>() / part.len().max(1) as f64;
            let shift = 360.0 * world(middle);
            part.iter().map(|&(x, y, z)| position(x - shift, y, z)).collect()
        })
        .collect();
    match lines.len() {
        1 => json!({"type": "LineString", "coordinates": lines.remove(0)}),
        _ => json!({"type": "MultiLineString", "coordinates": lines}),
    }
}

/// A polygon, cut where it crosses the antimeridian; one that holds a pole is led along the antimeridian to it.
fn polygon(corners: &[Place]) -> Json {
    let mut ring = unwrap(corners);
    let (Some(&first), Some(&last)) = (ring.first(), ring.last()) else { return Json::Null };
    let home = (first.0 - last.0 + 180.0).rem_euclid(360.0) - 180.0;
    let round = last.0 + home - first.0;
    if round.abs() > 180.0 {
        // once around a pole: the nearer one
        let mean = ring.iter().map(|corner| corner.1).sum::<f64>() / ring.len() as f64;
        let pole = 90_f64.copysign(mean);
        let end = last.0 + home;
        ring.push((end, first.1, first.2));
        ring.push((end, pole, first.2));
        ring.push((first.0, pole, first.2));
    }
    let (low, high) = ring.iter().fold((f64::MAX, f64::MIN), |(low, high), c| (low.min(c.0), high.max(c.0)));
    let mut parts = Vec::new();
    let mut at = world(low);
    while at <= world(high) {
        let (west, east) = (360.0 * at - 180.0, 360.0 * at + 180.0);
        let part = clip(&clip(&ring, |x| x - west, west), |x| east - x, east);
        if part.len() > 2 {
            parts.push(json!([close(&part, 360.0 * at)]));
        }
        at += 1.0;
    }
    match parts.len() {
        1 => json!({"type": "Polygon", "coordinates": parts.remove(0)}),
        _ => json!({"type": "MultiPolygon", "coordinates": parts}),
    }
}

/// What lies on the side of a meridian where `inside` is not negative (Sutherland and Hodgman).
fn clip(ring: &[Corner], inside: impl Fn(f64) -> f64, edge: f64) -> Vec<Corner> {
    let mut out = Vec::with_capacity(ring.len() + 4);
    for (at, &b) in ring.iter().enumerate() {
        let a = ring[(at + ring.len() - 1) % ring.len()];
        match (inside(a.0) >= 0.0, inside(b.0) >= 0.0) {
            (true, true) => out.push(b),
            (true, false) => out.push(cross(a, b, edge)),
            (false, true) => out.extend([cross(a, b, edge), b]),
            (false, false) => {}
        }
    }
    out.dedup();
    out
}

/// A closed ring, counter-clockwise as RFC 7946 wants outer rings.
fn close(part: &[Corner], shift: f64) -> Vec<Json> {
    let area: f64 = (0..part.len())
        .map(|at| {
            let (a, b) = (part[at], part[(at + 1) % part.len()]);
            a.0 * b.1 - b.0 * a.1
        })
        .sum();
    let mut ring: Vec<Json> = part.iter().map(|&(x, y, z)| position(x - shift, y, z)).collect();
    if area < 0.0 {
        ring.reverse();
    }
    ring.extend(ring.first().cloned());
    ring
}

fn cross(a: Corner, b: Corner, edge: f64) -> Corner {
    let t = if b.0 == a.0 { 0.0 } else { (edge - a.0) / (b.0 - a.0) };
    (edge, a.1 + t * (b.1 - a.1), a.2 + t * (b.2 - a.2))
}

/// Which copy of the world a longitude that goes on lies in; 0 is the usual one.
fn world(longitude: f64) -> f64 {
    ((longitude + 180.0) / 360.0).floor()
}
