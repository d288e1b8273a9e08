//! The words that the tables of the standards are written in: what an item is called, how many bytes it may have, what
//! its bytes mean. Never reads a byte itself.

use std::fmt;

use super::value::{Choice, Flags, Special};

/// A set: its standard and its items.
pub struct SetSpec {
    /// The standard and the name of the set.
    pub name: &'static str,
    /// Its items by ascending tag.
    pub items: &'static [Spec],
    /// Tags that must be there.
    pub required: &'static [u32],
    /// How its items are told apart.
    pub tags: Tags,
    /// The edition to read it by when the item that names its version is below a number.
    pub earlier: Option<Earlier>,
}

/// An earlier edition of a set.
#[derive(Debug)]
pub struct Earlier {
    /// The item that holds the version.
    pub tag: u32,
    /// The first version that is not read so.
    pub below: u64,
    /// What it was then.
    pub spec: &'static SetSpec,
}

/// How the items of a set are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tags {
    /// By BER-OID numbers (SMPTE ST 336 local set).
    Local,
    /// By 16-byte keys (universal set); the table gives the number that stands for each.
    Universal(&'static [([u8; 16], u32)]),
}

/// An item of a set.
pub struct Spec {
    /// Its tag.
    pub tag: u32,
    /// Its name in the standard.
    pub name: &'static str,
    /// Unit of its value; empty where it has none.
    pub unit: &'static str,
    /// What its bytes mean.
    pub kind: Kind,
    /// How many bytes it may have.
    pub bytes: Bytes,
    /// Whether it may stand more than once in a set.
    pub repeats: bool,
    /// What to know about it.
    pub note: &'static str,
}

/// How many bytes an item may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// At least.
    pub min: u16,
    /// At most.
    pub max: u16,
    /// What is written where nothing else is asked for; 0 = as few as the value needs.
    pub usual: u16,
}

