//! Synthetic poses against the line of sight that they were made from, in earth-centred coordinates; sample packets;
//! footprints over the horizon, the antimeridian and the poles.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::wire::klv::{
    Field, Label, Packet, Quirk, ST0601, ST0903, Set, Special, Unit, VTARGET, Value, split, write_packet,
};

/// What goes through the wire and back, so that every figure has the steps of its item.
fn sent(set: &Set<'_>) -> Set<'static> {
    let bytes = write_packet(Label::Uas, set).expect("a packet");
    Packet::read(&bytes).set.into_owned()
}

fn real(value: f64) -> Value<'static> {
    Value::Real(value)
}

/// Rows of a rotation matrix from heading, pitch and roll, body to north-east-down, written out term by term: not the
/// way the code under test goes.
fn body_to_ned(heading: f64, pitch: f64, roll: f64) -> [[f64; 3]; 3] {
    let ((sh, ch), (sp, cp), (sr, cr)) =
        (heading.to_radians().sin_cos(), pitch.to_radians().sin_cos(), roll.to_radians().sin_cos());
    [
        [cp * ch, sr * sp * ch - cr * sh, cr * sp * ch + sr * sh],
        [cp * sh, sr * sp * sh + cr * ch, cr * sp * sh - sr * ch],
        [-sp, sr * cp, cr * cp],
    ]
}

fn times(matrix: [[f64; 3]; 3], v: [f64; 3]) -> Vector {
    let row = |r: [f64; 3]| r[0] * v[0] + r[1] * v[1] + r[2] * v[2];
    Vector { x: row(matrix[0]), y: row(matrix[1]), z: row(matrix[2]) }
}

#[derive(Debug, Clone, Copy)]
struct Pose {
    latitude: f64,
    longitude: f64,
    hae: f64,
    ground: f64,
    heading: f64,
    pitch: f64,
    roll: f64,
    azimuth: f64,
    elevation: f64,
}

impl Pose {
    /// The line of sight, north, east, down.
    fn sight(self) -> Vector {
        let (sa, ca) = self.azimuth.to_radians().sin_cos();
        let (se, ce) = self.elevation.to_radians().sin_cos();
        times(body_to_ned(self.heading, self.pitch, self.roll), [ce * ca, ce * sa, -se])
    }

    fn sensor(self) -> Place {
        Place::new(self.latitude, self.longitude, self.hae).expect("a place")
    }

    fn attitude(self) -> Set<'static> {
        Set::new(&ST0601)
            .with(2, Value::Time(1))
            .with(5, real(self.heading))
            .with(13, real(self.latitude))
            .with(14, real(self.longitude))
            .with(18, real(self.azimuth))
            .with(19, real(self.elevation))
            .with(90, real(self.pitch))
            .with(91, real(self.roll))
            .with(104, real(self.hae))
    }
}

fn poses() -> impl Strategy<Value = Pose> {
    let place = (-89.9..89.9_f64, -180.0..180.0_f64, 3000.0..15_000.0_f64, -100.0..1000.0_f64);
    let attitude = (0.0..359.99_f64, -40.0..40.0_f64, -70.0..70.0_f64, 0.0..359.99_f64, -100.0..10.0_f64);
    (place, attitude).prop_map(
        |((latitude, longitude, hae, ground), (heading, pitch, roll, azimuth, elevation))| Pose {
            latitude,
            longitude,
            hae,
            ground,
            heading,
            pitch,
            roll,
            azimuth,
            elevation,
        },
    )
}

