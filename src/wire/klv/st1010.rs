//! ST 1010 standard deviations and correlation coefficients: bytes enter, numbers leave, and back. Never guesses the
//! range of a deviation that only the standard of its item knows: it stays as bytes.

use std::borrow::Cow;

use super::ber::{read_oid, write_oid};
use super::imap;
use super::reader::{Malformed, Reader, float};
use super::value::{Field, Value};
use super::writer::{Unwritable, write_float, write_imap};

/// Reads a pack: the size of the matrix, what its values are, deviations, and the upper triangle of correlations.
pub(super) fn read<'a>(reader: &mut Reader, raw: &'a [u8]) -> Result<Value<'a>, Malformed> {
    let (size, rest) = read_oid(raw).map_err(|_| Malformed)?;
    let (control, mut rest) = Control::read(rest).ok_or(Malformed)?;
    let size = usize::try_from(size).ok().filter(|&size| size > 0 && size <= SIZE_MAX).ok_or(Malformed)?;
    let pairs = size * (size - 1) / 2;
    let mut sparse: &[u8] = &[];
    if control.sparse() {
        (sparse, rest) = rest.split_at_checked(pairs.div_ceil(8)).ok_or(Malformed)?;
    }
    let (deviation, correlation) = (control.deviation_bytes(), control.correlation_bytes());
    if deviation + correlation == 0 || !reader.spend(size + pairs) {
        return Err(Malformed);
    }
    let mut fields = vec![
        Field { name: "size", value: Value::Uint(size as u64) },
        Field { name: "control", value: Value::Uint(control.code()) },
    ];
    let mut take = |bytes: usize| {
        let (raw, behind) = rest.split_at_checked(bytes).ok_or(Malformed)?;
        rest = behind;
        Ok::<_, Malformed>(raw)
    };
    if deviation > 0 {
        let mut values = Vec::with_capacity(size);
        for _ in 0..size {
            let raw = take(deviation)?;
            values.push(match control.deviation_is_float() {
                true => Value::Real(float(raw).ok_or(Malformed)?),
                false => Value::Raw(Cow::Borrowed(raw)),
            });
        }
        fields.push(Field { name: "deviations", value: Value::List(values) });
    }
    if correlation > 0 {
        let mut values = Vec::with_capacity(pairs);
        for at in 0..pairs {
            let present =
                sparse.is_empty() || sparse.get(at / 8).is_some_and(|byte| byte << (at % 8) & 0x80 != 0);
            values.push(if !present {
                Value::Unknown
            } else if control.correlation_is_float() {
                Value::Real(float(take(correlation)?).ok_or(Malformed)?)
            } else {
                imap::decode(-1.0, 1.0, take(correlation)?).ok_or(Malformed)?
            });
        }
        fields.push(Field { name: "correlations", value: Value::List(values) });
    }
    if take(1).is_ok() {
        return Err(Malformed);
    }
    Ok(Value::Record(fields))
}

/// Writes what [`read`] read.
pub(super) fn write(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let number = |name| value.field(name).and_then(Value::count).ok_or(Unwritable::Form);
    write_oid(number("size")?, out);
    let code = number("control")?;
    let control =
        if code > 0xff { Control::Two((code >> 8) as u8, code as u8) } else { Control::One(code as u8) };
    match control {
        Control::One(first) => out.push(first),
        Control::Two(first, second) => out.extend([first, second]),
    }
    let list = |name| value.field(name).map(Value::list).unwrap_or_default();
    let correlations = list("correlations");
    if control.sparse() {
        for eight in correlations.chunks(8) {
            let bits = (0..8).map(|at| u8::from(eight.get(at).is_some_and(|value| *value != Value::Unknown)));
            out.push(bits.fold(0, |byte, bit| byte << 1 | bit));
        }
    }
    for deviation in list("deviations") {
        match deviation {
            Value::Real(value) => write_float(*value, control.deviation_bytes(), out)?,
            Value::Raw(raw) if raw.len() == control.deviation_bytes() => out.extend_from_slice(raw),
            _ => return Err(Unwritable::Form),
        }
    }
    for correlation in correlations.iter().filter(|value| **value != Value::Unknown) {
        match correlation {
            Value::Real(value) if control.correlation_is_float() => {
                write_float(*value, control.correlation_bytes(), out)?;
            }
            other => write_imap(-1.0, 1.0, other, control.correlation_bytes(), out)?,
        }
    }
    Ok(())
}

/// What the values are: one byte (mode 1) or two (mode 2).
#[derive(Clone, Copy)]
enum Control {
    One(u8),
    Two(u8, u8),
}

impl Control {
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        match *bytes {
            [first, ref rest @ ..] if first < 0x80 => Some((Self::One(first), rest)),
            [first, second, ref rest @ ..] if second < 0x80 => Some((Self::Two(first, second), rest)),
            _ => None,
        }
    }

    fn code(self) -> u64 {
        match self {
            Self::One(first) => u64::from(first),
            Self::Two(first, second) => u64::from(first) << 8 | u64::from(second),
        }
    }

    fn sparse(self) -> bool {
        match self {
            Self::One(first) => first & 0x08 != 0,
            Self::Two(first, _) => first & 0x20 != 0,
        }
    }

    fn deviation_bytes(self) -> usize {
        usize::from(match self {
            Self::One(first) => first >> 4 & 7,
            Self::Two(_, second) => second & 0x0f,
        })
    }

    fn correlation_bytes(self) -> usize {
        usize::from(match self {
            Self::One(first) => first & 7,
            Self::Two(first, _) => first & 0x0f,
        })
    }

    fn deviation_is_float(self) -> bool {
        matches!(self, Self::Two(_, second) if second & 0x10 == 0)
    }

    fn correlation_is_float(self) -> bool {
        matches!(self, Self::Two(first, _) if first & 0x10 == 0)
    }
}

/// Rows of a matrix that are read.
const SIZE_MAX: usize = 200;
