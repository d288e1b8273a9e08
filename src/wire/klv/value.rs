//! What an item of a KLV set says. Borrows from the packet; [`Value::into_owned`] lets it outlive it.

use std::borrow::Cow;

use super::spec::{SetSpec, Spec};

/// The value of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Zero length: the sender says that it does not know (ST 0107).
    Unknown,
    /// A count, code or identifier.
    Uint(u64),
    /// A signed count.
    Int(i64),
    /// A quantity in the item's unit.
    Real(f64),
    /// Microseconds since 1970-01-01; the time scale is the sender's (ST 0603 says MISP time, the field sends UTC).
    Time(u64),
    /// A code word that stands for no number.
    Special(Special),
    /// One of a list of named choices.
    Choice(&'static Choice),
    /// Named bits.
    Flags(u32, &'static Flags),
    /// Text, whatever its encoding was.
    Text(Cow<'a, str>),
    /// 16 bytes of a UUID.
    Uuid([u8; 16]),
    /// Bytes that were not understood, or are opaque.
    Raw(Cow<'a, [u8]>),
    /// Values of one kind.
    List(Vec<Self>),
    /// Named values, in their order on the wire.
    Record(Vec<Field<'a>>),
    /// A set within the set.
    Set(Box<Set<'a>>),
}

/// A code word that stands for no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// The error indicator of an angle or speed: beyond what the item can say (ST 0601).
    OutOfRange,
    /// The error indicator of a place: the line of sight meets no ground (ST 0601).
    OffEarth,
    /// The error indicator of an item that gives it no meaning.
    Reserved,
    /// Below the minimum of the mapping (ST 1201, as those that follow).
    BelowMinimum,
    /// Above the maximum.
    AboveMaximum,
    /// +∞.
    PositiveInfinity,
    /// -∞.
    NegativeInfinity,
    /// NaN, quiet or signalling, with its code word.
    NotANumber(u64),
    /// Left to the application, with its code word.
    UserDefined(u64),
    /// A code word that means nothing.
    Code(u64),
}

/// A code and its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// As on the wire.
    pub code: u64,
    /// In lower case, `_` between words.
    pub label: &'static str,
}

/// The names of bits, from the lowest on.
#[derive(Debug, PartialEq, Eq)]
pub struct Flags(pub &'static [&'static str]);

/// A named value in a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Field<'a> {
    /// In lower case, `_` between words.
    pub name: &'static str,
    /// What it says.
    pub value: Value<'a>,
}

/// An item of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Item<'a> {
    /// Its tag; in a universal set the number that stands for its key. 0 = what is left of a set that was cut off, or a
    /// key that is in no table.
    pub tag: u32,
    /// What is known of it; `None` for a tag that is in no table.
    pub spec: Option<&'static Spec>,
    /// What it says.
    pub value: Value<'a>,
    /// Its bytes as they came; empty for one made here.
    pub raw: Cow<'a, [u8]>,
}

/// A set of items, in their order on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Set<'a> {
    /// Which set it is.
    pub spec: &'static SetSpec,
    /// Its items.
    pub items: Vec<Item<'a>>,
}

impl<'a> Value<'a> {
    /// The number, where it is one: counts, quantities, times and choices as their code.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Self::Real(value) => Some(value),
            Self::Uint(value) | Self::Time(value) => Some(value as f64),
            Self::Int(value) => Some(value as f64),
            Self::Choice(choice) => Some(choice.code as f64),
            _ => None,
        }
    }

    /// The whole number, where it is one that is not negative.
    pub fn count(&self) -> Option<u64> {
        match *self {
            Self::Uint(value) | Self::Time(value) => Some(value),
            Self::Int(value) => u64::try_from(value).ok(),
            Self::Choice(choice) => Some(choice.code),
            Self::Flags(bits, _) => Some(u64::from(bits)),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The nested set, where it is one.
    pub fn set(&self) -> Option<&Set<'a>> {
        if let Self::Set(set) = self { Some(set) } else { None }
    }

    /// The values of a list; empty for all others.
    pub fn list(&self) -> &[Self] {
        if let Self::List(values) = self { values } else { &[] }
    }

    /// The value of a record's field.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Record(fields) = self else { return None };
        fields.iter().find(|field| field.name == name).map(|field| &field.value)
    }

    /// The same, without a tie to the packet it came from.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Unknown => Value::Unknown,
            Self::Uint(value) => Value::Uint(value),
            Self::Int(value) => Value::Int(value),
            Self::Real(value) => Value::Real(value),
            Self::Time(value) => Value::Time(value),
            Self::Special(value) => Value::Special(value),
            Self::Choice(value) => Value::Choice(value),
            Self::Flags(bits, names) => Value::Flags(bits, names),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Uuid(id) => Value::Uuid(id),
            Self::Raw(bytes) => Value::Raw(Cow::Owned(bytes.into_owned())),
            Self::List(values) => Value::List(values.into_iter().map(Self::into_owned).collect()),
            Self::Record(fields) => {
                let own = |field: Field<'a>| Field { name: field.name, value: field.value.into_owned() };
                Value::Record(fields.into_iter().map(own).collect())
            }
            Self::Set(set) => Value::Set(Box::new(set.into_owned())),
        }
    }
}

impl<'a> Item<'a> {
    /// An item made here. `spec` is looked up by the set that takes it.
    pub fn new(tag: u32, value: Value<'a>) -> Self {
        Self { tag, spec: None, value, raw: Cow::Borrowed(&[]) }
    }

    /// Its name in the standard, or an empty string.
    pub fn name(&self) -> &'static str {
        self.spec.map_or("", |spec| spec.name)
    }

    /// The same, without a tie to the packet it came from.
    pub fn into_owned(self) -> Item<'static> {
        Item {
            tag: self.tag,
            spec: self.spec,
            value: self.value.into_owned(),
            raw: Cow::Owned(self.raw.into_owned()),
        }
    }
}

impl<'a> Set<'a> {
    /// A set made here.
    pub fn new(spec: &'static SetSpec) -> Self {
        Self { spec, items: Vec::new() }
    }

    /// With one more item.
    #[must_use]
    pub fn with(mut self, tag: u32, value: Value<'a>) -> Self {
        self.items.push(Item { spec: self.spec.find(tag), ..Item::new(tag, value) });
        self
    }

    /// The last item with this tag.
    pub fn item(&self, tag: u32) -> Option<&Item<'a>> {
        self.items.iter().rev().find(|item| item.tag == tag)
    }

    /// What the last item with this tag says.
    pub fn value(&self, tag: u32) -> Option<&Value<'a>> {
        self.item(tag).map(|item| &item.value)
    }

    /// The number of an item, where it has one: never of an error indicator or of zero length.
    pub fn number(&self, tag: u32) -> Option<f64> {
        self.value(tag).and_then(Value::number)
    }

    /// The text of an item, where it has one.
    pub fn text(&self, tag: u32) -> Option<&str> {
        self.value(tag).and_then(Value::text)
    }

    /// The same, without a tie to the packet it came from.
    pub fn into_owned(self) -> Set<'static> {
        Set { spec: self.spec, items: self.items.into_iter().map(Item::into_owned).collect() }
    }
}
