//! Bytes of one client and time enter; answers, questions to the owner, and interleaved packets leave: one connection
//! that reads (DESCRIBE, PLAY) or publishes (ANNOUNCE, RECORD). Knows no path and no password: the owner decides who
//! may have what.

mod address;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::auth::{Nonces, Presented};
use super::decoder::{Decoder, Item};
use super::headers::{Lower, RtpInfo, SESSION_TIMEOUT, Session, Transport, media_type};
use super::message::{Request, Response, Status};
use super::sdp::Description;

use address::{TRACK, announced_track, read_path, split_track};

/// What is the same for all connections of a port.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Makes and knows the nonces of Digest.
    pub nonces: Nonces,
    /// What this side calls itself.
    pub name: String,
    /// Passwords may come in clear: the connection is encrypted, or the operator wants it.
    pub basic: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The owner is asked; until it answers, no further request is read.
    Ask(Ask),
    /// A packet came on a channel that is set up.
    Data {
        /// Its channel.
        channel: u8,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A reader pauses; it is answered already.
    Paused,
    /// The session is over, the connection goes on; it is answered already.
    TornDown,
    /// The connection is to be closed, once what [`Server::take_output`] gives is sent.
    Closed(Close),
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// To do what.
    pub action: Action,
    /// With which path, without slashes at its ends, escapes decoded: printable, at most 512 bytes, no `..`.
    pub path: String,
    /// What stands behind `?`, as it came.
    pub query: String,
    /// Who it is.
    pub presented: Presented,
    /// What the client calls itself, at most 100 printable characters.
    pub user_agent: String,
}

/// What a client wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Know the tracks: answer with [`Server::describe`].
    Describe,
    /// Publish these: answer with [`Server::accept`].
    Announce(Description),
    /// A track: answer with [`Server::set_up`].
    SetUp {
        /// Its number: `trackID` of what was described, its place in what was announced. `None` when the URL names
        /// no track.
        track: Option<usize>,
        /// How, in the order of the client's preference; never empty.
        transports: Vec<Transport>,
        /// Of what was announced, not of what was described.
        publish: bool,
    },
    /// To be sent everything that is set up: answer with [`Server::play`].
    Play,
    /// To send everything that is set up: answer with [`Server::accept`].
    Record,
}

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    /// What came is no RTSP.
    #[error("what the client sent is no RTSP")]
    Malformed,
    /// Nothing was heard for too long.
    #[error("the client was silent for {0} s")]
    Silent(u32),
    /// Too many requests were refused for want of credentials.
    #[error("{UNAUTHORIZED_MOST} requests without right credentials")]
    Unauthorized,
    /// It sends without waiting for answers, or does not read them.
    #[error("the client sends requests faster than it reads answers")]
    Flood,
}

/// One connection of a client.
///
/// Feed it what the connection reads, send what [`Self::take_output`] gives, and call [`Self::tick`] at
/// [`Self::deadline`]. One session at a time; a request is only taken in a state that allows it.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    /// Address of the client, as bytes: nonces are for it alone.
    peer: Vec<u8>,
    session: String,
    decoder: Decoder,
    out: Vec<u8>,
    events: VecDeque<Event>,
    step: Step,
    /// The request that waits for the owner.
    waiting: Option<Waiting>,
    /// Path of the session; one connection has one at a time.
    path: String,
    /// URL of the session, as the client writes it, without the track.
    base: String,
    announced: Option<Description>,
    tracks: Vec<SetUp>,
    unauthorized: u8,
    /// It was played to: from here on a pause may take its time.
    played: bool,
    /// When the client was last heard, in nanoseconds.
    heard: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Init,
    /// At least one track is set up, or a description announced.
    Ready,
    Playing,
    Recording,
    Over,
}

#[derive(Debug)]
struct SetUp {
    track: usize,
    lower: Lower,
    channels: Option<(u8, u8)>,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    action: Action,
    base: String,
    path: String,
    stale: bool,
}

