//! What both sides want enters, what they agree on or the code to refuse with leaves (draft-sharabayko-srt-01,
//! 3.2.1.1 and 4.3). Knows nothing of the order of packets.

use super::body::{
    Blocks, Body, Extensions, Flags, Group, Hello, Kind, Version, address_field, encryption_field,
};
use crate::wire::srt::crypto::{
    Cipher, Kek, KeyLength, KeyMaterial, KeyState, Offer, ReceiveKeys, RefreshPlan, SendKeys,
};
use crate::wire::srt::{
    Control, ControlPacket, HEADER, Nanos, PAYLOAD_MOST, Reject, Seq, SocketId, StreamId,
};

use std::net::IpAddr;

/// What this side wants of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds that this side buffers what it receives, at least (`rcvlatency`).
    pub receive_latency: u16,
    /// Milliseconds that the peer shall buffer what it receives, at least (`peerlatency`).
    pub send_latency: u16,
    /// The largest IP packet in bytes (`mss`), 76 to 1500.
    pub mss: u16,
    /// Packets that this side's receive buffer holds (`fc`, `rcvbuf`).
    pub window: u32,
    /// The oldest peer that is spoken to (`minversion`).
    pub minimum_version: Version,
    /// This side drops what comes too late (`tlpktdrop`).
    pub too_late_drop: bool,
    /// This side sends NAKs periodically (`nakreport`).
    pub nak_reports: bool,
    /// Refuse a peer that cannot encrypt as this side does (`enforcedencryption`).
    pub enforced: bool,
    /// The cipher (`cryptomode`); `None` offers CTR and takes what the peer offers.
    pub cipher: Option<Cipher>,
    /// How long keys are (`pbkeylen`); `None` takes the peer's, or 16 bytes.
    pub key_length: Option<KeyLength>,
    /// When the key is changed.
    pub refresh: RefreshPlan,
    /// Payload goes out from this side: its key length stands where both have one.
    pub sends: bool,
}

/// What this side's end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// Its socket id, not 0: what the peer's packets carry as destination. Random, so that nobody can guess it.
    pub socket: SocketId,
    /// The number of its first data packet: random, below 2^31 − 1.
    pub first: Seq,
    /// When its timestamps are 0.
    pub started: Nanos,
}

/// What two sides have agreed on.
#[derive(Debug)]
pub struct Agreed {
    /// This side's socket id.
    pub local: SocketId,
    /// The peer's socket id: the destination of all packets to it.
    pub peer: SocketId,
    /// The number of the first data packet that this side sends.
    pub first_sent: Seq,
    /// The number of the first data packet that the peer sends.
    pub first_received: Seq,
    /// When this side's timestamps are 0.
    pub started: Nanos,
    /// What the peer's clock showed when.
    pub peer_clock: PeerClock,
    /// The peer's version.
    pub peer_version: Version,
    /// What the peer can do.
    pub peer_flags: Flags,
    /// Milliseconds that this side buffers what it receives.
    pub receive_latency: u16,
    /// Milliseconds that the peer buffers what it receives.
    pub send_latency: u16,
    /// Packets that the peer's receive buffer holds.
    pub peer_window: u32,
    /// The largest IP packet in bytes, as both can take it.
    pub mss: u16,
    /// Most bytes of payload in a data packet, before encryption.
    pub payload_most: usize,
    /// What the caller asked for; at the caller itself and in a rendezvous what was sent or received.
    pub stream_id: Option<StreamId>,
    /// The peer's connection group.
    pub group: Option<Group>,
    /// Keys, and whether they hold.
    pub security: Security,
}

/// What the peer's clock showed at a time of ours, transit included: the base of its packets' delivery times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerClock {
    /// When its handshake came.
    pub at: Nanos,
    /// The timestamp in it: microseconds modulo 2^32.
    pub timestamp: u32,
}

/// How the two directions are protected.
#[derive(Debug)]
pub struct Security {
    /// What leaves. `NoSecret`, `BadSecret` and `BadCipher` come only where encryption is not enforced; payload
    /// must not be sent then: the peer could not read it, and in the clear it would show what was to be hidden.
    pub send: KeyState,
    /// What arrives. Other than `Unsecured` and `Secured`: encrypted payload cannot be read.
    pub receive: KeyState,
    /// The keys for what leaves, if `send` is `Secured`.
    pub sender: Option<SendKeys>,
    /// The keys for what arrives, if `receive` is `Secured`.
    pub receiver: Option<ReceiveKeys>,
}

