//! One driver per kind of output: items of a lane enter, the network and files take them. Never sees ingest,
//! and never waits: an output that cannot take its datagrams loses them and says so.

mod cohort;
mod connections;
mod fanout;
mod file;
mod paced;
mod rtmp;
mod rtsp;

pub use connections::{
    Command as ConnectionCommand, Connections, Farewell, LagPolicy, Leg, Link, LinkKey, Peer,
};
pub use fanout::Fanout;
pub use file::{CreateFile, DumpError, FileTarget, Finished, Recorded, Recorder};
pub use rtmp::RtmpPeer;
pub use rtsp::{RtspReader, RtspRecorder};

use std::net::SocketAddr;
use std::sync::Arc;

use crate::hub::{Lane, StreamKey};
use crate::media::Nanos;
use crate::net::SendOptions;
use crate::telemetry::{OutputStats, SessionId};

/// Names an output; the same in every room.
pub type OutputKey = u64;

/// How datagrams look on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Transport packets alone.
    Udp,
    /// Behind an RTP header, payload type 33 (RFC 2250).
    Rtp,
}

/// An output that a shard shall walk.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub key: OutputKey,
    /// Which attempt made it.
    pub attempt: u32,
    /// The stream it belongs to.
    pub stream: StreamKey,
    /// The stream's intake lives on the same shard.
    pub local: bool,
    /// What it reads.
    pub lane: Arc<Lane>,
    /// Where it sends to.
    pub destination: SocketAddr,
    /// The socket it shares.
    pub socket: SendOptions,
    /// How its datagrams look.
    pub framing: Framing,
    /// How long a datagram may wait for others (the delay class D), nanoseconds.
    pub delay: Nanos,
    /// Datagrams leave at their PCR time.
    pub paced: bool,
    /// Where it counts.
    pub stats: Arc<OutputStats>,
}

/// What can be asked of a shard's outflow.
#[derive(Debug)]
pub enum Command {
    /// Walk this output from now on.
    Attach(Box<Target>),
    /// Forget it.
    Detach(OutputKey),
}

/// What an output has to say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Who.
    pub output: OutputKey,
    /// Which attempt of it, so that a late notice of a former one is not taken for this one's.
    pub attempt: u32,
    /// What.
    pub kind: NoticeKind,
}

/// What happened to an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeKind {
    /// Its socket could not be made; it is not walked.
    NoSocket {
        /// What failed, in words.
        reason: String,
        /// Trying again may help.
        retryable: bool,
    },
    /// The kernel refuses its datagrams with this errno. Told again after 10 s at the soonest.
    Refused(i32),
    /// The path carries smaller datagrams: so many transport packets in each from now on.
    SmallerDatagrams(u8),
    /// A file is not written; its writer has ended.
    WriteFailed {
        /// Why, in words.
        reason: String,
        /// Trying again may help.
        retryable: bool,
    },
    /// A connection is over: the output's own, or that of a session.
    Disconnected {
        /// Whose.
        session: Option<SessionId>,
        /// Why, in words.
        reason: String,
        /// Trying again may help.
        retryable: bool,
    },
    /// Something that an operator should know; it goes on.
    Remark(String),
    /// The path refuses segmentation by the kernel (errno): its datagrams are sent one by one from now on.
    NoSegmentation(i32),
}
