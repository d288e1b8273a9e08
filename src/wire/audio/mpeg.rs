//! The header of an MPEG audio frame (ISO/IEC 11172-3, 2.4.1.3; ISO/IEC 13818-3, 2.4.1.3) enters, what it says leaves.

use super::Header;

pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let &[0xff, b1, b2, b3, ..] = bytes else { return None };
    // MPEG-2.5, which no standard has, is the version 00.
    let version = match b1 >> 3 & 3 {
        _ if b1 & 0xe0 != 0xe0 => return None,
        0b11 => Version::One,
        0b10 => Version::Two,
        0b00 => Version::TwoAndAHalf,
        _ => return None,
    };
    let layer = usize::from(layer(b1));
    let low = version != Version::One;
    let kilobits = RATES.get(layer.checked_sub(1)? + if low { 3 } else { 0 })?.get(usize::from(b2 >> 4))?;
    let rate = [44_100, 48_000, 32_000].get(usize::from(b2 >> 2 & 3))? >> version as u32;
    let padding = usize::from(b2 >> 1 & 1);
    let (samples, slot) = match layer {
        1 => (384, 4),
        3 if low => (576, 1),
        2 | 3 => (1152, 1),
        _ => return None,
    };
    // A free format (0) does not say its length.
    let bits = usize::from(*kilobits) * 1000 * samples as usize;
    let length = (bits / (8 * slot * rate as usize) + padding) * slot;
    let channels = if b3 >> 6 == 3 { 1 } else { 2 };
    (*kilobits > 0).then_some(Header { length, samples, rate, channels })
}

/// The layer, 1 to 3, that the second byte of a header says; 4 is reserved (ISO/IEC 11172-3, 2.4.2.3).
pub const fn layer(second: u8) -> u8 {
    4 - (second >> 1 & 3)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One = 0,
    Two = 1,
    TwoAndAHalf = 2,
}

/// bitrate_index in kbit/s: MPEG-1 layers 1 to 3, then the lower rates of MPEG-2 (tables in 2.4.2.3).
const RATES: [[u16; 15]; 6] = [
    [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_all_layers() {
        let length = |b1, b2| header(&[0xff, b1, b2, 0]).map(|h| (h.length, h.samples, h.rate));
        // layer 3 of 128 kbit/s, 44.1 kHz, without and with padding
        assert_eq!(length(0xfb, 0x90), Some((417, 1152, 44_100)));
        assert_eq!(length(0xfb, 0x92), Some((418, 1152, 44_100)));
        // layer 2 of 192 kbit/s, 48 kHz
        assert_eq!(length(0xfd, 0xa4), Some((576, 1152, 48_000)));
        // layer 1 of 384 kbit/s, 48 kHz
        assert_eq!(length(0xff, 0xc4), Some((384, 384, 48_000)));
        // MPEG-2, layer 3 of 64 kbit/s, 24 kHz; MPEG-2.5, 8 kHz
        assert_eq!(length(0xf3, 0x84), Some((192, 576, 24_000)));
        assert_eq!(length(0xe3, 0x28), Some((144, 576, 8_000)));
        for (b1, b2) in [(0xfb, 0xf0), (0xfb, 0x9c), (0xeb, 0x90), (0xf9, 0x90), (0xfb, 0x00), (0x1b, 0x90)] {
            assert_eq!(length(b1, b2), None, "{b1:#x} {b2:#x}");
        }
        assert_eq!(header(&[0xff, 0xfb, 0x90, 0xc0]).map(|h| h.channels), Some(1));
        assert_eq!(header(&[0xff, 0xfb, 0x90]), None);
    }
}
