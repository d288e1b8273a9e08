//! Datagrams of whole packets with their arrival enter; programme time, places to start and a report on the stream's
//! health leave. Never changes a packet, and allocates only when a PID or table is new, or for samples.

use super::clock::{Clock, LATE, Step};
use super::codec::{Codec, Kind};
use super::descriptor::describe;
use super::packet::{Continuity, Counter, NULL_PID, PACKET, PAT_PID, Packet};
use super::pes::PesHeader;
use super::random_access::RandomAccess;
use super::report::{PidReport, ProgramReport, Report, StreamReport};
use super::sample::{Choice, Sample, Sampler};
use super::tables::{Outcome, Tables};
use super::vitals::{PidWatch, Slip, Vital, Watch};

/// Follows one transport stream.
#[derive(Debug)]
pub struct Analyzer {
    /// Index into `pids` for each PID; `FREE` = not seen. Flat, because every packet asks.
    slots: Box<[u8; 1 << 13]>,
    pids: Vec<Pid>,
    tables: Tables,
    access: RandomAccess,
    clock_pid: Option<u16>,
    /// The last time said, so that time does not step back when the rate was wrong.
    told: Option<u64>,
    packets: u64,
    errors: u64,
    untracked: u64,
    joins: u64,
    window: Window,
    watch: Watch,
    /// Errors of sections that the rules were told of.
    crc_told: u64,
    sampler: Option<Box<Sampler>>,
    /// The packet at which the source plays anew.
    seam: Option<u64>,
}

/// What a datagram says to the lane that keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Programme time at the datagram's first byte in units of 1/27 MHz, from the clock of the first program;
    /// none until two PCRs gave a rate.
    pub pcr: Option<u64>,
    /// A picture at which a decoder can start was seen: the position of the datagram with the PAT to start from.
    /// Said once for each PAT.
    pub random_access: Option<u64>,
}

/// What is kept about a PID.
#[derive(Debug)]
struct Pid {
    pid: u16,
    role: Role,
    counter: Counter,
    clock: Option<Box<Clock>>,
    packets: u64,
    lost: u64,
    jumps: u64,
    duplicates: u64,
    errors: u64,
    scrambled: u64,
    watch: PidWatch,
    choice: Choice,
    /// `packets` when the window began, and bits per second in the one before.
    window_packets: u64,
    bitrate: u64,
}

/// What the tables say of a PID.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    named: bool,
    clock: bool,
    kind: Option<Kind>,
    choice: Choice,
}

/// What the packets of a PID are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Null,
    Pat,
    Pmt,
    Pictures,
    Other,
}

/// The second over which bit rates are taken.
#[derive(Debug, Default)]
struct Window {
    since: Option<u64>,
    /// Whether a whole one has passed.
    full: bool,
    packets: u64,
    bitrate: u64,
}

impl Default for Analyzer {
    fn default() -> Self {
        Self::new()
    }
}

impl Analyzer {
    /// One that has seen nothing.
    pub fn new() -> Self {
        let mut analyzer = Self {
            slots: Box::new([FREE; 1 << 13]),
            pids: Vec::new(),
            tables: Tables::default(),
            access: RandomAccess::default(),
            clock_pid: None,
            told: None,
            packets: 0,
            errors: 0,
            untracked: 0,
            joins: 0,
            window: Window::default(),
            watch: Watch::default(),
            crc_told: 0,
            sampler: None,
            seam: None,
        };
        analyzer.slot(PAT_PID);
        analyzer
    }

    /// Keeps copies of the packets that rules about tables, metadata and time stamps need, for [`Self::take_sample`].
    pub fn keep_sample(&mut self) {
        self.sampler.get_or_insert_default();
    }

    /// What was kept since the last time; none when there is nothing.
    pub fn take_sample(&mut self) -> Option<Sample> {
        self.sampler.as_mut()?.take()
    }

    /// What the framer in front threw away so far: bytes that are no packets, and losses of the grid.
    pub fn framing(&mut self, junk_bytes: u64, resyncs: u64) {
        self.watch.framing(junk_bytes, resyncs);
    }

    /// Whoever makes the stream says that, so many packets behind those that came, it plays anew from its beginning what it
    /// played before, with clocks and counters that go on. Metadata and time stamps of pictures are not held against those
    /// in front of it.
    pub fn seam(&mut self, ahead: u64) {
        self.seam = Some(self.packets + ahead);
    }