/// Degrees between a found line of sight and the true one, both in earth-centred coordinates.
fn error(pose: Pose, scene: &Scene) -> f64 {
    let sight = scene.sight.expect("a line of sight");
    assert!(sight.elevation.is_some());
    let here = scene.sensor.expect("a sensor").place;
    here.to_ecef(sight.direction()).angle(pose.sensor().to_ecef(pose.sight()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_rotation_points_within_a_hundredth_of_a_degree(pose in poses()) {
        let scene = Scene::read(&sent(&pose.attitude()), false);
        prop_assert_eq!(scene.sight.map(|sight| sight.source), Some(Source::Rotation));
        let error = error(pose, &scene);
        prop_assert!(error <= 0.01, "{error} degrees off: {scene:?}");
    }

    #[test]
    fn with_a_frame_centre_it_points_as_well(pose in poses()) {
        let Some(center) = pose.sensor().meet(pose.sight(), pose.ground) else { return Ok(()) };
        // what lies beyond the range item is no picture
        prop_assume!(pose.sensor().look(center).range < 200_000.0);
        let set = pose
            .attitude()
            .with(23, real(center.latitude))
            .with(24, real(center.longitude))
            .with(78, real(pose.ground));
        let scene = Scene::read(&sent(&set), false);
        let down = pose.sight().elevation();
        let source = scene.sight.map(|sight| sight.source);
        if down < -85.1 {
            prop_assert_eq!(source, Some(Source::Rotation));
        } else if down > -84.9 {
            prop_assert_eq!(source, Some(Source::FrameCenter));
        }
        let error = error(pose, &scene);
        prop_assert!(error <= 0.01, "{error} degrees off, {down} down: {scene:?}");
        // and the rotation agrees with it: the roll that comes from it is that of this line of sight
        let computed = scene.range.and_then(|range| range.computed).expect("a range");
        prop_assert!((computed / pose.sensor().look(center).range - 1.0).abs() < 1e-3);
    }

    #[test]
    fn projected_corners_lie_where_rays_through_the_picture_meet_the_ground(pose in poses(), picture in (1.0..40.0_f64, 1.0..30.0_f64, 0.0..359.9_f64)) {
        let (wide, high, turned) = picture;
        let set = pose.attitude().with(16, real(wide)).with(17, real(high)).with(20, real(turned));
        let scene = Scene::read(&sent(&set), false);
        let Some(footprint) = &scene.footprint else { return Ok(()) };
        let matrix = body_to_ned(pose.heading, pose.pitch, pose.roll);
        let gimbal = body_to_ned(pose.azimuth, pose.elevation, turned);
        let (w, h) = ((wide / 2.0).to_radians().tan(), (high / 2.0).to_radians().tan());
        let rays = [(-w, -h), (w, -h), (w, h), (-w, h)].map(|(right, down)| {
            let v = times(gimbal, [1.0, right, down]);
            times(matrix, [v.x, v.y, v.z])
        });
        let ground = undulation(pose.latitude, pose.longitude);
        let met: Vec<Place> = rays.iter().filter_map(|&ray| pose.sensor().meet(ray, ground)).collect();
        // a ray that grazes the horizon may go either way with the steps of the items
        if met.len() == footprint.corners.len() {
            prop_assert_eq!(footprint.is_open, met.len() < 4);
            for (found, expected) in footprint.corners.iter().zip(&met) {
                let (a, b) = (pose.sensor().look(*found), pose.sensor().look(*expected));
                let off = Vector::pointing(a.azimuth, a.elevation).angle(Vector::pointing(b.azimuth, b.elevation));
                prop_assert!(off < 0.02, "{off} degrees: {found:?}, not {expected:?}");
            }
        }
    }

    #[test]
    fn every_polygon_is_within_the_world(corners in prop::collection::vec((-89.9..89.9_f64, -180.0..180.0_f64), 3..5)) {
        let corners = corners.into_iter().filter_map(|(a, b)| Place::new(a, b, 0.0)).collect();
        let footprint = Footprint { corners, is_open: false, source: CornerSource::Full };
        let geometry = outline(&footprint).expect("a geometry");
        let mut flat = Vec::new();
        numbers(&geometry["coordinates"], &mut flat);
        prop_assert!(flat.chunks(3).all(|p| p[0].abs() <= 180.0 && p[1].abs() <= 90.0), "{geometry}");
    }
}

fn numbers(json: &Json, out: &mut Vec<f64>) {
    match json {
        Json::Array(values) => values.iter().for_each(|value| numbers(value, out)),
        other => out.push(other.as_f64().expect("a number")),
    }
}

fn sample(name: &str) -> Option<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let beside = ["../shared/samples", "../../shared/samples"].map(|path| root.join(path));
    let asked = std::env::var_os("KLV_SAMPLES").map(PathBuf::from);
    let found = asked.into_iter().chain(beside).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        println!("SKIPPED: no {name} in shared/samples beside the checkout, nor in $KLV_SAMPLES");
    }
    found.map(|path| std::fs::read(path).expect("readable"))
}

