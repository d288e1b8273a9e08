//! Messages enter, what they say to the connection leaves (RTMP 1.0, clauses 5.4, 6.2 and 7), and the other way
//! round. Never keeps anything.

use bytes::{Buf, Bytes};

use super::amf0::{BadAmf, Value, read_values, write_values};
use super::chunk::{Message, kind};

/// A command, or what answers one (7.2).
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Its name.
    pub name: String,
    /// What ties an answer to it; 0 where none is wanted.
    pub transaction: f64,
    /// The command object; `Null` where there is none.
    pub object: Value,
    /// What else it says.
    pub arguments: Vec<Value>,
}

/// Protocol control (5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The sender's chunks have this size from now on.
    ChunkSize(u32),
    /// The sender gives up the unfinished message of this chunk stream.
    Abort(u32),
    /// The sender received this many bytes in all, modulo 2^32.
    Acknowledged(u32),
    /// The sender wants an acknowledgement each time it has sent so many bytes.
    Window(u32),
    /// The sender wants no more than this many bytes unacknowledged.
    Bandwidth(u32),
    /// Something about a stream.
    User(User),
}

/// User control (6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// A message stream is ready.
    Begin(u32),
    /// Playback of a message stream is over.
    End(u32),
    /// The client buffers so many milliseconds of a message stream.
    Buffer(u32, u32),
    /// Answer with the same time.
    Ping(u32),
    /// The answer.
    Pong(u32),
    /// An event that means nothing to a live stream, or nothing known.
    Other(u16),
}

/// A message that breaks the form of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Too short.
    #[error("message of type {kind} has {length} bytes, expected at least {least}")]
    Short {
        /// Its type.
        kind: u8,
        /// Its length.
        length: usize,
        /// What it needs.
        least: usize,
    },
    /// A command without a name.
    #[error("command without a name{}", .0.map(|why| format!(": {why}")).unwrap_or_default())]
    Nameless(Option<BadAmf>),
    /// An aggregate whose parts do not fill it.
    #[error("aggregate message ends inside a part")]
    Aggregate,
}

/// The parts of an aggregate message, taken one by one (7.1.6).
#[derive(Debug, Default)]
pub struct Parts {
    rest: Bytes,
    stream: u32,
    /// What is added to the times inside, so that the first becomes that of the aggregate.
    shift: Option<u32>,
    timestamp: u32,
}

impl Command {
    /// Reads a command. What it lacks is `Null`, and what stands behind a value that cannot be read is left out.
    ///
    /// # Errors
    /// It has no name.
    pub fn read(message: &Message) -> Result<Self, BadMessage> {
        let (values, why) = read_values(body(message));
        let mut values = values.into_iter();
        let Some(Value::String(name)) = values.next() else { return Err(BadMessage::Nameless(why)) };
        let transaction = values.next().as_ref().and_then(Value::as_number).unwrap_or_default();
        let object = values.next().unwrap_or(Value::Null);
        Ok(Self { name, transaction, object, arguments: values.collect() })
    }

    /// A command of these values.
    pub fn new(name: &str, transaction: f64, object: Value, arguments: Vec<Value>) -> Self {
        Self { name: name.into(), transaction, object, arguments }
    }

    /// The message that carries it.
    pub fn message(&self, stream: u32) -> Message {
        let mut payload = Vec::new();
        Value::String(self.name.clone()).write(&mut payload);
        Value::Number(self.transaction).write(&mut payload);
        self.object.write(&mut payload);
        self.arguments.iter().for_each(|value| value.write(&mut payload));
        Message { kind: kind::COMMAND, timestamp: 0, stream, payload: payload.into() }
    }

    /// Text of an argument, counted from 0; empty where there is none.
    pub fn text(&self, at: usize) -> &str {
        self.arguments.get(at).and_then(Value::as_text).unwrap_or_default()
    }

    /// A number of an argument, counted from 0.
    pub fn number(&self, at: usize) -> Option<f64> {
        self.arguments.get(at).and_then(Value::as_number)
    }
}