    /// Takes the next datagram: `position` is its index in the lane, `arrival` in nanoseconds on any clock that
    /// does not step. Bytes that are no whole packets are left out.
    pub fn datagram(&mut self, position: u64, bytes: &[u8], arrival: u64) -> Inspection {
        self.roll(arrival);
        if self.watch.datagram(arrival) {
            self.look(true);
        }
        let start = self.packets * PACKET as u64;
        let mut random_access = None;
        for packet in Packet::all(bytes) {
            if let Some(join) = self.packet(packet, position, arrival) {
                random_access = Some(join);
                self.joins += 1;
            }
        }
        if self.packets > 0 {
            self.watch.vitals.judge(Vital::Continuity);
            self.watch.vitals.judge(Vital::Transport);
        }
        Inspection { pcr: self.time_at(start), random_access }
    }

    /// What is known at `now`, in nanoseconds on the clock of the arrivals. Bit rates are those of the last whole
    /// second, or since the start before there is one; a stream that has stopped sinks to 0.
    pub fn report(&self, now: u64) -> Report {
        let elapsed = self.window.since.map_or(0, |since| now.saturating_sub(since));
        let rate = |last: u64, packets: u64| {
            if self.window.full && elapsed < 2 * SECOND { last } else { bits_per_second(packets, elapsed) }
        };
        let mut pids: Vec<_> = self.pids.iter().filter(|p| p.packets > 0 || p.errors > 0).collect();
        pids.sort_unstable_by_key(|p| p.pid);
        let pids: Vec<_> = pids
            .into_iter()
            .map(|p| self.report_pid(p, rate(p.bitrate, p.packets - p.window_packets)))
            .collect();
        let null = pids.iter().find(|p| p.pid == NULL_PID);
        let pat = self.tables.pat_sections().first();
        Report {
            packets: self.packets,
            bitrate_bps: rate(self.window.bitrate, self.packets - self.window.packets),
            null_packets: null.map_or(0, |p| p.packets),
            continuity_errors: pids.iter().map(|p| p.continuity_errors).sum(),
            duplicate_packets: pids.iter().map(|p| p.duplicate_packets).sum(),
            scrambled_packets: pids.iter().map(|p| p.scrambled_packets).sum(),
            transport_errors: self.errors,
            psi_errors: self.tables.crc_errors,
            untracked_packets: self.untracked,
            random_access_points: self.joins,
            transport_stream_id: pat.map(|p| p.transport_stream_id),
            pat_version: pat.map(|p| p.version),
            pat_changes: self.tables.pat_changes,
            network_pid: pat.and_then(|p| p.nit_pid),
            klv_declared: self.tables.declare_klv(),
            programs: self.report_programs(),
            pids,
            vitals: self.watch.vitals,
        }
    }

