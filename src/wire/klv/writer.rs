//! Values enter, the bytes of sets and packets leave: the reverse of what every table in this folder is read with. Never
//! writes what would not be read again as the same value; that is an error that names the item.

use thiserror::Error;

use super::ber::{write_length, write_oid};
use super::label::Label;
use super::spec::{Bytes, Charset, Kind, Linear, SetSpec, Shape, Spec, Tags};
use super::value::{Item, Set, Special, Value};
use super::{checksum, imap, st1010, st1204, st1303};

/// Why a value was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// It is not of the kind that the item holds.
    #[error("not of the kind that the item holds")]
    Form,
    /// It is outside what the item can say.
    #[error("outside what the item can say")]
    Range,
    /// It needs more bytes than the item may have.
    #[error("needs more bytes than the item may have")]
    Length,
}

/// An item that could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{set} item {tag} ({name}): {why}")]
pub struct WriteError {
    /// Its set.
    pub set: &'static str,
    /// Its tag.
    pub tag: u32,
    /// Its name.
    pub name: &'static str,
    /// Why.
    pub why: Unwritable,
}

/// Writes a whole packet: key, length and items, and behind them the checksum where the set has one. A checksum among
/// the items is not looked at.
///
/// # Errors
/// [`WriteError`] for the first item that says what its bytes cannot.
pub fn write_packet(label: Label, set: &Set<'_>) -> Result<Vec<u8>, WriteError> {
    let sum = label.checksum();
    let mut body = Vec::with_capacity(256);
    for item in &set.items {
        if label == Label::Miis {
            // a value of its own, not an item
            write_body(set.spec, item, &mut body)?;
        } else if sum.is_none_or(|(tag, _)| tag != item.tag) {
            write_item(set.spec, item, &mut body)?;
        }
    }
    let mut packet = label.key().to_vec();
    let Some((tag, bytes)) = sum else {
        write_length(body.len() as u64, &mut packet);
        packet.extend_from_slice(&body);
        return Ok(packet);
    };
    write_length((body.len() + 2 + bytes) as u64, &mut packet);
    packet.extend_from_slice(&body);
    write_oid(u64::from(tag), &mut packet);
    write_length(bytes as u64, &mut packet);
    match label {
        Label::Rvt => packet.extend(mpeg2ts_reader::mpegts_crc::sum32(&packet).to_be_bytes()),
        Label::RangeImage => packet.extend(checksum::crc16(&packet).to_be_bytes()),
        _ => packet.extend(checksum::sum16(&packet).to_be_bytes()),
    }
    Ok(packet)
}

/// Writes an item: tag, length, value.
///
/// # Errors
/// [`WriteError`] when it says what its bytes cannot.
pub fn write_item(set: &'static SetSpec, item: &Item<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
    // what is left of a set that was cut off is no item
    if item.tag == 0 && matches!(item.value, Value::Raw(_)) {
        return Ok(());
    }
    let mut value = Vec::new();
    let key = write_body(set, item, &mut value)?;
    match set.tags {
        Tags::Local => write_oid(u64::from(item.tag), out),
        Tags::Universal(keys) => {
            let listed = keys.iter().find(|(_, tag)| *tag == item.tag).map(|(key, _)| *key);
            let key = listed.or(key).ok_or_else(|| refuse(set, item, Unwritable::Form))?;
            out.extend_from_slice(&key);
        }
    }
    write_length(value.len() as u64, out);
    out.extend_from_slice(&value);
    Ok(())
}

