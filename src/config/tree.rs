//! YAML enters, a tree of values with the line of each leaves. Knows no key: what values mean is decided
//! where every mistake can be reported, not at the first one.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{NonFiniteFloatPolicy, Spanned, UserMessageFormatter};

/// A value of the file, or of an environment variable (then always [`Value::Text`]).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Flag(bool),
    Integer(i64),
    Real(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A value and the line, counted from 1, of its key or, in a list, of itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What was found where something else is allowed, in words.
pub(super) type Found = String;

impl Value {
    /// Reads one YAML document; an empty one is [`Value::Null`]. The error is a line and what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, (Option<u64>, String)> {
        // In YAML 1.1 `no` and `on` are flags; here an input may be called so.
        // A number that is none is refused by the range of its key.
        let options = serde_saphyr::options! {
            with_snippet: false,
            strict_booleans: true,
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map(|location| location.line());
            let text = error.render_with_formatter(&UserMessageFormatter);
            // The line is said in front, the column is of little help.
            let reason = text.split(" at line ").next().unwrap_or_default();
            (line, format!("this is not valid YAML: {reason}"))
        })
    }

    pub(super) fn whole(&self, range: RangeInclusive<i64>) -> Result<i64, Found> {
        let number = match self {
            Self::Integer(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| self.to_string())
    }

    pub(super) fn real(&self, range: RangeInclusive<f64>) -> Result<f64, Found> {
        let number = match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Real(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| self.to_string())
    }

    pub(super) fn flag(&self) -> Result<bool, Found> {
        match self {
            Self::Flag(flag) => Ok(*flag),
            Self::Text(text) => text.trim().parse().map_err(|_| self.to_string()),
            _ => Err(self.to_string()),
        }
    }

    /// The text itself is never repeated by the error: it may hold a secret.
    pub(super) fn text(&self) -> Result<&str, Found> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Flag(_) | Self::Integer(_) | Self::Real(_) => {
                Err("a number or flag (put it in quotes)".into())
            }
            _ => Err(self.to_string()),
        }
    }

    /// The texts of a list; a text is a list separated by commas.
    pub(super) fn texts(&self) -> Result<Vec<&str>, Found> {
        match self {
            Self::List(nodes) => nodes.iter().map(|node| node.value.text()).collect(),
            Self::Text(text) => Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
            _ => Err(self.to_string()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "'{text}'"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map of keys"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Real(number as f64), Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Real(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            nodes.push(Node { line: item.referenced.line(), value: item.value });
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let value = entries.next_value()?;
            nodes.push((key.value, Node { line: key.referenced.line(), value }));
        }
        Ok(Value::Map(nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let text = "# first\na: 1\nb:\n  c: [x, 2.5]\n\n  d:\n    - no\n    - 'true'\n    - true\ne:\n";
        let node = |line, value| Node { line, value };
        let text_at = |line, text: &str| node(line, Value::Text(text.into()));
        let expected = Value::Map(vec![
            ("a".into(), node(2, Value::Integer(1))),
            (
                "b".into(),
                node(
                    3,
                    Value::Map(vec![
                        ("c".into(), node(4, Value::List(vec![text_at(4, "x"), node(4, Value::Real(2.5))]))),
                        (
                            "d".into(),
                            node(
                                6,
                                Value::List(vec![
                                    text_at(7, "no"),
                                    text_at(8, "true"),
                                    node(9, Value::Flag(true)),
                                ]),
                            ),
                        ),
                    ]),
                ),
            ),
            ("e".into(), node(10, Value::Null)),
        ]);
        assert_eq!(Value::parse(text), Ok(expected));
        for empty in ["", "\n", "# only words\n", "---\n"] {
            assert_eq!(Value::parse(empty), Ok(Value::Null), "{empty:?}");
        }
    }
}
