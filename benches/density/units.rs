//! The transport stream for outputs that carry access units and not packets: H.264 and AAC, each unit with a number in
//! it and the time at which the one before it had left, and known byte by byte.
//!
//! Constant bit rate; a picture in every 15 datagrams, a frame of sound when its time has come. Pictures are padded with
//! user data (SEI), sound with a data stream element: filler does not get through an engine that takes streams apart.

use crate::picture::{self, Bits, START_CODE};
use crate::stream::{
    Adaptation, DATAGRAM, PACKET, PAT, PAT_PID, PCR_EVERY, PICTURE, PICTURES, PMT_PID, PTS_AHEAD, VIDEO_PID,
    clock_at, encode_pcr, encode_pts, pmt, with_crc,
};

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Picture = 0,
    Sound = 1,
}

/// What a unit says about itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// Its number among those of its kind, from 0.
    pub(crate) number: u64,
    /// When the last byte of the one before it left, on the clock of [`crate::sys::now`].
    pub(crate) before_left_at: u64,
}

/// Where units are in a stream, and what they are.
pub(crate) struct Layout {
    bits_per_second: u64,
    slices: Vec<Vec<u8>>,
}

/// A stream that is written datagram by datagram.
pub(crate) struct UnitStream {
    layout: Layout,
    /// The picture whose datagrams are made.
    picture: Option<u64>,
    datagrams: Vec<[u8; DATAGRAM]>,
    /// Next continuity counter of PAT, PMT, video and sound.
    continuity: [u8; 4],
    /// When the last unit of each kind had left.
    left: [u64; 2],
}

/// What a packet of a datagram is.
enum Slot {
    Pat,
    Pmt,
    Picture(Adaptation),
    /// First or second half of a frame of sound.
    Sound(usize),
}

impl Stamp {
    /// Looks for the stamp near the beginning of a unit.
    pub(crate) fn find(unit: &[u8]) -> Option<Self> {
        let near = &unit[..unit.len().min(LOOK)];
        let behind = memchr::memmem::find(near, &MAGIC)? + MAGIC.len();
        let read = |at: usize| {
            let groups = unit.get(behind + at..behind + at + GROUPS)?;
            Some(groups.iter().fold(0, |sum, group| sum << 7 | u64::from(group & 0x7f)))
        };
        Some(Self { number: read(0)?, before_left_at: read(GROUPS)? })
    }

    /// Seven bits in each byte and never zero: a start code cannot arise.
    fn write(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        let group = |value: u64, place: usize| 0x80 | (value >> (7 * (GROUPS - 1 - place))) as u8;
        for place in 0..GROUPS {
            bytes[MAGIC.len() + place] = group(self.number, place);
            bytes[MAGIC.len() + GROUPS + place] = group(self.before_left_at, place);
        }
        bytes
    }
}

impl Layout {
    /// Of a stream of this rate.
    pub(crate) fn new(megabits_per_second: f64) -> Self {
        let slices = (0..PICTURES).map(picture::coded_slice).collect();
        Self { bits_per_second: (megabits_per_second * 1e6) as u64, slices }
    }

    /// Units of each kind that are complete before a datagram.
    pub(crate) fn units_before(&self, datagram: u64) -> [u64; 2] {
        [datagram / PICTURE, self.sounds_before(datagram)]
    }

