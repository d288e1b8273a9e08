//! ST 1201 integer mapping (IMAPB): code words enter, reals and special values leave, and back. Never makes a number of
//! a code word that stands for none.

use super::value::{Special, Value};

/// Reads a code word of 1 to 8 bytes that maps `min..=max`; other lengths give `None`.
pub(super) fn decode(min: f64, max: f64, bytes: &[u8]) -> Option<Value<'static>> {
    let length = bytes.len();
    if !(1..=8).contains(&length) || min >= max || min.is_nan() || max.is_nan() {
        return None;
    }
    let code = bytes.iter().fold(0_u64, |sum, &b| sum << 8 | u64::from(b));
    let top = 1_u64 << (8 * length - 1);
    // The one code word with its high bit set that is a number: the maximum of a range that is a power of two.
    if code > top || code == top && exponent(max - min).1 {
        return Some(Value::Special(classify(code, length)));
    }
    if code > highest(min, max, length) {
        return Some(Value::Special(Special::Code(code)));
    }
    Some(Value::Real(real(min, max, code, length)))
}

/// The code word of a value, rounded down as ST 1201 says; outside the range the special code word for below or above.
pub(super) fn encode(min: f64, max: f64, value: f64, length: usize) -> u64 {
    let special = |byte: u64| byte << (8 * (length - 1));
    if value.is_nan() {
        return special(if value.is_sign_negative() { 0xf0 } else { 0xd0 });
    }
    if value.is_infinite() {
        return special(if value > 0.0 { 0xc8 } else { 0xe8 });
    }
    if value < min {
        // rounding of the zero offset may put the lowest code word a hair below the minimum
        return if value == real(min, max, 0, length) { 0 } else { special(0xe0) };
    }
    if value > max {
        return special(0xe1);
    }
    let map = Map::new(min, max, length);
    let exact = match map.floor {
        // value·scale is exact (a power of two), so that what was decoded comes back as the same code word
        Some(floor) => {
            (value * map.scale).trunc() as i128 - floor + i128::from(falls_short(value * map.scale))
        }
        None => (map.scale * (value - min) + map.zero).floor() as i128,
    };
    exact.clamp(0, i128::from(highest(min, max, length))) as u64
}

/// The code word of a special value.
pub(super) fn encode_special(special: Special, length: usize) -> Option<u64> {
    let byte = |byte: u64| Some(byte << (8 * (length - 1)));
    match special {
        Special::BelowMinimum => byte(0xe0),
        Special::AboveMaximum => byte(0xe1),
        Special::PositiveInfinity => byte(0xc8),
        Special::NegativeInfinity => byte(0xe8),
        Special::NotANumber(code) | Special::UserDefined(code) | Special::Code(code) => {
            (length == 8 || code >> (8 * length) == 0).then_some(code)
        }
        Special::OutOfRange | Special::OffEarth | Special::Reserved => None,
    }
}

/// What decides the mapping of one range and length.
struct Map {
    /// sF, a power of two.
    scale: f64,
    /// zOffset.
    zero: f64,
    /// sF·min - zOffset, where it is a whole number that fits.
    floor: Option<i128>,
}

impl Map {
    fn new(min: f64, max: f64, length: usize) -> Self {
        let scale = 2_f64.powi((8 * length as i32 - 1) - exponent(max - min).0);
        let low = scale * min;
        let zero = if min < 0.0 && max > 0.0 { low - low.floor() } else { 0.0 };
        let whole = low - zero;
        Self { scale, zero, floor: (whole.fract() == 0.0 && whole.abs() < 1e36).then_some(whole as i128) }
    }
}

/// ceil(log2), and whether it is *not* exact.
fn exponent(span: f64) -> (i32, bool) {
    let bits = span.to_bits();
    let floor = (bits >> 52 & 0x7ff) as i32 - 1023;
    let inexact = bits & ((1 << 52) - 1) != 0;
    (floor + i32::from(inexact), inexact)
}

fn real(min: f64, max: f64, code: u64, length: usize) -> f64 {
    let map = Map::new(min, max, length);
    match map.floor {
        // one rounding: the sum is exact in integers, the division is by a power of two
        Some(floor) => (i128::from(code) + floor) as f64 / map.scale,
        None => (code as f64 - map.zero) / map.scale + min,
    }
}

/// The code word of the maximum.
fn highest(min: f64, max: f64, length: usize) -> u64 {
    let map = Map::new(min, max, length);
    let high = map.floor.map_or_else(
        || (map.scale * (max - min) + map.zero).floor(),
        |floor| ((max * map.scale).floor() as i128 - floor) as f64,
    );
    high as u64
}

/// Whether truncation went up.
fn falls_short(scaled: f64) -> i8 {
    if scaled < 0.0 && scaled.fract() != 0.0 { -1 } else { 0 }
}

fn classify(code: u64, length: usize) -> Special {
    let first = code >> (8 * (length - 1));
    let bare = code == first << (8 * (length - 1));
    match first {
        0xe0 if bare => Special::BelowMinimum,
        0xe1 if bare => Special::AboveMaximum,
        0xc8 if bare => Special::PositiveInfinity,
        0xe8 if bare => Special::NegativeInfinity,
        0xc0..=0xc7 => Special::UserDefined(code),
        0xd0..=0xdf | 0xf0..=0xff => Special::NotANumber(code),
        _ => Special::Code(code),
    }
}
