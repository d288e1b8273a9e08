//! Packets of a transport stream enter, whole PES packets of one of its programs leave, with what the tables say of
//! them (ISO/IEC 13818-1, 2.4.3). Never ends: loss, jumps and new tables leave a mark on the packets they hit.

mod assembly;
mod format;
mod klv;
mod programs;

use self::assembly::{Assembly, Progress};
pub use self::format::{Elementary, Format};
pub use self::klv::{Extract, Extractor, ExtractorCounters};
pub use self::programs::Programs;
use super::packet::{Continuity, Counter, NULL_PID, PAT_PID, Packet};
use super::pes::PesHeader;
use super::psi::{Pmt, Stream};
use super::tables::Tables;

/// Takes one program of a transport stream apart.
///
/// A PES packet leaves as soon as it is known to be whole: with its last byte where PES_packet_length says which that
/// is, else when the next one starts (KLV: when its own last byte came). Where every packet of a PID that does not say its length ended
/// in a transport packet filled up with stuffing or exactly at its end, as it does with most multiplexers that fill up
/// nowhere else, the stuffing is taken as the end, too, once 64 in a row confirmed it: a picture then leaves with its
/// last packet and not with the next picture. One counterexample ends that for the PID, for good.
///
/// Of the packets of PIDs that carry nothing known only the number is kept. Memory is bounded: 64 elementary streams,
/// 8 MB for a PES packet, 32 MB for all of them.
#[derive(Debug)]
pub struct Demux {
    /// The program that was asked for; none = the first.
    wanted: Option<u16>,
    tables: Tables,
    /// Role of each PID; index into `streams` from [`STREAMS`] on.
    roles: Box<[u8; 1 << 13]>,
    pat_counter: Counter,
    pmt_counter: Counter,
    /// PATs without a PMT of the first program.
    waited: u32,
    program: Option<Pmt>,
    pmt_pid: u16,
    streams: Vec<State>,
    clock: Counter,
    held: usize,
    counters: Counters,
}

/// What a [`Demux`] hands out.
#[derive(Debug)]
pub enum Event<'a> {
    /// The program's streams from here on, in the order of its PMT.
    Program(&'a [Elementary]),
    /// A PES packet started: its header is known, the rest is to come.
    Start {
        /// Where it comes.
        pid: u16,
        /// Its header.
        header: PesHeader,
    },
    /// A PES packet is whole, or nothing more comes of it.
    Pes(Pes<'a>),
    /// A program clock reference of the program.
    Clock {
        /// In units of 1/27 MHz.
        pcr: u64,
        /// A jump of the clock was announced (discontinuity_indicator).
        announced: bool,
    },
}

/// A PES packet without its header.
#[derive(Debug, Clone, Copy)]
pub struct Pes<'a> {
    /// Where it came.
    pub pid: u16,
    /// Its header.
    pub header: PesHeader,
    /// What it carries.
    pub data: &'a [u8],
    /// Something of it is missing.
    pub damaged: bool,
    /// Bytes of `data` before the first place where packets are missing: all, where only less came than its length says.
    pub sound: usize,
    /// random_access_indicator stood on its first packet.
    pub random_access: bool,
}

/// What a [`Demux`] saw so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets, all PIDs.
    pub packets: u64,
    /// Packets with transport_error_indicator, left out.
    pub errors: u64,
    /// Scrambled packets of the program, left out.
    pub scrambled: u64,
    /// Legal duplicates, left out.
    pub duplicates: u64,
    /// Places where packets of the program are missing.
    pub losses: u64,
    /// PES packets that left whole.
    pub whole: u64,
    /// PES packets that left damaged.
    pub damaged: u64,
    /// PES packets that were given up: longer than allowed, or without a header.
    pub refused: u64,
    /// Packets of streams of the program that carry nothing known.
    pub private: u64,
    /// Packets of no stream of the program.
    pub foreign: u64,
    /// How often the program's streams changed.
    pub changes: u64,
}

#[derive(Debug)]
struct State {
    elementary: Elementary,
    counter: Counter,
    assembly: Assembly,
}

impl Demux {
    /// For this program (program_number), or for the first one of the PAT. Until ten PATs have passed without its PMT
    /// the first one is waited for; then any other that is known will do.
    pub fn new(program: Option<u16>) -> Self {
        let mut roles = Box::new([FOREIGN; 1 << 13]);
        roles[usize::from(PAT_PID)] = PAT;
        Self {
            wanted: program,
            tables: Tables::default(),
            roles,
            pat_counter: Counter::default(),
            pmt_counter: Counter::default(),
            waited: 0,
            program: None,
            pmt_pid: NULL_PID,
            streams: Vec::new(),
            clock: Counter::default(),
            held: 0,
            counters: Counters::default(),
        }
    }