impl Server {
    /// A connection of `peer` that came in at `now` (nanoseconds); `random` makes its session id.
    pub fn new(settings: Settings, peer: &[u8], now: u64, random: [u8; 16]) -> Self {
        Self {
            settings,
            peer: peer.into(),
            session: random.iter().map(|byte| format!("{byte:02x}")).collect(),
            decoder: Decoder::default(),
            out: Vec::new(),
            events: VecDeque::new(),
            step: Step::Init,
            waiting: None,
            path: String::new(),
            base: String::new(),
            announced: None,
            tracks: Vec::new(),
            unauthorized: 0,
            played: false,
            heard: now,
        }
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
        self.heard = now;
        while self.step != Step::Over && self.waiting.is_none() && self.events.len() < EVENTS_MOST {
            match self.decoder.decode() {
                Ok(None) => break,
                Ok(Some(Item::Data { channel, bytes })) => {
                    self.events.push_back(Event::Data { channel, bytes })
                }
                // To a question of ours; none is asked.
                Ok(Some(Item::Response(_))) => {}
                Ok(Some(Item::Request(request))) => self.request(request, now),
                Err(_) => self.close(Close::Malformed),
            }
        }
        if self.decoder.pending() > PENDING_MOST || self.out.len() > OUT_MOST {
            self.close(Close::Flood);
        }
    }

    /// What happened next. When it answers `None`, and [`Self::is_backed_up`], call [`Self::read`] again.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// More was there than is held; [`Self::read`] goes on once events were taken and questions answered.
    pub fn is_backed_up(&self) -> bool {
        let idle = self.events.is_empty() && self.waiting.is_none();
        self.decoder.pending() > 0 && idle && self.step != Step::Over
    }

    /// Moves what is to be sent behind `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }

    /// RTCP or media of the client came over UDP.
    pub fn touch(&mut self, now: u64) {
        self.heard = now;
    }

    /// When [`Self::tick`] has something to do, in nanoseconds. A reader over TCP is watched by its connection.
    pub fn deadline(&self) -> u64 {
        self.patience().map_or(u64::MAX, |seconds| self.heard.saturating_add(u64::from(seconds) * NANOS))
    }

    /// Does what is due at `now` (nanoseconds).
    pub fn tick(&mut self, now: u64) {
        if let Some(seconds) = self.patience().filter(|_| now >= self.deadline()) {
            self.close(Close::Silent(seconds));
        }
    }

    /// The session's id.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// The URL of the session without the track, as the client writes it.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Answers DESCRIBE: these tracks are there. A control URL is `trackID=` and a number; where there is none, it
    /// becomes the place.
    pub fn describe(&mut self, mut description: Description, name: &str) {
        let Some(waiting) = self.take_waiting(|action| *action == Action::Describe) else { return };
        description.control = Some("*".into());
        for (i, media) in description.media.iter_mut().enumerate() {
            media.control.get_or_insert_with(|| format!("{TRACK}{i}"));
        }
        let base = format!("{}/", waiting.base);
        let mut response = self.answer(&waiting.request, Status::OK);
        response.body = description.write(name).into();
        self.send(&response.with("Content-Type", SDP).with("Content-Base", base));
        if self.step == Step::Init {
            (self.path, self.base) = (waiting.path, waiting.base);
        }
    }

    /// Answers ANNOUNCE or RECORD: go on.
    pub fn accept(&mut self) {
        let expected = |action: &Action| matches!(action, Action::Announce(_) | Action::Record);
        let Some(waiting) = self.take_waiting(expected) else { return };
        let response = self.answer(&waiting.request, Status::OK).with("Session", self.session_header());
        self.send(&response);
        match waiting.action {
            Action::Announce(description) => {
                self.announced = Some(description);
                (self.path, self.base) = (waiting.path, waiting.base);
                self.step = Step::Ready;
            }
            _ => self.step = Step::Recording,
        }
    }

