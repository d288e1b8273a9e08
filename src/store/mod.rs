//! The desired state: which inputs and outputs there shall be, and the grammar of their urls.
//! Holds data and checks it; runs nothing.

mod check;
mod conflict;
mod desired;
mod object;
mod paths;
mod redact;
mod refusal;
mod rtmp;
mod rtsp;
mod spec;
mod srt;
mod tak;
#[cfg(test)]
mod tests;
mod tls;
mod url;

pub use desired::Store;
pub use object::{
    Change, InputDraft, InputId, InputPatch, InputSpec, OutputDraft, OutputId, OutputPatch, OutputSpec,
    Rules, is_reader, reader_of,
};
pub use paths::{PathError, Roots};
pub use redact::{RawUrl, redact, redact_stream_id};
pub use refusal::{FieldError, Refusal};
pub use rtmp::{RtmpDial, RtmpEnd, RtmpInput, RtmpListen, RtmpOutput};
pub use rtsp::{Carrier, Payload, RtspDial, RtspEnd, RtspGroup, RtspInput, RtspListen, RtspOutput};
pub use spec::{
    Container, Delay, FileInput, FileOutput, InputUrl, Lag, OutputUrl, Pace, Protocol, RtpInput, Transform,
    UdpInput, UdpOutput,
};
pub use srt::{
    CipherMode, Credentials, GroupKind, KeyLength, Secret, SrtBandwidth, SrtCrypto, SrtDial, SrtEnd,
    SrtGroup, SrtInput, SrtLink, SrtListen, SrtNode, SrtOutput, Takeover,
};
pub use tak::{
    CotDial, CotEnd, CotIdentity, CotOutput, CotSide, CotTls, CotUid, CotVideo, DatagramWay, KlvOutput, Shown,
};
pub use tls::TlsTrust;
pub use url::read_pid;
