//! ST 0601.19 UAS Datalink Local Set: the table of its 143 items. Never reads a byte itself.

use super::spec::{
    ANY, Kind, Part, SetSpec, Shape, Spec, TEXT, UINT, fixed, item, signed, signed_milli, unsigned, up_to,
    within,
};
use super::st0102::{OBJECT_CODING, ST0102};
use super::st0806::ST0806;
use super::st0903::ST0903;
use super::st1002::ST1002;
use super::st1206::ST1206;
use super::st1601::ST1601;
use super::st1602::ST1602;
use super::value::{Choice, Flags, Special};

/// UAS Datalink Local Set.
pub static ST0601: SetSpec = SetSpec::local("ST 0601", &ITEMS, &[1, 2, 65]);

/// ST 1607 segment: what it says replaces what the set around it says, for one part of the picture.
pub static SEGMENT: SetSpec = SetSpec::local("ST 1607 Segment", &ITEMS, &[143]);

/// ST 1607 amendment: another's word on the set around it.
pub static AMEND: SetSpec = SetSpec::local("ST 1607 Amend", &ITEMS, &[143]);

/// One line for each item: tag, name, unit, what its bytes mean (with bounds and error code), how many it may have.
#[rustfmt::skip]
static ITEMS: [Spec; 143] = [
    item(1, "Checksum", "", UINT, fixed(2)).note("last; running sum of 16 bits from the first byte of the key to its own length"),
    item(2, "Precision Time Stamp", "us", Kind::Time, fixed(8)).note("first; ST 0603 says MISP time, the field sends UTC"),
    item(3, "Mission ID", "", TEXT, up_to(127)),
    item(4, "Platform Tail Number", "", TEXT, up_to(127)),
    item(5, "Platform Heading Angle", "deg", unsigned(16, 0, 360), fixed(2)).note("from true north"),
    item(6, "Platform Pitch Angle", "deg", signed(16, 20, Special::OutOfRange), fixed(2)).note("90 is preferred"),
    item(7, "Platform Roll Angle", "deg", signed(16, 50, Special::OutOfRange), fixed(2)).note("91 is preferred"),
    item(8, "Platform True Airspeed", "m/s", UINT, fixed(1)),
    item(9, "Platform Indicated Airspeed", "m/s", UINT, fixed(1)),
    item(10, "Platform Designation", "", TEXT, up_to(127)),
    item(11, "Image Source Sensor", "", TEXT, up_to(127)),
    item(12, "Image Coordinate System", "", TEXT, up_to(127)),
    item(13, "Sensor Latitude", "deg", signed(32, 90, Special::Reserved), fixed(4)),
    item(14, "Sensor Longitude", "deg", signed(32, 180, Special::Reserved), fixed(4)),
    item(15, "Sensor True Altitude", "m", unsigned(16, -900, 19_000), fixed(2)).note("above mean sea level; 104, then 75 are preferred"),
    item(16, "Sensor Horizontal Field of View", "deg", unsigned(16, 0, 180), fixed(2)),
    item(17, "Sensor Vertical Field of View", "deg", unsigned(16, 0, 180), fixed(2)),
    item(18, "Sensor Relative Azimuth Angle", "deg", unsigned(32, 0, 360), fixed(4)).note("clockwise from the platform's nose"),
    item(19, "Sensor Relative Elevation Angle", "deg", signed(32, 180, Special::Reserved), fixed(4)).note("positive is up"),
    item(20, "Sensor Relative Roll Angle", "deg", unsigned(32, 0, 360), fixed(4)).note("clockwise, seen from behind"),
    item(21, "Slant Range", "m", unsigned(32, 0, 5_000_000), fixed(4)),
    item(22, "Target Width", "m", unsigned(16, 0, 10_000), fixed(2)).note("96 is preferred"),
    item(23, "Frame Center Latitude", "deg", signed(32, 90, Special::OffEarth), fixed(4)),
    item(24, "Frame Center Longitude", "deg", signed(32, 180, Special::OffEarth), fixed(4)),
    item(25, "Frame Center Elevation", "m", unsigned(16, -900, 19_000), fixed(2)).note("above mean sea level; 78 is preferred"),
    item(26, "Offset Corner Latitude Point 1", "deg", signed_milli(16, 75, Special::OffEarth), fixed(2)),
    item(27, "Offset Corner Longitude Point 1", "deg", signed_milli(16, 75, Special::OffEarth), fixed(2)),
    item(28, "Offset Corner Latitude Point 2", "deg", signed_milli(16, 75, Special::OffEarth), fixed(2)),
    item(29, "Offset Corner Longitude Point 2", "deg", signed_milli(16, 75, Special::OffEarth), fixed(2)),
    item(30, "Offset Corner Latitude Point 3", "deg", signed_milli(16, 75, Special::OffEarth), fixed(2)),
    item(31, "Offset Corner Longitude Point 3", "deg", signed_milli(16, 75, Special::OffEarth), fixed(2)),
    item(32, "Offset Corner Latitude Point 4", "deg", signed_milli(16, 75, Special::OffEarth), fixed(2)),
    item(33, "Offset Corner Longitude Point 4", "deg", signed_milli(16, 75, Special::OffEarth), fixed(2)),
    item(34, "Icing Detected", "", Kind::Choice(&ICING_DETECTED), fixed(1)),
    item(35, "Wind Direction", "deg", unsigned(16, 0, 360), fixed(2)),
    item(36, "Wind Speed", "m/s", unsigned(8, 0, 100), fixed(1)),
    item(37, "Static Pressure", "mbar", unsigned(16, 0, 5_000), fixed(2)),
    item(38, "Density Altitude", "m", unsigned(16, -900, 19_000), fixed(2)).note("103 is preferred"),
    item(39, "Outside Air Temperature", "Celsius", Kind::Int, fixed(1)),
    item(40, "Target Location Latitude", "deg", signed(32, 90, Special::OffEarth), fixed(4)),
    item(41, "Target Location Longitude", "deg", signed(32, 180, Special::OffEarth), fixed(4)),
    item(42, "Target Location Elevation", "m", unsigned(16, -900, 19_000), fixed(2)),
    item(43, "Target Track Gate Width", "pixels", unsigned(8, 0, 510), fixed(1)).note("two pixels a step"),
    item(44, "Target Track Gate Height", "pixels", unsigned(8, 0, 510), fixed(1)).note("two pixels a step"),
    item(45, "Target Error Estimate - CE90", "m", unsigned(16, 0, 4095), fixed(2)).note("90 % within this circle"),
    item(46, "Target Error Estimate - LE90", "m", unsigned(16, 0, 4095), fixed(2)).note("90 % within this height"),
    item(47, "Generic Flag Data", "", Kind::Flags(&GENERIC_FLAG_DATA), fixed(1)),
    item(48, "Security Local Set", "", Kind::Set(&ST0102), ANY),
    item(49, "Differential Pressure", "mbar", unsigned(16, 0, 5_000), fixed(2)),
    item(50, "Platform Angle of Attack", "deg", signed(16, 20, Special::OutOfRange), fixed(2)).note("92 is preferred"),
    item(51, "Platform Vertical Speed", "m/s", signed(16, 180, Special::OutOfRange), fixed(2)),
    item(52, "Platform Sideslip Angle", "deg", signed(16, 20, Special::OutOfRange), fixed(2)).note("93 is preferred"),
    item(53, "Airfield Barometric Pressure", "mbar", unsigned(16, 0, 5_000), fixed(2)),
    item(54, "Airfield Elevation", "m", unsigned(16, -900, 19_000), fixed(2)),
    item(55, "Relative Humidity", "%", unsigned(8, 0, 100), fixed(1)),
    item(56, "Platform Ground Speed", "m/s", UINT, fixed(1)),
    item(57, "Ground Range", "m", unsigned(32, 0, 5_000_000), fixed(4)),
    item(58, "Platform Fuel Remaining", "kg", unsigned(16, 0, 10_000), fixed(2)),
    item(59, "Platform Call Sign", "", TEXT, up_to(127)),
    item(60, "Weapon Load", "", UINT, fixed(2)).note("140 replaces it"),
    item(61, "Weapon Fired", "", UINT, fixed(1)).note("140 replaces it"),
    item(62, "Laser PRF Code", "", UINT, fixed(2)),
    item(63, "Sensor Field of View Name", "", Kind::Choice(&SENSOR_FIELD_OF_VIEW_NAME), fixed(1)),
    item(64, "Platform Magnetic Heading", "deg", unsigned(16, 0, 360), fixed(2)),
    item(65, "UAS Datalink LS Version Number", "", UINT, fixed(1)).note("the minor version of ST 0601"),
    item(66, "Deprecated (former Target Location Covariance)", "", Kind::Opaque, ANY).note("to be passed on, not to be written"),
    item(67, "Alternate Platform Latitude", "deg", signed(32, 90, Special::Reserved), fixed(4)),
    item(68, "Alternate Platform Longitude", "deg", signed(32, 180, Special::Reserved), fixed(4)),
    item(69, "Alternate Platform Altitude", "m", unsigned(16, -900, 19_000), fixed(2)).note("105, then 76 are preferred"),
    item(70, "Alternate Platform Name", "", TEXT, up_to(127)),
    item(71, "Alternate Platform Heading", "deg", unsigned(16, 0, 360), fixed(2)),
    item(72, "Event Start Time", "us", Kind::Time, fixed(8)),
    item(73, "RVT Local Set", "", Kind::Set(&ST0806), ANY),
    item(74, "VMTI Local Set", "", Kind::Set(&ST0903), ANY),
    item(75, "Sensor Ellipsoid Height", "m", unsigned(16, -900, 19_000), fixed(2)).note("above the ellipsoid; 104 is preferred"),
    item(76, "Alternate Platform Ellipsoid Height", "m", unsigned(16, -900, 19_000), fixed(2)).note("105 is preferred"),
    item(77, "Operational Mode", "", Kind::Choice(&OPERATIONAL_MODE), fixed(1)),
    item(78, "Frame Center Height Above Ellipsoid", "m", unsigned(16, -900, 19_000), fixed(2)).note("above the ellipsoid"),
    item(79, "Sensor North Velocity", "m/s", signed(16, 327, Special::OutOfRange), fixed(2)),
    item(80, "Sensor East Velocity", "m/s", signed(16, 327, Special::OutOfRange), fixed(2)),
    item(81, "Image Horizon Pixel Pack", "", Kind::Pack(&HORIZON), within(4, 20, 0)).note("where the horizon cuts the picture, in percent"),
    item(82, "Corner Latitude Point 1 (Full)", "deg", signed(32, 90, Special::OffEarth), fixed(4)),
    item(83, "Corner Longitude Point 1 (Full)", "deg", signed(32, 180, Special::OffEarth), fixed(4)),
    item(84, "Corner Latitude Point 2 (Full)", "deg", signed(32, 90, Special::OffEarth), fixed(4)),
    item(85, "Corner Longitude Point 2 (Full)", "deg", signed(32, 180, Special::OffEarth), fixed(4)),
    item(86, "Corner Latitude Point 3 (Full)", "deg", signed(32, 90, Special::OffEarth), fixed(4)),
    item(87, "Corner Longitude Point 3 (Full)", "deg", signed(32, 180, Special::OffEarth), fixed(4)),
    item(88, "Corner Latitude Point 4 (Full)", "deg", signed(32, 90, Special::OffEarth), fixed(4)),
    item(89, "Corner Longitude Point 4 (Full)", "deg", signed(32, 180, Special::OffEarth), fixed(4)),
    item(90, "Platform Pitch Angle (Full)", "deg", signed(32, 90, Special::OutOfRange), fixed(4)),
    item(91, "Platform Roll Angle (Full)", "deg", signed(32, 90, Special::OutOfRange), fixed(4)),
    item(92, "Platform Angle of Attack (Full)", "deg", signed(32, 90, Special::OutOfRange), fixed(4)),
    item(93, "Platform Sideslip Angle (Full)", "deg", signed(32, 180, Special::OutOfRange), fixed(4)),
    item(94, "MIIS Core Identifier", "", Kind::Miis, within(2, 50, 0)),
    item(95, "SAR Motion Imagery Local Set", "", Kind::Set(&ST1206), ANY),
    item(96, "Target Width Extended", "m", Kind::Imap(0.0, 1_500_000.0), within(1, 8, 3)),
    item(97, "Range Image Local Set", "", Kind::Set(&ST1002), ANY),
    item(98, "Geo-Registration Local Set", "", Kind::Set(&ST1601), ANY),
    item(99, "Composite Imaging Local Set", "", Kind::Set(&ST1602), ANY),
    item(100, "Segment Local Set", "", Kind::Set(&SEGMENT), ANY).repeats().note("not beside 101"),
    item(101, "Amend Local Set", "", Kind::Set(&AMEND), ANY).repeats(),
    item(102, "SDCC-FLP", "", Kind::Sdcc, ANY).repeats().note("says how sure the items before it are"),
    item(103, "Density Altitude Extended", "m", Kind::Imap(-900.0, 40_000.0), within(1, 8, 3)),
    item(104, "Sensor Ellipsoid Height Extended", "m", Kind::Imap(-900.0, 40_000.0), within(1, 8, 3)).note("above the ellipsoid"),
    item(105, "Alternate Platform Ellipsoid Height Extended", "m", Kind::Imap(-900.0, 40_000.0), within(1, 8, 3)),
    item(106, "Stream Designator", "", TEXT, up_to(127)),
    item(107, "Operational Base", "", TEXT, up_to(127)),
    item(108, "Broadcast Source", "", TEXT, up_to(127)),
    item(109, "Range To Recovery Location", "km", Kind::Imap(0.0, 21_000.0), within(1, 4, 4)),
    item(110, "Time Airborne", "s", UINT, up_to(4)),
    item(111, "Propulsion Unit Speed", "RPM", UINT, up_to(4)),
    item(112, "Platform Course Angle", "deg", Kind::Imap(0.0, 360.0), within(1, 8, 2)),
    item(113, "Altitude AGL", "m", Kind::Imap(-900.0, 40_000.0), within(1, 4, 3)),
    item(114, "Radar Altimeter", "m", Kind::Imap(-900.0, 40_000.0), within(1, 4, 3)),
    item(115, "Control Command", "", Kind::Pack(&COMMAND), ANY).repeats(),
    item(116, "Control Command Verification List", "", Kind::Pack(&OIDS), ANY),
    item(117, "Sensor Azimuth Rate", "deg/s", Kind::Imap(-1_000.0, 1_000.0), within(1, 4, 3)),
    item(118, "Sensor Elevation Rate", "deg/s", Kind::Imap(-1_000.0, 1_000.0), within(1, 4, 3)),
    item(119, "Sensor Roll Rate", "deg/s", Kind::Imap(-1_000.0, 1_000.0), within(1, 4, 3)),
    item(120, "On-board MI Storage Percent Full", "%", Kind::Imap(0.0, 100.0), within(1, 3, 2)),
    item(121, "Active Wavelength List", "", Kind::Pack(&OIDS), ANY).note("0 to 6 are predefined, others are in 128"),
    item(122, "Country Codes", "", Kind::Pack(&COUNTRIES), ANY),
    item(123, "Number of NAVSATs in View", "", UINT, fixed(1)),
    item(124, "Positioning Method Source", "", Kind::Flags(&POSITIONING_METHOD_SOURCE), fixed(1)),
    item(125, "Platform Status", "", Kind::Choice(&PLATFORM_STATUS), fixed(1)),
    item(126, "Sensor Control Mode", "", Kind::Choice(&SENSOR_CONTROL_MODE), fixed(1)),
    item(127, "Sensor Frame Rate Pack", "", Kind::Pack(&FRAME_RATE), up_to(16)),
    item(128, "Wavelengths List", "", Kind::Pack(&WAVELENGTHS), ANY),
    item(129, "Target ID", "", TEXT, up_to(32)),
    item(130, "Airbase Locations", "", Kind::Pack(&AIRBASES), up_to(24)).note("no recovery place means the place of take-off"),
    item(131, "Take-off Time", "us", Kind::Time, up_to(8)),
    item(132, "Transmission Frequency", "MHz", Kind::Imap(1.0, 99_999.0), within(1, 4, 3)),
    item(133, "On-board MI Storage Capacity", "GB", UINT, up_to(4)),
    item(134, "Zoom Percentage", "%", Kind::Imap(0.0, 100.0), within(1, 4, 1)),
    item(135, "Communications Method", "", TEXT, up_to(127)),
    item(136, "Leap Seconds", "s", Kind::Int, up_to(4)).note("relates item 2 to UTC"),
    item(137, "Correction Offset", "us", Kind::Int, up_to(8)).note("to be added to item 2"),
    item(138, "Payload List", "", Kind::Pack(&PAYLOADS), ANY),
    item(139, "Active Payloads", "", Kind::Bits, ANY).note("lowest bit of the first byte is payload 0"),
    item(140, "Weapons Stores", "", Kind::Pack(&STORES), ANY),
    item(141, "Waypoint List", "", Kind::Pack(&WAYPOINTS), ANY).note("order 32767 = cancelled"),
    item(142, "View Domain", "", Kind::Pack(&VIEW), ANY),
    item(143, "Metadata Substream ID (MSID)", "", Kind::Pack(&SUBSTREAM), up_to(17)).note("only in 100 and 101"),
];

