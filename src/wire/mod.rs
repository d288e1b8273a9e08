//! Sans-IO protocols: bytes and time enter, bytes and events leave. No sockets, clock, randomness or tokio.

pub mod aac;
pub mod audio;
pub mod bits;
pub mod flv;
pub mod h26x;
pub mod klv;
pub mod rtmp;
pub mod rtp;
pub mod rtsp;
pub mod srt;
pub mod ts;