    /// A unit without what is around it in the stream: NAL units behind their lengths, without the delimiter, or a
    /// frame without ADTS.
    pub(crate) fn unit(&self, kind: Kind, stamp: Stamp) -> Vec<u8> {
        match kind {
            Kind::Sound => sound(stamp).into(),
            Kind::Picture => {
                let nals = self.nals(stamp).1;
                let prefixed =
                    nals.into_iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], &nal].concat());
                prefixed.collect()
            }
        }
    }

    /// A frame goes into the first datagram that leaves when its time has come.
    fn sounds_before(&self, datagram: u64) -> u64 {
        let Some(last) = datagram.checked_sub(1) else { return 0 };
        clock_at(self.bits_per_second, last * DATAGRAM as u64) / SOUND_CLOCK + 1
    }

    fn slot(&self, datagram: u64, slot: usize) -> Slot {
        let first = datagram.is_multiple_of(PICTURE);
        let pcr = datagram.is_multiple_of(PCR_EVERY);
        let random_access = (datagram / PICTURE).is_multiple_of(PICTURES);
        match (first, slot) {
            (true, 0) => Slot::Pat,
            (true, 1) => Slot::Pmt,
            (true, 2) => Slot::Picture(Adaptation { pcr, random_access, start: true }),
            (false, 0) => Slot::Picture(Adaptation { pcr, ..Adaptation::default() }),
            (_, 5 | 6) if self.sounds_before(datagram + 1) > self.sounds_before(datagram) => {
                Slot::Sound(slot - 5)
            }
            _ => Slot::Picture(Adaptation::default()),
        }
    }

    /// Stuffing of its PES header, and the NAL units of a picture without the delimiter: parameter sets where decoding
    /// can start, user data as long as there is room, the slice.
    fn nals(&self, stamp: Stamp) -> (usize, Vec<Vec<u8>>) {
        let first = stamp.number * PICTURE;
        let mut room = 0;
        for datagram in first..first + PICTURE {
            for slot in 0..DATAGRAM / PACKET {
                if let Slot::Picture(adaptation) = self.slot(datagram, slot) {
                    room += PACKET - 4 - adaptation.length();
                }
            }
        }
        let index = stamp.number % PICTURES;
        let mut nals: Vec<Vec<u8>> = picture::parameter_sets(index).collect();
        let slice = self.slices[index as usize].clone();
        let delimiter = picture::delimiter(index);
        let fixed = [&delimiter, &slice].into_iter().chain(&nals);
        let used: usize = fixed.map(|nal| START_CODE.len() + nal.len()).sum();
        // Start code, NAL header, payload type, stop bit.
        let room = room - PES_HEADER - used - START_CODE.len() - 3;
        // Sizes are told in bytes of 255 (7.3.2.3.1), so that some lengths cannot be had.
        let length = |size: usize| size + size / 255 + 1;
        let fitting = |stuffing: usize| {
            let most = room - stuffing - 1;
            let sizes = most - most / 255..=most;
            sizes.into_iter().find(|&size| length(size) == room - stuffing).map(|size| (stuffing, size))
        };
        let (stuffing, size) = (0..2).find_map(fitting).unwrap_or((0, STAMP));
        let mut data = vec![SEI, USER_DATA];
        data.resize(2 + size / 255, 0xff);
        data.push((size % 255) as u8);
        data.extend(stamp.write());
        data.extend(pattern(stamp.number, size - STAMP));
        data.push(0x80);
        nals.extend([data, slice]);
        (stuffing, nals)
    }
}

impl UnitStream {
    /// One that begins.
    pub(crate) fn new(megabits_per_second: f64) -> Self {
        Self {
            layout: Layout::new(megabits_per_second),
            picture: None,
            datagrams: Vec::new(),
            continuity: [0; 4],
            left: [0; 2],
        }
    }

    /// Writes a datagram; each is the one behind the last.
    pub(crate) fn write(&mut self, datagram: u64, sent_at: u64, out: &mut [u8; DATAGRAM]) {
        let (picture, place) = (datagram / PICTURE, datagram % PICTURE);
        if self.picture != Some(picture) {
            self.make(picture);
        }
        *out = self.datagrams[place as usize];
        if let Slot::Sound(_) = self.layout.slot(datagram, 5) {
            let number = self.layout.sounds_before(datagram);
            let stamp = Stamp { number, before_left_at: self.left[Kind::Sound as usize] };
            out[SOUND_STAMP..SOUND_STAMP + STAMP].copy_from_slice(&stamp.write());
            self.left[Kind::Sound as usize] = sent_at;
        }
        if place == PICTURE - 1 {
            self.left[Kind::Picture as usize] = sent_at;
        }
    }

    fn make(&mut self, number: u64) {
        self.picture = Some(number);
        let first = number * PICTURE;
        let stamp = Stamp { number, before_left_at: self.left[Kind::Picture as usize] };
        let (stuffing, nals) = self.layout.nals(stamp);
        let mut unit = Vec::new();
        for nal in [picture::delimiter(number % PICTURES)].into_iter().chain(nals) {
            unit.extend(START_CODE);
            unit.extend(nal);
        }
        let clock = |datagram: u64, at: usize| {
            clock_at(self.layout.bits_per_second, datagram * DATAGRAM as u64 + at as u64)
        };
        let pes = pes(0xe0, clock(first, 0) / 300 + PTS_AHEAD, stuffing, &unit);
        let mut rest = pes.as_slice();
        let mut made = Vec::new();
        for datagram in first..first + PICTURE {
            let mut bytes = [0xff; DATAGRAM];
            for slot in 0..DATAGRAM / PACKET {
                let at = slot * PACKET;
                let (pid, start, field, body) = match self.layout.slot(datagram, slot) {
                    Slot::Pat => (PAT_PID, true, Vec::new(), with_crc(&PAT)),
                    Slot::Pmt => (PMT_PID, true, Vec::new(), with_crc(&pmt(Some((ADTS, SOUND_PID))))),
                    Slot::Sound(half) => {
                        let number = self.layout.sounds_before(datagram);
                        let pts = number * SOUND_CLOCK / 300 + PTS_AHEAD;
                        let whole = pes_of_sound(Stamp { number, before_left_at: 0 }, pts);
                        let (one, other) = whole.split_at(PACKET - 4);
                        let body = if half == 0 { one } else { other };
                        (SOUND_PID, half == 0, Vec::new(), body.to_vec())
                    }
                    Slot::Picture(adaptation) => {
                        let mut field = adaptation.bytes();
                        if adaptation.pcr {
                            field[2..8].copy_from_slice(&encode_pcr(clock(datagram, at + 6)));
                        }
                        let (now, later) = rest.split_at(PACKET - 4 - field.len());
                        rest = later;
                        (VIDEO_PID, adaptation.start, field, now.to_vec())
                    }
                };
                let stream = PIDS.iter().position(|&known| known == pid).unwrap_or(0);
                let continuity = self.continuity[stream];
                self.continuity[stream] = (continuity + 1) % 16;
                let control = if field.is_empty() { 0b01 } else { 0b11 };
                let pid = pid | u16::from(start) << 14;
                let head = [0x47, (pid >> 8) as u8, pid as u8, control << 4 | continuity];
                let packet = [&head[..], &field, &body].concat();
                bytes[at..at + packet.len()].copy_from_slice(&packet);
            }
            made.push(bytes);
        }
        self.datagrams = made;
    }
}