/// This side's passphrase, as far as it is needed to answer.
#[derive(Debug, Clone, Copy)]
pub enum Secret<'a> {
    /// There is none.
    None,
    /// There is one, and this is the key derived from it with the peer's salt; `None` only where the peer sent no
    /// salt.
    Passphrase(Option<&'a Kek>),
}

/// A connection that does not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reject: Reject,
    /// Which side refused.
    pub by_peer: bool,
    /// Which part of the peer's handshake was at fault, if this side refused for one; how sure the reason is, if the
    /// peer has not named it.
    pub field: Option<&'static str>,
}

impl Default for Settings {
    /// libsrt's defaults in live mode, but for the minimum version: only version 5 handshakes are known here.
    fn default() -> Self {
        Self {
            receive_latency: 120,
            send_latency: 0,
            mss: 1500,
            window: 8192,
            minimum_version: Version::HANDSHAKE_5,
            too_late_drop: true,
            nak_reports: true,
            enforced: true,
            cipher: None,
            key_length: None,
            refresh: RefreshPlan::default(),
            sends: false,
        }
    }
}

impl Security {
    /// Nothing is encrypted.
    pub const PLAIN: Self =
        Self { send: KeyState::Unsecured, receive: KeyState::Unsecured, sender: None, receiver: None };

    /// Whether payload may leave.
    pub const fn may_send(&self) -> bool {
        matches!(self.send, KeyState::Unsecured | KeyState::Secured)
    }

    const fn failed(send: KeyState, receive: KeyState) -> Self {
        Self { send, receive, sender: None, receiver: None }
    }
}

impl Refusal {
    pub(crate) const fn ours(reject: Reject, field: &'static str) -> Self {
        Self { reject, by_peer: false, field: Some(field) }
    }

    pub(crate) const fn theirs(reject: Reject) -> Self {
        Self { reject, by_peer: true, field: None }
    }

    /// A SHUTDOWN in place of an answer: libsrt ends a rendezvous so, whatever the reason was.
    pub(crate) const fn unexplained(keys_were_sent: bool) -> Self {
        if keys_were_sent {
            return Self { reject: Reject::BAD_SECRET, by_peer: true, field: Some("most likely for this") };
        }
        Self::theirs(Reject::CLOSE)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.by_peer, self.field) {
            (true, None) => write!(f, "refused by the peer: {}", self.reject),
            (true, Some(guess)) => write!(f, "refused by the peer, {guess}: {}", self.reject),
            (false, None) => write!(f, "{}", self.reject),
            (false, Some(field)) => write!(f, "{}; seen in the peer's handshake: {field}", self.reject),
        }
    }
}

impl std::error::Error for Refusal {}

/// What the extensions settle.
pub(crate) struct Terms {
    peer: Hello,
    receive_latency: u16,
    send_latency: u16,
    stream_id: Option<StreamId>,
    group: Option<Group>,
    security: Security,
}

/// The extensions of the side that opens, and the key message among them.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) blocks: Blocks,
    pub(crate) field: u16,
    key_message: Vec<u8>,
    length: KeyLength,
    cipher: Cipher,
}

impl Opening {
    pub(crate) fn new(
        settings: &Settings,
        offer: Option<&Offer>,
        advertised: Option<KeyLength>,
        stream_id: Option<&StreamId>,
        group: Option<Group>,
    ) -> Self {
        // Where both have a length, that of the side that sends payload stands, as libsrt's SRTO_SENDER has it.
        let ours = settings.key_length.filter(|_| settings.sends);
        let length = ours.or(advertised).or(settings.key_length).unwrap_or(KeyLength::Aes128);
        let cipher = settings.cipher.unwrap_or(Cipher::Ctr);
        let key_message = offer.map(|offer| offer.message(cipher, length)).unwrap_or_default();
        let flags = our_flags(settings).with(Flags::TSBPD_SEND, true).with(Flags::RETRANSMIT_FLAG, true);
        let extensions = Extensions {
            request: Some(Hello {
                version: Version::OURS,
                flags,
                receive_latency: settings.receive_latency,
                send_latency: settings.send_latency,
            }),
            key_request: offer.map(|_| key_message.as_slice()),
            stream_id: stream_id.cloned(),
            group,
            ..Extensions::default()
        };
        Self { field: extensions.field(), blocks: extensions.write(), key_message, length, cipher }
    }