const fn choice(code: u64, label: &'static str) -> Choice {
    Choice { code, label }
}

/// BER-OID numbers to the end.
static OIDS: Shape = Shape::List(&Shape::Oid);

static HORIZON: Shape = Shape::Record(
    4,
    &[
        Part("start_x", Shape::Sized(1, Kind::Uint(0, 100))),
        Part("start_y", Shape::Sized(1, Kind::Uint(0, 100))),
        Part("end_x", Shape::Sized(1, Kind::Uint(0, 100))),
        Part("end_y", Shape::Sized(1, Kind::Uint(0, 100))),
        Part("start_latitude", Shape::Sized(4, signed(32, 90, Special::OffEarth))),
        Part("start_longitude", Shape::Sized(4, signed(32, 180, Special::OffEarth))),
        Part("end_latitude", Shape::Sized(4, signed(32, 90, Special::OffEarth))),
        Part("end_longitude", Shape::Sized(4, signed(32, 180, Special::OffEarth))),
    ],
);

static COMMAND: Shape = Shape::Record(
    2,
    &[
        Part("id", Shape::Oid),
        Part("command", Shape::Counted(&Shape::Rest(TEXT))),
        Part("time", Shape::Sized(8, Kind::Time)),
    ],
);

static COUNTRIES: Shape = Shape::Record(
    2,
    &[
        Part("coding_method", Shape::Counted(&Shape::Rest(Kind::Choice(&OBJECT_CODING)))),
        Part("overflight", Shape::Counted(&Shape::Rest(TEXT))),
        Part("operator", Shape::Counted(&Shape::Rest(TEXT))),
        Part("manufacture", Shape::Counted(&Shape::Rest(TEXT))),
    ],
);