    /// Takes whole packets in; those without a sync byte are left out.
    pub fn push(&mut self, datagram: &[u8], emit: &mut impl FnMut(Event<'_>)) {
        for packet in Packet::all(datagram) {
            self.packet(packet, emit);
        }
    }

    /// Nothing more comes for now: hands out pictures that only the next one would end.
    pub fn flush(&mut self, emit: &mut impl FnMut(Event<'_>)) {
        for state in &mut self.streams {
            let progress = state.assembly.finish();
            leave(state, progress, &mut self.held, &mut self.counters, emit);
        }
    }

    /// The program that is taken apart; none before its PMT came.
    pub fn program(&self) -> Option<u16> {
        self.program.as_ref().map(|pmt| pmt.program)
    }

    /// What was seen so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Sections with a wrong checksum or cut off.
    pub fn table_errors(&self) -> u64 {
        self.tables.crc_errors
    }

    fn packet(&mut self, packet: Packet<'_>, emit: &mut impl FnMut(Event<'_>)) {
        self.counters.packets += 1;
        if packet.has_error() {
            // Not even its PID is sure: the counter of the next one tells what it cost.
            self.counters.errors += 1;
            return;
        }
        let role = self.roles.get(usize::from(packet.pid())).copied().unwrap_or(FOREIGN);
        match role {
            FOREIGN => self.counters.foreign += 1,
            PAT => self.read_pat(packet, emit),
            PMT => self.read_pmt(packet, emit),
            CLOCK => {
                if self.clock.check(packet) != Continuity::Duplicate {
                    tell_clock(packet, emit);
                }
            }
            role => self.read_stream(role, packet, emit),
        }
    }

    fn read_pat(&mut self, packet: Packet<'_>, emit: &mut impl FnMut(Event<'_>)) {
        let continuity = self.pat_counter.check(packet);
        if continuity == Continuity::Duplicate {
            return;
        }
        self.waited = self.waited.saturating_add(packet.starts_unit().into());
        let outcome = self.tables.pat(packet, continuity == Continuity::Ok);
        if outcome.changed || self.program.is_none() {
            self.choose(emit);
        }
    }

