//! ST 0806 remote video terminal: the tables of its sets. Never reads a byte itself.

use super::spec::{ANY, ASCII, Kind, SetSpec, Spec, UINT, fixed, item, signed, unsigned, up_to};
use super::value::{Choice, Special};

/// Remote Video Terminal Local Set.
pub static ST0806: SetSpec = SetSpec::local("ST 0806", &ITEMS, &[]);

/// A point of interest.
static POINT: SetSpec = SetSpec::local("ST 0806 Point of Interest", &POINT_ITEMS, &[1, 2, 3]);

/// An area of interest.
static AREA: SetSpec = SetSpec::local("ST 0806 Area of Interest", &AREA_ITEMS, &[1, 2, 3, 4, 5]);

/// Data of a user's own.
static USER_DATA: SetSpec = SetSpec::local("ST 0806 User Defined", &USER_DATA_ITEMS, &[1, 2]);

#[rustfmt::skip]
static ITEMS: [Spec; 21] = [
    item(1, "CRC-32", "", UINT, fixed(4)),
    item(2, "Precision Time Stamp", "us", Kind::Time, fixed(8)),
    item(3, "Platform True Airspeed", "m/s", UINT, fixed(2)),
    item(4, "Platform Indicated Airspeed", "m/s", UINT, fixed(2)),
    item(5, "Telemetry Accuracy Indicator", "", UINT, fixed(1)),
    item(6, "Frag Circle Radius", "m", UINT, fixed(2)),
    item(7, "Frame Code", "", UINT, fixed(4)),
    item(8, "RVT LS Version Number", "", UINT, fixed(1)),
    item(9, "Video Data Rate", "bit/s", UINT, fixed(4)),
    item(10, "Digital Video File Format", "", ASCII, up_to(127)),
    item(11, "User Defined Local Set", "", Kind::Set(&USER_DATA), ANY).repeats(),
    item(12, "Point of Interest Local Set", "", Kind::Set(&POINT), ANY).repeats(),
    item(13, "Area of Interest Local Set", "", Kind::Set(&AREA), ANY).repeats(),
    item(14, "MGRS Zone", "", Kind::Uint(1, 60), fixed(1)),
    item(15, "MGRS Latitude Band and Grid Square", "", ASCII, fixed(3)),
    item(16, "MGRS Easting", "m", Kind::Uint(0, 99_999), fixed(3)),
    item(17, "MGRS Northing", "m", Kind::Uint(0, 99_999), fixed(3)),
    item(18, "MGRS Zone Second Value", "", Kind::Uint(1, 60), fixed(1)),
    item(19, "MGRS Latitude Band and Grid Square Second Value", "", ASCII, fixed(3)),
    item(20, "MGRS Easting Second Value", "m", Kind::Uint(0, 99_999), fixed(3)),
    item(21, "MGRS Northing Second Value", "m", Kind::Uint(0, 99_999), fixed(3)),
];

#[rustfmt::skip]
static POINT_ITEMS: [Spec; 10] = [
    item(1, "POI/AOI Number", "", UINT, fixed(2)),
    item(2, "POI Latitude", "deg", signed(32, 90, Special::Reserved), fixed(4)),
    item(3, "POI Longitude", "deg", signed(32, 180, Special::Reserved), fixed(4)),
    item(4, "POI Altitude", "m", unsigned(16, -900, 19_000), fixed(2)),
    item(5, "POI/AOI Type", "", Kind::Choice(&AFFILIATION), fixed(1)),
    item(6, "POI/AOI Text", "", ASCII, up_to(2048)),
    item(7, "POI Source Icon", "", ASCII, up_to(127)),
    item(8, "POI/AOI Source ID", "", ASCII, up_to(255)),
    item(9, "POI/AOI Label", "", ASCII, fixed(16)),
    item(10, "Operation ID", "", ASCII, up_to(127)),
];

#[rustfmt::skip]
static AREA_ITEMS: [Spec; 10] = [
    item(1, "POI/AOI Number", "", UINT, fixed(2)),
    item(2, "Corner Latitude Point 1", "deg", signed(32, 90, Special::Reserved), fixed(4)),
    item(3, "Corner Longitude Point 1", "deg", signed(32, 180, Special::Reserved), fixed(4)),
    item(4, "Corner Latitude Point 3", "deg", signed(32, 90, Special::Reserved), fixed(4)),
    item(5, "Corner Longitude Point 3", "deg", signed(32, 180, Special::Reserved), fixed(4)),
    item(6, "POI/AOI Type", "", Kind::Choice(&AFFILIATION), fixed(1)),
    item(7, "POI/AOI Text", "", ASCII, up_to(2048)),
    item(8, "POI/AOI Source ID", "", ASCII, up_to(255)),
    item(9, "POI/AOI Label", "", ASCII, fixed(16)),
    item(10, "Operation ID", "", ASCII, up_to(127)),
];

#[rustfmt::skip]
static USER_DATA_ITEMS: [Spec; 2] = [
    item(1, "Numeric ID for Data Type", "", UINT, fixed(1)).note("two high bits: 0 text, 1 signed, 2 unsigned, 3 experimental"),
    item(2, "User Data", "", Kind::Opaque, ANY),
];

static AFFILIATION: [Choice; 4] = [
    Choice { code: 1, label: "friendly" },
    Choice { code: 2, label: "hostile" },
    Choice { code: 3, label: "target" },
    Choice { code: 4, label: "unknown" },
];