impl Control {
    /// Reads a message of types 1 to 6; `None` for one of another type.
    ///
    /// # Errors
    /// It is too short.
    pub fn read(message: &Message) -> Result<Option<Self>, BadMessage> {
        let payload = message.payload.as_ref();
        let number = |at: usize| match payload.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
            None => Err(BadMessage::Short { kind: message.kind, length: payload.len(), least: at + 4 }),
        };
        Ok(Some(match message.kind {
            kind::SET_CHUNK_SIZE => Self::ChunkSize(number(0)?),
            kind::ABORT => Self::Abort(number(0)?),
            kind::ACKNOWLEDGEMENT => Self::Acknowledged(number(0)?),
            kind::WINDOW_SIZE => Self::Window(number(0)?),
            kind::PEER_BANDWIDTH => Self::Bandwidth(number(0)?),
            kind::USER_CONTROL => {
                let Some(event) = payload.first_chunk::<2>() else {
                    return Err(BadMessage::Short { kind: message.kind, length: payload.len(), least: 2 });
                };
                Self::User(match u16::from_be_bytes(*event) {
                    0 => User::Begin(number(2)?),
                    1 => User::End(number(2)?),
                    3 => User::Buffer(number(2)?, number(6)?),
                    6 => User::Ping(number(2)?),
                    7 => User::Pong(number(2)?),
                    other => User::Other(other),
                })
            }
            _ => return Ok(None),
        }))
    }

    /// The message that carries it.
    pub fn message(self) -> Message {
        let (kind, payload) = match self {
            Self::ChunkSize(size) => (kind::SET_CHUNK_SIZE, size.to_be_bytes().to_vec()),
            Self::Abort(stream) => (kind::ABORT, stream.to_be_bytes().to_vec()),
            Self::Acknowledged(bytes) => (kind::ACKNOWLEDGEMENT, bytes.to_be_bytes().to_vec()),
            Self::Window(size) => (kind::WINDOW_SIZE, size.to_be_bytes().to_vec()),
            // 2: whichever is smaller of this and what holds already (5.4.5)
            Self::Bandwidth(size) => (kind::PEER_BANDWIDTH, [&size.to_be_bytes()[..], &[2]].concat()),
            Self::User(user) => {
                let (event, fields) = match user {
                    User::Begin(stream) => (0u16, vec![stream]),
                    User::End(stream) => (1, vec![stream]),
                    User::Buffer(stream, milliseconds) => (3, vec![stream, milliseconds]),
                    User::Ping(time) => (6, vec![time]),
                    User::Pong(time) => (7, vec![time]),
                    User::Other(event) => (event, vec![]),
                };
                let mut payload = event.to_be_bytes().to_vec();
                fields.iter().for_each(|field| payload.extend(field.to_be_bytes()));
                (kind::USER_CONTROL, payload)
            }
        };
        Message { kind, timestamp: 0, stream: 0, payload: payload.into() }
    }
}

impl Parts {
    /// Takes an aggregate message apart.
    pub fn new(message: &Message) -> Self {
        Self {
            rest: message.payload.clone(),
            stream: message.stream,
            shift: None,
            timestamp: message.timestamp,
        }
    }

    /// The next part; `None` behind the last.
    ///
    /// # Errors
    /// The part is cut; there is no next one then.
    pub fn take(&mut self) -> Result<Option<Message>, BadMessage> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some(header) = self.rest.first_chunk::<PART_HEADER>().copied() else {
            self.rest.clear();
            return Err(BadMessage::Aggregate);
        };
        let [kind, l0, l1, l2, t0, t1, t2, t3, ..] = header;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // As in a file of FLV tags, the highest byte of the time stands behind the other three.
        let time = u32::from_be_bytes([t3, t0, t1, t2]);
        if self.rest.len() < PART_HEADER + length {
            self.rest.clear();
            return Err(BadMessage::Aggregate);
        }
        self.rest.advance(PART_HEADER);
        let payload = self.rest.split_to(length);
        // Behind each part stands its length again; the last one may lack it.
        self.rest.advance(self.rest.len().min(4));
        let shift = *self.shift.get_or_insert(self.timestamp.wrapping_sub(time));
        Ok(Some(Message { kind, timestamp: time.wrapping_add(shift), stream: self.stream, payload }))
    }
}

/// The values of a data message: in AMF3 ones the first byte says that AMF0 follows, which it does.
pub fn read_data(message: &Message) -> (Vec<Value>, Option<BadAmf>) {
    read_values(body(message))
}

/// A data message of these values.
pub fn data_message(stream: u32, timestamp: u32, values: &[Value]) -> Message {
    Message { kind: kind::DATA, timestamp, stream, payload: write_values(values).into() }
}

