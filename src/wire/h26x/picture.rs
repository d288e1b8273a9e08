//! The NAL units of an access unit enter, what kind of picture they are leaves. Never looks further than the first
//! bytes of a slice.

use super::{Kind, Standard};
use crate::wire::bits::Bits;

/// What an access unit is, learnt from its NAL units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Picture {
    /// It has a slice at all.
    pub coded: bool,
    /// It is an IDR or IRAP picture.
    pub key: bool,
    /// A recovery point message came with it (H.264, D.1.8; H.265, D.2.8).
    pub recovery: bool,
    /// A sequence parameter set came with it.
    pub sets: bool,
    /// Some slice is predicted from other pictures, or could not be read.
    pub predicted: bool,
    /// Other pictures may be predicted from it.
    pub reference: bool,
}

impl Picture {
    /// Takes the next NAL unit of the access unit.
    pub fn take(&mut self, standard: Standard, unit: &[u8]) {
        let kind = standard.kind_of(unit);
        match kind {
            Kind::KeySlice | Kind::Slice => {
                self.coded = true;
                self.key |= kind == Kind::KeySlice;
                self.reference |= unit.first().is_some_and(|&first| !standard.is_disposable(first));
                self.predicted |=
                    kind == Kind::Slice && Slice::parse(standard, unit).is_none_or(|s| !s.intra);
            }
            Kind::Sps | Kind::Vps => self.sets = true,
            Kind::Sei => self.recovery |= has_recovery_point(standard, unit),
            _ => {}
        }
    }

    /// Whether a decoder can start here: at an IDR or IRAP picture, at a recovery point, or where nothing is predicted
    /// and the encoder says so, by a parameter set or (`flagged`) by the multiplex.
    pub fn is_random_access(&self, flagged: bool) -> bool {
        self.coded && (self.key || self.recovery || (self.sets || flagged) && !self.predicted)
    }
}

/// The beginning of a slice header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// It is the first of its picture (first_mb_in_slice is 0; first_slice_segment_in_pic_flag).
    pub first: bool,
    /// Nothing in it is predicted from other pictures. False in H.265, where more than the header is needed to say.
    pub intra: bool,
}

impl Slice {
    /// Reads the header of a slice; none when the unit is no slice or cut off.
    pub fn parse(standard: Standard, unit: &[u8]) -> Option<Self> {
        if !matches!(standard.kind_of(unit), Kind::KeySlice | Kind::Slice) {
            return None;
        }
        let mut bits = Bits::escaped(unit.get(standard.header_len()..)?);
        match standard {
            Standard::H264 => {
                // Data partitions B and C (types 3 and 4) have another header.
                if matches!(standard.unit_type(*unit.first()?), 3 | 4) {
                    return Some(Self { first: false, intra: false });
                }
                let first = bits.unsigned()? == 0;
                // slice_type I and SI, for this slice or for all of the picture (table 7-6)
                Some(Self { first, intra: matches!(bits.unsigned()?, 2 | 4 | 7 | 9) })
            }
            Standard::H265 => Some(Self { first: bits.flag()?, intra: false }),
        }
    }
}

/// Walks the messages of a unit (H.264, 7.3.2.3.1; H.265, 7.3.2.4 and 7.3.5).
fn has_recovery_point(standard: Standard, unit: &[u8]) -> bool {
    let Some(body) = unit.get(standard.header_len()..) else { return false };
    let mut bits = Bits::escaped(body);
    let field = |bits: &mut Bits<'_>| {
        let mut sum = 0u32;
        loop {
            let byte = bits.take(8)?;
            sum = sum.checked_add(byte)?;
            if byte != 0xff {
                return Some(sum);
            }
        }
    };
    let mut walk = || {
        loop {
            let kind = field(&mut bits)?;
            if kind == RECOVERY_POINT {
                return Some(true);
            }
            let size = field(&mut bits)?;
            bits.skip(size.checked_mul(8)?)?;
        }
    };
    walk().unwrap_or(false)
}

/// payload_type of the recovery point message, the same in H.264 (D.1.8) and H.265 (D.2.8).
pub(crate) const RECOVERY_POINT: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(standard: Standard, units: &[&[u8]]) -> Picture {
        let mut picture = Picture::default();
        units.iter().for_each(|unit| picture.take(standard, unit));
        picture
    }

    #[test]
    fn pictures_of_h264() {
        let h264 = |units: &[&[u8]]| picture(Standard::H264, units);
        let (sps, idr): (&[u8], &[u8]) = (&[0x67, 66, 0, 30, 0x80], &[0x65, 0x88, 0x80]);
        // first_mb 0 (1), slice_type 5 (00110): P; 7 (0001000): I
        let (p, i): (&[u8], &[u8]) = (&[0x41, 0b1001_1000], &[0x41, 0b1000_1000]);
        assert!(h264(&[sps, idr]).is_random_access(false));
        assert!(!h264(&[p]).is_random_access(true));
        assert!(!h264(&[i]).is_random_access(false) && h264(&[i]).is_random_access(true));
        assert!(h264(&[sps, i]).is_random_access(false) && !h264(&[sps, i, p]).is_random_access(false));
        // user data of five bytes with an emulation prevention byte in it, then a recovery point
        let sei: &[u8] = &[6, 5, 5, 6, 0, 0, 3, 1, 6, 6, 1, 0x84, 0x80];
        assert!(h264(&[sei, p]).is_random_access(false));
        assert!(!h264(&[&sei[..9], p]).is_random_access(false));
        assert!(!h264(&[sps, sei]).is_random_access(true));
        assert!(!h264(&[&[0x01, 0b1001_1000]]).reference && h264(&[p]).reference);
    }

    #[test]
    fn pictures_of_h265() {
        let h265 = |units: &[&[u8]]| picture(Standard::H265, units);
        assert!(h265(&[&[21 << 1, 1, 0x80]]).is_random_access(false));
        assert!(!h265(&[&[1 << 1, 1, 0x80]]).is_random_access(true));
        assert!(h265(&[&[39 << 1, 1, 6, 1, 0x80], &[1 << 1, 1, 0x80]]).is_random_access(false));
    }

    #[test]
    fn the_first_slice_of_a_picture_is_told_from_others() {
        let first = |standard, unit: &[u8]| Slice::parse(standard, unit).map(|slice| slice.first);
        assert_eq!(first(Standard::H264, &[0x41, 0b1001_1000]), Some(true));
        assert_eq!(first(Standard::H264, &[0x41, 0b0101_1000]), Some(false));
        assert_eq!(first(Standard::H265, &[2, 1, 0x80]), Some(true));
        assert_eq!(first(Standard::H265, &[2, 1, 0x00]), Some(false));
        assert_eq!(first(Standard::H264, &[0x67, 1, 2]), None);
        assert_eq!(first(Standard::H264, &[0x41]), None);
    }
}
