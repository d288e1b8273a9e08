//! The end of an RTMP connection that takes what is published: bytes of the publisher enter, answers and access units
//! leave. Never keeps more of a message than is looked at.
//!
//! Written from Adobe's RTMP 1.0 alone, not from the engine's RTMP: two readings of one text that agree.

use crate::Result;
use crate::tcp_sink::{End, HEAD, Heard};
use crate::units::Kind;

/// One publisher.
pub(crate) struct RtmpEnd {
    stage: Stage,
    /// The beginning of what comes next, until it is whole: a handshake, or the header of a chunk.
    begun: Vec<u8>,
    chunk_size: usize,
    streams: Vec<ChunkStream>,
    /// The chunk that comes in: its stream, and how much of it is missing.
    chunk: Option<(usize, usize)>,
    received: u32,
    acknowledged: u32,
    whole: bool,
}

#[derive(Clone, Copy)]
enum Stage {
    /// C0 and C1 (5.2.2, 5.2.3).
    Hello,
    /// C2 (5.2.4).
    Echo,
    Chunks,
}

/// What the last header said, and what came of its message.
#[derive(Default)]
struct ChunkStream {
    id: u32,
    kind: u8,
    length: usize,
    extended: bool,
    got: usize,
    kept: Vec<u8>,
}

impl RtmpEnd {
    /// One that nobody has spoken to.
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Hello,
            begun: Vec::new(),
            chunk_size: 128,
            streams: Vec::new(),
            chunk: None,
            received: 0,
            acknowledged: 0,
            whole: false,
        }
    }

    /// Moves bytes until `count` of them stand in `begun`; false when there are not enough.
    fn gather(&mut self, bytes: &mut &[u8], count: usize) -> bool {
        let (now, later) = bytes.split_at(bytes.len().min(count.saturating_sub(self.begun.len())));
        self.begun.extend_from_slice(now);
        *bytes = later;
        self.begun.len() >= count
    }

    /// How many bytes the header has, as far as those that came can tell (5.3.1).
    fn header_length(&self) -> usize {
        let Some(&first) = self.begun.first() else { return 1 };
        let basic = basic_length(first);
        let message = MESSAGE_HEADERS[usize::from(first >> 6)];
        if self.begun.len() < basic + message {
            return basic + message;
        }
        let extended = if message > 0 {
            self.begun[basic..basic + 3] == [0xff; 3]
        } else {
            let id = self.stream_id();
            self.streams.iter().any(|stream| stream.id == id && stream.extended)
        };
        basic + message + if extended { 4 } else { 0 }
    }

    fn stream_id(&self) -> u32 {
        match self.begun[..] {
            [first, low, high, ..] if first & 0x3f == 1 => 64 + u32::from(low) + 256 * u32::from(high),
            [first, low, ..] if first & 0x3f == 0 => 64 + u32::from(low),
            [first, ..] => u32::from(first & 0x3f),
            [] => 0,
        }
    }

    /// A header is whole: the chunk behind it begins.
    fn begin(&mut self) -> Result<()> {
        let id = self.stream_id();
        let place = self.streams.iter().position(|stream| stream.id == id).unwrap_or_else(|| {
            self.streams.push(ChunkStream { id, ..ChunkStream::default() });
            self.streams.len() - 1
        });
        let stream = &mut self.streams[place];
        let first = self.begun[0];
        let header = &self.begun[basic_length(first)..];
        let message = MESSAGE_HEADERS[usize::from(first >> 6)];
        if message > 0 {
            stream.extended = header[..3] == [0xff; 3];
        }
        if message >= 7 {
            stream.length = u32::from_be_bytes([0, header[3], header[4], header[5]]) as usize;
            stream.kind = header[6];
        } else if stream.kind == 0 {
            return Err("a chunk without a header before it".into());
        }
        if message > 0 && stream.got > 0 {
            return Err("a message within a message of its chunk stream".into());
        }
        self.chunk = Some((place, self.chunk_size.min(stream.length - stream.got)));
        self.begun.clear();
        Ok(())
    }

    /// A message is whole.
    fn finish(&mut self, place: usize, out: &mut Vec<u8>, hear: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        let stream = &mut self.streams[place];
        let (kind, payload) = (stream.kind, std::mem::take(&mut stream.kept));
        stream.got = 0;
        match (kind, &payload[..]) {
            (SET_CHUNK_SIZE, &[a, b, c, d, ..]) => {
                self.chunk_size = (u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff).max(1) as usize;
            }
            // A ping is answered with what it says (7.1.7).
            (USER_CONTROL, [0, 6, time @ ..]) => write(out, 2, USER_CONTROL, 0, &[&[0, 7], time].concat()),
            (COMMAND, command) => answer(command, out, hear),
            // AVC, NAL units; AAC, raw (FLV, annex E.4).
            (VIDEO, [head, 1, _, _, _, unit @ ..]) if head & 0x8f == 7 => {
                hear(Heard::Unit(Kind::Picture, unit))
            }
            (AUDIO, [head, 1, unit @ ..]) if head >> 4 == 10 => hear(Heard::Unit(Kind::Sound, unit)),
            _ => {}
        }
        let mut payload = payload;
        payload.clear();
        self.streams[place].kept = payload;
        Ok(())
    }
}

