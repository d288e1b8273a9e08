//! Bytes enter as they come, whole messages leave. Chunk streams may be interleaved in any way; what they hold
//! together is bounded, and memory is taken as bytes come, never as a header announces.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::{CHUNK_SIZE, EXTENDED, Message, kind};

/// Puts messages together from chunks.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    chunk_size: u32,
    streams: BTreeMap<u32, Stream>,
    /// Bytes of unfinished messages.
    held: usize,
    header: Header,
    /// The chunk whose payload comes next, and how much of it.
    open: Option<(u32, usize)>,
    /// Bytes that were taken for part of a header and were not: they come before all others.
    unread: Vec<u8>,
}

/// What a peer may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an audio, video or aggregate message.
    pub media: usize,
    /// Bytes of a data message.
    pub data: usize,
    /// Bytes of a command or of anything else.
    pub other: usize,
    /// Bytes of all unfinished messages together.
    pub held: usize,
    /// Chunk streams.
    pub streams: usize,
}

/// Why bytes are not chunks that are accepted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// A message is longer than its type may be.
    #[error("message of {length} bytes and type {kind}, at most {most} are accepted")]
    Long {
        /// Message type.
        kind: u8,
        /// Its length.
        length: usize,
        /// The bound.
        most: usize,
    },
    /// Unfinished messages hold too much together.
    #[error("unfinished messages hold more than {0} bytes")]
    Held(usize),
    /// More chunk streams than accepted.
    #[error("more than {0} chunk streams")]
    Streams(usize),
    /// A header that leans on one before it, on a chunk stream that had none.
    #[error("chunk stream {0} starts with a header of type {1}, expected type 0")]
    Headless(u32, u8),
    /// A chunk size of 0 or beyond 2^31 - 1 (5.4.1).
    #[error("chunk size {0} is out of its range, 1 to 2147483647")]
    ChunkSize(u32),
}

/// What a chunk stream remembers.
#[derive(Debug, Default)]
struct Stream {
    timestamp: u32,
    delta: u32,
    /// What the extended field of the last header of type 0 to 2 said, if it had one.
    extended: Option<u32>,
    length: usize,
    kind: u8,
    message_stream: u32,
    payload: BytesMut,
    /// A message has begun and is not finished.
    begun: bool,
}

/// The bytes of a chunk header that came so far: at most 3 + 11 + 4.
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; 18],
    length: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { media: 8 << 20, data: 1 << 20, other: 64 << 10, held: 12 << 20, streams: 64 }
    }
}

impl Limits {
    /// For a peer that has not said yet who it is.
    pub const STRANGER: Self =
        Self { media: 64 << 10, data: 64 << 10, other: 64 << 10, held: 128 << 10, streams: 16 };

    fn of(&self, kind: u8) -> usize {
        match kind {
            kind::AUDIO | kind::VIDEO | kind::AGGREGATE => self.media,
            kind::DATA | kind::DATA_AMF3 => self.data,
            _ => self.other,
        }
    }
}

