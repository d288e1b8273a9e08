//! The universal labels that KLV packets start with: 16 bytes enter, the set that they name leaves. Never asks whether
//! what follows is one.

use super::eg0104::EG0104;
use super::spec::{Kind, SetSpec, Spec, item, within};
use super::st0102::{ST0102, ST0102_UNIVERSAL};
use super::st0601::ST0601;
use super::st0806::ST0806;
use super::st0903::{ST0903, VTRACK};
use super::st1002::ST1002;
use super::st1206::ST1206;

/// The set that a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// ST 0601 UAS Datalink Local Set.
    Uas,
    /// ST 0102 Security Metadata Local Set.
    Security,
    /// ST 0102 Security Metadata Universal Set.
    SecurityUniversal,
    /// EG 0104 Predator universal set.
    Predator,
    /// ST 0806 Remote Video Terminal Local Set.
    Rvt,
    /// ST 0903 VMTI Local Set.
    Vmti,
    /// ST 0903 VTrack Local Set.
    VTrack,
    /// ST 1206 SAR Motion Imagery Local Set.
    Sar,
    /// ST 1002 Range Image Local Set.
    RangeImage,
    /// ST 1204 core identifier.
    Miis,
    /// A set that is not read.
    Other([u8; 16]),
}

impl Label {
    /// What a key names.
    pub fn new(key: &[u8; 16]) -> Self {
        KEYS.iter().find(|(known, _)| same_label(known, key)).map_or(Self::Other(*key), |&(_, label)| label)
    }

    /// The key that names it.
    pub fn key(self) -> [u8; 16] {
        if let Self::Other(key) = self {
            return key;
        }
        KEYS.iter().find(|(_, label)| *label == self).map_or([0; 16], |&(key, _)| key)
    }

    /// The table of its items.
    pub fn spec(self) -> &'static SetSpec {
        match self {
            Self::Uas => &ST0601,
            Self::Security => &ST0102,
            Self::SecurityUniversal => &ST0102_UNIVERSAL,
            Self::Predator => &EG0104,
            Self::Rvt => &ST0806,
            Self::Vmti => &ST0903,
            Self::VTrack => &VTRACK,
            Self::Sar => &ST1206,
            Self::RangeImage => &ST1002,
            Self::Miis => &IDENTIFIER,
            Self::Other(_) => &UNKNOWN,
        }
    }

    /// Tag and bytes of its checksum, where a packet of it has one.
    pub fn checksum(self) -> Option<(u32, usize)> {
        match self {
            Self::Uas | Self::Vmti | Self::VTrack => Some((1, 2)),
            Self::Rvt => Some((1, 4)),
            Self::RangeImage => Some((21, 2)),
            _ => None,
        }
    }
}

/// Whether two keys name the same, whatever their versions (byte 8, SMPTE ST 336).
pub fn same_label(a: &[u8; 16], b: &[u8; 16]) -> bool {
    const VERSION: u128 = 0xff << 64;
    (u128::from_be_bytes(*a) ^ u128::from_be_bytes(*b)) & !VERSION == 0
}

/// What every universal label starts with.
pub const PREFIX: [u8; 4] = [0x06, 0x0e, 0x2b, 0x34];

#[rustfmt::skip]
static KEYS: [([u8; 16], Label); 10] = [
    (*b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x01\x01\x00\x00\x00", Label::Uas),
    (*b"\x06\x0e\x2b\x34\x02\x03\x01\x01\x0e\x01\x03\x03\x02\x00\x00\x00", Label::Security),
    (*b"\x06\x0e\x2b\x34\x02\x01\x01\x01\x02\x08\x02\x00\x00\x00\x00\x00", Label::SecurityUniversal),
    (*b"\x06\x0e\x2b\x34\x02\x01\x01\x01\x0e\x01\x01\x02\x01\x01\x00\x00", Label::Predator),
    (*b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x01\x02\x00\x00\x00", Label::Rvt),
    (*b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x03\x06\x00\x00\x00", Label::Vmti),
    (*b"\x06\x0e\x2b\x34\x02\x03\x01\x01\x0e\x01\x03\x03\x1e\x00\x00\x00", Label::VTrack),
    (*b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x03\x0d\x00\x00\x00", Label::Sar),
    (*b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x03\x0c\x00\x00\x00", Label::RangeImage),
    (*b"\x06\x0e\x2b\x34\x01\x01\x01\x01\x0e\x01\x04\x05\x03\x00\x00\x00", Label::Miis),
];

/// The core identifier is a value, not a set: it is read as the only item of one, under the tag it has in ST 0601.
static IDENTIFIER: SetSpec = SetSpec::local("ST 1204", &IDENTIFIER_ITEMS, &[]);
static IDENTIFIER_ITEMS: [Spec; 1] = [item(94, "MIIS Core Identifier", "", Kind::Miis, within(2, 50, 0))];

static UNKNOWN: SetSpec = SetSpec::local("unknown set", &[], &[]);
