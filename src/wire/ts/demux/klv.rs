//! Packets of a transport stream enter, the KLV packets of all its programs leave, however they travel. Never looks into
//! a packet of a PID that cannot carry metadata.

use super::assembly::{Assembly, Progress};
use super::format::{Elementary, Format};
use crate::wire::klv::{PREFIX, Unit, split};
use crate::wire::ts::metadata::{Carriage, Counters, Metadata};
use crate::wire::ts::packet::{Continuity, Counter, NULL_PID, PAT_PID, Packet};
use crate::wire::ts::pes::PesHeader;
use crate::wire::ts::tables::Tables;

/// Takes the KLV out of a transport stream.
///
/// It follows the tables of all programs, puts together the PES packets of the PIDs that are metadata or may be, and
/// looks at their bytes: how KLV travels is what the bytes say, and what the tables say stands beside it. Everything
/// else costs a look at its PID. A KLV packet leaves with its last byte.
///
/// Memory is bounded: 32 PIDs (those that declare KLV first), less than 1 MB for each.
#[derive(Debug)]
pub struct Extractor {
    tables: Tables,
    /// Role of each PID; index into `lanes` from [`LANES`] on.
    roles: Box<[u8; 1 << 13]>,
    pat: Counter,
    pmts: Vec<(u16, Counter)>,
    lanes: Vec<Lane>,
    counters: ExtractorCounters,
}

/// A KLV packet in a transport stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extract<'a> {
    /// Where it came.
    pub pid: u16,
    /// program_number of the first program that names the PID.
    pub program: u16,
    /// stream_type of its PMT.
    pub stream_type: u8,
    /// stream_id of its PES packet.
    pub stream_id: u8,
    /// How the tables say that it travels; none where they do not say that it is KLV.
    pub declared: Option<Carriage>,
    /// How it travelled.
    pub carriage: Carriage,
    /// The PTS of its PES packet, in units of 1/90 kHz.
    pub pts: Option<u64>,
    /// Key, length and value. A packet that was cut off or says a length beyond its PES packet comes as it is.
    pub bytes: &'a [u8],
}

/// What an [`Extractor`] saw so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtractorCounters {
    /// KLV packets that left.
    pub packets: u64,
    /// PES packets of metadata PIDs of which a part was lost.
    pub damaged: u64,
    /// PES packets of PIDs that are declared as KLV in which there was none.
    pub foreign: u64,
    /// Units of KLV that were given up: a fragment or the rest was missing, or they were too long.
    pub broken: u64,
}

/// What is under way on one PID.
#[derive(Debug)]
struct Lane {
    elementary: Elementary,
    program: u16,
    counter: Counter,
    assembly: Assembly,
    /// Bytes of the PES packet under way that `metadata` has; none before its header is there.
    fed: Option<usize>,
    metadata: Metadata,
    /// Of the last PES packet.
    header: Option<PesHeader>,
    /// What it had seen when the last PES packet ended.
    booked: Counters,
}

impl Default for Extractor {
    fn default() -> Self {
        let mut roles = Box::new([FOREIGN; 1 << 13]);
        roles[usize::from(PAT_PID)] = PAT;
        Self {
            tables: Tables::default(),
            roles,
            pat: Counter::default(),
            pmts: Vec::new(),
            lanes: Vec::new(),
            counters: ExtractorCounters::default(),
        }
    }
}

