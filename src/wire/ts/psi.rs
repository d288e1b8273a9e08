//! Payloads of PSI packets enter, whole sections and the tables in them leave, and back into packets (ISO/IEC
//! 13818-1, 2.4.4). Never holds more than one section.
//!
//! Assembly and parsing are ours: mpeg2ts-reader drops a section whose header straddles two packets, and its
//! `PmtSection` does not hand out the raw descriptor loops that a rewritten PMT must keep byte for byte. The
//! CRC is taken from it.

use mpeg2ts_reader::mpegts_crc;
use thiserror::Error;

use super::packet::{PACKET, SYNC};

/// Longest PAT or PMT section in bytes, header and CRC included (2.4.4.3, 2.4.4.8).
pub const SECTION_MAX: usize = 1024;

/// Why a section was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PsiError {
    /// The checksum does not match: bytes were damaged on the way.
    #[error("section with table_id {0:#04x} has a wrong CRC")]
    Crc(u8),
    /// Another table than the one asked for.
    #[error("table_id {found:#04x}, expected {expected:#04x}")]
    Table {
        /// The section's table_id.
        found: u8,
        /// The one asked for.
        expected: u8,
    },
    /// A length in it points behind its end.
    #[error("section with table_id {0:#04x} is cut off")]
    Truncated(u8),
    /// current_next_indicator is 0: announces a table that is not yet in force.
    #[error("section with table_id {0:#04x} is not yet in force")]
    NotCurrent(u8),
    /// What it should hold needs more than 1024 bytes.
    #[error("section would be {0} bytes long, at most {SECTION_MAX} fit")]
    TooLong(usize),
}

/// Puts the sections of one PID together, wherever they were split.
#[derive(Debug, Default)]
pub struct Assembler {
    /// The section under way; empty = none.
    section: Vec<u8>,
    /// Bytes still to come of a section that is too long to be a PAT or PMT.
    skip: usize,
}

impl Assembler {
    /// Takes the payload of the next packet of the PID, `starts_unit` being its payload_unit_start_indicator,
    /// and hands out every section that it completes. Duplicate and scrambled packets must not come here.
    pub fn push(&mut self, payload: &[u8], starts_unit: bool, emit: &mut impl FnMut(&[u8])) {
        if !starts_unit {
            self.go_on(payload, emit);
            return;
        }
        let Some((&pointer, rest)) = payload.split_first() else { return self.reset() };
        let Some((tail, mut rest)) = rest.split_at_checked(usize::from(pointer)) else { return self.reset() };
        self.go_on(tail, emit);
        self.reset();
        // table_id 0xff: stuffing up to the end of the packet (2.4.4)
        while rest.first().is_some_and(|&table| table != 0xff) {
            rest = self.take(rest, emit);
        }
    }

    /// Whether a section was started and is not yet whole.
    pub fn is_under_way(&self) -> bool {
        !self.section.is_empty() || self.skip > 0
    }

    /// Forgets the section under way: packets were lost.
    pub fn reset(&mut self) {
        self.section.clear();
        self.skip = 0;
    }

    fn go_on(&mut self, data: &[u8], emit: &mut impl FnMut(&[u8])) {
        if self.is_under_way() {
            // What stands behind the end of a section here is stuffing: a new one needs a start indicator.
            self.take(data, emit);
        }
    }

    /// Feeds the section under way, or starts one; what is left of `data` lies behind its end.
    fn take<'a>(&mut self, mut data: &'a [u8], emit: &mut impl FnMut(&[u8])) -> &'a [u8] {
        while !data.is_empty() {
            if self.skip > 0 {
                let (skipped, rest) = data.split_at(self.skip.min(data.len()));
                self.skip -= skipped.len();
                data = rest;
                if self.skip == 0 {
                    break;
                }
                continue;
            }
            let whole = section_len(&self.section);
            let wanted = whole.unwrap_or(HEADER).saturating_sub(self.section.len());
            let (taken, rest) = data.split_at(wanted.min(data.len()));
            self.section.extend_from_slice(taken);
            data = rest;
            match section_len(&self.section) {
                Some(len) if len > SECTION_MAX => {
                    self.skip = len - self.section.len();
                    self.section.clear();
                }
                Some(len) if len == self.section.len() => {
                    emit(&self.section);
                    self.section.clear();
                    break;
                }
                _ => {}
            }
        }
        data
    }
}

