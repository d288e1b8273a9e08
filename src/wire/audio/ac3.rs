//! The header of an AC-3 frame (ETSI TS 102 366, 4.3.1 and 4.3.2) enters, what it says leaves.

use super::Header;

pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let &[0x0b, 0x77, _, _, sizes, version, mode, ..] = bytes else { return None };
    let (rate, words) = match (sizes >> 6, usize::from(sizes & 0x3f)) {
        (_, 38..) => return None,
        (0, code) => (48_000, usize::from(*RATES.get(code / 2)?) * 2),
        // 320/147 words a kilobit, the odd codes one word more
        (1, code) => (44_100, usize::from(*RATES.get(code / 2)?) * 320 / 147 + code % 2),
        (2, code) => (32_000, usize::from(*RATES.get(code / 2)?) * 3),
        _ => return None,
    };
    // bsid above 8 is of half and quarter rates, above 10 another syntax
    let halved = match version >> 3 {
        0..=8 => 0,
        bsid @ 9..=10 => u32::from(bsid) - 8,
        _ => return None,
    };
    let acmod = mode >> 5;
    // In front of lfeon stand cmixlev, surmixlev and dsurmod, as far as the mode has them.
    let skipped = match acmod {
        2 => 2,
        mode => u32::from(mode & 1 == 1 && mode != 1) * 2 + u32::from(mode & 4 != 0) * 2,
    };
    let low_frequency = mode << 3 >> (7 - skipped.min(7)) & 1;
    let channels = [2, 1, 2, 3, 3, 4, 4, 5].get(usize::from(acmod))? + low_frequency;
    Some(Header { length: words * 2, samples: 1536, rate: rate >> halved, channels })
}

/// Nominal rates in kbit/s, two codes each (table 4.13).
const RATES: [u16; 19] =
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_channels() {
        let read = |sizes, version, mode| header(&[0x0b, 0x77, 0, 0, sizes, version, mode]);
        // 192 kbit/s, 48 kHz, stereo; the same of 44.1 kHz, in both lengths; 448 kbit/s, 5.1
        assert_eq!(
            read(20, 0x40, 0x40),
            Some(Header { length: 768, samples: 1536, rate: 48_000, channels: 2 })
        );
        assert_eq!(read(0x40 | 20, 0x40, 0x40).map(|h| (h.length, h.rate)), Some((834, 44_100)));
        assert_eq!(read(0x40 | 21, 0x40, 0x40).map(|h| h.length), Some(836));
        assert_eq!(read(30, 0x40, 0xe1).map(|h| (h.length, h.channels)), Some((1792, 6)));
        assert_eq!(read(30, 0x40, 0xe0).map(|h| h.channels), Some(5));
        assert_eq!(
            read(0x80 | 20, 0x48, 0x20).map(|h| (h.length, h.rate, h.channels)),
            Some((1152, 16_000, 1))
        );
        assert_eq!(read(38, 0x40, 0x40), None);
        assert_eq!(read(0xc0, 0x40, 0x40), None);
        assert_eq!(read(20, 0x80, 0x40), None);
    }
}
