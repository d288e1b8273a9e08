//! The parts of a request enter, typed values leave: fields of a JSON body, numbers of path and query. A body is
//! taken whole or refused whole; a field that is not known is an error.

use std::ops::RangeInclusive;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::command::Unanswered;
use super::problem::{Problem, Wrong};
use crate::store::{FieldError, InputId, OutputId, Refusal};
use crate::telemetry::SessionId;

/// The fields of a JSON object in a body. A field that is `null` counts as not given.
pub(super) struct Fields {
    given: Map<String, Value>,
    known: Vec<&'static str>,
    wrong: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::Said(error.status(), "Request body too large".into()),
            status => Problem::Said(status, error.body_text().into()),
        })?;
        if body.is_empty() {
            return Err(Wrong::new("missing", &["body".into()], "Field required").into());
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(given)) => Ok(Self { given, known: Vec::new(), wrong: Vec::new() }),
            Ok(_) => {
                let msg = "Input should be a valid dictionary or object to extract fields from";
                Err(Wrong::new("model_attributes_type", &["body".into()], msg).into())
            }
            Err(error) => {
                let loc = ["body".into(), offset(&body, &error).into()];
                Err(Wrong::new("json_invalid", &loc, format!("JSON decode error: {error}")).into())
            }
        }
    }
}

impl Fields {
    /// A string.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.read(name, "string_type", "Input should be a valid string", |v| v.as_str().map(str::to_owned))
    }

    /// A string that must be there.
    pub(super) fn required(&mut self, name: &'static str) -> String {
        let text = self.text(name);
        if text.is_none() && self.wrong.last().is_none_or(|error| error.field != name) {
            self.wrong.push(FieldError::new(name, "missing", "Field required"));
        }
        text.unwrap_or_default()
    }

    /// A whole number.
    pub(super) fn integer(&mut self, name: &'static str) -> Option<i64> {
        self.read(name, "int_type", "Input should be a valid integer", Value::as_i64)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "bool_type", "Input should be a valid boolean", Value::as_bool)
    }

    /// Every field was of its type, and none was left unread.
    pub(super) fn finish(mut self) -> Result<Sent, Problem> {
        let known = self.known.join(", ");
        for name in self.given.keys().filter(|name| !self.known.contains(&name.as_str())) {
            let msg = format!("Extra inputs are not permitted; known are {known}");
            self.wrong.push(FieldError::new(name.clone(), "extra_forbidden", msg));
        }
        let sent = Sent(self.given);
        if self.wrong.is_empty() { Ok(sent) } else { Err(sent.wrong(self.wrong)) }
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        kind: &'static str,
        msg: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        self.known.push(name);
        let value = self.given.get(name).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            self.wrong.push(FieldError::new(name, kind, msg));
        }
        read
    }
}

/// What was sent, kept to be repeated beside an error.
pub(super) struct Sent(Map<String, Value>);

impl Sent {
    /// The answer to a command that was not carried out.
    pub(super) fn problem(&self, error: Unanswered) -> Problem {
        match error {
            Unanswered::Refused(Refusal::Invalid(errors)) => self.wrong(errors),
            other => other.into(),
        }
    }

    fn wrong(&self, errors: Vec<FieldError>) -> Problem {
        let wrong = errors.into_iter().map(|error| {
            let input = self.0.get(&*error.field).filter(|_| error.kind != "extra_forbidden");
            Wrong::field(error, input)
        });
        Problem::Wrong(wrong.collect())
    }
}

/// `{input_id}` of the path. A number that no input can have is 0.
pub(super) struct InputPath(pub(super) InputId);

/// `{input_id}` and `{output_id}` of the path.
pub(super) struct OutputPath(pub(super) InputId, pub(super) OutputId);

/// `{session_id}` of the path.
pub(super) struct SessionPath(pub(super) SessionId);

impl<S: Send + Sync> FromRequestParts<S> for SessionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(path_number(parts, state, "session_id").await?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InputPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(path_number(parts, state, "input_id").await?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OutputPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let input = path_number(parts, state, "input_id").await?;
        Ok(Self(input, path_number(parts, state, "output_id").await?))
    }
}

/// A number of the query inside its range, or `default` where the query does not have it.
pub(super) fn query_number(
    query: Option<&str>,
    name: &'static str,
    default: usize,
    range: RangeInclusive<usize>,
) -> Result<usize, Problem> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let Some((_, text)) = pairs.filter(|(key, _)| key == name).last() else { return Ok(default) };
    let wrong = |kind, msg: String| Err(Wrong::number("query", name, kind, msg, &text).into());
    if !is_integer(&text) {
        return wrong("int_parsing", UNPARSED.into());
    }
    let least = *range.start();
    match text.trim_start_matches('+').parse::<usize>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(number) if number < least => {
            wrong("greater_than_equal", format!("Input should be greater than or equal to {least}"))
        }
        Err(_) if text.starts_with('-') => {
            wrong("greater_than_equal", format!("Input should be greater than or equal to {least}"))
        }
        _ => wrong("less_than_equal", format!("Input should be less than or equal to {}", range.end())),
    }
}

async fn path_number<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &'static str,
) -> Result<u64, Problem> {
    let params = RawPathParams::from_request_parts(parts, state).await;
    let params = params.map_err(|_| Problem::not_found("Not Found"))?;
    let text = params.iter().find_map(|(key, value)| (key == name).then_some(value)).unwrap_or_default();
    if !is_integer(text) {
        return Err(Wrong::number("path", name, "int_parsing", UNPARSED, text).into());
    }
    Ok(text.parse().unwrap_or(0))
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Where in the body the decoder stopped, in bytes.
fn offset(body: &[u8], error: &serde_json::Error) -> usize {
    let before: usize =
        body.split_inclusive(|b| *b == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (before + error.column().saturating_sub(1)).min(body.len())
}

const UNPARSED: &str = "Input should be a valid integer, unable to parse string as an integer";
