//! A client's bytes enter; what a server answers, what the client asks for and the media it sends leave. Never decides
//! who may publish or be played what: the owner accepts or turns away.

use std::fmt;

use super::amf0::Value;
use super::capabilities::FourCcs;
use super::chunk::{Limits, Message, kind};
use super::client::Purpose;
use super::handshake::Answerer;
use super::link::{Error, Link, information, scrub};
use super::message::{Command, Control, User, data_message};

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    /// The size of our chunks, 1 to 65,535.
    pub chunk_size: u32,
    /// What a client that was accepted may make us hold; a stranger may less.
    pub limits: Limits,
}

/// What came of a client's bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerEvent {
    /// The client asks for something: accept it or turn it away.
    Request(Box<Request>),
    /// A message of audio, video or data of a client that was accepted as a publisher.
    Media(Message),
    /// The client stopped publishing or playing.
    Ended,
}

/// What a client asks for. Application and stream may hold secrets, and do not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// To publish or to be played to.
    pub purpose: Purpose,
    /// The application, without its query.
    pub application: String,
    /// The stream, without its query; empty where the client names streams by the application alone.
    pub stream: String,
    /// Queries of application and stream, in this order, joined by `&`, as they came.
    pub query: String,
    /// The url that the client says it dialled.
    pub tc_url: String,
    /// What the client says it is, without control characters.
    pub agent: String,
    /// What it says about codecs.
    pub codecs: FourCcs,
}

/// Why a client is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// Key, user or password are wrong.
    Denied,
    /// There is no such stream.
    Unknown,
    /// Somebody publishes it already, or too many are played to.
    Busy,
}

/// A server of one client.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    state: State,
    answerer: Answerer,
    link: Link,
    connected: Option<Connected>,
    /// Message streams that were made, numbered from 1.
    streams: u32,
    /// Commands before a client was accepted.
    commands: u32,
    early: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    /// No request, or one that ended.
    Idle,
    Asked(Purpose, u32),
    Live(Purpose, u32),
    Over,
}

#[derive(Debug)]
struct Connected {
    application: String,
    query: String,
    tc_url: String,
    agent: String,
    codecs: FourCcs,
}

impl Server {
    /// Waits for a client. `time` is in milliseconds from any origin, `seed` random.
    pub fn new(config: ServerConfig, time: u32, seed: [u8; 16]) -> Self {
        Self {
            config,
            state: State::Greeting,
            answerer: Answerer::new(time, seed),
            link: Link::new(Limits::STRANGER),
            connected: None,
            streams: 0,
            commands: 0,
            early: 0,
        }
    }

