//! ST 1303 arrays of any number of dimensions: bytes enter, a flat list of values leaves, and back. Never unrolls runs:
//! a few bytes may stand for millions of elements.

use std::borrow::Cow;

use super::ber::{read_counted, read_oid, write_length, write_oid};
use super::imap;
use super::reader::{Malformed, Reader, float, unsigned};
use super::spec::Element;
use super::value::{Choice, Field, Value};
use super::writer::{Unwritable, write_float, write_imap, write_sized};

/// Reads an array: dimensions, bytes for each element, how it is processed, values by rows.
pub(super) fn read<'a>(reader: &mut Reader, element: Element, raw: &'a [u8]) -> Result<Value<'a>, Malformed> {
    let (body, behind) = read_counted(raw).map_err(|_| Malformed)?;
    if !behind.is_empty() {
        return Err(Malformed);
    }
    let (count, mut rest) = oid(body)?;
    if !(1..=DIMENSIONS_MAX).contains(&count) {
        return Err(Malformed);
    }
    let mut dimensions = Vec::new();
    for _ in 0..count {
        let (size, behind) = oid(rest)?;
        dimensions.push(size);
        rest = behind;
    }
    let elements = dimensions.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
    let elements = elements.filter(|&n| n > 0).ok_or(Malformed)?;
    let (width, rest) = oid(rest)?;
    let width = usize::try_from(width).map_err(|_| Malformed)?;
    let (algorithm, rest) = oid(rest)?;
    let algorithm = ALGORITHMS.iter().find(|choice| choice.code == algorithm).ok_or(Malformed)?;
    let mut fields = vec![
        Field {
            name: "dimensions",
            value: Value::List(dimensions.iter().map(|&size| Value::Uint(size)).collect()),
        },
        Field { name: "element_bytes", value: Value::Uint(width as u64) },
        Field { name: "algorithm", value: Value::Choice(algorithm) },
    ];
    let columns = dimensions.get(1).copied().unwrap_or(elements);
    let body = Body { element, columns, elements, width, dimensions: dimensions.len() };
    if width == 0 {
        // no elements at all (ST 1303.2)
        return if rest.is_empty() { Ok(Value::Record(fields)) } else { Err(Malformed) };
    }
    body.read(reader, algorithm.code, rest, &mut fields)?;
    Ok(Value::Record(fields))
}

/// Writes what [`read`] read.
pub(super) fn write(element: Element, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let number = |name| value.field(name).and_then(Value::count).ok_or(Unwritable::Form);
    let dimensions = value.field("dimensions").ok_or(Unwritable::Form)?.list();
    let (width, algorithm) = (number("element_bytes")? as usize, number("algorithm")?);
    let mut body = Vec::new();
    write_oid(dimensions.len() as u64, &mut body);
    let mut sizes = Vec::new();
    for size in dimensions {
        let size = size.count().ok_or(Unwritable::Form)?;
        write_oid(size, &mut body);
        sizes.push(size);
    }
    let columns = sizes.get(1).copied().unwrap_or(u64::MAX);
    write_oid(width as u64, &mut body);
    write_oid(algorithm, &mut body);
    let values = value.field("values").map(Value::list).unwrap_or_default();
    if width > 0 {
        match algorithm {
            NATURAL => {
                for (at, value) in (0_u64..).zip(values) {
                    write_element(element, (at / columns.max(1)) as usize, value, width, &mut body)?;
                }
            }
            IMAP => {
                let bound = |name| value.field(name).and_then(Value::number).ok_or(Unwritable::Form);
                let (min, max) = (bound("min")?, bound("max")?);
                let bytes = number("bound_bytes")? as usize;
                write_float(min, bytes, &mut body)?;
                write_float(max, bytes, &mut body)?;
                for value in values {
                    write_imap(min, max, value, width, &mut body)?;
                }
            }
            BOOLEAN => {
                for eight in values.chunks(8) {
                    let bits =
                        (0..8).map(|at| eight.get(at).and_then(Value::count).unwrap_or(0).min(1) as u8);
                    body.push(bits.fold(0, |byte, bit| byte << 1 | bit));
                }
            }
            UNSIGNED => {
                let bias = number("bias")?;
                write_oid(bias, &mut body);
                for value in values {
                    let over =
                        value.count().and_then(|value| value.checked_sub(bias)).ok_or(Unwritable::Range)?;
                    write_oid(over, &mut body);
                }
            }
            _ => {
                write_element(element, 0, value.field("default").ok_or(Unwritable::Form)?, width, &mut body)?;
                for patch in value.field("patches").map(Value::list).unwrap_or_default() {
                    let part = |name| patch.field(name).ok_or(Unwritable::Form);
                    write_element(element, 0, part("value")?, width, &mut body)?;
                    for number in part("start")?.list().iter().chain(part("size")?.list()) {
                        write_oid(number.count().ok_or(Unwritable::Form)?, &mut body);
                    }
                }
            }
        }
    }
    write_length(body.len() as u64, out);
    out.extend_from_slice(&body);
    Ok(())
}

