//! Formats whose packets hold whole frames and nothing else: Opus (RFC 7587), G.711 (RFC 3551, 4.5.14). Frames enter,
//! packets leave; packets enter, frames leave.

use bytes::Bytes;

use super::header::Header;
use super::packets::{Line, Packets};
use super::unit::{Losses, Unit};

/// Makes the packet of one Opus packet of RFC 6716. One that does not fit makes none: Opus knows no fragments.
pub fn packetize_opus(packet: &[u8], line: &mut Line, timestamp: u32, into: &mut Packets) -> bool {
    let fits = !packet.is_empty() && packet.len() <= line.room();
    if fits {
        line.packet(into, timestamp, false, &[packet]);
    }
    fits
}

/// Makes packets of G.711 samples, each with the time of its first sample.
pub fn packetize_samples(samples: &[u8], channels: u8, line: &mut Line, timestamp: u32, into: &mut Packets) {
    let channels = usize::from(channels.max(1));
    let mut time = timestamp;
    for piece in samples.chunks((line.room() / channels * channels).max(channels)) {
        if piece.len() > line.room() {
            return;
        }
        line.packet(into, time, false, &[piece]);
        time = time.wrapping_add((piece.len() / channels) as u32);
    }
}

/// Hands on what packets hold.
#[derive(Debug, Default)]
pub struct PlainDepacketizer {
    losses: Losses,
}

impl PlainDepacketizer {
    /// Takes the payload of the next packet.
    pub fn push(&mut self, header: &Header, payload: &[u8], _lost: bool, emit: &mut impl FnMut(Unit)) {
        if payload.is_empty() {
            self.losses.malformed += 1;
            return;
        }
        emit(Unit { timestamp: header.timestamp, data: Bytes::copy_from_slice(payload), damaged: false });
    }

    /// What was lost so far.
    pub fn losses(&self) -> Losses {
        self.losses
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let packets = samples::packets(212, |line, into| {
            assert!(packetize_opus(&[1; 200], line, 960, into));
            assert!(!packetize_opus(&[1; 201], line, 1920, into));
            packetize_samples(&[2; 320], 2, line, 5, into);
        });
        let mut depacketizer = PlainDepacketizer::default();
        let units = samples::run(&packets, |h, p, lost, emit| {
            depacketizer.push(h, p, lost, &mut |unit| emit(unit));
        });
        let seen: Vec<_> = units.iter().map(|unit| (unit.timestamp, unit.data.len())).collect();
        assert_eq!(seen, [(960, 200), (5, 200), (105, 120)]);
        depacketizer.push(&samples::header(0, 0, false), &[], false, &mut |_| panic!("an empty frame"));
        assert_eq!(depacketizer.losses().malformed, 1);
    }
}
