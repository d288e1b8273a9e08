//! Makes derived lanes: datagrams or frames of a native lane enter, filtered datagrams, frames and transport streams
//! leave, once per distinct form and shared by all its readers. Never touches the native lane.

mod demuxer;
mod muxer;

use crate::hub::LaneWriter;
use crate::media::{Nanos, PACKET};
use crate::wire::ts::{Analyzer, Fill, Filter, FilterSpec};

pub use demuxer::{Damage, Demuxer, DemuxerCounters, DemuxerOptions};
pub use muxer::{Muxer, MuxerCounters, MuxerOptions, Unsupported};

/// A `ts` lane with some packets taken out.
pub struct Derived {
    spec: FilterSpec,
    filter: Filter,
    analyzer: Analyzer,
    writer: LaneWriter,
    /// Packets that wait until they fill a datagram (only where packets are removed).
    pack: Vec<u8>,
    pack_arrival: Nanos,
}

impl Derived {
    /// Fills `writer`'s lane with what `spec` leaves of a stream.
    pub fn new(spec: FilterSpec, writer: LaneWriter) -> Self {
        Self {
            filter: Filter::new(spec.clone()),
            spec,
            analyzer: Analyzer::new(),
            writer,
            pack: Vec::new(),
            pack_arrival: 0,
        }
    }

    /// What it leaves of the stream.
    pub fn spec(&self) -> &FilterSpec {
        &self.spec
    }

    /// The lane's writer.
    pub fn writer(&self) -> &LaneWriter {
        &self.writer
    }

    /// Takes a datagram of the native lane in. Readers see the result after `commit`.
    pub fn push(&mut self, datagram: &[u8], arrival: Nanos) {
        if self.pack.is_empty() {
            self.pack_arrival = arrival;
        }
        self.filter.push(datagram, &mut self.pack);
        match self.spec.fill {
            // One datagram for one: the boundaries and the bit rate stay as they are.
            Fill::Null => self.stage(self.pack.len()),
            Fill::Remove => {
                while self.pack.len() >= FULL {
                    self.stage(FULL);
                    self.pack_arrival = arrival;
                }
            }
        }
    }

    /// Sends an unfilled datagram on that has waited since before `oldest`, and answers whether there was one.
    pub fn flush(&mut self, oldest: Nanos) -> bool {
        let late = !self.pack.is_empty() && self.pack_arrival < oldest;
        if late {
            self.stage(self.pack.len());
        }
        late
    }

    /// Since when packets wait for their datagram to fill.
    pub fn waiting_since(&self) -> Option<Nanos> {
        (!self.pack.is_empty()).then_some(self.pack_arrival)
    }

    /// Shows readers what was made; `false` = try again.
    pub fn commit(&mut self, now: Nanos) -> bool {
        self.writer.commit(now)
    }

    fn stage(&mut self, length: usize) {
        if length == 0 {
            return;
        }
        let datagram = &self.pack[..length];
        let position = self.writer.next_position();
        let seen = self.analyzer.datagram(position, datagram, self.pack_arrival);
        self.writer.stage(datagram, self.pack_arrival, seen.pcr);
        if let Some(access) = seen.random_access {
            self.writer.mark_random_access(access);
        }
        self.pack.drain(..length);
    }
}

const FULL: usize = 7 * PACKET;
