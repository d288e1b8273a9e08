//! What an `rtmp://` or `rtmps://` url says, parsed: every field is valid by construction. Secrets show as `***`.

use std::net::SocketAddr;
use std::time::Duration;

use super::spec::{Delay, Lag};
use super::srt::{Credentials, Secret, Takeover};
use super::tls::TlsTrust;

/// `rtmp://` of an input: we dial and are played to, or peers dial in and publish.
#[derive(Debug, Clone, PartialEq)]
pub struct RtmpInput {
    /// `mode`: who dials.
    pub end: RtmpEnd,
    /// `takeover` (listener): what becomes of a publisher when the next one dials in for the same name.
    pub takeover: Takeover,
    /// `stall_after`, 0.1 s to 1 h: without media for this long the input is Stalled; `None` = the configuration's
    /// default.
    pub stall_after: Option<Duration>,
}

/// `rtmp://` of an output: we dial and publish.
#[derive(Debug, Clone, PartialEq)]
pub struct RtmpOutput {
    /// Whom.
    pub dial: RtmpDial,
    /// `delay_ms`: delay class. Default 20 ms.
    pub delay: Delay,
    /// `hold`, 0 to 3600 s: how long the connection is kept when the input has nothing. Default 30 s.
    pub hold: Duration,
    /// `lag`: what becomes of the connection when it falls out of the lane.
    pub lag: Lag,
}

/// Who dials.
#[derive(Debug, Clone, PartialEq)]
pub enum RtmpEnd {
    /// We do.
    Caller(RtmpDial),
    /// Peers do.
    Listener(RtmpListen),
}

/// Whom we dial, and what we ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct RtmpDial {
    /// Address (IPv6 without brackets, a scope as `fe80::1%eth0`) or name; a name is resolved at every attempt.
    pub host: String,
    /// TCP port, 1 to 65535. Default 1935, over TLS 443.
    pub port: u16,
    /// Over TLS, and whom to trust; `None` = not encrypted.
    pub tls: Option<TlsTrust>,
    /// The path up to its last segment, as it is written.
    pub application: String,
    /// The url up to the application, without user information.
    pub tc_url: String,
    /// The last segment of the path, and every option that is not of this engine, as they are written; empty where the
    /// path has one segment only.
    pub stream: Secret,
    /// User information: what a server that asks is answered with (`adobe`, `llnw`).
    pub credentials: Option<Credentials>,
    /// `connect_timeout`, 100 ms to 60 s (written in ms): media must flow by then. Default 10 s.
    pub timeout: Duration,
}

/// Where peers dial in, and what they must say.
#[derive(Debug, Clone, PartialEq)]
pub struct RtmpListen {
    /// Address of this machine (0.0.0.0 when the url has none, `[::]` = every address of both families) and port.
    pub address: SocketAddr,
    /// Over TLS, with the certificate of the configuration.
    pub encrypted: bool,
    /// The path: application and stream key that peers publish to; `None` = the `mediamtx_path` of the input.
    pub name: Option<Secret>,
    /// User information: what a peer must give as `user` and `pass` in the query; `None` = who knows the name may.
    pub credentials: Option<Credentials>,
}

impl RtmpInput {
    /// Whom it dials; `None` = peers dial in.
    pub fn dial(&self) -> Option<&RtmpDial> {
        match &self.end {
            RtmpEnd::Caller(dial) => Some(dial),
            RtmpEnd::Listener(_) => None,
        }
    }
}
