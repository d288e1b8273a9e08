//! Messages enter, chunks leave, and the other way round (RTMP 1.0, clause 5.3). Never knows what is in a message.

mod reader;
mod writer;

use bytes::Bytes;

pub use reader::{BadChunk, Limits, Reader};
pub use writer::{write_chunked, write_message};

/// One message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type (clause 5.4, 6.1, 7.1).
    pub kind: u8,
    /// When it is due, in milliseconds, modulo 2^32.
    pub timestamp: u32,
    /// The message stream that it belongs to; 0 is the connection itself.
    pub stream: u32,
    /// Its contents.
    pub payload: Bytes,
}

/// Message types.
pub mod kind {
    /// Set Chunk Size (5.4.1).
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort (5.4.2).
    pub const ABORT: u8 = 2;
    /// Acknowledgement (5.4.3).
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User control (6.2).
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size (5.4.4).
    pub const WINDOW_SIZE: u8 = 5;
    /// Set Peer Bandwidth (5.4.5).
    pub const PEER_BANDWIDTH: u8 = 6;
    /// Audio (7.1.4).
    pub const AUDIO: u8 = 8;
    /// Video (7.1.5).
    pub const VIDEO: u8 = 9;
    /// Data in AMF3 (7.1.2): a byte, then mostly AMF0.
    pub const DATA_AMF3: u8 = 15;
    /// Command in AMF3 (7.1.1): a byte, then mostly AMF0.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0.
    pub const DATA: u8 = 18;
    /// Command in AMF0.
    pub const COMMAND: u8 = 20;
    /// Several messages in one (7.1.6).
    pub const AGGREGATE: u8 = 22;
}

/// The chunk size before anybody sets one (5.4.1).
pub const CHUNK_SIZE: u32 = 128;

/// Timestamps from here on stand in a field of their own (5.3.1.3).
const EXTENDED: u32 = 0xFF_FFFF;

#[cfg(test)]
mod tests;
