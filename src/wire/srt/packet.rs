//! The bytes of one SRT datagram enter, its fields leave; or the fields enter and the bytes leave
//! (draft-sharabayko-srt-01, section 3). Never judges whether a packet fits its connection.

use super::Seq;

/// Length in bytes of the header that every packet has (3).
pub const HEADER: usize = 16;

/// Most bytes of payload in one data packet: an MTU of 1500 less the headers of IPv4, UDP and SRT.
pub const PAYLOAD_MOST: usize = 1456;

/// The highest message number: 26 bits. Number 0 is not used; 1 follows the highest (3.1).
pub const MESSAGE_MOST: u32 = (1 << 26) - 1;

/// Who a packet is for: the number that its receiver chose in the handshake. 0 is whoever listens on the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SocketId(pub u32);

/// What one datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A data packet: its header and its payload, which may be encrypted.
    Data(DataHeader, &'a [u8]),
    /// A control packet.
    Control(ControlPacket<'a>),
}

/// The header of a data packet (3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// The number of this packet.
    pub sequence: Seq,
    /// Where in its message the packet stands; live mode knows only `Solo`.
    pub boundary: Boundary,
    /// Messages are to be delivered in order. Live senders clear it, as libsrt does.
    pub in_order: bool,
    /// The key that the payload is encrypted with.
    pub key: KeyFlag,
    /// Sent before.
    pub retransmitted: bool,
    /// 1 to [`MESSAGE_MOST`]: the message it belongs to.
    pub message: u32,
    /// Microseconds since the connection began, modulo 2^32.
    pub timestamp: u32,
    /// Who it is for.
    pub destination: SocketId,
}

/// Which packet of its message a data packet is (3.1, PP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// Neither the first nor the last.
    Middle = 0b00,
    /// The last one.
    Last = 0b01,
    /// The first one.
    First = 0b10,
    /// The only one.
    Solo = 0b11,
}

/// The key that a payload is encrypted with (3.1, KK).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyFlag {
    /// Not encrypted.
    #[default]
    Clear = 0b00,
    /// The even key.
    Even = 0b01,
    /// The odd key.
    Odd = 0b10,
}

/// A control packet (3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPacket<'a> {
    /// Microseconds since the connection began, modulo 2^32.
    pub timestamp: u32,
    /// Who it is for.
    pub destination: SocketId,
    /// What it says.
    pub control: Control<'a>,
}

/// What a control packet says (3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control<'a> {
    /// A handshake, its body unread (3.2.1).
    Handshake(&'a [u8]),
    /// Nothing, but the peer is there (3.2.3).
    KeepAlive,
    /// How far data arrived (3.2.4).
    Ack(Ack),
    /// What data is missing (3.2.5).
    Nak(Losses<'a>),
    /// The peer's link is full (3.2.6).
    CongestionWarning,
    /// The peer ends the connection (3.2.7).
    Shutdown,
    /// An acknowledgement arrived (3.2.8).
    AckAck {
        /// The number of the acknowledgement.
        number: u32,
    },
    /// Data that will not be sent again (3.2.9).
    DropRequest {
        /// The message it belonged to, or 0.
        message: u32,
        /// The first packet.
        first: Seq,
        /// The last packet, not before `first`.
        last: Seq,
    },
    /// The peer's application failed (3.2.10).
    PeerError {
        /// Its reason; 4000 is a failure of its file system.
        code: u32,
    },
    /// A message of the layer above, its body unread (3.2.2 and 3.2.1.1).
    User(UserKind, &'a [u8]),
}

/// The subtype of a user-defined control packet (3.2, table 1, type 0x7FFF).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserKind {
    /// An SRT handshake request of version 4.
    HandshakeRequest,
    /// Its answer.
    HandshakeResponse,
    /// Key material (3.2.2).
    KeyRequest,
    /// The answer to key material.
    KeyResponse,
    /// Any other subtype.
    Other(u16),
}

/// An acknowledgement (3.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The number to answer with in an ACKACK, from 1; 0 in a light one.
    pub number: u32,
    /// Everything before this packet arrived.
    pub next: Seq,
    /// What a full or small acknowledgement says besides; a light one has none and wants no ACKACK.
    pub report: Option<AckReport>,
}

