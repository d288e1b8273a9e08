//! Counters and gauges of SRT connections. Filled by the thread that moves the packets, read by control.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use serde::{Serialize, Serializer};

/// One SRT connection, seen from our end. A connection carries data one way: an output sends, an input receives.
#[derive(Debug, Default, Serialize)]
pub struct SrtStats {
    /// Data packets sent or received, each time they were.
    pub packets: AtomicU64,
    /// Bytes of payload in them.
    pub bytes: AtomicU64,
    /// Data packets counted once: sent for the first time, or received and not had before.
    pub unique_packets: AtomicU64,
    /// Bytes of payload in those.
    pub unique_bytes: AtomicU64,
    /// Data packets sent again, or received with the mark that they were.
    pub retransmitted: AtomicU64,
    /// Bytes of payload in those.
    pub retransmitted_bytes: AtomicU64,
    /// Data packets that the receiving end missed and asked for (each once, however often it asked).
    pub lost: AtomicU64,
    /// Data packets given up because their time had passed (TLPKTDROP): not sent again, or not waited for.
    pub dropped: AtomicU64,
    /// Output: datagrams of the lane never sent: out of the ring, beyond the peer's window or the bandwidth cap.
    pub skipped: AtomicU64,
    /// Input: data packets that arrived twice, or after they had been given up.
    pub discarded: AtomicU64,
    /// Input: data packets that no key opens.
    pub undecryptable: AtomicU64,
    /// Output: data packets that the peer has acknowledged. That this moves is what `Live` means.
    pub acknowledged: AtomicU64,
    /// Full acknowledgements received or sent.
    pub acks: AtomicU64,
    /// Loss reports received or sent.
    pub naks: AtomicU64,
    /// Bits of payload per second sent or received over the last second, retransmits included.
    pub rate_bps: AtomicU64,
    /// Estimated capacity of the link in bits per second; 0 = not known.
    pub capacity_bps: AtomicU64,
    /// Milliseconds since the Unix epoch at which the handshake was done; 0 = not yet.
    pub since_ms: AtomicU64,
    /// Milliseconds since the Unix epoch of the last full acknowledgement; 0 = never.
    pub last_ack_ms: AtomicU64,
    /// Round-trip time in microseconds, smoothed.
    pub rtt_us: Spread,
    /// Variance of the round-trip time in microseconds, smoothed (draft-sharabayko-srt-01, 4.10).
    pub rtt_var_us: AtomicU32,
    /// Output: how much time lies between the oldest packet that is not acknowledged and the newest, in
    /// milliseconds. Input: how much time lies in the receive buffer.
    pub buffer_ms: Spread,
    /// Data packets sent and not acknowledged, or received and not delivered.
    pub in_flight: AtomicU32,
    /// Data packets that the receiving end still has room for.
    pub window: AtomicU32,
    /// Time from sending to delivery that both ends agreed on for this direction, in milliseconds.
    pub latency_ms: AtomicU32,
    /// Input: how far the peer's clock has drifted from ours, in microseconds.
    pub drift_us: AtomicI32,
    /// How often the key was changed.
    pub key_refreshes: AtomicU32,
    /// How the payload is encrypted.
    pub encryption: EncryptionCell,
    /// Version of the peer's library, as its handshake says.
    pub peer_version: VersionCell,
}

/// A gauge over the life of a connection. Written by one thread; a reader may see two writings mixed.
#[derive(Debug, Default, Serialize)]
pub struct Spread {
    /// As it is.
    pub last: AtomicU32,
    /// The least it has been.
    pub min: AtomicU32,
    /// Its mean.
    pub avg: AtomicU32,
    /// The most it has been.
    pub max: AtomicU32,
}

impl Spread {
    /// Writes all four.
    pub fn set(&self, last: u32, min: u32, avg: u32, max: u32) {
        for (cell, value) in [(&self.last, last), (&self.min, min), (&self.avg, avg), (&self.max, max)] {
            cell.store(value, Relaxed);
        }
    }
}