    /// Returns a position to start from when this packet shows one.
    fn packet(&mut self, packet: Packet<'_>, position: u64, arrival: u64) -> Option<u64> {
        let index = self.packets;
        self.packets += 1;
        if self.seam == Some(index) {
            self.seam = None;
            self.sampler.iter_mut().for_each(|sampler| sampler.seam());
        }
        if packet.has_error() {
            // Its PID may be wrong: no PID is made of it, and nothing in it is believed.
            self.errors += 1;
            self.watch.note(Vital::Transport, Some(packet.pid()), Slip::Error);
            let slot = self.slots[usize::from(packet.pid())];
            if let Some(state) = self.pids.get_mut(usize::from(slot)) {
                state.errors += 1;
            }
            return None;
        }
        let Some(slot) = self.slot(packet.pid()) else {
            self.untracked += 1;
            return None;
        };
        let state = self.pids.get_mut(slot)?;
        state.packets += 1;
        if state.role == Role::Null {
            return None;
        }
        state.scrambled += u64::from(packet.scrambling() != 0);
        let continuity = state.counter.check(packet);
        match continuity {
            Continuity::Ok => {}
            Continuity::Duplicate => {
                state.duplicates += 1;
                return None;
            }
            Continuity::Jump => state.jumps += 1,
            Continuity::Lost => {
                state.lost += 1;
                self.watch.note(Vital::Continuity, Some(packet.pid()), Slip::Lost);
            }
        }
        let mut clock = None;
        if packet.has_adaptation()
            && let Some(pcr) = packet.pcr()
        {
            let jump = packet.is_discontinuity();
            // A PCR tells the time of the byte that holds the last bit of its base (2.4.2.2).
            let byte = index * PACKET as u64 + PCR_BYTE;
            let step = state.clock.get_or_insert_default().observe(pcr, byte, arrival, jump);
            clock = state.watch.clock.then_some((step, byte, pcr));
        }
        let starts = state.watch.timed && packet.starts_unit() && packet.scrambling() == 0;
        if let Some(sampler) = &mut self.sampler {
            let whole = continuity != Continuity::Lost;
            sampler.offer(packet, &mut state.choice, (whole, clock.is_some()), arrival);
        }
        let (role, whole) = (state.role, continuity == Continuity::Ok);
        if let Some((step, byte, pcr)) = clock {
            self.clock(packet, step, (byte, pcr), arrival);
        }
        // behind the clock: a PTS in the packet of its jump counts on the new one
        if starts
            && let Some(pts) = packet.payload().and_then(PesHeader::parse).and_then(|header| header.pts)
            && let Some(state) = self.pids.get_mut(slot)
        {
            self.watch.pts(packet.pid(), &mut state.watch, pts);
        }
        match role {
            Role::Other | Role::Null => {}
            Role::Pictures => return self.access.packet(packet, whole),
            Role::Pat => {
                let outcome = self.tables.pat(packet, whole);
                if outcome.pat_changed {
                    self.access.forget();
                }
                if packet.starts_unit() {
                    self.access.pat(position);
                }
                self.table(packet, Vital::Pat, "PAT");
                self.follow(outcome);
            }
            Role::Pmt => {
                let outcome = self.tables.pmt(packet, whole, self.access.last_pat());
                self.table(packet, Vital::Pmt, "PMT");
                self.follow(outcome);
                if let Some(pat) = outcome.target_pmt {
                    self.access.pmt(pat);
                }
            }
        }
        None
    }

    /// A packet of a table passed.
    fn table(&mut self, packet: Packet<'_>, vital: Vital, name: &'static str) {
        if packet.scrambling() != 0 && packet.starts_unit() {
            self.watch.note(vital, Some(packet.pid()), Slip::Scrambled(name));
        }
        self.watch.vitals.judge(Vital::Crc);
        for _ in self.crc_told..self.tables.crc_errors {
            self.watch.note(Vital::Crc, Some(packet.pid()), Slip::Section);
        }
        self.crc_told = self.tables.crc_errors;
    }

    /// A PCR of a program passed.
    fn clock(&mut self, packet: Packet<'_>, step: Step, (byte, pcr): (u64, u64), arrival: u64) {
        let pid = packet.pid();
        let first = self.clock_pid == Some(pid);
        self.watch.vitals.judge(Vital::PcrRepetition);
        self.watch.vitals.judge(Vital::PcrDiscontinuity);
        match step {
            Step::First => {}
            Step::Jump(step) => {
                if !packet.is_discontinuity() {
                    self.watch.note(Vital::PcrDiscontinuity, Some(pid), Slip::Jump(step));
                }
                self.watch.jumped(pid, first);
            }
            Step::On(step, travelled) => {
                if step > LATE as u64 {
                    self.watch.late(pid, step, first);
                }
                self.watch.line(pid, byte, pcr);
                // files have no arrivals
                if arrival > 0 {
                    self.watch.arrived(pid, travelled);
                }
                if first && self.watch.tick(step) {
                    self.look(false);
                }
            }
        }
    }

    /// Time passed: looks at what must come within times. `blind` = without the clock of the first program.
    fn look(&mut self, blind: bool) {
        if let Some(pid) = self.clock_pid.filter(|_| blind) {
            self.watch.clock_silent(pid);
        }
        self.watch.look_pat(self.tables.pat_seen);
        for program in self.tables.programs_mut() {
            self.watch.look_pmt(&mut program.interval, program.seen, program.pmt_pid);
        }
        if !self.watch.looks() {
            return;
        }
        let programs = self.tables.programs();
        let known = !programs.is_empty() && programs.iter().all(|program| program.pmt.is_some());
        let mut scrambled = false;
        for state in self.pids.iter_mut().filter(|state| state.role != Role::Null) {
            scrambled |= state.scrambled > 0;
            self.watch.look_pid(state.pid, &mut state.watch, state.packets, known);
        }
        if scrambled {
            let cat = self.pids.iter().any(|state| state.pid == 1 && state.packets > 0);
            self.watch.look_cat(cat);
        }
        if known {
            self.watch.vitals.judge(Vital::Unreferenced);
        }
    }

