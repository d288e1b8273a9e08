//! What leaves on a connection in one piece, made once for all connections of equal parameters.

use bytes::Bytes;

use super::{Nanos, Ticks};

/// One message of a byte stream protocol: an RTMP message in its chunks, an RTP packet in its interleaved frame. A
/// connection sends whole messages only, so that it can go on elsewhere behind any of them.
#[derive(Debug, Clone)]
pub struct Message {
    /// As it goes on the wire.
    pub bytes: Bytes,
    /// When what it carries was received.
    pub arrival: Nanos,
    /// Decoding time of what it carries.
    pub dts: Ticks,
    /// At a random access point: what a reader who begins here must be sent first (metadata, decoder configurations);
    /// may be empty. The same allocation as long as nothing changes. `None`: nobody can begin here.
    pub preface: Option<Bytes>,
}
