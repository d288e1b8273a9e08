//! Handshakes of anybody enter; answers no larger than their questions, and requests whose sender has proven its
//! address leave (draft-sharabayko-srt-01, 4.3.1). Never keeps anything for a peer.

use std::net::SocketAddr;

use super::agree::{
    Agreed, Letter, Local, PeerClock, Refusal, Secret, Settings, check_body, check_opening, datagram,
    respond, timestamp,
};
use super::body::{Blocks, Body, Extensions, Group, Kind, MAGIC, Version, encryption_field};
use super::cookie::CookieSecret;
use crate::wire::srt::crypto::{Cipher, KeyLength, KeyMaterial, SALT};
use crate::wire::srt::{Control, ControlPacket, Nanos, Packet, Reject, Seq, SocketId, StreamId};

/// What answers on a listening port.
#[derive(Debug, Clone)]
pub struct Listener {
    settings: Settings,
    secret: CookieSecret,
    started: Nanos,
}

/// What came of one datagram.
#[derive(Debug)]
pub enum Heard {
    /// Send this back to where it came from.
    Answer(Vec<u8>),
    /// Somebody who receives at this address asks for a connection.
    Request(Box<Request>),
    /// Send this back: the request cannot be met, whatever the owner would say.
    Refused(Refusal, Vec<u8>),
    /// Nothing is to be done: no handshake, or one with a cookie that is not this address's.
    Ignored,
}

/// A request for a connection. It comes again every 250 ms until it is answered: one that was answered before (the
/// same address and [`Self::peer`]) is to be given the same answer again.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub from: SocketAddr,
    /// Its socket id.
    pub peer: SocketId,
    /// What it asks for.
    pub stream_id: Option<StreamId>,
    /// Its version.
    pub version: Version,
    /// The connection group that it is in. libsrt without bonding leaves the block unanswered, and a caller in a
    /// group refuses that; answer with a group of one's own, or reject with [`Reject::GROUP`].
    pub group: Option<Group>,
    /// How it wants to encrypt; its key can be had from the salt and the passphrase, with
    /// [`derive`](crate::wire::srt::crypto::derive).
    pub encryption: Option<KeyAsk>,
    body: Body,
    blocks: Blocks,
    clock: PeerClock,
}

/// How a caller wants to encrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAsk {
    /// What to derive the key with; `None` if the key message cannot be read.
    pub salt: Option<[u8; SALT]>,
    /// The cipher and key length, if the key message can be read.
    pub strength: Option<(Cipher, KeyLength)>,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy)]
pub struct Acceptance<'a> {
    /// What this side wants, which the stream asked for may decide.
    pub settings: &'a Settings,
    /// The socket id for this connection, not 0: random, so that nobody can guess it.
    pub socket: SocketId,
    /// The passphrase for the stream asked for.
    pub secret: Secret<'a>,
    /// This side's connection group, if it takes part in one.
    pub group: Option<Group>,
}

impl Listener {
    /// Begins to listen. `settings` say which key length is advertised and which version of a peer is old enough to
    /// be refused at once; the rest is for [`Acceptance`] to say.
    pub const fn new(settings: Settings, secret: CookieSecret, now: Nanos) -> Self {
        Self { settings, secret, started: now }
    }

    /// Advertises another key length from now on: callers that have none of their own take it.
    pub const fn advertise(&mut self, length: Option<KeyLength>) {
        self.settings.key_length = length;
    }

    /// Takes a packet for socket id 0.
    pub fn handle(&self, from: SocketAddr, packet: &Packet<'_>, now: Nanos) -> Heard {
        let Packet::Control(ControlPacket { timestamp, destination, control: Control::Handshake(bytes) }) =
            *packet
        else {
            return Heard::Ignored;
        };
        let Some((body, rest)) = Body::parse(bytes) else { return Heard::Ignored };
        if destination != SocketId(0) || body.socket == SocketId(0) {
            return Heard::Ignored;
        }
        match body.kind {
            Kind::Induction => Heard::Answer(self.induce(from, &body, now)),
            Kind::Conclusion if self.secret.is_valid(body.cookie, from, now) => {
                let clock = PeerClock { at: now, timestamp };
                match Request::read(&self.settings, from, body, rest, clock) {
                    Ok(request) => Heard::Request(Box::new(request)),
                    Err(refusal) => {
                        let stamp = super::agree::timestamp(self.started, now);
                        Heard::Refused(refusal, refuse(&body, refusal.reject, stamp))
                    }
                }
            }
            _ => Heard::Ignored,
        }
    }

