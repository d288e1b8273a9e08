//! EG 0104 Predator universal set, which came before ST 0601: the table of its items. Never reads a byte itself.
//!
//! Its items have no tags; the numbers here are ours. Where ST 0601 has an item of the same meaning, it is that item's.

use super::spec::{ANY, ASCII, Kind, SetSpec, Spec, fixed, item, within};
use super::st0102::ST0102;

/// Predator UAV Basic Universal Metadata Set.
pub static EG0104: SetSpec = SetSpec::universal("EG 0104", &ITEMS, &KEYS);

/// Tags without a counterpart in ST 0601.
pub mod tag {
    /// Number of the mission on its day.
    pub const EPISODE: u32 = 201;
    /// When the recording began, as text.
    pub const START: u32 = 202;
    /// When the event began, as text.
    pub const EVENT_START: u32 = 203;
    /// Roll of the sensor, degrees.
    pub const SENSOR_ROLL: u32 = 204;
    /// Line of sight from true north, degrees.
    pub const ANGLE_TO_NORTH: u32 = 205;
    /// 0 is backward, 180 forward, 270 down; degrees.
    pub const OBLIQUITY: u32 = 206;
}

#[rustfmt::skip]
static ITEMS: [Spec; 33] = [
    item(2, "User Defined Time Stamp", "us", Kind::Time, fixed(8)),
    item(5, "Platform Heading Angle", "deg", TURN, FLOAT),
    item(6, "Platform Pitch Angle", "deg", TURN, FLOAT),
    item(7, "Platform Roll Angle", "deg", TURN, FLOAT),
    item(10, "Device Designation", "", ASCII, ANY),
    item(11, "Image Source Device", "", ASCII, ANY),
    item(12, "Image Coordinate System", "", ASCII, ANY),
    item(13, "Device Latitude", "deg", LATITUDE, FLOAT),
    item(14, "Device Longitude", "deg", LONGITUDE, FLOAT),
    item(15, "Device Altitude", "m", HEIGHT, FLOAT).note("above mean sea level"),
    item(16, "Horizontal Field of View", "deg", VIEW, FLOAT),
    item(17, "Vertical Field of View", "deg", VIEW, FLOAT),
    item(21, "Slant Range", "m", RANGE, FLOAT),
    item(22, "Target Width", "m", WIDTH, FLOAT),
    item(23, "Frame Center Latitude", "deg", LATITUDE, FLOAT),
    item(24, "Frame Center Longitude", "deg", LONGITUDE, FLOAT),
    item(25, "Frame Center Elevation", "m", HEIGHT, FLOAT).note("above mean sea level"),
    item(48, "Security Local Set", "", Kind::Set(&ST0102), ANY),
    item(82, "Corner Latitude Point 1", "deg", LATITUDE, FLOAT),
    item(83, "Corner Longitude Point 1", "deg", LONGITUDE, FLOAT),
    item(84, "Corner Latitude Point 2", "deg", LATITUDE, FLOAT),
    item(85, "Corner Longitude Point 2", "deg", LONGITUDE, FLOAT),
    item(86, "Corner Latitude Point 3", "deg", LATITUDE, FLOAT),
    item(87, "Corner Longitude Point 3", "deg", LONGITUDE, FLOAT),
    item(88, "Corner Latitude Point 4", "deg", LATITUDE, FLOAT),
    item(89, "Corner Longitude Point 4", "deg", LONGITUDE, FLOAT),
    item(tag::EPISODE, "Episode Number", "", ASCII, ANY),
    item(tag::START, "Start Date and Time", "", ASCII, ANY),
    item(tag::EVENT_START, "Event Start Date and Time", "", ASCII, ANY),
    item(tag::SENSOR_ROLL, "Sensor Roll Angle", "deg", TURN, FLOAT),
    item(tag::ANGLE_TO_NORTH, "Angle to North", "deg", TURN, FLOAT),
    item(tag::OBLIQUITY, "Obliquity Angle", "deg", TURN, FLOAT),
    item(207, "Security Universal Set", "", Kind::Set(&super::st0102::ST0102_UNIVERSAL), ANY),
];

const FLOAT: super::spec::Bytes = within(4, 8, 4);
/// Headings count from 0 or from -180.
const TURN: Kind = Kind::Float(-360.0, 360.0);
const LATITUDE: Kind = Kind::Float(-90.0, 90.0);
const LONGITUDE: Kind = Kind::Float(-180.0, 180.0);
/// From below the Dead Sea to where nothing flies.
const HEIGHT: Kind = Kind::Float(-1_000.0, 100_000.0);
const VIEW: Kind = Kind::Float(0.0, 360.0);
/// As item 21 of ST 0601.
const RANGE: Kind = Kind::Float(0.0, 5_000_000.0);
const WIDTH: Kind = Kind::Float(0.0, 1_000_000.0);

#[rustfmt::skip]
static KEYS: [([u8; 16], u32); 33] = [
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x02\x01\x01\x01\x05\x00\x00", 2),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x07\x07\x01\x10\x01\x06\x00\x00\x00", 5),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x07\x07\x01\x10\x01\x05\x00\x00\x00", 6),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x07\x07\x01\x10\x01\x04\x00\x00\x00", 7),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x01\x01\x20\x01\x00\x00\x00\x00", 10),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x04\x20\x01\x02\x01\x01\x00\x00", 11),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x01\x01\x00\x00\x00\x00", 12),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x02\x04\x02\x00", 13),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x02\x06\x02\x00", 14),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x02\x01\x02\x02\x00\x00", 15),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x02\x04\x20\x02\x01\x01\x08\x00\x00", 16),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x07\x04\x20\x02\x01\x01\x0a\x01\x00", 17),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x08\x01\x01\x00\x00\x00", 21),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x09\x02\x01\x00\x00\x00", 22),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x02\x01\x03\x02\x00\x00", 23),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x02\x01\x03\x04\x00\x00", 24),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x0a\x07\x01\x02\x01\x03\x16\x00\x00", 25),
    (*b"\x06\x0e\x2b\x34\x02\x03\x01\x01\x0e\x01\x03\x03\x02\x00\x00\x00", 48),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x03\x07\x01\x00", 82),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x03\x0b\x01\x00", 83),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x03\x08\x01\x00", 84),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x03\x0c\x01\x00", 85),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x03\x09\x01\x00", 86),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x03\x0d\x01\x00", 87),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x03\x0a\x01\x00", 88),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x02\x01\x03\x0e\x01\x00", 89),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x01\x05\x05\x00\x00\x00\x00\x00", tag::EPISODE),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x02\x01\x02\x01\x01\x00\x00", tag::START),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x02\x01\x02\x07\x01\x00\x00", tag::EVENT_START),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x10\x01\x01\x00\x00\x00", tag::SENSOR_ROLL),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x10\x01\x02\x00\x00\x00", tag::ANGLE_TO_NORTH),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x07\x01\x10\x01\x03\x00\x00\x00", tag::OBLIQUITY),
    (*b"\x06\x0e\x2b\x34\x02\x01\x01\x01\x02\x08\x02\x00\x00\x00\x00\x00", 207),
];