/// Program association section: where the PMT of each program is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pat {
    /// transport_stream_id.
    pub transport_stream_id: u16,
    /// version_number, 0 to 31.
    pub version: u8,
    /// section_number; a table of many programs has several sections.
    pub section: u8,
    /// last_section_number.
    pub last_section: u8,
    /// PID of the network information table (program_number 0).
    pub nit_pid: Option<u16>,
    /// (program_number, PID of its PMT), in the order of the table.
    pub programs: Vec<(u16, u16)>,
}

impl Pat {
    /// Reads a section.
    ///
    /// # Errors
    /// [`PsiError`] when it is no PAT section in force with a right CRC.
    pub fn parse(section: &[u8]) -> Result<Self, PsiError> {
        let (header, body) = open(section, PAT_TABLE)?;
        let mut pat = Self {
            transport_stream_id: header.id,
            version: header.version,
            section: header.section,
            last_section: header.last_section,
            ..Self::default()
        };
        for &[n0, n1, p0, p1] in body.as_chunks().0 {
            let (program, pid) = (u16::from_be_bytes([n0, n1]), pid(p0, p1));
            if program == 0 {
                pat.nit_pid = Some(pid);
            } else {
                pat.programs.push((program, pid));
            }
        }
        Ok(pat)
    }

    /// Writes it as a section with CRC, the network PID first.
    ///
    /// # Errors
    /// [`PsiError::TooLong`] above 1024 bytes.
    pub fn section(&self) -> Result<Vec<u8>, PsiError> {
        let network = self.nit_pid.map(|pid| (0, pid));
        let mut body = Vec::with_capacity(4 * (self.programs.len() + 1));
        for (program, pid) in network.into_iter().chain(self.programs.iter().copied()) {
            body.extend_from_slice(&program.to_be_bytes());
            body.extend_from_slice(&(0xe000 | pid & 0x1fff).to_be_bytes());
        }
        let (section, last_section) = (self.section, self.last_section);
        let header = Header { id: self.transport_stream_id, version: self.version, section, last_section };
        close(PAT_TABLE, header, &body)
    }
}

/// Program map section: what a program is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pmt {
    /// program_number.
    pub program: u16,
    /// version_number, 0 to 31.
    pub version: u8,
    /// PID that carries the programme clock; 0x1fff = none.
    pub pcr_pid: u16,
    /// Descriptors of the program, raw.
    pub descriptors: Vec<u8>,
    /// Its elementary streams, in the order of the table.
    pub streams: Vec<Stream>,
}

/// One elementary stream of a [`Pmt`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stream {
    /// stream_type (table 2-34).
    pub stream_type: u8,
    /// elementary_PID.
    pub pid: u16,
    /// Its descriptors, raw.
    pub descriptors: Vec<u8>,
}

impl Pmt {
    /// Reads a section. An entry that is cut off ends the list of streams; those before it are kept.
    ///
    /// # Errors
    /// [`PsiError`] when it is no PMT section in force with a right CRC.
    pub fn parse(section: &[u8]) -> Result<Self, PsiError> {
        let (header, body) = open(section, PMT_TABLE)?;
        let [p0, p1, l0, l1, rest @ ..] = body else { return Err(PsiError::Truncated(PMT_TABLE)) };
        let (descriptors, mut rest) =
            rest.split_at_checked(loop_len(*l0, *l1)).ok_or(PsiError::Truncated(PMT_TABLE))?;
        let mut pmt = Self {
            program: header.id,
            version: header.version,
            pcr_pid: pid(*p0, *p1),
            descriptors: descriptors.to_vec(),
            streams: Vec::new(),
        };
        while let [stream_type, p0, p1, l0, l1, behind @ ..] = rest {
            let Some((descriptors, next)) = behind.split_at_checked(loop_len(*l0, *l1)) else { break };
            let (stream_type, pid) = (*stream_type, pid(*p0, *p1));
            pmt.streams.push(Stream { stream_type, pid, descriptors: descriptors.to_vec() });
            rest = next;
        }
        Ok(pmt)
    }

