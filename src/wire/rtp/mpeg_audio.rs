//! MPEG audio over RTP (RFC 2250, 3.5): whole frames with their headers enter, packets leave; packets in order enter,
//! runs of whole frames leave. Reads no more of a frame than its length.

use super::header::Header;
use super::packets::{Line, Packets};
use super::unit::{Assembly, Losses, Unit};

/// Makes packets of whole frames that follow each other, as many in each as fit; one that fits no packet is split
/// (3.5). The timestamp is that of the first frame, in units of 1/90 kHz. What is no frame, and all behind it, is left
/// out.
pub fn packetize(mut frames: &[u8], line: &mut Line, timestamp: u32, into: &mut Packets) {
    let room = line.room() - FRONT;
    let mut time = timestamp;
    while !frames.is_empty() {
        let (mut length, mut ticks) = (0, 0);
        while let Some(frame) = next_frame(frames.get(length..).unwrap_or_default()) {
            if length > 0 && length + frame.length > room {
                break;
            }
            length += frame.length;
            ticks += frame.samples * 90_000 / frame.rate;
        }
        let Some((run, rest)) = frames.split_at_checked(length).filter(|(run, _)| !run.is_empty()) else {
            return;
        };
        for (i, piece) in run.chunks(room).enumerate() {
            // A frame is shorter than 2881 bytes.
            let [o0, o1] = ((i * room) as u16).to_be_bytes();
            line.packet(into, time, i == 0, &[&[0, 0, o0, o1], piece]);
        }
        frames = rest;
        time = time.wrapping_add(ticks);
    }
}

/// Puts frames together.
#[derive(Debug, Default)]
pub struct MpegAudioDepacketizer {
    unit: Assembly,
}

impl MpegAudioDepacketizer {
    /// Takes the payload of the next packet; `lost` tells that packets before it are missing.
    pub fn push(&mut self, header: &Header, payload: &[u8], lost: bool, emit: &mut impl FnMut(Unit)) {
        if lost {
            self.unit.abandon();
        }
        let Some((&[_, _, o0, o1], frames)) = payload.split_first_chunk::<FRONT>() else {
            self.unit.losses.malformed += 1;
            return;
        };
        let offset = usize::from(u16::from_be_bytes([o0, o1]));
        if offset == 0 {
            self.unit.abandon();
            self.unit.turn(header, false);
        } else if offset != self.unit.bytes.len() {
            // Its front was lost.
            self.unit.abandon();
            self.unit.losses.dropped += 1;
            return;
        }
        self.unit.extend(frames);
        match whole_frames(&self.unit.bytes) {
            Some(true) => {
                if let Some(unit) = self.unit.finish() {
                    emit(unit);
                }
            }
            Some(false) => {}
            None => {
                self.unit.losses.malformed += 1;
                self.unit.abandon();
            }
        }
    }

    /// What was lost so far.
    pub fn losses(&self) -> Losses {
        self.unit.losses
    }
}

/// Whether bytes are whole frames; `None` when they are none at all.
fn whole_frames(mut bytes: &[u8]) -> Option<bool> {
    while !bytes.is_empty() {
        let Some(header) = bytes.first_chunk::<4>() else { return Some(false) };
        let Some(rest) = bytes.get(read_frame(*header)?.length..) else { return Some(false) };
        bytes = rest;
    }
    Some(true)
}

/// The frame that bytes begin with, if it is whole.
fn next_frame(bytes: &[u8]) -> Option<Frame> {
    read_frame(*bytes.first_chunk::<4>()?).filter(|frame| frame.length <= bytes.len())
}

struct Frame {
    /// In bytes, header included.
    length: usize,
    samples: u32,
    /// Samples per second.
    rate: u32,
}

