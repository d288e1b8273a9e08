//! H.264 over RTP (RFC 6184): NAL units of an access unit enter, packets leave; packets in order enter, access units
//! leave. Packetization modes 0 and 1; knows no interleaved mode.

use super::header::Header;
use super::nal::NalAssembly;
use super::packets::{Line, Packets};
use super::unit::{Losses, Unit};
use crate::wire::h26x::Standard;

/// Makes packets of one access unit from its NAL units without start codes: small neighbours share a packet (STAP-A),
/// long ones are split (FU-A), the last packet has the marker.
pub fn packetize<'a>(
    nals: impl Iterator<Item = &'a [u8]>,
    line: &mut Line,
    timestamp: u32,
    into: &mut Packets,
) {
    let mut batch = Batch::default();
    let mut nals = nals.filter(|nal| !nal.is_empty()).peekable();
    while let Some(nal) = nals.next() {
        let last = nals.peek().is_none();
        if nal.len() > line.room() {
            batch.flush(line, timestamp, false, into);
            fragment(nal, line, timestamp, last, into);
            continue;
        }
        if !batch.fits(nal, line.room()) {
            batch.flush(line, timestamp, false, into);
        }
        batch.push(nal);
        if last {
            batch.flush(line, timestamp, true, into);
        }
    }
}

/// Puts access units together. Their data: each NAL unit behind its length in four bytes, without access unit
/// delimiters and filler, every parameter set where it came.
#[derive(Debug)]
pub struct H264Depacketizer {
    nals: NalAssembly,
}

impl Default for H264Depacketizer {
    fn default() -> Self {
        Self { nals: NalAssembly::new(Standard::H264) }
    }
}

impl H264Depacketizer {
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
        // A start code in front of a NAL unit, as some cameras have it.
        let payload = payload.strip_prefix(&[0, 0, 0, 1]).unwrap_or(payload);
        let Some((&indicator, rest)) = payload.split_first() else { return };
        match indicator & 0x1f {
            0..=23 => self.nals.whole(payload),
            STAP_A => self.aggregate(rest),
            // DON, then as STAP-A: modes of the interleaved kind that nobody sends, but the DON says nothing here.
            25 => self.aggregate(rest.get(2..).unwrap_or_default()),
            FU_A => self.fragment(indicator, rest),
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

    fn fragment(&mut self, indicator: u8, rest: &[u8]) {
        let Some((&fu, piece)) = rest.split_first() else { return self.nals.malformed() };
        let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
        let front = [indicator & 0xe0 | fu & 0x1f];
        if start {
            // One packet with both bits is forbidden (5.8) and sent all the same.
            self.nals.begin(&front);
        }
        if self.nals.go_on(&front, piece) && end {
            self.nals.end();
        }
    }
}

/// NAL units that share a packet (RFC 6184, 5.7.1).
#[derive(Default)]
struct Batch<'a> {
    nals: Vec<&'a [u8]>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn fits(&self, nal: &[u8], room: usize) -> bool {
        self.nals.is_empty() || 1 + self.bytes + 2 + nal.len() <= room && self.nals.len() < BATCH_MOST
    }

    fn push(&mut self, nal: &'a [u8]) {
        self.bytes += 2 + nal.len();
        self.nals.push(nal);
    }

    fn flush(&mut self, line: &mut Line, timestamp: u32, marker: bool, into: &mut Packets) {
        match self.nals.as_slice() {
            [] => return,
            [nal] => line.packet(into, timestamp, marker, &[nal]),
            nals => {
                // The forbidden bit of any, the greatest importance of all (5.7).
                let header = |nal: &&[u8]| nal.first().copied().unwrap_or(0);
                let forbidden = nals.iter().map(header).fold(0, |all, byte| all | byte & 0x80);
                let importance = nals.iter().map(header).map(|byte| byte & 0x60).max().unwrap_or(0);
                let indicator = [forbidden | importance | STAP_A];
                // A packet is not longer than 65,507 bytes.
                let lengths: Vec<[u8; 2]> = nals.iter().map(|nal| (nal.len() as u16).to_be_bytes()).collect();
                let mut parts: Vec<&[u8]> = vec![&indicator];
                for (length, nal) in lengths.iter().zip(nals) {
                    parts.extend([length.as_slice(), nal]);
                }
                line.packet(into, timestamp, marker, &parts);
            }
        }
        self.nals.clear();
        self.bytes = 0;
    }
}