/// How the payload of a connection is encrypted. The words of the API are lower case: `aes_128_ctr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
#[expect(missing_docs, reason = "ciphers by their names")]
pub enum Encryption {
    /// Not at all.
    #[default]
    None,
    Aes128Ctr,
    Aes192Ctr,
    Aes256Ctr,
    Aes128Gcm,
    Aes192Gcm,
    Aes256Gcm,
    /// The peer encrypts and we have no passphrase, or the other way round.
    NoSecret,
    /// The passphrases differ.
    BadSecret,
}

impl Encryption {
    const ALL: [Self; 9] = [
        Self::None,
        Self::Aes128Ctr,
        Self::Aes192Ctr,
        Self::Aes256Ctr,
        Self::Aes128Gcm,
        Self::Aes192Gcm,
        Self::Aes256Gcm,
        Self::NoSecret,
        Self::BadSecret,
    ];

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Aes128Ctr => "aes_128_ctr",
            Self::Aes192Ctr => "aes_192_ctr",
            Self::Aes256Ctr => "aes_256_ctr",
            Self::Aes128Gcm => "aes_128_gcm",
            Self::Aes192Gcm => "aes_192_gcm",
            Self::Aes256Gcm => "aes_256_gcm",
            Self::NoSecret => "no_secret",
            Self::BadSecret => "bad_secret",
        }
    }
}

/// An [`Encryption`] that one thread writes and others read.
#[derive(Default)]
pub struct EncryptionCell(AtomicU8);

impl EncryptionCell {
    /// Writes it.
    pub fn store(&self, encryption: Encryption) {
        self.0.store(encryption as u8, Relaxed);
    }

    /// Reads it.
    pub fn load(&self) -> Encryption {
        Encryption::ALL.get(usize::from(self.0.load(Relaxed))).copied().unwrap_or_default()
    }
}

impl fmt::Debug for EncryptionCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}

impl Serialize for EncryptionCell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.load().as_str())
    }
}

/// A version of SRT, `0x00MMmmpp` as handshakes write it (draft-sharabayko-srt-01, 3.2.1.1.1); 0 = not known, which
/// the API writes as null, and 1.5.3 as `"1.5.3"`.
#[derive(Debug, Default)]
pub struct VersionCell(AtomicU32);

impl VersionCell {
    /// Writes it.
    pub fn store(&self, version: u32) {
        self.0.store(version, Relaxed);
    }

    /// Reads it.
    pub fn load(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl fmt::Display for VersionCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.load() {
            0 => f.write_str("unknown"),
            v => write!(f, "{}.{}.{}", v >> 16, v >> 8 & 0xff, v & 0xff),
        }
    }
}

impl Serialize for VersionCell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.load() {
            0 => serializer.serialize_none(),
            _ => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_are_small_and_readable() {
        assert!(size_of::<SrtStats>() <= 256, "{}", size_of::<SrtStats>());
        let stats = SrtStats::default();
        stats.rtt_us.set(40_000, 39_000, 41_000, 52_000);
        stats.encryption.store(Encryption::Aes256Gcm);
        stats.peer_version.store(0x0001_0503);
        let shown = serde_json::to_value(&stats).unwrap();
        assert_eq!(shown["rtt_us"]["max"], 52_000);
        assert_eq!((&shown["encryption"], &shown["peer_version"]), (&"aes_256_gcm".into(), &"1.5.3".into()));
        stats.peer_version.store(0);
        assert!(serde_json::to_value(&stats).unwrap()["peer_version"].is_null());
    }

    #[test]
    fn every_encryption_is_read_as_it_was_written() {
        let cell = EncryptionCell::default();
        for encryption in Encryption::ALL {
            cell.store(encryption);
            assert_eq!(cell.load(), encryption);
        }
    }
}
