//! Why a write is refused. Says which field, what was expected and what to do; never repeats a value that
//! may be a secret.

use std::borrow::Cow;

/// Why a write is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such input or output.
    #[error("{0}")]
    NotFound(String),
    /// The write is well-formed and clashes with what exists: a name, a port, a limit.
    #[error("{0}")]
    Conflict(String),
    /// Fields that are wrong by themselves; never empty.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {msg}")]
pub struct FieldError {
    /// Name of the field, as the API and the configuration write it.
    pub field: Cow<'static, str>,
    /// What was expected, in words for an operator.
    pub msg: String,
    /// Class of the error, in the words of the API's `type` (`value_error`, `missing`, `int_type` …).
    pub kind: &'static str,
}

impl FieldError {
    /// An error of that class.
    pub fn new(field: impl Into<Cow<'static, str>>, kind: &'static str, msg: impl Into<String>) -> Self {
        Self { field: field.into(), msg: msg.into(), kind }
    }

    /// A value of the right type that cannot be meant.
    pub fn value(field: impl Into<Cow<'static, str>>, msg: impl Into<String>) -> Self {
        Self::new(field, "value_error", msg)
    }
}
