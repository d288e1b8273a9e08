//! A sequence parameter set of H.265 enters (ITU-T H.265, 7.3.2.2, 7.3.3 and E.2.1), what streaming needs of it leaves.

use super::Sequence;
use crate::wire::bits::Bits;

/// A sequence parameter set of H.265, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sps265 {
    /// sps_seq_parameter_set_id, 0 to 15.
    pub id: u32,
    /// The twelve bytes of general profile, compatibility, constraints and level, as `hvcC` has them.
    pub profile: [u8; 12],
    /// Temporal sub-layers, 1 to 7.
    pub temporal_layers: u8,
    /// sps_temporal_id_nesting_flag.
    pub temporal_nesting: bool,
    /// chroma_format_idc, 0 to 3.
    pub chroma_format: u8,
    /// Bits of a luma sample, 8 to 16.
    pub luma_depth: u8,
    /// Bits of a chroma sample, 8 to 16.
    pub chroma_depth: u8,
    /// min_spatial_segmentation_idc; 0 = not told.
    pub segmentation: u16,
    /// What it says about the pictures.
    pub sequence: Sequence,
}

impl Sps265 {
    /// Reads a whole NAL unit with its header; none when it is no such set of the base layer or cut off in what
    /// matters. A VUI that is cut off is taken as absent.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = unit else { return None };
        if first >> 1 & 0x3f != 33 || first & 1 != 0 || second >> 3 != 0 {
            return None;
        }
        let mut bits = Bits::escaped(rest);
        bits.skip(4)?;
        let layers = bits.take(3).filter(|&more| more < 7)? as usize;
        let temporal_nesting = bits.flag()?;
        let mut profile = [0; 12];
        for byte in &mut profile {
            *byte = bits.take(8)? as u8;
        }
        skip_sub_layers(&mut bits, layers)?;
        let id = bits.unsigned().filter(|&id| id < 16)?;
        let chroma_format = bits.unsigned().filter(|&format| format <= 3)?;
        let separate = chroma_format == 3 && bits.flag()?;
        let (width, height) = (bits.unsigned()?, bits.unsigned()?);
        let crop = if bits.flag()? {
            [bits.unsigned()?, bits.unsigned()?, bits.unsigned()?, bits.unsigned()?]
        } else {
            [0; 4]
        };
        let mut sps = Self {
            id,
            profile,
            temporal_layers: layers as u8 + 1,
            temporal_nesting,
            chroma_format: chroma_format as u8,
            luma_depth: 8 + bits.unsigned().filter(|&more| more <= 8)? as u8,
            chroma_depth: 8 + bits.unsigned().filter(|&more| more <= 8)? as u8,
            segmentation: 0,
            sequence: Sequence::default(),
        };
        // SubWidthC, SubHeightC (6.2)
        let (x, y) = match (chroma_format, separate) {
            (1, _) => (2, 2),
            (2, _) => (2, 1),
            _ => (1, 1),
        };
        let side = |size: u32, crop: [u32; 2], unit: u64| {
            let cropped = unit * crop.iter().map(|&c| u64::from(c)).sum::<u64>();
            let size = u64::from(size).checked_sub(cropped)?;
            (1..=MOST).contains(&size).then_some(size as u32)
        };
        sps.sequence.width = side(width, [crop[0], crop[1]], x)?;
        sps.sequence.height = side(height, [crop[2], crop[3]], y)?;

        let order_bits = 4 + bits.unsigned().filter(|&more| more <= 12)?;
        let all_layers = bits.flag()?;
        for _ in if all_layers { 0 } else { layers }..=layers {
            bits.unsigned()?;
            // The last one is that of the whole stream.
            sps.sequence.reorder = Some(bits.unsigned().filter(|&reorder| reorder <= 16)? as u8);
            bits.unsigned()?;
        }
        let _ = sps.read_rest(&mut bits, order_bits);
        Some(sps)
    }

    fn read_rest(&mut self, bits: &mut Bits<'_>, order_bits: u32) -> Option<()> {
        (0..6).try_for_each(|_| bits.unsigned().map(drop))?;
        if bits.flag()? && bits.flag()? {
            skip_scaling_lists(bits)?;
        }
        bits.skip(2)?;
        if bits.flag()? {
            bits.skip(8)?;
            bits.unsigned()?;
            bits.unsigned()?;
            bits.flag()?;
        }
        skip_reference_sets(bits)?;
        if bits.flag()? {
            let count = bits.unsigned().filter(|&count| count <= 32)?;
            (0..count).try_for_each(|_| bits.skip(order_bits + 1))?;
        }
        bits.skip(2)?;
        if bits.flag()? {
            self.read_vui(bits)?;
        }
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
        bits.skip(3)?;
        if bits.flag()? {
            (0..4).try_for_each(|_| bits.unsigned().map(drop))?;
        }
        if bits.flag()? {
            let (tick, scale) = (bits.take(32)?, bits.take(32)?);
            self.sequence.rate = (tick > 0 && scale > 0).then_some((scale, tick));
            if bits.flag()? {
                bits.unsigned()?;
            }
            if bits.flag()? {
                skip_hrd(bits, self.temporal_layers)?;
            }
        }
        if bits.flag()? {
            bits.skip(3)?;
            self.segmentation = bits.unsigned().filter(|&s| s < 4096)? as u16;
        }
        Some(())
    }
}

