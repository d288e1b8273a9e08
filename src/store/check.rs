//! Values of a write enter, checked values or errors that name the field leave. Knows nothing of what exists.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::refusal::FieldError;
use super::spec::{OutputUrl, Protocol};

/// Collects an error, so that one answer names all of them.
pub(super) fn keep<T>(errors: &mut Vec<FieldError>, checked: Result<T, FieldError>) -> Option<T> {
    checked.map_err(|error| errors.push(error)).ok()
}

pub(super) fn check_name(name: &str) -> Result<Arc<str>, FieldError> {
    let error = |kind, msg| Err(FieldError::new("name", kind, msg));
    match name.chars().count() {
        0 => error("string_too_short", "String should have at least 1 character"),
        256.. => error("string_too_long", "String should have at most 255 characters"),
        _ if name.trim().is_empty() || name.chars().any(char::is_control) => {
            error("value_error", "a name has something to read in it, and no control characters")
        }
        _ => Ok(name.into()),
    }
}

pub(super) fn number<T: TryFrom<i64> + Copy + Into<i64>>(
    field: &'static str,
    value: Option<i64>,
    range: RangeInclusive<T>,
) -> Result<Option<T>, FieldError> {
    let Some(value) = value else { return Ok(None) };
    let (least, most): (i64, i64) = ((*range.start()).into(), (*range.end()).into());
    if value < least {
        let msg = format!("Input should be greater than or equal to {least}");
        return Err(FieldError::new(field, "greater_than_equal", msg));
    }
    match T::try_from(value) {
        Ok(number) if value <= most => Ok(Some(number)),
        _ => {
            let msg = format!("Input should be less than or equal to {most}");
            Err(FieldError::new(field, "less_than_equal", msg))
        }
    }
}

/// `word` names a protocol that runs, and the url is one of it.
pub(super) fn check_protocol(word: &str, url: Option<&OutputUrl>) -> Result<(), FieldError> {
    let error = |kind, msg| Err(FieldError::new("protocol", kind, msg));
    let Some(protocol) = Protocol::from_word(word) else {
        let words: Vec<_> = Protocol::ALL.map(|p| format!("'{}'", p.as_str())).into();
        return error("enum", format!("Input should be {}", words.join(", ")));
    };
    if url.is_none_or(|url| url.protocol() == protocol) {
        return Ok(());
    }
    let mode = match protocol {
        Protocol::SrtCaller => " and have mode=caller",
        Protocol::SrtListener => " and have mode=listener",
        Protocol::SrtRendezvous => " and have mode=rendezvous",
        Protocol::Rtsp => " and have mode=caller",
        Protocol::RtspListener => " and have mode=listener",
        _ => "",
    };
    error("value_error", format!("URL for protocol '{word}' must start with {}{mode}", protocol.prefix()))
}
