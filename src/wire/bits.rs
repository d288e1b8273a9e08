//! Bytes enter, fields of any number of bits leave, most significant bit first. Never reads behind the end.

use memchr::memmem;

/// Reads fields of bits.
#[derive(Debug, Clone)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// Whether emulation prevention bytes are taken out (ITU-T H.264 and H.265, 7.4.1).
    escaped: bool,
    /// The next byte to take from `bytes`.
    at: usize,
    /// Zero bytes in a row that were taken last.
    zeros: u8,
    current: u8,
    /// Bits of `current` that are still to be read.
    left: u32,
}

impl<'a> Bits<'a> {
    /// Reads these bytes as they are.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, escaped: false, at: 0, zeros: 0, current: 0, left: 0 }
    }

    /// Reads the raw byte sequence payload in these bytes of a NAL unit: the 3 of every 00 00 03 is left out.
    pub fn escaped(bytes: &'a [u8]) -> Self {
        Self { escaped: true, ..Self::new(bytes) }
    }

    /// The next `count` bits, at most 32, as a number; none when they are not all there.
    pub fn take(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32);
        let (mut value, mut missing) = (0u64, count.min(32));
        while missing > 0 {
            if self.left == 0 {
                self.current = self.next_byte()?;
                self.left = 8;
            }
            let step = missing.min(self.left);
            let bits = u32::from(self.current) >> (self.left - step) & ((1 << step) - 1);
            value = value << step | u64::from(bits);
            self.left -= step;
            missing -= step;
        }
        Some(value as u32)
    }

    /// The next bit.
    pub fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// Leaves `count` bits out.
    pub fn skip(&mut self, count: u32) -> Option<()> {
        let begun = count.min(self.left);
        self.left -= begun;
        self.skip_bytes(((count - begun) / 8) as usize)?;
        self.take((count - begun) % 8).map(drop)
    }

    /// An unsigned Exp-Golomb code (H.264, 9.1; H.265, 9.2): 0 to 2^32 − 2.
    pub fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some(((1u64 << zeros) - 1 + u64::from(self.take(zeros)?)) as u32)
    }

    /// A signed Exp-Golomb code.
    pub fn signed(&mut self) -> Option<i32> {
        let code = i64::from(self.unsigned()?);
        let magnitude = (code + 1) / 2;
        i32::try_from(if code % 2 == 1 { magnitude } else { -magnitude }).ok()
    }

    /// Whether a bit is left at all.
    pub fn is_empty(&self) -> bool {
        self.left == 0 && self.at >= self.bytes.len()
    }

    /// Bits that were read so far, emulation prevention not counted in.
    pub fn position(&self) -> usize {
        self.at * 8 - self.left as usize
    }

    /// Leaves bytes out where a byte ends. A message may be as long as a picture: up to the next emulation prevention byte
    /// nothing is looked at one by one.
    fn skip_bytes(&mut self, mut count: usize) -> Option<()> {
        while count > 0 {
            if self.escaped && self.zeros > 0 {
                self.next_byte()?;
                count -= 1;
                continue;
            }
            let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
            let prevention = self.escaped.then(|| memmem::find(rest, &[0, 0, 3])).flatten();
            let plain = prevention.map_or(rest.len(), |at| at + 2).min(count);
            if self.escaped {
                let zeros = rest.iter().take(plain).rev().take_while(|byte| **byte == 0).count();
                self.zeros = u8::try_from(zeros).unwrap_or(u8::MAX);
            }
            self.at += plain;
            count -= plain;
        }
        Some(())
    }

    fn next_byte(&mut self) -> Option<u8> {
        let mut byte = *self.bytes.get(self.at)?;
        self.at += 1;
        if self.escaped {
            if self.zeros >= 2 && byte == 3 {
                self.zeros = 0;
                byte = *self.bytes.get(self.at)?;
                self.at += 1;
            }
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        }
        Some(byte)
    }
}

/// Writes fields of bits.
#[derive(Debug, Clone, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Bits used of the last byte; 0 = all.
    used: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits, at most 32, of a number.
    pub fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count.min(32)).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// The bytes, the last one filled up with zeros.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_skipped_is_what_is_taken_otherwise(
            bytes in prop::collection::vec(prop_oneof![4 => Just(0u8), 2 => Just(3u8), 1 => any::<u8>()], 0..64),
            counts in prop::collection::vec(0u32..80, 1..8),
            escaped: bool,
        ) {
            let mut skipping = if escaped { Bits::escaped(&bytes) } else { Bits::new(&bytes) };
            let mut taking = skipping.clone();
            for count in counts {
                let skipped = skipping.skip(count);
                let taken = (0..count).try_for_each(|_| taking.take(1).map(drop));
                prop_assert_eq!(skipped, taken);
                if taken.is_none() {
                    break;
                }
                prop_assert_eq!(skipping.position(), taking.position());
                prop_assert_eq!(skipping.clone().take(8), taking.clone().take(8));
            }
        }
    }

    #[test]
    fn emulation_prevention_is_left_out() {
        let mut bits = Bits::escaped(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 0xff]);
        assert_eq!(bits.take(24), Some(1));
        assert_eq!(bits.take(32), Some(0));
        assert_eq!((bits.take(8), bits.take(1), bits.is_empty()), (Some(0xff), None, true));
        assert_eq!(Bits::new(&[0, 0, 3]).take(24), Some(3));
    }

    #[test]
    fn exponential_golomb_codes() {
        // 1, 010, 011, 00100, 00101
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let codes: Vec<_> = (0..5).map(|_| bits.unsigned()).collect();
        assert_eq!(codes, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let codes: Vec<_> = (0..5).map(|_| bits.signed()).collect();
        assert_eq!(codes, [Some(0), Some(1), Some(-1), Some(2), Some(-2)]);
        assert_eq!(Bits::new(&[0; 4]).unsigned(), None);
        assert_eq!(Bits::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).unsigned(), Some(u32::MAX - 1));
    }

    proptest! {
        #[test]
        fn fields_survive_writing_and_reading(fields in prop::collection::vec((any::<u32>(), 0u32..=32), 0..40)) {
            let mut writer = BitWriter::default();
            let low = |value: u32, count: u32| (u64::from(value) & ((1u64 << count) - 1)) as u32;
            fields.iter().for_each(|&(value, count)| writer.put(value, count));
            let bytes = writer.into_bytes();
            let mut bits = Bits::new(&bytes);
            for (value, count) in fields {
                prop_assert_eq!(bits.take(count), Some(low(value, count)));
            }
            prop_assert!(bytes.len() * 8 - bits.position() < 8);
        }
    }
}
