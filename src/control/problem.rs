//! Errors enter, answers of the API's contract leave: `{"detail": …}` with the status that fits. Never repeats
//! a value that may be a secret.

use std::borrow::Cow;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::command::Unanswered;
use crate::store::{FieldError, Refusal, redact};

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(super) enum Problem {
    /// One sentence.
    Said(StatusCode, Cow<'static, str>),
    /// 422, with every wrong field.
    Wrong(Vec<Wrong>),
    /// 503: the same request may be sent again.
    Busy,
}

/// One wrong field, in the shape of the contract.
#[derive(Debug, Serialize)]
pub(super) struct Wrong {
    #[serde(rename = "type")]
    kind: &'static str,
    loc: Vec<Value>,
    msg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Value>,
}

impl Wrong {
    pub(super) fn new(kind: &'static str, loc: &[Value], msg: impl Into<String>) -> Self {
        Self { kind, loc: loc.to_vec(), msg: msg.into(), input: None }
    }

    /// A wrong field of the body. `input` is what was sent there.
    pub(super) fn field(error: FieldError, input: Option<&Value>) -> Self {
        let prefix = if error.kind == "value_error" { "Value error, " } else { "" };
        let msg = format!("{prefix}{}", error.msg);
        let input = input.filter(|_| error.field != "url").and_then(shown);
        Self { input, ..Self::new(error.kind, &["body".into(), error.field.into()], msg) }
    }

    /// A wrong number in the path or query.
    pub(super) fn number(
        place: &'static str,
        name: &str,
        kind: &'static str,
        msg: impl Into<String>,
        input: &str,
    ) -> Self {
        Self { input: Some(input.into()), ..Self::new(kind, &[place.into(), name.into()], msg) }
    }
}

impl Problem {
    pub(super) fn not_found(what: &'static str) -> Self {
        Self::Said(StatusCode::NOT_FOUND, what.into())
    }
}

impl From<Wrong> for Problem {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(vec![wrong])
    }
}

impl From<Unanswered> for Problem {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::Refused(Refusal::NotFound(said)) => Self::Said(StatusCode::NOT_FOUND, said.into()),
            Unanswered::Refused(Refusal::Conflict(said)) => Self::Said(StatusCode::BAD_REQUEST, said.into()),
            Unanswered::Refused(Refusal::Invalid(errors)) => {
                Self::Wrong(errors.into_iter().map(|error| Wrong::field(error, None)).collect())
            }
            Unanswered::Busy => Self::Busy,
            closed @ Unanswered::Closed => {
                Self::Said(StatusCode::SERVICE_UNAVAILABLE, closed.to_string().into())
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::Said(status, said) => (status, Json(json!({ "detail": said }))).into_response(),
            Self::Wrong(wrong) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": wrong }))).into_response()
            }
            Self::Busy => {
                let said = json!({ "detail": Unanswered::Busy.to_string() });
                (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(said)).into_response()
            }
        }
    }
}

/// A scalar as it may be repeated: somebody may have put a url into the wrong field.
fn shown(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => Some(redact(text).into()),
        Value::Bool(_) | Value::Number(_) => Some(value.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