impl Reader {
    /// Reads a connection from its first chunk on.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            chunk_size: CHUNK_SIZE,
            streams: BTreeMap::new(),
            held: 0,
            header: Header::default(),
            open: None,
            unread: Vec::new(),
        }
    }

    /// What the peer may make it hold from now on.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes of unfinished messages.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes bytes from the front of `input` until a message is whole; `None` when they are used up. After an error
    /// the connection is of no more use.
    ///
    /// # Errors
    /// The bytes are not chunks, or go beyond the limits.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, BadChunk> {
        loop {
            let message = if self.unread.is_empty() {
                if input.is_empty() && self.open.is_none_or(|(_, rest)| rest > 0) {
                    return Ok(None);
                }
                self.step(input)?
            } else {
                let unread = std::mem::take(&mut self.unread);
                let mut rest = unread.as_slice();
                let message = self.step(&mut rest)?;
                self.unread.extend(rest);
                message
            };
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// The peer's chunks have this size from now on: a Set Chunk Size message came.
    ///
    /// # Errors
    /// It is 0, or has its first bit set.
    pub fn resize(&mut self, chunk_size: u32) -> Result<(), BadChunk> {
        if chunk_size == 0 || chunk_size > 0x7FFF_FFFF {
            return Err(BadChunk::ChunkSize(chunk_size));
        }
        self.chunk_size = chunk_size;
        Ok(())
    }

    /// The peer gives up the unfinished message of this chunk stream: an Abort message came.
    pub fn abort(&mut self, chunk_stream: u32) {
        if let Some(stream) = self.streams.get_mut(&chunk_stream) {
            self.held -= stream.payload.len();
            stream.payload = BytesMut::new();
            stream.begun = false;
        }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Message>, BadChunk> {
        match self.open {
            Some((id, rest)) => self.payload(id, rest, input),
            None => self.begin(input).map(|()| None),
        }
    }

    /// Takes what is missing of a header, and opens its chunk when it is whole.
    fn begin(&mut self, input: &mut &[u8]) -> Result<(), BadChunk> {
        if self.header.length == 0
            && let Some((byte, rest)) = input.split_first()
        {
            self.header.bytes[0] = *byte;
            self.header.length = 1;
            *input = rest;
        }
        let format = self.header.bytes[0] >> 6;
        let basic = match self.header.bytes[0] & 0x3F {
            0 => 2,
            1 => 3,
            _ => 1,
        };
        if !self.header.fill(basic, input) {
            return Ok(());
        }
        let id = match (self.header.bytes[0] & 0x3F, self.header.bytes[1], self.header.bytes[2]) {
            (0, low, _) => 64 + u32::from(low),
            (1, low, high) => 64 + u32::from(low) + 256 * u32::from(high),
            (id, ..) => u32::from(id),
        };
        let fields = [11, 7, 3, 0][usize::from(format)];
        if !self.header.fill(basic + fields, input) {
            return Ok(());
        }
        if !self.streams.contains_key(&id) {
            if format != 0 {
                return Err(BadChunk::Headless(id, format));
            }
            if self.streams.len() >= self.limits.streams {
                return Err(BadChunk::Streams(self.limits.streams));
            }
        }
        let header = self.header.bytes;
        let field = |at: usize| u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]]);
        let known = self.streams.get(&id);
        let extends = match format {
            0..3 => field(basic) == EXTENDED,
            _ => known.is_some_and(|stream| stream.extended.is_some()),
        };
        let mut whole = basic + fields;
        let mut time = if format < 3 { field(basic) } else { 0 };
        if extends {
            if !self.header.fill(whole + 4, input) {
                return Ok(());
            }
            let bytes = &self.header.bytes[whole..];
            time = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            whole += 4;
        }
        let (length, kind) = if format < 2 {
            (field(basic + 3) as usize, header[basic + 6])
        } else {
            known.map_or((0, 0), |stream| (stream.length, stream.kind))
        };
        let most = self.limits.of(kind);
        if length > most {
            return Err(BadChunk::Long { kind, length, most });
        }
        let at = basic + 7;
        let message_stream = u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let stream = self.streams.entry(id).or_default();
        if format < 3 {
            // A new header inside a message: the sender gave the message up.
            self.held -= stream.payload.len();
            stream.payload = BytesMut::new();
            stream.begun = false;
            stream.extended = extends.then_some(time);
            (stream.length, stream.kind) = (length, kind);
        }
        let continues = stream.begun;
        match format {
            0 => {
                stream.message_stream = message_stream;
                stream.timestamp = time;
                // Clause 5.3.1.2.4 lets a type 3 that follows add the time itself once more. Senders that end up
                // there (librtmp, rml_rtmp) mean the same time again, and so do the servers that most of them meet.
                stream.delta = 0;
            }
            1 | 2 => {
                stream.delta = time;
                stream.timestamp = stream.timestamp.wrapping_add(time);
            }
            _ if !continues => stream.timestamp = stream.timestamp.wrapping_add(stream.delta),
            _ => {}
        }
        stream.begun = true;
        let mut rest = (stream.length - stream.payload.len()).min(self.chunk_size as usize);
        self.header.length = 0;
        // FMLE, older ffmpeg and some cameras leave the field out of type 3: then these four bytes are payload.
        let repeated = stream.extended == Some(time) || stream.timestamp == time;
        if format == 3 && extends && continues && !repeated {
            let taken = rest.min(4);
            let bytes = self.header.bytes;
            stream.payload.extend_from_slice(&bytes[whole - 4..whole - 4 + taken]);
            self.held += taken;
            rest -= taken;
            // Where less payload was due, the rest belongs to the next chunk. Three bytes at most: no header with an
            // extended field ends within them, so that they are never more.
            self.unread.extend(&bytes[whole - 4 + taken..whole]);
        }
        self.open = Some((id, rest));
        Ok(())
    }

    fn payload(&mut self, id: u32, rest: usize, input: &mut &[u8]) -> Result<Option<Message>, BadChunk> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(None) };
        let (now, later) = input.split_at(rest.min(input.len()));
        *input = later;
        if self.held + now.len() > self.limits.held {
            return Err(BadChunk::Held(self.limits.held));
        }
        stream.payload.extend_from_slice(now);
        self.held += now.len();
        let rest = rest - now.len();
        self.open = (rest > 0).then_some((id, rest));
        if rest > 0 || stream.payload.len() < stream.length {
            return Ok(None);
        }
        stream.begun = false;
        self.held -= stream.payload.len();
        Ok(Some(Message {
            kind: stream.kind,
            timestamp: stream.timestamp,
            stream: stream.message_stream,
            payload: std::mem::take(&mut stream.payload).freeze(),
        }))
    }
}

impl Header {
    /// Takes bytes until there are `length`; answers whether there are.
    fn fill(&mut self, length: usize, input: &mut &[u8]) -> bool {
        if self.length < length {
            let (now, later) = input.split_at((length - self.length).min(input.len()));
            self.bytes[self.length..self.length + now.len()].copy_from_slice(now);
            self.length += now.len();
            *input = later;
        }
        self.length >= length
    }
}