impl Extractor {
    /// Takes whole packets in; those without a sync byte are left out.
    pub fn push(&mut self, datagram: &[u8], emit: &mut impl FnMut(Extract<'_>)) {
        for packet in Packet::all(datagram) {
            let role = self.roles.get(usize::from(packet.pid())).copied().unwrap_or(FOREIGN);
            if role != FOREIGN && !packet.has_error() {
                self.packet(role, packet, emit);
            }
        }
    }

    /// Nothing more comes for now: hands out what only the next PES packet would have ended.
    pub fn flush(&mut self, emit: &mut impl FnMut(Extract<'_>)) {
        for lane in &mut self.lanes {
            lane.flush(&mut self.counters, emit);
        }
    }

    /// What was seen so far.
    pub fn counters(&self) -> ExtractorCounters {
        self.counters
    }

    fn packet(&mut self, role: u8, packet: Packet<'_>, emit: &mut impl FnMut(Extract<'_>)) {
        match role {
            PAT => {
                let continuity = self.pat.check(packet);
                if continuity != Continuity::Duplicate
                    && self.tables.pat(packet, continuity == Continuity::Ok).changed
                {
                    self.follow(emit);
                }
            }
            PMT => {
                let Some((_, counter)) = self.pmts.iter_mut().find(|(pid, _)| *pid == packet.pid()) else {
                    return;
                };
                let continuity = counter.check(packet);
                if continuity != Continuity::Duplicate
                    && self.tables.pmt(packet, continuity == Continuity::Ok, None).changed
                {
                    self.follow(emit);
                }
            }
            role => {
                if let Some(lane) = self.lanes.get_mut(usize::from(role - LANES)) {
                    lane.packet(packet, &mut self.counters, emit);
                }
            }
        }
    }

    /// The tables changed: follows the PIDs that carry metadata, or may. One that goes on keeps what is under way.
    fn follow(&mut self, emit: &mut impl FnMut(Extract<'_>)) {
        let mut wanted: Vec<(u16, Elementary)> = Vec::new();
        for program in self.tables.programs() {
            for stream in program.pmt.iter().flat_map(|pmt| &pmt.streams) {
                let elementary = Elementary::new(stream, false);
                let known = wanted.iter().any(|(_, known)| known.pid == elementary.pid);
                if !known && matches!(elementary.format, Format::Metadata { .. }) {
                    wanted.push((program.number, elementary));
                }
            }
        }
        // What is only private data may carry anything: it waits behind what is called KLV.
        wanted.sort_by_key(|(_, elementary)| elementary.format != Format::Metadata { declared: true });
        wanted.truncate(LANES_MOST);

        let mut before = std::mem::take(&mut self.lanes);
        for (program, elementary) in wanted {
            let known = before.iter().position(|lane| lane.elementary.continues(&elementary));
            self.lanes.push(match known.map(|at| before.swap_remove(at)) {
                Some(lane) => Lane { elementary, program, ..lane },
                None => Lane::new(elementary, program),
            });
        }
        for mut lane in before {
            lane.flush(&mut self.counters, emit);
        }
        let pmts: Vec<u16> = self.tables.pmt_pids().collect();
        self.pmts.retain(|(pid, _)| pmts.contains(pid));
        self.roles.fill(FOREIGN);
        let mut set = |pid: u16, role: u8| {
            if let Some(place) = self.roles.get_mut(usize::from(pid)) {
                *place = role;
            }
        };
        for (role, lane) in (LANES..).zip(&self.lanes) {
            set(lane.elementary.pid, role);
        }
        for pid in pmts {
            set(pid, PMT);
            if self.pmts.iter().all(|(known, _)| *known != pid) {
                self.pmts.push((pid, Counter::default()));
            }
        }
        set(PAT_PID, PAT);
        set(NULL_PID, FOREIGN);
    }
}

impl Lane {
    fn new(elementary: Elementary, program: u16) -> Self {
        let assembly = Assembly::new(elementary.format);
        let (counter, metadata, booked) = (Counter::default(), Metadata::default(), Counters::default());
        Self { elementary, program, counter, assembly, fed: None, metadata, header: None, booked }
    }

    fn packet(
        &mut self,
        packet: Packet<'_>,
        counters: &mut ExtractorCounters,
        emit: &mut impl FnMut(Extract<'_>),
    ) {
        let continuity = self.counter.check(packet);
        if continuity == Continuity::Duplicate {
            return;
        }
        let lost = continuity == Continuity::Lost;
        if packet.scrambling() != 0 || lost || continuity == Continuity::Jump && !packet.starts_unit() {
            self.assembly.spoil();
            self.metadata.reset();
        }
        if packet.scrambling() != 0 {
            return;
        }
        let Some(payload) = packet.payload() else { return };
        if packet.starts_unit() {
            let progress = self.assembly.finish();
            self.leave(progress, counters, emit);
            self.assembly.start(false);
        }
        let (_, progress) = self.assembly.push(payload, packet.has_stuffing());
        self.feed(false, counters, emit);
        self.leave(progress, counters, emit);
    }

    /// Hands out the KLV that is complete; `over`: nothing more comes of its PES packet.
    fn feed(&mut self, over: bool, counters: &mut ExtractorCounters, emit: &mut impl FnMut(Extract<'_>)) {
        let Self { elementary, program, assembly, fed, metadata, .. } = self;
        let Some((header, payload, _)) = assembly.packet() else { return };
        if assembly.is_spoiled() || header.scrambling != 0 {
            return;
        }
        self.header = Some(header);
        let mut leave = unpack(elementary, *program, header, counters, emit);
        if fed.is_none() {
            metadata.start();
        }
        let new = payload.get(fed.replace(payload.len()).unwrap_or(0)..).unwrap_or_default();
        metadata.feed(new, &mut leave);
        if over {
            metadata.finish(&mut leave);
        }
    }

    /// A PES packet came to its end.
    fn leave(
        &mut self,
        progress: Progress,
        counters: &mut ExtractorCounters,
        emit: &mut impl FnMut(Extract<'_>),
    ) {
        if progress == Progress::Open {
            return;
        }
        if progress != Progress::Whole {
            counters.damaged += 1;
        }
        if progress == Progress::Refused {
            self.metadata.reset();
        } else {
            // Also where less came than its length says: that may be wrong.
            self.feed(true, counters, emit);
        }
        self.book(counters);
        self.fed = None;
        self.assembly.clear();
    }

    /// Nothing more comes: hands out what is there.
    fn flush(&mut self, counters: &mut ExtractorCounters, emit: &mut impl FnMut(Extract<'_>)) {
        let progress = self.assembly.finish();
        self.leave(progress, counters, emit);
        let Some(header) = self.header else { return };
        self.metadata.flush(&mut unpack(&self.elementary, self.program, header, counters, emit));
        self.book(counters);
    }

    fn book(&mut self, counters: &mut ExtractorCounters) {
        let seen = self.metadata.counters();
        counters.broken += seen.broken - self.booked.broken;
        if self.elementary.format == (Format::Metadata { declared: true }) {
            counters.foreign += seen.foreign - self.booked.foreign;
        }
        self.booked = seen;
    }
}

/// Takes units of KLV and hands out their packets.
fn unpack<'a>(
    elementary: &'a Elementary,
    program: u16,
    header: PesHeader,
    counters: &'a mut ExtractorCounters,
    emit: &'a mut impl FnMut(Extract<'_>),
) -> impl FnMut(&[u8], Carriage) {
    move |unit, carriage| {
        for piece in split(unit).map(Unit::bytes).filter(|bytes| bytes.starts_with(&PREFIX)) {
            counters.packets += 1;
            emit(extract(elementary, program, &header, carriage, piece));
        }
    }
}

fn extract<'a>(
    elementary: &Elementary,
    program: u16,
    header: &PesHeader,
    carriage: Carriage,
    bytes: &'a [u8],
) -> Extract<'a> {
    let declared = match elementary.format {
        Format::Metadata { declared: true } if elementary.stream_type == SYNCHRONOUS => Some(Carriage::Cells),
        Format::Metadata { declared: true } => Some(Carriage::Bare),
        _ => None,
    };
    Extract {
        pid: elementary.pid,
        program,
        stream_type: elementary.stream_type,
        stream_id: header.stream_id,
        declared,
        carriage,
        pts: header.pts,
        bytes,
    }
}

const FOREIGN: u8 = 0;
const PAT: u8 = 1;
const PMT: u8 = 2;
/// Role of the first metadata PID.
const LANES: u8 = 3;
/// Metadata PIDs that are followed.
const LANES_MOST: usize = 32;
/// stream_type of metadata in PES packets (ISO/IEC 13818-1, table 2-34).
const SYNCHRONOUS: u8 = 0x15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ts::samples::sample;

    type Found = (u16, u16, Option<Carriage>, Carriage, bool, Vec<u8>);

    fn extract_all(bytes: &[u8], step: usize) -> (Vec<Found>, ExtractorCounters) {
        let mut extractor = Extractor::default();
        let mut found = Vec::new();
        let mut keep = |e: Extract<'_>| {
            found.push((e.pid, e.program, e.declared, e.carriage, e.pts.is_some(), e.bytes.to_vec()));
        };
        for datagram in bytes.chunks(188 * step) {
            extractor.push(datagram, &mut keep);
        }
        extractor.flush(&mut keep);
        (found, extractor.counters())
    }

