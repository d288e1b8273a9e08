//! ADTS frames (ISO/IEC 14496-3, 1.A.2.2) enter and leave. Never looks behind the header.

use super::config::{Config, indexed_rate, rate_index};

/// The header of an ADTS frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adts {
    /// What it says about the sound.
    pub config: Config,
    /// Bytes in front of the raw data: 7, or 9 with a checksum.
    pub header_len: usize,
    /// Bytes of the whole frame.
    pub length: usize,
    /// Raw data blocks in it, 1 to 4.
    pub blocks: u8,
}

impl Adts {
    /// Reads the header at the start of these bytes, at least seven; none when none stands there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[0xff, b1, b2, b3, b4, b5, b6, ..] = bytes else { return None };
        // syncword, layer 0
        if b1 & 0xf6 != 0xf0 {
            return None;
        }
        let rate = indexed_rate(b2 >> 2 & 0x0f)?;
        let channels = (b2 & 1) << 2 | b3 >> 6;
        let header_len = if b1 & 1 == 1 { 7 } else { 9 };
        let length = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5) >> 5;
        let config = Config::new((b2 >> 6) + 1, rate, channels);
        (length > header_len).then_some(Self { config, header_len, length, blocks: (b6 & 3) + 1 })
    }
}

/// The seven bytes in front of a raw access unit; none when ADTS cannot say the configuration (object types 1 to 4,
/// rates of the table, channel layouts 1 to 7) or the frame is longer than 8191 bytes.
pub fn adts_header(config: Config, access_unit: usize) -> Option<[u8; 7]> {
    let length = access_unit.checked_add(7).filter(|&length| length < 1 << 13)? as u32;
    let rate = u32::from(rate_index(config.rate)?);
    if !(1..=4).contains(&config.object_type)
        || !(1..=7).contains(&config.channels)
        || config.frame_samples != 1024
    {
        return None;
    }
    let channels = u32::from(config.channels);
    let low = u32::from(config.object_type - 1) << 30
        | rate << 26
        | channels << 22
        | length << 5
        // adts_buffer_fullness: variable rate, all ones
        | 0x1f;
    let [b2, b3, b4, b5] = low.to_be_bytes();
    // ID says MPEG-2 wherever that knows the object type (all but LTP): stream_type 0x0f means ISO/IEC 13818-7, and MISB
    // ST 1001 asks for it. Readers of MPEG-4 take it as well.
    let id = if config.object_type == 4 { 0xf1 } else { 0xf9 };
    Some([0xff, id, b2, b3, b4, b5, 0xfc])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_ffmpeg_is_read() {
        let header = Adts::parse(&[0xff, 0xf1, 0x4c, 0x80, 0x2e, 0x7f, 0xfc]).unwrap();
        assert_eq!(header.config, Config::new(2, 48_000, 2));
        assert_eq!((header.header_len, header.length, header.blocks), (7, 371, 1));
        assert_eq!(Adts::parse(&[0xff, 0xf1, 0x4c, 0x80, 0x2e, 0x7f]), None);
        assert_eq!(Adts::parse(&[0xff, 0xfb, 0x90, 0x64, 0, 0, 0]), None);
        assert_eq!(Adts::parse(&[0xff, 0xf1, 0x7c, 0x80, 0x2e, 0x7f, 0xfc]), None);
        assert_eq!(Adts::parse(&[0xff, 0xf1, 0x4c, 0x80, 0, 0xff, 0xfc]), None);
    }

    #[test]
    fn what_is_written_is_read() {
        for rate in [96_000, 44_100, 7_350] {
            for channels in 1..=7 {
                for length in [0, 1, 371, 8184] {
                    let config = Config::new(2, rate, channels);
                    let header = adts_header(config, length).unwrap();
                    let read = Adts::parse(&header);
                    let want = Adts { config, header_len: 7, length: length + 7, blocks: 1 };
                    assert_eq!(read, Some(want).filter(|_| length > 0));
                }
            }
        }
        assert_eq!(adts_header(Config::new(2, 48_000, 2), 8185), None);
        assert_eq!(adts_header(Config::new(2, 48_001, 2), 1), None);
        assert_eq!(adts_header(Config::new(2, 48_000, 0), 1), None);
        assert_eq!(adts_header(Config::new(23, 48_000, 2), 1), None);
    }
}