/// A PES packet that says its length, so that it is over with its last byte.
fn pes(stream_id: u8, pts: u64, stuffing: usize, data: &[u8]) -> Vec<u8> {
    let [high, low] = ((PES_HEADER - 6 + stuffing + data.len()) as u16).to_be_bytes();
    let mut packet = vec![0, 0, 1, stream_id, high, low, 0x80, 0x80, (5 + stuffing) as u8];
    packet.extend(encode_pts(pts % (1 << 33)));
    packet.resize(packet.len() + stuffing, 0xff);
    packet.extend(data);
    packet
}

fn pes_of_sound(stamp: Stamp, pts: u64) -> Vec<u8> {
    let length = ADTS_HEADER + SOUND;
    // ISO/IEC 14496-3, 1.A.3.2: MPEG-4, no CRC; LC, 48 kHz, one channel; the length; no other frame in it.
    let head = [
        0xff,
        0xf1,
        0x4c,
        0x40 | (length >> 11) as u8,
        (length >> 3) as u8,
        (length << 5) as u8 | 0x1f,
        0xfc,
    ];
    pes(0xc0, pts, 0, &[&head[..], &sound(stamp)].concat())
}

/// A frame of AAC: a data stream element with the stamp, and silence.
fn sound(stamp: Stamp) -> [u8; SOUND] {
    let mut frame = [0; SOUND];
    // ISO/IEC 14496-3, 4.4.2.7: element 4, tag 0, aligned; a count of 255 and more.
    let data = SOUND - 3 - SILENCE;
    frame[..3].copy_from_slice(&[0x81, 0xff, (data - 255) as u8]);
    frame[3..3 + STAMP].copy_from_slice(&stamp.write());
    for (byte, value) in frame[3 + STAMP..3 + data].iter_mut().zip(pattern(stamp.number, data)) {
        *byte = value;
    }
    // 4.4.2.1: one channel whose spectrum has no band, and the end.
    let mut bits = Bits::default();
    bits.put(0, 3).put(0, 4).put(100, 8).put(0, 4).put(0, 6).put(0, 1).put(0, 3).put(7, 3);
    frame[3 + data..].copy_from_slice(&bits.bytes);
    frame
}

/// Bytes that no start code can arise from, others in each unit.
fn pattern(number: u64, count: usize) -> impl Iterator<Item = u8> {
    (0..count as u64).map(move |place| 0x80 | (place.wrapping_add(number) & 0x7f) as u8)
}

/// How far into a unit its stamp is looked for.
const LOOK: usize = 400;
const MAGIC: [u8; 16] = *b"millrace-density";
/// Bytes of seven bits for a number.
const GROUPS: usize = 10;
/// A stamp as it is written.
const STAMP: usize = MAGIC.len() + 2 * GROUPS;
const SEI: u8 = 6;
/// user_data_unregistered (H.264, D.1.7).
const USER_DATA: u8 = 5;

const SOUND_PID: u16 = 0x103;
const PIDS: [u16; 4] = [PAT_PID, PMT_PID, VIDEO_PID, SOUND_PID];
/// stream_type of AAC with ADTS.
const ADTS: u8 = 0x0f;
/// With a PTS.
const PES_HEADER: usize = 14;
const ADTS_HEADER: usize = 7;
/// Bytes of a frame of sound: two packets are full.
const SOUND: usize = 2 * (PACKET - 4) - PES_HEADER - ADTS_HEADER;
/// Bytes of a channel that is silent, and of the end.
const SILENCE: usize = 4;
/// Where its stamp is in a datagram: behind the headers of packet, PES packet and frame, and those of its element.
const SOUND_STAMP: usize = 5 * PACKET + 4 + PES_HEADER + ADTS_HEADER + 3;
/// 1024 samples of 48 kHz at 27 MHz.
const SOUND_CLOCK: u64 = 576_000;