fn body(message: &Message) -> &[u8] {
    match (message.kind, message.payload.as_ref()) {
        (kind::COMMAND_AMF3 | kind::DATA_AMF3, [0, rest @ ..]) => rest,
        (_, payload) => payload,
    }
}

/// Type, length, time and stream of a part.
const PART_HEADER: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, payload: &[u8]) -> Message {
        Message { kind, timestamp: 5000, stream: 1, payload: Bytes::copy_from_slice(payload) }
    }

    #[test]
    fn a_command_comes_back_and_what_it_lacks_is_null() {
        let command =
            Command::new("play", 4.0, Value::Null, vec![Value::text("cam"), Value::Number(-2000.0)]);
        let sent = command.message(1);
        assert_eq!(Command::read(&sent), Ok(command.clone()));
        let amf3 = message(kind::COMMAND_AMF3, &[&[0][..], &sent.payload].concat());
        assert_eq!(Command::read(&amf3), Ok(command));
        let bare = message(kind::COMMAND, &[2, 0, 1, b'x']);
        assert_eq!(Command::read(&bare), Ok(Command::new("x", 0.0, Value::Null, vec![])));
        let odd = message(kind::COMMAND, &[2, 0, 1, b'x', 5, 0x11]);
        assert_eq!(Command::read(&odd), Ok(Command::new("x", 0.0, Value::Null, vec![])));
        assert_eq!(Command::read(&message(kind::COMMAND, &[])), Err(BadMessage::Nameless(None)));
        assert_eq!(Command::read(&message(kind::COMMAND, &[5])), Err(BadMessage::Nameless(None)));
        assert!(Command::read(&message(kind::COMMAND, &[2, 0])).is_err());
    }

    #[test]
    fn control_comes_back_and_short_ones_are_named() {
        for control in [
            Control::ChunkSize(60_000),
            Control::Abort(6),
            Control::Acknowledged(u32::MAX),
            Control::Window(2_500_000),
            Control::Bandwidth(2_500_000),
            Control::User(User::Begin(1)),
            Control::User(User::End(1)),
            Control::User(User::Buffer(1, 3000)),
            Control::User(User::Ping(7)),
            Control::User(User::Pong(7)),
            Control::User(User::Other(31)),
        ] {
            let sent = control.message();
            assert_eq!(Control::read(&sent), Ok(Some(control)));
            for length in 0..sent.payload.len() {
                let cut = Message { payload: sent.payload.slice(..length), ..sent.clone() };
                let got = Control::read(&cut);
                assert!(got.is_err() || matches!(control, Control::Bandwidth(_)), "{control:?} {length}");
            }
        }
        assert_eq!(Control::read(&message(kind::VIDEO, &[])), Ok(None));
        let verify = message(kind::USER_CONTROL, &[0, 26, 0]);
        assert_eq!(Control::read(&verify), Ok(Some(Control::User(User::Other(26)))));
    }

    #[test]
    fn an_aggregate_is_taken_apart_and_its_times_follow_the_message() {
        let part = |kind: u8, time: u8, text: &[u8]| {
            let head = [kind, 0, 0, text.len() as u8, 0, 0, time, 0, 0, 0, 0];
            [&head[..], text, &[0, 0, 0, 11 + text.len() as u8]].concat()
        };
        let payload = [part(8, 100, b"a"), part(9, 140, b"bc"), part(9, 90, b"")].concat();
        let mut parts = Parts::new(&message(kind::AGGREGATE, &payload));
        let mut got = Vec::new();
        while let Some(part) = parts.take().unwrap() {
            assert_eq!(part.stream, 1);
            got.push((part.kind, part.timestamp, part.payload));
        }
        let want = [(8, 5000, &b"a"[..]), (9, 5040, b"bc"), (9, 4990, b"")];
        assert_eq!(got, want.map(|(kind, time, text)| (kind, time, Bytes::from_static(text))));
        for length in 1..payload.len() {
            let mut parts = Parts::new(&message(kind::AGGREGATE, &payload[..length]));
            let whole = std::iter::from_fn(|| parts.take().ok().flatten()).count();
            assert_eq!(
                whole,
                usize::from(length >= 12) + usize::from(length >= 29) + usize::from(length >= 44)
            );
            assert_eq!(parts.take(), Ok(None));
        }
    }
}
