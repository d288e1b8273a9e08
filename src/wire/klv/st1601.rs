//! ST 1601 geo-registration: the table of its set. Never reads a byte itself.

use super::spec::{ANY, Element, Kind, SetSpec, Spec, TEXT, UINT, fixed, item, up_to};

/// Geo-Registration Local Set.
pub static ST1601: SetSpec = SetSpec::local("ST 1601", &ITEMS, &[1, 2, 3]);

#[rustfmt::skip]
static ITEMS: [Spec; 10] = [
    item(1, "Document Version", "", UINT, up_to(2)),
    item(2, "Algorithm Name", "", TEXT, ANY),
    item(3, "Algorithm Version", "", TEXT, ANY),
    item(4, "Correspondence Points: Row/Column", "pixel", Kind::Array(Element::Uint), ANY),
    item(5, "Correspondence Points: Latitude/Longitude", "deg", Kind::Array(Element::Float), ANY),
    item(6, "Second Image Name", "", TEXT, ANY),
    item(7, "Algorithm Configuration Identifier", "", Kind::Uuid, fixed(16)),
    item(8, "Correspondence Points: Elevation", "m", Kind::Array(Element::Float), ANY),
    item(9, "Correspondence Points: Row/Column Deviation and Correlation", "", Kind::Array(Element::Rows(&PIXELS)), ANY),
    item(10, "Correspondence Points: Latitude/Longitude/Elevation Deviation and Correlation", "", Kind::Array(Element::Rows(&PLACES)), ANY),
];

/// Bounds of the rows of item 9.
static PIXELS: [(i32, i32); 6] = [(0, 100), (0, 100), (-1, 1), (0, 100), (0, 100), (-1, 1)];

/// Bounds of the rows of item 10.
static PLACES: [(i32, i32); 6] = [(0, 650), (0, 650), (-1, 1), (0, 1000), (-1, 1), (-1, 1)];
