//! AAC over RTP (RFC 3640, modes AAC-hbr and AAC-lbr): raw access units without ADTS enter, packets leave; packets in
//! order enter, raw access units leave. No interleaving; auxiliary fields of other modes are refused by the SDP.

use bytes::Bytes;

use super::header::Header;
use super::packets::{Line, Packets};
use super::unit::{Assembly, Losses, Unit};

/// How the headers of access units look: `sizelength`, `indexlength` and `indexdeltalength` of the SDP, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuHeaders {
    /// Bits of the size of an access unit.
    pub size: u8,
    /// Bits of the index of the first access unit.
    pub index: u8,
    /// Bits of the index difference of each further one.
    pub index_delta: u8,
}

impl AuHeaders {
    /// Those of AAC-hbr (RFC 3640, 3.3.6): what everybody sends.
    pub const HBR: Self = Self { size: 13, index: 3, index_delta: 3 };
}

/// Makes packets of one access unit of at most 8191 bytes: one, or as many as it needs. Longer ones are not AAC
/// (ISO/IEC 14496-3: 6144 bits per channel) and make no packet.
pub fn packetize(unit: &[u8], line: &mut Line, timestamp: u32, into: &mut Packets) {
    if unit.len() > SIZE_MOST {
        return;
    }
    let [s0, s1] = ((unit.len() as u16) << 3).to_be_bytes();
    // Fragments repeat the size of the whole (3.2.3.1 and 3.3.6).
    line.split(into, timestamp, &[0, 16, s0, s1], unit);
}

/// Puts access units together.
#[derive(Debug)]
pub struct AacDepacketizer {
    headers: AuHeaders,
    /// Samples of an access unit, in units of the clock rate.
    samples: u32,
    unit: Assembly,
    /// Bytes that the fragmented access unit still lacks.
    missing: usize,
}

impl AacDepacketizer {
    /// A depacketizer for access units of `samples` samples (1024, or 960 where AudioSpecificConfig says so).
    pub fn new(headers: AuHeaders, samples: u32) -> Self {
        // A size of no bits would be read for ever.
        let headers = AuHeaders { size: headers.size.max(1), ..headers };
        Self { headers, samples, unit: Assembly::default(), missing: 0 }
    }

    /// Takes the payload of the next packet; `lost` tells that packets before it are missing.
    pub fn push(&mut self, header: &Header, payload: &[u8], lost: bool, emit: &mut impl FnMut(Unit)) {
        if self.missing > 0 && (lost || self.unit.turn(header, false).is_some()) {
            self.unit.abandon();
            self.missing = 0;
        }
        if self.packet(header, payload, emit).is_none() {
            self.unit.losses.malformed += 1;
            self.unit.abandon();
            self.missing = 0;
        }
    }

    /// What was lost so far.
    pub fn losses(&self) -> Losses {
        self.unit.losses
    }

    fn packet(&mut self, header: &Header, payload: &[u8], emit: &mut impl FnMut(Unit)) -> Option<()> {
        let (length, rest) = payload.split_first_chunk::<2>()?;
        let bits = usize::from(u16::from_be_bytes(*length));
        let (headers, mut data) = rest.split_at_checked(bits.div_ceil(8))?;
        let mut headers = Bits { bytes: headers, at: 0, end: bits };
        let mut timestamp = header.timestamp;
        let mut first = true;
        while !headers.is_done() {
            let size = headers.read(self.headers.size)? as usize;
            let index = headers.read(if first { self.headers.index } else { self.headers.index_delta })?;
            if !first {
                // An index difference of more than 0 leaves access units out (3.2.1.1).
                timestamp = timestamp.wrapping_add(self.samples.wrapping_mul(index.wrapping_add(1)));
            }
            if self.missing > 0 || size > data.len() {
                if !(first && headers.is_done()) {
                    // Fragments are alone in their packets.
                    return None;
                }
                return self.fragment(header, size, data, emit);
            }
            let (unit, behind) = data.split_at(size);
            data = behind;
            first = false;
            if size > 0 {
                emit(Unit { timestamp, data: Bytes::copy_from_slice(unit), damaged: false });
            }
        }
        (!first).then_some(())
    }