    /// The length of its keys, if it brings any.
    pub(crate) fn key_length(&self) -> Option<KeyLength> {
        (!self.key_message.is_empty()).then_some(self.length)
    }

    /// Takes the other side's answer.
    pub(crate) fn conclude(
        &self,
        settings: &Settings,
        offer: Option<&Offer>,
        group: Option<Group>,
        answer: &Extensions<'_>,
    ) -> Result<Terms, Refusal> {
        let peer = answer.response.ok_or(Refusal::ours(Reject::ROGUE, "missing HSRSP"))?;
        check_hello(settings, &peer, answer)?;
        if group.is_some() && answer.group.is_none() {
            return Err(Refusal::ours(Reject::GROUP, "missing group"));
        }
        let security = self.secure(settings, offer, &peer, answer.key_response)?;
        let heeded = if peer.flags.has(Flags::TSBPD_SEND) { peer.send_latency } else { 0 };
        let announced = peer.flags.has(Flags::TSBPD_RECEIVE).then_some(peer.receive_latency);
        Ok(Terms {
            peer,
            receive_latency: settings.receive_latency.max(heeded),
            // it has taken the greater of both already
            send_latency: announced.unwrap_or(settings.send_latency),
            stream_id: None,
            group: answer.group,
            security,
        })
    }

    fn secure(
        &self,
        settings: &Settings,
        offer: Option<&Offer>,
        peer: &Hello,
        answer: Option<&[u8]>,
    ) -> Result<Security, Refusal> {
        let refuse = |reject| if settings.enforced { Err(Refusal::ours(reject, "KMRSP")) } else { Ok(()) };
        match (offer, answer) {
            (None, None) => Ok(Security::PLAIN),
            (None, Some(_)) => {
                refuse(Reject::UNSECURE)?;
                Ok(Security::failed(KeyState::Unsecured, KeyState::NoSecret))
            }
            (Some(offer), Some(message)) if message == self.key_message => {
                let legacy = is_legacy(peer.version);
                let (sender, receiver) = offer.keys(self.cipher, self.length, settings.refresh, legacy);
                Ok(Security {
                    send: KeyState::Secured,
                    receive: KeyState::Secured,
                    sender: Some(sender),
                    receiver: Some(receiver),
                })
            }
            (Some(_), answer) => match answer.map(KeyState::parse) {
                None | Some(Some(KeyState::NoSecret)) => {
                    refuse(Reject::UNSECURE)?;
                    Ok(Security::failed(KeyState::NoSecret, KeyState::Unsecured))
                }
                // The ciphers differ: nothing can come of it, enforced or not.
                Some(Some(KeyState::BadCipher)) => Err(Refusal::ours(Reject::CRYPTO, "KMRSP")),
                Some(Some(KeyState::BadSecret)) => {
                    refuse(Reject::BAD_SECRET)?;
                    Ok(Security::failed(KeyState::BadSecret, KeyState::BadSecret))
                }
                Some(_) => {
                    refuse(Reject::UNSECURE)?;
                    Ok(Security::failed(KeyState::NoSecret, KeyState::NoSecret))
                }
            },
        }
    }
}

/// Checks what can be checked of an opening side's extensions without a passphrase.
pub(crate) fn check_opening(settings: &Settings, opening: &Extensions<'_>) -> Result<Hello, Refusal> {
    let peer = opening.request.ok_or(Refusal::ours(Reject::ROGUE, "missing HSREQ"))?;
    check_hello(settings, &peer, opening)?;
    Ok(peer)
}

