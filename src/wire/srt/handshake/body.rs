//! The body of a handshake packet enters, its fields and extensions leave; or they enter and the body leaves
//! (draft-sharabayko-srt-01, 3.2.1). Never decides on a connection.

use std::net::IpAddr;

use crate::wire::srt::crypto::KeyLength;
use crate::wire::srt::stream_id::{StreamId, reversed_text, text_of};
use crate::wire::srt::{Reject, Seq, SocketId};

/// Length in bytes of the body without extensions.
pub(crate) const BODY: usize = 48;

/// The fields that every handshake has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) version: u32,
    /// Key length that the sender has set or means to use, in units of 8 bytes; 0 none.
    pub(crate) encryption: u16,
    /// In a conclusion which extensions follow; in an induction's answer [`MAGIC`].
    pub(crate) extension: u16,
    /// The number of the sender's first data packet, unchecked.
    pub(crate) first: u32,
    pub(crate) mss: u32,
    pub(crate) window: u32,
    pub(crate) kind: Kind,
    pub(crate) socket: SocketId,
    pub(crate) cookie: u32,
    /// The receiver's address as the sender sees it, as it stands on the wire.
    pub(crate) address: [u8; 16],
}

/// The handshake type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    WaveAHand,
    Induction,
    Conclusion,
    Agreement,
    Rejection(Reject),
    Other(u32),
}

/// The extension blocks of a conclusion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extensions<'a> {
    pub(crate) request: Option<Hello>,
    pub(crate) response: Option<Hello>,
    pub(crate) key_request: Option<&'a [u8]>,
    pub(crate) key_response: Option<&'a [u8]>,
    pub(crate) stream_id: Option<StreamId>,
    pub(crate) congestion: Option<Vec<u8>>,
    pub(crate) filter: bool,
    pub(crate) group: Option<Group>,
}

/// Extension blocks as bytes. There may be a password in the stream id among them, so they do not show.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Blocks(pub(crate) Vec<u8>);

/// What HSREQ and HSRSP say (3.2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: Version,
    pub(crate) flags: Flags,
    /// Milliseconds that the sender of this buffers what it receives.
    pub(crate) receive_latency: u16,
    /// Milliseconds that it wants the other side to buffer.
    pub(crate) send_latency: u16,
}

/// A version of SRT as the wire has it: major, minor and patch in a byte each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u32);

/// What a side can and wants to do (3.2.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

/// Membership in a connection group (3.2.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The group's id at the side that says it; bit 30 marks it as one.
    pub id: u32,
    /// How the group uses its links.
    pub kind: GroupKind,
    /// Flags of the link, 0.
    pub flags: u8,
    /// The link's weight or, in a backup group, its priority: higher first.
    pub weight: u16,
}

/// How a connection group uses its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// All links carry everything.
    Broadcast,
    /// One link carries everything until it fails.
    Backup,
    /// A kind that libsrt does not define.
    Other(u8),
}

