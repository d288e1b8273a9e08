//! Any bytes enter, a panic leaves when a decoder breaks a promise. The fuzz targets and `tests/mutations.rs`
//! call the same functions. Run one with `RUSTC_BOOTSTRAP=1 cargo fuzz run ts_framer`.

pub mod cot;
pub mod klv;
pub mod media;
pub mod rewrite;
pub mod rtmp;
pub mod rtp;
pub mod rtsp;
pub mod srt;
pub mod srt_handshake;
pub mod tak;
pub mod ts;
