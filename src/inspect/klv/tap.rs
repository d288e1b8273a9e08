//! Datagrams and frames of a stream enter on its shard, KLV packets leave through a bounded queue. Never waits: what finds
//! no room is counted and gone.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::decoder::Decoder;
use super::metadata::Metadata;
use crate::media::{Codec, Frame, Nanos};
use crate::wire::klv::{PACKET_MAX, PREFIX, Unit, split};
use crate::wire::ts::demux::{Extract, Extractor};
use crate::wire::ts::metadata::Carriage as Packed;
use crate::wire::ts::pes::PTS_WRAP;

/// A KLV packet that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Key, length and value, as they came; at most [`PACKET_MAX`]. May be cut off or damaged: a decoder says so.
    pub bytes: Bytes,
    /// When its last byte arrived, on the clock of the shards.
    pub arrival: Nanos,
    /// The same on the wall clock.
    pub wall: SystemTime,
    /// Its presentation time in units of 1/90 kHz, modulo 2^33; none where it came without one.
    pub pts: Option<u64>,
    /// PID in the source's transport stream, or number of the track.
    pub track: u16,
    /// program_number in the source's transport stream.
    pub program: Option<u16>,
    /// stream_type of its PMT entry.
    pub stream_type: Option<u8>,
    /// stream_id of its PES packet.
    pub stream_id: Option<u8>,
    /// How the tables say that it travels; none where they do not say that it is KLV.
    pub declared: Option<Carriage>,
    /// How it travelled.
    pub carriage: Carriage,
    /// Which source of the input it came from: grows by one whenever another takes over, or the same comes back.
    pub source: u32,
}

/// How KLV travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carriage {
    /// Bare in PES packets (MISB ST 1402, asynchronous).
    Asynchronous,
    /// In metadata access unit cells (MISB ST 1402, synchronous).
    Synchronous,
    /// In RTP packets of its own (RFC 6597).
    Rtp,
}

/// Clocks that are read when a packet passes.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// The clock of the shards.
    pub now: fn() -> Nanos,
    /// The wall clock.
    pub wall: fn() -> SystemTime,
}

/// Takes KLV out of a stream, on its shard.
#[derive(Debug)]
pub struct Tap {
    extractor: Extractor,
    outlet: Outlet,
}

/// Decodes what a [`Tap`] hands over. Its end closes the [`Metadata`].
#[derive(Debug)]
pub struct Reader {
    sightings: mpsc::Receiver<Sighting>,
    decoder: Decoder,
    metadata: Arc<Metadata>,
    /// How long packets wait where nobody hears what they say.
    pub(super) pause: Duration,
}

/// Where sightings go.
#[derive(Debug)]
struct Outlet {
    queue: mpsc::Sender<Sighting>,
    metadata: Arc<Metadata>,
    clocks: Clocks,
    source: u32,
    allowance: Allowance,
}

/// What a stream may have decoded.
#[derive(Debug, Default)]
struct Allowance {
    /// When what was allowed so far is paid for.
    paid: Nanos,
}

/// A tap for one stream, and the reader behind it, which shows what it finds in `metadata`.
pub fn tap(metadata: Arc<Metadata>, clocks: Clocks) -> (Tap, Reader) {
    // Overflow policy: the packet is lost and counted.
    let (queue, sightings) = mpsc::channel(QUEUE);
    let outlet =
        Outlet { queue, metadata: Arc::clone(&metadata), clocks, source: 0, allowance: Allowance::default() };
    let reader = Reader { sightings, decoder: Decoder::default(), metadata, pause: PAUSE };
    (Tap { extractor: Extractor::default(), outlet }, reader)
}

impl Tap {
    /// Another source feeds the stream from here on, or the same anew.
    pub fn begin(&mut self) {
        self.extractor = Extractor::default();
        self.outlet.source = self.outlet.source.wrapping_add(1);
    }

    /// The source is gone.
    pub fn end(&mut self, arrival: Nanos) {
        let outlet = &mut self.outlet;
        self.extractor.flush(&mut |extract| outlet.extract(&extract, arrival));
    }

    /// Looks at a datagram of whole transport packets.
    pub fn datagram(&mut self, datagram: &[u8], arrival: Nanos) {
        let outlet = &mut self.outlet;
        self.extractor.push(datagram, &mut |extract| outlet.extract(&extract, arrival));
    }

