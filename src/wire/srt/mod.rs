//! SRT live mode (draft-sharabayko-srt-01, protocol version 5): datagrams and time enter, headers, datagrams,
//! payloads and events leave. No sockets, clock or randomness; random bytes are arguments.

mod packet;
mod seq;

pub use packet::{
    Ack, AckReport, Boundary, Control, ControlPacket, DataHeader, HEADER, KeyFlag, Losses, MESSAGE_MOST,
    Malformed, PAYLOAD_MOST, Packet, SocketId, UserKind,
};
pub use seq::Seq;

/// Nanoseconds of the clock that the owner reads, the same in all calls.
pub type Nanos = u64;
