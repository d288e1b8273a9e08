//! Packets of one transport stream enter, packets of a smaller one leave: programs, PIDs or KLV taken out. Never holds
//! a packet back; PSI is rewritten in the places where it stands.

mod kind;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use self::kind::{Kind, follow_label, holds_label, kind, without_klv};
use self::table::Table;
use super::packet::{NULL_PID, PACKET, PAT_PID, Packet, SYNC};
use super::psi::{Pat, Pmt, PsiError, descriptors};

/// What is taken out of a transport stream. Equal specs share one derived lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FilterSpec {
    /// Keep only this program (program_number, 1 to 65535).
    pub program: Option<u16>,
    /// Keep only these elementary PIDs (PSI and the PCR PID's clock are kept).
    pub pids: Option<BTreeSet<u16>>,
    /// Take these elementary PIDs out.
    pub drop_pids: BTreeSet<u16>,
    /// Take out every elementary stream that carries KLV.
    pub strip_klv: bool,
    /// What takes the place of a packet taken out.
    pub fill: Fill,
}

/// What takes the place of a packet taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Fill {
    /// A null packet: the bit rate stays constant.
    #[default]
    Null,
    /// Nothing.
    Remove,
}

/// Takes programs, PIDs or KLV out of a transport stream.
///
/// **PSI** is read and written anew: the PMT of each kept program loses the streams that are taken out, the PAT loses
/// the other programs and the network entry (its tables describe services that are gone) when `program` is set. The
/// version counts up whenever the result changes. A section that needs several packets leaves with its next
/// repetition. With `program` or `pids` only PSI passes until PAT and PMT are known; of the PIDs that no PMT
/// declares only 0x01-0x0f (with `pids` alone up to 0x1f and the network PID), the ECMs of kept programs and those
/// listed in `pids` (not together with `program`) pass.
///
/// **Clock**: packets with a PCR on the PCR PID of a kept program stay, as an adaptation field and nothing else,
/// when that PID is taken out.
///
/// **KLV** is what the PMT declares (stream_type 0x15, 'KLVA', metadata descriptors), and every PID in whose packets
/// the universal label 06 0E 2B 34 is found, from that packet on and for good. Every PID is looked at, declared or
/// not, null packets too, except the media that a PMT declares: the four bytes turn up by chance once in 4 GB, every
/// few hours in a video of some Mb/s, and a label within coded pictures or sound is no KLV stream; they
/// pass untouched, but for private data in their adaptation field, which is blanked when it holds the label. A PID
/// that was taken for KLV before a PMT declared it to be media comes back. When two packets of a PID spell the
/// label together the second one and all behind it go, and the first one goes when it ends in two bytes of the
/// label or more (one byte alone would cost every 256th packet of any private stream). So no packet of another PID
/// than declared media holds the label, nor do the payloads of one PID in a row.
#[derive(Debug)]
pub struct Filter {
    spec: FilterSpec,
    /// The sections of the PAT in force, by number.
    pat: BTreeMap<u8, Pat>,
    issued_pat: Option<Pat>,
    /// The programs that are kept, by number.
    programs: BTreeMap<u16, Program>,
    /// PIDs of the PMTs of programs that are not kept.
    foreign: BTreeSet<u16>,
    network: Option<u16>,
    /// The PIDs of PSI that is rewritten.
    tables: BTreeMap<u16, Table>,
    /// PIDs in which the label was found.
    klv: BTreeSet<u16>,
    pids: Vec<Pid>,
}

#[derive(Debug, Default)]
struct Program {
    pid: u16,
    pmt: Option<Pmt>,
    issued: Option<Pmt>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pid {
    verdict: Verdict,
    /// Bytes of the label at the end of the last payload.
    matched: u8,
    /// Counter of the last payload that left.
    count: u8,
}

/// What happens to the packets of a PID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Verdict {
    #[default]
    Keep,
    /// Kept, private data in the adaptation field blanked when it is KLV.
    Media,
    /// Kept until the label is found.
    Watch,
    /// Only the clock is kept.
    Clock,
    Drop,
    Rewrite,
}

impl Filter {
    /// A filter that has seen nothing yet.
    pub fn new(spec: FilterSpec) -> Self {
        let mut filter = Self {
            spec,
            pat: BTreeMap::new(),
            issued_pat: None,
            programs: BTreeMap::new(),
            foreign: BTreeSet::new(),
            network: None,
            tables: BTreeMap::from([(PAT_PID, Table::default())]),
            klv: BTreeSet::new(),
            pids: vec![Pid::default(); usize::from(NULL_PID) + 1],
        };
        filter.judge();
        filter
    }

