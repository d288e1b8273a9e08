//! Datagrams of transport packets enter, the lane of RTP packets that carry them whole (RFC 2250, 2) fills, shared by all
//! RTSP connections that want them so. Never changes a packet.

use bytes::Bytes;

use super::pack::{Numbers, mix};
use crate::hub::{LaneWriter, Pulse};
use crate::media::{Message, Nanos, PACKET};
use crate::mux::Maker;
use crate::wire::rtp::rtcp::{self, SenderReport};
use crate::wire::rtp::{HEADER, Line, MP2T, Packets};
use crate::wire::rtsp::{Description, Format, Media};
use crate::wire::ts::Analyzer;

/// Fills one lane of messages, one for each datagram.
pub struct TransportMaker {
    line: Line,
    numbers: Numbers,
    analyzer: Analyzer,
    writer: LaneWriter<Message>,
    packets: Packets,
    /// What timestamps run on: the programme clock, or arrival before it is known.
    by_programme: Option<bool>,
    report_at: Nanos,
}

/// A session of one transport stream.
pub fn describe_transport() -> Description {
    let format = Format::Mp2t;
    let control = Some("trackID=0".into());
    let media = Media { format, payload_type: MP2T, clock_rate: RATE as u32, control, group: None };
    Description { media: vec![media], ..Description::default() }
}

impl TransportMaker {
    /// Fills `writer`'s lane with packets of these numbers.
    pub fn new(numbers: Numbers, writer: LaneWriter<Message>) -> Self {
        // Another source than that of any track.
        let random = |nth: u64| mix(numbers.seed ^ (1 << 32 | nth));
        Self {
            line: Line::new(MP2T, random(0) as u32, random(1) as u16, HEADER + FULL),
            numbers,
            analyzer: Analyzer::new(),
            writer,
            packets: Packets::default(),
            by_programme: None,
            report_at: 0,
        }
    }

    fn report(&mut self, timestamp: u32, arrival: Nanos) {
        let report = SenderReport {
            ssrc: self.line.ssrc,
            ntp: rtcp::ntp(self.numbers.wall.saturating_add(arrival)),
            rtp: timestamp,
            packets: self.line.packets,
            octets: self.line.octets,
        };
        let mut compound = Vec::with_capacity(64);
        rtcp::write_sender_report(&mut compound, &report);
        rtcp::write_description(&mut compound, report.ssrc, super::maker::NAME);
        self.packets.append(self.line.channel + 1, &compound);
    }
}

impl Maker for TransportMaker {
    fn datagram(&mut self, datagram: &[u8], arrival: Nanos) {
        self.packets.clear();
        let position = self.writer.next_position();
        let seen = self.analyzer.datagram(position, datagram, arrival);
        // Modulo 2^32, as the field is. 27 MHz is 300 times the rate.
        let timestamp = match seen.pcr {
            Some(pcr) => (pcr / 300) as u32,
            None => (u128::from(arrival) * RATE / 1_000_000_000) as u32,
        };
        let by_programme = seen.pcr.is_some();
        let jumps = self.by_programme.replace(by_programme).is_some_and(|was| was != by_programme);
        if arrival >= self.report_at {
            self.report(timestamp, arrival);
            self.report_at = arrival.saturating_add(super::maker::REPORT);
        }
        for (index, part) in datagram.chunks(FULL).enumerate() {
            // The marker says that the timestamp jumps (RFC 2250, 2).
            self.line.packet(&mut self.packets, timestamp, jumps && index == 0, &[part]);
        }
        if let Some(access) = seen.random_access {
            self.writer.mark_random_access(access);
        }
        let bytes = Bytes::copy_from_slice(self.packets.framed());
        // Whoever reads a transport stream can begin anywhere, and finds its tables.
        let message = Message { bytes, arrival, dts: i64::from(timestamp), preface: Some(Bytes::new()) };
        self.writer.push(message);
    }

    fn commit(&mut self, now: Nanos) -> bool {
        self.writer.commit(now)
    }

    fn pulses(&self, each: &mut dyn FnMut(&Pulse)) {
        each(self.writer.lane().pulse());
    }
}

/// Of timestamps (RFC 2250, 2).
const RATE: u128 = 90_000;
/// Seven packets: as much as fits where 1500 bytes do.
const FULL: usize = 7 * PACKET;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Bounds, Lane};
    use crate::wire::rtp::{framed, parse, transport_packets};

    #[test]
    fn every_byte_of_a_stream_is_carried_in_order_with_reports_beside_it() {
        let (lane, writer) = Lane::new(Bounds::default());
        let mut maker = TransportMaker::new(Numbers { tracks: u32::MAX, seed: 1, wall: 1 << 60 }, writer);
        let stream: Vec<u8> =
            (0..400u32).flat_map(|i| [&[0x47, 1, i as u8, 0x10][..], &[i as u8; 184]].concat()).collect();
        for (i, datagram) in stream.chunks(9 * PACKET).enumerate() {
            maker.datagram(datagram, 100_000_000 * i as u64);
        }
        assert!(maker.commit(0));
        let (mut got, mut reports, mut next) = (Vec::new(), 0, None);
        for position in 0..lane.head() {
            let message = lane.at(position).unwrap();
            assert!(message.preface.is_some());
            for (channel, packet) in framed(&message.bytes) {
                if channel == 1 {
                    reports += 1;
                    continue;
                }
                let (header, payload) = parse(packet).unwrap();
                assert_eq!((header.payload_type, packet.len() <= 1472), (33, true));
                assert!(next.is_none_or(|next| next == header.sequence));
                next = Some(header.sequence.wrapping_add(1));
                got.extend_from_slice(transport_packets(payload).0);
            }
        }
        assert!(got == stream);
        assert_eq!(reports, 1);
    }
}
