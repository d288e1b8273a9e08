//! Units of elementary streams with their times enter, datagrams of transport packets of one program leave (ISO/IEC
//! 13818-1; MISB ST 1402). Never waits: what time it is comes with every unit.

mod packets;
mod schedule;

use std::collections::BTreeMap;

use self::packets::{Adaptation, Parts, put_packet, put_pes_header};
use self::schedule::Schedule;
use super::packet::{NULL_PID, PACKET, PAT_PID};
use super::psi::{Pat, Pmt, PsiError, Stream, packetize};

/// What a [`Multiplexer`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// transport_stream_id.
    pub transport_stream_id: u16,
    /// program_number, 1 to 65535.
    pub program: u16,
    /// Where the PMT goes.
    pub pmt_pid: u16,
    /// Bits per second, filled up with null packets; none = as many as there are.
    pub rate: Option<u64>,
}

/// One PES packet to be.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// Where it goes.
    pub pid: u16,
    /// stream_id (table 2-22).
    pub stream_id: u8,
    /// Presentation time in units of 1/90 kHz, taken modulo 2^33.
    pub pts: Option<i64>,
    /// Decoding time, where it is another one.
    pub dts: Option<i64>,
    /// A decoder can start here: the tables come in front, in a datagram of their own making.
    pub random_access: bool,
    /// data_alignment_indicator.
    pub aligned: bool,
    /// What it carries, one behind the other.
    pub parts: &'a [&'a [u8]],
}

/// Puts one program into transport packets.
///
/// PAT and PMT leave every 90 ms and in front of places to start; the clock with every unit of its stream and otherwise
/// whenever 36 ms have passed, in a packet without payload. Seven packets make a datagram: [`Self::flush`] sends fewer.
/// At a constant rate every packet has its time, the clock is exact, and what no unit fills null packets do, up to the
/// time that the last call named. A step of the time of more than a second is announced (discontinuity_indicator).
#[derive(Debug)]
pub struct Multiplexer {
    options: Options,
    pat: Vec<u8>,
    pmt: Option<Pmt>,
    pmt_section: Vec<u8>,
    counters: BTreeMap<u16, u8>,
    schedule: Schedule,
    pack: Vec<u8>,
}

impl Multiplexer {
    /// One without a program.
    pub fn new(options: Options) -> Self {
        let pat = Pat {
            transport_stream_id: options.transport_stream_id,
            programs: vec![(options.program, options.pmt_pid)],
            ..Pat::default()
        };
        Self {
            options,
            // One program always fits.
            pat: pat.section().unwrap_or_default(),
            pmt: None,
            pmt_section: Vec::new(),
            counters: BTreeMap::new(),
            schedule: Schedule::new(options.rate),
            pack: Vec::with_capacity(PACK),
        }
    }

    /// Says what the program consists of from here on. A change counts the version up and lets the tables leave with
    /// the next unit. `pcr_pid` is the stream that brings the clock.
    ///
    /// # Errors
    /// [`PsiError::TooLong`] when it does not fit into a PMT: what was said before stays.
    pub fn describe(&mut self, streams: Vec<Stream>, pcr_pid: u16) -> Result<(), PsiError> {
        let version = match &self.pmt {
            Some(pmt) if pmt.streams == streams && pmt.pcr_pid == pcr_pid => return Ok(()),
            Some(pmt) => (pmt.version + 1) & 0x1f,
            None => 0,
        };
        let program = self.options.program;
        let pmt = Pmt { program, version, pcr_pid, descriptors: Vec::new(), streams };
        self.pmt_section = pmt.section()?;
        self.pmt = Some(pmt);
        self.schedule.force_tables();
        Ok(())
    }