    #[test]
    fn klv_is_found_however_it_travels() {
        use Carriage::{Bare, Cells};
        for (name, pids, declared, carriage, timed) in [
            ("h264_async.ts", 1, Bare, Bare, false),
            ("h265_async.ts", 1, Bare, Bare, false),
            ("h264_async_multi.ts", 1, Bare, Bare, false),
            ("h264_async_pts.ts", 1, Bare, Bare, true),
            ("h264_sync.ts", 1, Cells, Cells, true),
            ("h265_sync.ts", 1, Cells, Cells, true),
            ("h264_bigpmt.ts", 1, Bare, Bare, false),
            ("h264_nulls.ts", 1, Bare, Bare, false),
            ("h264_pcr_disc.ts", 1, Bare, Bare, false),
            ("h264_pat_nit.ts", 1, Bare, Bare, false),
        ] {
            let (found, counters) = extract_all(sample(name), 7);
            assert!(!found.is_empty(), "{name}");
            let mut seen: Vec<u16> = found.iter().map(|f| f.0).collect();
            seen.dedup();
            assert_eq!(seen.len(), pids, "{name}");
            for f in &found {
                assert_eq!((f.2, f.3, f.4), (Some(declared), carriage, timed), "{name}");
                assert!(f.5.starts_with(&PREFIX), "{name}");
            }
            assert_eq!(counters.packets, found.len() as u64, "{name}");
            assert_eq!((counters.damaged, counters.broken, counters.foreign), (0, 0, 0), "{name}");
            assert_eq!(extract_all(sample(name), 1).0, found, "{name}: whatever the datagrams");
        }
    }