    /// Appends what is left of a datagram of whole packets: with [`Fill::Null`] as many packets as came in. Packets
    /// without a sync byte are taken out, bytes behind the last whole packet are ignored.
    pub fn push(&mut self, datagram: &[u8], out: &mut Vec<u8>) {
        for bytes in datagram.as_chunks().0 {
            let bytes: &[u8; PACKET] = bytes;
            let kept = Packet::new(bytes).is_some_and(|packet| self.packet(packet, out));
            if !kept && self.spec.fill == Fill::Null {
                out.extend_from_slice(&NULL);
            }
        }
    }

    /// Appends what takes the packet's place; false when nothing is left of it.
    fn packet(&mut self, packet: Packet<'_>, out: &mut Vec<u8>) -> bool {
        match self.verdict(packet.pid()) {
            Verdict::Keep => self.pass(packet, out),
            Verdict::Media => {
                let start = out.len();
                self.pass(packet, out);
                blank_private_data(out.get_mut(start..).unwrap_or_default());
                true
            }
            Verdict::Watch => self.watch(packet, out),
            Verdict::Clock => self.pass_clock(packet, out),
            Verdict::Drop => false,
            Verdict::Rewrite => self.rewrite(packet, out),
        }
    }

    fn pass(&mut self, packet: Packet<'_>, out: &mut Vec<u8>) -> bool {
        if packet.has_payload()
            && let Some(pid) = self.pids.get_mut(usize::from(packet.pid()))
        {
            pid.count = packet.continuity();
        }
        out.extend_from_slice(packet.bytes());
        true
    }

    fn watch(&mut self, packet: Packet<'_>, out: &mut Vec<u8>) -> bool {
        let number = packet.pid();
        let Some(pid) = self.pids.get_mut(usize::from(number)) else { return false };
        let matched = match packet.payload() {
            // Null packets and damaged ones are no part of a stream.
            Some(payload) if number != NULL_PID && !packet.has_error() => follow_label(pid.matched, payload),
            _ => Some(pid.matched),
        };
        match matched {
            Some(matched) if !holds_label(packet.bytes()) => {
                pid.matched = matched;
                matched < 2 && self.pass(packet, out)
            }
            _ if number == NULL_PID => false,
            _ => {
                self.klv.insert(number);
                self.judge();
                self.verdict(number) == Verdict::Clock && self.pass_clock(packet, out)
            }
        }
    }

    /// Keeps the PCR of a packet whose payload is taken out. Without payload the counter stands still (ISO/IEC
    /// 13818-1, 2.4.3.3).
    fn pass_clock(&mut self, packet: Packet<'_>, out: &mut Vec<u8>) -> bool {
        let (Some(pid), Some(pcr)) = (self.pids.get(usize::from(packet.pid())), packet.bytes().get(6..12))
        else {
            return false;
        };
        if packet.pcr().is_none() || packet.has_error() {
            return false;
        }
        let number = packet.pid().to_be_bytes();
        let mut clock = [0xff; PACKET];
        clock[..4].copy_from_slice(&[SYNC, number[0], number[1], 0x20 | pid.count]);
        clock[4] = (PACKET - 5) as u8;
        clock[5] = 0x10 | u8::from(packet.is_discontinuity()) << 7;
        clock[6..12].copy_from_slice(pcr);
        if self.must_not_leave(&clock) {
            return false;
        }
        out.extend_from_slice(&clock);
        true
    }

    fn rewrite(&mut self, packet: Packet<'_>, out: &mut Vec<u8>) -> bool {
        let pid = packet.pid();
        let sections = self.tables.get_mut(&pid).map(|table| table.read(packet)).unwrap_or_default();
        for section in sections {
            let new = if pid == PAT_PID { self.read_pat(&section) } else { self.read_pmt(pid, &section) };
            if let Some(new) = new.filter(|new| !self.must_not_leave(new))
                && let Some(table) = self.tables.get_mut(&pid)
            {
                table.queue(&new);
            }
        }
        let start = out.len();
        let kept = self.tables.get_mut(&pid).is_some_and(|table| table.emit(packet, out));
        if self.must_not_leave(out.get(start..).unwrap_or_default()) {
            // Two private sections spell it together.
            out.truncate(start);
            return false;
        }
        kept
    }

    fn must_not_leave(&self, bytes: &[u8]) -> bool {
        self.spec.strip_klv && holds_label(bytes)
    }

