//! Payloads enter, whole RTP packets leave in one buffer, each behind the four bytes that frame it on an RTSP
//! connection. Never splits a payload: that is the business of a packetizer.

use std::ops::Range;

use super::header::HEADER;

/// Packets made from access units, one behind the other, for any number of readers.
///
/// Each one stands behind the prefix of an interleaved frame (RFC 2326, 10.12), so that a reader over TCP with the
/// channels of [`Line::channel`] is sent the bytes as they are, and one over UDP the same bytes without four.
#[derive(Debug, Default, Clone)]
pub struct Packets {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// What numbers the packets of one track: its synchronisation source.
#[derive(Debug, Clone)]
pub struct Line {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number of the next packet.
    pub sequence: u16,
    /// Longest packet in bytes, header included, without the prefix; at least [`PACKET_LEAST`].
    pub most: usize,
    /// Interleaved channel of the prefix.
    pub channel: u8,
    /// Packets made so far, as a sender report tells them.
    pub packets: u32,
    /// Bytes of payload made so far, as a sender report tells them.
    pub octets: u32,
}

impl Packets {
    /// Forgets all packets and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All packets, each with its prefix: what a TCP reader is sent.
    pub fn framed(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each packet stands in [`Self::framed`], its prefix included.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end)
    }

    /// Each packet without its prefix: what a UDP reader is sent.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges().map(|range| self.bytes.get(range.start + PREFIX..range.end).unwrap_or_default())
    }

    /// Appends a packet as it is, RTCP for example, for this channel. One beyond 65,535 bytes is left out.
    pub fn append(&mut self, channel: u8, packet: &[u8]) {
        let Ok(length) = u16::try_from(packet.len()) else { return };
        let [l0, l1] = length.to_be_bytes();
        self.bytes.extend_from_slice(&[b'$', channel, l0, l1]);
        self.bytes.extend_from_slice(packet);
        self.ends.push(self.bytes.len());
    }

    fn start(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }
}

impl Line {
    /// A source that begins with `sequence`; packets of at most `most` bytes.
    pub fn new(payload_type: u8, ssrc: u32, sequence: u16, most: usize) -> Self {
        Self {
            payload_type: payload_type & 0x7f,
            ssrc,
            sequence,
            most: most.clamp(PACKET_LEAST, PACKET_MOST),
            channel: 0,
            packets: 0,
            octets: 0,
        }
    }

    /// Bytes of payload that fit a packet.
    pub fn room(&self) -> usize {
        self.most.clamp(PACKET_LEAST, PACKET_MOST) - HEADER
    }

    /// Appends a packet whose payload is `parts`, one behind the other; they must fit [`Self::room`].
    pub fn packet(&mut self, into: &mut Packets, timestamp: u32, marker: bool, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(length <= self.room(), "a payload of {length} bytes in a room of {}", self.room());
        let start = into.start();
        into.bytes.reserve(PREFIX + HEADER + length);
        // A payload is not longer than 65,535 bytes: PACKET_MOST.
        let [l0, l1] = ((HEADER + length) as u16).to_be_bytes();
        into.bytes.extend_from_slice(&[b'$', self.channel, l0, l1]);
        into.bytes.extend_from_slice(&[0x80, self.payload_type | u8::from(marker) << 7]);
        into.bytes.extend_from_slice(&self.sequence.to_be_bytes());
        into.bytes.extend_from_slice(&timestamp.to_be_bytes());
        into.bytes.extend_from_slice(&self.ssrc.to_be_bytes());
        for part in parts {
            into.bytes.extend_from_slice(part);
        }
        into.ends.push(start + PREFIX + HEADER + length);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(length as u32);
    }

    /// Appends `data` as the payloads of as many packets as it needs, `front` before each; the last one has the
    /// marker. An empty `data` makes no packet.
    pub(super) fn split(&mut self, into: &mut Packets, timestamp: u32, front: &[u8], data: &[u8]) {
        let room = self.room().saturating_sub(front.len()).max(1);
        let mut pieces = data.chunks(room).peekable();
        while let Some(piece) = pieces.next() {
            self.packet(into, timestamp, pieces.peek().is_none(), &[front, piece]);
        }
    }
}

/// The packets in interleaved frames, each with its channel; ends at what is none.
pub fn framed(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[dollar, channel, l0, l1], behind) = bytes.split_first_chunk::<PREFIX>()?;
        let (packet, rest) = behind.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        bytes = rest;
        (dollar == b'$').then_some((channel, packet))
    })
}

/// Length of the prefix of an interleaved frame: `$`, channel, length (RFC 2326, 10.12).
pub const PREFIX: usize = 4;

/// The longest packet that a [`Line`] makes.
pub const PACKET_MOST: usize = 65_507;

/// The shortest limit of a packet that every payload format here can work with.
pub const PACKET_LEAST: usize = HEADER + 16;

#[cfg(test)]
mod tests {
    use super::super::header::parse;
    use super::*;

    #[test]
    fn packets_stand_behind_their_prefix_and_count() {
        let mut line = Line::new(96, 7, 65_535, 100);
        line.channel = 2;
        let mut packets = Packets::default();
        line.packet(&mut packets, 90, false, &[b"ab", b"c"]);
        line.packet(&mut packets, 90, true, &[b""]);
        assert_eq!(packets.framed()[..4], [b'$', 2, 0, 15]);
        assert!(framed(packets.framed()).eq(packets.iter().map(|packet| (2, packet))));
        assert_eq!(framed(b"$\x00\x00\x01a$\x01\x00\x02b").collect::<Vec<_>>(), [(0, &b"a"[..])]);
        assert_eq!(framed(b"x\x00\x00\x00").count(), 0);
        let parsed: Vec<_> = packets.iter().map(|packet| parse(packet).unwrap()).collect();
        assert_eq!((parsed[0].1, parsed[0].0.sequence, parsed[0].0.marker), (&b"abc"[..], 65_535, false));
        assert_eq!((parsed[1].1, parsed[1].0.sequence, parsed[1].0.marker), (&b""[..], 0, true));
        assert_eq!((parsed[1].0.payload_type, parsed[1].0.timestamp, parsed[1].0.ssrc), (96, 90, 7));
        assert_eq!((line.packets, line.octets, packets.len()), (2, 3, 2));
        assert_eq!(packets.ranges().map(|range| range.len()).sum::<usize>(), packets.framed().len());
        packets.clear();
        assert!(packets.is_empty() && packets.framed().is_empty());
    }

    #[test]
    fn a_split_payload_fills_its_packets_and_marks_the_last() {
        let mut line = Line::new(98, 1, 0, 40);
        let mut packets = Packets::default();
        line.split(&mut packets, 0, b"F", &[9; 54]);
        let lengths: Vec<_> = packets.iter().map(|packet| packet.len()).collect();
        assert_eq!(lengths, [40, 40]);
        let markers: Vec<_> = packets.iter().map(|packet| parse(packet).unwrap().0.marker).collect();
        assert_eq!(markers, [false, true]);
    }
}
