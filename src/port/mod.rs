//! SRT sessions on shared UDP ports: datagrams of lanes and of the network enter, datagrams to peers and into streams
//! leave. All sessions of a shard are walked by its thread; none has a task, a queue or a socket of its own.

mod deriver;
mod listener;
mod outbox;
mod ports;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::hub::{FeedWriter, Lane, StreamKey};
use crate::media::Nanos;
use crate::net::PortOptions;
use crate::telemetry::{InputStats, OutputStats};
use crate::wire::srt::Bandwidth;
use crate::wire::srt::crypto::Passphrase;
use crate::wire::srt::handshake::{CookieSecret, Dial, GroupKind, Settings};

pub use ports::Ports;

/// Whose session it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// An input, by its stream.
    Input(StreamKey),
    /// An output.
    Output(u64),
}

/// What can be asked of a shard's ports.
pub enum Command {
    /// Dial a peer.
    Call(Box<Call>),
    /// Dial a connection group.
    Bond(Box<Bond>),
    /// Let peers dial in.
    Listen(Box<Listen>),
    /// End what the owner has: its call, or its place at a listening port with all its sessions.
    Close(Owner),
}

/// A session that we open.
pub struct Call {
    /// Whose.
    pub owner: Owner,
    /// Which attempt made it.
    pub attempt: u32,
    /// The socket that it shares with calls of equal options.
    pub port: PortOptions,
    /// Whom to dial.
    pub peer: SocketAddr,
    /// The passphrase that its keys come from.
    pub passphrase: Option<Passphrase>,
    /// What to propose; the socket id is given by the port.
    pub dial: Dial,
    /// The peer dials us at the same time, instead of listening.
    pub rendezvous: bool,
    /// How the session behaves when it is up.
    pub conduct: Conduct,
    /// What it moves.
    pub role: Role,
}

/// A connection group that we open: one stream over several links.
pub struct Bond {
    /// Whose.
    pub owner: Owner,
    /// Which attempt made it.
    pub attempt: u32,
    /// How its links are used.
    pub kind: GroupKind,
    /// Whom to dial.
    pub links: Vec<BondLink>,
    /// The passphrase that the keys come from.
    pub passphrase: Option<Passphrase>,
    /// How the sessions behave when they are up.
    pub conduct: Conduct,
    /// Silence below which no link of a backup group counts as unstable, nanoseconds.
    pub patience: Nanos,
    /// What it sends.
    pub source: Source,
}

/// A link of a connection group that we open.
#[derive(Clone)]
pub struct BondLink {
    /// The socket that it shares with calls of equal options.
    pub port: PortOptions,
    /// Whom to dial.
    pub peer: SocketAddr,
    /// Its priority in a backup group: the highest first.
    pub weight: u16,
    /// What to propose; the socket id, the group and the first number are given by the port.
    pub dial: Dial,
}

/// An input or output that peers dial in for.
pub struct Listen {
    /// Whose.
    pub owner: Owner,
    /// Which attempt made it.
    pub attempt: u32,
    /// Where to listen; equal addresses share a socket.
    pub port: PortOptions,
    /// The secret of the port's SYN cookies, used by the first who listens there.
    pub cookie: CookieSecret,
    /// The name that a stream id asks for; without one only a port of its own can be found.
    pub name: Option<Box<str>>,
    /// User and password that a stream id has to give.
    pub login: Option<(Box<str>, Box<str>)>,
    /// The passphrase that peers must know.
    pub passphrase: Option<Passphrase>,
    /// What to agree to.
    pub settings: Settings,
    /// How sessions behave when they are up.
    pub conduct: Conduct,
    /// What they move.
    pub role: Role,
    /// Peers at the same time.
    pub max_sessions: usize,
    /// When all places are taken: the oldest session makes room for a new one, instead of the new one being refused.
    pub replace: bool,
    /// A publisher may come over several links (`groupconnect`).
    pub groups: bool,
}

/// How sessions behave when they are up.
#[derive(Debug, Clone, Copy)]
pub struct Conduct {
    /// A peer that is silent for so long is gone.
    pub idle_timeout: Duration,
    /// Cap of what a sender sends.
    pub bandwidth: Bandwidth,
    /// Packets that a receiver holds at the most (the flow window that it offers).
    pub window: u32,
}

/// What a session moves.
#[derive(Clone)]
pub enum Role {
    /// It sends a lane.
    Send(Source),
    /// It feeds a stream.
    Receive(Drain),
}

/// What a sending session reads.
#[derive(Clone)]
pub struct Source {
    /// The stream.
    pub stream: StreamKey,
    /// Its intake lives on the same shard.
    pub local: bool,
    /// Its lane.
    pub lane: Arc<Lane>,
    /// How long a datagram may wait for others (the delay class D), nanoseconds.
    pub delay: Nanos,
    /// Where it counts.
    pub stats: Arc<OutputStats>,
}

/// Where a receiving session delivers.
#[derive(Clone)]
pub struct Drain {
    /// The stream's queue.
    pub feed: FeedWriter,
    /// Where it counts.
    pub stats: Arc<InputStats>,
}

/// What happened to what somebody has here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whose.
    pub owner: Owner,
    /// Which attempt of it.
    pub attempt: u32,
    /// What.
    pub kind: NoticeKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeKind {
    /// The port listens.
    Listening(SocketAddr),
    /// The call is answered and agreed on.
    Connected,
    /// It cannot be, or is over.
    Failed {
        /// Why, in words.
        reason: String,
        /// Trying again may help without a change of the configuration.
        retryable: bool,
    },
    /// A peer dialled in, or was turned away, or left: in words.
    Peer(String),
}
