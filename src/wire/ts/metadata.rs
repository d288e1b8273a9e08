//! PES packets of metadata enter, whole KLV packets leave (SMPTE ST 336; ISO/IEC 13818-1, 2.12.4; MISB ST 1402), and
//! back into metadata access unit cells. Never believes what the tables say: only the bytes tell how they travel.

use crate::wire::klv::ber::read_length;
use crate::wire::klv::{PREFIX, Unit, find_label, first_unit, starts_label};

/// How KLV travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carriage {
    /// Bare, as asynchronous carriage has it.
    Bare,
    /// In metadata access unit cells, as synchronous carriage has it.
    Cells,
}

/// Takes KLV out of the PES packets of one PID.
///
/// KLV leaves with its last byte, whatever the length of its PES packet says. Bare packets go on wherever the next PES
/// packet starts; junk between them, and lengths of cells that are wrong, cost nothing but themselves.
///
/// Memory is bounded: 256 kB for a unit, and what one PES packet carries.
#[derive(Debug, Default)]
pub struct Metadata {
    /// Bytes that are not yet understood.
    held: Vec<u8>,
    /// Where in them the PES packet under way starts, while it is open whether what stands before goes on in it.
    border: Option<usize>,
    /// It is of no use to look again before so many bytes are there.
    wake: usize,
    /// The PES packet under way has cells.
    cells: bool,
    /// Something of it was KLV.
    found: bool,
    /// Metadata access units under way, with their services.
    fragments: Vec<(u8, Vec<u8>)>,
    /// The last cell's sequence number, and each service's.
    sequence: Option<u8>,
    sequences: Vec<(u8, u8)>,
    counters: Counters,
}

/// What a [`Metadata`] saw so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Units handed out.
    pub units: u64,
    /// Cells whose sequence number did not follow.
    pub gaps: u64,
    /// Units of which a part was missing, or that were longer than 256 kB.
    pub broken: u64,
    /// Bytes between units that are neither KLV nor padding.
    pub junk: u64,
    /// PES packets without KLV.
    pub foreign: u64,
}