    /// Takes bytes from the front of `input` until something came of them; `None` when they are used up. After an error
    /// the connection is of no more use.
    ///
    /// # Errors
    /// The client does not speak RTMP as it is accepted here, or not in its order.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<ServerEvent>, Error> {
        if self.state == State::Greeting {
            if !self.answerer.read(input, self.link.out())? {
                return Ok(None);
            }
            self.state = State::Idle;
        }
        while let Some(message) = self.link.next(input)? {
            let event = match message.kind {
                kind::COMMAND | kind::COMMAND_AMF3 => {
                    self.command(&Command::read(&message)?, message.stream)?
                }
                kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 => self.media(message)?,
                // Shared objects and what nobody knows.
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

    /// Lets the client have what it asked for, and answers the message stream that media come or go on. `None` when
    /// nothing is asked for.
    ///
    /// # Errors
    /// The client does not read.
    pub fn accept(&mut self) -> Result<Option<u32>, Error> {
        let State::Asked(purpose, stream) = self.state else { return Ok(None) };
        self.link.limit(self.config.limits);
        self.link.control(Control::User(User::Begin(stream)))?;
        match purpose {
            Purpose::Publish => {
                self.link.status(stream, "status", "NetStream.Publish.Start", "publishing")?;
            }
            Purpose::Play => {
                self.link.status(stream, "status", "NetStream.Play.Reset", "reset")?;
                self.link.status(stream, "status", "NetStream.Play.Start", "playing")?;
                let access = [Value::text("|RtmpSampleAccess"), true.into(), true.into()];
                self.link.send(DATA, &data_message(stream, 0, &access))?;
            }
        }
        self.state = State::Live(purpose, stream);
        Ok(Some(stream))
    }

    /// Tells the client why it does not get what it asked for. The connection is to be closed when that is sent.
    ///
    /// # Errors
    /// The client does not read.
    pub fn turn_away(&mut self, why: Turned, reason: &str) -> Result<(), Error> {
        let (State::Asked(purpose, stream) | State::Live(purpose, stream)) = self.state else {
            return Ok(());
        };
        self.state = State::Over;
        let code = match (purpose, why) {
            (Purpose::Publish, Turned::Busy) => "NetStream.Publish.BadName",
            (Purpose::Publish, Turned::Denied | Turned::Unknown) => "NetStream.Publish.Denied",
            (Purpose::Play, Turned::Unknown) => "NetStream.Play.StreamNotFound",
            (Purpose::Play, Turned::Denied | Turned::Busy) => "NetStream.Play.Failed",
        };
        self.link.status(stream, "error", code, reason)
    }

    /// Tells a player that the stream is over, for now or for ever.
    ///
    /// # Errors
    /// The client does not read.
    pub fn end(&mut self) -> Result<(), Error> {
        let State::Live(Purpose::Play, stream) = self.state else { return Ok(()) };
        self.state = State::Over;
        self.link.control(Control::User(User::End(stream)))?;
        self.link.status(stream, "status", "NetStream.Play.UnpublishNotify", "the stream is over")
    }

    /// Messages of media that came before their publisher was accepted, and were dropped.
    pub fn early(&self) -> u64 {
        self.early
    }

    /// Bytes that a player says it received, modulo 2^32, once it said so.
    pub fn peer_acknowledged(&self) -> Option<u32> {
        self.link.peer_acknowledged()
    }

    fn command(&mut self, command: &Command, on: u32) -> Result<Option<ServerEvent>, Error> {
        if !matches!(self.state, State::Live(..)) {
            self.commands += 1;
            if self.commands > COMMANDS_MOST {
                return Err(Error::Order { what: "too many commands", when: "before it publishes or plays" });
            }
        }
        if self.connected.is_none() {
            return match command.name.as_str() {
                "connect" => self.connect(command).map(|()| None),
                _ => Err(Error::Order { what: "a command", when: "before `connect`" }),
            };
        }
        match command.name.as_str() {
            "connect" => Err(Error::Order { what: "`connect`", when: "twice" }),
            "createStream" => self.create(command).map(|()| None),
            "publish" => self.request(Purpose::Publish, command, on).map(Some),
            "play" => self.request(Purpose::Play, command, on).map(Some),
            "FCUnpublish" | "deleteStream" | "closeStream" => self.finish(command),
            "releaseStream" | "_checkbw" => self.result(command, Value::Undefined).map(|()| None),
            "getStreamLength" => self.result(command, Value::Number(0.0)).map(|()| None),
            "FCPublish" | "FCSubscribe" => {
                self.result(command, Value::Undefined)?;
                let (name, code) = match command.name.as_str() {
                    "FCPublish" => ("onFCPublish", "NetStream.Publish.Start"),
                    _ => ("onFCSubscribe", "NetStream.Play.Start"),
                };
                let info = information("status", code, "");
                self.link.command(0, &Command::new(name, 0.0, Value::Null, vec![info])).map(|()| None)
            }
            _ if command.name.starts_with('_') || command.transaction == 0.0 => Ok(None),
            _ => {
                let info = information("error", "NetConnection.Call.Failed", "no such method");
                let answer = Command::new("_error", command.transaction, Value::Null, vec![info]);
                self.link.command(0, &answer).map(|()| None)
            }
        }
    }

    fn connect(&mut self, command: &Command) -> Result<(), Error> {
        let object = &command.object;
        let text = |name: &str| object.property(name).and_then(Value::as_text).unwrap_or_default();
        let (application, query) = split_query(text("app"));
        let codecs = FourCcs::read(object);
        self.connected = Some(Connected {
            application: application.trim_matches('/').into(),
            query: query.into(),
            tc_url: text("tcUrl").into(),
            agent: scrub(text("flashVer"), &[]),
            codecs,
        });
        self.link.control(Control::Window(WINDOW))?;
        self.link.control(Control::Bandwidth(WINDOW))?;
        self.link.control(Control::User(User::Begin(0)))?;
        self.link.control(Control::ChunkSize(self.config.chunk_size))?;
        let server = vec![
            ("fmsVer".into(), VERSION.into()),
            ("capabilities".into(), 31.0.into()),
            ("mode".into(), 1.0.into()),
        ];
        let mut info = vec![
            ("level".into(), "status".into()),
            ("code".into(), "NetConnection.Connect.Success".into()),
            ("description".into(), "connected".into()),
            // AMF3 is not spoken, whatever the client likes best.
            ("objectEncoding".into(), 0.0.into()),
        ];
        info.extend(FourCcs::ours());
        let answer =
            Command::new("_result", command.transaction, Value::Object(server), vec![Value::Object(info)]);
        self.link.command(0, &answer)?;
        self.link.command(0, &Command::new("onBWDone", 0.0, Value::Null, vec![]))
    }

    fn create(&mut self, command: &Command) -> Result<(), Error> {
        // Some clients make one for each thing they do, and none needs more than a few at once.
        self.streams = self.streams % STREAMS_MOST + 1;
        self.result(command, Value::Number(f64::from(self.streams)))
    }

    fn request(&mut self, purpose: Purpose, command: &Command, on: u32) -> Result<ServerEvent, Error> {
        let when = match self.state {
            State::Idle if self.streams > 0 => None,
            State::Idle => Some("before `createStream`"),
            State::Over => Some("after it was turned away"),
            _ => Some("twice"),
        };
        let what = if purpose == Purpose::Publish { "`publish`" } else { "`play`" };
        let Some(connected) = self.connected.as_ref().filter(|_| when.is_none()) else {
            return Err(Error::Order { what, when: when.unwrap_or("before `connect`") });
        };
        // Some clients send the command on stream 0 and mean the one that they made.
        let on = if (1..=STREAMS_MOST).contains(&on) { on } else { self.streams };
        self.state = State::Asked(purpose, on);
        let (stream, query) = split_query(command.text(0));
        let both = !connected.query.is_empty() && !query.is_empty();
        Ok(ServerEvent::Request(Box::new(Request {
            purpose,
            application: connected.application.clone(),
            stream: stream.trim_matches('/').into(),
            query: format!("{}{}{query}", connected.query, if both { "&" } else { "" }),
            tc_url: connected.tc_url.clone(),
            agent: connected.agent.clone(),
            codecs: connected.codecs.clone(),
        })))
    }

    fn finish(&mut self, command: &Command) -> Result<Option<ServerEvent>, Error> {
        if command.name == "FCUnpublish" {
            if command.transaction != 0.0 {
                self.result(command, Value::Undefined)?;
            }
            let info = information("status", UNPUBLISHED, "");
            self.link.command(0, &Command::new("onFCUnpublish", 0.0, Value::Null, vec![info]))?;
        }
        let (State::Asked(purpose, stream) | State::Live(purpose, stream)) = self.state else {
            return Ok(None);
        };
        self.state = State::Over;
        if purpose == Purpose::Publish {
            self.link.status(stream, "status", UNPUBLISHED, "unpublished")?;
        }
        Ok(Some(ServerEvent::Ended))
    }

    fn media(&mut self, message: Message) -> Result<Option<ServerEvent>, Error> {
        match self.state {
            State::Live(Purpose::Publish, _) => {
                Ok((!message.payload.is_empty()).then_some(ServerEvent::Media(message)))
            }
            // A publisher need not wait for our yes; what it sends before it is not kept.
            State::Asked(Purpose::Publish, _) | State::Over => {
                self.early += 1;
                Ok(None)
            }
            State::Live(Purpose::Play, _) | State::Asked(Purpose::Play, _) => Ok(None),
            State::Idle | State::Greeting => Err(Error::Order { what: "media", when: "before `publish`" }),
        }
    }

    fn result(&mut self, command: &Command, value: Value) -> Result<(), Error> {
        self.link.command(0, &Command::new("_result", command.transaction, Value::Null, vec![value]))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("purpose", &self.purpose)
            .field("agent", &self.agent)
            .field("codecs", &self.codecs)
            .finish_non_exhaustive()
    }
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

const UNPUBLISHED: &str = "NetStream.Unpublish.Success";
/// What players look at to see what a server can do.
const VERSION: &str = "FMS/3,5,7,7009";
/// Bytes between acknowledgements, both ways.
const WINDOW: u32 = 2_500_000;
const COMMANDS_MOST: u32 = 64;
const STREAMS_MOST: u32 = 16;
const DATA: u32 = 4;