    #[test]
    fn every_program_and_every_pid_counts() {
        let (found, _) = extract_all(sample("h264_dualklv.ts"), 7);
        let mut pids: Vec<u16> = found.iter().map(|f| f.0).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 2);
        let (found, _) = extract_all(sample("h264_multiprog.ts"), 7);
        assert!(!found.is_empty());
        assert!(found.iter().all(|f| f.1 != 0));
    }

    #[test]
    fn a_loss_costs_the_packet_that_it_hits() {
        let whole = sample("h264_async.ts");
        let all = extract_all(whole, 7).0;
        let at = whole
            .chunks(188)
            .enumerate()
            .filter(|(_, packet)| Packet::new(packet).is_some_and(|p| p.pid() == all[0].0))
            .map(|(at, _)| at)
            .nth(5)
            .unwrap();
        let cut = [&whole[..at * 188], &whole[(at + 1) * 188..]].concat();
        let (left, _) = extract_all(&cut, 7);
        assert!(left.len() < all.len() && left.len() + 2 >= all.len());
        assert!(left.iter().all(|packet| all.contains(packet)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..80)) {
            let mut bytes = sample("h264_sync.ts").to_vec();
            bytes.truncate(188 * 400);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let (found, counters) = extract_all(&bytes, 7);
            prop_assert_eq!(found.len() as u64, counters.packets);
        }
    }
}
