//! Payloads of one PID enter, whole PES packets leave. Never holds more than one, nor more of it than allowed.

use super::format::Format;
use crate::wire::ts::metadata::is_whole;
use crate::wire::ts::pes::PesHeader;

/// The PES packet under way on one PID.
#[derive(Debug)]
pub(super) struct Assembly {
    bytes: Vec<u8>,
    header: Option<PesHeader>,
    /// Bytes of the whole packet, where it says that.
    total: Option<usize>,
    most: usize,
    open: bool,
    damaged: bool,
    /// Bytes before the first place where something is missing.
    sound: Option<usize>,
    /// A packet without a length ends where its KLV does.
    metadata: bool,
    random_access: bool,
    stuffing: Stuffing,
}

/// What a payload, or the end of a packet, came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is to come, or nothing was under way.
    Open,
    /// The packet is whole.
    Whole,
    /// Nothing more comes of it, and something is missing.
    Damaged,
    /// It is none, or too long.
    Refused,
}

/// Whether stuffing in a transport packet is the end of a PES packet on this PID.
#[derive(Debug, Clone, Copy)]
struct Stuffing {
    /// PES packets in a row that bear it out.
    confirmed: u32,
    /// Something came behind stuffing.
    refuted: bool,
    /// The last payload had stuffing in front.
    last: bool,
    /// The packet left at its stuffing.
    closed: bool,
}

impl Assembly {
    pub(super) fn new(format: Format) -> Self {
        Self {
            bytes: Vec::new(),
            header: None,
            total: None,
            most: if format.is_video() { PICTURE_MOST } else { OTHER_MOST },
            open: false,
            damaged: false,
            sound: None,
            metadata: matches!(format, Format::Metadata { .. }),
            random_access: false,
            stuffing: Stuffing { confirmed: 0, refuted: false, last: false, closed: false },
        }
    }

    /// A PES packet starts with the next payload.
    pub(super) fn start(&mut self, random_access: bool) {
        self.clear();
        self.open = true;
        self.random_access = random_access;
        (self.stuffing.last, self.stuffing.closed) = (false, false);
    }

    /// Takes the next payload; `stuffed`: its packet was filled up. Returns the header when it was completed by it.
    pub(super) fn push(&mut self, payload: &[u8], stuffed: bool) -> (Option<PesHeader>, Progress) {
        if !self.open {
            if self.stuffing.closed && !payload.is_empty() {
                // It was not the end after all.
                self.stuffing.refuted = true;
            }
            return (None, Progress::Open);
        }
        if self.stuffing.last {
            self.stuffing.refuted = true;
        }
        self.stuffing.last = stuffed;
        if self.bytes.len() + payload.len() > self.most {
            self.give_up();
            return (None, Progress::Refused);
        }
        self.bytes.extend_from_slice(payload);
        let mut started = None;
        if self.header.is_none() {
            match read_header(&self.bytes) {
                Ok(None) => return (None, Progress::Open),
                Err(NotPes) => {
                    self.give_up();
                    return (None, Progress::Refused);
                }
                Ok(Some(header)) => {
                    let length = usize::from(header.packet_length);
                    self.total = (length > 0).then_some(LENGTH_END + length);
                    self.header = Some(header);
                    started = self.header;
                }
            }
        }
        let ended = match self.total {
            Some(total) => self.bytes.len() >= total,
            None => stuffed && (self.stuffing.is_end() || self.metadata && self.is_whole_metadata()),
        };
        if !ended {
            return (started, Progress::Open);
        }
        self.stuffing.closed = self.total.is_none();
        (started, self.close())
    }

    /// Nothing more comes of the packet under way.
    pub(super) fn finish(&mut self) -> Progress {
        if !self.open {
            return Progress::Open;
        }
        if self.total.is_none() && !self.damaged && self.stuffing.last {
            self.stuffing.confirmed = self.stuffing.confirmed.saturating_add(1);
        }
        // One that says its length and is not yet there has lost its end.
        self.damaged |= self.total.is_some() || self.header.is_none();
        self.close()
    }

    /// Something of the packet under way is missing.
    pub(super) fn spoil(&mut self) {
        self.damaged = true;
        self.sound.get_or_insert(self.bytes.len());
    }

    /// Whether something of the packet under way is missing.
    pub(super) fn is_spoiled(&self) -> bool {
        self.sound.is_some()
    }

    /// How many bytes that it carries came before the first place where something is missing; all, where nothing is
    /// but what its length promised.
    pub(super) fn sound(&self) -> usize {
        let Some((header, data, _)) = self.packet() else { return 0 };
        self.sound.map_or(data.len(), |sound| sound.saturating_sub(header.header_len).min(data.len()))
    }

    /// Forgets the packet under way and whatever else comes of it.
    pub(super) fn give_up(&mut self) {
        self.clear();
        self.open = false;
    }

    /// What was put together: header, what it carries, random_access_indicator.
    pub(super) fn packet(&self) -> Option<(PesHeader, &[u8], bool)> {
        let header = self.header?;
        let end = self.total.unwrap_or(self.bytes.len()).min(self.bytes.len());
        Some((header, self.bytes.get(header.header_len..end).unwrap_or_default(), self.random_access))
    }

    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Makes room for the next packet.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        (self.header, self.total) = (None, None);
        (self.damaged, self.sound) = (false, None);
    }

    fn is_whole_metadata(&self) -> bool {
        let Some(header) = self.header else { return false };
        is_whole(self.bytes.get(header.header_len..).unwrap_or_default())
    }

    fn close(&mut self) -> Progress {
        self.open = false;
        match self.header {
            None => Progress::Refused,
            Some(header) if header.scrambling != 0 => Progress::Refused,
            Some(_) if self.damaged => Progress::Damaged,
            Some(_) => Progress::Whole,
        }
    }
}

impl Stuffing {
    fn is_end(self) -> bool {
        !self.refuted && self.confirmed >= CONFIRMED
    }
}

struct NotPes;

/// The header, when enough of it is there.
fn read_header(bytes: &[u8]) -> Result<Option<PesHeader>, NotPes> {
    const START: [u8; 3] = [0, 0, 1];
    if bytes.iter().zip(START).any(|(byte, start)| *byte != start) {
        return Err(NotPes);
    }
    match PesHeader::parse(bytes) {
        Some(header) if header.header_len <= bytes.len() => Ok(Some(header)),
        None if bytes.len() >= FIXED => Err(NotPes),
        _ => Ok(None),
    }
}

/// End of PES_packet_length.
const LENGTH_END: usize = 6;
/// End of PES_header_data_length.
const FIXED: usize = 9;
/// Longest PES packet of pictures: an intra picture of 8K at its highest level is smaller.
const PICTURE_MOST: usize = 8 << 20;
/// Longest of anything else: more than a length can say, which some leave out where they must not.
const OTHER_MOST: usize = 256 << 10;
/// PES packets that bear out that stuffing is the end, before it is believed.
const CONFIRMED: u32 = 64;
/// Room that is kept for the next packet.
const KEPT: usize = 1 << 20;