/// What a header says (ISO/IEC 11172-3, 2.4.2.3; ISO/IEC 13818-3, 2.4.2.3).
fn read_frame([b0, b1, b2, _]: [u8; 4]) -> Option<Frame> {
    if b0 != 0xff || b1 & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = (b1 >> 3 & 3, 4 - (b1 >> 1 & 3));
    let padding = usize::from(b2 >> 1 & 1);
    if version == 1 || layer == 4 {
        return None;
    }
    let full_rate = version == 3;
    let rates: [usize; 3] = [44_100, 48_000, 32_000];
    // MPEG-2 halves the rates, MPEG-2.5 quarters them.
    let rate = rates.get(usize::from(b2 >> 2 & 3))? >> [2, 0, 1, 0][usize::from(version)];
    let row = match (full_rate, layer) {
        (true, layer) => usize::from(layer) - 1,
        (false, 1) => 3,
        (false, _) => 4,
    };
    let kilobits: usize = match b2 >> 4 {
        0 | 15 => return None,
        index => usize::from(*BIT_RATES.get(row)?.get(usize::from(index) - 1)?),
    };
    let (length, samples) = match (layer, full_rate) {
        (1, _) => ((12_000 * kilobits / rate + padding) * 4, 384),
        (3, false) => (72_000 * kilobits / rate + padding, 576),
        _ => (144_000 * kilobits / rate + padding, 1152),
    };
    // At most 48,000.
    Some(Frame { length, samples, rate: rate as u32 })
}

const FRONT: usize = 4;

/// Kilobits per second: MPEG-1 layers 1 to 3, MPEG-2 layer 1, MPEG-2 layers 2 and 3.
const BIT_RATES: [[u16; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Delivery};
    use super::*;

    fn depacketize(deliveries: &[Delivery]) -> (Vec<Unit>, Losses) {
        let mut depacketizer = MpegAudioDepacketizer::default();
        let units = samples::run(deliveries, |h, p, lost, emit| {
            depacketizer.push(h, p, lost, &mut |unit| emit(unit));
        });
        (units, depacketizer.losses())
    }

    /// Layer 2, 256 kb/s, 48 kHz: 768 bytes.
    fn frame() -> Vec<u8> {
        let mut frame = vec![5; 768];
        frame[..4].copy_from_slice(&[0xff, 0xfd, 0xc4, 0]);
        frame
    }

    #[test]
    fn lengths_of_frames_are_known() {
        let frame_length = |header| read_frame(header).map(|frame| frame.length);
        assert_eq!(frame_length([0xff, 0xfd, 0xc4, 0]), Some(768));
        // layer 3, 128 kb/s, 44.1 kHz with padding; MPEG-2 layer 3, 64 kb/s, 22.05 kHz; layer 1, 448 kb/s, 32 kHz
        assert_eq!(frame_length([0xff, 0xfb, 0x92, 0]), Some(418));
        assert_eq!(frame_length([0xff, 0xf3, 0x80, 0]), Some(208));
        assert_eq!(frame_length([0xff, 0xff, 0xe8, 0]), Some(672));
        assert_eq!(frame_length([0xff, 0xfb, 0xf2, 0]), None);
        assert_eq!(frame_length([0x47, 0xfb, 0x92, 0]), None);
    }

    #[test]
    fn frames_are_split_and_put_together() {
        let two = [frame(), frame()].concat();
        for (most, packets, runs) in [(1600, 1, 1), (800, 2, 2), (400, 4, 2), (300, 6, 2)] {
            let made = samples::packets(most, |line, into| packetize(&two, line, 9, into));
            assert_eq!(made.len(), packets);
            let (units, losses) = depacketize(&made);
            let data: Vec<u8> = units.iter().flat_map(|unit| unit.data.to_vec()).collect();
            assert!(data == two && losses == Losses::default(), "{most}");
            // 1152 samples at 48 kHz
            let times: Vec<_> = units.iter().map(|unit| unit.timestamp).collect();
            assert_eq!(times, [9, 9 + 2160][..runs]);
        }
        let none = samples::packets(400, |line, into| packetize(&[0; 800], line, 9, into));
        assert!(none.is_empty());
    }

    #[test]
    fn a_lost_piece_drops_its_frame_alone() {
        let mut made = samples::packets(400, |line, into| {
            packetize(&frame(), line, 1, into);
            packetize(&frame(), line, 2, into);
        });
        made.remove(0);
        let (units, losses) = depacketize(&made);
        assert_eq!((units.len(), units[0].timestamp, losses.dropped), (1, 2, 1));
    }
}
