//! Counters that shards write and control reads, without locks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::dropped::DroppedTracks;
use super::flow::FlowStats;
use super::link::LinkList;
use super::session::{Connection, SessionList};
use super::skips::Skips;
use super::srt::SrtStats;
use super::tak::TakStats;

/// What one input received. Written by the shard that owns it.
#[derive(Debug, Default, Serialize)]
pub struct InputStats {
    /// Datagrams taken from the network or chunks taken from a file.
    pub datagrams: AtomicU64,
    /// Transport packets of 188 bytes written to the lane.
    pub packets: AtomicU64,
    /// Bytes of those packets.
    pub bytes: AtomicU64,
    /// Its transport stream is made here of access units, so that tracks may be left out of it.
    #[serde(skip)]
    pub is_muxed: AtomicBool,
    /// Bits per second over the last second.
    pub bitrate_bps: AtomicU64,
    /// Milliseconds since the Unix epoch of the last packet; 0 = never.
    pub last_packet_ms: AtomicU64,
    /// Datagrams that the kernel dropped because the receive buffer was full (SO_RXQ_OVFL).
    pub kernel_drops: AtomicU64,
    /// Bytes that were not part of any packet (junk between packets, lost synchronisation).
    pub junk_bytes: AtomicU64,
    /// How often the 0x47 grid was lost and found again.
    pub resyncs: AtomicU64,
    /// Gaps in the continuity counters of all PIDs (ISO/IEC 13818-1, 2.4.3.3): packets that never came.
    pub continuity_errors: AtomicU64,
    /// Datagrams from senders other than the one the input is locked to.
    pub foreign_datagrams: AtomicU64,
    /// RTP packets that never arrived.
    pub rtp_lost: AtomicU64,
    /// RTP packets that arrived out of order and were put back.
    pub rtp_reordered: AtomicU64,
    /// RTP packets that arrived twice or too late.
    pub rtp_discarded: AtomicU64,
    /// Changes of the RTP synchronisation source.
    pub rtp_ssrc_changes: AtomicU64,
    /// Receive buffer asked for, in bytes.
    pub rcvbuf_requested: AtomicU64,
    /// Receive buffer granted by the kernel, in bytes.
    pub rcvbuf_granted: AtomicU64,
    /// The SRT connection it receives from: the one it dialled, or its publisher's.
    pub srt: Connection<SrtStats>,
    /// The RTSP or RTMP connection it receives from: the one it dialled, or its publisher's.
    pub flow: Connection<FlowStats>,
    /// The links of its publisher, where that is a connection group.
    pub links: LinkList,
    /// Peers that dialled in to publish.
    pub sessions: SessionList,
}

/// What one output sent. Written by the shard that walks it, a few times a second.
#[derive(Debug, Default, Serialize)]
pub struct OutputStats {
    /// Datagrams handed to the kernel (file: chunks written).
    pub datagrams: AtomicU64,
    /// Bytes of payload in them, headers of ours not counted.
    pub bytes: AtomicU64,
    /// Bits per second over the last second.
    pub bitrate_bps: AtomicU64,
    /// Datagrams that the kernel refused to send.
    pub send_errors: AtomicU64,
    /// Datagrams of the lane that this output never tried to send: it fell behind and skipped.
    pub skipped: AtomicU64,
    /// How often it skipped.
    pub skips: AtomicU64,
    /// Why, for some peers. Taken by who tells it.
    #[serde(skip)]
    pub skip_causes: Skips,
    /// ICMP errors that came back for this output.
    pub icmp_errors: AtomicU64,
    /// Milliseconds since the Unix epoch of the last datagram sent; 0 = never.
    pub last_sent_ms: AtomicU64,
    /// Datagrams that peers acknowledged, where the protocol has a word for it.
    pub acknowledged: AtomicU64,
    /// Of `datagrams`, those of connections that need not answer: RTP over UDP. Answered as part of them.
    #[serde(skip)]
    pub unanswered: AtomicU64,
    /// Milliseconds since the Unix epoch of the last receiver report that says that RTP over UDP arrives; 0 = never.
    #[serde(skip)]
    pub last_report_ms: AtomicU64,
    /// Milliseconds since the Unix epoch of the last ICMP error; 0 = never.
    pub last_icmp_ms: AtomicU64,
    /// Transport packets per datagram when the path forced fewer than the lane has; 0 = as the lane.
    pub packets_per_datagram: AtomicU64,
    /// The SRT connection it dialled; an output that serves has sessions instead.
    pub srt: Connection<SrtStats>,
    /// The RTSP or RTMP connection it dialled; an output that serves has sessions instead.
    pub flow: Connection<FlowStats>,
    /// Its links, where it dials a connection group.
    pub links: LinkList,
    /// What it tells, where it carries what metadata say.
    pub tak: Connection<TakStats>,
    /// Peers that dialled in to read.
    pub sessions: SessionList,
    /// Tracks that it leaves out. Not a counter: it is answered beside them.
    #[serde(skip)]
    pub dropped_tracks: DroppedTracks,
}

/// What was found of the KLV of one input. Written by the shard that owns it.
#[derive(Debug, Default, Serialize)]
pub struct KlvStats {
    /// KLV packets that passed.
    pub packets: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Packets that nobody decoded: more came than is decoded, or than the decoder took.
    pub dropped: AtomicU64,
    /// Packets that are longer than is read (64 kB).
    pub oversize: AtomicU64,
    /// PES packets and units of metadata of which a part was missing.
    pub damaged: AtomicU64,
    /// PES packets that are declared as KLV and carry none.
    pub foreign: AtomicU64,
}

/// What one shard did. Written by its thread.
#[derive(Debug, Default, Serialize)]
pub struct ShardStats {
    /// Messages handed to the kernel by sendmmsg.
    pub messages: AtomicU64,
    /// Datagrams that these messages were cut into; their ratio is the mean batch.
    pub datagrams: AtomicU64,
    /// Notices about outputs that found no room in their queue.
    pub lost_notices: AtomicU64,
}

impl OutputStats {
    /// Transport packets sent.
    pub fn packets(&self) -> u64 {
        self.bytes.load(Relaxed) / 188
    }
}

/// Turns a growing byte counter into bits per second over about one second.
#[derive(Debug, Default, Clone, Copy)]
pub struct Rate {
    at: u64,
    bytes: u64,
    bps: u64,
}

impl Rate {
    /// Takes the counter's value at `now` (nanoseconds) and returns the rate in bits per second.
    pub fn update(&mut self, now: u64, bytes: u64) -> u64 {
        let elapsed = now.saturating_sub(self.at);
        if self.at == 0 {
            (self.at, self.bytes) = (now, bytes);
        } else if elapsed >= 1_000_000_000 {
            let bits = u128::from(bytes.saturating_sub(self.bytes)) * 8;
            self.bps = (bits * 1_000_000_000 / u128::from(elapsed)) as u64;
            (self.at, self.bytes) = (now, bytes);
        }
        self.bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_bits_over_the_time_that_passed() {
        let mut rate = Rate::default();
        assert_eq!(rate.update(1, 0), 0);
        assert_eq!(rate.update(500_000_001, 250_000), 0);
        assert_eq!(rate.update(2_000_000_001, 1_000_000), 4_000_000);
        assert_eq!(rate.update(3_000_000_001, 1_000_000), 0);
    }
}