fn sets(bytes: &[u8]) -> Vec<Set<'_>> {
    let packets =
        split(bytes).filter_map(|unit| if let Unit::Packet(bytes) = unit { Some(bytes) } else { None });
    packets.map(|packet| Packet::read(packet).set).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_stream_whose_item_18_is_absolute_is_recognized() {
    let Some(bytes) = sample("klv/day-flight.klv") else { return };
    let sets = sets(&bytes);
    let mut judge = AzimuthJudge::default();
    // five packets are all there are
    for set in sets.iter().cycle().take(10) {
        judge.take(set);
    }
    assert!(judge.is_absolute());
    assert_eq!(judge.quirk(), Some(Quirk::AbsoluteAzimuth));
    let gaps = sets.iter().filter_map(|set| {
        let sight = Scene::read(set, true).sight?;
        Some(between(sight.azimuth, set.number(18)?))
    });
    assert!(median(gaps.collect()) < 0.01);
    // without a frame centre it is all there is
    let blind = Set::new(&ST0601).with(5, real(80.0)).with(18, real(46.0));
    let sight = Scene::read(&blind, true).sight.expect("a line of sight");
    assert_eq!((sight.azimuth, sight.source), (46.0, Source::AbsoluteAzimuth));
    let sight = Scene::read(&blind, false).sight.expect("a line of sight");
    assert_eq!((sight.azimuth, sight.source), (126.0, Source::Heading));
}

#[test]
fn a_stream_whose_item_18_is_relative_is_not() {
    let Some(bytes) = sample("klv/truck.klv") else { return };
    let sets = sets(&bytes);
    let mut judge = AzimuthJudge::default();
    let mut gaps = Vec::new();
    for set in &sets {
        judge.take(set);
        assert!(!judge.is_absolute());
        let scene = Scene::read(set, false);
        let toward = scene.sight.expect("a line of sight");
        assert_eq!(toward.source, Source::FrameCenter);
        // the rotation, from the same set without its frame centre
        let mut blind = set.clone();
        blind.items.retain(|item| !matches!(item.tag, 23 | 24));
        let rotated = Scene::read(&blind, false).sight.expect("a line of sight");
        assert_eq!(rotated.source, Source::Rotation);
        gaps.push(toward.direction().angle(rotated.direction()));
        assert_eq!(scene.footprint.expect("a footprint").source, CornerSource::Offset);
        assert!(scene.width.expect("a width").is_computed, "this stream says 0");
    }
    let median = median(gaps);
    assert!(median < 0.15, "{median} degrees between the rotation and the frame centre");
}

#[test]
fn heights_are_brought_to_the_ellipsoid_and_say_so() {
    let set = Set::new(&ST0601).with(13, real(41.095)).with(14, real(-104.87)).with(15, real(2933.0));
    let sensor = Scene::read(&set, false).sensor.expect("a sensor");
    assert_eq!(sensor.height, Some(Height::SeaLevel));
    assert!((sensor.place.hae - (2933.0 - 15.9)).abs() < 1.0, "{sensor:?}");
    let set = set.with(75, real(2900.0));
    assert_eq!(Scene::read(&set, false).sensor.map(|sensor| sensor.place.hae), Some(2900.0));
    let set = set.with(104, real(2901.0));
    let sensor = Scene::read(&set, false).sensor.expect("a sensor");
    assert_eq!((sensor.place.hae, sensor.height), (2901.0, Some(Height::Ellipsoid)));
}

#[test]
fn an_error_code_is_no_place() {
    let set = Set::new(&ST0601)
        .with(13, Value::Special(Special::Reserved))
        .with(14, real(10.0))
        .with(23, Value::Special(Special::OffEarth))
        .with(24, Value::Special(Special::OffEarth));
    let scene = Scene::read(&sent(&set), false);
    assert_eq!(scene, Scene::default());
    let drawn = collect(&scene, &Track::default(), None);
    assert_eq!(drawn, json!({"type": "FeatureCollection", "features": []}));
}

