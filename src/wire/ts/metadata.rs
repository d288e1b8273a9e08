//! PES packets of metadata enter, whole KLV packets leave (SMPTE ST 336; ISO/IEC 13818-1, 2.12.4; MISB ST 1402), and
//! back into metadata access unit cells. Never believes what the tables say: only the bytes tell how they travel.

/// How KLV travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carriage {
    /// Bare, as asynchronous carriage has it.
    Bare,
    /// In metadata access unit cells, as synchronous carriage has it.
    Cells,
}

/// Takes KLV out of the PES packets of one PID.
#[derive(Debug, Default)]
pub struct Metadata {
    /// The start of a bare KLV packet that goes on in the next PES packet, and how long it will be.
    bare: Vec<u8>,
    wanted: usize,
    /// Fragments of a metadata access unit.
    fragments: Vec<u8>,
    sequence: Option<u8>,
    counters: Counters,
}

/// What a [`Metadata`] saw so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Units handed out.
    pub units: u64,
    /// Cells whose sequence number did not follow.
    pub gaps: u64,
    /// Units that were given up: a part was missing, or they were longer than 256 kB.
    pub broken: u64,
    /// PES packets without KLV.
    pub foreign: u64,
}

impl Metadata {
    /// Takes what a whole PES packet carries and hands out the KLV in it: all packets of bare carriage at once, each
    /// metadata access unit on its own.
    pub fn push(&mut self, payload: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        if payload.starts_with(&LABEL) {
            self.broken(Carriage::Bare);
            self.push_bare(payload, emit);
        } else if self.starts_cell(payload) {
            self.broken(Carriage::Bare);
            self.push_cells(payload, emit);
        } else if self.wanted > self.bare.len() {
            self.go_on(payload, emit);
        } else {
            self.counters.foreign += 1;
        }
    }

    /// Something is missing in front of the next PES packet.
    pub fn reset(&mut self) {
        self.broken(Carriage::Bare);
        self.broken(Carriage::Cells);
        self.sequence = None;
    }

    /// What was seen so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bare packets: the last one may go on in the next PES packet.
    fn push_bare(&mut self, payload: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        let mut end = 0;
        while let Some(rest) = payload.get(end..).filter(|rest| rest.starts_with(&LABEL)) {
            match klv_len(rest) {
                Some(length) if length <= rest.len() => end += length,
                Some(length) if length <= LONGEST => {
                    self.bare.extend_from_slice(rest);
                    self.wanted = length;
                    break;
                }
                // Its length is cut off or beyond reason: as it came, for whoever can make something of it.
                _ => {
                    end = payload.len();
                    break;
                }
            }
        }
        // Zeros and other bytes behind the last one are left out.
        if let Some(whole) = payload.get(..end).filter(|whole| !whole.is_empty()) {
            self.counters.units += 1;
            emit(whole, Carriage::Bare);
        }
    }

    fn go_on(&mut self, payload: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        let missing = self.wanted.saturating_sub(self.bare.len());
        let (part, rest) = payload.split_at(missing.min(payload.len()));
        self.bare.extend_from_slice(part);
        if self.bare.len() < self.wanted {
            return;
        }
        self.counters.units += 1;
        emit(&self.bare, Carriage::Bare);
        (self.bare, self.wanted) = (Vec::new(), 0);
        if rest.starts_with(&LABEL) {
            self.push_bare(rest, emit);
        }
    }

    /// Whether a cell starts here: one that starts a unit holds a label, one that goes on with a unit is expected.
    fn starts_cell(&self, payload: &[u8]) -> bool {
        let Some((cell, body, _)) = Cell::split(payload) else { return false };
        if cell.starts { body.starts_with(&LABEL) } else { !self.fragments.is_empty() }
    }

    fn push_cells(&mut self, mut payload: &[u8], emit: &mut impl FnMut(&[u8], Carriage)) {
        while let Some((cell, body, rest)) = Cell::split(payload) {
            payload = rest;
            // Some encoders leave every number 0: that is no gap.
            if self
                .sequence
                .is_some_and(|last| cell.sequence != last.wrapping_add(1) && cell.sequence != last)
            {
                self.counters.gaps += 1;
                self.broken(Carriage::Cells);
            }
            self.sequence = Some(cell.sequence);
            match (cell.starts, cell.ends) {
                (true, true) => {
                    self.broken(Carriage::Cells);
                    if !body.is_empty() {
                        self.counters.units += 1;
                        emit(body, Carriage::Cells);
                    }
                }
                (true, false) => {
                    self.broken(Carriage::Cells);
                    self.fragments.extend_from_slice(body);
                }
                // A part of a unit whose start is missing.
                (false, _) if self.fragments.is_empty() => {}
                (false, ends) => {
                    self.fragments.extend_from_slice(body);
                    if self.fragments.len() > LONGEST {
                        self.broken(Carriage::Cells);
                    } else if ends {
                        self.counters.units += 1;
                        emit(&self.fragments, Carriage::Cells);
                        self.fragments = Vec::new();
                    }
                }
            }
        }
    }

