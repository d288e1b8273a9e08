//! Pieces of an access unit enter in the order of their packets, whole units leave. Knows where a unit begins and
//! ends, not what is in it.

use bytes::{Bytes, BytesMut};

use super::header::Header;

/// One unit that a depacketizer put together: an access unit, a frame of audio, a KLV unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// RTP timestamp, in units of the track's clock rate.
    pub timestamp: u32,
    /// Its bytes, in the form that the depacketizer names.
    pub data: Bytes,
    /// Something of it was lost on the way, or may have been.
    pub damaged: bool,
}

/// What a depacketizer had to let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Units that left with something missing.
    pub damaged: u64,
    /// Units of which nothing usable was left.
    pub dropped: u64,
    /// Payloads that break their format.
    pub malformed: u64,
    /// Units that were longer than the bound.
    pub oversized: u64,
}

/// The unit that is being put together.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub(super) bytes: BytesMut,
    pub(super) damaged: bool,
    timestamp: Option<u32>,
    /// It grew beyond the bound, and is thrown away at its end.
    oversized: bool,
    pub(super) losses: Losses,
}

impl Assembly {
    /// Tells that the packet of `header` is next and whether packets before it were lost; answers the unit that
    /// ended without a marker (its timestamp is another one).
    pub(super) fn turn(&mut self, header: &Header, lost: bool) -> Option<Unit> {
        let open = self.timestamp.is_some();
        self.damaged |= lost && open;
        let ended = match self.timestamp {
            Some(timestamp) if timestamp != header.timestamp => self.finish(),
            _ => None,
        };
        if self.timestamp.is_none() {
            self.timestamp = Some(header.timestamp);
            self.damaged = lost;
        }
        ended
    }

    /// Like [`Self::turn`] for a unit that ends with no change of timestamp: it takes the new one. Answers whether it
    /// just began.
    pub(super) fn retime(&mut self, header: &Header, lost: bool) -> bool {
        let fresh = self.timestamp.is_none();
        self.damaged |= lost;
        self.timestamp = Some(header.timestamp);
        fresh
    }

    /// True when it has begun with another timestamp than that of `header`.
    pub(super) fn differs(&self, header: &Header) -> bool {
        self.timestamp.is_some_and(|timestamp| timestamp != header.timestamp)
    }

    /// True when it has a timestamp and nothing else.
    pub(super) fn is_fresh(&self) -> bool {
        self.bytes.is_empty() && !self.oversized
    }

    /// Appends bytes, unless the unit grows beyond [`UNIT_MOST`].
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > UNIT_MOST {
            self.oversized = true;
        } else if !self.oversized {
            if self.bytes.capacity() - self.bytes.len() < bytes.len() {
                // Grows by steps that a big picture needs few of.
                self.bytes.reserve(bytes.len().max(self.bytes.len()).max(STEP));
            }
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The unit is whole: it leaves, if anything is left of it.
    pub(super) fn finish(&mut self) -> Option<Unit> {
        let timestamp = self.timestamp.take()?;
        let damaged = std::mem::take(&mut self.damaged);
        if std::mem::take(&mut self.oversized) {
            self.losses.oversized += 1;
            self.bytes = BytesMut::new();
            return None;
        }
        if self.bytes.is_empty() {
            self.losses.dropped += u64::from(damaged);
            return None;
        }
        self.losses.damaged += u64::from(damaged);
        Some(Unit { timestamp, data: self.bytes.split().freeze(), damaged })
    }

    /// Throws the unit away.
    pub(super) fn abandon(&mut self) {
        self.losses.dropped += u64::from(self.timestamp.take().is_some());
        self.bytes.clear();
        self.damaged = false;
        self.oversized = false;
    }
}

/// The longest unit in bytes: a 4K intra picture at 400 Mb/s and 25 pictures per second has 2 MB.
pub const UNIT_MOST: usize = 8 << 20;

/// Memory is taken in steps of so many bytes.
const STEP: usize = 64 << 10;