    /// As long as the question, which has proven nothing yet.
    fn induce(&self, from: SocketAddr, question: &Body, now: Nanos) -> Vec<u8> {
        let answer = Body {
            version: 5,
            encryption: encryption_field(self.settings.key_length),
            extension: MAGIC,
            cookie: self.secret.bake(from, now),
            ..*question
        };
        datagram(&answer, &[], question.socket, timestamp(self.started, now))
    }
}

impl Request {
    fn read(
        settings: &Settings,
        from: SocketAddr,
        body: Body,
        rest: &[u8],
        clock: PeerClock,
    ) -> Result<Self, Refusal> {
        // Version 4 has its extensions in packets of their own, after the handshake: older than SRT 1.3.
        if body.version != 5 {
            return Err(Refusal::ours(Reject::VERSION, "handshake version"));
        }
        check_body(&body)?;
        let all = Extensions::parse(rest).map_err(|(reject, field)| Refusal::ours(reject, field))?;
        let hello = check_opening(settings, &all)?;
        let encryption = all.key_request.map(|message| {
            let material = KeyMaterial::parse(message).ok();
            KeyAsk {
                salt: material.map(|material| material.salt),
                strength: material.map(|material| (material.cipher, material.length)),
            }
        });
        Ok(Self {
            from,
            peer: body.socket,
            stream_id: all.stream_id.clone(),
            version: hello.version,
            group: all.group,
            encryption,
            body,
            blocks: Blocks(rest.to_vec()),
            clock,
        })
    }

    /// Agrees to the request: the connection, which begins `now`, and the datagram that tells the caller.
    ///
    /// # Errors
    /// It cannot be met so; with the datagram that tells the caller.
    pub fn accept(&self, how: &Acceptance<'_>, now: Nanos) -> Result<(Agreed, Vec<u8>), (Refusal, Vec<u8>)> {
        self.agree(how, now).map_err(|refusal| (refusal, self.reject(refusal.reject)))
    }

    /// The datagram that turns the caller away.
    pub fn reject(&self, reject: Reject) -> Vec<u8> {
        refuse(&self.body, reject, 0)
    }

    fn agree(&self, how: &Acceptance<'_>, now: Nanos) -> Result<(Agreed, Vec<u8>), Refusal> {
        let all =
            Extensions::parse(&self.blocks.0).map_err(|(reject, field)| Refusal::ours(reject, field))?;
        let (terms, blocks, field) = respond(how.settings, how.secret, how.group, &all)?;
        // Both directions have the same initial number: libsrt callers refuse any other as an attack.
        let local = Local { socket: how.socket, first: Seq::new(self.body.first), started: now };
        let agreed = terms.agreed(how.settings, local, &self.body, self.clock)?;
        let settings = Settings { mss: agreed.mss, ..how.settings.clone() };
        let letter = Letter {
            settings: &settings,
            local,
            to: self.from.ip(),
            destination: self.peer,
            version: 5,
            kind: Kind::Conclusion,
            cookie: self.body.cookie,
            encryption: self.encryption.and_then(|ask| ask.strength).map(|(_, length)| length),
        };
        Ok((agreed, letter.write((field, &blocks.0), now)))
    }
}

/// The question with the code in place of its type.
fn refuse(question: &Body, reject: Reject, timestamp: u32) -> Vec<u8> {
    datagram(&Body { kind: Kind::Rejection(reject), ..*question }, &[], question.socket, timestamp)
}
