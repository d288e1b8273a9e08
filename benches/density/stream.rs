//! The transport stream that the benchmark sends: made in code, valid, and known byte by byte, so that a
//! receiver can say of each datagram which one it is, when it left, and whether it is unchanged.
//!
//! Constant bit rate; a picture of H.264 (see [`crate::picture`]) in every 15 datagrams, PAT and PMT in
//! front of each, a PCR in every tenth datagram. In a counted stream the last packet of each datagram is a
//! PES packet on a PID of its own with a 64-bit counter and the time of sending.

use crate::picture;

/// Bytes of a datagram: seven transport packets.
pub(crate) const DATAGRAM: usize = 7 * PACKET;

/// Datagrams of one picture, and of one burst of a bursty source.
pub(crate) const PICTURE: u64 = 15;

/// A stream of one bit rate, ready to be written datagram by datagram.
pub(crate) struct Stream {
    /// One group of pictures. All continuity counters come round in it, so the stream is this group again
    /// and again with the clocks and the counter written in.
    datagrams: Vec<Template>,
    bits_per_second: u64,
}

/// What a counted datagram says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which stream of the benchmark.
    pub(crate) flow: u32,
    /// Position in that stream, from 0.
    pub(crate) counter: u64,
    /// When it was sent, on the clock of [`crate::sys::now`].
    pub(crate) sent_at: u64,
    /// Continuity counter of the packet that says so.
    pub(crate) continuity: u8,
}

struct Template {
    bytes: [u8; DATAGRAM],
    /// Where the six bytes of a PCR go.
    pcr: Option<usize>,
    /// Where the five bytes of a PTS go.
    pts: Option<usize>,
    counted: bool,
}

impl Stream {
    /// Makes a stream; `counted` adds the counter packet, otherwise video takes its place.
    pub(crate) fn new(megabits_per_second: f64, counted: bool) -> Self {
        let mut writer = GroupWriter::new(counted);
        for index in 0..PICTURES {
            writer.write_picture(index);
        }
        Self { datagrams: writer.datagrams, bits_per_second: (megabits_per_second * 1e6) as u64 }
    }

    /// Nanoseconds from one datagram to the next.
    pub(crate) fn period(&self) -> f64 {
        (DATAGRAM * 8) as f64 * 1e9 / self.bits_per_second as f64
    }

    /// Writes one datagram of a flow.
    pub(crate) fn write(&self, flow: u32, counter: u64, sent_at: u64, out: &mut [u8; DATAGRAM]) {
        let template = &self.datagrams[(counter % self.datagrams.len() as u64) as usize];
        *out = template.bytes;
        if let Some(at) = template.pcr {
            let clock = self.clock_at(counter * DATAGRAM as u64 + at as u64);
            out[at..at + 6].copy_from_slice(&encode_pcr(clock));
        }
        if let Some(at) = template.pts {
            let start = counter / PICTURE * PICTURE * DATAGRAM as u64;
            let pts = (self.clock_at(start) / 300 + PTS_AHEAD) % (1 << 33);
            out[at..at + 5].copy_from_slice(&encode_pts(pts));
        }
        if template.counted {
            out[STAMP + 4..STAMP + 8].copy_from_slice(&flow.to_be_bytes());
            out[STAMP + 8..STAMP + 16].copy_from_slice(&counter.to_be_bytes());
            out[STAMP + 16..STAMP + 24].copy_from_slice(&sent_at.to_be_bytes());
        }
    }

    /// True when a datagram that says `stamp` is what was sent, to the last byte: PCR, PTS and all.
    pub(crate) fn is_unchanged(&self, stamp: &Stamp, datagram: &[u8]) -> bool {
        let mut expected = [0; DATAGRAM];
        self.write(stamp.flow, stamp.counter, stamp.sent_at, &mut expected);
        expected == datagram
    }

    fn clock_at(&self, byte: u64) -> u64 {
        clock_at(self.bits_per_second, byte)
    }
}

impl Stamp {
    /// Reads the stamp of a datagram of a counted stream.
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        let datagram: &[u8; DATAGRAM] = datagram.try_into().ok()?;
        if datagram[STAMP..STAMP + 4] != MAGIC {
            return None;
        }
        let word = |at: usize| datagram[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
        Some(Self {
            flow: (word(STAMP) & 0xffff_ffff) as u32,
            counter: word(STAMP + 8),
            sent_at: word(STAMP + 16),
            continuity: datagram[STAMP_PACKET + 3] & 0x0f,
        })
    }
}

