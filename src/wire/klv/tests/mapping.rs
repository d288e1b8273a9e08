//! ST 1201: the vectors of the samples, and the corners of the mapping.

use serde_json::Value as Json;

use super::super::{Special, Value, imap};
use super::sample;

fn name(text: &str) -> Option<Special> {
    Some(match text {
        "Infinity" => Special::PositiveInfinity,
        "-Infinity" => Special::NegativeInfinity,
        _ if text.ends_with("NaN") => Special::NotANumber(0),
        _ => return None,
    })
}

#[test]
fn the_vectors_are_read_and_written_exactly() {
    let Some(vectors) = sample("vectors/st1201_vectors.json") else { return };
    let vectors: Json = serde_json::from_slice(&vectors).expect("JSON");
    let vectors = vectors.as_array().expect("vectors");
    assert!(vectors.len() > 500, "{}", vectors.len());
    let mut last_bit = 0;
    for vector in vectors {
        let number = |name: &str| vector[name].as_f64().unwrap_or_else(|| panic!("{name} of {vector}"));
        let (min, max, length) = (number("a"), number("b"), vector["L"].as_u64().expect("L") as usize);
        let hex = vector["forwardResultHex"].as_str().expect("hex").trim_start_matches("0x");
        let code = u64::from_str_radix(hex, 16).expect("hex");
        let bytes = &code.to_be_bytes()[8 - length..];
        let read = imap::decode(min, max, bytes).unwrap_or_else(|| panic!("{vector}"));
        match &vector["reverseResult"] {
            Json::String(text) => {
                let expected = name(text).unwrap_or_else(|| panic!("{vector}"));
                let Value::Special(found) = read else { panic!("{vector} gives {read:?}") };
                assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&expected), "{vector}");
                assert_eq!(imap::encode_special(found, length), Some(code), "{vector}");
            }
            other => {
                let expected = other.as_f64().expect("a number");
                let Value::Real(found) = read else { panic!("{vector} gives {read:?}") };
                if found != expected {
                    // the vectors were made with two roundings where here is one
                    last_bit += 1;
                    assert!(
                        (found - expected).abs() <= expected.abs() * f64::EPSILON,
                        "{vector} gives {found}"
                    );
                }
                let forward = imap::encode(min, max, number("x"), length);
                let off = forward.abs_diff(code);
                // more than 53 bits of a code word are not in the double that it came from
                assert!(
                    off == 0 || length > 6 && off as f64 <= code as f64 * f64::EPSILON,
                    "{vector}: {forward:#x}"
                );
            }
        }
    }
    assert!(last_bit * 20 < vectors.len(), "{last_bit} of {} differ in the last bit", vectors.len());
}

#[test]
fn what_is_read_is_written_as_the_same_code_word() {
    for (min, max) in
        [(0.0, 1_500_000.0), (-900.0, 40_000.0), (-19.2, 19.2), (0.0, 360.0), (-1.0, 1.0), (1.0, 99_999.0)]
    {
        for length in 1..=6 {
            let top = 1_u64 << (8 * length - 1);
            for step in 0..1000 {
                let code = top / 1000 * step + step * 7 % (top / 1000).max(1);
                let read = imap::decode(min, max, &code.to_be_bytes()[8 - length..]).expect("a length");
                if let Value::Real(value) = read {
                    assert_eq!(
                        imap::encode(min, max, value, length),
                        code,
                        "{min}..{max} in {length}: {value}"
                    );
                }
            }
        }
    }
}

#[test]
fn code_words_behind_the_maximum_are_no_numbers() {
    // 0..100 in one byte: scale 1, so 101 and more mean nothing
    assert_eq!(imap::decode(0.0, 100.0, &[100]), Some(Value::Real(100.0)));
    assert_eq!(imap::decode(0.0, 100.0, &[101]), Some(Value::Special(Special::Code(101))));
    // a range that is a power of two reaches the first code word with its high bit set
    assert_eq!(imap::decode(-1.0, 1.0, &[0x80]), Some(Value::Real(1.0)));
    assert_eq!(imap::decode(0.0, 100.0, &[0x80]), Some(Value::Special(Special::Code(0x80))));
    assert_eq!(imap::decode(0.0, 100.0, &[0xe0, 0]), Some(Value::Special(Special::BelowMinimum)));
    assert_eq!(imap::decode(0.0, 100.0, &[0xe0, 1]), Some(Value::Special(Special::Code(0xe001))));
    assert_eq!(imap::decode(0.0, 100.0, &[]), None);
    assert_eq!(imap::decode(0.0, 100.0, &[0; 9]), None);
    assert_eq!(imap::decode(1.0, 1.0, &[0]), None);
}

#[test]
fn values_outside_the_range_are_written_as_such() {
    assert_eq!(imap::encode(0.0, 100.0, -1.0, 2), 0xe000);
    assert_eq!(imap::encode(0.0, 100.0, 100.1, 2), 0xe100);
    assert_eq!(imap::encode(0.0, 100.0, f64::NAN, 1), 0xd0);
    assert_eq!(imap::encode(0.0, 100.0, f64::NEG_INFINITY, 3), 0xe8_0000);
}
