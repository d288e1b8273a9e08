//! ST 1002 range motion imagery: the table of its set. Never reads a byte itself.

use super::spec::{ANY, Element, FLOAT, Kind, Part, SetSpec, Shape, Spec, UINT, fixed, item, up_to, within};

/// Range Image Local Set.
pub static ST1002: SetSpec = SetSpec::local("ST 1002", &ITEMS, &[1, 11, 12]);

/// ST 1202 generalized transformation.
static ST1202: SetSpec = SetSpec::local("ST 1202", &TRANSFORMATION, &[]);

#[rustfmt::skip]
static ITEMS: [Spec; 13] = [
    item(1, "Range Image Precision Time Stamp", "us", Kind::Time, fixed(8)),
    item(11, "Document Version", "", UINT, up_to(2)),
    item(12, "Range Image Enumerations", "", UINT, up_to(2)).note("bits 7-6 source, 5-3 data type, 2-0 compression"),
    item(13, "Single Point Range Measurement", "m", FLOAT, within(4, 8, 8)),
    item(14, "Single Point Range Measurement Uncertainty", "m", FLOAT, within(4, 8, 8)),
    item(15, "Single Point Range Measurement Row", "pixel", FLOAT, within(4, 8, 8)),
    item(16, "Single Point Range Measurement Column", "pixel", FLOAT, within(4, 8, 8)),
    item(17, "Number of Sections in X", "", UINT, up_to(4)),
    item(18, "Number of Sections in Y", "", UINT, up_to(4)),
    item(19, "Generalized Transformation Local Set", "", Kind::Set(&ST1202), ANY),
    item(20, "Section Data", "", Kind::Pack(&SECTION), ANY).repeats(),
    item(21, "CRC-16-CCITT", "", UINT, fixed(2)),
    item(22, "Leap Seconds", "s", Kind::Int, up_to(4)),
];

#[rustfmt::skip]
static TRANSFORMATION: [Spec; 11] = [
    item(1, "Coefficient a", "", FLOAT, within(4, 8, 8)),
    item(2, "Coefficient b", "", FLOAT, within(4, 8, 8)),
    item(3, "Coefficient c", "", FLOAT, within(4, 8, 8)),
    item(4, "Coefficient d", "", FLOAT, within(4, 8, 8)),
    item(5, "Coefficient e", "", FLOAT, within(4, 8, 8)),
    item(6, "Coefficient f", "", FLOAT, within(4, 8, 8)),
    item(7, "Coefficient g", "", FLOAT, within(4, 8, 8)),
    item(8, "Coefficient h", "", FLOAT, within(4, 8, 8)),
    item(9, "Standard Deviation and Correlation", "", Kind::Sdcc, ANY),
    item(10, "Document Version", "", UINT, up_to(2)),
    item(11, "Transformation Type", "", UINT, up_to(1)),
];

static SECTION: Shape = Shape::Record(
    4,
    &[
        Part("x", Shape::Counted(&Shape::Oid)),
        Part("y", Shape::Counted(&Shape::Oid)),
        Part("ranges", Shape::Counted(&Shape::Rest(Kind::Array(Element::Float)))),
        Part("uncertainty", Shape::Counted(&Shape::Rest(Kind::Array(Element::Float)))),
        Part("plane_x", Shape::Counted(&Shape::Rest(FLOAT))),
        Part("plane_y", Shape::Counted(&Shape::Rest(FLOAT))),
        Part("plane_constant", Shape::Counted(&Shape::Rest(FLOAT))),
    ],
);
