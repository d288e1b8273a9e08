//! ST 1206 SAR motion imagery: the table of its set. Never reads a byte itself.

use super::spec::{ANY, Element, Kind, SetSpec, Spec, UINT, fixed, item};
use super::value::Choice;

/// SAR Motion Imagery Local Set.
pub static ST1206: SetSpec = SetSpec::local("ST 1206", &ITEMS, &[2, 3, 28]);

#[rustfmt::skip]
static ITEMS: [Spec; 28] = [
    item(1, "Grazing Angle", "deg", Kind::Imap(0.0, 90.0), fixed(2)),
    item(2, "Ground Plane Squint Angle", "deg", Kind::Imap(-90.0, 90.0), fixed(2)),
    item(3, "Look Direction", "", Kind::Choice(&LOOK), fixed(1)),
    item(4, "Image Plane", "", Kind::Choice(&PLANE), fixed(1)),
    item(5, "Range Resolution", "m", Kind::Imap(0.0, 1e6), fixed(4)),
    item(6, "Cross-Range Resolution", "m", Kind::Imap(0.0, 1e6), fixed(4)),
    item(7, "Range Image Plane Pixel Size", "m", Kind::Imap(0.0, 1e6), fixed(4)),
    item(8, "Cross-Range Image Plane Pixel Size", "m", Kind::Imap(0.0, 1e6), fixed(4)),
    item(9, "Image Rows", "pixels", UINT, fixed(2)),
    item(10, "Image Columns", "pixels", UINT, fixed(2)),
    item(11, "Range Direction Angle", "deg", Kind::Imap(0.0, 360.0), fixed(2)),
    item(12, "True North Direction", "deg", Kind::Imap(0.0, 360.0), fixed(2)),
    item(13, "Range Layover Angle", "deg", Kind::Imap(0.0, 360.0), fixed(2)),
    item(14, "Ground Aperture Angular Extent", "deg", Kind::Imap(0.0, 90.0), fixed(2)),
    item(15, "Aperture Duration", "us", UINT, fixed(4)),
    item(16, "Ground Track Angle", "deg", Kind::Imap(0.0, 360.0), fixed(2)),
    item(17, "Minimum Detectable Velocity", "m/s", Kind::Imap(0.0, 100.0), fixed(2)),
    item(18, "True Pulse Repetition Frequency", "Hz", Kind::Imap(0.0, 1e6), fixed(4)),
    item(19, "Pulse Repetition Frequency Scale Factor", "", Kind::Imap(0.0, 1.0), fixed(2)),
    item(20, "Transmit RF Center Frequency", "Hz", Kind::Imap(0.0, 1e12), fixed(4)),
    item(21, "Transmit RF Bandwidth", "Hz", Kind::Imap(0.0, 1e11), fixed(4)),
    item(22, "Radar Cross Section Scale Factor Polynomial", "", Kind::Array(Element::Opaque), ANY),
    item(23, "Reference Frame Precision Time Stamp", "us", Kind::Time, fixed(8)),
    item(24, "Reference Frame Grazing Angle", "deg", Kind::Imap(0.0, 90.0), fixed(2)),
    item(25, "Reference Frame Ground Plane Squint Angle", "deg", Kind::Imap(-90.0, 90.0), fixed(2)),
    item(26, "Reference Frame Range Direction Angle", "deg", Kind::Imap(0.0, 360.0), fixed(2)),
    item(27, "Reference Frame Range Layover Angle", "deg", Kind::Imap(0.0, 360.0), fixed(2)),
    item(28, "Document Version", "", UINT, fixed(1)),
];

static LOOK: [Choice; 2] = [Choice { code: 0, label: "left" }, Choice { code: 1, label: "right" }];

static PLANE: [Choice; 3] = [
    Choice { code: 0, label: "slant" },
    Choice { code: 1, label: "ground" },
    Choice { code: 2, label: "other" },
];
