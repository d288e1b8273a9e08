//! Byte streams with start codes or with lengths enter, NAL units leave, and what each one is. Never copies but where
//! one form is made of the other.

use std::sync::LazyLock;

use bytes::BufMut;
use memchr::memmem::Finder;

/// Which of the two a NAL unit follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standard {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
}

/// What a NAL unit is (H.264, table 7-1; H.265, table 7-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Video parameter set (H.265).
    Vps,
    /// Sequence parameter set.
    Sps,
    /// Picture parameter set.
    Pps,
    /// Access unit delimiter.
    Delimiter,
    /// Supplemental enhancement information in front of the slices.
    Sei,
    /// The same behind the slices (H.265).
    SuffixSei,
    /// A slice of an IDR or IRAP picture: a decoder can start here.
    KeySlice,
    /// Another slice or data partition.
    Slice,
    /// End of a sequence or of the stream.
    End,
    /// Filler without meaning.
    Filler,
    /// Anything else: auxiliary and layered slices, extensions, reserved.
    Other,
}

impl Standard {
    /// nal_unit_type: the first byte of a unit says it.
    pub fn unit_type(self, first: u8) -> u8 {
        match self {
            Self::H264 => first & 0x1f,
            Self::H265 => first >> 1 & 0x3f,
        }
    }

    /// What a unit is whose first byte this is.
    pub fn kind(self, first: u8) -> Kind {
        match (self, self.unit_type(first)) {
            (Self::H264, 5) | (Self::H265, 16..=23) => Kind::KeySlice,
            (Self::H264, 1..=4) | (Self::H265, 0..=15) => Kind::Slice,
            (Self::H264, 6) | (Self::H265, 39) => Kind::Sei,
            (Self::H265, 40) => Kind::SuffixSei,
            (Self::H265, 32) => Kind::Vps,
            (Self::H264, 7) | (Self::H265, 33) => Kind::Sps,
            (Self::H264, 8) | (Self::H265, 34) => Kind::Pps,
            (Self::H264, 9) | (Self::H265, 35) => Kind::Delimiter,
            (Self::H264, 10 | 11) | (Self::H265, 36 | 37) => Kind::End,
            (Self::H264, 12) | (Self::H265, 38) => Kind::Filler,
            _ => Kind::Other,
        }
    }

    /// What a unit is. In H.265 only the base layer has slices and parameter sets: those of others are
    /// [`Kind::Other`].
    pub fn kind_of(self, unit: &[u8]) -> Kind {
        let kind = unit.first().map_or(Kind::Other, |&first| self.kind(first));
        // nuh_layer_id (H.265, 7.3.1.2)
        let layer = match (self, unit) {
            (Self::H265, [first, second, ..]) => (first & 1) << 5 | second >> 3,
            _ => 0,
        };
        if layer == 0 { kind } else { Kind::Other }
    }

    /// Bytes of a unit's header.
    pub fn header_len(self) -> usize {
        match self {
            Self::H264 => 1,
            Self::H265 => 2,
        }
    }

    /// Whether no other picture is predicted from the one that this slice belongs to (H.264: nal_ref_idc 0; H.265:
    /// sub-layer non-reference pictures, types 0 to 14, even).
    pub fn is_disposable(self, first: u8) -> bool {
        match self {
            Self::H264 => first & 0x60 == 0,
            Self::H265 => matches!(self.unit_type(first), unit @ 0..=14 if unit % 2 == 0),
        }
    }

    /// The access unit delimiter that allows every kind of slice (H.264, 7.4.2.4; H.265, 7.4.3.5).
    pub fn delimiter(self) -> &'static [u8] {
        match self {
            Self::H264 => &[0x09, 0xf0],
            Self::H265 => &[0x46, 0x01, 0x50],
        }
    }
}

/// The NAL units of a byte stream with start codes (H.264 and H.265, annex B), in order. Zero bytes behind a unit
/// and bytes in front of the first start code are left out, and so are empty units.
pub fn annex_b(stream: &[u8]) -> AnnexB<'_> {
    let start = START.find(stream).map_or(stream.len(), |at| at + 3);
    AnnexB { rest: stream.get(start..).unwrap_or_default() }
}

/// Iterator of [`annex_b`].
#[derive(Debug, Clone)]
pub struct AnnexB<'a> {
    /// Behind a start code.
    rest: &'a [u8],
}

impl<'a> Iterator for AnnexB<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (unit, rest) = match START.find(self.rest) {
                Some(at) => (self.rest.get(..at)?, self.rest.get(at + 3..)?),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            // trailing_zero_8bits and the zero_byte of the next start code: a unit never ends in a zero byte.
            let end = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if end > 0 {
                return unit.get(..end);
            }
        }
        None
    }
}

/// The NAL units of a sample in which each stands behind its length in `size` bytes (1 to 4), most significant first
/// (ISO/IEC 14496-15, 4.3.3). A length that points behind the end ends it; empty units are left out.
pub fn length_prefixed(sample: &[u8], size: usize) -> LengthPrefixed<'_> {
    LengthPrefixed { rest: sample, size: size.clamp(1, 4) }
}