    /// Looks at an access unit of a source that gives those.
    pub fn frame(&mut self, frame: &Frame) {
        let Some(track) = frame.track().filter(|track| track.codec == Codec::Klv) else { return };
        let pts = Some(frame.pts.rem_euclid(PTS_WRAP as i64) as u64);
        for packet in split(&frame.data).map(Unit::bytes).filter(|packet| packet.starts_with(&PREFIX)) {
            self.outlet.hand_over(packet, frame.arrival, |bytes, wall, source| Sighting {
                bytes,
                arrival: frame.arrival,
                wall,
                pts,
                track: track.id,
                program: None,
                stream_type: None,
                stream_id: None,
                declared: Some(Carriage::Rtp),
                carriage: Carriage::Rtp,
                source,
            });
        }
    }

    /// Whether somebody subscribed to what it shows.
    pub fn is_heard(&self) -> bool {
        self.outlet.metadata.is_heard()
    }

    /// Publishes counters.
    pub fn publish(&self) {
        let (counters, stats) = (self.extractor.counters(), self.outlet.metadata.stats());
        stats.damaged.store(counters.damaged + counters.broken, Relaxed);
        stats.foreign.store(counters.foreign, Relaxed);
    }
}

impl Reader {
    /// Decodes until the tap is gone: at once while somebody hears it, else what came in a while in one go, since a wake
    /// and cold caches cost many times what a packet does.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.sightings.recv_many(&mut batch, QUEUE).await > 0 {
            for sighting in batch.drain(..) {
                self.metadata.show(self.decoder.take(sighting));
            }
            self.metadata.heard_within(self.pause).await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.metadata.close();
    }
}

impl Outlet {
    fn extract(&mut self, extract: &Extract<'_>, arrival: Nanos) {
        self.hand_over(extract.bytes, arrival, |bytes, wall, source| Sighting {
            bytes,
            arrival,
            wall,
            pts: extract.pts,
            track: extract.pid,
            program: Some(extract.program),
            stream_type: Some(extract.stream_type),
            stream_id: Some(extract.stream_id),
            declared: extract.declared.map(Carriage::from),
            carriage: extract.carriage.into(),
            source,
        });
    }

    fn hand_over(
        &mut self,
        packet: &[u8],
        arrival: Nanos,
        make: impl FnOnce(Bytes, SystemTime, u32) -> Sighting,
    ) {
        let stats = self.metadata.stats();
        stats.packets.fetch_add(1, Relaxed);
        stats.bytes.fetch_add(packet.len() as u64, Relaxed);
        if packet.len() > PACKET_MAX {
            stats.oversize.fetch_add(1, Relaxed);
            return;
        }
        // Room first, so that what is lost costs no copy.
        let allowed = self.allowance.take(packet.len(), arrival);
        let Some(room) = allowed.then(|| self.queue.try_reserve().ok()).flatten() else {
            stats.dropped.fetch_add(1, Relaxed);
            return;
        };
        let age = (self.clocks.now)().saturating_sub(arrival);
        let wall = (self.clocks.wall)().checked_sub(Duration::from_nanos(age));
        let wall = wall.unwrap_or(SystemTime::UNIX_EPOCH);
        room.send(make(Bytes::copy_from_slice(packet), wall, self.source));
    }
}

impl Allowance {
    /// Whether a packet of this many bytes may still be decoded: a flood of them shall not take a core.
    fn take(&mut self, bytes: usize, now: Nanos) -> bool {
        if self.paid.saturating_sub(now) > BURST {
            return false;
        }
        self.paid = self.paid.max(now) + PER_PACKET + PER_BYTE * bytes as Nanos;
        true
    }
}

impl Carriage {
    /// A name for machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asynchronous => "asynchronous",
            Self::Synchronous => "synchronous",
            Self::Rtp => "rtp",
        }
    }
}

impl From<Packed> for Carriage {
    fn from(packed: Packed) -> Self {
        match packed {
            Packed::Bare => Self::Asynchronous,
            Packed::Cells => Self::Synchronous,
        }
    }
}

/// Packets that wait for their decoder: those of a burst and of a pause.
const QUEUE: usize = 1024;
const PAUSE: Duration = Duration::from_millis(200);
/// A thousand packets a second, or 2.5 MB of them, are decoded: twenty times what a busy sensor sends.
const PER_PACKET: Nanos = 1_000_000;
const PER_BYTE: Nanos = 400;
/// What may come at once, after a silence.
const BURST: Nanos = 500_000_000;