/// What is known of an array before its elements.
struct Body {
    element: Element,
    columns: u64,
    elements: u64,
    width: usize,
    dimensions: usize,
}

impl Body {
    fn read<'a>(
        &self,
        reader: &mut Reader,
        algorithm: u64,
        rest: &'a [u8],
        fields: &mut Vec<Field<'a>>,
    ) -> Result<(), Malformed> {
        match algorithm {
            NATURAL => {
                let values = self
                    .fixed(reader, rest, |body, at, raw| body.element((at / body.columns) as usize, raw))?;
                fields.push(Field { name: "values", value: values });
            }
            IMAP => {
                let bytes = usize::try_from(self.elements).ok().and_then(|n| n.checked_mul(self.width));
                let bounds = bytes.and_then(|n| rest.len().checked_sub(n)).ok_or(Malformed)?;
                if !matches!(bounds, 8 | 16) {
                    return Err(Malformed);
                }
                let (bounds, rest) = rest.split_at_checked(bounds).ok_or(Malformed)?;
                let (min, max) = bounds.split_at(bounds.len() / 2);
                let bytes = min.len() as u64;
                let (min, max) = (float(min).ok_or(Malformed)?, float(max).ok_or(Malformed)?);
                if !min.is_finite() || !max.is_finite() {
                    return Err(Malformed);
                }
                let values =
                    self.fixed(reader, rest, |_, _, raw| imap::decode(min, max, raw).ok_or(Malformed))?;
                fields.push(Field { name: "min", value: Value::Real(min) });
                fields.push(Field { name: "max", value: Value::Real(max) });
                fields.push(Field { name: "bound_bytes", value: Value::Uint(bytes) });
                fields.push(Field { name: "values", value: values });
            }
            BOOLEAN => {
                if rest.len() as u64 != self.elements.div_ceil(8) || !reader.spend(8 * rest.len()) {
                    return Err(Malformed);
                }
                let bits = rest.iter().flat_map(|byte| (0..8).rev().map(move |at| u64::from(byte >> at & 1)));
                let values = bits.take(self.elements as usize).map(Value::Uint).collect();
                fields.push(Field { name: "values", value: Value::List(values) });
            }
            UNSIGNED => {
                let (bias, mut rest) = oid(rest)?;
                let mut values = Vec::new();
                while !rest.is_empty() {
                    let (value, behind) = oid(rest)?;
                    if !reader.spend(1) {
                        return Err(Malformed);
                    }
                    values.push(Value::Uint(value.checked_add(bias).ok_or(Malformed)?));
                    rest = behind;
                }
                if values.len() as u64 != self.elements {
                    return Err(Malformed);
                }
                fields.push(Field { name: "bias", value: Value::Uint(bias) });
                fields.push(Field { name: "values", value: Value::List(values) });
            }
            _ => {
                let (default, mut rest) = rest.split_at_checked(self.width).ok_or(Malformed)?;
                fields.push(Field { name: "default", value: self.element(0, default)? });
                let mut patches = Vec::new();
                while !rest.is_empty() {
                    let (patch, behind) = self.patch(reader, rest)?;
                    patches.push(patch);
                    rest = behind;
                }
                fields.push(Field { name: "patches", value: Value::List(patches) });
            }
        }
        Ok(())
    }

    /// Elements of equal width.
    fn fixed<'a>(
        &self,
        reader: &mut Reader,
        rest: &'a [u8],
        read: impl Fn(&Self, u64, &'a [u8]) -> Result<Value<'a>, Malformed>,
    ) -> Result<Value<'a>, Malformed> {
        let count = rest.len() / self.width;
        if !rest.len().is_multiple_of(self.width) || count as u64 != self.elements || !reader.spend(count) {
            return Err(Malformed);
        }
        let values: Result<Vec<_>, _> =
            (0..).zip(rest.chunks_exact(self.width)).map(|(at, raw)| read(self, at, raw)).collect();
        values.map(Value::List)
    }

    fn element<'a>(&self, row: usize, raw: &'a [u8]) -> Result<Value<'a>, Malformed> {
        match self.element {
            Element::Uint => unsigned(raw).map(Value::Uint).ok_or(Malformed),
            Element::Float => float(raw).map(Value::Real).ok_or(Malformed),
            Element::Rows(bounds) => {
                let &(min, max) = bounds.get(row).ok_or(Malformed)?;
                imap::decode(f64::from(min), f64::from(max), raw).ok_or(Malformed)
            }
            Element::Opaque => Ok(Value::Raw(Cow::Borrowed(raw))),
        }
    }

    /// A value, where it starts, and how far it goes in each dimension.
    fn patch<'a>(&self, reader: &mut Reader, rest: &'a [u8]) -> Result<(Value<'a>, &'a [u8]), Malformed> {
        let (raw, mut rest) = rest.split_at_checked(self.width).ok_or(Malformed)?;
        if !reader.spend(1 + 2 * self.dimensions) {
            return Err(Malformed);
        }
        let mut numbers = Vec::new();
        for _ in 0..2 * self.dimensions {
            let (number, behind) = oid(rest)?;
            numbers.push(Value::Uint(number));
            rest = behind;
        }
        let size = numbers.split_off(self.dimensions);
        let fields = vec![
            Field { name: "value", value: self.element(0, raw)? },
            Field { name: "start", value: Value::List(numbers) },
            Field { name: "size", value: Value::List(size) },
        ];
        Ok((Value::Record(fields), rest))
    }
}