/// What the bytes of an item mean.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// An unsigned number within these bounds.
    Uint(u64, u64),
    /// A signed number.
    Int,
    /// A real in equal steps.
    Linear(Linear),
    /// ST 1201 IMAPB between these bounds.
    Imap(f64, f64),
    /// IEEE 754 of 4 or 8 bytes, between these bounds.
    Float(f64, f64),
    /// Microseconds since 1970.
    Time,
    /// A named choice.
    Choice(&'static [Choice]),
    /// Named bits.
    Flags(&'static Flags),
    /// Text.
    Text(Charset),
    /// A UUID.
    Uuid,
    /// ST 1204 core identifier.
    Miis,
    /// A nested set.
    Set(&'static SetSpec),
    /// A pack of values.
    Pack(&'static Shape),
    /// An ST 1303 array.
    Array(Element),
    /// ST 1010 standard deviations and correlation coefficients.
    Sdcc,
    /// The numbers of the bits that are set, from the lowest bit of the first byte on.
    Bits,
    /// Bytes as they are.
    Opaque,
}

/// How text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8.
    Utf8,
    /// Printable ISO 646.
    Ascii,
    /// UTF-16, big-endian (ST 0102 item 13).
    Utf16,
}

/// What the elements of an ST 1303 array are where the array itself does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Unsigned numbers.
    Uint,
    /// IEEE 754.
    Float,
    /// Code words, each row of the array with its own bounds.
    Rows(&'static [(i32, i32)]),
    /// Bytes.
    Opaque,
}

/// A real in equal steps: `(raw · num + add) / den`, each of them a whole number so that one division rounds once.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    pub(super) num: f64,
    pub(super) add: f64,
    pub(super) den: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// What the most negative code says; `None` = the code is unsigned.
    pub error: Option<Special>,
    /// The most negative code.
    pub(super) lowest: i64,
}

/// How the values of a pack follow each other.
#[derive(Debug)]
pub enum Shape {
    /// A BER-OID number.
    Oid,
    /// A number written as a BER length.
    Length,
    /// So many bytes.
    Sized(u16, Kind),
    /// All that is left.
    Rest(Kind),
    /// All that is left, in two halves of equal length.
    Halves(&'static str, Kind, &'static str, Kind),
    /// A BER length and what it counts; nothing counted = unknown.
    Counted(&'static Self),
    /// One after the other; those behind the first so many may be missing from the end.
    Record(usize, &'static [Part]),
    /// As many as there are.
    List(&'static Self),
}

/// A named place in a record.
#[derive(Debug)]
pub struct Part(pub &'static str, pub Shape);

impl SetSpec {
    /// A local set.
    pub const fn local(name: &'static str, items: &'static [Spec], required: &'static [u32]) -> Self {
        Self { name, items, required, tags: Tags::Local, earlier: None }
    }

    /// A universal set.
    pub(super) const fn universal(
        name: &'static str,
        items: &'static [Spec],
        keys: &'static [([u8; 16], u32)],
    ) -> Self {
        Self { name, items, required: &[], tags: Tags::Universal(keys), earlier: None }
    }

    /// With an earlier edition.
    pub(super) const fn before(mut self, tag: u32, below: u64, spec: &'static Self) -> Self {
        self.earlier = Some(Earlier { tag, below, spec });
        self
    }

    /// What is known of a tag.
    pub fn find(&self, tag: u32) -> Option<&'static Spec> {
        // most tables have no gaps: the item stands where its tag says
        let guess = self.items.get((tag as usize).wrapping_sub(1));
        if let Some(spec) = guess.filter(|spec| spec.tag == tag) {
            return Some(spec);
        }
        self.items.binary_search_by_key(&tag, |spec| spec.tag).ok().and_then(|at| self.items.get(at))
    }
}

impl fmt::Debug for SetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetSpec({})", self.name)
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spec({}: {})", self.tag, self.name)
    }
}

/// A set is the same set where its table is the same.
impl PartialEq for SetSpec {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// An item is the same item where its line is the same.
impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Spec {
    /// A note on it.
    pub(super) const fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    /// May stand more than once.
    pub(super) const fn repeats(mut self) -> Self {
        self.repeats = true;
        self
    }
}

/// A row of a table.
pub(super) const fn item(tag: u32, name: &'static str, unit: &'static str, kind: Kind, bytes: Bytes) -> Spec {
    Spec { tag, name, unit, kind, bytes, repeats: false, note: "" }
}

/// Exactly so many bytes.
pub(super) const fn fixed(bytes: u16) -> Bytes {
    Bytes { min: bytes, max: bytes, usual: bytes }
}

/// Between so many bytes, written with the last.
pub(super) const fn within(min: u16, max: u16, usual: u16) -> Bytes {
    Bytes { min, max, usual }
}

/// At most so many bytes.
pub(super) const fn up_to(max: u16) -> Bytes {
    Bytes { min: 1, max, usual: 0 }
}

/// Any number of bytes.
pub(super) const ANY: Bytes = Bytes { min: 1, max: u16::MAX, usual: 0 };

/// IEEE 754 of any value that is a number.
pub(super) const FLOAT: Kind = Kind::Float(f64::MIN, f64::MAX);
/// Any unsigned number.
pub(super) const UINT: Kind = Kind::Uint(0, u64::MAX);

/// UTF-8.
pub(super) const TEXT: Kind = Kind::Text(Charset::Utf8);

/// ISO 646.
pub(super) const ASCII: Kind = Kind::Text(Charset::Ascii);

/// An unsigned code over `min..=max`.
pub(super) const fn unsigned(bits: u32, min: i64, max: i64) -> Kind {
    Kind::Linear(linear(bits, min, max, 1, None))
}

/// A signed code over `-max..=max`, whose most negative code is `error`.
pub(super) const fn signed(bits: u32, max: i64, error: Special) -> Kind {
    Kind::Linear(linear(bits, -max, max, 1, Some(error)))
}

/// The same with `max` in thousandths.
pub(super) const fn signed_milli(bits: u32, max: i64, error: Special) -> Kind {
    Kind::Linear(linear(bits, -max, max, 1000, Some(error)))
}

const fn linear(bits: u32, min: i64, max: i64, per: i64, error: Option<Special>) -> Linear {
    let steps = if error.is_some() { (1_i64 << bits) - 2 } else { (1_i64 << bits) - 1 };
    let (span, whole) = (max - min, steps * per);
    let common = gcd(span, whole);
    let (num, den) = (span / common, whole / common);
    // a signed code counts from the middle
    let add = if error.is_some() { 0 } else { min * den / per };
    let per = per as f64;
    Linear {
        num: num as f64,
        add: add as f64,
        den: den as f64,
        min: min as f64 / per,
        max: max as f64 / per,
        error,
        lowest: -(1 << (bits - 1)),
    }
}

const fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