/// The receiver's view of the link (3.2.4). A small acknowledgement ends after `available`: the rest is 0 then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AckReport {
    /// Round-trip time in microseconds, smoothed.
    pub rtt: u32,
    /// Its mean deviation in microseconds.
    pub rtt_variance: u32,
    /// Packets that still fit in the receiver's buffer.
    pub available: u32,
    /// Packets received per second, 0 unknown.
    pub packet_rate: u32,
    /// Estimated capacity of the link in packets per second, 0 unknown.
    pub link_capacity: u32,
    /// Bytes received per second, 0 unknown.
    pub byte_rate: u32,
}

/// Ranges of missing packets as they stand in a NAK (appendix A), checked: the list is not empty, and no range
/// ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Losses<'a>(&'a [u8]);

/// Why bytes are not an SRT packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Less than a header.
    #[error("SRT packet of {0} bytes, expected at least 16")]
    Short(usize),
    /// A data packet with more payload than a connection may agree on.
    #[error("SRT payload of {0} bytes, expected at most 1456")]
    Long(usize),
    /// The two key bits are both set.
    #[error("SRT data packet names both keys")]
    Keys,
    /// A control type that the draft does not know.
    #[error("SRT control type {0:#06x} is unknown")]
    Type(u16),
    /// A field of a control packet breaks the draft.
    #[error("SRT {packet} breaks the draft in its {field}")]
    Field {
        /// Which control packet.
        packet: &'static str,
        /// Which field.
        field: &'static str,
    },
}

impl<'a> Packet<'a> {
    /// Takes one datagram apart.
    ///
    /// # Errors
    /// The datagram breaks the draft.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let (header, body) =
            datagram.split_first_chunk::<HEADER>().ok_or(Malformed::Short(datagram.len()))?;
        if header[0] & 0x80 == 0 {
            if body.len() > PAYLOAD_MOST {
                return Err(Malformed::Long(body.len()));
            }
            return Ok(Self::Data(DataHeader::parse(header)?, body));
        }
        Ok(Self::Control(ControlPacket::parse(header, body)?))
    }

    /// Who a datagram is for, without a look at the rest; `None` for less than a header.
    pub fn destination_of(datagram: &[u8]) -> Option<SocketId> {
        let header = datagram.first_chunk::<HEADER>()?;
        Some(SocketId(words(header)[3]))
    }
}

impl DataHeader {
    /// Reads a header whose first bit says data.
    ///
    /// # Errors
    /// [`Malformed::Keys`]: both key bits are set, which only key material may (3.1).
    pub fn parse(header: &[u8; HEADER]) -> Result<Self, Malformed> {
        let [sequence, flags, timestamp, destination] = words(header);
        Ok(Self {
            sequence: Seq::new(sequence),
            boundary: match flags >> 30 {
                0b00 => Boundary::Middle,
                0b01 => Boundary::Last,
                0b10 => Boundary::First,
                _ => Boundary::Solo,
            },
            in_order: flags & IN_ORDER != 0,
            key: match flags >> KEY_SHIFT & 0b11 {
                0b00 => KeyFlag::Clear,
                0b01 => KeyFlag::Even,
                0b10 => KeyFlag::Odd,
                _ => return Err(Malformed::Keys),
            },
            retransmitted: flags & RETRANSMITTED != 0,
            message: flags & MESSAGE_MOST,
            timestamp,
            destination: SocketId(destination),
        })
    }

    /// The header as it is sent.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let flags = (self.boundary as u32) << 30
            | if self.in_order { IN_ORDER } else { 0 }
            | (self.key as u32) << KEY_SHIFT
            | if self.retransmitted { RETRANSMITTED } else { 0 }
            | (self.message & MESSAGE_MOST);
        header_bytes([self.sequence.value(), flags, self.timestamp, self.destination.0])
    }
}