/// Splits a NAL unit that fits no packet (RFC 6184, 5.8).
fn fragment(nal: &[u8], line: &mut Line, timestamp: u32, last: bool, into: &mut Packets) {
    let Some((&header, body)) = nal.split_first() else { return };
    let mut pieces = body.chunks(line.room() - 2).peekable();
    let mut start = 0x80;
    while let Some(piece) = pieces.next() {
        let end = pieces.peek().is_none();
        let front = [header & 0xe0 | FU_A, start | u8::from(end) << 6 | header & 0x1f];
        line.packet(into, timestamp, last && end, &[&front, piece]);
        start = 0;
    }
}

const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Most NAL units that share a packet.
const BATCH_MOST: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, Delivery};
    use super::*;

    fn depacketize(deliveries: &[Delivery]) -> (Vec<Unit>, Losses) {
        let mut depacketizer = H264Depacketizer::default();
        let units = samples::run(deliveries, |h, p, lost, emit| {
            depacketizer.push(h, p, lost, &mut |unit| emit(unit))
        });
        (units, depacketizer.losses())
    }

    fn nal(kind: u8, length: usize) -> Vec<u8> {
        samples::nal(&[0x60 | kind], length)
    }

    #[test]
    fn a_single_nal_a_batch_and_fragments_have_their_forms() {
        let (sps, pps, idr) = (nal(7, 20), nal(8, 6), nal(5, 200));
        let packets = samples::packets(120, |line, into| {
            packetize([&sps[..], &pps, &idr].into_iter(), line, 9, into);
        });
        let heads: Vec<_> = packets.iter().map(|p| (p.payload[0], p.payload[1], p.header.marker)).collect();
        assert_eq!(heads, [(0x78, 0, false), (0x7c, 0x85, false), (0x7c, 0x45, true)]);
        assert_eq!(packets[0].payload[..3], [0x78, 0, 20]);
        assert!(packets.iter().all(|packet| packet.payload.len() <= 108));
        let (units, losses) = depacketize(&packets);
        assert_eq!(units, [samples::unit(9, &[&sps, &pps, &idr])]);
        assert_eq!(losses, Losses::default());
    }

    #[test]
    fn every_parameter_set_is_kept_and_delimiters_are_not() {
        let nals =
            [nal(9, 2), nal(7, 9), nal(7, 10), nal(8, 4), nal(8, 5), nal(6, 30), nal(12, 9), nal(5, 50)];
        let packets = samples::packets(1400, |line, into| {
            packetize(nals.iter().map(Vec::as_slice), line, 0, into);
        });
        let kept: Vec<&[u8]> = [1, 2, 3, 4, 5, 7].map(|i| nals[i].as_slice()).into();
        assert_eq!(depacketize(&packets).0, [samples::unit(0, &kept)]);
    }

    #[test]
    fn annex_b_inside_a_nal_is_taken_apart() {
        let (sps, pps, idr) = (nal(7, 20), nal(8, 6), nal(5, 200));
        let stream = [&[0, 0, 0, 1][..], &sps, &[0, 0, 0, 1], &pps, &[0, 0, 1], &idr].concat();
        let packets = [samples::delivery(0, 5, true, &stream)];
        assert_eq!(depacketize(&packets).0, [samples::unit(5, &[&sps, &pps, &idr])]);
        // the same in fragments, without a start code in front
        let stream = [&sps[..], &[0, 0, 0, 1], &pps, &[0, 0, 1], &idr].concat();
        let packets = samples::packets(60, |line, into| fragment(&stream, line, 5, true, into));
        assert_eq!(depacketize(&packets).0, [samples::unit(5, &[&sps, &pps, &idr])]);
    }

    #[test]
    fn a_fragment_with_both_bits_is_a_nal() {
        let packets = [samples::delivery(0, 1, true, &[0x7c, 0xc5, 1, 2, 3])];
        assert_eq!(depacketize(&packets).0, [samples::unit(1, &[&[0x65, 1, 2, 3]])]);
    }

    #[test]
    fn a_missing_marker_is_made_up_by_the_next_timestamp() {
        let packets = [
            samples::delivery(0, 1, false, &nal(5, 9)),
            samples::delivery(1, 2, false, &nal(1, 9)),
            samples::delivery(2, 3, true, &nal(1, 9)),
        ];
        let units = depacketize(&packets).0;
        assert_eq!(
            units.iter().map(|unit| (unit.timestamp, unit.damaged)).collect::<Vec<_>>(),
            [(1, false), (2, false), (3, false)]
        );
    }

    #[test]
    fn parameter_sets_with_a_marker_or_a_time_of_their_own_go_with_the_picture() {
        let (sps, pps, idr) = (nal(7, 20), nal(8, 6), nal(5, 20));
        let packets = [
            samples::delivery(0, 1, true, &sps),
            samples::delivery(1, 1, true, &pps),
            samples::delivery(2, 2, true, &idr),
        ];
        assert_eq!(depacketize(&packets).0, [samples::unit(2, &[&sps, &pps, &idr])]);
    }

    #[test]
    fn loss_takes_the_broken_nal_and_is_told() {
        let (one, two) = (nal(5, 300), nal(1, 300));
        let mut packets = samples::packets(120, |line, into| {
            packetize([&one[..], &nal(5, 50)].into_iter(), line, 1, into);
            packetize([&two[..]].into_iter(), line, 2, into);
            packetize([&nal(7, 20)[..], &nal(5, 300)].into_iter(), line, 3, into);
        });
        // a fragment of the first picture
        packets.remove(1);
        let (units, losses) = depacketize(&packets);
        let slice = nal(5, 50);
        assert_eq!(units[0], Unit { damaged: true, ..samples::unit(1, &[&slice]) });
        assert_eq!((units.len(), units[1].damaged, losses.damaged), (3, false, 1));
        // all of the second one, and the end of the first: what begins with a parameter set is whole
        let second: Vec<_> = packets.iter().filter(|p| p.header.timestamp != 2).cloned().collect();
        let (units, _) = depacketize(&second);
        assert_eq!((units.len(), units[1].timestamp, units[1].damaged), (2, 3, false));
    }

    #[test]
    fn an_access_unit_has_a_bound() {
        let mut depacketizer = H264Depacketizer::default();
        let piece = [&[0x7c, 0x05][..], &[1; 60_000]].concat();
        let mut header = samples::header(0, 1, false);
        let mut out = Vec::new();
        depacketizer.push(&header, &[0x7c, 0x85, 1], false, &mut |unit| out.push(unit));
        for sequence in 1..200 {
            header.sequence = sequence;
            depacketizer.push(&header, &piece, false, &mut |unit| out.push(unit));
        }
        header.timestamp = 2;
        header.marker = true;
        depacketizer.push(&header, &nal(5, 30), false, &mut |unit| out.push(unit));
        assert_eq!(depacketizer.losses().oversized, 1);
        assert_eq!(out, [samples::unit(2, &[&nal(5, 30)])]);
    }

    proptest! {
        #[test]
        fn packets_give_back_what_was_put_into_them(
            sizes in prop::collection::vec(prop::collection::vec((0usize..7, 2usize..5000), 1..8), 1..6),
            most in 40usize..2000,
        ) {
            let kinds = [1, 5, 6, 7, 8, 19, 2];
            let units: Vec<Vec<Vec<u8>>> = sizes.iter().map(|unit| {
                // an access unit has a slice at its end, or it would wait for one
                unit.iter().map(|(kind, size)| nal(kinds[*kind], *size)).chain([nal(1, 30)]).collect()
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
