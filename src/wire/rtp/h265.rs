//! H.265 over RTP (RFC 7798, without DONL): NAL units of an access unit enter, packets leave; packets in order enter,
//! access units leave. Every NAL unit type, one session (SRST).

use super::header::Header;
use super::nal::NalAssembly;
use super::packets::{Line, Packets};
use super::unit::{Losses, Unit};
use crate::wire::h26x::Standard;

/// Makes packets of one access unit from its NAL units without start codes: small neighbours share a packet (AP),
/// long ones are split (FU), the last packet has the marker.
pub fn packetize<'a>(
    nals: impl Iterator<Item = &'a [u8]>,
    line: &mut Line,
    timestamp: u32,
    into: &mut Packets,
) {
    let mut batch: Vec<&[u8]> = Vec::new();
    let mut bytes = 0;
    let mut nals = nals.filter(|nal| nal.len() >= NAL_HEADER).peekable();
    while let Some(nal) = nals.next() {
        let last = nals.peek().is_none();
        let room = line.room();
        let full = NAL_HEADER + bytes + 2 + nal.len() > room || batch.len() == BATCH_MOST;
        if !batch.is_empty() && full {
            flush(&mut batch, line, timestamp, false, into);
            bytes = 0;
        }
        if nal.len() > room {
            fragment(nal, line, timestamp, last, into);
            continue;
        }
        bytes += 2 + nal.len();
        batch.push(nal);
        if last {
            flush(&mut batch, line, timestamp, true, into);
        }
    }
}

/// Puts access units together. Their data: each NAL unit behind its length in four bytes, without access unit
/// delimiters and filler, every parameter set where it came.
#[derive(Debug)]
pub struct H265Depacketizer {
    nals: NalAssembly,
}

impl Default for H265Depacketizer {
    fn default() -> Self {
        Self { nals: NalAssembly::new(Standard::H265) }
    }
}

impl H265Depacketizer {
    /// Takes the payload of the next packet; `lost` tells that packets before it are missing.
    pub fn push(&mut self, header: &Header, payload: &[u8], lost: bool, emit: &mut impl FnMut(Unit)) {
        if let Some(unit) = self.nals.turn(header, lost) {
            emit(unit);
        }
        self.payload(payload);
        if header.marker
            && let Some(unit) = self.nals.marker()
        {
            emit(unit);
        }
    }

    /// What was lost so far.
    pub fn losses(&self) -> Losses {
        self.nals.losses()
    }

    fn payload(&mut self, payload: &[u8]) {
        let payload = payload.strip_prefix(&[0, 0, 0, 1]).unwrap_or(payload);
        let Some((&[h0, h1], rest)) = payload.split_first_chunk::<2>() else {
            if !payload.is_empty() {
                self.nals.malformed();
            }
            return;
        };
        match h0 >> 1 & 0x3f {
            0..=47 => self.nals.whole(payload),
            AP => self.aggregate(rest),
            FU => self.fragment([h0, h1], rest),
            // 50 is PACI, which nothing uses; 51-63 are unspecified.
            _ => self.nals.malformed(),
        }
    }

    fn aggregate(&mut self, mut rest: &[u8]) {
        while let Some(([l0, l1], behind)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            let Some((nal, behind)) = behind.split_at_checked(length) else { return self.nals.malformed() };
            if !nal.is_empty() {
                self.nals.whole(nal);
            }
            rest = behind;
        }
    }

    fn fragment(&mut self, [h0, h1]: [u8; 2], rest: &[u8]) {
        let Some((&fu, piece)) = rest.split_first() else { return self.nals.malformed() };
        let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
        let front = [h0 & 0x81 | (fu & 0x3f) << 1, h1];
        if start {
            self.nals.begin(&front);
        }
        if self.nals.go_on(&front, piece) && end {
            self.nals.end();
        }
    }
}

/// NAL units share a packet (RFC 7798, 4.4.2): the least layer and temporal ids of all stand in its header.
fn flush(batch: &mut Vec<&[u8]>, line: &mut Line, timestamp: u32, marker: bool, into: &mut Packets) {
    match batch.as_slice() {
        [] => return,
        [nal] => line.packet(into, timestamp, marker, &[nal]),
        nals => {
            let word = |nal: &&[u8]| nal.first_chunk::<2>().map_or(0, |head| u16::from_be_bytes(*head));
            let forbidden = nals.iter().map(word).fold(0, |all, head| all | head & 0x8000);
            let layer = nals.iter().map(word).map(|head| head & 0x01f8).min().unwrap_or(0);
            let temporal = nals.iter().map(word).map(|head| head & 0x0007).min().unwrap_or(1);
            let header = (forbidden | u16::from(AP) << 9 | layer | temporal).to_be_bytes();
            // A packet is not longer than 65,507 bytes.
            let lengths: Vec<[u8; 2]> = nals.iter().map(|nal| (nal.len() as u16).to_be_bytes()).collect();
            let mut parts: Vec<&[u8]> = vec![&header];
            for (length, nal) in lengths.iter().zip(nals) {
                parts.extend([length.as_slice(), nal]);
            }
            line.packet(into, timestamp, marker, &parts);
        }
    }
    batch.clear();
}

