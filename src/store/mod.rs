//! The desired state: which inputs and outputs there shall be, and the grammar of their urls.
//! Holds data and checks it; runs nothing.

mod paths;
mod redact;
mod refusal;
mod spec;
mod url;

pub use paths::{PathError, Roots};
pub use redact::{RawUrl, redact};
pub use refusal::{FieldError, Refusal};
pub use spec::{
    Delay, FileInput, FileOutput, InputUrl, OutputUrl, Pace, Protocol, RtpInput, Transform, UdpInput,
    UdpOutput,
};
