//! Packets, sets and values leave as JSON (or whatever serde writes). Never writes a number for what is none: unknown is
//! null, a special value is an object that names it, bytes are hexadecimal.

use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct, Serializer};

use super::issue::{Fault, Issue};
use super::packet::{Checksum, Packet};
use super::value::{Item, Set, Special, Value};

/// Bytes in hexadecimal digits.
pub struct Hex<'a>(pub &'a [u8]);

/// A UUID in its usual form.
pub struct Uuid<'a>(pub &'a [u8; 16]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Uuid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e @ ..] = self.0.as_chunks::<2>().0 else { return Ok(()) };
        write!(f, "{}{}-{}-{}", Hex(a), Hex(b), Hex(c), Hex(d))?;
        let [e, rest @ ..] = e else { return Ok(()) };
        write!(f, "-{}-{}", Hex(e), Hex(rest.as_flattened()))
    }
}

impl Special {
    /// A name for machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfRange => "out_of_range",
            Self::OffEarth => "off_earth",
            Self::Reserved => "reserved",
            Self::BelowMinimum => "below_minimum",
            Self::AboveMaximum => "above_maximum",
            Self::PositiveInfinity => "positive_infinity",
            Self::NegativeInfinity => "negative_infinity",
            Self::NotANumber(_) => "not_a_number",
            Self::UserDefined(_) => "user_defined",
            Self::Code(_) => "no_number",
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unknown => to.serialize_none(),
            Self::Uint(value) | Self::Time(value) => to.serialize_u64(*value),
            Self::Int(value) => to.serialize_i64(*value),
            Self::Real(value) => to.serialize_f64(*value),
            Self::Special(special) => {
                let mut map = to.serialize_map(None)?;
                map.serialize_entry("special", special.name())?;
                if let Special::NotANumber(code) | Special::UserDefined(code) | Special::Code(code) = special
                {
                    map.serialize_entry("code", code)?;
                }
                map.end()
            }
            Self::Choice(choice) => to.serialize_str(choice.label),
            Self::Flags(bits, names) => {
                let set = names.0.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
                to.collect_seq(set.map(|(_, name)| name))
            }
            Self::Text(text) => to.serialize_str(text),
            Self::Uuid(id) => to.collect_str(&Uuid(id)),
            Self::Raw(bytes) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("raw", &format_args!("{}", Hex(bytes)))?;
                map.end()
            }
            Self::List(values) => to.collect_seq(values),
            Self::Record(fields) => to.collect_map(fields.iter().map(|field| (field.name, &field.value))),
            Self::Set(set) => set.serialize(to),
        }
    }
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let unit = self.spec.map_or("", |spec| spec.unit);
        let fields = 2 + usize::from(self.spec.is_some()) + usize::from(!unit.is_empty());
        let mut item = to.serialize_struct("Item", fields)?;
        item.serialize_field("tag", &self.tag)?;
        if let Some(spec) = self.spec {
            item.serialize_field("name", spec.name)?;
        }
        item.serialize_field("value", &self.value)?;
        if !unit.is_empty() {
            item.serialize_field("unit", unit)?;
        }
        item.end()
    }
}

impl Serialize for Set<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut set = to.serialize_struct("Set", 2)?;
        set.serialize_field("set", self.spec.name)?;
        set.serialize_field("items", &self.items)?;
        set.end()
    }
}

impl Serialize for Issue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut issue = to.serialize_struct("Issue", 4)?;
        issue.serialize_field("set", self.set)?;
        issue.serialize_field("tag", &self.tag)?;
        issue.serialize_field("fault", self.what.name())?;
        issue.serialize_field("text", &format_args!("{self}"))?;
        issue.end()
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Self::Right => "right",
            Self::Wrong { .. } => "wrong",
            Self::None => "none",
        })
    }
}

impl Serialize for Packet<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut packet = to.serialize_struct("Packet", 4)?;
        packet.serialize_field("set", self.set.spec.name)?;
        packet.serialize_field("checksum", &self.checksum)?;
        packet.serialize_field("items", &Sequence(&self.set.items))?;
        packet.serialize_field("issues", &Sequence(&self.issues))?;
        packet.end()
    }
}

struct Sequence<'a, T>(&'a [T]);

impl<T: Serialize> Serialize for Sequence<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut sequence = to.serialize_seq(Some(self.0.len()))?;
        self.0.iter().try_for_each(|element| sequence.serialize_element(element))?;
        sequence.end()
    }
}