impl End for RtmpEnd {
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>, hear: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        self.received = self.received.wrapping_add(bytes.len() as u32);
        let mut bytes = bytes;
        loop {
            match (self.stage, self.chunk) {
                (Stage::Hello, _) => {
                    if !self.gather(&mut bytes, 1 + HELLO) {
                        break;
                    }
                    // S0, S1 and S2: no digests, and what came (5.2.2 to 5.2.4).
                    out.push(3);
                    out.extend([0; HELLO]);
                    out.extend(&self.begun[1..]);
                    self.begun.clear();
                    self.stage = Stage::Echo;
                }
                (Stage::Echo, _) => {
                    if !self.gather(&mut bytes, HELLO) {
                        break;
                    }
                    self.begun.clear();
                    self.stage = Stage::Chunks;
                }
                (Stage::Chunks, None) => {
                    let length = self.header_length();
                    if !self.gather(&mut bytes, length) {
                        break;
                    }
                    if self.header_length() == length {
                        self.begin()?;
                    }
                }
                (Stage::Chunks, Some((place, missing))) => {
                    let stream = &mut self.streams[place];
                    let (now, later) = bytes.split_at(bytes.len().min(missing));
                    let most =
                        if self.whole || ![VIDEO, AUDIO].contains(&stream.kind) { usize::MAX } else { HEAD };
                    let room = most.saturating_sub(stream.kept.len());
                    stream.kept.extend_from_slice(&now[..now.len().min(room)]);
                    stream.got += now.len();
                    bytes = later;
                    if now.len() < missing {
                        self.chunk = Some((place, missing - now.len()));
                        break;
                    }
                    self.chunk = None;
                    if stream.got == stream.length {
                        self.finish(place, out, hear)?;
                    }
                }
            }
        }
        if self.received.wrapping_sub(self.acknowledged) >= WINDOW {
            self.acknowledged = self.received;
            write(out, 2, ACKNOWLEDGEMENT, 0, &self.received.to_be_bytes());
        }
        Ok(())
    }

    fn keep_whole(&mut self) {
        self.whole = true;
    }
}

