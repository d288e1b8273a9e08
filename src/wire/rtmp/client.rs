//! A server's bytes enter; what a client answers, and whether it may publish or what it is played, leave. Never dials:
//! an answer to a challenge needs a new connection, and says so.

use std::fmt;

use super::amf0::Value;
use super::auth::{AuthQuery, Credentials, answer};
use super::capabilities::FourCcs;
use super::chunk::{Limits, Message, kind};
use super::handshake::Caller;
use super::link::{Error, Link, scrub};
use super::message::{Command, Control, User};

/// What a client wants of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// What to do there.
    pub purpose: Purpose,
    /// The application, with its own query if it has one.
    pub application: String,
    /// The url up to the application, without user and password.
    pub tc_url: String,
    /// The stream, with its query: mostly a secret. May be empty: some servers name streams by the application alone.
    pub stream: String,
    /// Who publishes, where a server asks.
    pub credentials: Option<Credentials>,
    /// What the connect before this one was told to come back with.
    pub auth: Option<AuthQuery>,
    /// The size of our chunks, 1 to 65,535.
    pub chunk_size: u32,
    /// Greet with digests, as ffmpeg does. Servers that know none echo.
    pub digest: bool,
    /// What a server that plays may make us hold.
    pub limits: Limits,
}

/// The direction of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// We send.
    Publish,
    /// We receive.
    Play,
}

/// What came of the server's bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// Media may be sent on this message stream, in chunks of the configured size.
    Publishing(u32),
    /// Media will come on this message stream.
    Playing(u32),
    /// A message of audio, video or data.
    Media(Message),
    /// The server says something that changes nothing.
    Status {
        /// Its code.
        code: String,
        /// What it says about it.
        description: String,
    },
    /// Connect again, with this: the server closes this connection.
    Redial(AuthQuery),
    /// The server has nothing more to play.
    Ended,
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    nonce: u32,
    state: State,
    caller: Caller,
    link: Link,
    peer: FourCcs,
    bandwidth_checked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Connecting,
    Creating,
    Starting(u32),
    Live(u32),
    Over,
}

impl Client {
    /// Begins; there are bytes to send at once. `time` is in milliseconds from any origin, `seed` random.
    pub fn new(config: ClientConfig, time: u32, seed: [u8; 16]) -> Self {
        let mut link = Link::new(Limits::STRANGER);
        let caller = Caller::new(time, seed, config.digest, link.out());
        let nonce = u32::from_be_bytes([seed[0], seed[5], seed[10], seed[15]]);
        Self {
            config,
            nonce,
            state: State::Greeting,
            caller,
            link,
            peer: FourCcs::default(),
            bandwidth_checked: false,
        }
    }