/// Iterator of [`length_prefixed`].
#[derive(Debug, Clone)]
pub struct LengthPrefixed<'a> {
    rest: &'a [u8],
    size: usize,
}

impl LengthPrefixed<'_> {
    /// Whether everything was read: false when a length pointed behind the end.
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for LengthPrefixed<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (length, rest) = self.rest.split_at_checked(self.size)?;
            let length = length.iter().fold(0usize, |length, &byte| length << 8 | usize::from(byte));
            let (unit, rest) = rest.split_at_checked(length)?;
            self.rest = rest;
            if !unit.is_empty() {
                return Some(unit);
            }
        }
    }
}

/// Appends a NAL unit behind its length in four bytes. One that does not fit into 32 bits of length is left out.
pub fn put_length_prefixed(unit: &[u8], out: &mut impl BufMut) {
    if let Ok(length) = u32::try_from(unit.len()) {
        out.put_u32(length);
        out.put_slice(unit);
    }
}

/// start_code_prefix_one_3bytes.
static START: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(&[0, 0, 1]));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(stream: &[u8]) -> Vec<&[u8]> {
        annex_b(stream).collect()
    }

    #[test]
    fn start_codes_of_both_lengths_and_trailing_zeros() {
        assert_eq!(
            units(&[9, 0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 0, 1, 0x65, 0, 3, 0, 0]),
            [&[0x67, 1][..], &[0x68, 2], &[0x65, 0, 3]]
        );
        assert_eq!(units(&[0, 0, 1, 0, 0, 1, 0, 0, 1, 5]), [[5]]);
        for empty in [&[][..], &[0, 0], &[0, 0, 1], &[1, 2, 3], &[0, 0, 0, 1], &[0, 0, 1, 0]] {
            assert!(units(empty).is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn lengths_of_every_size() {
        for size in 1..=4 {
            let mut sample = Vec::new();
            for unit in [&[1u8, 2, 3][..], &[], &[4]] {
                sample.extend_from_slice(&(unit.len() as u32).to_be_bytes()[4 - size..]);
                sample.extend_from_slice(unit);
            }
            let mut reader = length_prefixed(&sample, size);
            assert_eq!(reader.by_ref().collect::<Vec<_>>(), [&[1u8, 2, 3][..], &[4]]);
            assert!(reader.is_whole());
            let mut reader = length_prefixed(&sample[..sample.len() - 1], size);
            assert_eq!(reader.by_ref().count(), 1);
            assert!(!reader.is_whole());
        }
    }

    #[test]
    fn kinds() {
        use Kind::*;
        use Standard::*;
        for (first, kind) in [
            (0x65, KeySlice),
            (0x41, Slice),
            (0x67, Sps),
            (0x68, Pps),
            (9, Delimiter),
            (6, Sei),
            (0x0c, Filler),
            (0x0b, End),
            (0x0e, Other),
        ] {
            assert_eq!(H264.kind(first), kind, "{first:#x}");
        }
        for (unit, kind) in [
            (19, KeySlice),
            (21, KeySlice),
            (1, Slice),
            (32, Vps),
            (33, Sps),
            (34, Pps),
            (35, Delimiter),
            (39, Sei),
            (40, SuffixSei),
            (38, Filler),
            (48, Other),
        ] {
            assert_eq!(H265.kind_of(&[unit << 1, 1]), kind, "{unit}");
            assert_eq!(H265.kind_of(&[unit << 1, 1 | 1 << 3]), Other, "{unit} of layer 1");
        }
        assert!(H264.is_disposable(0x01) && !H264.is_disposable(0x41));
        assert!(H265.is_disposable(0) && !H265.is_disposable(1 << 1) && !H265.is_disposable(19 << 1));
    }

    proptest! {
        /// Units without start codes in them and zeros at their end go through both forms.
        #[test]
        fn units_survive_both_forms(
            parts in prop::collection::vec((prop::collection::vec(1u8..5, 1..40), 0usize..4), 0..12)
        ) {
            let mut stream = Vec::new();
            let mut sample = Vec::new();
            for (unit, zeros) in &parts {
                stream.extend_from_slice(&[0, 0, 1]);
                stream.extend_from_slice(unit);
                stream.resize(stream.len() + zeros, 0);
                put_length_prefixed(unit, &mut sample);
            }
            let want: Vec<_> = parts.iter().map(|(unit, _)| unit.as_slice()).collect();
            prop_assert_eq!(&units(&stream), &want);
            prop_assert_eq!(length_prefixed(&sample, 4).collect::<Vec<_>>(), want);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(0u8..3, 0..80), size in 0usize..9) {
            let found: usize = annex_b(&bytes).map(<[u8]>::len).sum();
            prop_assert!(found <= bytes.len());
            prop_assert!(annex_b(&bytes).all(|unit| unit.last() != Some(&0)));
            prop_assert!(length_prefixed(&bytes, size).map(<[u8]>::len).sum::<usize>() <= bytes.len());
        }
    }
}
