//! Bytes of a server and time enter; requests, events and interleaved packets leave: one session that pulls (DESCRIBE,
//! PLAY) or pushes (ANNOUNCE, RECORD). Opens no connection and no socket, never judges media.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::auth::{Credentials, Responder, Unanswerable};
use super::decoder::{self, Decoder, Item};
use super::headers::{Lower, RtpInfo, SESSION_TIMEOUT, Session, Transport, media_type};
use super::message::{Request, Response, Status};
use super::sdp::{self, Description, resolve};

/// What a session is for.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where, without user and password.
    pub url: String,
    /// User and password, if there are any.
    pub credentials: Option<Credentials>,
    /// What this side calls itself.
    pub user_agent: String,
    /// Which way media goes.
    pub role: Role,
}

/// Which way media goes.
#[derive(Debug, Clone)]
pub enum Role {
    /// The server sends.
    Pull,
    /// This side sends what the description says. Its control URLs must be relative.
    Push(Description),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Pull: these tracks are there. Call [`Client::set_up`].
    Described(Description),
    /// Push: the server takes the description. Call [`Client::set_up`].
    Announced,
    /// A track is set up; the transport is what both agreed on.
    SetUp {
        /// Its place in the description.
        track: usize,
        /// What the server made of it.
        transport: Transport,
    },
    /// The server does not take this transport (461). When it was the first track, [`Client::set_up`] may be called
    /// with another one; else begin anew.
    TransportRefused {
        /// Its place in the description.
        track: usize,
    },
    /// The server plays or records.
    Started(Vec<RtpInfo>),
    /// A packet came on an open channel.
    Data {
        /// Its channel.
        channel: u8,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The server names another place, not followed here.
    Redirected(String),
    /// The session is over.
    Failed(Failure),
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What came is no RTSP.
    #[error(transparent)]
    Malformed(#[from] decoder::Malformed),
    /// A request was refused.
    #[error("{method} was answered with {} {reason}", status.0)]
    Status {
        /// Which one.
        method: &'static str,
        /// The status.
        status: Status,
        /// The server's words, at most 100 characters.
        reason: String,
    },
    /// User and password are wanted, or are wrong.
    #[error("{0}")]
    Unauthorized(Unanswerable),
    /// User and password are wanted, and there are none.
    #[error("the server asks for user and password")]
    NoCredentials,
    /// No answer in time.
    #[error("{0} was not answered in time")]
    Timeout(&'static str),
    /// The description cannot be read.
    #[error(transparent)]
    Description(#[from] sdp::Malformed),
    /// The description is of another type.
    #[error("DESCRIBE was answered with {0:?}, expected application/sdp")]
    ContentType(String),
    /// An answer without what it must say.
    #[error("{method} was answered without a usable {header} header")]
    Header {
        /// To which request.
        method: &'static str,
        /// Which header.
        header: &'static str,
    },
    /// The server took the session down.
    #[error("the server ended the session")]
    Ended,
    /// The server asks faster than it reads.
    #[error("the server does not read what it asks for")]
    Flood,
}

/// One session with a server.
///
/// Feed it what the connection reads, send what [`Self::take_output`] gives, and call [`Self::tick`] at
/// [`Self::deadline`]. The session keeps itself alive, answers the server's requests at once, and answers challenges in
/// mid-session, with nonces that went stale.
#[derive(Debug)]
pub struct Client {
    dial: Dial,
    decoder: Decoder,
    responder: Option<Responder>,
    random: [u8; 16],
    out: Vec<u8>,
    events: VecDeque<Event>,
    step: Step,
    pending: Option<Pending>,
    cseq: u32,
    /// What control URLs are put behind.
    base: String,
    /// Control URL of all tracks together.
    aggregate: String,
    controls: Vec<Option<String>>,
    setups: VecDeque<(usize, Transport)>,
    session: Option<Session>,
    /// The server said that it knows GET_PARAMETER.
    knows_parameters: bool,
    keepalive_at: u64,
    /// Keepalives without an answer in a row.
    unanswered: u8,
    /// Bytes came since the last keepalive.
    heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Handshake,
    /// Waits for the owner to choose transports.
    Ready,
    SettingUp,
    Started,
    Over,
}

#[derive(Debug)]
struct Pending {
    method: &'static str,
    /// Without CSeq, Session and Authorization: a challenge sends it once more.
    request: Request,
    cseq: u32,
    deadline: u64,
    setup: Option<(usize, Transport)>,
}

impl Client {
    /// Begins a session at `now` (nanoseconds); `random` makes the nonces of Digest.
    pub fn new(dial: Dial, now: u64, random: [u8; 16]) -> Self {
        let mut client = Self {
            decoder: Decoder::default(),
            responder: dial.credentials.clone().map(Responder::new),
            random,
            out: Vec::new(),
            events: VecDeque::new(),
            step: Step::Handshake,
            pending: None,
            cseq: 0,
            base: dial.url.clone(),
            aggregate: dial.url.clone(),
            controls: Vec::new(),
            setups: VecDeque::new(),
            session: None,
            knows_parameters: false,
            keepalive_at: u64::MAX,
            unanswered: 0,
            heard: false,
            dial,
        };
        let url = client.dial.url.clone();
        client.send("OPTIONS", Request::new("OPTIONS", &url), None, now);
        client
    }

    /// Takes bytes that came in at `now` (nanoseconds).
    pub fn push(&mut self, bytes: &[u8], now: u64) {
        self.decoder.push(bytes);
        self.read(now);
    }

    /// Where the owner may read bytes into, instead of [`Self::push`]; [`Self::read`] takes them.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.decoder.buffer()
    }

    /// Takes what stands in [`Self::buffer`].
    pub fn read(&mut self, now: u64) {
        self.heard = true;
        while self.step != Step::Over && self.events.len() < EVENTS_MOST {
            match self.decoder.decode() {
                Ok(None) => break,
                Ok(Some(Item::Data { channel, bytes })) => {
                    self.events.push_back(Event::Data { channel, bytes });
                }
                Ok(Some(Item::Response(response))) => self.response(response, now),
                Ok(Some(Item::Request(request))) => self.request(&request),
                Err(malformed) => self.fail(malformed.into()),
            }
        }
    }

    /// What happened next. When it answers `None`, and [`Self::is_backed_up`], call [`Self::read`] again.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// More events were there than are held; [`Self::read`] goes on once they were taken.
    pub fn is_backed_up(&self) -> bool {
        self.decoder.pending() > 0 && self.events.is_empty() && self.step != Step::Over
    }

    /// Moves what is to be sent behind `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }

    /// When [`Self::tick`] has something to do, in nanoseconds.
    pub fn deadline(&self) -> u64 {
        match (&self.pending, self.step) {
            (_, Step::Over) => u64::MAX,
            (Some(pending), Step::Handshake | Step::SettingUp) => pending.deadline,
            _ => self.keepalive_at,
        }
    }

    /// Does what is due at `now` (nanoseconds).
    pub fn tick(&mut self, now: u64) {
        if now < self.deadline() {
            return;
        }
        match (self.step, &self.pending) {
            (Step::Handshake | Step::SettingUp, Some(pending)) => {
                let method = pending.method;
                self.fail(Failure::Timeout(method));
            }
            (Step::Started | Step::Ready, pending) => {
                self.unanswered = if pending.is_some() && !self.heard { self.unanswered + 1 } else { 0 };
                if self.unanswered >= UNANSWERED_MOST {
                    return self.fail(Failure::Timeout("keepalive"));
                }
                self.heard = false;
                self.keep_alive(now);
            }
            _ => self.keepalive_at = u64::MAX,
        }
    }

    /// Sets tracks up, each with its place in the description and the transport that is wanted, then plays or records.
    /// Does nothing before [`Event::Described`] or [`Event::Announced`], nor without a track.
    pub fn set_up(&mut self, tracks: impl IntoIterator<Item = (usize, Transport)>, now: u64) {
        if self.step != Step::Ready {
            return;
        }
        let known = self.controls.len();
        self.setups = tracks.into_iter().filter(|(track, _)| *track < known).collect();
        if !self.setups.is_empty() {
            self.step = Step::SettingUp;
            self.set_up_next(now);
        }
    }

    /// True once the server plays or records.
    pub fn is_started(&self) -> bool {
        self.step == Step::Started
    }

    /// Says goodbye, where there is a session to leave. Nothing is waited for.
    pub fn close(&mut self, now: u64) {
        if self.step != Step::Over && self.session.is_some() {
            let aggregate = self.aggregate.clone();
            self.send("TEARDOWN", Request::new("TEARDOWN", &aggregate), None, now);
        }
        self.step = Step::Over;
    }

    /// Bytes that were passed over between packets.
    pub fn stray_bytes(&self) -> u64 {
        self.decoder.stray_bytes()
    }

    fn fail(&mut self, failure: Failure) {
        if self.step != Step::Over {
            self.step = Step::Over;
            self.pending = None;
            self.events.push_back(Event::Failed(failure));
        }
    }

    fn send(&mut self, method: &'static str, request: Request, setup: Option<(usize, Transport)>, now: u64) {
        self.cseq = self.cseq.wrapping_add(1);
        let mut full = request.clone().with("CSeq", self.cseq.to_string());
        full = full.with("User-Agent", self.dial.user_agent.as_str());
        if let Some(session) = &self.session {
            full = full.with("Session", session.id.as_str());
        }
        let random = self.client_nonce();
        let uri = request.uri.as_str();
        if let Some(value) = self.responder.as_mut().and_then(|r| r.authorize(method, uri, random)) {
            full = full.with("Authorization", value);
        }
        full.write(&mut self.out);
        let deadline = now.saturating_add(ANSWER_NANOS);
        self.pending = Some(Pending { method, request, cseq: self.cseq, deadline, setup });
    }

    /// Another one for each request.
    fn client_nonce(&self) -> [u8; 16] {
        let mut random = self.random;
        for (byte, count) in random.iter_mut().zip(self.cseq.to_be_bytes()) {
            *byte ^= count;
        }
        random
    }

    fn response(&mut self, response: Response, now: u64) {
        // Some servers leave CSeq out of answers: the one request that waits is meant.
        let theirs = response.headers.first("CSeq").and_then(|cseq| cseq.trim().parse::<u32>().ok());
        let Some(pending) = self.pending.take_if(|pending| theirs.is_none_or(|cseq| cseq == pending.cseq))
        else {
            return;
        };
        self.unanswered = 0;
        if response.status.0 < 200 {
            // Provisional: the answer is still to come.
            self.pending = Some(pending);
            return;
        }
        if response.status == Status::UNAUTHORIZED {
            return self.challenged(pending, &response, now);
        }
        if let Some(responder) = &mut self.responder {
            responder.accepted();
        }
        match pending.method {
            "OPTIONS" if self.step == Step::Handshake => self.options(&response, now),
            "DESCRIBE" => self.described(&response),
            "ANNOUNCE" => self.announced(&response, now),
            "SETUP" => self.set_up_done(pending, &response, now),
            "PLAY" | "RECORD" => self.started(pending.method, &response, now),
            "TEARDOWN" => {}
            _ => self.kept_alive(&response),
        }
    }

    fn challenged(&mut self, pending: Pending, response: &Response, now: u64) {
        let Some(responder) = &mut self.responder else { return self.fail(Failure::NoCredentials) };
        match responder.challenge(&response.headers) {
            Ok(()) => self.send(pending.method, pending.request, pending.setup, now),
            Err(why) => self.fail(Failure::Unauthorized(why)),
        }
    }

    fn options(&mut self, response: &Response, now: u64) {
        let public: Vec<&str> = response.headers.all("Public").chain(response.headers.all("Allow")).collect();
        self.knows_parameters =
            public.iter().any(|methods| methods.to_ascii_uppercase().contains("GET_PARAMETER"));
        // Whatever it said, the next request tells what it can.
        match &self.dial.role {
            Role::Pull => {
                let request = Request::new("DESCRIBE", &self.dial.url).with("Accept", SDP);
                self.send("DESCRIBE", request, None, now);
            }
            Role::Push(description) => {
                self.controls = description.media.iter().map(|media| media.control.clone()).collect();
                let body = Bytes::from(description.write("-"));
                let request = Request { body, ..Request::new("ANNOUNCE", &self.dial.url) };
                self.send("ANNOUNCE", request.with("Content-Type", SDP), None, now);
            }
        }
    }

    fn described(&mut self, response: &Response) {
        if self.refused("DESCRIBE", response) {
            return;
        }
        let content = response.headers.first("Content-Type").map_or_else(|| SDP.into(), media_type);
        if content != SDP {
            let content = content.chars().take(100).collect();
            return self.fail(Failure::ContentType(content));
        }
        let description = match Description::parse(&response.body) {
            Ok(description) => description,
            Err(malformed) => return self.fail(malformed.into()),
        };
        let told =
            response.headers.first("Content-Base").or_else(|| response.headers.first("Content-Location"));
        if let Some(base) = told.map(str::trim).filter(|base| base.contains("://")) {
            self.base = base.into();
        }
        self.aggregate = resolve(&self.base, description.control.as_deref());
        self.controls = description.media.iter().map(|media| media.control.clone()).collect();
        self.step = Step::Ready;
        self.events.push_back(Event::Described(description));
    }

    fn announced(&mut self, response: &Response, now: u64) {
        if self.refused("ANNOUNCE", response) {
            return;
        }
        self.adopt_session(response, now);
        self.step = Step::Ready;
        self.events.push_back(Event::Announced);
    }

    fn set_up_next(&mut self, now: u64) {
        let Some((track, mut transport)) = self.setups.pop_front() else {
            let (method, request) = match &self.dial.role {
                Role::Pull => ("PLAY", Request::new("PLAY", &self.aggregate)),
                Role::Push(_) => ("RECORD", Request::new("RECORD", &self.aggregate)),
            };
            return self.send(method, request.with("Range", "npt=0.000-"), None, now);
        };
        transport.record = matches!(self.dial.role, Role::Push(_));
        let control = self.controls.get(track).cloned().flatten();
        let request = Request::new("SETUP", &resolve(&self.base, control.as_deref()));
        let request = request.with("Transport", transport.write());
        self.send("SETUP", request, Some((track, transport)), now);
    }

    fn set_up_done(&mut self, pending: Pending, response: &Response, now: u64) {
        let Some((track, asked)) = pending.setup else { return };
        if response.status == Status::UNSUPPORTED_TRANSPORT {
            self.setups.clear();
            self.step = Step::Ready;
            return self.events.push_back(Event::TransportRefused { track });
        }
        if self.refused("SETUP", response) {
            return;
        }
        self.adopt_session(response, now);
        if self.session.is_none() {
            return self.fail(Failure::Header { method: "SETUP", header: "Session" });
        }
        let told = response.headers.first("Transport").map(Transport::parse_all).unwrap_or_default();
        let transport = match told.into_iter().next() {
            Some(told) => told,
            // What was asked for, then.
            None if asked.lower == Lower::Tcp => asked.clone(),
            None => return self.fail(Failure::Header { method: "SETUP", header: "Transport" }),
        };
        let transport = match (asked.lower, transport.lower) {
            // Some servers say RTP/AVP and mean the channels that stand beside it.
            (Lower::Tcp, _) => {
                let interleaved = transport.interleaved.or(asked.interleaved);
                Transport { lower: Lower::Tcp, interleaved, ..transport }
            }
            (Lower::Udp, Lower::Udp) => transport,
            (Lower::Udp, Lower::Tcp) => {
                return self.fail(Failure::Header { method: "SETUP", header: "Transport" });
            }
        };
        if let Some((rtp, rtcp)) = transport.interleaved.filter(|_| transport.lower == Lower::Tcp) {
            self.decoder.open_channel(rtp);
            self.decoder.open_channel(rtcp);
        }
        self.events.push_back(Event::SetUp { track, transport });
        self.set_up_next(now);
    }

    fn started(&mut self, method: &'static str, response: &Response, now: u64) {
        if self.refused(method, response) {
            return;
        }
        self.step = Step::Started;
        self.adopt_session(response, now);
        self.schedule(now);
        let info = response.headers.first("RTP-Info").map(RtpInfo::parse_all).unwrap_or_default();
        self.events.push_back(Event::Started(info));
    }

    fn kept_alive(&mut self, response: &Response) {
        if response.status == Status::SESSION_NOT_FOUND {
            self.fail(Failure::Status {
                method: "keepalive",
                status: response.status,
                reason: response.status.reason().into(),
            });
        } else if !response.status.is_success() {
            // It does not know this method; OPTIONS it knows.
            self.knows_parameters = false;
        }
    }

    fn keep_alive(&mut self, now: u64) {
        let method = if self.knows_parameters { "GET_PARAMETER" } else { "OPTIONS" };
        let aggregate = self.aggregate.clone();
        self.send(method, Request::new(method, &aggregate), None, now);
        self.schedule(now);
    }

    fn schedule(&mut self, now: u64) {
        let timeout = self.session.as_ref().map_or(SESSION_TIMEOUT, |session| session.timeout);
        let half = u64::from(timeout.min(SESSION_TIMEOUT)) * NANOS / 2;
        self.keepalive_at = now.saturating_add(half);
    }

    fn adopt_session(&mut self, response: &Response, now: u64) {
        let Some(mut session) = response.headers.first("Session").and_then(Session::parse) else { return };
        let says_timeout = response.headers.first("Session").is_some_and(|value| value.contains('='));
        if let Some(old) = self.session.as_ref().filter(|_| !says_timeout) {
            session.timeout = old.timeout;
        }
        self.session = Some(session);
        self.schedule(now);
    }

    /// Ends the session, or names the other place, when the answer is no success.
    fn refused(&mut self, method: &'static str, response: &Response) -> bool {
        if response.status.is_success() {
            return false;
        }
        if let (301 | 302 | 303 | 305 | 307, Some(place)) =
            (response.status.0, response.headers.first("Location"))
        {
            self.redirect(place.trim());
            return true;
        }
        let reason = response.reason.chars().filter(|c| !c.is_control()).take(100).collect();
        self.fail(Failure::Status { method, status: response.status, reason });
        true
    }

    fn redirect(&mut self, place: &str) {
        self.step = Step::Over;
        self.pending = None;
        self.events.push_back(Event::Redirected(place.into()));
    }

    /// A request of the server: answered at once, whatever it is, or the server takes this side for dead.
    fn request(&mut self, request: &Request) {
        if self.out.len() > OUT_MOST {
            return self.fail(Failure::Flood);
        }
        let status = match request.method.as_str() {
            "OPTIONS" | "GET_PARAMETER" | "SET_PARAMETER" | "TEARDOWN" | "REDIRECT" => Status::OK,
            _ => Status::NOT_IMPLEMENTED,
        };
        let mut response = Response::new(status);
        for name in ["CSeq", "Session"] {
            if let Some(value) = request.headers.first(name) {
                response = response.with(name, value);
            }
        }
        if request.method == "OPTIONS" {
            response = response.with("Public", "OPTIONS, GET_PARAMETER, SET_PARAMETER, TEARDOWN, REDIRECT");
        }
        response.write(&mut self.out);
        match (request.method.as_str(), request.headers.first("Location")) {
            ("TEARDOWN", _) => self.fail(Failure::Ended),
            ("REDIRECT", Some(place)) => self.redirect(place.trim()),
            ("REDIRECT", None) => self.fail(Failure::Ended),
            _ => {}
        }
    }
}

const SDP: &str = "application/sdp";
const NANOS: u64 = 1_000_000_000;

/// So long a request of the handshake waits for its answer.
const ANSWER_NANOS: u64 = 10 * NANOS;

/// Keepalives in a row without an answer, and without any other byte, after which the server is gone.
const UNANSWERED_MOST: u8 = 3;

/// Bytes of answers that the server has not read.
const OUT_MOST: usize = 64 << 10;

/// Events that are held.
const EVENTS_MOST: usize = 4096;

#[cfg(test)]
mod tests;
