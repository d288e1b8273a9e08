//! SRT live mode (draft-sharabayko-srt-01, protocol version 5): datagrams and time enter, headers, datagrams,
//! payloads and events leave. No sockets, clock or randomness; random bytes are arguments.

pub mod crypto;
mod group;
pub mod handshake;
mod link;
mod loss;
mod packet;
mod rate;
mod receiver;
mod reject;
mod resend;
mod rtt;
mod sender;
mod seq;
#[cfg(test)]
mod simulation;
mod stats;
mod stream_id;
mod tsbpd;

pub use group::{Backup, Change, LinkView, Merge, Standing};
pub use link::Event;
use link::Link;
pub use packet::{
    Ack, AckReport, Boundary, Control, ControlPacket, DataHeader, HEADER, KeyFlag, Losses, MESSAGE_MOST,
    Malformed, PAYLOAD_MOST, Packet, SocketId, UserKind,
};
pub use rate::Bandwidth;
pub use receiver::{Clock, Delivery, Receiver, ReceiverConfig, accept_clear};
pub use reject::Reject;
pub use rtt::Rtt;
pub use sender::{Retransmit, Sender, SenderConfig, Stored};
pub use seq::Seq;
pub use stats::{ReceiverStats, SenderStats, Spread};
pub use stream_id::{Ask, AskMode, BadAsk, BadLength, STREAM_ID_MOST, StreamId};

/// Nanoseconds of the clock that the owner reads, the same in all calls.
pub type Nanos = u64;
