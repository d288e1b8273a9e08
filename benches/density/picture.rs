//! Pictures for the streams: H.264 that decodes to flat 1280×720, padded to any size with filler data, or in parts for
//! who pads them otherwise.

/// One access unit of exactly `size` bytes; picture 0 is an IDR picture with its parameter sets, the others
/// repeat it.
pub(crate) fn access_unit(index: u64, size: usize) -> Vec<u8> {
    let mut unit = Vec::with_capacity(size);
    for nal in [delimiter(index)].into_iter().chain(parameter_sets(index)).chain([coded_slice(index)]) {
        unit.extend(START_CODE);
        unit.extend(nal);
    }
    // Filler data (7.3.2.7): start code, header, 0xff bytes, stop bit.
    let padding = size.saturating_sub(unit.len() + START_CODE.len() + 2);
    unit.extend(START_CODE);
    unit.push(FILLER);
    unit.resize(unit.len() + padding, 0xff);
    unit.push(0x80);
    unit
}

/// The access unit delimiter of a picture.
pub(crate) fn delimiter(index: u64) -> Vec<u8> {
    nal(DELIMITER, &[if index == 0 { 0x10 } else { 0x30 }])
}

/// The parameter sets in front of picture 0.
pub(crate) fn parameter_sets(index: u64) -> impl Iterator<Item = Vec<u8>> {
    let sets = [nal(SEQUENCE, &sequence()), nal(PICTURE_SET, &picture_set())];
    sets.into_iter().filter(move |_| index == 0)
}

/// The slice of a picture.
pub(crate) fn coded_slice(index: u64) -> Vec<u8> {
    nal(if index == 0 { IDR_SLICE } else { SLICE }, &slice(index, index == 0))
}

/// A NAL unit with emulation prevention (7.3.1).
fn nal(header: u8, payload: &[u8]) -> Vec<u8> {
    let mut unit = vec![header];
    let mut zeros = 0;
    for &byte in payload {
        if zeros >= 2 && byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        unit.push(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    unit
}

/// 7.3.2.1.1: baseline profile, level 3.1, output in decoding order, one reference frame.
fn sequence() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(66, 8).put(0xc0, 8).put(31, 8).golomb(0);
    bits.golomb(0).golomb(2).golomb(1).put(0, 1);
    bits.golomb(WIDTH - 1).golomb(HEIGHT - 1).put(0b1100, 4);
    bits.finish()
}

/// 7.3.2.2: CAVLC, one slice group, no deblocking control.
fn picture_set() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.golomb(0).golomb(0).put(0b00, 2).golomb(0).golomb(0).golomb(0).put(0b000, 3);
    bits.golomb(0).golomb(0).golomb(0).put(0b000, 3);
    bits.finish()
}

/// 7.3.3 and 7.3.4: an IDR slice whose macroblocks are all Intra_16x16, DC predicted, without residue; or a
/// P slice that skips every macroblock.
fn slice(index: u64, idr: bool) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.golomb(0).golomb(if idr { 7 } else { 5 }).golomb(0).put((index % 16) as u32, 4);
    if idr {
        bits.golomb(0).put(0b00, 2).golomb(0);
        for _ in 0..WIDTH * HEIGHT {
            // mb_type 3, intra_chroma_pred_mode 0, mb_qp_delta 0, coeff_token of no coefficients.
            bits.golomb(3).golomb(0).golomb(0).put(1, 1);
        }
    } else {
        bits.put(0b000, 3).golomb(0).golomb(WIDTH * HEIGHT);
    }
    bits.finish()
}

/// Bits, most significant first.
#[derive(Default)]
pub(crate) struct Bits {
    pub(crate) bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    pub(crate) fn put(&mut self, value: u32, count: u32) -> &mut Self {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
        self
    }

    /// Exp-Golomb code (9.1). A signed zero has the same code.
    fn golomb(&mut self, value: u32) -> &mut Self {
        let length = (value + 1).ilog2();
        self.put(0, length).put(value + 1, length + 1)
    }

    /// Adds the stop bit (7.3.2.11).
    fn finish(mut self) -> Vec<u8> {
        self.put(1, 1);
        self.bytes
    }
}

/// Macroblocks across and down: 1280×720.
const WIDTH: u32 = 80;
const HEIGHT: u32 = 45;

pub(crate) const START_CODE: [u8; 4] = [0, 0, 0, 1];
const SLICE: u8 = 0x41;
const IDR_SLICE: u8 = 0x65;
const SEQUENCE: u8 = 0x67;
const PICTURE_SET: u8 = 0x68;
const DELIMITER: u8 = 0x09;
const FILLER: u8 = 0x0c;