/// What stands first.
enum Piece<'a> {
    /// That shows when so many bytes are there.
    Wait(usize),
    /// A bare packet that may go on in the next PES packet.
    Open,
    Bare(&'a [u8]),
    /// A bare packet of which the end is missing.
    Cut(&'a [u8]),
    Cell(Cell, &'a [u8]),
    /// The header of a cell whose length is wrong.
    Header,
    Junk(usize),
}

impl Metadata {
    /// Takes what a whole PES packet carries and hands out the KLV in it: each bare packet and each metadata access unit
    /// on its own. A bare packet whose end is missing comes as it is once that is clear.
    pub fn push(&mut self, payload: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        self.start();
        self.feed(payload, emit);
        self.finish(emit);
    }

    /// The same of a PES packet of which something is missing behind `sound` bytes, if these are not all.
    pub fn push_sound(&mut self, payload: &[u8], sound: usize, emit: &mut impl FnMut(&[u8], Carriage)) {
        match payload.get(..sound).filter(|start| start.len() < payload.len()) {
            Some(start) => {
                self.start();
                self.feed(start, emit);
                self.reset();
            }
            None => self.push(payload, emit),
        }
    }

    /// A PES packet starts.
    pub fn start(&mut self) {
        self.border = Some(self.held.len()).filter(|&border| border > 0);
        // A cell that goes on in the next PES packet stays one.
        self.cells &= self.border.is_some();
        (self.wake, self.found) = (0, false);
    }

    /// Takes the next bytes that it carries, and hands out what they complete.
    pub fn feed(&mut self, bytes: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        if self.held.is_empty() {
            let read = self.read(bytes, false, emit);
            self.held.extend_from_slice(bytes.get(read..).unwrap_or_default());
        } else {
            self.held.extend_from_slice(bytes);
            if self.held.len() >= self.wake {
                self.read_held(false, emit);
            }
        }
    }

    /// The PES packet is over: only a packet whose end is not there goes on in the next one.
    pub fn finish(&mut self, emit: &mut impl FnMut(&[u8], Carriage)) {
        self.read_held(true, emit);
        self.counters.foreign += u64::from(!self.found);
    }

    /// Nothing more comes: hands out what is there of a packet whose end is not.
    pub fn flush(&mut self, emit: &mut impl FnMut(&[u8], Carriage)) {
        let held = std::mem::take(&mut self.held);
        self.leave_cut(&held, emit);
        self.reset();
    }

    /// Something is missing in front of the next PES packet.
    pub fn reset(&mut self) {
        self.counters.broken += u64::from(!self.held.is_empty()) + self.fragments.len() as u64;
        self.held.clear();
        self.fragments.clear();
        self.sequences.clear();
        (self.border, self.sequence) = (None, None);
    }

    /// What was seen so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn read_held(&mut self, over: bool, emit: &mut impl FnMut(&[u8], Carriage)) {
        let mut held = std::mem::take(&mut self.held);
        let read = self.read(&held, over, emit);
        held.drain(..read.min(held.len()));
        self.held = if held.is_empty() { Vec::new() } else { held };
    }

    /// Understands what can be understood and answers how many bytes that was.
    fn read(&mut self, bytes: &[u8], over: bool, emit: &mut impl FnMut(&[u8], Carriage)) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(border) = self.border {
                let fresh = bytes.get(border..).unwrap_or_default();
                if fresh.len() < SURE && !over {
                    self.wake = border + SURE;
                    break;
                }
                self.border = None;
                if fresh.len() >= PREFIX.len() && starts_label(fresh) || self.starts_cell(fresh) {
                    // The rest of what stands before never came.
                    self.leave_cut(bytes.get(at..border).unwrap_or_default(), emit);
                    (at, self.cells) = (border, false);
                    continue;
                }
            }
            self.wake = 0;
            match self.first(rest, over) {
                Piece::Wait(wake) => {
                    self.wake = wake;
                    break;
                }
                Piece::Open => {
                    self.found |= rest.len() >= PREFIX.len();
                    break;
                }
                Piece::Bare(packet) => {
                    at += packet.len();
                    self.leave(packet, emit);
                }
                Piece::Cut(start) => {
                    at += start.len();
                    self.leave_cut(start, emit);
                }
                Piece::Cell(cell, body) => {
                    at += HEADER + body.len();
                    self.cells = true;
                    self.cell(cell, body, emit);
                }
                Piece::Header => {
                    at += HEADER;
                    self.cells = true;
                }
                Piece::Junk(length) => {
                    at += length;
                    let junk = rest.iter().take(length).filter(|&&byte| byte != 0 && byte != 0xff);
                    self.counters.junk += junk.count() as u64;
                }
            }
        }
        at
    }

    /// What stands first in these bytes.
    fn first<'a>(&self, rest: &'a [u8], over: bool) -> Piece<'a> {
        if starts_label(rest) {
            return match first_unit(rest, LONGEST) {
                Some(Unit::Packet(packet)) => Piece::Bare(packet),
                Some(Unit::Cut(start)) => Piece::Cut(start),
                Some(Unit::Junk(junk)) => Piece::Junk(junk.len()),
                _ if over => Piece::Open,
                // It may be damaged and never come to its end: once more in between, for what it would swallow.
                _ => Piece::Wait(klv_len(rest).unwrap_or(usize::MAX).min(2 * rest.len().max(SURE))),
            };
        }
        if rest.len() < SURE && !over {
            return Piece::Wait(SURE);
        }
        if self.starts_cell(rest) {
            return self.first_cell(rest, over);
        }
        if let Some((Cell { starts: true, reserved: true, .. }, length)) = Cell::header(rest)
            && rest.len() < HEADER + length
            && !over
        {
            return Piece::Wait(HEADER + length);
        }
        let next = find_label(rest, 1);
        if next == rest.len() && !over {
            return Piece::Wait(2 * rest.len());
        }
        // Only in bare carriage may a label be cut off by the end of the PES packet.
        let none = next + PREFIX.len() > rest.len() && self.cells;
        if none {
            return Piece::Junk(rest.len());
        }
        let header = next.checked_sub(HEADER).filter(|&at| at > 0).and_then(|at| rest.get(at..));
        match header.filter(|header| starts_strict_cell(header)) {
            Some(_) => Piece::Junk(next - HEADER),
            None => Piece::Junk(next),
        }
    }

    /// The cell that starts here, unless its length is wrong.
    fn first_cell<'a>(&self, rest: &'a [u8], over: bool) -> Piece<'a> {
        let Some((cell, length)) = Cell::header(rest) else { return Piece::Junk(rest.len()) };
        let behind = rest.get(HEADER..).unwrap_or_default();
        let said = if cell.starts && starts_label(behind) { klv_len(behind) } else { None };
        let needed = match said {
            // Too short for what it holds, or what it holds says too much: what comes next tells.
            Some(packet) if cell.ends && packet > length => packet.min(LONGEST),
            _ => length,
        };
        if behind.len() < needed && !over {
            return Piece::Wait(HEADER + needed);
        }
        let Some((body, next)) = behind.split_at_checked(length) else { return Piece::Header };
        let follows = |next: &[u8]| next.is_empty() || starts_strict_cell(next);
        if needed > length && !follows(next) {
            return Piece::Header;
        }
        if let Some(packet) = said.filter(|&packet| packet < length)
            && let Some((packet, next)) = behind.split_at_checked(packet)
            && !next.is_empty()
            && follows(next)
        {
            return Piece::Cell(cell, packet);
        }
        Piece::Cell(cell, body)
    }

    /// Whether a cell starts here: one that starts a unit holds a label, one that goes on with a unit is expected.
    fn starts_cell(&self, bytes: &[u8]) -> bool {
        let Some((cell, length)) = Cell::header(bytes) else { return false };
        let behind = bytes.get(HEADER..).unwrap_or_default();
        if !cell.starts {
            return self.fragments.iter().any(|(service, _)| *service == cell.service);
        }
        // What stands before the label in a unit that is whole is junk in it; behind another cell it may be anything.
        let other = || {
            let body = behind.get(..length).filter(|_| cell.reserved);
            body.is_some_and(|body| self.cells || cell.ends && find_label(body, 0) + KEY < body.len())
        };
        behind.starts_with(&PREFIX) || other()
    }

    fn cell(&mut self, cell: Cell, body: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        self.found = true;
        if !self.follows(cell) {
            self.counters.gaps += 1;
            self.counters.broken += self.fragments.len() as u64;
            self.fragments.clear();
        }
        let under_way = self.fragments.iter().position(|(service, _)| *service == cell.service);
        if cell.starts {
            if let Some(index) = under_way {
                self.counters.broken += 1;
                self.fragments.remove(index);
            }
            if !cell.ends {
                if self.fragments.len() >= SERVICES {
                    self.counters.broken += 1;
                    self.fragments.remove(0);
                }
                self.fragments.push((cell.service, body.to_vec()));
            } else if !body.is_empty() {
                self.counters.units += 1;
                emit(body, Carriage::Cells);
            }
            return;
        }
        // A part of a unit whose start is missing is left out.
        let Some(index) = under_way else { return };
        let Some((_, unit)) = self.fragments.get_mut(index) else { return };
        unit.extend_from_slice(body);
        let too_long = unit.len() > LONGEST;
        if too_long || cell.ends {
            let (_, unit) = self.fragments.remove(index);
            self.counters.broken += u64::from(too_long);
            if !too_long {
                self.counters.units += 1;
                emit(&unit, Carriage::Cells);
            }
        }
    }

    /// Whether nothing is missing in front of a cell. Its number follows that of the cell before it, whatever the service
    /// (2.12.4.2); some encoders number each service for itself, and some leave every number 0.
    fn follows(&mut self, cell: Cell) -> bool {
        let fits = |last: u8| cell.sequence == last.wrapping_add(1) || cell.sequence == last;
        let last = self.sequence.replace(cell.sequence);
        let index = self.sequences.iter().position(|(service, _)| *service == cell.service);
        let of_service = match index.and_then(|index| self.sequences.get_mut(index)) {
            Some((_, last)) => fits(std::mem::replace(last, cell.sequence)),
            None => {
                self.sequences.truncate(SERVICES - 1);
                self.sequences.push((cell.service, cell.sequence));
                // One that is new beside others may count for itself.
                self.sequences.len() > 1
            }
        };
        last.is_none_or(fits) || of_service
    }

    fn leave(&mut self, packet: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        self.found = true;
        self.counters.units += 1;
        emit(packet, if self.cells { Carriage::Cells } else { Carriage::Bare });
    }

    /// What is there of a packet whose end is missing; less than a key says nothing.
    fn leave_cut(&mut self, start: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        if start.len() > KEY {
            self.counters.broken += 1;
            self.leave(start, emit);
        }
    }
}