    /// Takes a section of the PAT in, and returns the one that takes its place.
    fn read_pat(&mut self, section: &[u8]) -> Option<Vec<u8>> {
        let pat = match Pat::parse(section) {
            Ok(pat) => pat,
            Err(PsiError::Table { .. }) => return Some(section.to_vec()),
            Err(_) => return None,
        };
        let key = |pat: &Pat| (pat.transport_stream_id, pat.version, pat.last_section);
        if self.pat.values().next().is_some_and(|first| key(first) != key(&pat)) {
            self.pat.clear();
        }
        let (id, version, number, last) =
            (pat.transport_stream_id, pat.version, pat.section, pat.last_section);
        let changed = self.pat.get(&number) != Some(&pat);
        self.pat.insert(number, pat);
        let complete = self.pat.len() > usize::from(last);
        if complete && changed {
            self.learn_programs();
        }
        let Some(only) = self.spec.program else { return Some(section.to_vec()) };
        if !complete || number != 0 {
            return None;
        }
        let programs = self.programs.iter().map(|(number, program)| (*number, program.pid));
        debug_assert!(programs.clone().all(|(number, _)| number == only));
        let new = Pat { transport_stream_id: id, version, programs: programs.collect(), ..Pat::default() };
        let issued = self.issued_pat.take();
        let at = |version| Pat { version, ..new.clone() };
        let (issued, section) =
            self.issue(version, issued.map(|pat| (pat.version, pat)), at, Pat::section)?;
        self.issued_pat = Some(issued);
        Some(section)
    }

    /// The PAT is complete and something in it is new.
    fn learn_programs(&mut self) {
        let entries = self.pat.values().flat_map(|pat| pat.programs.iter().copied());
        // PIDs that cannot be those of a PMT (table 2-3).
        let entries = entries.filter(|(_, pid)| *pid != PAT_PID && *pid != NULL_PID);
        let (kept, others): (Vec<_>, Vec<_>) =
            entries.partition(|(number, _)| self.spec.program.is_none_or(|only| only == *number));
        let mut before = std::mem::take(&mut self.programs);
        for (number, pid) in kept {
            let known = before.remove(&number).filter(|program| program.pid == pid);
            self.programs.insert(number, known.unwrap_or(Program { pid, ..Program::default() }));
        }
        let pids: BTreeSet<u16> =
            self.programs.values().map(|program| program.pid).chain([PAT_PID]).collect();
        self.tables.retain(|pid, _| pids.contains(pid));
        self.foreign = others.into_iter().map(|(_, pid)| pid).filter(|pid| !pids.contains(pid)).collect();
        self.network = self.pat.values().find_map(|pat| pat.nit_pid);
        for pid in pids {
            self.tables.entry(pid).or_default();
        }
        self.judge();
    }

    /// Takes a section from the PID of a PMT in, and returns the one that takes its place.
    fn read_pmt(&mut self, pid: u16, section: &[u8]) -> Option<Vec<u8>> {
        let pmt = match Pmt::parse(section) {
            Ok(pmt) => pmt,
            Err(PsiError::Table { .. }) => return Some(section.to_vec()),
            Err(_) => return None,
        };
        let number = pmt.program;
        let program = self.programs.get_mut(&number).filter(|program| program.pid == pid)?;
        if program.pmt.as_ref() != Some(&pmt) {
            program.pmt = Some(pmt.clone());
            self.judge();
        }
        let version = pmt.version;
        let new = self.without_dropped(pmt);
        let issued = self.programs.get_mut(&number)?.issued.take();
        let at = |version| Pmt { version, ..new.clone() };
        let (issued, section) =
            self.issue(version, issued.map(|pmt| (pmt.version, pmt)), at, Pmt::section)?;
        self.programs.get_mut(&number)?.issued = Some(issued);
        Some(section)
    }

    fn without_dropped(&self, mut pmt: Pmt) -> Pmt {
        pmt.streams.retain(|stream| !matches!(self.verdict(stream.pid), Verdict::Clock | Verdict::Drop));
        if self.spec.strip_klv {
            pmt.descriptors = without_klv(&pmt.descriptors);
            for stream in &mut pmt.streams {
                stream.descriptors = without_klv(&stream.descriptors);
            }
        }
        pmt
    }

    /// Writes a table with the version that its content calls for: the one of the last time while nothing changes,
    /// the next one when something does. Versions whose checksum spells the label are stepped over.
    fn issue<T: PartialEq>(
        &self,
        version: u8,
        issued: Option<(u8, T)>,
        at: impl Fn(u8) -> T,
        section: impl Fn(&T) -> Result<Vec<u8>, PsiError>,
    ) -> Option<(T, Vec<u8>)> {
        let first = match issued {
            Some((version, issued)) if at(version) == issued => version,
            Some((version, _)) => version + 1,
            None => version,
        };
        (first..first + 32).find_map(|version| {
            let table = at(version & 0x1f);
            let section = section(&table).ok().filter(|section| !self.must_not_leave(section))?;
            Some((table, section))
        })
    }

    fn verdict(&self, pid: u16) -> Verdict {
        self.pids.get(usize::from(pid)).map_or(Verdict::Drop, |pid| pid.verdict)
    }