impl<'a> ControlPacket<'a> {
    /// Appends the packet to `into`, as one datagram.
    pub fn write(&self, into: &mut Vec<u8>) {
        let (kind, subtype, information) = match self.control {
            Control::Handshake(_) => (HANDSHAKE, 0, 0),
            Control::KeepAlive => (KEEP_ALIVE, 0, 0),
            Control::Ack(Ack { number, .. }) => (ACK, 0, number),
            Control::Nak(_) => (NAK, 0, 0),
            Control::CongestionWarning => (CONGESTION_WARNING, 0, 0),
            Control::Shutdown => (SHUTDOWN, 0, 0),
            Control::AckAck { number } => (ACK_ACK, 0, number),
            Control::DropRequest { message, .. } => (DROP_REQUEST, 0, message),
            Control::PeerError { code } => (PEER_ERROR, 0, code),
            Control::User(kind, _) => (USER, kind.number(), 0),
        };
        let first = 1 << 31 | u32::from(kind) << 16 | u32::from(subtype);
        into.extend_from_slice(&header_bytes([first, information, self.timestamp, self.destination.0]));
        let mut put = |values: &[u32]| values.iter().for_each(|v| into.extend_from_slice(&v.to_be_bytes()));
        match self.control {
            Control::Handshake(body) | Control::User(_, body) | Control::Nak(Losses(body)) => {
                into.extend_from_slice(body);
            }
            Control::Ack(Ack { next, report: None, .. }) => put(&[next.value()]),
            Control::Ack(Ack { next, report: Some(r), .. }) => put(&[
                next.value(),
                r.rtt,
                r.rtt_variance,
                r.available,
                r.packet_rate,
                r.link_capacity,
                r.byte_rate,
            ]),
            Control::DropRequest { first, last, .. } => put(&[first.value(), last.value()]),
            // Peers of UDT's line take no packet without a body: one word that means nothing.
            Control::KeepAlive
            | Control::CongestionWarning
            | Control::Shutdown
            | Control::AckAck { .. }
            | Control::PeerError { .. } => put(&[0]),
        }
    }

    fn parse(header: &[u8; HEADER], body: &'a [u8]) -> Result<Self, Malformed> {
        let [first, information, timestamp, destination] = words(header);
        let control = match (first >> 16 & 0x7FFF) as u16 {
            HANDSHAKE => Control::Handshake(body),
            KEEP_ALIVE => Control::KeepAlive,
            ACK => Control::Ack(Ack::parse(information, body)?),
            NAK => Control::Nak(Losses::parse(body)?),
            CONGESTION_WARNING => Control::CongestionWarning,
            SHUTDOWN => Control::Shutdown,
            ACK_ACK => Control::AckAck { number: information },
            DROP_REQUEST => {
                let broken = |field| Malformed::Field { packet: "DROPREQ", field };
                let (range, _) = body.split_first_chunk::<8>().ok_or(broken("length"))?;
                let first = sequence(range, 0).ok_or(broken("first packet"))?;
                let last = sequence(range, 4).ok_or(broken("last packet"))?;
                if last.is_before(first) {
                    return Err(broken("order"));
                }
                Control::DropRequest { message: information & MESSAGE_MOST, first, last }
            }
            PEER_ERROR => Control::PeerError { code: information },
            USER => Control::User(UserKind::of(first as u16), body),
            kind => return Err(Malformed::Type(kind)),
        };
        Ok(Self { timestamp, destination: SocketId(destination), control })
    }
}

impl Ack {
    fn parse(number: u32, body: &[u8]) -> Result<Self, Malformed> {
        let broken = |field| Malformed::Field { packet: "ACK", field };
        let next = sequence(body, 0).ok_or(broken("sequence"))?;
        if body.len() == 4 {
            return Ok(Self { number: 0, next, report: None });
        }
        let required = |at| word(body, at).ok_or(broken("length"));
        let report = AckReport {
            rtt: required(4)?,
            rtt_variance: required(8)?,
            available: required(12)?,
            packet_rate: word(body, 16).unwrap_or(0),
            link_capacity: word(body, 20).unwrap_or(0),
            byte_rate: word(body, 24).unwrap_or(0),
        };
        Ok(Self { number, next, report: Some(report) })
    }
}

impl<'a> Losses<'a> {
    /// Appends the ranges (first and last packet, both missing) to `into` as a NAK carries them, as many as fit
    /// in `most` bytes, and answers how many did.
    pub fn encode(ranges: impl IntoIterator<Item = (Seq, Seq)>, most: usize, into: &mut Vec<u8>) -> usize {
        let end = into.len().saturating_add(most);
        let mut count = 0;
        for (first, last) in ranges {
            let alone = first == last;
            if into.len() + if alone { 4 } else { 8 } > end {
                break;
            }
            let range = if alone { 0 } else { RANGE };
            into.extend_from_slice(&(first.value() | range).to_be_bytes());
            if !alone {
                into.extend_from_slice(&last.value().to_be_bytes());
            }
            count += 1;
        }
        count
    }

