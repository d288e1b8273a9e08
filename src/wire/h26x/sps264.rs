//! A sequence parameter set of H.264 enters (ITU-T H.264, 7.3.2.1.1 and E.1.1), what streaming needs of it leaves.

use super::Sequence;
use crate::wire::bits::Bits;

/// A sequence parameter set of H.264, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sps264 {
    /// profile_idc.
    pub profile: u8,
    /// The constraint flags, as they stand in the byte behind profile_idc.
    pub constraints: u8,
    /// level_idc: ten times the level.
    pub level: u8,
    /// seq_parameter_set_id, 0 to 31.
    pub id: u32,
    /// chroma_format_idc, 0 to 3.
    pub chroma_format: u8,
    /// Bits of a luma sample, 8 to 14.
    pub luma_depth: u8,
    /// Bits of a chroma sample, 8 to 14.
    pub chroma_depth: u8,
    /// separate_colour_plane_flag.
    pub separate_planes: bool,
    /// log2_max_frame_num, 4 to 16.
    pub frame_num_bits: u32,
    /// frame_mbs_only_flag: there are no fields.
    pub frames_only: bool,
    /// pic_order_cnt_type; 2 = pictures leave in the order in which they come.
    pub order_type: u32,
    /// What it says about the pictures.
    pub sequence: Sequence,
}

impl Sps264 {
    /// Reads a whole NAL unit with its header; none when it is no such set or cut off in what matters. A VUI that is
    /// cut off is taken as absent.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let &[0x07 | 0x27 | 0x47 | 0x67, profile, constraints, level, ref rest @ ..] = unit else {
            return None;
        };
        let mut bits = Bits::escaped(rest);
        let id = bits.unsigned().filter(|&id| id < 32)?;
        let mut sps = Self {
            profile,
            constraints,
            level,
            id,
            chroma_format: 1,
            luma_depth: 8,
            chroma_depth: 8,
            separate_planes: false,
            frame_num_bits: 0,
            frames_only: true,
            order_type: 0,
            sequence: Sequence::default(),
        };
        if HIGH_PROFILES.contains(&profile) {
            sps.chroma_format = bits.unsigned().filter(|&format| format <= 3)? as u8;
            sps.separate_planes = sps.chroma_format == 3 && bits.flag()?;
            sps.luma_depth = 8 + bits.unsigned().filter(|&more| more <= 6)? as u8;
            sps.chroma_depth = 8 + bits.unsigned().filter(|&more| more <= 6)? as u8;
            bits.flag()?;
            if bits.flag()? {
                skip_scaling_matrix(&mut bits, if sps.chroma_format == 3 { 12 } else { 8 })?;
            }
        }
        sps.frame_num_bits = 4 + bits.unsigned().filter(|&more| more <= 12)?;
        sps.order_type = bits.unsigned().filter(|&kind| kind <= 2)?;
        match sps.order_type {
            0 => drop(bits.unsigned()?),
            1 => {
                bits.flag()?;
                bits.signed()?;
                bits.signed()?;
                let cycle = bits.unsigned().filter(|&cycle| cycle <= 255)?;
                (0..cycle).try_for_each(|_| bits.signed().map(drop))?;
            }
            _ => {}
        }
        bits.unsigned()?;
        bits.flag()?;
        let (columns, rows) = (bits.unsigned()?, bits.unsigned()?);
        sps.frames_only = bits.flag()?;
        if !sps.frames_only {
            bits.flag()?;
        }
        bits.flag()?;
        let crop = if bits.flag()? {
            [bits.unsigned()?, bits.unsigned()?, bits.unsigned()?, bits.unsigned()?]
        } else {
            [0; 4]
        };
        sps.read_size(columns, rows, crop)?;
        if sps.order_type == 2 || sps.has_no_reordering() {
            sps.sequence.reorder = Some(0);
        }
        if bits.flag()? {
            // What it says is a help, not a need.
            let _ = sps.read_vui(&mut bits);
        }
        Some(sps)
    }

    /// Profile, constraints and level as `codecs` parameters and `avcC` have them.
    pub fn profile_level(&self) -> [u8; 3] {
        [self.profile, self.constraints, self.level]
    }

    /// Constrained baseline and intra profiles have no picture behind another that it comes before (A.2, E.2.1 for
    /// max_num_reorder_frames).
    fn has_no_reordering(&self) -> bool {
        let intra = self.constraints & 0x10 != 0;
        self.profile == 66 || intra && matches!(self.profile, 44 | 86 | 100 | 110 | 122 | 244)
    }

    fn read_size(&mut self, columns: u32, rows: u32, [left, right, top, bottom]: [u32; 4]) -> Option<()> {
        let fields = if self.frames_only { 1 } else { 2 };
        // CropUnitX and CropUnitY (7.4.2.1.1)
        let (x, y) = match (self.chroma_format, self.separate_planes) {
            (1, _) => (2, 2),
            (2, _) => (2, 1),
            _ => (1, 1),
        };
        let side = |blocks: u32, fields: u32, crop: [u32; 2], unit: u32| {
            let blocks = u64::from(blocks) + 1;
            let crop = u64::from(unit) * crop.iter().map(|&c| u64::from(c)).sum::<u64>();
            let size = (16 * blocks * u64::from(fields)).checked_sub(crop)?;
            (1..=MOST).contains(&size).then_some(size as u32)
        };
        self.sequence.width = side(columns, 1, [left, right], x)?;
        self.sequence.height = side(rows, fields, [top, bottom], y * fields)?;
        self.sequence.fields = !self.frames_only;
        Some(())
    }

    fn read_vui(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        const EXTENDED_SAR: u32 = 255;
        if bits.flag()? && bits.take(8)? == EXTENDED_SAR {
            bits.skip(32)?;
        }
        if bits.flag()? {
            bits.flag()?;
        }
        if bits.flag()? {
            bits.skip(4)?;
            if bits.flag()? {
                bits.skip(24)?;
            }
        }
        if bits.flag()? {
            bits.unsigned()?;
            bits.unsigned()?;
        }
        if bits.flag()? {
            let (tick, scale) = (bits.take(32)?, bits.take(32)?);
            bits.flag()?;
            // A tick is a field (E.2.1, table E-6).
            self.sequence.rate =
                tick.checked_mul(2).filter(|&double| double > 0 && scale > 0).map(|double| (scale, double));
        }
        let nal = bits.flag()?;
        if nal {
            skip_hrd(bits)?;
        }
        let vcl = bits.flag()?;
        if vcl {
            skip_hrd(bits)?;
        }
        if nal || vcl {
            bits.flag()?;
        }
        bits.flag()?;
        if bits.flag()? {
            bits.flag()?;
            (0..4).try_for_each(|_| bits.unsigned().map(drop))?;
            let reorder = bits.unsigned()?;
            let buffering = bits.unsigned()?;
            if reorder <= buffering.min(16) {
                self.sequence.reorder = Some(reorder as u8);
            }
        }
        Some(())
    }
}