    /// Writes it as a section with CRC.
    ///
    /// # Errors
    /// [`PsiError::TooLong`] above 1024 bytes.
    pub fn section(&self) -> Result<Vec<u8>, PsiError> {
        let mut body = Vec::new();
        let mut field = |head: &[u8], pid: u16, descriptors: &[u8]| {
            if descriptors.len() > SECTION_MAX {
                return Err(PsiError::TooLong(descriptors.len()));
            }
            body.extend_from_slice(head);
            body.extend_from_slice(&(0xe000 | pid & 0x1fff).to_be_bytes());
            body.extend_from_slice(&(0xf000 | descriptors.len() as u16).to_be_bytes());
            body.extend_from_slice(descriptors);
            Ok(())
        };
        field(&[], self.pcr_pid, &self.descriptors)?;
        for stream in &self.streams {
            field(&[stream.stream_type], stream.pid, &stream.descriptors)?;
        }
        let header = Header { id: self.program, version: self.version, section: 0, last_section: 0 };
        close(PMT_TABLE, header, &body)
    }
}

/// (tag, payload) of each descriptor in a loop; one that is cut off ends it.
pub fn descriptors(mut raw: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [tag, len, rest @ ..] = raw else { return None };
        let (payload, next) = rest.split_at_checked(usize::from(*len))?;
        raw = next;
        Some((*tag, payload))
    })
}

/// Splits a section over packets of `pid`, the last one stuffed. `continuity` is the counter of the first packet
/// and is left at that of the next one.
pub fn packetize(section: &[u8], pid: u16, continuity: &mut u8, mut emit: impl FnMut(&[u8; PACKET])) {
    let mut rest = section;
    let mut first = true;
    while first || !rest.is_empty() {
        let mut packet = [0xff; PACKET];
        let start = if first { 0x40 } else { 0 };
        let head = [SYNC, start | (pid >> 8) as u8 & 0x1f, pid as u8, 0x10 | *continuity & 0x0f, 0];
        let head = if first { &head[..] } else { &head[..4] };
        let (taken, next) = rest.split_at(rest.len().min(PACKET - head.len()));
        packet[..head.len()].copy_from_slice(head);
        packet[head.len()..head.len() + taken.len()].copy_from_slice(taken);
        emit(&packet);
        *continuity = (*continuity + 1) & 0x0f;
        (rest, first) = (next, false);
    }
}

/// What the long header says behind the length (2.4.4.4): the table's own number, version, place among sections.
struct Header {
    id: u16,
    version: u8,
    section: u8,
    last_section: u8,
}

/// Checks a section and takes header and CRC off.
fn open(section: &[u8], expected: u8) -> Result<(Header, &[u8]), PsiError> {
    let found = section.first().copied().unwrap_or(0xff);
    if found != expected {
        return Err(PsiError::Table { found, expected });
    }
    let len = section_len(section).ok_or(PsiError::Truncated(found))?;
    let section = section.get(..len).ok_or(PsiError::Truncated(found))?;
    let [_, _, _, i0, i1, version, number, last_section, body @ ..] = section else {
        return Err(PsiError::Truncated(found));
    };
    let body =
        body.len().checked_sub(CRC).and_then(|end| body.get(..end)).ok_or(PsiError::Truncated(found))?;
    if mpegts_crc::sum32(section) != 0 {
        return Err(PsiError::Crc(found));
    }
    if version & 1 == 0 {
        return Err(PsiError::NotCurrent(found));
    }
    let id = u16::from_be_bytes([*i0, *i1]);
    let header = Header { id, version: version >> 1 & 0x1f, section: *number, last_section: *last_section };
    Ok((header, body))
}

