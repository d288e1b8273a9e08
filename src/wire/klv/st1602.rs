//! ST 1602 composite imaging: the table of its set. Never reads a byte itself.

use super::spec::{Kind, SetSpec, Spec, UINT, fixed, item, up_to};

/// Composite Imaging Local Set.
pub static ST1602: SetSpec = SetSpec::local("ST 1602", &ITEMS, &[2, 9, 10, 11, 12, 18]);

#[rustfmt::skip]
static ITEMS: [Spec; 18] = [
    item(1, "Precision Time Stamp", "us", Kind::Time, fixed(8)),
    item(2, "Document Version", "", UINT, up_to(2)),
    item(3, "Source Image Rows", "pixels", UINT, up_to(4)),
    item(4, "Source Image Columns", "pixels", UINT, up_to(4)),
    item(5, "Source Image AOI Rows", "pixels", UINT, up_to(4)),
    item(6, "Source Image AOI Columns", "pixels", UINT, up_to(4)),
    item(7, "Source Image AOI Position X", "pixels", Kind::Int, up_to(4)),
    item(8, "Source Image AOI Position Y", "pixels", Kind::Int, up_to(4)),
    item(9, "Sub-Image Rows", "pixels", UINT, up_to(4)),
    item(10, "Sub-Image Columns", "pixels", UINT, up_to(4)),
    item(11, "Sub-Image Position X", "pixels", Kind::Int, up_to(4)),
    item(12, "Sub-Image Position Y", "pixels", Kind::Int, up_to(4)),
    item(13, "Active Sub-Image Rows", "pixels", UINT, up_to(4)),
    item(14, "Active Sub-Image Columns", "pixels", UINT, up_to(4)),
    item(15, "Active Sub-Image Offset X", "pixels", Kind::Int, up_to(4)),
    item(16, "Active Sub-Image Offset Y", "pixels", Kind::Int, up_to(4)),
    item(17, "Transparency", "", UINT, fixed(1)),
    item(18, "Z-Order", "", UINT, up_to(4)),
];
