//! The bytes of sets and items enter, values leave: what every table in this folder is read with. Never fails: what
//! cannot be read stays as bytes, with an issue beside it.

use std::borrow::Cow;

use super::ber::{read_counted, read_length, read_oid};
use super::issue::{Fault, Issue, Quirk};
use super::spec::{Bytes, Charset, Earlier, Kind, Linear, SetSpec, Shape, Spec, Tags};
use super::value::{Field, Item, Set, Special, Value};
use super::{imap, st1010, st1204, st1303};

/// What is read of one packet, and what was wrong with it.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) issues: Vec<Issue>,
    /// Items and list entries that may still be made.
    budget: usize,
    depth: u8,
    /// Where a fault found now belongs.
    at: (&'static str, u32, &'static str),
}

/// The bytes do not have the form that the item needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Malformed;

impl Reader {
    pub(super) fn new() -> Self {
        Self { issues: Vec::new(), budget: ITEMS_MAX, depth: 0, at: ("", 0, "") }
    }

    /// Reads a set to its end.
    pub(super) fn set<'a>(&mut self, spec: &'static SetSpec, bytes: &'a [u8]) -> Set<'a> {
        let spec =
            spec.earlier.as_ref().filter(|earlier| is_earlier(earlier, bytes)).map_or(spec, |e| e.spec);
        let before = self.at;
        let mut set = Set { spec, items: Vec::with_capacity((bytes.len() / 5).min(64)) };
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.note(spec, 0, "", Fault::TooMuch);
        } else if let Tags::Universal(keys) = spec.tags {
            self.universal(spec, keys, bytes, &mut set.items);
        } else {
            self.local(spec, bytes, &mut set.items);
        }
        self.depth -= 1;
        self.at = before;
        set
    }

    fn local<'a>(&mut self, spec: &'static SetSpec, mut bytes: &'a [u8], items: &mut Vec<Item<'a>>) {
        // one bit for each tag seen
        let mut seen = [0_u64; 3];
        while !bytes.is_empty() {
            let (tag, raw, rest) = match bytes {
                // one byte of tag and one of length: nearly always
                &[tag, length, ref rest @ ..] if tag < 0x80 && length < 0x80 => {
                    let Some((raw, rest)) = rest.split_at_checked(usize::from(length)) else {
                        return self.cut_off(spec, u32::from(tag), bytes, items);
                    };
                    (u32::from(tag), raw, rest)
                }
                _ => {
                    let Ok((tag, behind)) = read_oid(bytes) else {
                        return self.cut_off(spec, 0, bytes, items);
                    };
                    let tag = u32::try_from(tag).unwrap_or(u32::MAX);
                    let Ok((raw, rest)) = read_counted(behind) else {
                        return self.cut_off(spec, tag, bytes, items);
                    };
                    (tag, raw, rest)
                }
            };
            bytes = rest;
            if !self.spend(1) {
                return;
            }
            let known = spec.find(tag);
            if let Some(word) = seen.get_mut(tag as usize / 64) {
                let bit = 1 << (tag % 64);
                if *word & bit != 0 && known.is_some_and(|known| !known.repeats) {
                    self.note(spec, tag, known.map_or("", |known| known.name), Fault::Duplicate);
                }
                *word |= bit;
            }
            items.push(self.item(spec, known, tag, raw));
        }
        for &tag in spec.required {
            if seen.get(tag as usize / 64).is_none_or(|word| word & 1 << (tag % 64) == 0) {
                self.note(spec, tag, spec.find(tag).map_or("", |spec| spec.name), Fault::Missing);
            }
        }
    }

    fn universal<'a>(
        &mut self,
        spec: &'static SetSpec,
        keys: &[([u8; 16], u32)],
        mut bytes: &'a [u8],
        items: &mut Vec<Item<'a>>,
    ) {
        while !bytes.is_empty() {
            let Some((key, behind)) = bytes.split_first_chunk::<16>() else {
                return self.cut_off(spec, 0, bytes, items);
            };
            let Ok((raw, rest)) = read_counted(behind) else { return self.cut_off(spec, 0, bytes, items) };
            bytes = rest;
            if !self.spend(1) {
                return;
            }
            match keys.iter().find(|(known, _)| super::same_label(known, key)) {
                Some(&(_, tag)) => items.push(self.item(spec, spec.find(tag), tag, raw)),
                // a key that is in no table stays with its value
                None => items.push(Item {
                    tag: 0,
                    spec: None,
                    value: Value::Record(vec![
                        Field { name: "key", value: Value::Raw(Cow::Owned(key.to_vec())) },
                        Field { name: "value", value: Value::Raw(Cow::Borrowed(raw)) },
                    ]),
                    raw: Cow::Borrowed(raw),
                }),
            }
        }
    }

    #[inline]
    fn item<'a>(
        &mut self,
        set: &'static SetSpec,
        spec: Option<&'static Spec>,
        tag: u32,
        raw: &'a [u8],
    ) -> Item<'a> {
        let value = match spec {
            // nearly every item of nearly every packet: nothing can be wrong with it
            Some(Spec { kind: Kind::Linear(linear), bytes, .. })
                if bytes.min == bytes.max && raw.len() == usize::from(bytes.min) =>
            {
                linear_value(linear, raw)
            }
            Some(spec) => self.known(set, spec, raw),
            None => Value::Raw(Cow::Borrowed(raw)),
        };
        Item { tag, spec, value, raw: Cow::Borrowed(raw) }
    }

    /// The value of an item that a table knows.
    fn known<'a>(&mut self, set: &'static SetSpec, spec: &'static Spec, raw: &'a [u8]) -> Value<'a> {
        self.at = (set.name, spec.tag, spec.name);
        if raw.is_empty() {
            if spec.repeats {
                // nothing says which of the several is unknown (ST 0107)
                self.fault(Fault::Length(0, 1, spec.bytes.max));
            }
            return Value::Unknown;
        }
        self.checked(spec, raw)
    }

    /// The value of an item whose length is looked at first.
    fn checked<'a>(&mut self, spec: &'static Spec, raw: &'a [u8]) -> Value<'a> {
        let Bytes { min, max, .. } = spec.bytes;
        if !(usize::from(min)..=usize::from(max)).contains(&raw.len()) {
            if let (Kind::Linear(linear), 22, [_, _, low @ ..]) = (&spec.kind, spec.tag, raw)
                && raw.starts_with(&[0, 0])
                && low.len() == 2
                && self.at.0 == super::st0601::ST0601.name
            {
                self.fault(Fault::Salvaged(Quirk::WideTargetWidth));
                return linear_value(linear, low);
            }
            self.fault(Fault::Length(raw.len(), min, max));
            // only text and packs can be read whatever their length
            if !matches!(spec.kind, Kind::Text(_) | Kind::Pack(_) | Kind::Opaque) {
                return Value::Raw(Cow::Borrowed(raw));
            }
        }
        self.value(&spec.kind, raw)
    }

    /// What bytes mean; they stay bytes, with an issue, where they mean nothing.
    pub(super) fn value<'a>(&mut self, kind: &'static Kind, raw: &'a [u8]) -> Value<'a> {
        match self.read(kind, raw) {
            Ok(value) => value,
            Err(Malformed) => {
                self.fault(Fault::Encoding);
                Value::Raw(Cow::Borrowed(raw))
            }
        }
    }

    fn read<'a>(&mut self, kind: &'static Kind, raw: &'a [u8]) -> Result<Value<'a>, Malformed> {
        Ok(match *kind {
            Kind::Linear(ref linear) => linear_value(linear, raw),
            Kind::Uint(min, max) => {
                let value = unsigned(raw).ok_or(Malformed)?;
                if !(min..=max).contains(&value) {
                    self.fault(Fault::Range);
                }
                Value::Uint(value)
            }
            Kind::Time => Value::Time(unsigned(raw).ok_or(Malformed)?),
            Kind::Int => Value::Int(signed(raw).ok_or(Malformed)?),
            Kind::Imap(min, max) => {
                let value = imap::decode(min, max, raw).ok_or(Malformed)?;
                if let Value::Special(Special::Code(_)) = value {
                    self.fault(Fault::Range);
                }
                value
            }
            Kind::Float(min, max) => {
                let value = float(raw).ok_or(Malformed)?;
                if (min..=max).contains(&value) {
                    return Ok(Value::Real(value));
                }
                self.fault(Fault::Range);
                Value::Special(match value {
                    f64::INFINITY => Special::PositiveInfinity,
                    f64::NEG_INFINITY => Special::NegativeInfinity,
                    _ if value < min => Special::BelowMinimum,
                    _ if value > max => Special::AboveMaximum,
                    _ => Special::NotANumber(unsigned(raw).unwrap_or_default()),
                })
            }
            Kind::Choice(choices) => {
                let code = unsigned(raw).ok_or(Malformed)?;
                choices.iter().find(|choice| choice.code == code).map_or_else(
                    || {
                        self.fault(Fault::Range);
                        Value::Uint(code)
                    },
                    Value::Choice,
                )
            }
            Kind::Flags(names) => {
                let bits = unsigned(raw).and_then(|bits| u32::try_from(bits).ok()).ok_or(Malformed)?;
                Value::Flags(bits, names)
            }
            Kind::Text(charset) => self.text(charset, raw)?,
            Kind::Uuid => Value::Uuid(*raw.as_array().ok_or(Malformed)?),
            Kind::Miis => st1204::read(raw)?,
            Kind::Set(spec) => Value::Set(Box::new(self.set(spec, raw))),
            Kind::Pack(shape) => {
                let (value, rest) = self.shape(shape, raw)?;
                if !rest.is_empty() {
                    return Err(Malformed);
                }
                value
            }
            Kind::Array(element) => st1303::read(self, element, raw)?,
            Kind::Sdcc => st1010::read(self, raw)?,
            Kind::Bits => {
                if !self.spend(8 * raw.len()) {
                    return Err(Malformed);
                }
                let bits =
                    (0..).zip(raw).flat_map(|(at, &byte)| (0..8).map(move |bit| (8 * at + bit, byte >> bit)));
                Value::List(
                    bits.filter(|(_, byte)| byte & 1 == 1).map(|(number, _)| Value::Uint(number)).collect(),
                )
            }
            Kind::Opaque => Value::Raw(Cow::Borrowed(raw)),
        })
    }

    /// Reads one shape; returns what is left.
    fn shape<'a>(
        &mut self,
        shape: &'static Shape,
        bytes: &'a [u8],
    ) -> Result<(Value<'a>, &'a [u8]), Malformed> {
        Ok(match shape {
            Shape::Oid => {
                let (value, rest) = read_oid(bytes).map_err(|_| Malformed)?;
                (Value::Uint(value), rest)
            }
            Shape::Length => {
                let (value, rest) = read_length(bytes).map_err(|_| Malformed)?;
                (Value::Uint(value), rest)
            }
            Shape::Sized(count, kind) => {
                let (raw, rest) = bytes.split_at_checked(usize::from(*count)).ok_or(Malformed)?;
                (self.read(kind, raw)?, rest)
            }
            Shape::Rest(kind) => (self.read(kind, bytes)?, &[]),
            Shape::Halves(a, first, b, second) => {
                if bytes.is_empty() || !bytes.len().is_multiple_of(2) {
                    return Err(Malformed);
                }
                let (low, high) = bytes.split_at(bytes.len() / 2);
                let fields = vec![
                    Field { name: a, value: self.read(first, low)? },
                    Field { name: b, value: self.read(second, high)? },
                ];
                (Value::Record(fields), &[])
            }
            Shape::Counted(inner) => {
                let (raw, rest) = read_counted(bytes).map_err(|_| Malformed)?;
                if raw.is_empty() {
                    return Ok((Value::Unknown, rest));
                }
                let (value, behind) = self.shape(inner, raw)?;
                if !behind.is_empty() {
                    return Err(Malformed);
                }
                (value, rest)
            }
            Shape::Record(needed, parts) => {
                let mut rest = bytes;
                let mut fields = Vec::with_capacity(parts.len());
                for part in *parts {
                    if rest.is_empty() && fields.len() >= *needed {
                        break;
                    }
                    let (value, behind) = self.shape(&part.1, rest)?;
                    fields.push(Field { name: part.0, value });
                    rest = behind;
                }
                (Value::Record(fields), rest)
            }
            Shape::List(inner) => {
                let mut rest = bytes;
                let mut values = Vec::new();
                while !rest.is_empty() {
                    if !self.spend(1) {
                        return Err(Malformed);
                    }
                    let (value, behind) = self.shape(inner, rest)?;
                    if behind.len() == rest.len() {
                        return Err(Malformed);
                    }
                    values.push(value);
                    rest = behind;
                }
                (Value::List(values), &[])
            }
        })
    }

    fn text<'a>(&mut self, charset: Charset, raw: &'a [u8]) -> Result<Value<'a>, Malformed> {
        let wide = raw.len().is_multiple_of(2) && raw.iter().step_by(2).all(|&b| b == 0);
        let text = match charset {
            Charset::Utf16 if wide || raw.len().is_multiple_of(2) && !raw.is_ascii() => utf16(raw)?,
            Charset::Utf16 => {
                self.fault(Fault::Salvaged(Quirk::AsciiCountryCode));
                self.narrow(raw)
            }
            Charset::Ascii if wide => {
                self.fault(Fault::Salvaged(Quirk::Utf16CountryCode));
                utf16(raw)?
            }
            Charset::Ascii | Charset::Utf8 => self.narrow(raw),
        };
        let shorter = text.trim_end_matches('\0').len();
        if shorter == text.len() {
            return Ok(Value::Text(text));
        }
        self.fault(Fault::Salvaged(Quirk::PaddedText));
        Ok(Value::Text(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.get(..shorter).unwrap_or_default()),
            Cow::Owned(mut text) => {
                text.truncate(shorter);
                Cow::Owned(text)
            }
        }))
    }

    fn narrow<'a>(&mut self, raw: &'a [u8]) -> Cow<'a, str> {
        std::str::from_utf8(raw).map_or_else(
            |_| {
                self.fault(Fault::Salvaged(Quirk::Latin1Text));
                raw.iter().map(|&b| char::from(b)).collect::<String>().into()
            },
            Cow::Borrowed,
        )
    }

    /// A set that ends in the middle of an item keeps what is left of it.
    fn cut_off<'a>(&mut self, spec: &'static SetSpec, tag: u32, bytes: &'a [u8], items: &mut Vec<Item<'a>>) {
        self.note(spec, tag, spec.find(tag).map_or("", |spec| spec.name), Fault::Truncated);
        items.push(Item {
            tag: 0,
            spec: None,
            value: Value::Raw(Cow::Borrowed(bytes)),
            raw: Cow::Borrowed(bytes),
        });
    }

    /// Takes so many from what may still be made; says so once when there is nothing left.
    pub(super) fn spend(&mut self, count: usize) -> bool {
        if let Some(left) = self.budget.checked_sub(count) {
            self.budget = left;
            return true;
        }
        if self.budget > 0 {
            self.budget = 0;
            self.fault(Fault::TooMuch);
        }
        false
    }

    /// A fault of the item that is being read.
    pub(super) fn fault(&mut self, what: Fault) {
        let (set, tag, name) = self.at;
        self.push(Issue { set, tag, name, what });
    }

    pub(super) fn note(&mut self, spec: &SetSpec, tag: u32, name: &'static str, what: Fault) {
        self.push(Issue { set: spec.name, tag, name, what });
    }

    fn push(&mut self, issue: Issue) {
        if self.issues.len() < ISSUES_MAX {
            self.issues.push(issue);
        }
    }
}