/// Puts header and CRC around a body.
fn close(table: u8, header: Header, body: &[u8]) -> Result<Vec<u8>, PsiError> {
    let len = HEADER + 5 + body.len() + CRC;
    if len > SECTION_MAX {
        return Err(PsiError::TooLong(len));
    }
    let mut section = Vec::with_capacity(len);
    section.push(table);
    section.extend_from_slice(&(0xb000 | (len - HEADER) as u16).to_be_bytes());
    section.extend_from_slice(&header.id.to_be_bytes());
    section.extend_from_slice(&[0xc1 | (header.version & 0x1f) << 1, header.section, header.last_section]);
    section.extend_from_slice(body);
    section.extend_from_slice(&mpegts_crc::sum32(&section).to_be_bytes());
    Ok(section)
}

/// Length of a whole section, once table_id and section_length are there.
fn section_len(section: &[u8]) -> Option<usize> {
    let [_, l0, l1, ..] = section else { return None };
    Some(HEADER + loop_len(*l0, *l1))
}

fn loop_len(high: u8, low: u8) -> usize {
    usize::from(u16::from_be_bytes([high & 0x0f, low]))
}

fn pid(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high & 0x1f, low])
}

/// table_id and section_length.
const HEADER: usize = 3;
const CRC: usize = 4;
const PAT_TABLE: u8 = 0;
const PMT_TABLE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ts::packet::Packet;
    use proptest::prelude::*;

    fn pat() -> Pat {
        let programs = vec![(1, 0x1000), (7, 0x1100)];
        Pat { transport_stream_id: 5, version: 3, nit_pid: Some(16), programs, ..Pat::default() }
    }

    fn pmt(streams: u16) -> Pmt {
        let stream =
            |i| Stream { stream_type: 0x1b, pid: 0x100 + i, descriptors: vec![5, 4, 0x4b, 0x4c, 0x56, 0x41] };
        let streams = (0..streams).map(stream).collect();
        Pmt { program: 1, version: 31, pcr_pid: 0x100, descriptors: vec![9, 1, 2], streams }
    }

    fn assemble(assembler: &mut Assembler, packets: &[[u8; PACKET]]) -> Vec<Vec<u8>> {
        let mut sections = Vec::new();
        for packet in packets {
            let packet = Packet::new(packet).unwrap();
            assembler
                .push(packet.payload().unwrap(), packet.starts_unit(), &mut |s| sections.push(s.to_vec()));
        }
        sections
    }

    fn packets(section: &[u8], count: &mut u8) -> Vec<[u8; PACKET]> {
        let mut packets = Vec::new();
        packetize(section, 0x1000, count, |p| packets.push(*p));
        packets
    }

    #[test]
    fn tables_survive_writing_and_reading() {
        assert_eq!(Pat::parse(&pat().section().unwrap()), Ok(pat()));
        for streams in [0, 1, 40] {
            let section = pmt(streams).section().unwrap();
            assert_eq!(Pmt::parse(&section), Ok(pmt(streams)));
            let mut count = 14;
            let packets = packets(&section, &mut count);
            assert_eq!(packets.len(), (section.len() + 1).div_ceil(184));
            assert_eq!(usize::from(count), (14 + packets.len()) % 16);
            assert_eq!(assemble(&mut Assembler::default(), &packets), [section]);
        }
        assert_eq!(pmt(100).section(), Err(PsiError::TooLong(1119)));
    }

    #[test]
    fn refuses_what_is_damaged() {
        let good = pmt(2).section().unwrap();
        for at in 3..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(Pmt::parse(&bad), Err(PsiError::Crc(2)), "byte {at}");
            assert_eq!(Pmt::parse(&good[..at]), Err(PsiError::Truncated(2)));
        }
        assert_eq!(Pat::parse(&good), Err(PsiError::Table { found: 2, expected: 0 }));
        let mut next = good[..good.len() - CRC].to_vec();
        next[5] &= !1;
        next.extend_from_slice(&mpegts_crc::sum32(&next).to_be_bytes());
        assert_eq!(Pmt::parse(&next), Err(PsiError::NotCurrent(2)));
    }

    #[test]
    fn several_sections_in_a_packet_and_a_lost_packet() {
        let (one, big) = (pat().section().unwrap(), pmt(40).section().unwrap());
        let mut both = one.clone();
        both.extend_from_slice(&one);
        both.extend_from_slice(&big);
        let packets = packets(&both, &mut 0);
        let mut assembler = Assembler::default();
        assert_eq!(assemble(&mut assembler, &packets), [one.clone(), one.clone(), big]);
        assert_eq!(assemble(&mut assembler, &packets[..2]), [one.clone(), one.clone()]);
        assembler.reset();
        assert_eq!(assemble(&mut assembler, &packets[2..]), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_long_private_section_is_stepped_over() {
        let mut both = vec![0x80, 0x3f, 0xff];
        both.resize(3 + 0xfff, 0x02);
        let mut packets = packets(&both, &mut 0);
        // the next section starts in the last packet of the long one
        let behind = pat().section().unwrap();
        let last = packets.last_mut().unwrap();
        let tail = (both.len() - 183) % 184;
        last[1] |= 0x40;
        last.copy_within(4..4 + tail, 5);
        last[4] = tail as u8;
        last[5 + tail..5 + tail + behind.len()].copy_from_slice(&behind);
        assert_eq!(assemble(&mut Assembler::default(), &packets), [behind]);
    }

    #[test]
    fn descriptors_end_where_one_is_cut_off() {
        let raw = [5, 2, 1, 2, 9, 0, 0x26, 3, 1];
        assert_eq!(descriptors(&raw).collect::<Vec<_>>(), [(5, &[1, 2][..]), (9, &[][..])]);
    }

    proptest! {
        /// Sections laid end to end, cut anywhere, with the pointer_field that each cut needs.
        #[test]
        fn sections_come_out_wherever_they_are_cut(
            sizes in prop::collection::vec(0u16..45, 1..6),
            cuts in prop::collection::vec(1usize..183, 1..60),
        ) {
            let sections: Vec<_> = sizes.iter().map(|&n| pmt(n).section().unwrap()).collect();
            let starts: Vec<_> =
                sections.iter().scan(0, |at, s| Some(std::mem::replace(at, *at + s.len()))).collect();
            let bytes = sections.concat();
            let mut assembler = Assembler::default();
            let mut found = Vec::new();
            let (mut at, mut cut) = (0, cuts.iter().cycle());
            while at < bytes.len() {
                let end = bytes.len().min(at + cut.next().unwrap());
                let start = starts.iter().find(|s| (at..end).contains(s));
                let mut payload = start.map(|s| (s - at) as u8).into_iter().collect::<Vec<_>>();
                payload.extend_from_slice(&bytes[at..end]);
                assembler.push(&payload, start.is_some(), &mut |s| found.push(s.to_vec()));
                at = end;
            }
            prop_assert_eq!(found, sections);
        }

        #[test]
        fn any_bytes_are_safe(packets in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..184)), 0..30)) {
            let mut assembler = Assembler::default();
            for (start, payload) in packets {
                assembler.push(&payload, start, &mut |s| {
                    assert!(s.len() <= SECTION_MAX);
                    let _ = (Pat::parse(s), Pmt::parse(s));
                });
                assert!(assembler.section.len() <= SECTION_MAX);
            }
        }
    }
}
