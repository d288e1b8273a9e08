//! Sans-IO protocols: bytes and time enter, bytes and events leave. No sockets, clock, randomness or tokio.

pub mod klv;
pub mod rtp;
pub mod srt;
pub mod ts;
