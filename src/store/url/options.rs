//! The query of a url enters, its options leave, each known, given once, and of the form that was asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::store::redact::is_secret;
use crate::store::refusal::FieldError;
use crate::store::spec::{Delay, Transform};
use crate::wire::ts::{Fill, FilterSpec};

/// The options of a url, each known and given once.
pub(super) struct Options(Vec<Given>);

struct Given {
    /// As it is known here.
    name: String,
    value: String,
    /// As whoever wrote the url calls it.
    written: String,
}

impl Options {
    /// `known` are names; a name of `also` counts as the one beside it.
    pub(super) fn parse(
        query: Option<&str>,
        known: &[&[&str]],
        also: &[(&str, &'static str)],
    ) -> Result<Self, FieldError> {
        let mut options: Vec<Given> = Vec::new();
        for option in query.into_iter().flat_map(|q| q.split('&')).filter(|o| !o.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let written = name;
            let name = also.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| *name);
            if !known.concat().contains(&name) {
                // What has no value, or is no word, may be a piece of a secret that held a `&`.
                let word = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let behind = options.last().is_some_and(|before| is_secret(&before.name));
                let piece = match option.contains('=') {
                    true => behind && !word,
                    false => behind || !word,
                };
                let plain = (1..=32).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
                let shown = if plain && !piece { format!("option '{name}'") } else { "an option".into() };
                let known = known.concat().join(", ");
                return Err(bad(format!("{shown} is not known here; known are {known}")));
            }
            if let Some(taken) = options.iter().find(|taken| taken.name == name) {
                let also = if taken.written == written { "" } else { " (its other name is the same option)" };
                return Err(bad(format!("option '{written}' is given twice{also}")));
            }
            let value = percent_decode(value).and_then(|bytes| String::from_utf8(bytes).ok());
            let Some(value) = value.filter(|v| !v.is_empty()) else {
                return Err(bad(format!(
                    "option '{written}' needs a value: {written}=… (write a literal % as %25)"
                )));
            };
            options.push(Given { name: name.into(), value, written: written.into() });
        }
        Ok(Self(options))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.given(name).map(|given| given.value.as_str())
    }

    /// An option as whoever wrote the url calls it.
    pub(super) fn written<'a>(&'a self, name: &'a str) -> &'a str {
        self.given(name).map_or(name, |given| &given.written)
    }

    fn given(&self, name: &str) -> Option<&Given> {
        self.0.iter().find(|given| given.name == name)
    }

    pub(super) fn read<T>(
        &self,
        name: &str,
        expected: impl FnOnce() -> String,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let must = || bad(format!("option '{}' must be {}", self.written(name), expected()));
        read(value).map(Some).ok_or_else(must)
    }

    pub(super) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, FieldError> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        self.read(name, expected, |v| digits::<u64>(v).filter(|n| range.contains(n)))
    }

    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, FieldError> {
        let expected = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        self.read(name, expected, |v| choices.iter().find(|(word, _)| *word == v).map(|(_, choice)| *choice))
    }

    pub(super) fn interface(&self) -> Result<Option<String>, FieldError> {
        let expected = || "the name or an address of a network interface, such as eth0".into();
        self.read("interface", expected, |v| {
            (is_interface(v) || IpAddr::from_str(v).is_ok()).then(|| v.to_owned())
        })
    }

    pub(super) fn stall_after(&self) -> Result<Option<Duration>, FieldError> {
        self.read(
            "stall_after",
            || "seconds from 0.1 to 3600".into(),
            |v| {
                let plain = v.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                let seconds = v.parse::<f64>().ok().filter(|s| plain && (0.1..=3600.0).contains(s))?;
                Some(Duration::from_secs_f64(seconds))
            },
        )
    }

    pub(super) fn delay(&self) -> Result<Option<Delay>, FieldError> {
        let words = Delay::ALL.map(|delay| delay.as_ms().to_string());
        let choices: Vec<_> = words.iter().map(String::as_str).zip(Delay::ALL).collect();
        self.choice("delay_ms", &choices)
    }

    /// What the options of [`FILTER`] say.
    pub(super) fn transform(&self) -> Result<Transform, FieldError> {
        let fill = self.choice("fill", &[("null", Fill::Null), ("remove", Fill::Remove)])?;
        let filter = FilterSpec {
            program: self.number("program", 1..=65_535)?.map(|n| n as u16),
            pids: self.pids("pids")?,
            drop_pids: self.pids("drop_pids")?.unwrap_or_default(),
            strip_klv: self.choice("klv", &[("keep", false), ("strip", true)])?.unwrap_or_default(),
            fill: fill.unwrap_or_default(),
        };
        if let Some(pid) = filter.pids.iter().flatten().find(|pid| filter.drop_pids.contains(pid)) {
            return Err(bad(format!("PID {pid} is in pids and in drop_pids: take it out of one")));
        }
        if filter != (FilterSpec { fill: filter.fill, ..FilterSpec::default() }) {
            Ok(Some(filter))
        } else if fill.is_some() {
            Err(bad("option 'fill' needs something to take out: program, pids, drop_pids or klv=strip"))
        } else {
            Ok(None)
        }
    }

    fn pids(&self, name: &str) -> Result<Option<BTreeSet<u16>>, FieldError> {
        let expected = || "a comma list of PIDs from 16 to 8190 (0x10 to 0x1ffe)".into();
        self.read(name, expected, |v| v.split(',').map(pid).collect())
    }
}

/// IFNAMSIZ leaves 15 bytes; the kernel allows anything else but `/`, white space and `:`.
pub(super) fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
}

/// PIDs of elementary streams (ISO/IEC 13818-1, table 2-3).
pub(super) fn pid(text: &str) -> Option<u16> {
    read_pid(text).filter(|pid| (0x10..=0x1ffe).contains(pid))
}

/// The number of a PID or of another track, as 258 or 0x102; `None` for what is neither, or beyond 16 bits.
pub fn read_pid(text: &str) -> Option<u16> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u16::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None => digits(text),
    }
}

/// A number of digits only: `FromStr` alone would take a sign.
pub(super) fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

pub(super) fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut hex = || char::from(bytes.next()?).to_digit(16);
                (hex()? << 4 | hex()?) as u8
            }
            plain => plain,
        });
    }
    Some(decoded)
}

pub(super) fn bad(msg: impl Into<String>) -> FieldError {
    FieldError::value(FIELD, msg)
}

pub(super) const FIELD: &str = "url";
pub(super) const FILTER: &[&str] = &["program", "pids", "drop_pids", "klv", "fill"];
