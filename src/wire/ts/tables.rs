//! Packets of table PIDs enter; the programs of the stream leave. Never holds more than 128 programs.

use super::codec::{Codec, Kind, Syntax, declares_klv};
use super::packet::{NULL_PID, PAT_PID, Packet};
use super::psi::{Assembler, Pat, Pmt, PsiError};
use super::random_access::Target;
use super::vitals::Interval;

/// The tables of a stream as they stand.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// The sections of the PAT in force, by number.
    pat: Vec<Pat>,
    /// The last good section of the PAT: most are repetitions, and need not be read again.
    last_pat: Vec<u8>,
    pat_assembler: Assembler,
    pub(super) pat_changes: u64,
    programs: Vec<Program>,
    pmts: Vec<PmtPid>,
    /// Number and PMT PID of the program whose pictures count.
    target: Option<(u16, u16)>,
    pub(super) crc_errors: u64,
    /// Good sections of the PAT.
    pub(super) pat_seen: u64,
}

/// A program that the PAT names.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) number: u16,
    pub(super) pmt_pid: u16,
    pub(super) pmt: Option<Pmt>,
    /// The section that it was read from.
    section: Vec<u8>,
    /// PMTs after the first one that said something else.
    pub(super) changes: u64,
    /// Good sections of its PMT, and when the last one came.
    pub(super) seen: u64,
    pub(super) interval: Interval,
}

/// A PID that carries PMTs, often only one.
#[derive(Debug)]
struct PmtPid {
    pid: u16,
    assembler: Assembler,
    /// Where the last PAT was when the section under way started.
    since: Option<u64>,
}

/// What a packet of a table did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    /// The programs or their streams are others now.
    pub(super) changed: bool,
    /// The PAT is another one now.
    pub(super) pat_changed: bool,
    /// The target's PMT is whole; where the last PAT was when it started.
    pub(super) target_pmt: Option<Option<u64>>,
}

impl Tables {
    /// Takes a packet of the PAT; `whole` = none is missing before it.
    pub(super) fn pat(&mut self, packet: Packet<'_>, whole: bool) -> Outcome {
        let mut assembler = std::mem::take(&mut self.pat_assembler);
        let mut outcome = Outcome::default();
        feed(&mut assembler, packet, whole, &mut |section| outcome.pat_changed |= self.read_pat(section));
        self.pat_assembler = assembler;
        outcome.changed = outcome.pat_changed;
        outcome
    }

    /// Takes a packet of a PID that carries PMTs. `last_pat` is where the last PAT started.
    pub(super) fn pmt(&mut self, packet: Packet<'_>, whole: bool, last_pat: Option<u64>) -> Outcome {
        let pid = packet.pid();
        let Some(at) = self.pmts.iter().position(|p| p.pid == pid) else { return Outcome::default() };
        let mut source = self.pmts.swap_remove(at);
        let mut outcome = Outcome::default();
        // Behind a pointer_field, the first section to come out is one that started in an earlier packet.
        let mut since = if source.assembler.is_under_way() { source.since } else { last_pat };
        feed(&mut source.assembler, packet, whole, &mut |section| {
            if let Some((number, changed)) = self.read_pmt(pid, section) {
                outcome.changed |= changed;
                if self.target == Some((number, pid)) {
                    outcome.target_pmt = Some(since);
                }
            }
            since = last_pat;
        });
        if packet.starts_unit() {
            source.since = last_pat;
        }
        self.pmts.push(source);
        outcome
    }

    /// The PAT's sections in force.
    pub(super) fn pat_sections(&self) -> &[Pat] {
        &self.pat
    }

    /// In the order of the PAT.
    pub(super) fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// The same, to keep when their PMTs came.
    pub(super) fn programs_mut(&mut self) -> &mut [Program] {
        &mut self.programs
    }

    /// PIDs that carry PMTs.
    pub(super) fn pmt_pids(&self) -> impl Iterator<Item = u16> {
        self.programs.iter().map(|p| p.pmt_pid)
    }

    /// Every PID that a table names.
    pub(super) fn named_pids(&self) -> impl Iterator<Item = u16> {
        let networks = self.pat.iter().filter_map(|p| p.nit_pid);
        let pmts = self.programs.iter().filter_map(|p| p.pmt.as_ref());
        let streams = pmts.flat_map(|pmt| pmt.streams.iter().map(|s| s.pid).chain([pmt.pcr_pid]));
        [PAT_PID].into_iter().chain(networks).chain(self.pmt_pids()).chain(streams)
    }

    /// PID of the first program's clock.
    pub(super) fn clock_pid(&self) -> Option<u16> {
        self.programs
            .iter()
            .filter_map(|p| p.pmt.as_ref())
            .map(|pmt| pmt.pcr_pid)
            .find(|&pid| pid != NULL_PID)
    }