/// 7.3.2.1.1.1
fn skip_scaling_matrix(bits: &mut Bits<'_>, lists: usize) -> Option<()> {
    for list in 0..lists {
        if !bits.flag()? {
            continue;
        }
        let (mut last, mut next) = (8, 8);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + bits.signed().filter(|delta| (-128..128).contains(delta))?) & 0xff;
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

/// hrd_parameters (E.1.2)
fn skip_hrd(bits: &mut Bits<'_>) -> Option<()> {
    let count = bits.unsigned().filter(|&count| count < 32)? + 1;
    bits.skip(8)?;
    for _ in 0..count {
        bits.unsigned()?;
        bits.unsigned()?;
        bits.flag()?;
    }
    bits.skip(20)
}

/// Profiles whose set says the chroma format (7.3.2.1.1).
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// Samples in a row or column beyond any level.
const MOST: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// x264, High, 640 × 360, 30 frames/s, no B-frames: the set in testdata/ts/h264_async.ts.
    pub(super) fn sample() -> Vec<u8> {
        let stream =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ts/h264_async.ts")).unwrap();
        let at = stream.windows(4).position(|w| w == [0, 0, 1, 0x67]).unwrap();
        super::super::annex_b(&stream[at..]).next().unwrap().to_vec()
    }

    #[test]
    fn a_set_of_x264_is_read() {
        let sps = Sps264::parse(&sample()).unwrap();
        assert_eq!((sps.sequence.width, sps.sequence.height), (640, 360));
        assert_eq!(sps.sequence.rate.map(|(n, d)| n / d), Some(30));
        assert_eq!(sps.sequence.reorder, Some(0));
        assert_eq!((sps.chroma_format, sps.luma_depth, sps.frames_only), (1, 8, true));
    }

    #[test]
    fn high_definition_is_cropped_and_fields_count_double() {
        // 1920 × 1080 interlaced, Main, as made by hand: 120 × 34 map units, 4 rows cropped
        let mut bits = crate::wire::bits::BitWriter::default();
        let ue = |bits: &mut crate::wire::bits::BitWriter, value: u32| {
            let len = 32 - (value + 1).leading_zeros();
            bits.put(0, len - 1);
            bits.put(value + 1, len);
        };
        ue(&mut bits, 3);
        ue(&mut bits, 0);
        ue(&mut bits, 0);
        ue(&mut bits, 2);
        ue(&mut bits, 4);
        bits.put(0, 1);
        ue(&mut bits, 119);
        ue(&mut bits, 33);
        bits.put(0b001, 3); // fields, no adaptive, direct 8x8
        bits.put(1, 1);
        for crop in [0, 0, 0, 2] {
            ue(&mut bits, crop);
        }
        bits.put(0b01, 2);
        let sps = Sps264::parse(&[&[0x67, 77, 0, 40], bits.into_bytes().as_slice()].concat()).unwrap();
        assert_eq!((sps.sequence.width, sps.sequence.height), (1920, 1080));
        assert_eq!((sps.id, sps.frames_only, sps.sequence.reorder), (3, false, None));
    }

    #[test]
    fn a_set_that_is_cut_off_is_refused_and_never_panics() {
        let sps = sample();
        for end in 0..sps.len() {
            let _ = Sps264::parse(&sps[..end]);
        }
        assert_eq!(Sps264::parse(&sps[..6]), None);
        assert_eq!(Sps264::parse(&[0x68, 1, 2, 3]), None);
    }
}