/// Whether these bytes are KLV packets, or metadata access unit cells that start with one, to their very end.
pub fn is_whole(payload: &[u8]) -> bool {
    if payload.starts_with(&PREFIX) {
        return klv_packets(payload)
            .all(|packet| packet.starts_with(&PREFIX) && klv_len(packet) == Some(packet.len()));
    }
    starts_strict_cell(payload) && cells(payload).1 == 0
}

/// Whether a cell starts here whose header is as it must be and whose unit is KLV.
fn starts_strict_cell(bytes: &[u8]) -> bool {
    let Some((cell, length)) = Cell::header(bytes) else { return false };
    let behind = bytes.get(HEADER..).unwrap_or_default();
    let fits = klv_len(behind).is_none_or(|packet| packet <= length || !cell.ends);
    cell.starts
        && cell.reserved
        && length > KEY
        && behind.starts_with(&PREFIX)
        && starts_label(behind)
        && fits
}

/// The header of a metadata access unit cell (2.12.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// metadata_service_id.
    pub service: u8,
    /// sequence_number.
    pub sequence: u8,
    /// It is the first of its unit.
    pub starts: bool,
    /// It is the last of its unit.
    pub ends: bool,
    /// The reserved bits are set, as they must be.
    pub reserved: bool,
}

/// The cells of a PES packet, and how many bytes behind them are no whole cell.
pub fn cells(mut payload: &[u8]) -> (Vec<Cell>, usize) {
    let mut cells = Vec::new();
    while let Some((cell, _, rest)) = Cell::split(payload) {
        cells.push(cell);
        payload = rest;
    }
    (cells, payload.len())
}