impl Body {
    /// The fields and what follows them; `None` for less than the fields.
    pub(crate) fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let (fixed, rest) = body.split_first_chunk::<BODY>()?;
        let word = |at: usize| {
            fixed.get(4 * at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        let mut address = [0; 16];
        address.copy_from_slice(&fixed[32..]);
        let parsed = Self {
            version: word(0),
            encryption: (word(1) >> 16) as u16,
            extension: word(1) as u16,
            first: word(2),
            mss: word(3),
            window: word(4),
            kind: Kind::of(word(5)),
            socket: SocketId(word(6)),
            cookie: word(7),
            address,
        };
        Some((parsed, rest))
    }

    pub(crate) fn write(&self, into: &mut Vec<u8>) {
        let kind = u32::from(self.encryption) << 16 | u32::from(self.extension);
        for word in [
            self.version,
            kind,
            self.first,
            self.mss,
            self.window,
            self.kind.number(),
            self.socket.0,
            self.cookie,
        ] {
            into.extend(word.to_be_bytes());
        }
        into.extend(self.address);
    }

    /// The first packet's number, if it is one that may be used: libsrt takes none from 2^31 − 1 on.
    pub(crate) const fn first_packet(&self) -> Option<Seq> {
        if self.first < Seq::COUNT - 1 { Some(Seq::new(self.first)) } else { None }
    }

    /// The key length that the sender advertises.
    pub(crate) fn key_length(&self) -> Option<KeyLength> {
        KeyLength::of(usize::from(self.encryption) * 8)
    }
}

/// The field for a key length; 0 for none.
pub(crate) fn encryption_field(length: Option<KeyLength>) -> u16 {
    length.map_or(0, |length| (length.bytes() / 8) as u16)
}

/// The field for an address: each word in reverse (libsrt writes them as a little-endian machine holds them).
pub(crate) fn address_field(address: IpAddr) -> [u8; 16] {
    let mut field = [0; 16];
    match address {
        IpAddr::V4(v4) => field[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => field.copy_from_slice(&v6.octets()),
    }
    field.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    field
}

impl Kind {
    const fn of(number: u32) -> Self {
        match number {
            0 => Self::WaveAHand,
            1 => Self::Induction,
            CONCLUSION => Self::Conclusion,
            AGREEMENT => Self::Agreement,
            _ => match Reject::from_wire(number) {
                Some(reject) if number < 1 << 31 => Self::Rejection(reject),
                _ => Self::Other(number),
            },
        }
    }

    const fn number(self) -> u32 {
        match self {
            Self::WaveAHand => 0,
            Self::Induction => 1,
            Self::Conclusion => CONCLUSION,
            Self::Agreement => AGREEMENT,
            Self::Rejection(reject) => reject.wire(),
            Self::Other(number) => number,
        }
    }
}

impl<'a> Extensions<'a> {
    /// Reads the blocks of a conclusion. Kinds that the draft does not know are left aside.
    ///
    /// # Errors
    /// The code to refuse with, and which block broke the protocol.
    pub(crate) fn parse(mut rest: &'a [u8]) -> Result<Self, (Reject, &'static str)> {
        let mut all = Self::default();
        let once = |repeated: bool, name| if repeated { Err((Reject::ROGUE, name)) } else { Ok(()) };
        // up to 3 bytes at the end are no block, as in libsrt
        while let Some((head, after)) = rest.split_first_chunk::<4>() {
            let [kind_high, kind_low, size_high, size_low] = *head;
            let length = 4 * usize::from(u16::from_be_bytes([size_high, size_low]));
            let (block, after) = after.split_at_checked(length).ok_or((Reject::ROGUE, "block length"))?;
            rest = after;
            match u16::from_be_bytes([kind_high, kind_low]) {
                HSREQ => {
                    once(all.request.is_some(), "HSREQ twice")?;
                    all.request = Some(Hello::parse(block).ok_or((Reject::ROGUE, "HSREQ length"))?);
                }
                HSRSP => {
                    once(all.response.is_some(), "HSRSP twice")?;
                    all.response = Some(Hello::parse(block).ok_or((Reject::ROGUE, "HSRSP length"))?);
                }
                KMREQ => {
                    once(all.key_request.is_some(), "KMREQ twice")?;
                    all.key_request = Some(block);
                }
                KMRSP => {
                    once(all.key_response.is_some(), "KMRSP twice")?;
                    all.key_response = Some(block);
                }
                SID => {
                    once(all.stream_id.is_some(), "stream id twice")?;
                    let id = StreamId::from_block(block).ok_or((Reject::ROGUE, "stream id length"))?;
                    all.stream_id = Some(id);
                }
                CONGESTION => {
                    once(all.congestion.is_some(), "congestion control twice")?;
                    once(block.is_empty() || block.len() > CONGESTION_MOST, "congestion control length")?;
                    all.congestion = Some(text_of(block));
                }
                FILTER => {
                    once(all.filter, "packet filter twice")?;
                    once(block.is_empty() || block.len() > FILTER_MOST, "packet filter length")?;
                    all.filter = true;
                }
                GROUP => {
                    once(all.group.is_some(), "group twice")?;
                    all.group = Some(Group::parse(block).ok_or((Reject::ROGUE, "group length"))?);
                }
                _ => {}
            }
        }
        Ok(all)
    }

    /// The blocks in libsrt's order.
    pub(crate) fn write(&self) -> Blocks {
        let mut into = Vec::new();
        let mut put = |kind: u16, block: &[u8]| {
            into.extend(kind.to_be_bytes());
            into.extend(((block.len() / 4) as u16).to_be_bytes());
            into.extend(block);
        };
        if let Some(hello) = self.request {
            put(HSREQ, &hello.to_block());
        }
        if let Some(hello) = self.response {
            put(HSRSP, &hello.to_block());
        }
        if let Some(id) = &self.stream_id {
            put(SID, &id.to_block());
        }
        if let Some(name) = &self.congestion {
            put(CONGESTION, &reversed_text(name));
        }
        if let Some(group) = self.group {
            put(GROUP, &group.to_block());
        }
        if let Some(message) = self.key_request {
            put(KMREQ, message);
        }
        if let Some(message) = self.key_response {
            put(KMRSP, message);
        }
        Blocks(into)
    }

    /// The field that says which blocks follow (3.2.1, table 3).
    pub(crate) const fn field(&self) -> u16 {
        let mut field = 0;
        if self.request.is_some() || self.response.is_some() {
            field |= HAS_HELLO;
        }
        if self.key_request.is_some() || self.key_response.is_some() {
            field |= HAS_KEYS;
        }
        if self.stream_id.is_some() || self.congestion.is_some() || self.group.is_some() {
            field |= HAS_CONFIG;
        }
        field
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blocks({} bytes)", self.0.len())
    }
}

impl Hello {
    fn parse(block: &[u8]) -> Option<Self> {
        let [v0, v1, v2, v3, f0, f1, f2, f3, r0, r1, s0, s1] = *block.first_chunk::<12>()?;
        Some(Self {
            version: Version(u32::from_be_bytes([v0, v1, v2, v3])),
            flags: Flags(u32::from_be_bytes([f0, f1, f2, f3])),
            receive_latency: u16::from_be_bytes([r0, r1]),
            send_latency: u16::from_be_bytes([s0, s1]),
        })
    }

    fn to_block(self) -> [u8; 12] {
        let [v0, v1, v2, v3] = self.version.0.to_be_bytes();
        let [f0, f1, f2, f3] = self.flags.0.to_be_bytes();
        let ([r0, r1], [s0, s1]) = (self.receive_latency.to_be_bytes(), self.send_latency.to_be_bytes());
        [v0, v1, v2, v3, f0, f1, f2, f3, r0, r1, s0, s1]
    }
}

impl Version {
    /// What this side says it is: the first libsrt whose AES-GCM has sound nonces, which newer ones then use.
    pub const OURS: Self = Self(0x0001_0504);
    /// The first with handshake version 5.
    pub const HANDSHAKE_5: Self = Self(0x0001_0300);
    /// The last whose AES-GCM has the earlier layout.
    pub const LAST_LEGACY_GCM: Self = Self(0x0001_0503);
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0 >> 16 & 0xFFFF, self.0 >> 8 & 0xFF, self.0 & 0xFF)
    }
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Flags {
    /// Sends with timestamps to be kept.
    pub const TSBPD_SEND: Self = Self(1);
    /// Receives by timestamps.
    pub const TSBPD_RECEIVE: Self = Self(1 << 1);
    /// Knows key material and encrypted payloads.
    pub const CRYPT: Self = Self(1 << 2);
    /// Drops what comes too late.
    pub const TOO_LATE_DROP: Self = Self(1 << 3);
    /// Sends NAKs periodically.
    pub const NAK_REPORT: Self = Self(1 << 4);
    /// Knows the retransmit flag in data headers.
    pub const RETRANSMIT_FLAG: Self = Self(1 << 5);
    /// A stream of bytes, not messages: no live mode.
    pub const STREAM: Self = Self(1 << 6);
    /// Knows packet filters.
    pub const PACKET_FILTER: Self = Self(1 << 7);

    /// Whether all flags of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With those of `other` if `set`.
    #[must_use]
    pub const fn with(self, other: Self, set: bool) -> Self {
        if set { Self(self.0 | other.0) } else { self }
    }
}

impl Group {
    fn parse(block: &[u8]) -> Option<Self> {
        let [i0, i1, i2, i3, kind, flags, w0, w1] = *block.first_chunk::<8>()?;
        let kind = match kind {
            1 => GroupKind::Broadcast,
            2 => GroupKind::Backup,
            other => GroupKind::Other(other),
        };
        let (id, weight) = (u32::from_be_bytes([i0, i1, i2, i3]), u16::from_be_bytes([w0, w1]));
        Some(Self { id, kind, flags, weight })
    }

