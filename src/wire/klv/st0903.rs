//! ST 0903.6 video moving target indicator: the tables of its sets, and of what they were before the fourth edition.
//! Never reads a byte itself.

use super::spec::{
    ANY, Kind, Part, SetSpec, Shape, Spec, TEXT, UINT, fixed, item, signed_milli, unsigned, up_to, within,
};
use super::value::{Choice, Special};

/// VMTI Local Set.
pub static ST0903: SetSpec = SetSpec::local("ST 0903", &ITEMS, &[4]).before(4, 4, &EARLY);

/// VMTI Local Set as it was before ST 0903.4: numbers in equal steps where there is IMAPB now.
pub static EARLY: SetSpec = SetSpec::local("ST 0903 before .4", &EARLY_ITEMS, &[4]);

/// VTrack Local Set.
pub static VTRACK: SetSpec =
    SetSpec::local("ST 0903 VTrack", &VTRACK_ITEMS, &[11]).before(11, 4, &EARLY_VTRACK);

/// A target.
pub static VTARGET: SetSpec = SetSpec::local("ST 0903 VTarget", &VTARGET_ITEMS, &[]);

static EARLY_VTRACK: SetSpec = SetSpec::local("ST 0903 VTrack before .4", &EARLY_VTRACK_ITEMS, &[11]);
static EARLY_VTARGET: SetSpec = SetSpec::local("ST 0903 VTarget before .4", &EARLY_VTARGET_ITEMS, &[]);
static VTRACKER: SetSpec = SetSpec::local("ST 0903 VTracker", &VTRACKER_ITEMS, &[]);
static EARLY_VTRACKER: SetSpec = SetSpec::local("ST 0903 VTracker before .4", &EARLY_VTRACKER_ITEMS, &[]);
static VTRACK_ITEM: SetSpec = SetSpec::local("ST 0903 VTrackItem", &VTRACK_ITEM_ITEMS, &[]);
static EARLY_VTRACK_ITEM: SetSpec =
    SetSpec::local("ST 0903 VTrackItem before .4", &EARLY_VTRACK_ITEM_ITEMS, &[]);
static VMASK: SetSpec = SetSpec::local("ST 0903 VMask", &VMASK_ITEMS, &[]);
static VOBJECT: SetSpec = SetSpec::local("ST 0903 VObject", &VOBJECT_ITEMS, &[]);
static VFEATURE: SetSpec = SetSpec::local("ST 0903 VFeature", &VFEATURE_ITEMS, &[]);
static VCHIP: SetSpec = SetSpec::local("ST 0903 VChip", &VCHIP_ITEMS, &[]);
static ALGORITHM: SetSpec = SetSpec::local("ST 0903 Algorithm", &ALGORITHM_ITEMS, &[]);
static ONTOLOGY: SetSpec = SetSpec::local("ST 0903 Ontology", &ONTOLOGY_ITEMS, &[]);

/// The items of one set in its two editions: those that stayed, those that changed (`now => then`), those that stayed.
macro_rules! editions {
    (
        $now:ident, $then:ident, $count:literal;
        [$($first:expr;)*]
        [$($tag:literal, $name:literal, $unit:literal, $new:expr, $bytes:expr => $old:expr, $old_bytes:expr;)*]
        [$($last:expr;)*]
    ) => {
        static $now: [Spec; $count] =
            [$($first,)* $(item($tag, $name, $unit, $new, $bytes),)* $($last,)*];
        static $then: [Spec; $count] =
            [$($first,)* $(item($tag, $name, $unit, $old, $old_bytes),)* $($last,)*];
    };
}

editions!(
    ITEMS, EARLY_ITEMS, 16;
    [
        item(1, "Checksum", "", UINT, fixed(2));
        item(2, "Precision Time Stamp", "us", Kind::Time, fixed(8));
        item(3, "VMTI System Name", "", TEXT, up_to(128));
        item(4, "VMTI LS Version Number", "", UINT, up_to(2));
        item(5, "Total Number of Targets Detected", "", UINT, up_to(3));
        item(6, "Number of Reported Targets", "", UINT, up_to(3));
        item(7, "Frame Number", "", UINT, up_to(3));
        item(8, "Frame Width", "pixels", UINT, up_to(3));
        item(9, "Frame Height", "pixels", UINT, up_to(3));
        item(10, "VMTI Source Sensor", "", TEXT, up_to(512));
    ]
    [
        11, "VMTI Horizontal Field of View", "deg", Kind::Imap(0.0, 180.0), fixed(2) => unsigned(16, 0, 180), within(1, 2, 2);
        12, "VMTI Vertical Field of View", "deg", Kind::Imap(0.0, 180.0), fixed(2) => unsigned(16, 0, 180), within(1, 2, 2);
        13, "MIIS Identifier", "", Kind::Miis, within(2, 50, 0) => Kind::Miis, within(2, 50, 0);
        101, "VTarget Series", "", Kind::Pack(&TARGETS), ANY => Kind::Pack(&EARLY_TARGETS), ANY;
    ]
    [
        item(102, "Algorithm Series", "", Kind::Pack(&ALGORITHMS), ANY);
        item(103, "Ontology Series", "", Kind::Pack(&ONTOLOGIES), ANY);
    ]
);