    /// Reads the body of a NAK.
    ///
    /// # Errors
    /// The list is empty, ends within a range, or holds a range that ends before it begins.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let broken = |field| Malformed::Field { packet: "NAK", field };
        if body.is_empty() || !body.len().is_multiple_of(4) {
            return Err(broken("length"));
        }
        let mut at = 0;
        while let Some(value) = word(body, at) {
            at += 4;
            if value & RANGE != 0 {
                let last = sequence(body, at).ok_or(broken("end of a range"))?;
                if last.is_before(Seq::new(value)) {
                    return Err(broken("order of a range"));
                }
                at += 4;
            }
        }
        Ok(Self(body))
    }

    /// The ranges in the order of the list: first and last missing packet. They may overlap.
    pub fn ranges(self) -> impl Iterator<Item = (Seq, Seq)> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            let value = word(self.0, at)?;
            let first = Seq::new(value);
            at += 4;
            if value & RANGE == 0 {
                return Some((first, first));
            }
            let last = sequence(self.0, at)?;
            at += 4;
            Some((first, last))
        })
    }
}

impl UserKind {
    /// The subtype's number.
    pub const fn number(self) -> u16 {
        match self {
            Self::HandshakeRequest => 1,
            Self::HandshakeResponse => 2,
            Self::KeyRequest => 3,
            Self::KeyResponse => 4,
            Self::Other(number) => number,
        }
    }

    const fn of(number: u16) -> Self {
        match number {
            1 => Self::HandshakeRequest,
            2 => Self::HandshakeResponse,
            3 => Self::KeyRequest,
            4 => Self::KeyResponse,
            _ => Self::Other(number),
        }
    }
}

fn words(header: &[u8; HEADER]) -> [u32; 4] {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *header;
    [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]].map(u32::from_be_bytes)
}

#[inline]
fn header_bytes(words: [u32; 4]) -> [u8; HEADER] {
    let [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]] =
        words.map(u32::to_be_bytes);
    [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
}