static FRAME_RATE: Shape =
    Shape::Record(1, &[Part("numerator", Shape::Oid), Part("denominator", Shape::Oid)]);

static WAVELENGTHS: Shape = Shape::List(&Shape::Counted(&Shape::Record(
    4,
    &[
        Part("id", Shape::Oid),
        Part("min_nm", Shape::Sized(4, Kind::Imap(0.0, 1e9))),
        Part("max_nm", Shape::Sized(4, Kind::Imap(0.0, 1e9))),
        Part("name", Shape::Rest(TEXT)),
    ],
)));

static PLACE: Shape = Shape::Record(
    2,
    &[
        Part("latitude", Shape::Sized(4, Kind::Imap(-90.0, 90.0))),
        Part("longitude", Shape::Sized(4, Kind::Imap(-180.0, 180.0))),
        Part("hae", Shape::Sized(3, Kind::Imap(-900.0, 9_000.0))),
    ],
);

static AIRBASES: Shape =
    Shape::Record(1, &[Part("take_off", Shape::Counted(&PLACE)), Part("recovery", Shape::Counted(&PLACE))]);

static PAYLOADS: Shape = Shape::Record(
    1,
    &[
        Part("count", Shape::Oid),
        Part(
            "payloads",
            Shape::List(&Shape::Counted(&Shape::Record(
                3,
                &[
                    Part("id", Shape::Oid),
                    Part("type", Shape::Oid),
                    Part("name", Shape::Counted(&Shape::Rest(TEXT))),
                ],
            ))),
        ),
    ],
);