editions!(
    VTARGET_ITEMS, EARLY_VTARGET_ITEMS, 30;
    [
        item(1, "Target Centroid", "pixel", UINT, up_to(6));
        item(2, "Bounding Box Top Left", "pixel", UINT, up_to(6));
        item(3, "Bounding Box Bottom Right", "pixel", UINT, up_to(6));
        item(4, "Target Priority", "", Kind::Uint(1, 255), fixed(1));
        item(5, "Target Confidence Level", "%", Kind::Uint(0, 100), fixed(1));
        item(6, "Target History", "", UINT, up_to(2));
        item(7, "Percentage of Target Pixels", "%", Kind::Uint(1, 100), fixed(1));
        item(8, "Target Color", "", Kind::Pack(&COLOUR), fixed(3));
        item(9, "Target Intensity", "", UINT, up_to(3));
    ]
    [
        10, "Target Location Offset Latitude", "deg", OFFSET, fixed(3) => EARLY_OFFSET, within(1, 3, 3);
        11, "Target Location Offset Longitude", "deg", OFFSET, fixed(3) => EARLY_OFFSET, within(1, 3, 3);
        12, "Target Height", "m", HEIGHT, fixed(2) => EARLY_HEIGHT, within(1, 2, 2);
        13, "Bounding Box Top Left Latitude Offset", "deg", OFFSET, fixed(3) => EARLY_OFFSET, within(1, 3, 3);
        14, "Bounding Box Top Left Longitude Offset", "deg", OFFSET, fixed(3) => EARLY_OFFSET, within(1, 3, 3);
        15, "Bounding Box Bottom Right Latitude Offset", "deg", OFFSET, fixed(3) => EARLY_OFFSET, within(1, 3, 3);
        16, "Bounding Box Bottom Right Longitude Offset", "deg", OFFSET, fixed(3) => EARLY_OFFSET, within(1, 3, 3);
        17, "Target Location", "", Kind::Pack(&LOCATION), within(10, 22, 0) => Kind::Pack(&EARLY_LOCATION), within(10, 22, 0);
        18, "Geospatial Contour Series", "", Kind::Pack(&LOCATIONS), ANY => Kind::Pack(&EARLY_LOCATIONS), ANY;
        19, "Centroid Pixel Row", "pixel", UINT, up_to(4) => UINT, up_to(4);
        20, "Centroid Pixel Column", "pixel", UINT, up_to(4) => UINT, up_to(4);
        21, "FPA Index", "", Kind::Pack(&PLANE), fixed(2) => Kind::Pack(&PLANE), fixed(2);
        22, "Algorithm ID", "", UINT, up_to(3) => UINT, up_to(3);
        23, "Detection Status", "", Kind::Choice(&STATUS), fixed(1) => Kind::Choice(&STATUS), fixed(1);
        101, "VMask Local Set", "", Kind::Set(&VMASK), ANY => Kind::Set(&VMASK), ANY;
        102, "VObject Local Set", "", Kind::Set(&VOBJECT), ANY => Kind::Set(&VOBJECT), ANY;
        103, "VFeature Local Set", "", Kind::Set(&VFEATURE), ANY => Kind::Set(&VFEATURE), ANY;
        104, "VTracker Local Set", "", Kind::Set(&VTRACKER), ANY => Kind::Set(&EARLY_VTRACKER), ANY;
    ]
    [
        item(105, "VChip Local Set", "", Kind::Set(&VCHIP), ANY);
        item(106, "VChip Series", "", Kind::Pack(&CHIPS), ANY);
        item(107, "VObject Series", "", Kind::Pack(&OBJECTS), ANY);
    ]
);