/// Lays one group of pictures out in transport packets.
struct GroupWriter {
    datagrams: Vec<Template>,
    counted: bool,
    /// Next continuity counter of PAT, PMT, video and counter.
    continuity: [u8; 4],
}

impl GroupWriter {
    fn new(counted: bool) -> Self {
        Self { datagrams: Vec::new(), counted, continuity: [0; 4] }
    }

    fn write_picture(&mut self, index: u64) {
        let first = self.datagrams.len() as u64;
        let slots = if self.counted { 6 } else { 7 };
        let mut room = 0;
        let mut packets = Vec::new();
        for datagram in first..first + PICTURE {
            for slot in 0..slots {
                let (starts, has_pcr) = (datagram == first, datagram % PCR_EVERY == 0);
                let video = match (starts, slot) {
                    (true, 0 | 1) => None,
                    (true, 2) => Some(Adaptation { pcr: has_pcr, random_access: index == 0, start: true }),
                    (false, 0) => Some(Adaptation { pcr: has_pcr, ..Adaptation::default() }),
                    _ => Some(Adaptation::default()),
                };
                room += video.map_or(0, |adaptation| PACKET - 4 - adaptation.length());
                packets.push((slot, video));
            }
        }
        let mut video = PES_HEADER.to_vec();
        video.extend(picture::access_unit(index, room - PES_HEADER.len()));
        let mut rest = video.as_slice();
        for (slot, adaptation) in packets {
            if slot == 0 {
                self.start_datagram();
            }
            match adaptation {
                Some(adaptation) => rest = self.write_video(slot, adaptation, rest),
                None if slot == 0 => self.write_section(slot, PAT_PID, &PAT),
                None => {
                    self.write_section(slot, PMT_PID, &pmt(self.counted.then_some((PRIVATE, COUNTER_PID))))
                }
            }
            if slot == 5 && self.counted {
                self.write_counter();
            }
        }
    }

    fn start_datagram(&mut self) {
        let counted = self.counted;
        self.datagrams.push(Template { bytes: [0xff; DATAGRAM], pcr: None, pts: None, counted });
    }

    /// Writes header and payload of one packet; `body` starts behind the fourth byte.
    fn write_packet(&mut self, slot: usize, pid: u16, start: bool, control: u8, body: &[u8]) {
        let stream = PIDS.iter().position(|&known| known == pid).unwrap_or(0);
        let continuity = self.continuity[stream];
        self.continuity[stream] = (continuity + 1) % 16;
        let Some(datagram) = self.datagrams.last_mut() else { return };
        let packet = &mut datagram.bytes[slot * PACKET..(slot + 1) * PACKET];
        let pid = pid | u16::from(start) << 14;
        packet[..4].copy_from_slice(&[0x47, (pid >> 8) as u8, pid as u8, control << 4 | continuity]);
        packet[4..4 + body.len()].copy_from_slice(body);
    }

    fn write_section(&mut self, slot: usize, pid: u16, section: &[u8]) {
        self.write_packet(slot, pid, true, 0b01, &with_crc(section));
    }

    fn write_video<'a>(&mut self, slot: usize, adaptation: Adaptation, payload: &'a [u8]) -> &'a [u8] {
        let mut body = adaptation.bytes();
        let (now, later) = payload.split_at(PACKET - 4 - body.len());
        let control = if body.is_empty() { 0b01 } else { 0b11 };
        let at = slot * PACKET + 4;
        let pts = adaptation.start.then_some(at + body.len() + PES_HEADER.len() - 5);
        body.extend(now);
        self.write_packet(slot, VIDEO_PID, adaptation.start, control, &body);
        if let Some(datagram) = self.datagrams.last_mut() {
            datagram.pcr = datagram.pcr.or(adaptation.pcr.then_some(at + 2));
            datagram.pts = datagram.pts.or(pts);
        }
        later
    }

    fn write_counter(&mut self) {
        // ISO/IEC 13818-1, 2.4.3.7: private_stream_2 has no header beyond its length.
        let mut body = vec![0, 0, 1, 0xbf, 0, (PACKET - 10) as u8];
        body.extend(MAGIC);
        body.resize(PACKET - 4, 0);
        self.write_packet(6, COUNTER_PID, true, 0b01, &body);
    }
}