static STORES: Shape = Shape::List(&Shape::Counted(&Shape::Record(
    6,
    &[
        Part("station", Shape::Oid),
        Part("hardpoint", Shape::Oid),
        Part("carriage", Shape::Oid),
        Part("store", Shape::Oid),
        Part("status", Shape::Oid),
        Part("type", Shape::Counted(&Shape::Rest(TEXT))),
    ],
)));

static WAYPOINTS: Shape = Shape::List(&Shape::Counted(&Shape::Record(
    2,
    &[
        Part("id", Shape::Oid),
        Part("order", Shape::Sized(2, Kind::Int)),
        Part("info", Shape::Oid),
        Part("location", Shape::Rest(Kind::Pack(&PLACE))),
    ],
)));

static VIEW: Shape = Shape::Record(
    1,
    &[
        Part("azimuth", Shape::Counted(&Shape::Halves("start", TURN, "range", TURN))),
        Part("elevation", Shape::Counted(&Shape::Halves("start", Kind::Imap(-180.0, 180.0), "range", TURN))),
        Part("roll", Shape::Counted(&Shape::Halves("start", TURN, "range", TURN))),
    ],
);

const TURN: Kind = Kind::Imap(0.0, 360.0);

static SUBSTREAM: Shape = Shape::Record(1, &[Part("id", Shape::Oid), Part("uuid", Shape::Rest(Kind::Uuid))]);