impl Cell {
    /// The header at the start, and how many bytes stand behind it.
    fn header(bytes: &[u8]) -> Option<(Self, usize)> {
        let &[service, sequence, flags, l0, l1] = bytes.first_chunk()?;
        let (starts, ends, reserved) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 0x0f == 0x0f);
        Some((Self { service, sequence, starts, ends, reserved }, u16::from_be_bytes([l0, l1]).into()))
    }

    /// The cell at the start: header, body, what stands behind it. None when it is cut off.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (cell, length) = Self::header(bytes)?;
        let (body, rest) = bytes.get(HEADER..)?.split_at_checked(length)?;
        Some((cell, body, rest))
    }
}

/// Appends a metadata access unit as cells of at most `most` bytes of body (1 to 65535), with running sequence
/// numbers from `sequence` on, which is left at the next one.
pub fn put_cells(unit: &[u8], most: usize, sequence: &mut u8, out: &mut Vec<u8>) {
    let most = most.clamp(1, u16::MAX.into());
    let mut parts = unit.chunks(most).peekable();
    let mut first = true;
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        // cell_fragment_indication, no decoder configuration, random access where a unit starts, reserved
        let flags = u8::from(first) << 7 | u8::from(last) << 6 | u8::from(first) << 4 | 0x0f;
        let [l0, l1] = (part.len() as u16).to_be_bytes();
        out.extend_from_slice(&[SERVICE, *sequence, flags, l0, l1]);
        out.extend_from_slice(part);
        *sequence = sequence.wrapping_add(1);
        first = false;
    }
}

/// The KLV packets that stand one behind the other in these bytes. What is no KLV packet, or is cut off, comes as one
/// piece at the end.
pub fn klv_packets(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let length = Some(bytes).filter(|b| b.starts_with(&PREFIX)).and_then(klv_len);
        let (packet, rest) = bytes.split_at(length.unwrap_or(bytes.len()).min(bytes.len()));
        bytes = rest;
        Some(packet)
    })
}

/// Bytes of the KLV packet that starts here, key and length included; none when its length is cut off or beyond
/// 2^32 (SMPTE ST 336, 5: BER, short or long form).
pub fn klv_len(bytes: &[u8]) -> Option<usize> {
    let (length, body) = read_length(bytes.get(KEY..)?).ok()?;
    Some(bytes.len() - body.len() + u32::try_from(length).ok()? as usize)
}