/// What an adaptation field says.
#[derive(Default, Clone, Copy)]
pub(crate) struct Adaptation {
    pub(crate) pcr: bool,
    pub(crate) random_access: bool,
    /// The packet starts a PES packet.
    pub(crate) start: bool,
}

impl Adaptation {
    pub(crate) fn length(self) -> usize {
        if self.pcr {
            8
        } else if self.random_access {
            2
        } else {
            0
        }
    }

    /// The field, with room for a PCR.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; self.length()];
        if let [length, flags, ..] = bytes.as_mut_slice() {
            *length = (self.length() - 1) as u8;
            *flags = u8::from(self.random_access) << 6 | u8::from(self.pcr) << 4;
        }
        bytes
    }
}

/// The 27 MHz clock at a byte of a stream.
pub(crate) fn clock_at(bits_per_second: u64, byte: u64) -> u64 {
    (u128::from(byte) * 8 * 27_000_000 / u128::from(bits_per_second)) as u64
}

/// ISO/IEC 13818-1, 2.4.3.5: 33 bits of 90 kHz, 6 reserved, 9 bits of 27 MHz.
pub(crate) fn encode_pcr(clock: u64) -> [u8; 6] {
    let (base, extension) = (clock / 300 % (1 << 33), clock % 300);
    let [_, _, field @ ..] = (base << 15 | 0x3f << 9 | extension).to_be_bytes();
    field
}

/// The five bytes of a PTS alone (ISO/IEC 13818-1, 2.4.3.7).
pub(crate) fn encode_pts(pts: u64) -> [u8; 5] {
    [
        0x21 | (pts >> 29) as u8 & 0x0e,
        (pts >> 22) as u8,
        (pts >> 14) as u8 | 1,
        (pts >> 7) as u8,
        (pts << 1) as u8 | 1,
    ]
}

/// The program map: H.264, and a stream of this type.
pub(crate) fn pmt(second: Option<(u8, u16)>) -> Vec<u8> {
    let [video_high, video_low] = VIDEO_PID.to_be_bytes();
    let mut section = vec![2, 0xb0, 0, 0, 1, 0xc1, 0, 0, 0xe0 | video_high, video_low, 0xf0, 0];
    section.extend([0x1b, 0xe0 | video_high, video_low, 0xf0, 0]);
    if let Some((kind, pid)) = second {
        let [high, low] = pid.to_be_bytes();
        section.extend([kind, 0xe0 | high, low, 0xf0, 0]);
    }
    section[2] = (section.len() - 3 + 4) as u8;
    section
}

/// A section as a packet carries it: behind a pointer_field, with its CRC.
pub(crate) fn with_crc(section: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(section);
    body.extend(crc32(section).to_be_bytes());
    body
}

/// CRC of ISO/IEC 13818-1, annex A.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

pub(crate) const PACKET: usize = 188;
/// Pictures of a group: a multiple of 16, so that every continuity counter comes round.
pub(crate) const PICTURES: u64 = 32;
/// Datagrams from PCR to PCR: 26 ms at 4 Mb/s.
pub(crate) const PCR_EVERY: u64 = 10;
/// How far a picture's PTS is ahead of the clock, at 90 kHz: 200 ms.
pub(crate) const PTS_AHEAD: u64 = 18_000;

pub(crate) const PAT_PID: u16 = 0;
pub(crate) const PMT_PID: u16 = 0x100;
pub(crate) const VIDEO_PID: u16 = 0x101;
const COUNTER_PID: u16 = 0x102;
const PIDS: [u16; 4] = [PAT_PID, PMT_PID, VIDEO_PID, COUNTER_PID];

/// Program 1 on PMT_PID.
pub(crate) const PAT: [u8; 12] = [0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe1, 0];
/// A video PES packet of open length with a PTS.
const PES_HEADER: [u8; 14] = [0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1];

const STAMP_PACKET: usize = 6 * PACKET;
/// Private PES packets (ISO/IEC 13818-1, table 2-34).
const PRIVATE: u8 = 0x06;
/// Behind the packet's and the PES packet's header.
const STAMP: usize = STAMP_PACKET + 10;
const MAGIC: [u8; 4] = *b"MRDB";
