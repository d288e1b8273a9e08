//! What a `klv+udp://` or `cot+…://` url says, parsed: every field is valid by construction. Secrets show as `***`.

use std::path::PathBuf;
use std::time::Duration;

use super::srt::Secret;
use super::tls::TlsTrust;

/// `klv+udp://HOST:PORT?ttl=…&interface=…&dscp=…&source_port=…`: KLV packets as they come, one in a datagram.
#[derive(Debug, Clone, PartialEq)]
pub struct KlvOutput {
    /// Where they are sent.
    pub way: DatagramWay,
    /// `pid`: the track that is told, 16 to 8190; `None` = the first that has KLV, until it is silent for 5 s.
    pub track: Option<u16>,
}

/// `cot+udp://`, `cot+tcp://` or `cot+tls://`: events that tell where a stream is and what it sees.
#[derive(Debug, Clone, PartialEq)]
pub struct CotOutput {
    /// Who is told.
    pub end: CotEnd,
    /// Who the stream is to TAK.
    pub identity: CotIdentity,
    /// `proto=xml`: never protobuf, whatever the others speak.
    pub xml_only: bool,
}

/// Where datagrams go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatagramWay {
    /// Address (IPv6 without brackets, a scope as `fe80::1%eth0`), multicast group or name; a name is resolved at every
    /// attempt.
    pub host: String,
    /// UDP port, 1 to 65535.
    pub port: u16,
    /// Time to live (IPv6: hop limit), 1 to 255; `None` = the kernel's default (multicast: 1).
    pub ttl: Option<u8>,
    /// Network interface by name (or by one of its addresses); `None` where the host has a scope.
    pub interface: Option<String>,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: Option<u8>,
    /// Local port to send from; `None` = any.
    pub source_port: Option<u16>,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq)]
pub enum CotEnd {
    /// `cot+udp://`: one address, or a mesh where it is a multicast group (239.2.3.1:6969 when the url has none).
    Udp(DatagramWay),
    /// `cot+tcp://HOST:PORT`: a server, not encrypted.
    Tcp(CotDial),
    /// `cot+tls://HOST:PORT`: a server, with a certificate of ours where it asks for one.
    Tls(Box<CotTls>),
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CotDial {
    /// Address or name; empty = the one of the data package.
    pub host: String,
    /// TCP port, 1 to 65535. Default 8087, over TLS 8089.
    pub port: u16,
    /// `connect_timeout`, 100 ms to 60 s (written in ms): the handshakes must be done by then. Default 10 s.
    pub timeout: Duration,
}

/// A server over TLS, and who we are to it.
#[derive(Debug, Clone, PartialEq)]
pub struct CotTls {
    /// The server.
    pub dial: CotDial,
    /// Whom to trust; `None` = the trust store of the data package, and the system's authorities without one.
    pub trust: Option<TlsTrust>,
    /// `tls_name`: whether the certificate must be for the host that is dialled; `None` = unless the authorities come
    /// from a data package, as TAK clients have it.
    pub checks_name: Option<bool>,
    /// What is shown to a server that asks.
    pub shown: Shown,
    /// `register=true`: the stream is entered into the server's list of videos, over HTTPS on this port
    /// (`register_port`, default 8443).
    pub register: Option<u16>,
}

/// What is shown to a server that asks who we are. Paths are resolved inside the configured roots at every attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// `tls_cert` and `tls_key`: chain and key in PEM; without `tls_key` one file that holds both.
    Pem {
        /// The chain, our own certificate first.
        chain: PathBuf,
        /// The private key, where it is in a file of its own.
        key: Option<PathBuf>,
    },
    /// `tls_cert=FILE.p12`: PKCS#12.
    Pkcs12 {
        /// The file.
        path: PathBuf,
        /// `password`
        password: Secret,
    },
    /// `package=FILE.zip`: a data package of a TAK Server.
    Package {
        /// The file.
        path: PathBuf,
        /// `password`; `None` = the one that the package says.
        password: Option<Secret>,
    },
}

/// Who a stream is to TAK.
#[derive(Debug, Clone, PartialEq)]
pub struct CotIdentity {
    /// `uid`
    pub uid: CotUid,
    /// `callsign`; `None` = what the metadata calls the platform.
    pub callsign: Option<String>,
    /// `affiliation`
    pub affiliation: CotSide,
    /// `type`: what it is, behind the affiliation. Default `A-M-F-Q`.
    pub kind: String,
    /// `every_ms`, 200 ms to 60 s: between two events of one uid that say nothing new. Default 1 s.
    pub every: Duration,
    /// `stale`, 2 s to 1 h (written in s): how long an event holds. Default 10 s.
    pub stale: Duration,
    /// `pid`: the track that is told, 16 to 8190; `None` = the first that tells a place, until it is silent for 5 s.
    pub track: Option<u16>,
    /// `video`: which way to the picture is told.
    pub video: CotVideo,
    /// `time=misp`: item 2 counts MISP time, without leap seconds; these are taken off where the stream does not say
    /// how many.
    pub leap_seconds: Option<i32>,
}

/// What the uid is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CotUid {
    /// One that this engine makes once for each input, and keeps.
    Own,
    /// `uid=TEXT`
    Fixed(String),
    /// `uid_from=mission`: platform designation and mission id of the metadata (items 10 and 3), as ST 0805 has it; our
    /// own while the stream has none.
    Mission,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CotSide {
    /// `friend`
    #[default]
    Friend,
    /// `hostile`
    Hostile,
    /// `neutral`
    Neutral,
    /// `unknown`
    Unknown,
}

/// Which way to the picture is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CotVideo {
    /// The first output of the input that serves: RTSP, else SRT.
    #[default]
    Any,
    /// An output that serves RTSP.
    Rtsp,
    /// An output that serves SRT.
    Srt,
    /// None.
    Nothing,
}

impl CotOutput {
    /// Whom it dials; `None` = it sends datagrams.
    pub fn dial(&self) -> Option<&CotDial> {
        match &self.end {
            CotEnd::Udp(_) => None,
            CotEnd::Tcp(dial) => Some(dial),
            CotEnd::Tls(tls) => Some(&tls.dial),
        }
    }

    /// Where datagrams are sent; `None` = it dials.
    pub fn way(&self) -> Option<&DatagramWay> {
        if let CotEnd::Udp(way) = &self.end { Some(way) } else { None }
    }
}