    fn to_block(self) -> [u8; 8] {
        let kind = match self.kind {
            GroupKind::Broadcast => 1,
            GroupKind::Backup => 2,
            GroupKind::Other(other) => other,
        };
        let ([i0, i1, i2, i3], [w0, w1]) = (self.id.to_be_bytes(), self.weight.to_be_bytes());
        [i0, i1, i2, i3, kind, self.flags, w0, w1]
    }
}

/// What an induction's answer has in its extension field, so that no UDT peer is taken for SRT (4.3.1.1).
pub(crate) const MAGIC: u16 = 0x4A17;

const CONCLUSION: u32 = -1_i32 as u32;
const AGREEMENT: u32 = -2_i32 as u32;

const HSREQ: u16 = 1;
const HSRSP: u16 = 2;
const KMREQ: u16 = 3;
const KMRSP: u16 = 4;
const SID: u16 = 5;
const CONGESTION: u16 = 6;
const FILTER: u16 = 7;
const GROUP: u16 = 8;

/// libsrt's bounds of these texts, in bytes.
const CONGESTION_MOST: usize = 16;
const FILTER_MOST: usize = 64;

const HAS_HELLO: u16 = 1;
const HAS_KEYS: u16 = 1 << 1;
const HAS_CONFIG: u16 = 1 << 2;

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello =
        Hello { version: Version(0x0001_0501), flags: Flags(0xBF), receive_latency: 120, send_latency: 60 };