    /// The stream whose pictures are places to start: the first video of the first program that has one, else the
    /// first stream of the first program.
    pub(super) fn target(&self) -> Option<Target> {
        let pmt = self.target_program()?.pmt.as_ref()?;
        let stream = pmt.streams.iter().find(|s| Codec::of(s).kind == Kind::Video).or(pmt.streams.first())?;
        let codec = Codec::of(stream);
        let syntax = if codec.kind == Kind::Video { codec.syntax } else { Syntax::Opaque };
        Some(Target { pid: stream.pid, syntax })
    }

    /// Whether any stream of any program is declared as KLV.
    pub(super) fn declare_klv(&self) -> bool {
        self.programs.iter().filter_map(|p| p.pmt.as_ref()).flat_map(|pmt| &pmt.streams).any(declares_klv)
    }

    fn target_program(&self) -> Option<&Program> {
        let known = || self.programs.iter().filter(|p| p.pmt.is_some());
        let has = |p: &Program, kind: Option<Kind>| {
            p.pmt
                .iter()
                .flat_map(|pmt| &pmt.streams)
                .any(|s| kind == Some(Codec::of(s).kind) || kind.is_none())
        };
        known().find(|p| has(p, Some(Kind::Video))).or_else(|| known().find(|p| has(p, None)))
    }

    /// Whether the section changes the programs.
    fn read_pat(&mut self, section: &[u8]) -> bool {
        if section == self.last_pat {
            self.pat_seen += 1;
            return false;
        }
        match Pat::parse(section) {
            Ok(pat) => {
                self.pat_seen += 1;
                self.last_pat = section.to_vec();
                self.accept_pat(pat)
            }
            Err(error) => {
                self.refuse(error);
                false
            }
        }
    }

    /// The program of a good section that came on this PID, and whether it changes it.
    fn read_pmt(&mut self, pid: u16, section: &[u8]) -> Option<(u16, bool)> {
        if let Some(known) = self.programs.iter_mut().find(|p| p.pmt_pid == pid && p.section == section) {
            known.seen += 1;
            return Some((known.number, false));
        }
        let pmt = Pmt::parse(section).map_err(|error| self.refuse(error)).ok()?;
        let number = pmt.program;
        let program = self.programs.iter_mut().find(|p| (p.number, p.pmt_pid) == (number, pid))?;
        program.seen += 1;
        program.section = section.to_vec();
        program.changes += u64::from(program.pmt.is_some());
        program.pmt = Some(pmt);
        self.target = self.target_program().map(|p| (p.number, p.pmt_pid));
        Some((number, true))
    }

    fn accept_pat(&mut self, pat: Pat) -> bool {
        if self.pat.contains(&pat) {
            return false;
        }
        let same = |p: &Pat| {
            (p.transport_stream_id, p.version, p.last_section)
                == (pat.transport_stream_id, pat.version, pat.last_section)
                && p.section != pat.section
        };
        let more = self.pat.iter().all(same) && !self.pat.is_empty();
        if !more {
            self.pat_changes += u64::from(!self.pat.is_empty());
            self.pat.clear();
        }
        let at = self.pat.partition_point(|p| p.section < pat.section);
        self.pat.insert(at, pat);
        let mut before = std::mem::take(&mut self.programs);
        for &(number, pmt_pid) in self.pat.iter().flat_map(|p| &p.programs).take(PROGRAMS) {
            let known = before.iter().position(|p| (p.number, p.pmt_pid) == (number, pmt_pid));
            self.programs.push(match known {
                Some(at) => before.swap_remove(at),
                None => Program {
                    number,
                    pmt_pid,
                    pmt: None,
                    section: Vec::new(),
                    changes: 0,
                    seen: 0,
                    interval: Interval::default(),
                },
            });
        }
        let mut sources = std::mem::take(&mut self.pmts);
        for program in &self.programs {
            let pid = program.pmt_pid;
            if self.pmts.iter().all(|p| p.pid != pid) {
                let known = sources.iter().position(|p| p.pid == pid).map(|at| sources.swap_remove(at));
                let new = || PmtPid { pid, assembler: Assembler::default(), since: None };
                self.pmts.push(known.unwrap_or_else(new));
            }
        }
        self.target = self.target_program().map(|p| (p.number, p.pmt_pid));
        true
    }

    fn refuse(&mut self, error: PsiError) {
        // Other tables may share the PID, and one that is announced is not yet in force: no errors.
        self.crc_errors += u64::from(matches!(error, PsiError::Crc(_) | PsiError::Truncated(_)));
    }
}

/// Hands a packet to an assembler.
fn feed(assembler: &mut Assembler, packet: Packet<'_>, whole: bool, emit: &mut impl FnMut(&[u8])) {
    if !whole || packet.scrambling() != 0 {
        assembler.reset();
    }
    if let Some(payload) = packet.payload().filter(|_| packet.scrambling() == 0) {
        assembler.push(payload, packet.starts_unit(), emit);
    }
}

/// More programs than any multiplex has; the rest of a longer PAT is not followed.
const PROGRAMS: usize = 128;