    /// Takes bytes from the front of `input` until something came of them; `None` when they are used up. After an error
    /// or [`ClientEvent::Redial`] the connection is of no more use.
    ///
    /// # Errors
    /// The server refuses, or does not speak RTMP as it is accepted here.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<ClientEvent>, Error> {
        if self.state == State::Greeting {
            if !self.caller.read(input, self.link.out())? {
                return Ok(None);
            }
            self.connect()?;
        }
        while let Some(message) = self.link.next(input)? {
            let event = match message.kind {
                kind::COMMAND | kind::COMMAND_AMF3 => self.command(&Command::read(&message)?)?,
                kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 => self.media(message),
                _ => None,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// What is to be sent, if there is anything.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(self.link.out())
    }

    /// Says goodbye: the bytes to send are the last ones.
    pub fn close(&mut self) {
        let (State::Starting(stream) | State::Live(stream)) = self.state else { return };
        self.state = State::Over;
        let mut said = Ok(());
        if self.config.purpose == Purpose::Publish {
            let name = Value::text(self.stream_name());
            said = self.link.command(0, &Command::new("FCUnpublish", 6.0, Value::Null, vec![name]));
        }
        let number = Value::Number(f64::from(stream));
        // Who does not read is not told.
        drop(said.and_then(|()| {
            self.link.command(0, &Command::new("deleteStream", 7.0, Value::Null, vec![number]))
        }));
    }

    /// What the server says about codecs, once it said so.
    pub fn peer(&self) -> &FourCcs {
        &self.peer
    }

    /// Bytes that the server says it received, modulo 2^32, once it said so.
    pub fn peer_acknowledged(&self) -> Option<u32> {
        self.link.peer_acknowledged()
    }

    fn connect(&mut self) -> Result<(), Error> {
        self.state = State::Connecting;
        let auth = self.config.auth.as_ref().map(AuthQuery::as_str).unwrap_or_default();
        let application = format!("{}{auth}", self.config.application);
        let tc_url = format!("{}{auth}", self.config.tc_url);
        let mut object = vec![
            ("app".to_owned(), Value::String(application)),
            ("type".to_owned(), "nonprivate".into()),
            ("flashVer".to_owned(), VERSION.into()),
            ("swfUrl".to_owned(), Value::String(tc_url.clone())),
            ("tcUrl".to_owned(), Value::String(tc_url)),
        ];
        if self.config.purpose == Purpose::Play {
            // What a player can do: all codecs of the legacy tables, and seeking by the server.
            object.extend([
                ("fpad".to_owned(), false.into()),
                ("capabilities".to_owned(), 15.0.into()),
                ("audioCodecs".to_owned(), 4071.0.into()),
                ("videoCodecs".to_owned(), 252.0.into()),
                ("videoFunction".to_owned(), 1.0.into()),
            ]);
        }
        object.extend(FourCcs::ours());
        self.link.command(0, &Command::new("connect", CONNECT, Value::Object(object), vec![]))
    }

    fn command(&mut self, command: &Command) -> Result<Option<ClientEvent>, Error> {
        match (command.name.as_str(), self.state) {
            (_, State::Over) => Ok(None),
            ("_result", State::Connecting) if command.transaction == CONNECT => {
                let info = command.arguments.first().unwrap_or(&Value::Null);
                self.peer = FourCcs::read(info);
                if !self.peer.is_told() {
                    self.peer = FourCcs::read(&command.object);
                }
                self.create().map(|()| None)
            }
            ("_error", State::Connecting) if command.transaction == CONNECT => {
                self.refused(command.arguments.first().unwrap_or(&command.object)).map(Some)
            }
            ("_result", State::Creating) if command.transaction == CREATE => {
                let stream =
                    command.number(0).filter(|n| (1.0..=f64::from(u32::MAX)).contains(n)).unwrap_or(1.0);
                self.start(stream as u32).map(|()| None)
            }
            ("_error", State::Creating) if command.transaction == CREATE => {
                self.refused(command.arguments.first().unwrap_or(&command.object)).map(Some)
            }
            ("onStatus", _) => self.status(command.arguments.first().unwrap_or(&command.object)),
            ("onBWDone", _) if !self.bandwidth_checked => {
                self.bandwidth_checked = true;
                let check = Command::new("_checkbw", BANDWIDTH, Value::Null, vec![]);
                self.link.command(0, &check).map(|()| None)
            }
            ("close", _) => Err(self.refusal(&command.object)),
            // What some servers ask to measure the way; the rest (onFCPublish, answers to it) changes nothing.
            ("_onbwcheck" | "ping", _) => {
                let answer = Command::new("_result", command.transaction, Value::Null, vec![]);
                self.link.command(0, &answer).map(|()| None)
            }
            _ => Ok(None),
        }
    }

    fn create(&mut self) -> Result<(), Error> {
        self.state = State::Creating;
        let stream = Value::text(self.stream_name());
        if self.config.purpose == Purpose::Publish {
            self.link.control(Control::ChunkSize(self.config.chunk_size))?;
            // FMLE's sequence, which large platforms wait for; who does not know it answers with an error.
            for (name, transaction) in [("releaseStream", 2.0), ("FCPublish", 3.0)] {
                self.link.command(0, &Command::new(name, transaction, Value::Null, vec![stream.clone()]))?;
            }
        } else {
            self.link.control(Control::Window(PLAY_WINDOW))?;
        }
        self.link.command(0, &Command::new("createStream", CREATE, Value::Null, vec![]))
    }

    fn start(&mut self, stream: u32) -> Result<(), Error> {
        self.state = State::Starting(stream);
        let name = Value::text(self.config.stream.clone());
        if self.config.purpose == Purpose::Publish {
            let arguments = vec![name, "live".into()];
            return self.link.command(stream, &Command::new("publish", START, Value::Null, arguments));
        }
        // The media may be on their way before the server says so.
        self.link.limit(self.config.limits);
        let length = Command::new("getStreamLength", LENGTH, Value::Null, vec![name.clone()]);
        self.link.command(0, &length)?;
        // -2: live, and if there is none, recorded (7.2.2.1); servers count it in milliseconds.
        let arguments = vec![name, Value::Number(-2000.0)];
        self.link.command(stream, &Command::new("play", START, Value::Null, arguments))?;
        self.link.control(Control::User(User::Buffer(stream, BUFFER)))
    }

    fn status(&mut self, info: &Value) -> Result<Option<ClientEvent>, Error> {
        let code = text(info, "code");
        let level = text(info, "level");
        if level == "error" || FAILURES.contains(&code) {
            return Err(self.refusal(info));
        }
        match (code, self.state) {
            ("NetStream.Publish.Start", State::Starting(stream))
                if self.config.purpose == Purpose::Publish =>
            {
                self.state = State::Live(stream);
                Ok(Some(ClientEvent::Publishing(stream)))
            }
            ("NetStream.Play.Start", State::Starting(stream)) if self.config.purpose == Purpose::Play => {
                self.state = State::Live(stream);
                Ok(Some(ClientEvent::Playing(stream)))
            }
            ("NetStream.Play.UnpublishNotify" | "NetStream.Play.Stop" | "NetStream.Play.Complete", _) => {
                Ok(Some(ClientEvent::Ended))
            }
            ("NetStream.Unpublish.Success", State::Live(_)) => Ok(Some(ClientEvent::Ended)),
            _ => {
                let description = self.scrubbed(text(info, "description"));
                Ok(Some(ClientEvent::Status { code: self.scrubbed(code), description }))
            }
        }
    }

    fn media(&mut self, message: Message) -> Option<ClientEvent> {
        match self.state {
            // Servers exist that play without saying that they start.
            State::Starting(stream) | State::Live(stream)
                if self.config.purpose == Purpose::Play
                    && (message.stream == stream || message.stream == 0) =>
            {
                (!message.payload.is_empty()).then_some(ClientEvent::Media(message))
            }
            _ => None,
        }
    }

    fn refused(&mut self, info: &Value) -> Result<ClientEvent, Error> {
        self.state = State::Over;
        if let Some(to) = info.property("ex").and_then(|ex| ex.property("redirect")).and_then(Value::as_text)
        {
            return Err(Error::Redirected(place(to)));
        }
        let config = &self.config;
        let known = config.credentials.as_ref();
        let described = text(info, "description");
        match answer(described, known, config.auth.as_ref(), &config.application, self.nonce) {
            Some(Ok(query)) => Ok(ClientEvent::Redial(query)),
            Some(Err(why)) => Err(Error::Auth(why)),
            None => Err(self.refusal(info)),
        }
    }

    fn refusal(&self, info: &Value) -> Error {
        let code = match text(info, "code") {
            "" => "without a code".to_owned(),
            code => self.scrubbed(code),
        };
        Error::Refused { code, description: self.scrubbed(text(info, "description")) }
    }

    fn scrubbed(&self, text: &str) -> String {
        let config = &self.config;
        let query = config.application.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let password = config.credentials.as_ref().map(|c| c.password.as_str()).unwrap_or_default();
        scrub(text, &[&config.stream, self.stream_name(), query, password])
    }

    /// The stream without its query.
    fn stream_name(&self) -> &str {
        self.config.stream.split_once('?').map_or(self.config.stream.as_str(), |(name, _)| name)
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("purpose", &self.purpose)
            .field("application", &self.application.split('?').next())
            .field("credentials", &self.credentials)
            .field("chunk_size", &self.chunk_size)
            .finish_non_exhaustive()
    }
}

fn text<'a>(info: &'a Value, name: &str) -> &'a str {
    info.property(name).and_then(Value::as_text).unwrap_or_default()
}

/// Scheme, host and port of a url: what stands behind may be a secret.
fn place(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("rtmp", url));
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    scrub(&format!("{scheme}://{host}"), &[])
}

/// What encoders say here; servers look for its first word.
const VERSION: &str = concat!("FMLE/3.0 (compatible; Millrace/", env!("CARGO_PKG_VERSION"), ")");
const CONNECT: f64 = 1.0;
const CREATE: f64 = 4.0;
const START: f64 = 5.0;
const LENGTH: f64 = 8.0;
const BANDWIDTH: f64 = 9.0;
const PLAY_WINDOW: u32 = 2_500_000;
/// Milliseconds that we say we buffer, as players do.
const BUFFER: u32 = 3000;
/// Codes that mean no, whatever level they come with.
const FAILURES: [&str; 8] = [
    "NetConnection.Connect.Rejected",
    "NetConnection.Connect.Closed",
    "NetStream.Publish.BadName",
    "NetStream.Publish.Denied",
    "NetStream.Publish.Failed",
    "NetStream.Play.StreamNotFound",
    "NetStream.Play.Failed",
    "NetStream.Failed",
];