editions!(
    VTRACKER_ITEMS, EARLY_VTRACKER_ITEMS, 12;
    [
        item(1, "Track ID", "", Kind::Uuid, fixed(16));
        item(2, "Detection Status", "", Kind::Choice(&STATUS), fixed(1));
        item(3, "First Observation Time", "us", Kind::Time, fixed(8));
        item(4, "Latest Observation Time", "us", Kind::Time, fixed(8));
    ]
    [
        5, "Track Boundary Series", "", Kind::Pack(&LOCATIONS), ANY => Kind::Pack(&EARLY_LOCATIONS), ANY;
        6, "Algorithm", "", TEXT, ANY => TEXT, ANY;
        7, "Confidence Level", "%", Kind::Uint(0, 100), fixed(1) => Kind::Uint(0, 100), fixed(1);
        8, "Number of Track Points", "", UINT, up_to(2) => UINT, up_to(2);
        9, "Track History Series", "", Kind::Pack(&LOCATIONS), ANY => Kind::Pack(&EARLY_LOCATIONS), ANY;
        10, "Velocity", "", Kind::Pack(&VECTOR), within(6, 18, 0) => Kind::Pack(&EARLY_VECTOR), within(6, 18, 0);
        11, "Acceleration", "", Kind::Pack(&VECTOR), within(6, 18, 0) => Kind::Pack(&EARLY_VECTOR), within(6, 18, 0);
    ]
    [
        item(12, "Algorithm ID", "", UINT, up_to(3));
    ]
);

editions!(
    VTRACK_ITEMS, EARLY_VTRACK_ITEMS, 15;
    [
        item(1, "Checksum", "", UINT, fixed(2));
        item(2, "Track Time Stamp", "us", Kind::Time, fixed(8));
        item(3, "Track ID", "", Kind::Uuid, fixed(16));
        item(4, "Track Status", "", Kind::Choice(&STATUS), fixed(1));
        item(5, "Track Start Time", "us", Kind::Time, fixed(8));
        item(6, "Track End Time", "us", Kind::Time, fixed(8));
    ]
    [
        7, "Track Boundary Series", "", Kind::Pack(&LOCATIONS), ANY => Kind::Pack(&EARLY_LOCATIONS), ANY;
        8, "Track Algorithm", "", TEXT, ANY => TEXT, ANY;
        9, "Track Confidence", "%", Kind::Uint(0, 100), fixed(1) => Kind::Uint(0, 100), fixed(1);
        10, "VMTI System Name", "", TEXT, up_to(128) => TEXT, up_to(128);
        11, "VMTI LS Version Number", "", UINT, up_to(2) => UINT, up_to(2);
        12, "VMTI Source Sensor", "", TEXT, up_to(512) => TEXT, up_to(512);
        13, "Number of Track Points", "", UINT, up_to(2) => UINT, up_to(2);
        101, "VTrackItem Series", "", Kind::Pack(&TRACK_ITEMS), ANY => Kind::Pack(&EARLY_TRACK_ITEMS), ANY;
    ]
    [
        item(103, "Ontology Series", "", Kind::Pack(&ONTOLOGIES), ANY);
    ]
);

editions!(
    VTRACK_ITEM_ITEMS, EARLY_VTRACK_ITEM_ITEMS, 30;
    [
        item(1, "Target Time Stamp", "us", Kind::Time, fixed(8));
        item(2, "Target Centroid", "pixel", UINT, up_to(6));
        item(3, "Centroid Pixel Row", "pixel", UINT, up_to(4));
        item(4, "Centroid Pixel Column", "pixel", UINT, up_to(4));
        item(5, "Bounding Box Top Left", "pixel", UINT, up_to(6));
        item(6, "Bounding Box Bottom Right", "pixel", UINT, up_to(6));
        item(7, "Target Priority", "", Kind::Uint(1, 255), fixed(1));
        item(8, "Target Confidence Level", "%", Kind::Uint(0, 100), fixed(1));
        item(9, "Target History", "", UINT, up_to(2));
        item(10, "Percentage of Target Pixels", "%", Kind::Uint(1, 100), fixed(1));
        item(11, "Target Color", "", Kind::Pack(&COLOUR), fixed(3));
        item(12, "Target Intensity", "", UINT, up_to(3));
    ]
    [
        13, "Target Location", "", Kind::Pack(&LOCATION), within(10, 22, 0) => Kind::Pack(&EARLY_LOCATION), within(10, 22, 0);
        14, "Target Boundary Series", "", Kind::Pack(&LOCATIONS), ANY => Kind::Pack(&EARLY_LOCATIONS), ANY;
        15, "Velocity", "", Kind::Pack(&VECTOR), within(6, 18, 0) => Kind::Pack(&EARLY_VECTOR), within(6, 18, 0);
        16, "Acceleration", "", Kind::Pack(&VECTOR), within(6, 18, 0) => Kind::Pack(&EARLY_VECTOR), within(6, 18, 0);
        17, "FPA Index", "", Kind::Pack(&PLANE), fixed(2) => Kind::Pack(&PLANE), fixed(2);
        18, "Frame Number", "", UINT, up_to(3) => UINT, up_to(3);
        19, "MIIS Identifier", "", Kind::Miis, within(2, 50, 0) => Kind::Miis, within(2, 50, 0);
        20, "Frame Width", "pixels", UINT, up_to(3) => UINT, up_to(3);
        21, "Frame Height", "pixels", UINT, up_to(3) => UINT, up_to(3);
        22, "VMTI Horizontal Field of View", "deg", Kind::Imap(0.0, 180.0), fixed(2) => unsigned(16, 0, 180), within(1, 2, 2);
        23, "VMTI Vertical Field of View", "deg", Kind::Imap(0.0, 180.0), fixed(2) => unsigned(16, 0, 180), within(1, 2, 2);
    ]
    [
        item(24, "Motion Imagery URL", "", TEXT, ANY);
        item(101, "VMask Local Set", "", Kind::Set(&VMASK), ANY);
        item(102, "VObject Local Set", "", Kind::Set(&VOBJECT), ANY);
        item(103, "VFeature Local Set", "", Kind::Set(&VFEATURE), ANY);
        item(105, "VChip Local Set", "", Kind::Set(&VCHIP), ANY);
        item(106, "VChip Series", "", Kind::Pack(&CHIPS), ANY);
        item(107, "VObject Series", "", Kind::Pack(&OBJECTS), ANY);
    ]
);