    /// Writes a unit whose first byte is due at `time` (units of 1/27 MHz, on the clock of the stamps). Nothing leaves
    /// before a program was described.
    pub fn write(&mut self, unit: &Unit<'_>, time: i64, sink: &mut impl FnMut(&[u8])) {
        let Some(pcr_pid) = self.pmt.as_ref().map(|pmt| pmt.pcr_pid) else { return };
        self.advance(time, sink);
        if unit.random_access {
            // Who starts here finds the tables at the start of a datagram.
            self.flush(sink);
            self.schedule.force_tables();
        }
        self.put_tables(sink);
        let mut header = Vec::with_capacity(HEADER);
        let payload: usize = unit.parts.iter().map(|part| part.len()).sum();
        put_pes_header(unit, payload, &mut header);
        let mut parts = Parts::new(&header, unit.parts, header.len() + payload);
        let mut first = true;
        while !parts.is_empty() {
            if !first {
                // At a constant rate time passes while a long unit is written.
                self.put_due(sink);
            }
            let mut adaptation = Adaptation::default();
            if first {
                adaptation.random_access = unit.random_access;
                if unit.pid == pcr_pid {
                    (adaptation.pcr, adaptation.discontinuity) = self.schedule.take_clock();
                }
            }
            let count = self.counters.entry(unit.pid).or_default();
            put_packet(unit.pid, first, *count, adaptation, &mut parts, &mut self.pack);
            *count = (*count + 1) & 0x0f;
            self.passed(sink);
            first = false;
        }
    }

    /// Nothing is to be written up to `time`: clock and tables go on, and null packets at a constant rate.
    pub fn advance(&mut self, time: i64, sink: &mut impl FnMut(&[u8])) {
        if self.pmt.is_none() {
            return;
        }
        self.schedule.begin(time);
        while self.schedule.step(time) {
            if !self.put_due(sink) && self.schedule.is_constant() {
                self.pack.extend_from_slice(&NULL);
                self.passed(sink);
            }
        }
    }

    /// Sends the packets that wait for their datagram to fill.
    pub fn flush(&mut self, sink: &mut impl FnMut(&[u8])) {
        if !self.pack.is_empty() {
            sink(&self.pack);
            self.pack.clear();
        }
    }

    /// Packets that wait for their datagram to fill.
    pub fn pending(&self) -> usize {
        self.pack.len() / PACKET
    }

    /// The time of the last clock, in units of 1/27 MHz; none before the first.
    pub fn clock(&self) -> Option<i64> {
        self.schedule.clock()
    }

    /// Puts the tables and the clock that are due, and answers whether there were any.
    fn put_due(&mut self, sink: &mut impl FnMut(&[u8])) -> bool {
        let tables = self.put_tables(sink);
        let due = self.schedule.is_clock_due();
        if due {
            let pid = self.pmt.as_ref().map_or(NULL_PID, |pmt| pmt.pcr_pid);
            let (pcr, discontinuity) = self.schedule.take_clock();
            // Without payload the counter stands still at that of the packet before (2.4.3.3).
            let count = self.counters.get(&pid).map_or(0x0f, |count| count.wrapping_sub(1) & 0x0f);
            let adaptation = Adaptation { pcr, discontinuity, random_access: false };
            put_packet(pid, false, count, adaptation, &mut Parts::new(&[], &[], 0), &mut self.pack);
            self.passed(sink);
        }
        tables || due
    }

    fn put_tables(&mut self, sink: &mut impl FnMut(&[u8])) -> bool {
        if !self.schedule.take_tables() {
            return false;
        }
        for (pid, pmt) in [(PAT_PID, false), (self.options.pmt_pid, true)] {
            let mut count = self.counters.get(&pid).copied().unwrap_or(0);
            let mut packets = Vec::with_capacity(PACK);
            let section = if pmt { &self.pmt_section } else { &self.pat };
            packetize(section, pid, &mut count, |packet| packets.extend_from_slice(packet));
            self.counters.insert(pid, count);
            for packet in packets.chunks_exact(PACKET) {
                self.pack.extend_from_slice(packet);
                self.passed(sink);
            }
        }
        true
    }

    /// A packet was put.
    fn passed(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.schedule.packet();
        if self.pack.len() >= PACK {
            self.flush(sink);
        }
    }
}

/// Seven packets: the most that fit into a datagram on Ethernet.
const PACK: usize = 7 * PACKET;
/// Longest PES header that is written.
const HEADER: usize = 19;

/// A null packet (2.4.3.3, table 2-3).
const NULL: [u8; PACKET] = {
    let mut packet = [0xff; PACKET];
    packet[0] = super::packet::SYNC;
    packet[1] = (NULL_PID >> 8) as u8;
    packet[3] = 0x10;
    packet
};

#[cfg(test)]
mod tests;