static ICING_DETECTED: [Choice; 3] =
    [choice(0, "detector_off"), choice(1, "no_icing_detected"), choice(2, "icing_detected")];

static SENSOR_FIELD_OF_VIEW_NAME: [Choice; 9] = [
    choice(0, "ultranarrow"),
    choice(1, "narrow"),
    choice(2, "medium"),
    choice(3, "wide"),
    choice(4, "ultrawide"),
    choice(5, "narrow_medium"),
    choice(6, "two_x_ultranarrow"),
    choice(7, "four_x_ultranarrow"),
    choice(8, "continuous_zoom"),
];

static OPERATIONAL_MODE: [Choice; 6] = [
    choice(0, "other"),
    choice(1, "operational"),
    choice(2, "training"),
    choice(3, "exercise"),
    choice(4, "maintenance"),
    choice(5, "test"),
];

static PLATFORM_STATUS: [Choice; 13] = [
    choice(0, "active"),
    choice(1, "pre_flight"),
    choice(2, "pre_flight_taxiing"),
    choice(3, "run_up"),
    choice(4, "take_off"),
    choice(5, "ingress"),
    choice(6, "manual_operation"),
    choice(7, "automated_orbit"),
    choice(8, "transitioning"),
    choice(9, "egress"),
    choice(10, "landing"),
    choice(11, "landed_taxiing"),
    choice(12, "landed_parked"),
];

static SENSOR_CONTROL_MODE: [Choice; 7] = [
    choice(0, "off"),
    choice(1, "home_position"),
    choice(2, "uncontrolled"),
    choice(3, "manual_control"),
    choice(4, "calibrating"),
    choice(5, "auto_holding_position"),
    choice(6, "auto_tracking"),
];

static GENERIC_FLAG_DATA: Flags = Flags(&[
    "laser_range",
    "auto_track",
    "ir_black_hot",
    "icing_detected",
    "slant_range_measured",
    "image_invalid",
]);

static POSITIONING_METHOD_SOURCE: Flags =
    Flags(&["ins", "gps", "galileo", "qzss", "navic", "glonass", "beidou_1", "beidou_2"]);
