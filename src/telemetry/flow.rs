//! Counters and gauges of a connection that carries messages over TCP, or RTP that a TCP connection controls. Filled by
//! the thread that moves the data, read by control.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use serde::Serialize;

/// One connection, seen from our end.
#[derive(Debug, Default, Serialize)]
pub struct FlowStats {
    /// Messages (RTMP) or packets (RTP) sent or received.
    pub messages: AtomicU64,
    /// Bytes in them.
    pub bytes: AtomicU64,
    /// Bits per second over the last second.
    pub rate_bps: AtomicU64,
    /// Output: bytes that the peer's kernel has acknowledged; over UDP those sent before the receiver's last report that
    /// says it receives. That this moves is what `Live` means.
    pub acknowledged_bytes: AtomicU64,
    /// Output: bytes written that are not sent yet, in the kernel or before it.
    pub unsent_bytes: AtomicU64,
    /// Output: how far behind the newest message of the stream it is, in milliseconds.
    pub lag_ms: AtomicU32,
    /// Output: messages of the lane never sent, because it fell behind.
    pub skipped: AtomicU64,
    /// Output: how often it fell behind and went on at a random access point.
    pub skips: AtomicU64,
    /// Output over UDP: packets that the receiver's reports say it lost.
    pub lost: AtomicU64,
    /// Smoothed round trip time in microseconds.
    pub rtt_us: AtomicU32,
    /// Segments that TCP sent again.
    pub retransmitted: AtomicU64,
    /// Milliseconds since the Unix epoch at which media began to flow; 0 = not yet.
    pub since_ms: AtomicU64,
    /// It is encrypted (TLS).
    pub encrypted: AtomicBool,
}