    /// Answers SETUP: over this transport. Of an interleaved one, its channels are opened.
    pub fn set_up(&mut self, transport: &Transport) {
        let Some(waiting) = self.take_waiting(|action| matches!(action, Action::SetUp { .. })) else {
            return;
        };
        let Action::SetUp { track, .. } = waiting.action else { return };
        let channels = transport.interleaved.filter(|_| transport.lower == Lower::Tcp);
        for channel in channels.iter().flat_map(|(rtp, rtcp)| [*rtp, *rtcp]) {
            self.decoder.open_channel(channel);
        }
        let track = track.unwrap_or(0);
        self.tracks.retain(|known| known.track != track);
        self.tracks.push(SetUp { track, lower: transport.lower, channels });
        let response = self.answer(&waiting.request, Status::OK).with("Session", self.session_header());
        self.send(&response.with("Transport", transport.write()));
        if self.step == Step::Init {
            (self.path, self.base) = (waiting.path, waiting.base);
            self.step = Step::Ready;
        }
    }

    /// Answers PLAY: packets begin with these numbers, one entry per track that is set up (its number, sequence
    /// number, RTP timestamp).
    pub fn play(&mut self, tracks: &[(usize, u16, u32)]) {
        let Some(waiting) = self.take_waiting(|action| *action == Action::Play) else { return };
        let info = |(track, sequence, timestamp): &(usize, u16, u32)| RtpInfo {
            url: format!("{}/{TRACK}{track}", self.base),
            sequence: Some(*sequence),
            timestamp: Some(*timestamp),
        };
        let info: Vec<RtpInfo> = tracks.iter().map(info).collect();
        let mut response = self.answer(&waiting.request, Status::OK).with("Session", self.session_header());
        response = response.with("Range", "npt=0-");
        if !info.is_empty() {
            response = response.with("RTP-Info", RtpInfo::write_all(&info));
        }
        self.send(&response);
        self.step = Step::Playing;
        self.played = true;
    }

    /// Answers any question with a refusal; [`Status::UNAUTHORIZED`] asks for credentials, at `now` (nanoseconds).
    pub fn refuse(&mut self, status: Status, now: u64) {
        let Some(waiting) = self.take_waiting(|_| true) else { return };
        let mut response = self.answer(&waiting.request, status);
        if status == Status::UNAUTHORIZED {
            for challenge in
                self.settings.nonces.challenges(&self.peer, now, waiting.stale, self.settings.basic)
            {
                response = response.with("WWW-Authenticate", challenge);
            }
            self.unauthorized = self.unauthorized.saturating_add(1);
        }
        self.send(&response);
        if self.unauthorized >= UNAUTHORIZED_MOST {
            self.close(Close::Unauthorized);
        }
    }

    /// The client proved who it is: its earlier tries are forgiven.
    pub fn recognise(&mut self) {
        self.unauthorized = 0;
    }

    /// True while a reader is to be sent packets.
    pub fn is_playing(&self) -> bool {
        self.step == Step::Playing
    }

    /// True while a publisher sends packets.
    pub fn is_recording(&self) -> bool {
        self.step == Step::Recording
    }

    fn close(&mut self, why: Close) {
        if self.step != Step::Over {
            self.step = Step::Over;
            self.waiting = None;
            self.events.push_back(Event::Closed(why));
        }
    }

    /// Seconds of silence that are borne.
    fn patience(&self) -> Option<u32> {
        let udp = self.tracks.iter().any(|track| track.lower == Lower::Udp);
        match self.step {
            Step::Over => None,
            Step::Ready if self.played => Some(SESSION_TIMEOUT * 3 / 2),
            Step::Init | Step::Ready => Some(HANDSHAKE_SECONDS),
            // The half more forgives a late keepalive.
            Step::Playing if udp => Some(SESSION_TIMEOUT * 3 / 2),
            Step::Playing => None,
            Step::Recording => Some(SESSION_TIMEOUT),
        }
    }

    fn take_waiting(&mut self, expected: impl Fn(&Action) -> bool) -> Option<Waiting> {
        self.waiting.take_if(|waiting| expected(&waiting.action))
    }

    fn answer(&self, request: &Request, status: Status) -> Response {
        let mut response = Response::new(status);
        if let Some(cseq) = request.headers.first("CSeq") {
            response = response.with("CSeq", cseq);
        }
        response.with("Server", self.settings.name.as_str())
    }

