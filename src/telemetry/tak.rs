//! Counters of an output that tells what metadata say. Filled by the task that tells, read by control; they go on over
//! redials.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

/// What one such output told, heard and found.
#[derive(Debug, Default, Serialize)]
pub struct TakStats {
    /// Version of the TAK protocol that is sent: 0 = XML, 1 = protobuf.
    pub version: AtomicU32,
    /// Metadata packets that came for it.
    pub packets: AtomicU64,
    /// Metadata packets that it was too slow to take.
    pub lost: AtomicU64,
    /// Packets or events longer than a datagram, which were not sent.
    pub oversize: AtomicU64,
    /// Messages heard of others.
    pub heard: AtomicU64,
    /// Messages of others that cannot be read.
    pub malformed: AtomicU64,
    /// Peers that are heard in the mesh.
    pub peers: AtomicU32,
    /// Negotiations of the protocol that the server did not answer in time.
    pub negotiation_timeouts: AtomicU64,
    /// It stands in the server's list of videos.
    pub registered: AtomicBool,
    /// When the certificate that is shown expires, seconds since the Unix epoch; 0 = none is shown.
    pub certificate_expires: AtomicU64,
    /// What is to be said of certificates.
    pub warnings: Warnings,
    /// Milliseconds since the Unix epoch of the last metadata with something to tell; 0 = never.
    pub told_ms: AtomicU64,
}

/// Sentences for an operator.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Shows these in place of the last ones; whether they are others.
    pub fn show(&self, warnings: Vec<String>) -> bool {
        let mut shown = self.0.lock();
        let others = *shown != warnings;
        *shown = warnings;
        others
    }

    /// Those that hold now.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

impl Serialize for Warnings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all().serialize(serializer)
    }
}
