//! Sans-IO protocols: bytes and time enter, bytes and events leave. No sockets, clock, randomness or tokio.

pub mod rtp;
pub mod rtsp;
pub mod srt;
pub mod ts;