/// The terms for an opening side, and the extensions that answer it: blocks and field.
pub(crate) fn respond(
    settings: &Settings,
    secret: Secret<'_>,
    group: Option<Group>,
    opening: &Extensions<'_>,
) -> Result<(Terms, Blocks, u16), Refusal> {
    let peer = check_opening(settings, opening)?;
    let (security, key_response) = secure(settings, secret, &peer, opening.key_request)?;
    let proposed = if peer.flags.has(Flags::TSBPD_SEND) { peer.send_latency } else { 0 };
    let receives = peer.flags.has(Flags::TSBPD_RECEIVE);
    let announced = if receives { peer.receive_latency } else { 0 };
    let receive_latency = settings.receive_latency.max(proposed);
    let send_latency = settings.send_latency.max(announced);
    let flags = our_flags(settings)
        .with(Flags::TSBPD_SEND, receives)
        .with(Flags::RETRANSMIT_FLAG, peer.flags.has(Flags::RETRANSMIT_FLAG));
    let answer = Extensions {
        response: Some(Hello { version: Version::OURS, flags, receive_latency, send_latency }),
        key_response: key_response.as_deref(),
        group,
        ..Extensions::default()
    };
    let stream_id = opening.stream_id.clone();
    let terms = Terms { peer, receive_latency, send_latency, stream_id, group: opening.group, security };
    Ok((terms, answer.write(), answer.field()))
}

impl Terms {
    /// What is agreed on, of these terms and the fields that every handshake has.
    pub(crate) fn agreed(
        self,
        settings: &Settings,
        local: Local,
        body: &Body,
        peer_clock: PeerClock,
    ) -> Result<Agreed, Refusal> {
        let first_received = check_body(body)?;
        let mss = settings.mss.min(u16::try_from(body.mss).unwrap_or(u16::MAX));
        let growth = self.security.sender.as_ref().map_or(0, SendKeys::growth);
        Ok(Agreed {
            local: local.socket,
            peer: body.socket,
            first_sent: local.first,
            first_received,
            started: local.started,
            peer_clock,
            peer_version: self.peer.version,
            peer_flags: self.peer.flags,
            receive_latency: self.receive_latency,
            send_latency: self.send_latency,
            peer_window: body.window,
            mss,
            payload_most: usize::from(mss)
                .saturating_sub(IP_AND_UDP + HEADER)
                .min(PAYLOAD_MOST)
                .saturating_sub(growth),
            stream_id: self.stream_id,
            group: self.group,
            security: self.security,
        })
    }
}

/// Checks the fields that every handshake has, and gives the number of the first packet.
pub(crate) fn check_body(body: &Body) -> Result<Seq, Refusal> {
    let rogue = |field| Refusal::ours(Reject::ROGUE, field);
    if body.socket == SocketId(0) {
        return Err(rogue("socket id"));
    }
    if body.mss < MSS_LEAST {
        return Err(rogue("MSS"));
    }
    if body.window < 2 {
        return Err(rogue("flow window"));
    }
    body.first_packet().ok_or(rogue("initial sequence number"))
}

/// A handshake packet of this side, as a datagram.
pub(crate) struct Letter<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) local: Local,
    pub(crate) to: IpAddr,
    pub(crate) destination: SocketId,
    pub(crate) version: u32,
    pub(crate) kind: Kind,
    pub(crate) cookie: u32,
    pub(crate) encryption: Option<KeyLength>,
}

impl Letter<'_> {
    /// The datagram, with extensions of this field and these blocks.
    pub(crate) fn write(&self, (field, blocks): (u16, &[u8]), now: Nanos) -> Vec<u8> {
        let body = Body {
            version: self.version,
            encryption: encryption_field(self.encryption),
            extension: field,
            first: self.local.first.value(),
            mss: self.settings.mss.into(),
            window: self.settings.window,
            kind: self.kind,
            socket: self.local.socket,
            cookie: self.cookie,
            address: address_field(self.to),
        };
        datagram(&body, blocks, self.destination, timestamp(self.local.started, now))
    }
}

pub(crate) fn datagram(body: &Body, blocks: &[u8], destination: SocketId, timestamp: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(super::body::BODY + blocks.len());
    body.write(&mut bytes);
    bytes.extend(blocks);
    let mut datagram = Vec::with_capacity(HEADER + bytes.len());
    ControlPacket { timestamp, destination, control: Control::Handshake(&bytes) }.write(&mut datagram);
    datagram
}