#[rustfmt::skip]
static VMASK_ITEMS: [Spec; 2] = [
    item(1, "Pixel Contour", "", Kind::Pack(&PIXELS), ANY),
    item(2, "Bit Mask Series", "", Kind::Pack(&RUNS), ANY),
];

#[rustfmt::skip]
static VOBJECT_ITEMS: [Spec; 5] = [
    item(1, "Ontology", "", TEXT, ANY),
    item(2, "Ontology Class", "", TEXT, ANY),
    item(3, "Ontology ID", "", UINT, up_to(3)),
    item(4, "Confidence", "%", Kind::Imap(0.0, 100.0), within(1, 3, 1)),
    item(5, "VFeature Series", "", Kind::Pack(&FEATURES), ANY),
];

#[rustfmt::skip]
static VFEATURE_ITEMS: [Spec; 4] = [
    item(1, "Schema", "", TEXT, ANY),
    item(2, "Schema Feature", "", TEXT, ANY),
    item(3, "Ontology ID", "", UINT, up_to(3)),
    item(4, "Confidence", "%", Kind::Imap(0.0, 100.0), within(1, 3, 1)),
];

#[rustfmt::skip]
static VCHIP_ITEMS: [Spec; 3] = [
    item(1, "Image Type", "", TEXT, ANY),
    item(2, "Image IRI", "", TEXT, ANY),
    item(3, "Embedded Image", "", Kind::Opaque, ANY),
];

#[rustfmt::skip]
static ALGORITHM_ITEMS: [Spec; 5] = [
    item(1, "Algorithm ID", "", UINT, up_to(3)),
    item(2, "Name", "", TEXT, ANY),
    item(3, "Version", "", TEXT, ANY),
    item(4, "Class", "", TEXT, ANY),
    item(5, "Number of Frames", "", UINT, up_to(3)),
];

#[rustfmt::skip]
static ONTOLOGY_ITEMS: [Spec; 6] = [
    item(1, "Ontology ID", "", UINT, up_to(3)),
    item(2, "Parent ID", "", UINT, up_to(3)),
    item(3, "Ontology IRI", "", TEXT, ANY),
    item(4, "Entity IRI", "", TEXT, ANY),
    item(5, "Version IRI", "", TEXT, ANY),
    item(6, "Label", "", TEXT, ANY),
];