fn word(body: &[u8], at: usize) -> Option<u32> {
    body.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A word whose highest bit is clear, as a sequence number's is.
fn sequence(body: &[u8], at: usize) -> Option<Seq> {
    word(body, at).filter(|value| value & RANGE == 0).map(Seq::new)
}

const IN_ORDER: u32 = 1 << 29;
const KEY_SHIFT: u32 = 27;
const RETRANSMITTED: u32 = 1 << 26;
/// In a loss list: the next word ends the range that begins here.
const RANGE: u32 = 1 << 31;

const HANDSHAKE: u16 = 0;
const KEEP_ALIVE: u16 = 1;
const ACK: u16 = 2;
const NAK: u16 = 3;
const CONGESTION_WARNING: u16 = 4;
const SHUTDOWN: u16 = 5;
const ACK_ACK: u16 = 6;
const DROP_REQUEST: u16 = 7;
const PEER_ERROR: u16 = 8;
const USER: u16 = 0x7FFF;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(control: Control<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        ControlPacket { timestamp: 0x0102_0304, destination: SocketId(0xA0B0_C0D0), control }
            .write(&mut bytes);
        bytes
    }

    #[test]
    fn a_data_header_stands_as_the_draft_draws_it() {
        let header = DataHeader {
            sequence: Seq::new(0x7FFF_FFFE),
            boundary: Boundary::Solo,
            in_order: false,
            key: KeyFlag::Odd,
            retransmitted: true,
            message: 0x0312_3456,
            timestamp: 0xDEAD_BEEF,
            destination: SocketId(0x0102_0304),
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes, *b"\x7f\xff\xff\xfe\xd7\x12\x34\x56\xde\xad\xbe\xef\x01\x02\x03\x04");
        let datagram = [&bytes[..], &[0x47; 188]].concat();
        assert_eq!(Packet::parse(&datagram), Ok(Packet::Data(header, &[0x47; 188])));
        assert_eq!(Packet::destination_of(&datagram), Some(SocketId(0x0102_0304)));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut list = Vec::new();
        let ranges =
            [(Seq::new(5), Seq::new(5)), (Seq::new(0x7FFF_FFFF), Seq::new(2)), (Seq::new(9), Seq::new(10))];
        assert_eq!(Losses::encode(ranges, 1456, &mut list), 3);
        let losses = Losses::parse(&list).unwrap();
        assert_eq!(losses.ranges().collect::<Vec<_>>(), ranges);
        let report = AckReport {
            rtt: 1,
            rtt_variance: 2,
            available: 3,
            packet_rate: 4,
            link_capacity: 5,
            byte_rate: 6,
        };
        for control in [
            Control::Handshake(&[1; 48]),
            Control::KeepAlive,
            Control::Ack(Ack { number: 7, next: Seq::new(99), report: Some(report) }),
            Control::Ack(Ack { number: 0, next: Seq::new(99), report: None }),
            Control::Nak(losses),
            Control::CongestionWarning,
            Control::Shutdown,
            Control::AckAck { number: u32::MAX },
            Control::DropRequest { message: 0, first: Seq::new(0x7FFF_FFFF), last: Seq::new(0) },
            Control::PeerError { code: 4000 },
            Control::User(UserKind::KeyRequest, &[3; 20]),
            Control::User(UserKind::Other(77), &[]),
        ] {
            let bytes = written(control);
            let Ok(Packet::Control(packet)) = Packet::parse(&bytes) else { panic!("{control:?}") };
            assert_eq!(packet.control, control);
            assert_eq!((packet.timestamp, packet.destination), (0x0102_0304, SocketId(0xA0B0_C0D0)));
        }
    }

    #[test]
    fn control_packets_stand_as_the_draft_draws_them() {
        let ack_ack = written(Control::AckAck { number: 0x0A0B_0C0D });
        let want = b"\x80\x06\x00\x00\x0a\x0b\x0c\x0d\x01\x02\x03\x04\xa0\xb0\xc0\xd0\0\0\0\0";
        assert_eq!(ack_ack, want);
        let key_request = written(Control::User(UserKind::KeyRequest, &[0xEE]));
        assert_eq!(key_request, b"\xff\xff\x00\x03\0\0\0\0\x01\x02\x03\x04\xa0\xb0\xc0\xd0\xee");
    }

    #[test]
    fn acknowledgements_of_older_peers_are_read() {
        let full =
            written(Control::Ack(Ack { number: 7, next: Seq::new(99), report: Some(AckReport::default()) }));
        for (words, ok) in [(0, false), (1, true), (2, false), (3, false), (4, true), (6, true), (7, true)] {
            assert_eq!(Packet::parse(&full[..HEADER + 4 * words]).is_ok(), ok, "{words} words");
        }
    }

    #[test]
    fn what_breaks_the_draft_is_refused() {
        let with = |kind: u8, body: &[u8]| [&[0x80, kind][..], &[0; 14], body].concat();
        let nak = |body: &[u8]| Packet::parse(&with(3, body)).is_ok();
        assert!(nak(&[0, 0, 0, 1]));
        assert!(nak(b"\x80\0\0\x01\0\0\0\x02"));
        for body in [
            &[][..],
            &[0, 0, 0],
            b"\x80\0\0\x01",
            b"\x80\0\0\x02\0\0\0\x01",
            b"\x80\0\0\x02\x80\0\0\x03",
            b"\0\0\0\x02\x80\0\0\x03",
        ] {
            assert!(!nak(body), "{body:?}");
        }
        assert!(Packet::parse(&with(7, &[0, 0, 0, 1, 0, 0, 0])).is_err());
        assert!(Packet::parse(&with(7, &[0, 0, 0, 1, 0, 0, 0, 0])).is_err());
        assert!(Packet::parse(&with(2, &[0x80, 0, 0, 1])).is_err());
        assert_eq!(Packet::parse(&with(9, &[])), Err(Malformed::Type(9)));
        assert_eq!(Packet::parse(&[0; 15]), Err(Malformed::Short(15)));
        assert_eq!(Packet::parse(&[0; HEADER + PAYLOAD_MOST + 1]), Err(Malformed::Long(1457)));
        let mut both_keys = [0; HEADER];
        both_keys[4] = 0xD8;
        assert_eq!(Packet::parse(&both_keys), Err(Malformed::Keys));
    }

    #[test]
    fn a_loss_list_ends_where_its_packet_is_full() {
        let mut list = Vec::new();
        let ranges = (0..10).map(|n| (Seq::new(10 * n), Seq::new(10 * n + n % 2)));
        assert_eq!(Losses::encode(ranges, 20, &mut list), 3);
        assert_eq!(list.len(), 16);
    }
}
