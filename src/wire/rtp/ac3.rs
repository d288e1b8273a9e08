//! AC-3 over RTP (RFC 4184): whole sync frames enter, packets leave; packets in order enter, sync frames leave.
//! Reads nothing of a frame.

use super::header::Header;
use super::packets::{Line, Packets};
use super::unit::{Assembly, Losses, Unit};

/// Makes packets of one sync frame: one, or as many fragments as it needs.
pub fn packetize(frame: &[u8], line: &mut Line, timestamp: u32, into: &mut Packets) {
    let room = line.room() - FRONT;
    let pieces = frame.len().div_ceil(room);
    let Ok(count) = u8::try_from(pieces) else { return };
    for (i, piece) in frame.chunks(room).enumerate() {
        let kind = match i {
            0 if pieces == 1 => WHOLE,
            // Whether the first fragment holds the five eighths that decode alone (4.1.1).
            0 if 8 * piece.len() >= 5 * frame.len() => FIRST_LARGE,
            0 => FIRST,
            _ => FURTHER,
        };
        line.packet(into, timestamp, i + 1 == pieces, &[&[kind, count], piece]);
    }
}

/// Puts sync frames together; several of one packet leave as one unit.
#[derive(Debug, Default)]
pub struct Ac3Depacketizer {
    unit: Assembly,
    /// Fragments that are still to come.
    missing: u8,
}

impl Ac3Depacketizer {
    /// Takes the payload of the next packet; `lost` tells that packets before it are missing.
    pub fn push(&mut self, header: &Header, payload: &[u8], lost: bool, emit: &mut impl FnMut(Unit)) {
        let Some((&[kind, count], data)) = payload.split_first_chunk::<FRONT>() else {
            self.unit.losses.malformed += 1;
            return;
        };
        if lost || kind & 3 != FURTHER {
            self.unit.abandon();
            self.missing = 0;
        }
        match kind & 3 {
            WHOLE => self.missing = 1,
            FURTHER if self.missing == 0 => {
                self.unit.losses.dropped += u64::from(header.marker);
                return;
            }
            FURTHER => {}
            _ => self.missing = count,
        }
        if self.unit.turn(header, false).is_some() {
            self.missing = 0;
            self.unit.abandon();
            return;
        }
        self.unit.extend(data);
        self.missing = self.missing.saturating_sub(1);
        if self.missing == 0
            && let Some(unit) = self.unit.finish()
        {
            emit(unit);
        }
    }

    /// What was lost so far.
    pub fn losses(&self) -> Losses {
        self.unit.losses
    }
}

const FRONT: usize = 2;
const WHOLE: u8 = 0;
const FIRST_LARGE: u8 = 1;
const FIRST: u8 = 2;
const FURTHER: u8 = 3;

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Delivery};
    use super::*;

    fn depacketize(deliveries: &[Delivery]) -> (Vec<(u32, usize)>, Losses) {
        let mut depacketizer = Ac3Depacketizer::default();
        let units = samples::run(deliveries, |h, p, lost, emit| {
            depacketizer.push(h, p, lost, &mut |unit| emit(unit));
        });
        (units.iter().map(|unit| (unit.timestamp, unit.data.len())).collect(), depacketizer.losses())
    }

    #[test]
    fn frames_are_split_and_put_together() {
        for (most, heads) in
            [(1600, vec![[0, 1]]), (814, vec![[1, 2], [3, 2]]), (514, vec![[2, 3], [3, 3], [3, 3]])]
        {
            let packets = samples::packets(most, |line, into| packetize(&[9; 1200], line, 7, into));
            let seen: Vec<_> = packets.iter().map(|packet| [packet.payload[0], packet.payload[1]]).collect();
            assert_eq!(seen, heads);
            assert_eq!(depacketize(&packets), (vec![(7, 1200)], Losses::default()));
        }
    }

    #[test]
    fn a_lost_fragment_drops_its_frame_alone() {
        let mut packets = samples::packets(514, |line, into| {
            packetize(&[9; 1200], line, 1, into);
            packetize(&[9; 300], line, 2, into);
        });
        packets.remove(1);
        let (units, losses) = depacketize(&packets);
        assert_eq!(units, [(2, 300)]);
        assert!(losses.dropped >= 1);
    }
}