    fn read_pmt(&mut self, packet: Packet<'_>, emit: &mut impl FnMut(Event<'_>)) {
        // Several PIDs may carry PMTs; only the counter of the chosen one is followed, the checksum guards the rest.
        let continuity =
            if packet.pid() == self.pmt_pid { self.pmt_counter.check(packet) } else { Continuity::Ok };
        if continuity != Continuity::Duplicate
            && self.tables.pmt(packet, continuity == Continuity::Ok, None).changed
        {
            self.choose(emit);
        }
    }

    fn read_stream(&mut self, role: u8, packet: Packet<'_>, emit: &mut impl FnMut(Event<'_>)) {
        let Some(state) = self.streams.get_mut(usize::from(role - STREAMS)) else { return };
        let continuity = state.counter.check(packet);
        if continuity == Continuity::Duplicate {
            self.counters.duplicates += 1;
            return;
        }
        if packet.has_adaptation() && state.elementary.clock {
            tell_clock(packet, emit);
        }
        let lost = continuity == Continuity::Lost;
        self.counters.losses += u64::from(lost);
        if packet.scrambling() != 0 {
            self.counters.scrambled += 1;
            state.assembly.spoil();
            return;
        }
        if state.elementary.format == Format::Other {
            self.counters.private += 1;
            return;
        }
        if lost || continuity == Continuity::Jump && !packet.starts_unit() {
            state.assembly.spoil();
        }
        let Some(payload) = packet.payload() else { return };
        if packet.starts_unit() {
            let progress = state.assembly.finish();
            leave(state, progress, &mut self.held, &mut self.counters, emit);
            let adaptation = packet.adaptation();
            state.assembly.start(adaptation.is_some_and(|a| a.is_random_access()));
        }
        let before = state.assembly.held();
        let (started, progress) = state.assembly.push(payload, packet.has_stuffing());
        self.held = self.held + state.assembly.held() - before;
        if let Some(header) = started {
            emit(Event::Start { pid: packet.pid(), header });
        }
        leave(state, progress, &mut self.held, &mut self.counters, emit);
        if self.held > HELD_MOST {
            self.held -= state.assembly.held();
            state.assembly.give_up();
            self.counters.refused += 1;
        }
    }

    /// The tables changed: decides which program it is, and follows its streams.
    fn choose(&mut self, emit: &mut impl FnMut(Event<'_>)) {
        let programs = self.tables.programs();
        let chosen = match self.wanted {
            Some(number) => programs.iter().find(|program| program.number == number),
            None => {
                let current = self.program.as_ref().map(|pmt| (pmt.program, self.pmt_pid));
                let same = programs.iter().find(|p| Some((p.number, p.pmt_pid)) == current);
                let first = programs.first().filter(|p| p.pmt.is_some() || self.waited <= PATIENCE);
                same.or(first).or_else(|| programs.iter().find(|program| program.pmt.is_some()))
            }
        };
        let next = chosen.and_then(|program| Some((program.pmt_pid, program.pmt.clone()?)));
        let pmts: Vec<u16> = self.tables.pmt_pids().collect();
        if let Some((pid, pmt)) = next {
            if self.pmt_pid != pid {
                (self.pmt_pid, self.pmt_counter) = (pid, Counter::default());
            }
            // A program whose PAT lost it for a moment, or whose PMT is yet to come again, goes on as it is.
            if self.program.as_ref().is_none_or(|known| !is_same(known, &pmt)) {
                self.counters.changes += u64::from(self.program.is_some());
                self.follow(pmt, emit);
            }
        }
        self.roles.fill(FOREIGN);
        let mut set = |pid: u16, role: u8| {
            if let Some(place) = self.roles.get_mut(usize::from(pid)) {
                *place = role;
            }
        };
        if let Some(pmt) = &self.program {
            set(pmt.pcr_pid, CLOCK);
        }
        for (index, state) in (STREAMS..).zip(&self.streams) {
            set(state.elementary.pid, index);
        }
        pmts.into_iter().for_each(|pid| set(pid, PMT));
        set(PAT_PID, PAT);
        set(NULL_PID, FOREIGN);
    }

    /// Takes over the streams of a program. One that goes on keeps what is under way; the others hand theirs out.
    fn follow(&mut self, pmt: Pmt, emit: &mut impl FnMut(Event<'_>)) {
        let mut before = std::mem::take(&mut self.streams);
        for stream in &pmt.streams {
            if self.streams.len() >= STREAMS_MOST
                || self.streams.iter().any(|s| s.elementary.pid == stream.pid)
            {
                continue;
            }
            let elementary = Elementary::new(stream, stream.pid == pmt.pcr_pid);
            let known = before.iter().position(|state| state.elementary.continues(&elementary));
            let (counter, assembly) = match known.map(|at| before.swap_remove(at)) {
                Some(state) => (state.counter, state.assembly),
                None => (Counter::default(), Assembly::new(elementary.format)),
            };
            self.streams.push(State { elementary, counter, assembly });
        }
        for mut state in before {
            let progress = state.assembly.finish();
            leave(&mut state, progress, &mut self.held, &mut self.counters, emit);
            self.held -= state.assembly.held();
        }
        self.program = Some(pmt);
        let elementary: Vec<Elementary> = self.streams.iter().map(|state| state.elementary.clone()).collect();
        emit(Event::Program(&elementary));
    }
}

/// Whether two PMTs say the same but for their version.
fn is_same(a: &Pmt, b: &Pmt) -> bool {
    let streams = |pmt: &Pmt| -> Vec<Stream> { pmt.streams.clone() };
    (a.program, a.pcr_pid) == (b.program, b.pcr_pid) && streams(a) == streams(b)
}

/// Hands out what an assembly came to, and takes its room back.
fn leave(
    state: &mut State,
    progress: Progress,
    held: &mut usize,
    counters: &mut Counters,
    emit: &mut impl FnMut(Event<'_>),
) {
    match progress {
        Progress::Open => return,
        Progress::Refused => counters.refused += 1,
        Progress::Whole | Progress::Damaged => {
            let damaged = matches!(progress, Progress::Damaged);
            *(if damaged { &mut counters.damaged } else { &mut counters.whole }) += 1;
            if let Some((header, data, random_access)) = state.assembly.packet() {
                let (pid, sound) = (state.elementary.pid, state.assembly.sound());
                emit(Event::Pes(Pes { pid, header, data, damaged, sound, random_access }));
            }
        }
    }
    *held -= state.assembly.held();
    state.assembly.clear();
}

fn tell_clock(packet: Packet<'_>, emit: &mut impl FnMut(Event<'_>)) {
    if let Some(pcr) = packet.pcr() {
        emit(Event::Clock { pcr, announced: packet.is_discontinuity() });
    }
}

const FOREIGN: u8 = 0;
const PAT: u8 = 1;
const PMT: u8 = 2;
const CLOCK: u8 = 3;
/// Role of the first stream.
const STREAMS: u8 = 4;
const STREAMS_MOST: usize = 64;
/// PATs after which another program than the first will do: at least a second.
const PATIENCE: u32 = 10;
const HELD_MOST: usize = 32 << 20;

#[cfg(test)]
mod tests;
