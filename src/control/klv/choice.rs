//! The query of a request enters, what its sender wants to hear of leaves, or every parameter that is wrong, by name.

use std::collections::BTreeSet;
use std::time::Duration;

use url::form_urlencoded;

use crate::control::problem::{Problem, Wrong};
use crate::store::read_pid;
use crate::wire::klv::{EG0104, ST0601};

/// What somebody wants of the KLV of an input.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::control) struct Choice {
    /// Only this track.
    pub(super) track: Option<u16>,
    /// Only these items.
    pub(super) fields: Fields,
    /// The shortest time between two events of a track; none = every packet.
    pub(super) period: Option<Duration>,
}

/// Which items.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) enum Fields {
    /// All of them.
    #[default]
    All,
    /// Those with these tags.
    Some(BTreeSet<u32>),
}

impl Choice {
    /// Reads a query that may hold the parameters `known`; of one that stands there twice the last counts.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let (mut choice, mut wrong) = (Self::default(), Vec::new());
        for (name, text) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let read = match &*name {
                name if !known.contains(&name) => {
                    let msg = format!("Extra parameters are not permitted; known are {}", known.join(", "));
                    Err(Wrong::new("extra_forbidden", &["query".into(), shorten(name).into()], msg))
                }
                "pid" => read_track(&text).map(|track| choice.track = Some(track)),
                "fields" => Fields::read(&text).map(|fields| choice.fields = fields),
                _ => read_rate(&text).map(|period| choice.period = period),
            };
            wrong.extend(read.err());
        }
        if wrong.is_empty() { Ok(choice) } else { Err(Problem::Wrong(wrong)) }
    }
}

impl Fields {
    /// Tags and names of items, separated by commas; names as ST 0601 has them, in any case, `_` for what is no letter
    /// or digit.
    fn read(text: &str) -> Result<Self, Wrong> {
        let mut tags = BTreeSet::new();
        for field in text.split(',').map(str::trim).filter(|field| !field.is_empty()) {
            let Some(tag) = tag_of(field) else {
                let msg = format!(
                    "Value error, no item of ST 0601 or EG 0104 has the tag or name '{}'",
                    shorten(field)
                );
                return Err(Wrong::number("query", "fields", "value_error", msg, shorten(field)));
            };
            tags.insert(tag);
        }
        if tags.is_empty() {
            let msg = "Value error, must be tags or names of items, separated by commas";
            return Err(Wrong::number("query", "fields", "value_error", msg, shorten(text)));
        }
        Ok(Self::Some(tags))
    }

    /// Whether this tag is wanted.
    pub(super) fn has(&self, tag: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(tags) => tags.contains(&tag),
        }
    }
}

/// The tag that a field names.
fn tag_of(field: &str) -> Option<u32> {
    let mut items = ST0601.items.iter().chain(EG0104.items);
    if let Ok(tag) = field.parse::<u32>() {
        return items.any(|item| item.tag == tag).then_some(tag);
    }
    let wanted = plain(field);
    items.find(|item| plain(item.name) == wanted).map(|item| item.tag)
}

/// Letters and digits in lower case, one `_` for everything between.
fn plain(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

fn read_track(text: &str) -> Result<u16, Wrong> {
    read_pid(text).ok_or_else(|| {
        let msg = "Input should be the PID of a track, 0 to 65535, or as 0x102";
        Wrong::number("query", "pid", "int_parsing", msg, shorten(text))
    })
}

/// Events a second; 0 = every packet.
fn read_rate(text: &str) -> Result<Option<Duration>, Wrong> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=RATE_MOST).contains(rate));
    match rate {
        Some(0.0) => Ok(None),
        // less than once in a quarter of an hour is not asked for
        Some(rate) if rate >= RATE_LEAST => Ok(Some(Duration::from_secs_f64(1.0 / rate))),
        _ => {
            let msg = format!(
                "Input should be events a second from {RATE_LEAST} to {RATE_MOST}, or 0 for every packet"
            );
            Err(Wrong::number("query", "max_rate", "float_parsing", msg, shorten(text)))
        }
    }
}

/// As much of a text as is repeated in an answer.
fn shorten(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(at, _)| text.get(..at).unwrap_or_default())
}

const RATE_MOST: f64 = 1000.0;
const RATE_LEAST: f64 = 0.001;