/// The part of profile_tier_level behind the general level (7.3.3).
fn skip_sub_layers(bits: &mut Bits<'_>, layers: usize) -> Option<()> {
    let mut present = Vec::with_capacity(layers);
    for _ in 0..layers {
        present.push((bits.flag()?, bits.flag()?));
    }
    if layers > 0 {
        bits.skip(2 * (8 - layers as u32))?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(())
}

/// scaling_list_data (7.3.4)
fn skip_scaling_lists(bits: &mut Bits<'_>) -> Option<()> {
    for size in 0..4u32 {
        for _ in (0..6).step_by(if size == 3 { 3 } else { 1 }) {
            if !bits.flag()? {
                bits.unsigned()?;
                continue;
            }
            if size > 1 {
                bits.signed()?;
            }
            (0..64.min(1 << (4 + 2 * size))).try_for_each(|_| bits.signed().map(drop))?;
        }
    }
    Some(())
}

/// Every st_ref_pic_set of the set (7.3.7): only how many pictures each names matters for reading the next.
fn skip_reference_sets(bits: &mut Bits<'_>) -> Option<()> {
    let count = bits.unsigned().filter(|&count| count <= 64)?;
    let mut named = 0u32;
    for set in 0..count {
        if set > 0 && bits.flag()? {
            bits.flag()?;
            bits.unsigned()?;
            let mut kept = 0;
            for _ in 0..=named {
                let used = bits.flag()?;
                // use_delta_flag, where the picture is not used by the current one
                kept += u32::from(used || bits.flag()?);
            }
            named = kept;
        } else {
            let (before, after) = (bits.unsigned()?, bits.unsigned()?);
            named = before.checked_add(after).filter(|&named| named <= 16)?;
            for _ in 0..named {
                bits.unsigned()?;
                bits.flag()?;
            }
        }
    }
    Some(())
}

/// hrd_parameters with common information (E.2.2)
fn skip_hrd(bits: &mut Bits<'_>, layers: u8) -> Option<()> {
    let (nal, vcl) = (bits.flag()?, bits.flag()?);
    let mut by_unit = false;
    if nal || vcl {
        by_unit = bits.flag()?;
        if by_unit {
            bits.skip(19)?;
        }
        bits.skip(8)?;
        if by_unit {
            bits.skip(4)?;
        }
        bits.skip(15)?;
    }
    for _ in 0..layers {
        let fixed_general = bits.flag()?;
        let fixed = fixed_general || bits.flag()?;
        let mut low_delay = false;
        if fixed {
            bits.unsigned()?;
        } else {
            low_delay = bits.flag()?;
        }
        let schedules = if low_delay { 1 } else { bits.unsigned().filter(|&count| count < 32)? + 1 };
        for _ in 0..schedules * (u32::from(nal) + u32::from(vcl)) {
            (0..if by_unit { 4 } else { 2 }).try_for_each(|_| bits.unsigned().map(drop))?;
            bits.flag()?;
        }
    }
    Some(())
}

/// Samples in a row or column beyond any level.
const MOST: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let stream =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ts/h265_async.ts")).unwrap();
        let at = stream.windows(5).position(|w| w == [0, 0, 1, 0x42, 1]).unwrap();
        super::super::annex_b(&stream[at..]).next().unwrap().to_vec()
    }

    #[test]
    fn a_set_of_x265_is_read() {
        let sps = Sps265::parse(&sample()).unwrap();
        assert_eq!((sps.sequence.width, sps.sequence.height), (640, 360));
        assert_eq!(sps.sequence.rate, Some((30, 1)));
        assert_eq!((sps.chroma_format, sps.luma_depth, sps.chroma_depth), (1, 8, 8));
        // Main
        assert_eq!(sps.profile[0] & 0x1f, 1);
        assert!(sps.sequence.reorder.is_some());
    }

    #[test]
    fn a_set_that_is_cut_off_is_refused_and_never_panics() {
        let sps = sample();
        for end in 0..sps.len() {
            let _ = Sps265::parse(&sps[..end]);
        }
        assert_eq!(Sps265::parse(&sps[..20]), None);
        assert_eq!(Sps265::parse(&[0x44, 1, 2, 3]), None);
    }
}