/// Microseconds since `started`, modulo 2^32.
pub(crate) const fn timestamp(started: Nanos, now: Nanos) -> u32 {
    (now.saturating_sub(started) / 1000) as u32
}

fn our_flags(settings: &Settings) -> Flags {
    Flags::TSBPD_RECEIVE
        .with(Flags::CRYPT, true)
        .with(Flags::TOO_LATE_DROP, settings.too_late_drop)
        .with(Flags::NAK_REPORT, settings.nak_reports)
}

const fn is_legacy(peer: Version) -> bool {
    peer.0 <= Version::LAST_LEGACY_GCM.0
}

/// What both roles ask of the peer's extensions.
fn check_hello(settings: &Settings, peer: &Hello, extensions: &Extensions<'_>) -> Result<(), Refusal> {
    if peer.version < Version::HANDSHAKE_5 {
        return Err(Refusal::ours(Reject::ROGUE, "a version too old for its handshake"));
    }
    if peer.version < settings.minimum_version {
        return Err(Refusal::ours(Reject::VERSION, "version"));
    }
    if peer.flags.has(Flags::STREAM) {
        return Err(Refusal::ours(Reject::MESSAGE_API, "stream flag"));
    }
    if extensions.congestion.as_deref().is_some_and(|name| name != b"live") {
        return Err(Refusal::ours(Reject::CONGESTION, "congestion control"));
    }
    if extensions.filter {
        return Err(Refusal::ours(Reject::FILTER, "packet filter"));
    }
    Ok(())
}

/// The responder's part of the key exchange: the keys, and the body of the KMRSP.
fn secure(
    settings: &Settings,
    secret: Secret<'_>,
    peer: &Hello,
    request: Option<&[u8]>,
) -> Result<(Security, Option<Vec<u8>>), Refusal> {
    let refuse = |reject, field| if settings.enforced { Err(Refusal::ours(reject, field)) } else { Ok(()) };
    let answer = |state: KeyState| Some(state.to_bytes().to_vec());
    let kek = match (request, secret) {
        (None, Secret::None) => return Ok((Security::PLAIN, None)),
        (None, Secret::Passphrase(_)) => {
            refuse(Reject::UNSECURE, "missing KMREQ")?;
            let failed = Security::failed(KeyState::NoSecret, KeyState::Unsecured);
            return Ok((failed, answer(KeyState::Unsecured)));
        }
        (Some(_), Secret::None) => {
            refuse(Reject::UNSECURE, "KMREQ")?;
            let failed = Security::failed(KeyState::Unsecured, KeyState::NoSecret);
            return Ok((failed, answer(KeyState::NoSecret)));
        }
        (Some(_), Secret::Passphrase(kek)) => kek,
    };
    let request = request.unwrap_or_default();
    let Ok(material) = KeyMaterial::parse(request) else {
        // libsrt counts whatever it cannot read among the peers without a secret
        refuse(Reject::UNSECURE, "KMREQ")?;
        let failed = Security::failed(KeyState::NoSecret, KeyState::NoSecret);
        return Ok((failed, answer(KeyState::NoSecret)));
    };
    if settings.cipher.is_some_and(|cipher| cipher != material.cipher) {
        return Err(Refusal::ours(Reject::CRYPTO, "KMREQ"));
    }
    let kek = kek.filter(|kek| kek.salt() == material.salt);
    let kek = kek.ok_or(Refusal::ours(Reject::INTERNAL, "salt, which was not derived with"))?;
    match material.keys(kek, settings.refresh, is_legacy(peer.version)) {
        Ok((sender, receiver)) => {
            let (send, receive) = (KeyState::Secured, KeyState::Secured);
            let security = Security { send, receive, sender: Some(sender), receiver: Some(receiver) };
            Ok((security, Some(request.to_vec())))
        }
        Err(_) => {
            refuse(Reject::BAD_SECRET, "KMREQ")?;
            let failed = Security::failed(KeyState::BadSecret, KeyState::BadSecret);
            Ok((failed, answer(KeyState::BadSecret)))
        }
    }
}

/// The headers of IPv4 and UDP: what the MSS counts besides SRT, whatever the address family (libsrt's rule).
const IP_AND_UDP: usize = 28;
/// libsrt's own least MSS.
const MSS_LEAST: u32 = 76;