/// The value of an item; of one whose key is in no table, also that key.
fn write_body(
    set: &'static SetSpec,
    item: &Item<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<[u8; 16]>, WriteError> {
    match (set.find(item.tag), &item.value) {
        (_, Value::Unknown) => {}
        // a value that was not understood goes on as it came
        (_, Value::Raw(raw)) => out.extend_from_slice(raw),
        (Some(spec), known) => {
            write_value(spec, known, item.raw.len(), out).map_err(|why| refuse(set, item, why))?;
        }
        (None, strange) => {
            let (key, value) = (strange.field("key"), strange.field("value"));
            let (Tags::Universal(_), Some(Value::Raw(key)), Some(Value::Raw(value))) = (set.tags, key, value)
            else {
                return Err(refuse(set, item, Unwritable::Form));
            };
            out.extend_from_slice(value);
            return Ok(key.as_array().copied());
        }
    }
    Ok(None)
}

fn refuse(set: &'static SetSpec, item: &Item<'_>, why: Unwritable) -> WriteError {
    let name = set.find(item.tag).map_or("", |spec| spec.name);
    WriteError { set: set.name, tag: item.tag, name, why }
}

/// The bytes of a value; `was` is how many it came in, 0 when it was made here.
fn write_value(
    spec: &'static Spec,
    value: &Value<'_>,
    was: usize,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let Bytes { min, max, usual } = spec.bytes;
    let allowed = |count: usize| (usize::from(min)..=usize::from(max)).contains(&count);
    let length = if was > 0 && allowed(was) { was } else { usize::from(usual) };
    let start = out.len();
    write_kind(&spec.kind, value, length, out)?;
    let written = out.len() - start;
    // a set of its own size may have no items; everything else must fit
    if allowed(written) || written == 0 && matches!(spec.kind, Kind::Set(_)) {
        Ok(())
    } else {
        Err(Unwritable::Length)
    }
}

/// `length` 0 = as few bytes as it needs.
fn write_kind(kind: &Kind, value: &Value<'_>, length: usize, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    match (kind, value) {
        (_, Value::Raw(raw)) => out.extend_from_slice(raw),
        (Kind::Linear(linear), value) => {
            let length = if length == 0 { 2 } else { length };
            write_linear(linear, value, length, out)?;
        }
        (Kind::Uint(min, max), value) => {
            let value = value.count().ok_or(Unwritable::Form)?;
            if !(*min..=*max).contains(&value) {
                return Err(Unwritable::Range);
            }
            write_sized(value, length, out)?;
        }
        (Kind::Time | Kind::Choice(_), value) => {
            write_sized(value.count().ok_or(Unwritable::Form)?, length, out)?;
        }
        (Kind::Flags(_), value) => write_sized(value.count().ok_or(Unwritable::Form)?, length.max(1), out)?,
        (Kind::Int, Value::Int(value)) => write_signed(*value, length, out)?,
        (Kind::Int, value) => {
            let value = value.count().and_then(|value| i64::try_from(value).ok()).ok_or(Unwritable::Form)?;
            write_signed(value, length, out)?;
        }
        (Kind::Imap(min, max), value) => write_imap(*min, *max, value, length, out)?,
        (Kind::Float(..), Value::Special(special)) => match special {
            Special::NotANumber(code) => write_sized(*code, length, out)?,
            Special::PositiveInfinity => write_float(f64::INFINITY, length, out)?,
            Special::NegativeInfinity => write_float(f64::NEG_INFINITY, length, out)?,
            _ => return Err(Unwritable::Range),
        },
        (Kind::Float(..), value) => write_float(value.number().ok_or(Unwritable::Form)?, length, out)?,
        (Kind::Text(charset), Value::Text(text)) => match charset {
            Charset::Utf16 => out.extend(text.encode_utf16().flat_map(u16::to_be_bytes)),
            Charset::Ascii | Charset::Utf8 => out.extend_from_slice(text.as_bytes()),
        },
        (Kind::Uuid, Value::Uuid(id)) => out.extend_from_slice(id),
        (Kind::Miis, value) => st1204::write(value, out)?,
        (Kind::Set(_), Value::Set(set)) => {
            for item in &set.items {
                write_item(set.spec, item, out).map_err(|error| error.why)?;
            }
        }
        (Kind::Pack(shape), value) => write_shape(shape, value, out)?,
        (Kind::Array(element), value) => st1303::write(*element, value, out)?,
        (Kind::Sdcc, value) => st1010::write(value, out)?,
        (Kind::Bits, Value::List(bits)) => {
            let start = out.len();
            out.resize(start + length.max(1), 0);
            for bit in bits {
                let bit = bit.count().and_then(|bit| usize::try_from(bit).ok()).ok_or(Unwritable::Form)?;
                let at = start + bit / 8;
                if bit / 8 > usize::from(u16::MAX) {
                    return Err(Unwritable::Range);
                }
                out.resize(out.len().max(at + 1), 0);
                if let Some(byte) = out.get_mut(at) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        (Kind::Text(_) | Kind::Uuid | Kind::Set(_) | Kind::Opaque | Kind::Bits, _) => {
            return Err(Unwritable::Form);
        }
    }
    Ok(())
}

fn write_shape(shape: &Shape, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    match shape {
        Shape::Oid => write_oid(value.count().ok_or(Unwritable::Form)?, out),
        Shape::Length => write_length(value.count().ok_or(Unwritable::Form)?, out),
        Shape::Sized(count, kind) => {
            let start = out.len();
            write_kind(kind, value, usize::from(*count), out)?;
            if out.len() - start != usize::from(*count) {
                return Err(Unwritable::Length);
            }
        }
        Shape::Rest(kind) => write_kind(kind, value, 0, out)?,
        Shape::Halves(a, first, b, second) => {
            // three bytes say an angle to 0.00005 degrees
            write_kind(first, value.field(a).ok_or(Unwritable::Form)?, HALF, out)?;
            write_kind(second, value.field(b).ok_or(Unwritable::Form)?, HALF, out)?;
        }
        Shape::Counted(inner) => {
            let mut counted = Vec::new();
            if *value != Value::Unknown {
                write_shape(inner, value, &mut counted)?;
            }
            write_length(counted.len() as u64, out);
            out.extend_from_slice(&counted);
        }
        Shape::Record(needed, parts) => {
            let Value::Record(fields) = value else { return Err(Unwritable::Form) };
            if fields.len() < *needed || fields.len() > parts.len() {
                return Err(Unwritable::Form);
            }
            for (part, field) in parts.iter().zip(fields) {
                if part.0 != field.name {
                    return Err(Unwritable::Form);
                }
                write_shape(&part.1, &field.value, out)?;
            }
        }
        Shape::List(inner) => {
            let Value::List(values) = value else { return Err(Unwritable::Form) };
            for value in values {
                write_shape(inner, value, out)?;
            }
        }
    }
    Ok(())
}

/// An unsigned number in so many bytes, or as few as it needs.
pub(super) fn write_sized(value: u64, length: usize, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let needed = (8 - value.leading_zeros() as usize / 8).max(1);
    let length = if length == 0 { needed } else { length };
    if needed > length {
        return Err(Unwritable::Range);
    }
    out.resize(out.len() + length.saturating_sub(8), 0);
    let digits = value.to_be_bytes();
    out.extend_from_slice(digits.get(8 - length.min(8)..).unwrap_or_default());
    Ok(())
}

fn write_signed(value: i64, length: usize, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let bits = 65 - if value < 0 { value.leading_ones() } else { value.leading_zeros() } as usize;
    let needed = bits.div_ceil(8);
    let length = if length == 0 { needed } else { length };
    if needed > length || length > 8 {
        return Err(Unwritable::Range);
    }
    out.extend_from_slice(value.to_be_bytes().get(8 - length..).unwrap_or_default());
    Ok(())
}

/// A real or special value as a code word of ST 1201.
pub(super) fn write_imap(
    min: f64,
    max: f64,
    value: &Value<'_>,
    length: usize,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let length = if length == 0 { HALF } else { length };
    if !(1..=8).contains(&length) {
        return Err(Unwritable::Length);
    }
    let code = match *value {
        Value::Special(special) => imap::encode_special(special, length).ok_or(Unwritable::Form)?,
        ref other => imap::encode(min, max, other.number().ok_or(Unwritable::Form)?, length),
    };
    write_sized(code, length, out)
}

/// IEEE 754 in 2, 4 or 8 bytes.
pub(super) fn write_float(value: f64, length: usize, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    match length {
        2 => out.extend(half(value).to_be_bytes()),
        4 => out.extend((value as f32).to_be_bytes()),
        0 | 8 => out.extend(value.to_be_bytes()),
        _ => return Err(Unwritable::Length),
    }
    Ok(())
}

/// To IEEE 754 binary16, to the nearest.
fn half(value: f64) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let size = value.abs();
    if size.is_nan() {
        return 0x7e00;
    }
    if size >= 65_520.0 {
        return sign | 0x7c00;
    }
    if size < 2_f64.powi(-14) {
        return sign | (size * 2_f64.powi(24)).round_ties_even() as u16;
    }
    let exponent = (size.to_bits() >> 52) as i32 - 1023;
    let fraction = (size / 2_f64.powi(exponent) * 1024.0).round_ties_even() as u16;
    // a fraction that rounds up to 2 carries into the exponent
    sign | (((exponent + 15) as u16) << 10).wrapping_add(fraction.wrapping_sub(1024))
}

fn write_linear(
    linear: &Linear,
    value: &Value<'_>,
    length: usize,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let code = match *value {
        Value::Special(Special::OutOfRange | Special::OffEarth | Special::Reserved)
            if linear.error.is_some() =>
        {
            linear.lowest
        }
        ref other => {
            let value = other.number().ok_or(Unwritable::Form)?;
            if !(linear.min..=linear.max).contains(&value) {
                return Err(Unwritable::Range);
            }
            ((value * linear.den - linear.add) / linear.num).round() as i64
        }
    };
    match linear.error {
        Some(_) => write_signed(code, length, out),
        None => write_sized(u64::try_from(code).map_err(|_| Unwritable::Range)?, length, out),
    }
}

/// Bytes of a mapped number whose length nothing says.
const HALF: usize = 3;
