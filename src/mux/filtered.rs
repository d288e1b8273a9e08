//! A `ts` lane with packets taken out: datagrams of the native lane enter, filtered ones leave.

use super::Maker;
use crate::hub::{LaneWriter, Pulse};
use crate::media::{Nanos, PACKET};
use crate::wire::ts::{Analyzer, Fill, Filter, FilterSpec};

/// A `ts` lane with some packets taken out.
pub struct Filtered {
    spec: FilterSpec,
    filter: Filter,
    analyzer: Analyzer,
    writer: LaneWriter,
    /// Packets that wait until they fill a datagram (only where packets are removed).
    pack: Vec<u8>,
    pack_arrival: Nanos,
}

impl Filtered {
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
}

impl Maker for Filtered {
    fn datagram(&mut self, datagram: &[u8], arrival: Nanos) {
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

    fn flush(&mut self, oldest: Nanos) -> u32 {
        let late = !self.pack.is_empty() && self.pack_arrival < oldest;
        if late {
            self.stage(self.pack.len());
        }
        late.into()
    }

    fn waiting_since(&self) -> Option<Nanos> {
        (!self.pack.is_empty()).then_some(self.pack_arrival)
    }

    fn commit(&mut self, now: Nanos) -> bool {
        self.writer.commit(now)
    }

    fn pulses(&self, each: &mut dyn FnMut(&Pulse)) {
        each(self.writer.lane().pulse());
    }
}

impl Filtered {
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
