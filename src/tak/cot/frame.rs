//! Bytes of a TAK stream or datagram enter, events and messages leave one by one, and back. Never holds more than one
//! message of the longest kind.

use prost::Message as _;
use prost::bytes::Buf as _;
use thiserror::Error;

use super::proto::TakMessage;

/// A whole message.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// An event as XML.
    Xml(String),
    /// A message of protocol version 1.
    Proto(Box<TakMessage>),
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A message longer than any.
    #[error("message of more than {MESSAGE_MAX} bytes")]
    TooLong,
    /// A byte that starts no message.
    #[error("message starts with {0:#04x}, expected 0xbf")]
    Start(u8),
    /// A version that is not spoken.
    #[error("protocol version {0}")]
    Version(u64),
    /// Not text.
    #[error("XML is not UTF-8")]
    Text,
    /// Not protobuf, or not one of ours.
    #[error("message is malformed")]
    Malformed,
}

/// Cuts a TCP or TLS stream into messages: XML first, protobuf once that was agreed.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    is_proto: bool,
    /// Bytes of the buffer that were searched for the end of an event in vain.
    searched: usize,
}

impl Framer {
    /// From here on the peer sends protobuf.
    pub fn switch(&mut self) {
        self.is_proto = true;
        self.searched = 0;
    }

    /// Takes bytes of the stream. Call [`next`](Self::next) until it has no more before the next bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when more than a message has come together without one.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if self.buffer.len() + bytes.len() > 2 * MESSAGE_MAX {
            return Err(FrameError::TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`FrameError`] when what comes is no message: the connection is of no use any more.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not be fed between two messages")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.is_proto { self.next_proto() } else { self.next_xml() }
    }

    fn next_xml(&mut self) -> Result<Option<Frame>, FrameError> {
        // the end may lie across what was searched
        let from = self.searched.saturating_sub(END.len());
        let tail = self.buffer.get(from..).unwrap_or_default();
        let Some(at) = tail.windows(END.len()).position(|window| window == END) else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > MESSAGE_MAX { Err(FrameError::TooLong) } else { Ok(None) };
        };
        let end = from + at + END.len();
        if end > MESSAGE_MAX {
            return Err(FrameError::TooLong);
        }
        self.searched = 0;
        let message: Vec<u8> = self.buffer.drain(..end).collect();
        String::from_utf8(message).map(|xml| Some(Frame::Xml(xml))).map_err(|_| FrameError::Text)
    }

    fn next_proto(&mut self) -> Result<Option<Frame>, FrameError> {
        let mut rest = self.buffer.as_slice();
        let Some((&start, behind)) = rest.split_first() else { return Ok(None) };
        if start != MAGIC {
            return Err(FrameError::Start(start));
        }
        rest = behind;
        let Some(length) = read_varint(&mut rest)? else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|&n| n <= MESSAGE_MAX).ok_or(FrameError::TooLong)?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = TakMessage::decode(body).map_err(|_| FrameError::Malformed)?;
        let used = self.buffer.len() - rest.len() + length;
        self.buffer.drain(..used);
        Ok(Some(Frame::Proto(Box::new(message))))
    }
}

/// A datagram: XML, or a message with the header of the mesh.
///
/// # Errors
/// [`FrameError`] when it is neither.
pub fn parse_datagram(datagram: &[u8]) -> Result<Frame, FrameError> {
    if datagram.len() > MESSAGE_MAX {
        return Err(FrameError::TooLong);
    }
    if datagram.first() != Some(&MAGIC) {
        let xml = std::str::from_utf8(datagram).map_err(|_| FrameError::Text)?;
        return Ok(Frame::Xml(xml.to_owned()));
    }
    let mut rest = datagram.get(1..).unwrap_or_default();
    let version = read_varint(&mut rest)?.ok_or(FrameError::Malformed)?;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let (&start, body) = rest.split_first().ok_or(FrameError::Malformed)?;
    if start != MAGIC {
        return Err(FrameError::Start(start));
    }
    TakMessage::decode(body).map(|message| Frame::Proto(Box::new(message))).map_err(|_| FrameError::Malformed)
}

/// A message as a stream has it: 0xbf, its length, itself.
pub fn write_stream(message: &TakMessage) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut out = vec![MAGIC];
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    out.extend_from_slice(&body);
    out
}

/// A message as the mesh has it: 0xbf, the version, 0xbf, itself.
pub fn write_mesh(message: &TakMessage) -> Vec<u8> {
    let mut out = vec![MAGIC, VERSION as u8, MAGIC];
    out.extend_from_slice(&message.encode_to_vec());
    out
}

/// `None` when its end is not there yet.
fn read_varint(bytes: &mut &[u8]) -> Result<Option<u64>, FrameError> {
    let whole = bytes.iter().take(10).position(|byte| byte & 0x80 == 0);
    if whole.is_none() {
        return if bytes.len() >= 10 { Err(FrameError::Malformed) } else { Ok(None) };
    }
    let value = prost::encoding::decode_varint(bytes).map_err(|_| FrameError::Malformed)?;
    debug_assert!(bytes.remaining() < MESSAGE_MAX * 3);
    Ok(Some(value))
}

/// Longest message that is read, as ATAK has it.
pub const MESSAGE_MAX: usize = 64 * 1024;

const MAGIC: u8 = 0xbf;
const VERSION: u64 = 1;
const END: &[u8] = b"</event>";
