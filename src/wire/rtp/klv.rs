//! KLV over RTP (RFC 6597, `SMPTE336M`): KLV units enter, packets leave; packets in order enter, whole units leave.
//! Reads no key and no length.

use super::header::Header;
use super::packets::{Line, Packets};
use super::unit::{Assembly, Losses, Unit};

/// Makes packets of one KLV unit, all with its timestamp, the last one with the marker (RFC 6597, 4.2).
pub fn packetize(unit: &[u8], line: &mut Line, timestamp: u32, into: &mut Packets) {
    line.split(into, timestamp, &[], unit);
}

/// Puts KLV units together. One that lost a packet is dropped (RFC 6597, 4.3.1): half a local set is none.
#[derive(Debug, Default)]
pub struct KlvDepacketizer {
    unit: Assembly,
    /// What follows up to a marker or another timestamp belongs to a broken unit.
    skip: Option<u32>,
}

impl KlvDepacketizer {
    /// Takes the payload of the next packet; `lost` tells that packets before it are missing.
    pub fn push(&mut self, header: &Header, payload: &[u8], lost: bool, emit: &mut impl FnMut(Unit)) {
        if lost {
            self.unit.abandon();
        }
        // A unit begins with a universal label (SMPTE ST 336, 4.1): anything else is the rest of one.
        if lost && !payload.starts_with(LABEL) {
            self.unit.losses.dropped += 1;
            self.skip = Some(header.timestamp);
        }
        if self.skip == Some(header.timestamp) {
            self.skip = (!header.marker).then_some(header.timestamp);
            return;
        }
        self.skip = None;
        if let Some(unit) = self.unit.turn(header, false) {
            emit(unit);
        }
        self.unit.extend(payload);
        if header.marker
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

const LABEL: &[u8] = &[0x06, 0x0e, 0x2b, 0x34];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, Delivery};
    use super::*;

    fn depacketize(deliveries: &[Delivery]) -> (Vec<(u32, Vec<u8>)>, Losses) {
        let mut depacketizer = KlvDepacketizer::default();
        let units = samples::run(deliveries, |h, p, lost, emit| {
            depacketizer.push(h, p, lost, &mut |unit| emit(unit));
        });
        (units.into_iter().map(|unit| (unit.timestamp, unit.data.to_vec())).collect(), depacketizer.losses())
    }

    fn klv(length: usize) -> Vec<u8> {
        LABEL.iter().copied().chain((LABEL.len()..length).map(|i| i as u8)).collect()
    }

    #[test]
    fn a_unit_over_several_packets_is_one() {
        let packets = samples::packets(60, |line, into| packetize(&klv(100), line, 3, into));
        assert_eq!(packets.iter().map(|p| p.header.marker).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(depacketize(&packets), (vec![(3, klv(100))], Losses::default()));
    }

    #[test]
    fn loss_drops_the_units_that_it_touches_and_no_other() {
        let whole = samples::packets(60, |line, into| {
            for time in 0..4 {
                packetize(&klv(100), line, time, into);
            }
        });
        // the middle of the first; its end; the front of the second; the end of the first and all of the second
        for (gone, left) in [(vec![1], vec![1, 2, 3]), (vec![2], vec![1, 2, 3]), (vec![3], vec![0, 2, 3])] {
            let packets: Vec<_> =
                whole.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, p)| p.clone()).collect();
            let (units, losses) = depacketize(&packets);
            assert_eq!(units.iter().map(|unit| unit.0).collect::<Vec<_>>(), left, "without {gone:?}");
            assert!(losses.dropped >= 1);
        }
    }

    #[test]
    fn a_missing_marker_is_made_up_by_the_next_timestamp() {
        let packets = [samples::delivery(0, 1, false, &klv(20)), samples::delivery(1, 2, true, &klv(30))];
        assert_eq!(depacketize(&packets).0, [(1, klv(20)), (2, klv(30))]);
    }

    proptest! {
        #[test]
        fn packets_give_back_what_was_put_into_them(
            sizes in prop::collection::vec(4usize..9000, 1..6), most in 28usize..2000,
        ) {
            let packets = samples::packets(most, |line, into| {
                for (time, size) in sizes.iter().enumerate() {
                    packetize(&klv(*size), line, time as u32, into);
                }
            });
            let want: Vec<_> = sizes.iter().enumerate().map(|(i, size)| (i as u32, klv(*size))).collect();
            prop_assert_eq!(depacketize(&packets), (want, Losses::default()));
        }
    }
}
