//! MPEG audio over RTP (RFC 2250, 3.5): whole frames with their headers enter, packets leave; packets in order enter,
//! runs of whole frames leave. Reads no more of a frame than its length.

use super::header::Header as RtpHeader;
use super::packets::{Line, Packets};
use super::unit::{Assembly, Losses, Unit};
use crate::wire::audio::{Header, Syntax};

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
            ticks += frame.samples * 90_000 / frame.rate.max(1);
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
    pub fn push(&mut self, header: &RtpHeader, payload: &[u8], lost: bool, emit: &mut impl FnMut(Unit)) {
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
        if bytes.len() < Syntax::Mpeg.header_len() {
            return Some(false);
        }
        let length = Syntax::Mpeg.header(bytes)?.length;
        let Some(rest) = bytes.get(length..).filter(|_| length > 0) else { return Some(false) };
        bytes = rest;
    }
    Some(true)
}

/// The frame that bytes begin with, if it is whole.
fn next_frame(bytes: &[u8]) -> Option<Header> {
    Syntax::Mpeg.header(bytes).filter(|frame| (1..=bytes.len()).contains(&frame.length))
}

const FRONT: usize = 4;

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