#[test]
fn corners_beyond_the_horizon_open_the_footprint() {
    let mut set = Set::new(&ST0601).with(23, real(10.0)).with(24, real(20.0));
    for (corner, (north, east)) in
        [(0.01, -0.01), (0.01, 0.01), (-0.01, 0.01), (-0.01, -0.01)].iter().enumerate()
    {
        let tag = 26 + 2 * corner as u32;
        set = if corner < 2 {
            set.with(tag, Value::Special(Special::OffEarth)).with(tag + 1, Value::Special(Special::OffEarth))
        } else {
            set.with(tag, real(*north)).with(tag + 1, real(*east))
        };
    }
    let footprint = Scene::read(&sent(&set), false).footprint.expect("a footprint");
    assert!(footprint.is_open && footprint.corners.len() == 2);
    assert_eq!(outline(&footprint).expect("a line")["type"], "LineString");
    // a camera that looks just below the horizon sees ground in the lower half of its picture only
    let set = Set::new(&ST0601)
        .with(5, real(0.0))
        .with(90, real(0.0))
        .with(91, real(0.0))
        .with(18, real(90.0))
        .with(19, real(-3.0))
        .with(13, real(0.0))
        .with(14, real(0.0))
        .with(104, real(1000.0))
        .with(16, real(30.0))
        .with(17, real(20.0));
    let footprint = Scene::read(&sent(&set), false).footprint.expect("a footprint");
    assert!(footprint.is_open && footprint.corners.len() == 2, "{footprint:?}");
    // lower right is south of lower left when looking east
    assert!(footprint.corners[0].latitude < footprint.corners[1].latitude);
}

#[test]
fn full_corners_go_before_offsets() {
    let mut set = Set::new(&ST0601).with(23, real(10.0)).with(24, real(20.0));
    for tag in 26..34 {
        set = set.with(tag, real(if matches!(tag, 26..=28 | 31) { 0.01 } else { -0.01 }));
    }
    assert_eq!(Scene::read(&set, false).footprint.map(|f| f.source), Some(CornerSource::Offset));
    for (at, tag) in (82..90).enumerate() {
        set = set.with(tag, real([10.1, 19.9, 10.1, 20.1, 9.9, 20.1, 9.9, 19.9][at]));
    }
    let footprint = Scene::read(&set, false).footprint.expect("a footprint");
    assert_eq!((footprint.source, footprint.corners[2].latitude), (CornerSource::Full, 9.9));
}

#[test]
fn a_range_that_does_not_agree_is_said() {
    let set = Set::new(&ST0601)
        .with(13, real(41.0))
        .with(14, real(-104.0))
        .with(104, real(3000.0))
        .with(23, real(41.02))
        .with(24, real(-104.0))
        .with(78, real(1000.0))
        .with(16, real(10.0))
        .with(21, real(2986.0));
    let scene = Scene::read(&set, false);
    let range = scene.range.expect("a range");
    assert_eq!(range.agrees(), Some(true), "{range:?}");
    let width = scene.width.expect("a width");
    assert!(width.is_computed && (width.meters - 2.0 * 2986.0 * 5_f64.to_radians().tan()).abs() < 0.1);
    let far = Scene::read(&set.with(21, real(9000.0)), false).range.expect("a range");
    assert_eq!((far.agrees(), far.meters()), (Some(false), far.computed));
}

#[test]
fn vmti_targets_are_placed_by_their_own_location_or_their_offset() {
    let target = |id, set| {
        Value::Record(vec![
            Field { name: "id", value: Value::Uint(id) },
            Field { name: "items", value: Value::Set(Box::new(set)) },
        ])
    };
    let own = Value::Record(vec![
        Field { name: "latitude", value: real(43.0) },
        Field { name: "longitude", value: real(-110.0) },
        Field { name: "hae", value: real(1500.0) },
    ]);
    let vmti = Set::new(&ST0903).with(4, Value::Uint(6)).with(
        101,
        Value::List(vec![
            target(1, Set::new(&VTARGET).with(17, own)),
            target(2, Set::new(&VTARGET).with(10, real(0.01)).with(11, real(-0.02)).with(5, Value::Uint(80))),
            target(3, Set::new(&VTARGET).with(5, Value::Uint(10))),
        ]),
    );
    let set = Set::new(&ST0601)
        .with(23, real(10.0))
        .with(24, real(179.99))
        .with(78, real(50.0))
        .with(74, Value::Set(Box::new(vmti)));
    let scene = Scene::read(&sent(&set), false);
    assert_eq!(scene.targets.iter().map(|target| target.id).collect::<Vec<_>>(), [1, 2]);
    assert!((scene.targets[0].point.place.hae - 1500.0).abs() < 1.0);
    let second = scene.targets[1].point.place;
    assert!((second.latitude - 10.01).abs() < 1e-5 && (second.longitude - 179.97).abs() < 1e-5);
    assert_eq!((scene.targets[1].confidence, second.hae.round()), (Some(80.0), 50.0));
}

