//! ST 1204 motion imagery identifiers: bytes enter, UUIDs and the text form leave, and back. Never checks whether a UUID
//! is anybody's.

use std::fmt::Write as _;

use super::ber::{read_oid, write_oid};
use super::reader::Malformed;
use super::value::{Choice, Field, Value};
use super::writer::Unwritable;

/// Reads a core identifier: a version, a byte that says which UUIDs follow, and they.
pub(super) fn read<'a>(raw: &[u8]) -> Result<Value<'a>, Malformed> {
    let (version, rest) = read_oid(raw).map_err(|_| Malformed)?;
    let (&usage, mut rest) = rest.split_first().ok_or(Malformed)?;
    let (sensor, platform) = (usage >> 5 & 3, usage >> 3 & 3);
    if usage & 0x81 != 0 {
        return Err(Malformed);
    }
    let mut fields = vec![Field { name: "version", value: Value::Uint(version) }];
    for (name, quality) in [("sensor_quality", sensor), ("platform_quality", platform)] {
        fields
            .push(Field { name, value: Value::Choice(QUALITY.get(usize::from(quality)).ok_or(Malformed)?) });
    }
    let mut ids = Vec::new();
    for (name, present) in [
        ("sensor", sensor > 0),
        ("platform", platform > 0),
        ("window", usage & 4 != 0),
        ("minor", usage & 2 != 0),
    ] {
        if present {
            let (id, behind) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
            fields.push(Field { name, value: Value::Uuid(*id) });
            ids.push(*id);
            rest = behind;
        }
    }
    if !rest.is_empty() {
        return Err(Malformed);
    }
    fields.push(Field { name: "text", value: Value::Text(text(version, usage, &ids).into()) });
    Ok(Value::Record(fields))
}

/// Writes what [`read`] read; the text is not looked at.
pub(super) fn write(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    write_oid(value.field("version").and_then(Value::count).ok_or(Unwritable::Form)?, out);
    let quality = |name| value.field(name).and_then(Value::count).filter(|&code| code < 4);
    let sensor = quality("sensor_quality").ok_or(Unwritable::Form)?;
    let platform = quality("platform_quality").ok_or(Unwritable::Form)?;
    let id = |name| if let Some(Value::Uuid(id)) = value.field(name) { Some(id) } else { None };
    let (window, minor) = (id("window"), id("minor"));
    if (sensor > 0) != id("sensor").is_some() || (platform > 0) != id("platform").is_some() {
        return Err(Unwritable::Form);
    }
    let flags = u8::from(window.is_some()) << 2 | u8::from(minor.is_some()) << 1;
    out.push((sensor << 5 | platform << 3) as u8 | flags);
    for id in [id("sensor"), id("platform"), window, minor].into_iter().flatten() {
        out.extend_from_slice(id);
    }
    Ok(())
}

/// The text form (ST 1204.3, 8): version and usage, the UUIDs in groups of four digits, two check digits.
fn text(version: u64, usage: u8, ids: &[[u8; 16]]) -> String {
    let mut text = format!("{version:02X}{usage:02X}");
    for (at, id) in ids.iter().enumerate() {
        text.push(if at == 0 { ':' } else { '/' });
        for (at, pair) in id.as_chunks::<2>().0.iter().enumerate() {
            if at > 0 {
                text.push('-');
            }
            let _ = write!(text, "{:02X}{:02X}", pair[0], pair[1]);
        }
    }
    let check = check(&text);
    let _ = write!(text, ":{check:02X}");
    text
}

/// The check value (ST 1204.3, appendix B): each digit goes through two permutations as often as its place says, modulo
/// 15, and the results are added without carry.
fn check(text: &str) -> u8 {
    let digits = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8);
    let (mut p, mut q) = (0, 0);
    for (place, digit) in (1_u32..).zip(digits) {
        let (mut a, mut b) = (digit, digit);
        for _ in 0..place % 15 {
            let bit = |value: u8, at: u8| value >> at & 1;
            a = (bit(a, 3) ^ bit(a, 2)) << 3 | bit(a, 1) << 2 | bit(a, 0) << 1 | bit(a, 3);
            b = bit(b, 0) << 3 | (bit(b, 3) ^ bit(b, 0)) << 2 | bit(b, 2) << 1 | bit(b, 1);
        }
        p ^= a;
        q ^= b;
    }
    p << 4 | q
}

/// How sure an identifier is.
static QUALITY: [Choice; 4] = [
    Choice { code: 0, label: "none" },
    Choice { code: 1, label: "managed" },
    Choice { code: 2, label: "virtual" },
    Choice { code: 3, label: "physical" },
];