/// Whether the item that holds the version of a set names an earlier edition.
fn is_earlier(earlier: &Earlier, mut bytes: &[u8]) -> bool {
    while let Ok((tag, behind)) = read_oid(bytes) {
        let Ok((raw, rest)) = read_counted(behind) else { return false };
        if tag == u64::from(earlier.tag) {
            return unsigned(raw).is_some_and(|version| version < earlier.below);
        }
        bytes = rest;
    }
    false
}

/// Up to 8 bytes as an unsigned number.
#[inline]
pub(super) fn unsigned(raw: &[u8]) -> Option<u64> {
    match *raw {
        [a] => Some(u64::from(a)),
        [a, b] => Some(u64::from(u16::from_be_bytes([a, b]))),
        [a, b, c, d] => Some(u64::from(u32::from_be_bytes([a, b, c, d]))),
        _ if raw.len() <= 8 => Some(raw.iter().fold(0, |sum, &b| sum << 8 | u64::from(b))),
        _ => None,
    }
}

/// Up to 8 bytes as a signed number in two's complement.
#[inline]
pub(super) fn signed(raw: &[u8]) -> Option<i64> {
    let value = unsigned(raw)?;
    let shift = 64 - 8 * raw.len().min(8) as u32;
    Some(if shift == 64 { 0 } else { ((value << shift) as i64) >> shift })
}