/// Answers a command (7.2).
fn answer(command: &[u8], out: &mut Vec<u8>, hear: &mut dyn FnMut(Heard<'_>)) {
    let mut rest = command;
    let Some(name) = text(&mut rest) else { return };
    let Some((&[0, a, b, c, d, e, f, g, h], behind)) = rest.split_first_chunk() else { return };
    let transaction = [0, a, b, c, d, e, f, g, h];
    match name {
        "connect" => {
            // Some name their stream by the application alone: it ends in the number then.
            let application = memchr::memmem::find(behind, b"\0\x03app").and_then(|at| behind.get(at + 5..));
            hear(Heard::Name(application.and_then(|mut rest| text(&mut rest)).unwrap_or_default()));
            write(out, 2, WINDOW_SIZE, 0, &WINDOW.to_be_bytes());
            write(out, 2, PEER_BANDWIDTH, 0, &[&WINDOW.to_be_bytes()[..], &[2]].concat());
            let mut body = [&encode("_result")[..], &transaction].concat();
            body.extend(object(&[("fmsVer", "FMS/3,0,1,123")]));
            body.extend(object(&[("level", "status"), ("code", "NetConnection.Connect.Success")]));
            write(out, 3, COMMAND, 0, &body);
        }
        "createStream" => {
            let mut body = [&encode("_result")[..], &transaction, &[NULL, NUMBER]].concat();
            body.extend(f64::from(STREAM).to_be_bytes());
            write(out, 3, COMMAND, 0, &body);
        }
        "publish" => {
            let mut rest = behind.get(1..).unwrap_or_default();
            hear(Heard::Name(text(&mut rest).unwrap_or_default()));
            let mut body = [&encode("onStatus")[..], &[NUMBER, 0, 0, 0, 0, 0, 0, 0, 0, NULL]].concat();
            body.extend(object(&[
                ("level", "status"),
                ("code", "NetStream.Publish.Start"),
                ("description", "it is taken"),
            ]));
            write(out, 3, COMMAND, STREAM, &body);
        }
        // releaseStream, FCPublish and their like: nobody waits for an answer.
        _ => {}
    }
}

/// A text of AMF 0 (2.4).
fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (&[kind, high, low], behind) = bytes.split_first_chunk()?;
    let (text, rest) = behind.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    *bytes = rest;
    if kind == TEXT { std::str::from_utf8(text).ok() } else { None }
}

fn encode(text: &str) -> Vec<u8> {
    [&[TEXT][..], &(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn object(properties: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![OBJECT];
    for (name, value) in properties {
        bytes.extend(&encode(name)[1..]);
        bytes.extend(encode(value));
    }
    bytes.extend([0, 0, 9]);
    bytes
}

/// Writes a message in chunks of the size that nobody has to be told.
fn write(out: &mut Vec<u8>, chunk_stream: u8, kind: u8, stream: u32, payload: &[u8]) {
    out.extend([chunk_stream, 0, 0, 0]);
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.push(kind);
    out.extend(stream.to_le_bytes());
    for (number, chunk) in payload.chunks(128).enumerate() {
        out.extend((number > 0).then_some(3 << 6 | chunk_stream));
        out.extend(chunk);
    }
}

fn basic_length(first: u8) -> usize {
    match first & 0x3f {
        0 => 2,
        1 => 3,
        _ => 1,
    }
}

/// Of types 0 to 3.
const MESSAGE_HEADERS: [usize; 4] = [11, 7, 3, 0];
/// C1, C2, S1 and S2.
const HELLO: usize = 1536;
/// Message types (5.4, 7.1).
const SET_CHUNK_SIZE: u8 = 1;
const ACKNOWLEDGEMENT: u8 = 3;
const USER_CONTROL: u8 = 4;
const WINDOW_SIZE: u8 = 5;
const PEER_BANDWIDTH: u8 = 6;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const COMMAND: u8 = 20;
/// Markers of AMF 0.
const NUMBER: u8 = 0;
const TEXT: u8 = 2;
const OBJECT: u8 = 3;
const NULL: u8 = 5;
/// The message stream that everybody gets.
const STREAM: u32 = 1;
/// Bytes that are acknowledged at once: two seconds of 4 Mb/s.
const WINDOW: u32 = 1 << 20;