    fn fragment(
        &mut self,
        header: &Header,
        size: usize,
        data: &[u8],
        emit: &mut impl FnMut(Unit),
    ) -> Option<()> {
        if self.missing == 0 {
            self.unit.turn(header, false);
            self.missing = size;
        }
        self.missing = self.missing.checked_sub(data.len())?;
        self.unit.extend(data);
        if data.is_empty() {
            return None;
        }
        if self.missing == 0
            && let Some(unit) = self.unit.finish()
        {
            emit(unit);
        }
        Some(())
    }
}

/// Bits of the AU header section, most significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Bits<'_> {
    fn is_done(&self) -> bool {
        self.at >= self.end
    }

    fn read(&mut self, count: u8) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count.min(32) {
            if self.at >= self.end {
                return None;
            }
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }
}

/// The greatest size that 13 bits tell.
const SIZE_MOST: usize = 8191;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, Delivery};
    use super::*;

    fn depacketize(deliveries: &[Delivery]) -> (Vec<(u32, Vec<u8>)>, Losses) {
        let mut depacketizer = AacDepacketizer::new(AuHeaders::HBR, 1024);
        let units = samples::run(deliveries, |h, p, lost, emit| {
            depacketizer.push(h, p, lost, &mut |unit| emit(unit));
        });
        (units.into_iter().map(|unit| (unit.timestamp, unit.data.to_vec())).collect(), depacketizer.losses())
    }

    #[test]
    fn one_access_unit_has_one_header() {
        let packets = samples::packets(1400, |line, into| packetize(&[7; 300], line, 5, into));
        assert_eq!(packets[0].payload[..5], [0, 16, 9, 0x60, 7]);
        assert!(packets[0].header.marker);
        assert_eq!(depacketize(&packets).0, [(5, vec![7; 300])]);
    }

    #[test]
    fn several_access_units_share_a_packet_and_an_index_leaves_some_out() {
        let payload = [0, 48, 0, 2 << 3, 0, 1 << 3, 0, 3 << 3 | 2, 1, 2, 3, 4, 5, 6];
        let (units, losses) = depacketize(&[samples::delivery(0, 100, true, &payload)]);
        let want = [(100, vec![1, 2]), (100 + 1024, vec![3]), (100 + 1024 + 3 * 1024, vec![4, 5, 6])];
        assert_eq!((units, losses), (want.to_vec(), Losses::default()));
    }

    #[test]
    fn low_bit_rate_headers_are_read() {
        let mut depacketizer = AacDepacketizer::new(AuHeaders { size: 6, index: 2, index_delta: 2 }, 1024);
        let mut out = Vec::new();
        let payload = [0, 16, 2 << 2, 1 << 2, 9, 8, 7];
        depacketizer.push(&samples::header(0, 0, true), &payload, false, &mut |unit| out.push(unit.data));
        assert_eq!(out, [Bytes::from_static(&[9, 8]), Bytes::from_static(&[7])]);
    }

    #[test]
    fn a_lost_fragment_drops_its_access_unit_alone() {
        let mut packets = samples::packets(60, |line, into| {
            packetize(&[1; 120], line, 0, into);
            packetize(&[2; 30], line, 1024, into);
        });
        packets.remove(1);
        let (units, losses) = depacketize(&packets);
        assert_eq!(units, [(1024, vec![2; 30])]);
        // the last fragment of the broken one looks like a first one
        assert!(losses.dropped + losses.malformed >= 1);
    }

    #[test]
    fn sizes_that_lie_are_malformed() {
        let lies: [&[u8]; 6] =
            [&[], &[0], &[0, 0], &[0, 16, 0], &[0, 13, 0, 8, 1], &[0, 32, 0, 8, 0, 80, 1, 2]];
        for lie in lies {
            let (_, losses) = depacketize(&[samples::delivery(0, 0, true, lie)]);
            assert_eq!(losses.malformed, 1, "{lie:?}");
        }
    }

    proptest! {
        #[test]
        fn packets_give_back_what_was_put_into_them(
            sizes in prop::collection::vec(1usize..3000, 1..8), most in 40usize..2000,
        ) {
            let packets = samples::packets(most, |line, into| {
                for (i, size) in sizes.iter().enumerate() {
                    packetize(&vec![i as u8; *size], line, i as u32 * 1024, into);
                }
            });
            let want: Vec<_> =
                sizes.iter().enumerate().map(|(i, size)| (i as u32 * 1024, vec![i as u8; *size])).collect();
            prop_assert_eq!(depacketize(&packets), (want, Losses::default()));
        }
    }
}
