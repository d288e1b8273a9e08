//! ST 0102.12 security metadata: the tables of its local and universal sets. Never reads a byte itself.

use super::spec::{ANY, ASCII, Charset, Kind, SetSpec, Spec, UINT, fixed, item, up_to};
use super::value::Choice;

/// Security Metadata Local Set.
pub static ST0102: SetSpec = SetSpec::local("ST 0102", &ITEMS, &[1, 2, 3, 12, 13, 22]);

/// Security Metadata Universal Set, whose codes are words.
pub static ST0102_UNIVERSAL: SetSpec = SetSpec::universal("ST 0102 Universal Set", &UNIVERSAL, &KEYS);

#[rustfmt::skip]
static ITEMS: [Spec; 17] = [
    item(1, "Security Classification", "", Kind::Choice(&CLASSIFICATION), fixed(1)),
    item(2, "Classifying Country and Releasing Instructions Country Coding Method", "", Kind::Choice(&CODING), fixed(1)),
    item(3, "Classifying Country", "", ASCII, ANY),
    item(4, "Security-SCI/SHI Information", "", ASCII, ANY),
    item(5, "Caveats", "", ASCII, ANY),
    item(6, "Releasing Instructions", "", ASCII, ANY),
    item(7, "Classified By", "", ASCII, ANY),
    item(8, "Derived From", "", ASCII, ANY),
    item(9, "Classification Reason", "", ASCII, ANY),
    item(10, "Declassification Date", "", ASCII, fixed(8)),
    item(11, "Classification and Marking System", "", ASCII, ANY),
    item(12, "Object Country Coding Method", "", Kind::Choice(&OBJECT_CODING), fixed(1)),
    item(13, "Object Country Codes", "", Kind::Text(Charset::Utf16), ANY),
    item(14, "Classification Comments", "", ASCII, ANY),
    item(22, "Security Metadata Version", "", UINT, fixed(2)),
    item(23, "Country Coding Method Version Date", "", ASCII, fixed(10)),
    item(24, "Object Country Coding Method Version Date", "", ASCII, fixed(10)),
];

#[rustfmt::skip]
static UNIVERSAL: [Spec; 17] = [
    item(1, "Security Classification", "", ASCII, up_to(14)),
    item(2, "Classifying Country and Releasing Instructions Country Coding Method", "", ASCII, up_to(40)),
    item(3, "Classifying Country", "", ASCII, ANY),
    item(4, "Security-SCI/SHI Information", "", ASCII, ANY),
    item(5, "Caveats", "", ASCII, ANY),
    item(6, "Releasing Instructions", "", ASCII, ANY),
    item(7, "Classified By", "", ASCII, ANY),
    item(8, "Derived From", "", ASCII, ANY),
    item(9, "Classification Reason", "", ASCII, ANY),
    item(10, "Declassification Date", "", ASCII, fixed(8)),
    item(11, "Classification and Marking System", "", ASCII, ANY),
    item(12, "Object Country Coding Method", "", ASCII, up_to(40)),
    item(13, "Object Country Codes", "", Kind::Text(Charset::Utf16), ANY),
    item(14, "Classification Comments", "", ASCII, ANY),
    item(22, "Security Metadata Version", "", UINT, fixed(2)),
    item(23, "Country Coding Method Version Date", "", ASCII, fixed(10)),
    item(24, "Object Country Coding Method Version Date", "", ASCII, fixed(10)),
];

#[rustfmt::skip]
static KEYS: [([u8; 16], u32); 17] = [
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x02\x08\x02\x01\x00\x00\x00\x00", 1),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x20\x01\x02\x07\x00\x00", 2),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x20\x01\x02\x08\x00\x00", 3),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x0e\x01\x02\x03\x02\x00\x00\x00", 4),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x02\x08\x02\x02\x00\x00\x00\x00", 5),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x20\x01\x02\x09\x00\x00", 6),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x02\x08\x02\x03\x00\x00\x00\x00", 7),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x02\x08\x02\x06\x00\x00\x00\x00", 8),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x02\x08\x02\x04\x00\x00\x00\x00", 9),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x02\x08\x02\x05\x00\x00\x00\x00", 10),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x02\x08\x02\x08\x00\x00\x00\x00", 11),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x20\x01\x02\x06\x00\x00", 12),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x07\x01\x20\x01\x02\x01\x01\x00", 13),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x03\x02\x08\x02\x07\x00\x00\x00\x00", 14),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x0e\x01\x02\x05\x04\x00\x00\x00", 22),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x0e\x01\x04\x03\x03\x00\x00\x00", 23),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x0e\x01\x04\x03\x04\x00\x00\x00", 24),
];

static CLASSIFICATION: [Choice; 5] = [
    Choice { code: 1, label: "unclassified" },
    Choice { code: 2, label: "restricted" },
    Choice { code: 3, label: "confidential" },
    Choice { code: 4, label: "secret" },
    Choice { code: 5, label: "top_secret" },
];

static CODING: [Choice; 14] = [
    Choice { code: 1, label: "iso_3166_two_letter" },
    Choice { code: 2, label: "iso_3166_three_letter" },
    Choice { code: 3, label: "fips_10_4_two_letter" },
    Choice { code: 4, label: "fips_10_4_four_letter" },
    Choice { code: 5, label: "iso_3166_numeric" },
    Choice { code: 6, label: "stanag_1059_two_letter" },
    Choice { code: 7, label: "stanag_1059_three_letter" },
    Choice { code: 10, label: "fips_10_4_mixed" },
    Choice { code: 11, label: "iso_3166_mixed" },
    Choice { code: 12, label: "stanag_1059_mixed" },
    Choice { code: 13, label: "genc_two_letter" },
    Choice { code: 14, label: "genc_three_letter" },
    Choice { code: 15, label: "genc_numeric" },
    Choice { code: 16, label: "genc_mixed" },
];

/// How countries of objects are written; other numbers than for the classifying country.
pub(super) static OBJECT_CODING: [Choice; 11] = [
    Choice { code: 1, label: "iso_3166_two_letter" },
    Choice { code: 2, label: "iso_3166_three_letter" },
    Choice { code: 3, label: "iso_3166_numeric" },
    Choice { code: 4, label: "fips_10_4_two_letter" },
    Choice { code: 5, label: "fips_10_4_four_letter" },
    Choice { code: 6, label: "stanag_1059_two_letter" },
    Choice { code: 7, label: "stanag_1059_three_letter" },
    Choice { code: 13, label: "genc_two_letter" },
    Choice { code: 14, label: "genc_three_letter" },
    Choice { code: 15, label: "genc_numeric" },
    Choice { code: 64, label: "genc_administrative_subdivision" },
];
