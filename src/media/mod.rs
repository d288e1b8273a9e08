//! What travels through the house: datagrams of transport packets, and access units of tracks, with their times.
//! Holds no policy.

mod frame;
mod message;
mod timeline;
mod track;

use bytes::Bytes;

pub use frame::{Frame, TICKS_PER_SECOND, Ticks};
pub use message::Message;
pub use timeline::{DecodingTimes, Stamps, Timeline, Unwrap};
pub use track::{AudioFormat, Codec, Kind, Setup, Track, TrackId, Tracks};

/// Nanoseconds on the shard's monotonic clock (`CLOCK_MONOTONIC`).
pub type Nanos = u64;

/// Length of a transport packet in bytes (ISO/IEC 13818-1, 2.4.3.2).
pub const PACKET: usize = 188;

/// One datagram of a `ts` lane: whole transport packets that leave together, as they arrived together.
#[derive(Debug, Clone)]
pub struct Datagram {
    /// Whole packets of 188 bytes. Points into a refcounted block that many datagrams share.
    pub bytes: Bytes,
    /// When its first byte was received.
    pub arrival: Nanos,
    /// Programme clock at its first byte in units of 1/27 MHz, extrapolated from the last PCR before it;
    /// `None` until two PCRs gave a rate. Wraps at 2^33 × 300.
    pub pcr: Option<u64>,
}
