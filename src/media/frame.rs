//! One access unit of one track, with its times: what a `frames` lane holds.

use std::sync::Arc;

use bytes::Bytes;

use super::{Nanos, Track, Tracks};

/// A time on the timeline of a stream, in units of 1/90 kHz. Never wraps: 33-bit and 32-bit counters were unwrapped
/// on their way in, and all tracks of a stream share one origin.
pub type Ticks = i64;

/// Ticks in a second.
pub const TICKS_PER_SECOND: Ticks = 90_000;

/// One access unit: a picture, a frame of audio, a KLV unit.
#[derive(Debug, Clone)]
pub struct Frame {
    /// All tracks of the stream as they are from this frame on; the same allocation as long as nothing changes.
    pub tracks: Arc<Tracks>,
    /// Which of them it belongs to, as an index.
    pub track: usize,
    /// When it is presented.
    pub pts: Ticks,
    /// When it is decoded: not after `pts`, and never goes back within a track.
    pub dts: Ticks,
    /// A decoder can start here: an IDR or IRAP picture, a recovery point; every frame of audio and metadata.
    pub random_access: bool,
    /// When its last byte was received.
    pub arrival: Nanos,
    /// H.264 and H.265: its NAL units, each behind its length in four bytes, most significant first, without access
    /// unit delimiters and filler, parameter sets where they came. AAC: one raw access unit without ADTS or LATM. MPEG
    /// audio, AC-3: whole frames with their headers. Opus: one packet. AV1: one temporal unit of OBUs with sizes,
    /// without temporal delimiters. G.711: samples. KLV: whole KLV packets, without metadata AU cells.
    pub data: Bytes,
}

impl Frame {
    /// The track that it belongs to.
    pub fn track(&self) -> Option<&Track> {
        self.tracks.0.get(self.track)
    }
}
