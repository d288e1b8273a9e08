//! What client and server have in common: bytes enter, messages that are not about the connection itself leave; those
//! that are, are obeyed and answered. Never knows who asks whom for what.

use super::Parts;
use super::amf0::Value;
use super::auth::BadAuth;
use super::chunk::{BadChunk, CHUNK_SIZE, Limits, Message, Reader, kind, write_message};
use super::handshake::BadHello;
use super::message::{BadMessage, Command, Control, User};

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not begin as RTMP does.
    #[error(transparent)]
    Hello(#[from] BadHello),
    /// The bytes are not chunks.
    #[error(transparent)]
    Chunk(#[from] BadChunk),
    /// A message is malformed.
    #[error(transparent)]
    Message(#[from] BadMessage),
    /// It sends what must be answered and does not read the answers.
    #[error("the peer asks for answers and does not read them")]
    Deaf,
    /// A message that may not come now.
    #[error("the peer sends {what} {when}")]
    Order {
        /// What came.
        what: &'static str,
        /// And when it did.
        when: &'static str,
    },
    /// The server says no.
    #[error("the server refuses: {code}{}", if description.is_empty() { String::new() } else { format!(" ({description})") })]
    Refused {
        /// Its code, such as `NetStream.Publish.BadName`.
        code: String,
        /// What it says about it, without secrets and control characters.
        description: String,
    },
    /// The server wants us to go elsewhere, which is not followed: it may be anywhere.
    #[error("the server redirects to {0}, which is not followed: use that url if it is right")]
    Redirected(String),
    /// The server's challenge has no answer.
    #[error(transparent)]
    Auth(#[from] BadAuth),
}

/// How many bytes of answers may wait for a peer to read them.
pub const ANSWERS_MOST: usize = 64 << 10;

/// The state of a connection behind its handshake.
#[derive(Debug)]
pub(super) struct Link {
    reader: Reader,
    parts: Parts,
    out: Vec<u8>,
    chunk_size: u32,
    /// How many bytes the peer wants to send between acknowledgements, if it said.
    window: Option<u32>,
    /// The window that we told.
    told_window: u32,
    received: u64,
    acknowledged: u64,
    peer_acknowledged: Option<u32>,
}

impl Link {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            reader: Reader::new(limits),
            parts: Parts::default(),
            out: Vec::new(),
            chunk_size: CHUNK_SIZE,
            window: None,
            told_window: 0,
            received: 0,
            acknowledged: 0,
            peer_acknowledged: None,
        }
    }

    /// What waits to be sent, for the handshake to append to.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes that the peer says it received, modulo 2^32, once it said so.
    pub(super) fn peer_acknowledged(&self) -> Option<u32> {
        self.peer_acknowledged
    }

    pub(super) fn limit(&mut self, limits: Limits) {
        self.reader.limit(limits);
    }

    /// The next message that is not about the connection itself; `None` when `input` is used up.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Error> {
        loop {
            if let Some(part) = self.parts.take()? {
                // What stands in an aggregate is media (7.1.6): control in it is not obeyed.
                if matches!(part.kind, kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3) {
                    return Ok(Some(part));
                }
                continue;
            }
            let before = input.len();
            let message = self.reader.read(input)?;
            self.received += (before - input.len()) as u64;
            self.acknowledge();
            let Some(message) = message else { return Ok(None) };
            if message.kind == kind::AGGREGATE {
                self.parts = Parts::new(&message);
            } else if let Some(control) = Control::read(&message)? {
                self.obey(control)?;
            } else {
                return Ok(Some(message));
            }
        }
    }

    /// Sends a message; `Error::Deaf` when too many wait already.
    pub(super) fn send(&mut self, chunk_stream: u32, message: &Message) -> Result<(), Error> {
        if self.out.len() > ANSWERS_MOST {
            return Err(Error::Deaf);
        }
        write_message(&mut self.out, chunk_stream, self.chunk_size, message);
        Ok(())
    }

    pub(super) fn control(&mut self, control: Control) -> Result<(), Error> {
        self.send(CONTROL, &control.message())?;
        match control {
            Control::ChunkSize(size) => self.chunk_size = size,
            Control::Window(size) => self.told_window = size,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn command(&mut self, stream: u32, command: &Command) -> Result<(), Error> {
        self.send(if stream == 0 { COMMANDS } else { STATUS }, &command.message(stream))
    }

    /// An information object on a stream (7.2.2).
    pub(super) fn status(&mut self, stream: u32, level: &str, code: &str, text: &str) -> Result<(), Error> {
        let info = information(level, code, text);
        self.command(stream, &Command::new("onStatus", 0.0, Value::Null, vec![info]))
    }

    fn obey(&mut self, control: Control) -> Result<(), Error> {
        match control {
            Control::ChunkSize(size) => self.reader.resize(size)?,
            Control::Abort(chunk_stream) => self.reader.abort(chunk_stream),
            Control::Acknowledged(bytes) => self.peer_acknowledged = Some(bytes),
            Control::Window(size) => self.window = Some(size),
            Control::Bandwidth(size) if size != self.told_window => self.control(Control::Window(size))?,
            Control::User(User::Ping(time)) => self.control(Control::User(User::Pong(time)))?,
            Control::Bandwidth(_) | Control::User(_) => {}
        }
        Ok(())
    }

    /// Tells the peer how much came (5.4.3), as often as it wants to know; halfway, so that it never has to stop.
    fn acknowledge(&mut self) {
        let Some(window) = self.window else { return };
        let due = u64::from(window / 2).max(ACKNOWLEDGE_LEAST);
        if self.received - self.acknowledged >= due && self.out.len() <= ANSWERS_MOST {
            self.acknowledged = self.received;
            write_message(
                &mut self.out,
                CONTROL,
                self.chunk_size,
                &Control::Acknowledged(self.received as u32).message(),
            );
        }
    }
}

/// An information object.
pub(super) fn information(level: &str, code: &str, text: &str) -> Value {
    Value::Object(vec![
        ("level".into(), level.into()),
        ("code".into(), code.into()),
        ("description".into(), text.into()),
    ])
}

/// What a peer said, fit for a log: one line of at most 256 characters, with `***` where it repeats a secret.
pub(super) fn scrub(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(256).collect()
}

/// Chunk streams that are written on: clause 5.4 gives control the 2, the others are custom.
const CONTROL: u32 = 2;
const COMMANDS: u32 = 3;
const STATUS: u32 = 5;
/// An acknowledgement has 16 bytes: a peer with a tiny window does not get one for every few.
const ACKNOWLEDGE_LEAST: u64 = 4096;