    /// The tables may have changed: gives every PID the role that they say.
    fn follow(&mut self, outcome: Outcome) {
        if !outcome.changed {
            return;
        }
        let named: Vec<_> = self.tables.named_pids().collect();
        if self.pids.len() + named.len() > SLOTS {
            // PIDs made of bit errors must not keep those of a new table out.
            self.pids.retain(|p| named.contains(&p.pid));
            self.slots.fill(FREE);
            for (slot, state) in (0..FREE).zip(&self.pids) {
                self.slots[usize::from(state.pid)] = slot;
            }
        }
        for &pid in &named {
            self.slot(pid);
        }
        self.access.retarget(self.tables.target());
        let target = self.access.target().map(|t| t.pid);
        let said = self.say(&named);
        for (state, said) in self.pids.iter_mut().zip(said) {
            let limit = match said.kind {
                Some(Kind::Video | Kind::Audio) => MISSING_MS,
                Some(Kind::Klv) => METADATA_MISSING_MS,
                _ if said.clock => MISSING_MS,
                _ => 0,
            };
            let timed = matches!(said.kind, Some(Kind::Video | Kind::Audio));
            state.watch.follow(said.named, limit, timed, said.clock);
            state.choice = said.choice;
            state.role = match state.pid {
                PAT_PID => {
                    state.choice = Choice::All;
                    Role::Pat
                }
                NULL_PID => Role::Null,
                pid if self.tables.pmt_pids().any(|p| p == pid) => {
                    state.choice = Choice::All;
                    Role::Pmt
                }
                pid if target == Some(pid) => Role::Pictures,
                _ => Role::Other,
            };
        }
        let clocks = self.pids.iter().filter(|state| state.watch.clock).map(|state| state.pid);
        self.watch.follow(clocks);
        if self.clock_pid != self.tables.clock_pid() {
            (self.clock_pid, self.told) = (self.tables.clock_pid(), None);
        }
    }

    /// What the tables say of each PID that is kept. Looks at each of their entries once, however many there are.
    fn say(&self, named: &[u16]) -> Vec<Said> {
        let mut said = vec![Said::default(); self.pids.len()];
        let slot = |pid: u16| self.slots.get(usize::from(pid)).map_or(usize::MAX, |slot| usize::from(*slot));
        for &pid in named {
            if let Some(said) = said.get_mut(slot(pid)) {
                said.named = true;
            }
        }
        for pmt in self.tables.programs().iter().filter_map(|program| program.pmt.as_ref()) {
            if let Some(said) = said.get_mut(slot(pmt.pcr_pid)).filter(|_| pmt.pcr_pid != NULL_PID) {
                said.clock = true;
            }
            for stream in &pmt.streams {
                if let Some(said) = said.get_mut(slot(stream.pid)).filter(|said| said.kind.is_none()) {
                    let codec = Codec::of(stream);
                    (said.kind, said.choice) = (Some(codec.kind), Choice::of(codec, stream.stream_type));
                }
            }
        }
        said
    }

    /// Where this PID is kept; none when there is no room.
    fn slot(&mut self, pid: u16) -> Option<usize> {
        let slot = self.slots.get_mut(usize::from(pid))?;
        if *slot == FREE {
            if self.pids.len() >= SLOTS {
                return None;
            }
            *slot = self.pids.len() as u8;
            self.pids.push(Pid::new(pid));
        }
        Some(usize::from(*slot))
    }

    /// Programme time at a byte of the stream. It stands still where the rate had run ahead of the next PCR.
    fn time_at(&mut self, byte: u64) -> Option<u64> {
        let slot = self.slots.get(usize::from(self.clock_pid?))?;
        let time = self.pids.get(usize::from(*slot))?.clock.as_ref()?.at(byte)?;
        let ahead = self.told.map_or(0, |told| super::packet::pcr_delta(time, told));
        let time = if (1..AHEAD).contains(&ahead) { self.told } else { Some(time) };
        self.told = time;
        time
    }

    /// Begins a new window when a second has passed.
    fn roll(&mut self, arrival: u64) {
        let window = &mut self.window;
        let Some(since) = window.since else {
            window.since = Some(arrival);
            return;
        };
        let elapsed = arrival.saturating_sub(since);
        if elapsed < SECOND {
            return;
        }
        window.bitrate = bits_per_second(self.packets - window.packets, elapsed);
        for pid in &mut self.pids {
            pid.bitrate = bits_per_second(pid.packets - pid.window_packets, elapsed);
            pid.window_packets = pid.packets;
        }
        (window.since, window.packets, window.full) = (Some(arrival), self.packets, true);
    }

