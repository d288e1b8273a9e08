//! The first payload bytes of a PES packet enter, its header leaves (ISO/IEC 13818-1, 2.4.3.6); never holds more.
//!
//! Written here and not taken from mpeg2ts-reader because restamping needs to know where PTS and DTS stand, and
//! because that parser logs a line for every header that it does not like.

/// Timestamps wrap at 33 bits of 90 kHz.
pub const PTS_WRAP: u64 = 1 << 33;

/// The header of a PES packet, as far as it stands in the first payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PesHeader {
    /// stream_id (table 2-22).
    pub stream_id: u8,
    /// PES_packet_length: bytes behind this field; 0 = until the next packet starts (video only).
    pub packet_length: u16,
    /// PES_scrambling_control: 0 = in the clear.
    pub scrambling: u8,
    /// data_alignment_indicator.
    pub data_alignment: bool,
    /// Presentation time in units of 1/90 kHz.
    pub pts: Option<u64>,
    /// Decoding time in units of 1/90 kHz.
    pub dts: Option<u64>,
    /// Bytes from the start code to the first byte of the elementary stream. May lie behind the payload.
    pub header_len: usize,
}

impl PesHeader {
    /// The header at the start of a payload; none when no PES packet starts there or its fixed part is cut off.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let [0, 0, 1, stream_id, l0, l1, rest @ ..] = payload else { return None };
        let packet_length = u16::from_be_bytes([*l0, *l1]);
        let bare = Self {
            stream_id: *stream_id,
            packet_length,
            scrambling: 0,
            data_alignment: false,
            pts: None,
            dts: None,
            header_len: 6,
        };
        if HEADERLESS.contains(stream_id) {
            return Some(bare);
        }
        let [flags, fields, len, ..] = rest else { return None };
        if flags >> 6 != 0b10 {
            return None;
        }
        let (pts, dts) = timestamps(*fields, *len);
        let read = |present: bool, at: usize| payload.get(at..at + 5).filter(|_| present).map(read_timestamp);
        Some(Self {
            scrambling: flags >> 4 & 3,
            data_alignment: flags & 0x04 != 0,
            pts: read(pts, PTS_AT),
            dts: read(dts, DTS_AT),
            header_len: 9 + usize::from(*len),
            ..bare
        })
    }
}

/// Replaces the PTS (90 kHz, taken modulo 2^33) of a PES packet that has one in these bytes; whether it had.
pub fn set_pts(pes: &mut [u8], pts: u64) -> bool {
    PesHeader::parse(pes).is_some_and(|h| h.pts.is_some()) && write_timestamp(pes, PTS_AT, pts)
}

/// Replaces the DTS (90 kHz, taken modulo 2^33) of a PES packet that has one in these bytes; whether it had.
pub fn set_dts(pes: &mut [u8], dts: u64) -> bool {
    PesHeader::parse(pes).is_some_and(|h| h.dts.is_some()) && write_timestamp(pes, DTS_AT, dts)
}

/// Which timestamps PTS_DTS_flags and PES_header_data_length together announce.
fn timestamps(fields: u8, len: u8) -> (bool, bool) {
    (fields & 0x80 != 0 && len >= 5, fields & 0xc0 == 0xc0 && len >= 10)
}

fn read_timestamp(b: &[u8]) -> u64 {
    let b = |i: usize| u64::from(b.get(i).copied().unwrap_or(0));
    (b(0) & 0x0e) << 29 | b(1) << 22 | (b(2) & 0xfe) << 14 | b(3) << 7 | b(4) >> 1
}

/// The four prefix bits and the three marker bits stay as they are.
fn write_timestamp(pes: &mut [u8], at: usize, time: u64) -> bool {
    let Some(b) = pes.get_mut(at..at + 5) else { return false };
    b[0] = b[0] & 0xf1 | (time >> 29) as u8 & 0x0e;
    b[1] = (time >> 22) as u8;
    b[2] = b[2] & 0x01 | (time >> 14) as u8 & 0xfe;
    b[3] = (time >> 7) as u8;
    b[4] = b[4] & 0x01 | (time << 1) as u8 & 0xfe;
    true
}

const PTS_AT: usize = 9;
const DTS_AT: usize = 14;

/// stream_ids whose packets have no header behind the length: program_stream_map, padding, private_stream_2,
/// ECM, EMM, DSM-CC, H.222.1 type E, program_stream_directory.
const HEADERLESS: [u8; 8] = [0xbc, 0xbe, 0xbf, 0xf0, 0xf1, 0xf2, 0xf8, 0xff];

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [u8; 20] = [0, 0, 1, 0xe0, 0, 0, 0x84, 0xc0, 10, 0x31, 0, 1, 0, 1, 0x11, 0, 1, 0, 1, 0x09];

    #[test]
    fn timestamps_survive_writing_and_reading() {
        for time in [0, 1, PTS_WRAP - 1, 0x1_2345_6789, 90_000] {
            let mut pes = BOTH;
            assert!(set_pts(&mut pes, time) && set_dts(&mut pes, time + PTS_WRAP - 1));
            let header = PesHeader::parse(&pes).unwrap();
            assert_eq!(header.pts, Some(time));
            assert_eq!(header.dts, Some((time + PTS_WRAP - 1) % PTS_WRAP));
            assert_eq!((header.stream_id, header.header_len, header.data_alignment), (0xe0, 19, true));
            set_pts(&mut pes, 0);
            set_dts(&mut pes, 0);
            assert_eq!(pes, BOTH);
        }
    }

    #[test]
    fn a_header_cut_off_has_what_is_there() {
        for len in 0..BOTH.len() {
            let header = PesHeader::parse(&BOTH[..len]);
            assert_eq!(header.is_some(), len >= 9);
            assert_eq!(header.and_then(|h| h.pts).is_some(), len >= 14);
            assert_eq!(header.and_then(|h| h.dts).is_some(), len >= 19);
        }
    }

    #[test]
    fn flags_without_room_are_not_believed() {
        let mut pes = BOTH;
        pes[8] = 5;
        assert_eq!(PesHeader::parse(&pes).map(|h| (h.pts, h.dts)), Some((Some(0), None)));
        pes[8] = 4;
        assert!(!set_pts(&mut pes, 1));
        assert_eq!(PesHeader::parse(&pes).map(|h| (h.pts, h.dts)), Some((None, None)));
    }

    #[test]
    fn padding_and_private_2_have_no_header() {
        let pes = [0, 0, 1, 0xbf, 0, 3, 0x84, 0xc0, 10];
        assert_eq!(PesHeader::parse(&pes).map(|h| (h.header_len, h.packet_length)), Some((6, 3)));
        assert_eq!(PesHeader::parse(&[0, 0, 1, 0xe0, 0, 0, 0x21, 0, 0]), None);
    }
}