/// metadata_service_id of the cells that are made here.
pub const SERVICE: u8 = 0;
/// Bytes of a key.
const KEY: usize = 16;
/// Bytes of the header of a cell.
const HEADER: usize = 5;
/// Bytes that show whether a label or a cell with one starts.
const SURE: usize = HEADER + 8;
/// Longest unit that is put together.
const LONGEST: usize = 256 << 10;
/// Services of which a unit may be under way at the same time.
const SERVICES: usize = 4;

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use proptest::prelude::*;

    use super::*;

    type Units = Vec<(Vec<u8>, Carriage)>;

    fn klv(length: usize, fill: u8) -> Vec<u8> {
        let mut packet = PREFIX.to_vec();
        packet.resize(KEY, 1);
        if length < 128 {
            packet.push(length as u8);
        } else {
            packet.extend_from_slice(&[0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]);
        }
        packet.resize(packet.len() + length, fill);
        packet
    }

    fn units(metadata: &mut Metadata, payload: &[u8]) -> Units {
        let mut found = Vec::new();
        metadata.push(payload, &mut |unit, carriage| found.push((unit.to_vec(), carriage)));
        found
    }

    #[test]
    fn bare_packets_alone_together_and_in_parts() {
        let mut metadata = Metadata::default();
        let (a, b) = (klv(100, 1), klv(70_000, 2));
        let (bare_a, bare_b) = ((a.clone(), Carriage::Bare), (b.clone(), Carriage::Bare));
        assert_eq!(units(&mut metadata, &a), from_ref(&bare_a));
        let both = [&a[..], &a, &[0, 0]].concat();
        assert_eq!(units(&mut metadata, &both), [bare_a.clone(), bare_a.clone()]);
        assert!(units(&mut metadata, &b[..60_000]).is_empty());
        assert_eq!(units(&mut metadata, &b[60_000..]), from_ref(&bare_b));
        // the rest of one never comes
        assert!(units(&mut metadata, &b[..60_000]).is_empty());
        let cut = (b[..60_000].to_vec(), Carriage::Bare);
        assert_eq!(units(&mut metadata, &a), [cut, bare_a]);
        assert!(units(&mut metadata, &b[60_000..]).is_empty());
        let counters = metadata.counters();
        assert_eq!((counters.units, counters.broken, counters.foreign), (6, 1, 1));
    }

    #[test]
    fn bare_packets_leave_with_their_last_byte_wherever_pes_packets_start() {
        let packets: Vec<Vec<u8>> = (1..30).map(|n| klv(40 + 7 * n, 9)).collect();
        let all = packets.concat();
        for step in [1, 3, 16, 20, 37, 64, 100, 150, 400, 5_000] {
            let mut metadata = Metadata::default();
            let (mut found, mut sent) = (Vec::new(), 0);
            for payload in all.chunks(step) {
                metadata.start();
                metadata.feed(payload, &mut |unit, _| found.push(unit.to_vec()));
                metadata.finish(&mut |unit, _| found.push(unit.to_vec()));
                sent += payload.len();
                let whole = packets.iter().scan(0, |end, packet| {
                    *end += packet.len();
                    Some(*end)
                });
                // That it is none that starts in it takes a few bytes.
                assert!(found.len() + 1 >= whole.filter(|&end| end <= sent).count(), "{step}");
            }
            assert_eq!(found, packets, "{step}");
            assert_eq!((metadata.counters().broken, metadata.counters().junk), (0, 0), "{step}");
        }
        // within one PES packet, too, whatever comes behind
        let mut metadata = Metadata::default();
        metadata.start();
        let mut found = Vec::new();
        for (packet, n) in packets.iter().zip(1..) {
            packet.chunks(11).for_each(|part| metadata.feed(part, &mut |unit, _| found.push(unit.to_vec())));
            assert_eq!(found.len(), n);
        }
    }

    #[test]
    fn junk_costs_only_itself() {
        let (a, b) = (klv(100, 1), klv(300, 2));
        let (mut sequence, mut cell) = (3, Vec::new());
        put_cells(&a, usize::MAX, &mut sequence, &mut cell);
        let mut in_unit = vec![0, 4, 0xdf, 0, (a.len() + 3) as u8, 7, 8, 9];
        in_unit.extend_from_slice(&a);
        use Carriage::{Bare, Cells};
        let cases: [(&str, Vec<u8>, Units, u64); 9] = [
            ("one byte before", [&[7], &a[..]].concat(), vec![(a.clone(), Bare)], 1),
            ("five before", [&[7; 5], &a[..]].concat(), vec![(a.clone(), Bare)], 5),
            ("between", [&a[..], &[7; 9], &b].concat(), vec![(a.clone(), Bare), (b.clone(), Bare)], 9),
            ("zeros between", [&a[..], &[0; 2], &b].concat(), vec![(a.clone(), Bare), (b.clone(), Bare)], 0),
            ("a prefix before", [&PREFIX, &a[..]].concat(), vec![(a.clone(), Bare)], 4),
            ("behind", [&a[..], &[7; 200]].concat(), vec![(a.clone(), Bare)], 200),
            ("before a cell", [&[7; 4], &cell[..]].concat(), vec![(a.clone(), Cells)], 4),
            ("in a unit", in_unit.clone(), vec![(in_unit[5..].to_vec(), Cells)], 0),
            ("nothing else", vec![7; 300], vec![], 300),
        ];
        for (name, payload, want, junk) in cases {
            for step in [payload.len(), 50, 1] {
                let mut metadata = Metadata::default();
                let mut found = Vec::new();
                metadata.start();
                for part in payload.chunks(step) {
                    metadata.feed(part, &mut |unit, carriage| found.push((unit.to_vec(), carriage)));
                }
                metadata.finish(&mut |unit, carriage| found.push((unit.to_vec(), carriage)));
                assert_eq!(found, want, "{name} by {step}");
                let counters = metadata.counters();
                assert_eq!((counters.junk, counters.foreign), (junk, want.is_empty().into()), "{name}");
            }
        }
    }

    #[test]
    fn a_cell_whose_length_is_wrong_still_gives_its_packet() {
        let (a, b) = (klv(100, 1), klv(300, 2));
        let cells = |wrong: isize| {
            let (mut sequence, mut cells) = (3, Vec::new());
            for packet in [&a, &b, &a] {
                let at = cells.len();
                put_cells(packet, usize::MAX, &mut sequence, &mut cells);
                let length = packet.len().saturating_add_signed(wrong) as u16;
                cells[at + 3..at + 5].copy_from_slice(&length.to_be_bytes());
            }
            cells
        };
        for wrong in [0, 5, 7, 60, -1, -5, -1_000] {
            let found = units(&mut Metadata::default(), &cells(wrong));
            let want = [&a, &b, &a].map(|packet| (packet.clone(), Carriage::Cells));
            assert_eq!(found, want, "{wrong}");
        }
    }

    #[test]
    fn units_of_two_services_may_interleave() {
        let (a, b, c) = (klv(500, 1), klv(50, 2), klv(700, 3));
        let parts = |unit: &[u8], service: u8, most: usize| {
            let mut cells = Vec::new();
            put_cells(unit, most, &mut 0, &mut cells);
            let mut parts: Vec<Vec<u8>> = Vec::new();
            let mut rest = &cells[..];
            while let Some((_, body, next)) = Cell::split(rest) {
                let mut part = rest[..HEADER + body.len()].to_vec();
                part[0] = service;
                parts.push(part);
                rest = next;
            }
            parts
        };
        let (a_parts, b_parts, c_parts) = (parts(&a, 0, 300), parts(&b, 1, 300), parts(&c, 2, 400));
        let order = [&a_parts[0], &b_parts[0], &c_parts[0], &a_parts[1], &c_parts[1]];
        // numbered through, or each service for itself
        for numbers in [[9, 10, 11, 12, 13], [9, 70, 200, 10, 201]] {
            let mut payload = Vec::new();
            for (part, sequence) in order.into_iter().zip(numbers) {
                let at = payload.len();
                payload.extend_from_slice(part);
                payload[at + 1] = sequence;
            }
            let mut metadata = Metadata::default();
            let found = units(&mut metadata, &payload);
            assert_eq!(found, [&b, &a, &c].map(|unit| (unit.clone(), Carriage::Cells)));
            assert_eq!((metadata.counters().gaps, metadata.counters().broken), (0, 0));
        }
    }

    #[test]
    fn a_cell_may_go_on_in_the_next_pes_packet() {
        let a = klv(500, 1);
        let mut cells = Vec::new();
        put_cells(&a, usize::MAX, &mut 0, &mut cells);
        let mut metadata = Metadata::default();
        assert!(units(&mut metadata, &cells[..100]).is_empty());
        assert_eq!(units(&mut metadata, &cells[100..]), [(a.clone(), Carriage::Cells)]);
        // what never goes on comes as it is
        assert!(units(&mut metadata, &cells[..100]).is_empty());
        let mut found = Vec::new();
        metadata.flush(&mut |unit, carriage| found.push((unit.to_vec(), carriage)));
        assert_eq!(found, [(a[..95].to_vec(), Carriage::Cells)]);
        assert_eq!(metadata.counters().broken, 1);
    }

    #[test]
    fn cells_alone_together_and_fragmented() {
        let mut metadata = Metadata::default();
        let (a, b) = (klv(100, 1), klv(1_000, 2));
        let (mut sequence, mut cells) = (254, Vec::new());
        put_cells(&a, usize::MAX, &mut sequence, &mut cells);
        put_cells(&b, usize::MAX, &mut sequence, &mut cells);
        assert_eq!((sequence, cells[1], cells[2], cells[a.len() + 6]), (0, 254, 0xdf, 255));
        let want = [(a.clone(), Carriage::Cells), (b.clone(), Carriage::Cells)];
        assert_eq!(units(&mut metadata, &cells), want);
        // fragments in PES packets of their own
        let mut cells = Vec::new();
        put_cells(&b, 400, &mut sequence, &mut cells);
        assert!(units(&mut metadata, &cells[..405]).is_empty());
        assert!(units(&mut metadata, &cells[405..810]).is_empty());
        assert_eq!(units(&mut metadata, &cells[810..]), want[1..]);
        assert_eq!(sequence, 3);
        // one of them missing
        assert!(units(&mut metadata, &cells[..405]).is_empty());
        assert!(units(&mut metadata, &cells[810..]).is_empty());
        assert_eq!(metadata.counters().gaps, 2);
        assert_eq!(metadata.counters().broken, 1);
    }

    #[test]
    fn packets_are_told_apart() {
        let (a, b) = (klv(100, 1), klv(300, 2));
        let all = [a.clone(), b.clone(), vec![0, 1]].concat();
        assert_eq!(klv_packets(&all).collect::<Vec<_>>(), [&a[..], &b, &[0, 1]]);
        assert_eq!(klv_len(&klv(5, 0)), Some(22));
        assert_eq!(klv_len(&[6; 16]), None);
        assert_eq!(klv_len(&[&[6; 16][..], &[0x80]].concat()), None);
        assert_eq!(klv_len(&[&[6; 16][..], &[0x89], &[0xff; 9]].concat()), None);
    }

    proptest! {
        #[test]
        fn cells_survive(lengths in prop::collection::vec(1usize..3000, 1..6), most in 20usize..3000, sequence: u8) {
            let mut metadata = Metadata::default();
            let (mut number, mut found) = (sequence, Vec::new());
            let packets: Vec<_> = lengths.iter().map(|&length| klv(length, 7)).collect();
            for packet in &packets {
                let mut cells = Vec::new();
                put_cells(packet, most, &mut number, &mut cells);
                found.extend(units(&mut metadata, &cells).into_iter().map(|unit| unit.0));
            }
            prop_assert_eq!(found, packets);
            prop_assert_eq!(metadata.counters().gaps, 0);
        }

        #[test]
        fn any_bytes_are_safe(payloads in prop::collection::vec(
            (0usize..3, prop::collection::vec(any::<u8>(), 0..60)), 0..20)
        ) {
            let mut metadata = Metadata::default();
            for (kind, mut payload) in payloads {
                let at = [0, 5, 60][kind];
                if payload.len() >= at + 4 {
                    payload[at..at + 4].copy_from_slice(&PREFIX);
                }
                units(&mut metadata, &payload);
                prop_assert!(metadata.held.len() <= LONGEST && metadata.fragments.len() <= SERVICES);
                prop_assert!(klv_packets(&payload).map(<[u8]>::len).sum::<usize>() == payload.len());
            }
        }
    }
}