/// Splits a NAL unit that fits no packet (RFC 7798, 4.4.3).
fn fragment(nal: &[u8], line: &mut Line, timestamp: u32, last: bool, into: &mut Packets) {
    let Some((&[h0, h1], body)) = nal.split_first_chunk::<2>() else { return };
    let mut pieces = body.chunks(line.room() - 3).peekable();
    let mut start = 0x80;
    while let Some(piece) = pieces.next() {
        let end = pieces.peek().is_none();
        let front = [h0 & 0x81 | FU << 1, h1, start | u8::from(end) << 6 | h0 >> 1 & 0x3f];
        line.packet(into, timestamp, last && end, &[&front, piece]);
        start = 0;
    }
}

const NAL_HEADER: usize = 2;
const AP: u8 = 48;
const FU: u8 = 49;

/// Most NAL units that share a packet.
const BATCH_MOST: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, Delivery};
    use super::*;

    fn depacketize(deliveries: &[Delivery]) -> (Vec<Unit>, Losses) {
        let mut depacketizer = H265Depacketizer::default();
        let units = samples::run(deliveries, |h, p, lost, emit| {
            depacketizer.push(h, p, lost, &mut |unit| emit(unit))
        });
        (units, depacketizer.losses())
    }

    fn nal(kind: u8, length: usize) -> Vec<u8> {
        samples::nal(&[kind << 1, 1], length)
    }

    #[test]
    fn a_batch_and_fragments_have_their_forms() {
        let (vps, sps, pps, cra) = (nal(32, 20), nal(33, 30), nal(34, 6), nal(21, 200));
        let packets = samples::packets(120, |line, into| {
            packetize([&vps[..], &sps, &pps, &cra].into_iter(), line, 9, into);
        });
        let heads: Vec<_> =
            packets.iter().map(|p| (p.payload[0] >> 1, p.payload[2], p.header.marker)).collect();
        assert_eq!(heads, [(48, 0, false), (49, 0x80 | 21, false), (49, 0x40 | 21, true)]);
        assert_eq!(packets[0].payload[..4], [96, 1, 0, 20]);
        let (units, losses) = depacketize(&packets);
        assert_eq!(units, [samples::unit(9, &[&vps, &sps, &pps, &cra])]);
        assert_eq!(losses, Losses::default());
    }

    #[test]
    fn the_header_of_a_batch_has_the_least_ids() {
        let nals = [samples::nal(&[2 << 1, 3], 9), samples::nal(&[39 << 1, 2], 9)];
        let packets = samples::packets(120, |line, into| {
            packetize(nals.iter().map(Vec::as_slice), line, 9, into);
        });
        assert_eq!(packets[0].payload[..2], [96, 2]);
    }

    #[test]
    fn delimiters_are_left_out_and_a_reserved_type_is_told() {
        let packets = [
            samples::delivery(0, 1, false, &nal(35, 3)),
            samples::delivery(1, 1, true, &nal(19, 9)),
            samples::delivery(2, 2, true, &nal(50, 9)),
            samples::delivery(3, 3, true, &nal(1, 9)),
        ];
        let (units, losses) = depacketize(&packets);
        assert_eq!(units[0], samples::unit(1, &[&nal(19, 9)]));
        assert_eq!((units.len(), losses.malformed), (2, 1));
    }

    #[test]
    fn a_unit_that_lost_a_fragment_is_damaged() {
        let mut packets = samples::packets(120, |line, into| {
            packetize([&nal(1, 500)[..]].into_iter(), line, 1, into);
            packetize([&nal(1, 50)[..]].into_iter(), line, 2, into);
        });
        packets.remove(2);
        let (units, losses) = depacketize(&packets);
        assert_eq!(units, [samples::unit(2, &[&nal(1, 50)])]);
        assert_eq!(losses.dropped, 1);
    }

    proptest! {
        #[test]
        fn packets_give_back_what_was_put_into_them(
            sizes in prop::collection::vec(prop::collection::vec((0u8..48, 3usize..5000), 1..8), 1..6),
            most in 40usize..2000,
        ) {
            let units: Vec<Vec<Vec<u8>>> = sizes.iter().map(|unit| {
                let nals = unit.iter().filter(|(kind, _)| ![35, 38].contains(kind));
                nals.map(|(kind, size)| nal(*kind, *size)).chain([nal(1, 30)]).collect()
            }).collect();
            let packets = samples::packets(most, |line, into| {
                for (time, unit) in units.iter().enumerate() {
                    packetize(unit.iter().map(Vec::as_slice), line, time as u32, into);
                }
            });
            prop_assert!(packets.iter().all(|p| p.payload.len() + 12 <= most));
            let (out, losses) = depacketize(&packets);
            prop_assert_eq!(losses, Losses::default());
            let want: Vec<_> = units.iter().enumerate().map(|(time, unit)| {
                samples::unit(time as u32, &unit.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }).collect();
            prop_assert_eq!(out, want);
        }
    }
}