    /// Gives up what is under way.
    fn broken(&mut self, carriage: Carriage) {
        let under_way = match carriage {
            Carriage::Bare => {
                self.wanted = 0;
                &mut self.bare
            }
            Carriage::Cells => &mut self.fragments,
        };
        self.counters.broken += u64::from(!under_way.is_empty());
        under_way.clear();
    }
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
    /// The cell at the start: header, body, what stands behind it. None when it is cut off.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let &[service, sequence, flags, l0, l1, ref rest @ ..] = bytes else { return None };
        let (body, rest) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        let (starts, ends, reserved) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 0x0f == 0x0f);
        Some((Self { service, sequence, starts, ends, reserved }, body, rest))
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
        let length = Some(bytes).filter(|b| b.starts_with(&LABEL)).and_then(klv_len);
        let (packet, rest) = bytes.split_at(length.unwrap_or(bytes.len()).min(bytes.len()));
        bytes = rest;
        Some(packet)
    })
}

/// Bytes of the KLV packet that starts here, key and length included; none when its length is cut off or beyond
/// 2^32 (SMPTE ST 336, 5: BER, short or long form).
pub fn klv_len(bytes: &[u8]) -> Option<usize> {
    let (&first, rest) = bytes.get(KEY..)?.split_first()?;
    let long = usize::from(first & 0x7f);
    if first < 0x80 {
        return Some(KEY + 1 + usize::from(first));
    }
    let digits = rest.get(..long).filter(|digits| !digits.is_empty())?;
    let value = digits.iter().try_fold(0u64, |value, &digit| {
        value.checked_mul(256).map(|value| value | u64::from(digit)).filter(|&value| value <= u32::MAX.into())
    })?;
    Some(KEY + 1 + long + value as usize)
}

/// metadata_service_id of the cells that are made here.
pub const SERVICE: u8 = 0;
/// The bytes with which every universal label of SMPTE begins (ST 298).
const LABEL: [u8; 4] = [0x06, 0x0e, 0x2b, 0x34];
/// Bytes of a key.
const KEY: usize = 16;
/// Longest unit that is put together.
const LONGEST: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn klv(length: usize, fill: u8) -> Vec<u8> {
        let mut packet = LABEL.to_vec();
        packet.resize(KEY, 1);
        if length < 128 {
            packet.push(length as u8);
        } else {
            packet.extend_from_slice(&[0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]);
        }
        packet.resize(packet.len() + length, fill);
        packet
    }

    fn units(metadata: &mut Metadata, payload: &[u8]) -> Vec<(Vec<u8>, Carriage)> {
        let mut found = Vec::new();
        metadata.push(payload, &mut |unit, carriage| found.push((unit.to_vec(), carriage)));
        found
    }

    #[test]
    fn bare_packets_alone_together_and_in_parts() {
        let mut metadata = Metadata::default();
        let (a, b) = (klv(100, 1), klv(70_000, 2));
        assert_eq!(units(&mut metadata, &a), [(a.clone(), Carriage::Bare)]);
        let both = [a.clone(), a.clone()].concat();
        assert_eq!(units(&mut metadata, &[&both[..], &[0, 0]].concat()), [(both, Carriage::Bare)]);
        assert!(units(&mut metadata, &b[..60_000]).is_empty());
        assert_eq!(units(&mut metadata, &b[60_000..]), [(b.clone(), Carriage::Bare)]);
        // the rest of one never comes
        assert!(units(&mut metadata, &b[..60_000]).is_empty());
        assert_eq!(units(&mut metadata, &a), [(a.clone(), Carriage::Bare)]);
        assert!(units(&mut metadata, &b[60_000..]).is_empty());
        let counters = metadata.counters();
        assert_eq!((counters.units, counters.broken, counters.foreign), (4, 1, 1));
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
                    payload[at..at + 4].copy_from_slice(&LABEL);
                }
                units(&mut metadata, &payload);
                prop_assert!(metadata.bare.len() + metadata.fragments.len() <= 2 * LONGEST);
                prop_assert!(klv_packets(&payload).map(<[u8]>::len).sum::<usize>() == payload.len());
            }
        }
    }
}
