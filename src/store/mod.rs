//! The desired state: which inputs and outputs there shall be, and the grammar of their urls.
//! Holds data and checks it; runs nothing.

mod desired;
mod paths;
mod redact;
mod refusal;
mod spec;
mod srt;
mod url;

pub use desired::{
    Change, InputDraft, InputId, InputPatch, InputSpec, OutputDraft, OutputId, OutputPatch, OutputSpec,
    Rules, Store,
};
pub use paths::{PathError, Roots};
pub use redact::{RawUrl, redact, redact_stream_id};
pub use refusal::{FieldError, Refusal};
pub use spec::{
    Delay, FileInput, FileOutput, InputUrl, OutputUrl, Pace, Protocol, RtpInput, Transform, UdpInput,
    UdpOutput,
};
pub use srt::{
    CipherMode, Credentials, KeyLength, Secret, SrtBandwidth, SrtCrypto, SrtDial, SrtEnd, SrtInput, SrtLink,
    SrtListen, SrtOutput, Takeover,
};