fn write_element(
    element: Element,
    row: usize,
    value: &Value<'_>,
    width: usize,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    match (element, value) {
        (Element::Uint, value) => write_sized(value.count().ok_or(Unwritable::Form)?, width, out),
        (Element::Float, value) => write_float(value.number().ok_or(Unwritable::Form)?, width, out),
        (Element::Rows(bounds), value) => {
            let &(min, max) = bounds.get(row).ok_or(Unwritable::Form)?;
            write_imap(f64::from(min), f64::from(max), value, width, out)
        }
        (Element::Opaque, Value::Raw(raw)) if raw.len() == width => {
            out.extend_from_slice(raw);
            Ok(())
        }
        _ => Err(Unwritable::Form),
    }
}

fn oid(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    read_oid(bytes).map_err(|_| Malformed)
}

/// Dimensions that are read.
const DIMENSIONS_MAX: u64 = 16;

const NATURAL: u64 = 1;
const IMAP: u64 = 2;
const BOOLEAN: u64 = 3;
const UNSIGNED: u64 = 4;

/// How the elements are processed (ST 1303.2, table 3).
static ALGORITHMS: [Choice; 5] = [
    Choice { code: NATURAL, label: "natural" },
    Choice { code: IMAP, label: "imap" },
    Choice { code: BOOLEAN, label: "boolean" },
    Choice { code: UNSIGNED, label: "unsigned" },
    Choice { code: 5, label: "run_length" },
];