    fn report_pid(&self, state: &Pid, bitrate_bps: u64) -> PidReport {
        PidReport {
            pid: state.pid,
            content: self.content(state.pid),
            packets: state.packets,
            bitrate_bps,
            continuity_errors: state.lost,
            duplicate_packets: state.duplicates,
            announced_discontinuities: state.jumps,
            scrambled_packets: state.scrambled,
            transport_errors: state.errors,
            pcr: state.clock.as_ref().map(|c| c.report()),
        }
    }

    /// What a PID carries, in words.
    fn content(&self, pid: u16) -> &'static str {
        let pmts = || self.tables.programs().iter().filter_map(|p| p.pmt.as_ref());
        let network = self.tables.pat_sections().iter().any(|p| p.nit_pid == Some(pid));
        match pid {
            PAT_PID => "PAT",
            1 => "CAT",
            NULL_PID => "null packets",
            _ if self.tables.pmt_pids().any(|p| p == pid) => "PMT",
            _ => match pmts().flat_map(|pmt| &pmt.streams).find(|s| s.pid == pid) {
                Some(stream) => Codec::of(stream).name,
                None if network => "network information",
                None if pmts().any(|pmt| pmt.pcr_pid == pid) => "PCR",
                None if pid == 0x11 => "service description",
                None if pid == 0x12 => "event information",
                None if pid == 0x14 => "time and date",
                None => "not in any table",
            },
        }
    }

    fn report_programs(&self) -> Vec<ProgramReport> {
        let report = |program: &super::tables::Program| {
            let pmt = program.pmt.as_ref();
            let stream = |stream: &super::psi::Stream| {
                let codec = Codec::of(stream);
                StreamReport {
                    pid: stream.pid,
                    stream_type: stream.stream_type,
                    codec: codec.name,
                    kind: codec.kind,
                    descriptors: describe(&stream.descriptors),
                }
            };
            ProgramReport {
                number: program.number,
                pmt_pid: program.pmt_pid,
                pmt_version: pmt.map(|p| p.version),
                pmt_changes: program.changes,
                pcr_pid: pmt.map(|p| p.pcr_pid).filter(|&pid| pid != NULL_PID),
                descriptors: pmt.map(|p| describe(&p.descriptors)).unwrap_or_default(),
                streams: pmt.map(|p| p.streams.iter().map(stream).collect()).unwrap_or_default(),
            }
        };
        self.tables.programs().iter().map(report).collect()
    }
}

impl Pid {
    fn new(pid: u16) -> Self {
        Self {
            pid,
            role: match pid {
                PAT_PID => Role::Pat,
                NULL_PID => Role::Null,
                _ => Role::Other,
            },
            counter: Counter::default(),
            clock: None,
            packets: 0,
            lost: 0,
            jumps: 0,
            duplicates: 0,
            errors: 0,
            scrambled: 0,
            watch: PidWatch::new(pid == PAT_PID),
            choice: if pid == PAT_PID { Choice::All } else { Choice::None },
            window_packets: 0,
            bitrate: 0,
        }
    }
}

fn bits_per_second(packets: u64, elapsed_ns: u64) -> u64 {
    let bits = u128::from(packets) * 8 * PACKET as u128;
    (bits * u128::from(SECOND)).checked_div(elapsed_ns.into()).unwrap_or(0) as u64
}

const SECOND: u64 = 1_000_000_000;
/// Milliseconds after which pictures, sound or a clock that the tables name are missing (TR 101 290, 1.6: as the user
/// says).
const MISSING_MS: u16 = 5_000;
/// The same of metadata: what did not come for so long no longer holds (ST 0107).
const METADATA_MISSING_MS: u16 = 30_000;
/// No PID has this slot.
const FREE: u8 = u8::MAX;
/// PIDs that are followed, so that an input stays below 48 kB whatever it sends.
const SLOTS: usize = FREE as usize;
/// Offset in a packet of the byte with the last bit of program_clock_reference_base.
const PCR_BYTE: u64 = 10;
/// Programme time that runs ahead by more than this is another clock: 1 s.
const AHEAD: i64 = super::packet::PCR_HZ as i64;

#[cfg(test)]
mod tests;