    fn session_header(&self) -> String {
        format!("{};timeout={SESSION_TIMEOUT}", self.session)
    }

    fn send(&mut self, response: &Response) {
        response.write(&mut self.out);
    }

    fn reject(&mut self, request: &Request, status: Status) {
        let mut response = self.answer(request, status);
        if status == Status::METHOD_NOT_ALLOWED || status == Status::INVALID_STATE {
            response = response.with("Allow", METHODS);
        }
        self.send(&response);
    }

    fn request(&mut self, request: Request, now: u64) {
        if let Some(feature) =
            request.headers.first("Require").or_else(|| request.headers.first("Proxy-Require"))
        {
            let response = self.answer(&request, Status::OPTION_NOT_SUPPORTED).with("Unsupported", feature);
            return self.send(&response);
        }
        if let Err(status) = self.check(&request) {
            return self.reject(&request, status);
        }
        match request.method.as_str() {
            "OPTIONS" => {
                let mut response = self.answer(&request, Status::OK).with("Public", METHODS);
                if request.headers.first("Session").is_some() {
                    response = response.with("Session", self.session_header());
                }
                self.send(&response);
            }
            "GET_PARAMETER" | "SET_PARAMETER" => {
                let response = self.answer(&request, Status::OK).with("Session", self.session_header());
                self.send(&response);
            }
            "DESCRIBE" => self.ask(request, Action::Describe, now),
            "ANNOUNCE" => self.announce(request, now),
            "SETUP" => self.ask_set_up(request, now),
            "PLAY" if self.step == Step::Playing => {
                // Again, as some players do for a keepalive: it plays on.
                let response = self.answer(&request, Status::OK).with("Session", self.session_header());
                self.send(&response.with("Range", "npt=0-"));
            }
            "PLAY" => self.ask(request, Action::Play, now),
            // A publisher pauses by sending nothing, whatever it says before, and is heard whenever it sends again.
            "RECORD" | "PAUSE" if self.step == Step::Recording => {
                let response = self.answer(&request, Status::OK).with("Session", self.session_header());
                self.send(&response);
            }
            "RECORD" => self.ask(request, Action::Record, now),
            "PAUSE" => {
                let response = self.answer(&request, Status::OK).with("Session", self.session_header());
                self.send(&response);
                self.step = Step::Ready;
                self.events.push_back(Event::Paused);
            }
            "TEARDOWN" => {
                let response = self.answer(&request, Status::OK).with("Session", self.session_header());
                self.send(&response);
                self.step = Step::Init;
                self.announced = None;
                self.played = false;
                self.tracks.clear();
                self.events.push_back(Event::TornDown);
            }
            _ => self.reject(&request, Status::NOT_IMPLEMENTED),
        }
    }

    /// Whether a request fits the state and the session (RFC 2326, A.2).
    fn check(&self, request: &Request) -> Result<(), Status> {
        let session = request.headers.first("Session").map(|value| Session::parse(value).map(|s| s.id));
        let ours = session.as_ref().map(|id| id.as_deref() == Some(&self.session));
        let recording = self.announced.is_some();
        let set_up = !self.tracks.is_empty();
        match request.method.as_str() {
            "SETUP" | "PLAY" | "RECORD" | "PAUSE" | "TEARDOWN" | "GET_PARAMETER" | "SET_PARAMETER"
                if ours == Some(false) =>
            {
                return Err(Status::SESSION_NOT_FOUND);
            }
            _ => {}
        }
        let allowed = match request.method.as_str() {
            "DESCRIBE" => self.step == Step::Init || self.step == Step::Ready && !recording,
            "ANNOUNCE" => self.step == Step::Init,
            "SETUP" => matches!(self.step, Step::Init | Step::Ready),
            "PLAY" => !recording && set_up,
            "RECORD" => recording && set_up && matches!(self.step, Step::Ready | Step::Recording),
            "PAUSE" => {
                matches!(self.step, Step::Playing | Step::Recording)
                    || self.step == Step::Ready && set_up && !recording
            }
            "TEARDOWN" => self.step != Step::Init,
            _ => true,
        };
        if allowed { Ok(()) } else { Err(Status::INVALID_STATE) }
    }