/// IEEE 754 of 2, 4 or 8 bytes.
pub(super) fn float(raw: &[u8]) -> Option<f64> {
    match raw.len() {
        2 => Some(half(u16::from_be_bytes(*raw.as_array()?))),
        4 => Some(f64::from(f32::from_be_bytes(*raw.as_array()?))),
        8 => Some(f64::from_be_bytes(*raw.as_array()?)),
        _ => None,
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

#[inline]
fn linear_value(linear: &Linear, raw: &[u8]) -> Value<'static> {
    let code = if let Some(error) = linear.error {
        let code = signed(raw).unwrap_or_default();
        if code == linear.lowest {
            return Value::Special(error);
        }
        code as f64
    } else {
        // at most 32 bits: a signed number converts faster
        unsigned(raw).unwrap_or_default() as i64 as f64
    };
    Value::Real((code * linear.num + linear.add) / linear.den)
}

fn utf16(raw: &[u8]) -> Result<Cow<'static, str>, Malformed> {
    let (pairs, _) = raw.as_chunks::<2>();
    let units = pairs.iter().map(|&pair| u16::from_be_bytes(pair));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.map(Cow::Owned).map_err(|_| Malformed)
}

/// Sets in sets that are read.
const DEPTH_MAX: u8 = 10;

/// Items and list entries of one packet that are read: one packet may not take more than a few megabytes.
const ITEMS_MAX: usize = 20_000;

/// Issues of one packet that are kept.
const ISSUES_MAX: usize = 64;
