//! What an `rtsp://` or `rtsps://` url says, parsed: every field is valid by construction. Secrets show as `***`.

use std::net::SocketAddr;
use std::time::Duration;

use super::refusal::FieldError;
use super::spec::{Delay, Lag};
use super::srt::{Credentials, Secret, Takeover};
use super::tls::TlsTrust;

/// `rtsp://` of an input: we dial and are played to, or peers dial in and publish.
#[derive(Debug, Clone, PartialEq)]
pub struct RtspInput {
    /// `mode`: who dials.
    pub end: RtspEnd,
    /// `takeover` (listener): what becomes of a publisher when the next one dials in for the same name.
    pub takeover: Takeover,
    /// `stall_after`, 0.1 s to 1 h: without media for this long the input is Stalled; `None` = the configuration's
    /// default.
    pub stall_after: Option<Duration>,
    /// `reorder_ms` (UDP): how long a gap in the sequence is waited for, 0 to 2000 ms. Default 50 ms.
    pub reorder: Duration,
    /// `rcvbuf` (UDP): receive buffer of each track in bytes; `None` = the configuration's default.
    pub rcvbuf: Option<usize>,
}

/// `rtsp://` of an output: we dial and record, or peers dial in and are played to.
#[derive(Debug, Clone, PartialEq)]
pub struct RtspOutput {
    /// `mode`: who dials.
    pub end: RtspEnd,
    /// `delay_ms`: delay class. Default 20 ms.
    pub delay: Delay,
    /// `hold` (caller), 0 to 3600 s: how long the connection is kept when the input has nothing. Default 30 s.
    pub hold: Duration,
    /// `lag`: what becomes of a connection when it falls out of the lane.
    pub lag: Lag,
    /// `payload`: what its packets carry.
    pub payload: Payload,
    /// `multicast` (listener): where readers who ask for multicast are sent to listen; `None` = they are refused.
    pub group: Option<RtspGroup>,
    /// `max_sessions` (listener), 1 to 100,000; `None` = the configuration's default.
    pub max_sessions: Option<usize>,
}

/// Who dials.
#[derive(Debug, Clone, PartialEq)]
pub enum RtspEnd {
    /// We do.
    Caller(RtspDial),
    /// Peers do.
    Listener(RtspListen),
}

/// Whom we dial, and what we ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct RtspDial {
    /// Address (IPv6 without brackets, a scope as `fe80::1%eth0`) or name; a name is resolved at every attempt.
    pub host: String,
    /// TCP port, 1 to 65535. Default 554, over TLS 322.
    pub port: u16,
    /// Over TLS, and whom to trust; `None` = not encrypted.
    pub tls: Option<TlsTrust>,
    /// The url as the server is to see it: no user information, no options of this engine. Options of the server's own
    /// may hold secrets.
    pub url: Secret,
    /// User information: what a server that asks is answered with (Basic, Digest).
    pub credentials: Option<Credentials>,
    /// `transport`: what carries media.
    pub transport: Carrier,
    /// `connect_timeout`, 100 ms to 60 s (written in ms): media must be agreed on by then. Default 10 s.
    pub timeout: Duration,
}

/// What carries the media of a session that we dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carrier {
    /// The connection itself.
    #[default]
    Tcp,
    /// Datagrams; the connection, when the server refuses them or none comes.
    Udp,
    /// A group that the server sends to.
    Multicast,
}

/// A group that an output sends to as long as somebody reads it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtspGroup {
    /// The group, and the even port of the first track; each further one has the next two.
    pub address: SocketAddr,
    /// `ttl`, 1 to 255: hops that its datagrams live. Default 1: this network.
    pub ttl: u8,
    /// `interface`: name or address of where they leave; `None` = as the routes say.
    pub interface: Option<String>,
}

/// What the packets of an output carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Payload {
    /// The tracks of the stream, each as RTP carries it.
    #[default]
    Tracks,
    /// Its transport stream as it is (MP2T, RFC 2250).
    Transport,
}

/// Where peers dial in, and what they must say.
#[derive(Debug, Clone, PartialEq)]
pub struct RtspListen {
    /// Address of this machine (0.0.0.0 when the url has none, `[::]` = every address of both families) and port.
    pub address: SocketAddr,
    /// Over TLS, with the certificate of the configuration.
    pub encrypted: bool,
    /// The path that peers ask for; `None` = the `mediamtx_path` of the input.
    pub name: Option<String>,
    /// User information: what a peer must prove; `None` = whoever knows the path may.
    pub credentials: Option<Credentials>,
}

impl RtspDial {
    /// The same dial at the place that its server names (a URL). User and password go to no other host.
    ///
    /// # Errors
    /// It is of another protocol, or no place of a server.
    pub fn redirected(&self, place: &str) -> Result<Self, FieldError> {
        super::url::redirected(self, place)
    }
}

impl RtspEnd {
    /// Whom it dials; `None` = peers dial in.
    pub fn dial(&self) -> Option<&RtspDial> {
        match self {
            Self::Caller(dial) => Some(dial),
            Self::Listener(_) => None,
        }
    }

    /// Where peers dial in.
    pub fn listen(&self) -> Option<&RtspListen> {
        match self {
            Self::Caller(_) => None,
            Self::Listener(listen) => Some(listen),
        }
    }
}