    #[test]
    fn a_body_is_read_as_it_was_written() {
        for kind in [
            Kind::WaveAHand,
            Kind::Induction,
            Kind::Conclusion,
            Kind::Agreement,
            Kind::Rejection(Reject::BAD_SECRET),
            Kind::Other(7),
            Kind::Other(0x8000_0000),
        ] {
            let body = Body {
                version: 5,
                encryption: 2,
                extension: 7,
                first: 0x7FFF_FFFE,
                mss: 1500,
                window: 8192,
                kind,
                socket: SocketId(0x1234_5678),
                cookie: 0xCAFE_BABE,
                address: address_field("127.0.0.1".parse().unwrap()),
            };
            let mut bytes = Vec::new();
            body.write(&mut bytes);
            assert_eq!((bytes.len(), bytes[32..36].to_vec()), (BODY, vec![1, 0, 0, 127]));
            assert_eq!(Body::parse(&bytes), Some((body, &[][..])));
            assert_eq!(Body::parse(&bytes[..BODY - 1]), None);
            assert_eq!(body.key_length(), Some(KeyLength::Aes128));
            assert_eq!(body.first_packet(), Some(Seq::new(0x7FFF_FFFE)));
            assert_eq!(Body { first: 0x7FFF_FFFF, ..body }.first_packet(), None);
        }
    }

    #[test]
    fn extensions_are_read_as_they_were_written() {
        let group = Group { id: 0x4000_0001, kind: GroupKind::Backup, flags: 0, weight: 50 };
        let all = Extensions {
            request: Some(HELLO),
            response: Some(HELLO),
            key_request: Some(&[1; 64]),
            key_response: Some(&[3, 0, 0, 0]),
            stream_id: StreamId::new(b"cam/x").ok(),
            congestion: Some(b"live".to_vec()),
            filter: false,
            group: Some(group),
        };
        let Blocks(mut bytes) = all.write();
        assert_eq!(Extensions::parse(&bytes), Ok(all.clone()));
        assert_eq!(all.field(), 7);
        // what nobody knows is left aside, and so are bytes that are no word
        bytes.extend([0x12, 0x34, 0, 1, 9, 9, 9, 9, 0, 0, 0]);
        assert_eq!(Extensions::parse(&bytes), Ok(all));
        assert_eq!(Extensions::default().field(), 0);
    }

    #[test]
    fn a_broken_block_is_named() {
        let block =
            |kind: u8, words: u8, bytes: usize| [&[0, kind, 0, words][..], &vec![b'x'; bytes]].concat();
        for (bytes, name) in [
            (block(1, 3, 11), "block length"),
            (block(99, 255, 4), "block length"),
            (block(1, 2, 8), "HSREQ length"),
            (block(2, 0, 0), "HSRSP length"),
            (block(5, 0, 0), "stream id length"),
            (block(5, 129, 516), "stream id length"),
            (block(6, 0, 0), "congestion control length"),
            (block(6, 5, 20), "congestion control length"),
            (block(7, 0, 0), "packet filter length"),
            (block(7, 17, 68), "packet filter length"),
            (block(8, 1, 4), "group length"),
            (block(1, 3, 12).repeat(2), "HSREQ twice"),
            (block(2, 3, 12).repeat(2), "HSRSP twice"),
            (block(3, 1, 4).repeat(2), "KMREQ twice"),
            (block(4, 1, 4).repeat(2), "KMRSP twice"),
            (block(5, 1, 4).repeat(2), "stream id twice"),
            (block(6, 1, 4).repeat(2), "congestion control twice"),
            (block(7, 1, 4).repeat(2), "packet filter twice"),
            (block(8, 2, 8).repeat(2), "group twice"),
        ] {
            assert_eq!(Extensions::parse(&bytes), Err((Reject::ROGUE, name)));
        }
    }

    #[test]
    fn a_version_reads_as_people_write_it() {
        assert_eq!(Version::OURS.to_string(), "1.5.4");
    }
}