    /// Decides about every PID anew: a table or what is known about KLV has changed.
    fn judge(&mut self) {
        let spec = &self.spec;
        let pmts: Vec<&Pmt> = self.programs.values().filter_map(|program| program.pmt.as_ref()).collect();
        let mut kinds: BTreeMap<u16, Kind> = BTreeMap::new();
        for stream in pmts.iter().flat_map(|pmt| &pmt.streams) {
            let known = kinds.entry(stream.pid).or_insert(Kind::Private);
            *known = kind(stream).max(*known);
        }
        self.klv.retain(|pid| kinds.get(pid) != Some(&Kind::Media));

        let pass = if spec.strip_klv { Verdict::Watch } else { Verdict::Keep };
        let selective = spec.program.is_some() || spec.pids.is_some();
        let others = if selective { Verdict::Drop } else { pass };
        let listed = |pid: &u16| {
            spec.pids.as_ref().is_none_or(|pids| pids.contains(pid)) && !spec.drop_pids.contains(pid)
        };
        let clocks: BTreeSet<u16> = pmts.iter().map(|pmt| pmt.pcr_pid).collect();
        // Until a PMT is known any PCR may be the one that counts.
        let gone =
            |pid: &u16| if pmts.is_empty() || clocks.contains(pid) { Verdict::Clock } else { Verdict::Drop };

        for pid in &mut self.pids {
            pid.verdict = others;
        }
        let pids = &mut self.pids;
        let mut set = |pid: u16, verdict: Verdict| {
            if let Some(pid) = pids.get_mut(usize::from(pid)) {
                pid.verdict = verdict;
            }
        };
        if selective {
            let reserved = if spec.program.is_some() { 0x01..0x10 } else { 0x01..0x20 };
            reserved.for_each(|pid| set(pid, pass));
            if spec.program.is_none() {
                self.network.into_iter().for_each(|pid| set(pid, pass));
                let asked = spec.pids.iter().flatten().filter(|_| !pmts.is_empty());
                asked.for_each(|pid| set(*pid, pass));
            }
        }
        pmts.iter().flat_map(|pmt| ecm_pids(pmt)).for_each(|pid| set(pid, pass));
        for pid in &clocks {
            set(*pid, if listed(pid) { pass } else { Verdict::Clock });
        }
        for pid in self.klv.iter().chain(&spec.drop_pids) {
            set(*pid, gone(pid));
        }
        for (pid, kind) in &kinds {
            let klv = spec.strip_klv && (*kind == Kind::Klv || self.klv.contains(pid));
            set(
                *pid,
                match kind {
                    _ if klv || !listed(pid) => gone(pid),
                    Kind::Media if spec.strip_klv => Verdict::Media,
                    _ => pass,
                },
            );
        }
        self.foreign.iter().for_each(|pid| set(*pid, Verdict::Drop));
        self.tables.keys().for_each(|pid| set(*pid, Verdict::Rewrite));
        set(NULL_PID, if spec.drop_pids.contains(&NULL_PID) { Verdict::Drop } else { others });
    }
}

/// PIDs of the entitlement messages that a program's CA descriptors name (ISO/IEC 13818-1, 2.6.16).
fn ecm_pids(pmt: &Pmt) -> impl Iterator<Item = u16> {
    let loops = pmt.streams.iter().map(|stream| &stream.descriptors).chain([&pmt.descriptors]);
    loops.flat_map(|raw| descriptors(raw)).filter_map(|entry| match entry {
        (0x09, [_, _, high, low, ..]) => Some(u16::from_be_bytes([high & 0x1f, *low])),
        _ => None,
    })
}

/// Overwrites the private data of an adaptation field that holds the label of KLV (2.4.3.4); lengths stay.
fn blank_private_data(packet: &mut [u8]) {
    let [_, _, _, control, len, flags, ..] = *packet else { return };
    if control & 0x20 == 0 || len == 0 || flags & 0x02 == 0 {
        return;
    }
    // PCR, OPCR, splice_countdown
    let before = [(0x10, 6), (0x08, 6), (0x04, 1)].iter().filter(|(flag, _)| flags & flag != 0).map(|f| f.1);
    let at = 6 + before.sum::<usize>();
    let field = packet.get_mut(..5 + usize::from(len)).unwrap_or_default();
    let Some((size, data)) = field.get_mut(at..).and_then(<[u8]>::split_first_mut) else { return };
    let size = usize::from(*size).min(data.len());
    if let Some(data) = data.get_mut(..size).filter(|data| holds_label(data)) {
        data.fill(0xff);
    }
}

/// A null packet (2.4.3.3, table 2-3).
const NULL: [u8; PACKET] = {
    let mut packet = [0xff; PACKET];
    packet[0] = SYNC;
    packet[1] = (NULL_PID >> 8) as u8;
    packet[3] = 0x10;
    packet
};

#[cfg(test)]
mod tests;
