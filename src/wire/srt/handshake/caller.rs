//! Time and the listener's handshakes enter; this side's handshakes and what was agreed on leave
//! (draft-sharabayko-srt-01, 4.3.1). Never waits, and never answers anybody but the listener.

use std::net::IpAddr;

use super::agree::{Agreed, Letter, Local, Opening, PeerClock, Refusal, Settings, check_body};
use super::body::{Body, Extensions, Group, Kind, MAGIC};
use super::{Progress, RETRY};
use crate::wire::srt::crypto::Offer;
use crate::wire::srt::{Control, ControlPacket, Nanos, Packet, Reject, SocketId, StreamId};

/// What a caller brings along.
#[derive(Debug, Clone)]
pub struct Dial {
    /// What it wants.
    pub settings: Settings,
    /// Its own end.
    pub local: Local,
    /// The listener's address.
    pub to: IpAddr,
    /// What it asks the listener for.
    pub stream_id: Option<StreamId>,
    /// The connection group that it belongs to.
    pub group: Option<Group>,
    /// Salt and keys out of its passphrase, if it has one.
    pub offer: Option<Offer>,
    /// How long it tries, in nanoseconds (`conntimeo`).
    pub timeout: Nanos,
}

/// A caller that is not connected yet.
#[derive(Debug)]
pub struct Caller {
    dial: Dial,
    step: Step,
    due: Nanos,
    ends: Nanos,
}

#[derive(Debug)]
enum Step {
    Induction,
    Conclusion { cookie: u32, opening: Opening },
    Ended,
}

impl Caller {
    /// Begins to dial: [`Self::poll`] has the first datagram at once.
    pub fn new(dial: Dial, now: Nanos) -> Self {
        let ends = now.saturating_add(dial.timeout);
        Self { dial, step: Step::Induction, due: now, ends }
    }

    /// This side's socket id.
    pub const fn socket(&self) -> SocketId {
        self.dial.local.socket
    }

    /// The next datagram to the listener, if one is due: at once after each step, then every 250 ms.
    pub fn poll(&mut self, now: Nanos) -> Option<Vec<u8>> {
        if now < self.due || now >= self.ends {
            return None;
        }
        let (version, kind, cookie, encryption, extensions) = match &self.step {
            // A version 4 listener echoes the version: 4 in the question keeps it from looking like a 5. Type 2,
            // "datagram", is what such a listener asks for (4.3.1.1).
            Step::Induction => (4, Kind::Induction, 0, None, (DATAGRAM, &[][..])),
            Step::Conclusion { cookie, opening } => {
                let extensions = (opening.field, opening.blocks.0.as_slice());
                (5, Kind::Conclusion, *cookie, opening.key_length(), extensions)
            }
            Step::Ended => return None,
        };
        self.due = now.saturating_add(RETRY);
        let Dial { settings, local, to, .. } = &self.dial;
        let destination = SocketId(0);
        let letter =
            Letter { settings, local: *local, to: *to, destination, version, kind, cookie, encryption };
        Some(letter.write(extensions, now))
    }

    /// When [`Self::poll`] or [`Self::overdue`] have something to say.
    pub fn next_due(&self) -> Nanos {
        self.due.min(self.ends)
    }

    /// Why nothing came of it, if the time is up.
    pub fn overdue(&self, now: Nanos) -> Option<Refusal> {
        (now >= self.ends && !matches!(self.step, Step::Ended)).then_some(Refusal {
            reject: Reject::TIMEOUT,
            by_peer: false,
            field: None,
        })
    }

    /// Takes a packet from the listener's address. What is no handshake for this socket changes nothing.
    pub fn handle(&mut self, packet: &Packet<'_>, now: Nanos) -> Progress {
        let Packet::Control(ControlPacket { timestamp, destination, control }) = *packet else {
            return Progress::Waiting;
        };
        if destination != self.dial.local.socket || matches!(self.step, Step::Ended) {
            return Progress::Waiting;
        }
        let body = match control {
            Control::Handshake(body) => body,
            Control::Shutdown => {
                self.step = Step::Ended;
                return Progress::Refused(Refusal::unexplained(false));
            }
            _ => return Progress::Waiting,
        };
        let Some((body, rest)) = Body::parse(body) else { return Progress::Waiting };
        let result = match (&self.step, body.kind) {
            (Step::Induction | Step::Conclusion { .. }, Kind::Rejection(reject)) => {
                Err(Refusal::theirs(reject))
            }
            (Step::Induction, Kind::Induction) => self.induced(&body, now).map(|()| None),
            (Step::Conclusion { opening, .. }, Kind::Conclusion) => {
                self.concluded(opening, &body, rest, PeerClock { at: now, timestamp }).map(Some)
            }
            // a repeated answer, or one to nobody's question
            _ => return Progress::Waiting,
        };
        match result {
            Ok(None) => Progress::Waiting,
            Ok(Some(agreed)) => {
                self.step = Step::Ended;
                Progress::Connected(Box::new(agreed))
            }
            Err(refusal) => {
                self.step = Step::Ended;
                Progress::Refused(refusal)
            }
        }
    }

    fn induced(&mut self, body: &Body, now: Nanos) -> Result<(), Refusal> {
        if body.version < 5 {
            return Err(Refusal::ours(Reject::VERSION, "handshake version 4, older than SRT 1.3"));
        }
        if body.extension != MAGIC {
            return Err(Refusal::ours(Reject::ROGUE, "induction, which is not SRT's"));
        }
        let advertised = body.key_length();
        let Dial { settings, stream_id, group, offer, .. } = &self.dial;
        let opening = Opening::new(settings, offer.as_ref(), advertised, stream_id.as_ref(), *group);
        self.step = Step::Conclusion { cookie: body.cookie, opening };
        self.due = now;
        Ok(())
    }

    fn concluded(
        &self,
        opening: &Opening,
        body: &Body,
        rest: &[u8],
        clock: PeerClock,
    ) -> Result<Agreed, Refusal> {
        let Dial { settings, local, stream_id, group, offer, .. } = &self.dial;
        if body.version != 5 {
            return Err(Refusal::ours(Reject::VERSION, "handshake version"));
        }
        check_body(body)?;
        let answer = Extensions::parse(rest).map_err(|(reject, field)| Refusal::ours(reject, field))?;
        let terms = opening.conclude(settings, offer.as_ref(), *group, &answer)?;
        let mut agreed = terms.agreed(settings, *local, body, clock)?;
        agreed.stream_id = stream_id.clone();
        Ok(agreed)
    }
}

/// The socket type of UDT's message mode.
const DATAGRAM: u16 = 2;