static TARGETS: Shape = Shape::List(&Shape::Counted(&Shape::Record(
    1,
    &[Part("id", Shape::Oid), Part("items", Shape::Rest(Kind::Set(&VTARGET)))],
)));
static EARLY_TARGETS: Shape = Shape::List(&Shape::Counted(&Shape::Record(
    1,
    &[Part("id", Shape::Oid), Part("items", Shape::Rest(Kind::Set(&EARLY_VTARGET)))],
)));
static TRACK_ITEMS: Shape = Shape::List(&Shape::Counted(&Shape::Record(
    1,
    &[Part("id", Shape::Oid), Part("items", Shape::Rest(Kind::Set(&VTRACK_ITEM)))],
)));
static EARLY_TRACK_ITEMS: Shape = Shape::List(&Shape::Counted(&Shape::Record(
    1,
    &[Part("id", Shape::Oid), Part("items", Shape::Rest(Kind::Set(&EARLY_VTRACK_ITEM)))],
)));
static ALGORITHMS: Shape = Shape::List(&Shape::Counted(&Shape::Rest(Kind::Set(&ALGORITHM))));
static ONTOLOGIES: Shape = Shape::List(&Shape::Counted(&Shape::Rest(Kind::Set(&ONTOLOGY))));
static CHIPS: Shape = Shape::List(&Shape::Counted(&Shape::Rest(Kind::Set(&VCHIP))));
static OBJECTS: Shape = Shape::List(&Shape::Counted(&Shape::Rest(Kind::Set(&VOBJECT))));
static FEATURES: Shape = Shape::List(&Shape::Counted(&Shape::Rest(Kind::Set(&VFEATURE))));
static PIXELS: Shape = Shape::List(&Shape::Counted(&Shape::Rest(UINT)));
static RUNS: Shape = Shape::List(&Shape::Counted(&Shape::Record(
    2,
    &[Part("start", Shape::Counted(&Shape::Rest(UINT))), Part("length", Shape::Length)],
)));

static COLOUR: Shape = Shape::Record(
    3,
    &[
        Part("red", Shape::Sized(1, UINT)),
        Part("green", Shape::Sized(1, UINT)),
        Part("blue", Shape::Sized(1, UINT)),
    ],
);

static PLANE: Shape = Shape::Record(
    2,
    &[Part("row", Shape::Sized(1, Kind::Uint(1, 255))), Part("column", Shape::Sized(1, Kind::Uint(1, 255)))],
);

/// Three numbers, how sure they are, and how they depend on each other; the last two groups may be missing.
macro_rules! triple {
    ($a:literal $an:literal $ak:expr, $b:literal $bn:literal $bk:expr, $c:literal $cn:literal $ck:expr; $sigma:expr, $rho:expr) => {
        Shape::Record(
            3,
            &[
                Part($a, Shape::Sized($an, $ak)),
                Part($b, Shape::Sized($bn, $bk)),
                Part($c, Shape::Sized($cn, $ck)),
                Part("sigma_east", Shape::Sized(2, $sigma)),
                Part("sigma_north", Shape::Sized(2, $sigma)),
                Part("sigma_up", Shape::Sized(2, $sigma)),
                Part("rho_east_north", Shape::Sized(2, $rho)),
                Part("rho_east_up", Shape::Sized(2, $rho)),
                Part("rho_north_up", Shape::Sized(2, $rho)),
            ],
        )
    };
}

static LOCATION: Shape = triple!(
    "latitude" 4 Kind::Imap(-90.0, 90.0), "longitude" 4 Kind::Imap(-180.0, 180.0), "hae" 2 HEIGHT;
    Kind::Imap(0.0, 650.0), Kind::Imap(-1.0, 1.0)
);
static EARLY_LOCATION: Shape = triple!(
    "latitude" 4 unsigned(32, -90, 90), "longitude" 4 unsigned(32, -180, 180), "hae" 2 EARLY_HEIGHT;
    unsigned(16, 0, 650), unsigned(16, -1, 1)
);
static VECTOR: Shape = triple!(
    "east" 2 Kind::Imap(-900.0, 900.0), "north" 2 Kind::Imap(-900.0, 900.0), "up" 2 Kind::Imap(-900.0, 900.0);
    Kind::Imap(0.0, 650.0), Kind::Imap(-1.0, 1.0)
);
static EARLY_VECTOR: Shape = triple!(
    "east" 2 unsigned(16, -900, 900), "north" 2 unsigned(16, -900, 900), "up" 2 unsigned(16, -900, 900);
    unsigned(16, 0, 650), unsigned(16, -1, 1)
);
static LOCATIONS: Shape = Shape::List(&Shape::Counted(&LOCATION));
static EARLY_LOCATIONS: Shape = Shape::List(&Shape::Counted(&EARLY_LOCATION));

const OFFSET: Kind = Kind::Imap(-19.2, 19.2);
const EARLY_OFFSET: Kind = signed_milli(24, 19_200, Special::OutOfRange);
const HEIGHT: Kind = Kind::Imap(-900.0, 19_000.0);
const EARLY_HEIGHT: Kind = unsigned(16, -900, 19_000);

static STATUS: [Choice; 5] = [
    Choice { code: 0, label: "inactive" },
    Choice { code: 1, label: "active_moving" },
    Choice { code: 2, label: "dropped" },
    Choice { code: 3, label: "active_stopped" },
    Choice { code: 4, label: "active_coasting" },
];
