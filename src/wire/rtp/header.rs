//! The bytes of one RTP packet enter, its header and payload leave; or the fields of a header enter and its 12
//! bytes leave. Never judges the order of packets.

/// Payload type of an MPEG-2 transport stream (RFC 3551, 6).
pub const MP2T: u8 = 33;

/// Length in bytes of the fixed header, without CSRC list and extension (RFC 3550, 5.1).
pub const HEADER: usize = 12;

/// The fixed header of an RTP packet (RFC 3550, 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// MP2T: the timestamp is discontinuous here (RFC 2250, 2).
    pub marker: bool,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Counts packets, wraps at 2^16.
    pub sequence: u16,
    /// MP2T: 90 kHz, when the first byte of the payload was to be sent.
    pub timestamp: u32,
    /// Synchronisation source: who numbers these packets.
    pub ssrc: u32,
}

/// Why bytes are not an RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The version is not 2.
    #[error("RTP version {0}, expected 2")]
    Version(u8),
    /// The packet ends within the header, the CSRC list or the extension.
    #[error("RTP packet of {0} bytes ends within its header")]
    Short(usize),
    /// The padding counts 0 bytes, or more than there are (RFC 3550, A.1).
    #[error("RTP padding of {0} bytes does not fit its packet")]
    Padding(u8),
}

/// Takes an RTP packet apart: its header, and its payload without CSRC list, extension and padding. The payload
/// may be empty.
///
/// # Errors
/// The packet breaks RFC 3550, 5.1.
pub fn parse(packet: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let short = Malformed::Short(packet.len());
    let (fixed, mut rest) = packet.split_first_chunk::<HEADER>().ok_or(short)?;
    let [flags, kind, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
    if flags >> 6 != 2 {
        return Err(Malformed::Version(flags >> 6));
    }
    rest = rest.get(4 * usize::from(flags & 0x0F)..).ok_or(short)?;
    if flags & 0x10 != 0 {
        let ([_, _, l0, l1], extension) = rest.split_first_chunk::<4>().ok_or(short)?;
        rest = extension.get(4 * usize::from(u16::from_be_bytes([*l0, *l1]))..).ok_or(short)?;
    }
    if flags & 0x20 != 0 {
        let padding = rest.last().copied().unwrap_or(0);
        let end = rest.len().checked_sub(padding.into()).filter(|_| padding > 0);
        rest = end.and_then(|end| rest.get(..end)).ok_or(Malformed::Padding(padding))?;
    }
    let header = Header {
        marker: kind & 0x80 != 0,
        payload_type: kind & 0x7F,
        sequence: u16::from_be_bytes([s0, s1]),
        timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
        ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
    };
    Ok((header, rest))
}

/// Writes the header of an MP2T packet: version 2, no padding, CSRC or extension, payload type 33. `timestamp`
/// counts 90 kHz (PCR / 300, modulo 2^32); `marker` says that it is discontinuous (RFC 2250, 2).
pub fn write_header(into: &mut [u8; HEADER], sequence: u16, timestamp: u32, ssrc: u32, marker: bool) {
    into[0] = 0x80;
    into[1] = MP2T | u8::from(marker) << 7;
    into[2..4].copy_from_slice(&sequence.to_be_bytes());
    into[4..8].copy_from_slice(&timestamp.to_be_bytes());
    into[8..12].copy_from_slice(&ssrc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8) -> Vec<u8> {
        let mut bytes = [0; HEADER];
        write_header(&mut bytes, 0xFFFE, 0x8123_4567, 0xDEAD_BEEF, true);
        bytes[0] |= flags;
        bytes.to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        let packet = [header(0).as_slice(), &[0x47; 188]].concat();
        let (header, payload) = parse(&packet).unwrap();
        let want = Header {
            marker: true,
            payload_type: MP2T,
            sequence: 0xFFFE,
            timestamp: 0x8123_4567,
            ssrc: 0xDEAD_BEEF,
        };
        assert_eq!(header, want);
        assert_eq!(payload, [0x47; 188]);
        assert_eq!(parse(&packet[..HEADER]).unwrap().1, [0u8; 0]);
    }

    #[test]
    fn csrc_extension_and_padding_are_taken_off() {
        let mut packet = header(0x20 | 0x10 | 2);
        packet.extend([0xCC; 8]);
        packet.extend([0xBE, 0xDE, 0, 1, 9, 9, 9, 9]);
        packet.extend([1, 2, 3]);
        packet.extend([0, 0, 3]);
        assert_eq!(parse(&packet).unwrap().1, [1, 2, 3]);
    }

    #[test]
    fn bounds_are_held() {
        assert_eq!(parse(&header(0)[..11]), Err(Malformed::Short(11)));
        assert_eq!(parse(&[0x47; 188]), Err(Malformed::Version(1)));
        assert_eq!(parse(&header(15)), Err(Malformed::Short(12)));
        assert_eq!(parse(&header(0x10)), Err(Malformed::Short(12)));
        let long_extension = [header(0x10).as_slice(), &[0, 0, 0, 2, 1, 1, 1, 1]].concat();
        assert_eq!(parse(&long_extension), Err(Malformed::Short(20)));
        assert_eq!(parse(&header(0x20)), Err(Malformed::Padding(0)));
        for (last, ok) in [(0, false), (1, true), (4, true), (5, false)] {
            let packet = [header(0x20).as_slice(), &[7, 7, 7, last]].concat();
            assert_eq!(parse(&packet).is_ok(), ok, "padding {last}");
        }
    }
}