#[test]
fn what_crosses_the_antimeridian_is_cut_there() {
    let corner = |latitude, longitude| Place::new(latitude, longitude, 0.0).expect("a place");
    let ring = vec![corner(11.0, 179.0), corner(11.0, -179.0), corner(9.0, -179.0), corner(9.0, 179.0)];
    let geometry =
        outline(&Footprint { corners: ring, is_open: false, source: CornerSource::Full }).expect("one");
    assert_eq!(geometry["type"], "MultiPolygon");
    assert_eq!(
        geometry["coordinates"],
        json!([
            [[
                [179.0, 9.0, 0.0],
                [180.0, 9.0, 0.0],
                [180.0, 11.0, 0.0],
                [179.0, 11.0, 0.0],
                [179.0, 9.0, 0.0]
            ]],
            [[
                [-180.0, 9.0, 0.0],
                [-179.0, 9.0, 0.0],
                [-179.0, 11.0, 0.0],
                [-180.0, 11.0, 0.0],
                [-180.0, 9.0, 0.0]
            ]]
        ])
    );
    let mut track = Track::default();
    for at in 0..4_u32 {
        track.note(u64::from(at) * 2_000_000, corner(1.0, wrap(178.5 + f64::from(at))));
    }
    let drawn = collect(&Scene::default(), &track, None);
    assert_eq!(drawn["features"][0]["geometry"]["type"], "MultiLineString");
    assert_eq!(
        drawn["features"][0]["geometry"]["coordinates"],
        json!([
            [[178.5, 1.0, 0.0], [179.5, 1.0, 0.0], [180.0, 1.0, 0.0]],
            [[-180.0, 1.0, 0.0], [-179.5, 1.0, 0.0], [-178.5, 1.0, 0.0]]
        ])
    );
}

#[test]
fn what_holds_a_pole_reaches_it() {
    let corner = |latitude, longitude| Place::new(latitude, longitude, 0.0).expect("a place");
    for (latitude, pole) in [(89.0, 90.0), (-89.0, -90.0)] {
        let ring = vec![
            corner(latitude, 0.0),
            corner(latitude, 90.0),
            corner(latitude, 180.0),
            corner(latitude, -90.0),
        ];
        let geometry =
            outline(&Footprint { corners: ring, is_open: false, source: CornerSource::Full }).expect("one");
        let mut flat = Vec::new();
        numbers(&geometry["coordinates"], &mut flat);
        assert!(flat.chunks(3).any(|p| p[1] == pole), "{geometry}");
        assert!(flat.chunks(3).all(|p| p[0].abs() <= 180.0));
    }
}

#[test]
fn a_scene_is_drawn_with_a_feature_for_each_thing() {
    let Some(bytes) = sample("klv/truck.klv") else { return };
    let mut track = Track::default();
    let mut drawn = Json::Null;
    for set in sets(&bytes) {
        let scene = Scene::read(&set, false);
        let Some(&Value::Time(time)) = set.value(2) else { panic!("no time") };
        track.note(time, scene.sensor.expect("a sensor").place);
        drawn = collect(&scene, &track, Some(time));
    }
    let features = drawn["features"].as_array().expect("features");
    let roles: Vec<&str> =
        features.iter().map(|f| f["properties"]["role"].as_str().expect("a role")).collect();
    assert_eq!(roles, ["platform", "sensor", "frame_center", "line_of_sight", "footprint", "track"]);
    assert_eq!(features[1]["properties"]["azimuth_from"], "frame_center");
    assert_eq!(features[3]["properties"]["range_agrees"], true);
    let line = features[5]["geometry"]["coordinates"].as_array().expect("a line").len();
    assert!((100..200).contains(&line), "{line} places of 711 packets at 5 Hz");
}

#[test]
fn a_track_has_a_bound_and_begins_anew_when_time_goes_back() {
    let here = Place::new(1.0, 2.0, 3.0).expect("a place");
    let mut track = Track::default();
    for second in 0..10_000 {
        track.note(second * 1_000_000, here);
        track.note(second * 1_000_000 + 400_000, here);
    }
    assert_eq!(track.places().count(), 3600);
    track.note(5, here);
    assert_eq!(track.times().collect::<Vec<_>>(), [5]);
}
