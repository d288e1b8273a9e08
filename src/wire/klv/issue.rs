//! What is wrong with a packet, in words that name the item. Never fails a packet: an issue stands beside what could be
//! read all the same.

use std::fmt;

/// Something wrong with a packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Issue {
    /// The set it is in, by its standard.
    pub set: &'static str,
    /// The item's tag; 0 = the set or packet as a whole.
    pub tag: u32,
    /// The item's name; empty where the tag is not known.
    pub name: &'static str,
    /// What is wrong.
    pub what: Fault,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// No 16-byte key stands at the start.
    Key,
    /// A length points behind the end of the packet, set or item.
    Truncated,
    /// Bytes stand behind the end that the packet's length names.
    Trailing(usize),
    /// Wrong number of bytes: found, and allowed from, to.
    Length(usize, u16, u16),
    /// The value is outside what the standard allows.
    Range,
    /// The bytes do not have the form that the item needs.
    Encoding,
    /// Stored and computed checksum differ.
    Checksum(u32, u32),
    /// A mandatory item is missing.
    Missing,
    /// Stands more than once, and may not.
    Duplicate,
    /// Stands where it may not.
    Misplaced,
    /// Sets are nested deeper than is read, or hold more items than are read.
    TooMuch,
    /// Not as the standard says, but known from the field and read as it was meant.
    Salvaged(Quirk),
}

/// A deviation that is known from the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quirk {
    /// Target width (item 22) in 4 bytes: the low 16 bits are the value.
    WideTargetWidth,
    /// Relative azimuth (item 18) is the absolute one.
    AbsoluteAzimuth,
    /// ASCII codes of countries where UTF-16 is asked for.
    AsciiCountryCode,
    /// UTF-16 codes of countries where ASCII is asked for.
    Utf16CountryCode,
    /// Time stamp (item 2) in UTC instead of MISP time.
    UtcTimestamp,
    /// Text in ISO 8859-1 instead of UTF-8.
    Latin1Text,
    /// Text with zero bytes at its end.
    PaddedText,
}

impl Quirk {
    /// A name for machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WideTargetWidth => "wide_target_width",
            Self::AbsoluteAzimuth => "absolute_azimuth",
            Self::AsciiCountryCode => "ascii_country_code",
            Self::Utf16CountryCode => "utf16_country_code",
            Self::UtcTimestamp => "utc_timestamp",
            Self::Latin1Text => "latin1_text",
            Self::PaddedText => "padded_text",
        }
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WideTargetWidth => "4 bytes instead of 2, read from the low 16 bits",
            Self::AbsoluteAzimuth => "holds the absolute azimuth instead of the relative one",
            Self::AsciiCountryCode => "ASCII instead of UTF-16",
            Self::Utf16CountryCode => "UTF-16 instead of ASCII",
            Self::UtcTimestamp => "UTC instead of MISP time",
            Self::Latin1Text => "not UTF-8, read as ISO 8859-1",
            Self::PaddedText => "zero bytes at the end of the text, cut off",
        })
    }
}

impl Fault {
    /// A name for machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Truncated => "truncated",
            Self::Trailing(_) => "trailing",
            Self::Length(..) => "length",
            Self::Range => "range",
            Self::Encoding => "encoding",
            Self::Checksum(..) => "checksum",
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::Misplaced => "misplaced",
            Self::TooMuch => "too_much",
            Self::Salvaged(quirk) => quirk.name(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Key => f.write_str("does not start with a universal label"),
            Self::Truncated => f.write_str("cut off"),
            Self::Trailing(bytes) => write!(f, "{bytes} bytes behind its end"),
            Self::Length(found, min, max) if min == max => write!(f, "{found} bytes, must have {min}"),
            Self::Length(found, min, u16::MAX) => write!(f, "{found} bytes, must have at least {min}"),
            Self::Length(found, min, max) => write!(f, "{found} bytes, must have {min} to {max}"),
            Self::Range => f.write_str("outside its range"),
            Self::Encoding => f.write_str("malformed"),
            Self::Checksum(stored, computed) => {
                write!(f, "checksum is {stored:#06x}, the bytes make {computed:#06x}")
            }
            Self::Missing => f.write_str("missing"),
            Self::Duplicate => f.write_str("stands more than once"),
            Self::Misplaced => f.write_str("may not stand here"),
            Self::TooMuch => f.write_str("nested too deep, or too many items"),
            Self::Salvaged(quirk) => quirk.fmt(f),
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.set)?;
        if self.tag > 0 {
            write!(f, " item {}", self.tag)?;
        }
        if !self.name.is_empty() {
            write!(f, " ({})", self.name)?;
        }
        write!(f, ": {}", self.what)
    }
}