    fn announce(&mut self, request: Request, now: u64) {
        // Without a type it can only be a description.
        let content = request.headers.first("Content-Type").map_or_else(|| SDP.into(), media_type);
        if content != SDP {
            return self.reject(&request, Status::UNSUPPORTED_MEDIA);
        }
        match Description::parse(&request.body) {
            Ok(description) if !description.media.is_empty() => {
                self.ask(request, Action::Announce(description), now);
            }
            _ => self.reject(&request, Status::BAD_REQUEST),
        }
    }

    fn ask_set_up(&mut self, request: Request, now: u64) {
        let value = request.headers.first("Transport").unwrap_or_default();
        let transports = Transport::parse_all(value);
        if transports.is_empty() {
            return self.reject(&request, Status::UNSUPPORTED_TRANSPORT);
        }
        let (base, track) = match &self.announced {
            Some(description) => match announced_track(description, &self.base, &request.uri) {
                Some(track) => (self.base.clone(), Some(track)),
                None => return self.reject(&request, Status::NOT_FOUND),
            },
            None => {
                let (base, track) = split_track(&request.uri);
                (base.to_owned(), track)
            }
        };
        if self.tracks.len() >= TRACKS_MOST {
            return self.reject(&request, Status::NOT_ENOUGH_BANDWIDTH);
        }
        let publish = self.announced.is_some();
        self.ask_at(request, base, Action::SetUp { track, transports, publish }, now);
    }

    fn ask(&mut self, request: Request, action: Action, now: u64) {
        let base = match action {
            // Of the session, whatever URL they write: one of a track is refused where it is not alone.
            Action::Play | Action::Record => {
                if split_track(&request.uri).1.is_some() && self.tracks.len() > 1 {
                    return self.reject(&request, Status::AGGREGATE_NOT_ALLOWED);
                }
                self.base.clone()
            }
            _ => request.uri.trim_end_matches('/').to_owned(),
        };
        self.ask_at(request, base, action, now);
    }

    fn ask_at(&mut self, request: Request, base: String, action: Action, now: u64) {
        let Some((path, query)) = read_path(&base) else {
            return self.reject(&request, Status::BAD_REQUEST);
        };
        if self.step != Step::Init && path != self.path {
            // One session at a time.
            return self.reject(&request, Status::INVALID_STATE);
        }
        let authorization = request.headers.first("Authorization");
        let (method, uri) = (request.method.as_str(), request.uri.as_str());
        let presented = self.settings.nonces.read(authorization, method, uri, &self.peer, now);
        let agent = request.headers.first("User-Agent").unwrap_or_default();
        let user_agent = agent.chars().filter(|c| !c.is_control()).take(100).collect();
        let stale = matches!(presented, Presented::Stale);
        let ask = Ask { action: action.clone(), path: path.clone(), query, presented, user_agent };
        self.waiting = Some(Waiting { request, action, base, path, stale });
        self.events.push_back(Event::Ask(ask));
    }

    /// Channels of tracks that are set up over this connection.
    pub fn channels(&self) -> impl Iterator<Item = (usize, (u8, u8))> {
        self.tracks.iter().filter_map(|track| Some((track.track, track.channels?)))
    }
}

const METHODS: &str =
    "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, PAUSE, RECORD, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
const SDP: &str = "application/sdp";
const NANOS: u64 = 1_000_000_000;

/// Seconds that a client may take for each step before media flows.
const HANDSHAKE_SECONDS: u32 = 30;

/// Refusals for want of credentials on one connection; the first request of every client is one.
const UNAUTHORIZED_MOST: u8 = 8;

const TRACKS_MOST: usize = 16;

/// Bytes that wait for an answer of the owner, or for the rest of a message.
const PENDING_MOST: usize = 256 << 10;

/// Bytes of answers that the client has not read.
const OUT_MOST: usize = 256 << 10;

/// Events that are held.
const EVENTS_MOST: usize = 4096;

#[cfg(test)]
mod tests;
