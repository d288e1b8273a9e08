//! What an `srt://` url says, parsed: every field is valid by construction. Secrets show as `***`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::spec::{Delay, Transform};

/// `srt://` of an input: we dial and receive, or peers dial in and publish.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtInput {
    /// Who dials, and what both directions share.
    pub link: SrtLink,
    /// `fc`, 128 to 65536 packets: how many may be on their way or wait for their time. Default 8192, enough for 80 Mb
    /// of a stream within the latency.
    pub window: u32,
    /// `takeover` (listener): what becomes of a publisher when the next one dials in for the same name.
    pub takeover: Takeover,
    /// `groupconnect` (listener): a publisher may come over several links, as a connection group. Default true.
    pub groups: bool,
    /// `stall_after`, 0.1 s to 1 h: without a packet for this long the input is Stalled; `None` = the
    /// configuration's default.
    pub stall_after: Option<Duration>,
}

/// `srt://` of an output: we dial and send, or peers dial in and read.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtOutput {
    /// Who dials, and what both directions share.
    pub link: SrtLink,
    /// `maxbw`, `inputbw`, `mininputbw`, `oheadbw`: how much may be sent, retransmits included.
    pub bandwidth: SrtBandwidth,
    /// `max_sessions` (listener), 1 to 10000: how many may read at once; `None` = the configuration's default.
    pub max_sessions: Option<u32>,
    /// `delay_ms`: delay class; `None` = the configuration's default.
    pub delay: Option<Delay>,
    /// `program`, `pids`, `drop_pids`, `klv`, `fill`: what is taken out of the stream before it is sent.
    pub transform: Transform,
}

/// What a connection is made with, whichever way data flows.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtLink {
    /// `mode`: who dials.
    pub end: SrtEnd,
    /// `rcvlatency`, or `latency`, in ms, 0 to 65535: time from sending to delivery that we ask for what we receive.
    /// The greater of what the two ends ask for holds. Default 120.
    pub receive_latency: u16,
    /// `peerlatency`, or `latency`, in ms, 0 to 65535: the same for what the peer receives. Default 0: as the peer
    /// says.
    pub peer_latency: u16,
    /// `passphrase` and what belongs to it; `None` = not encrypted, and a peer that encrypts is rejected.
    pub crypto: Option<SrtCrypto>,
    /// `peeridletimeo`, 1 s to 60 s (written in ms): nothing heard for this long ends the connection. Default 5 s.
    pub idle_timeout: Duration,
    /// `minversion`, written 1.3.0, held as `0x00MMmmpp`: a peer with an older version is rejected. Default 1.0.0.
    pub min_version: u32,
}

/// Who dials.
#[derive(Debug, Clone, PartialEq)]
pub enum SrtEnd {
    /// We do.
    Caller(SrtDial),
    /// Both do, at the same time; [`SrtDial::local_port`] is always set.
    Rendezvous(SrtDial),
    /// We do, over several links at once. Outputs only.
    Group(SrtGroup),
    /// Peers do.
    Listener(SrtListen),
}

/// A connection group (bonding) that we dial.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtGroup {
    /// `type`: how its links are used.
    pub kind: GroupKind,
    /// `nodes`, 1 to 16: whom to dial. They are ends of one receiver.
    pub nodes: Vec<SrtNode>,
    /// `groupminstabletimeo`, 60 ms to 5 s (written in ms): silence of less than this makes no link unstable. Default
    /// 60 ms. Backup groups only.
    pub patience: Duration,
}

/// One link of a connection group.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtNode {
    /// Whom to dial. All nodes share what options say; `source` is the local address of one.
    pub dial: SrtDial,
    /// `weight`, 0 to 65535: in a backup group the connected link of most weight carries the stream. Default 0.
    pub weight: u16,
}

/// How a connection group uses its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// Every link carries everything.
    Broadcast,
    /// One link carries everything until it seems to fail.
    Backup,
}

/// Whom we dial, and from where.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtDial {
    /// Address (IPv6 without brackets, a scope as `fe80::1%eth0`) or name; a name is resolved at every attempt.
    pub host: String,
    /// UDP port, 1 to 65535.
    pub port: u16,
    /// `localaddr` or `adapter`: address to send from; `None` = as the routes say.
    pub local_address: Option<IpAddr>,
    /// `localport` or `port`, 1 to 65535: port to send from; `None` = any. Rendezvous: the peer's, unless given.
    pub local_port: Option<u16>,
    /// `interface`: egress interface by name or by one of its addresses. `None` where the host has a scope.
    pub interface: Option<String>,
    /// `ttl` or `ipttl`, 1 to 255: time to live (IPv6: hop limit); `None` = the kernel's default.
    pub ttl: Option<u8>,
    /// `dscp`, 0 to 63, or `iptos`, four times that (RFC 2474, 3): differentiated services code point.
    pub dscp: Option<u8>,
    /// `streamid`, up to 512 bytes, sent as it is (draft-sharabayko-srt-01, 3.2.1.3); `None` for rendezvous.
    pub stream_id: Option<Secret>,
    /// `conntimeo` or `connect_timeout`, 100 ms to 60 s (written in ms): the handshake must be done by then.
    /// Default 3 s.
    pub timeout: Duration,
}

/// Where peers dial in, and what they must say.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtListen {
    /// Address of this machine (0.0.0.0 when the url has none, `[::]` = every address of both families) and port.
    pub address: SocketAddr,
    /// `streamid`: the name that peers publish or read under; `None` = the `mediamtx_path` of the input. No control
    /// characters, white space, `:`, `,`, `=` or `?`; up to 255 bytes.
    pub name: Option<Box<str>>,
    /// User information of the url: what a peer must give in its stream id; `None` = anybody may.
    pub credentials: Option<Credentials>,
}

/// A user and its password.
#[derive(Debug, Clone, PartialEq)]
pub struct Credentials {
    /// 1 to 128 bytes; holds no `:` or `,`, which end it in a stream id.
    pub user: Box<str>,
    /// 1 to 128 bytes; holds no `,`.
    pub password: Secret,
}

/// How payload is encrypted.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtCrypto {
    /// `passphrase`, 10 to 79 bytes.
    pub passphrase: Secret,
    /// `pbkeylen` in bytes, 0, 16, 24 or 32; `None` (0) = as the end that starts says, AES-128 when that is us.
    pub key_length: Option<KeyLength>,
    /// `cryptomode`: 0, 1 or 2.
    pub cipher: CipherMode,
    /// `kmrefreshrate`, packets, 128 to 2^31 − 1: a new key after so many. Default 2^24.
    pub refresh_after: u32,
    /// `kmpreannounce`, packets, 1 to (`kmrefreshrate` − 1) / 2: the new key is told so long before its use, the old
    /// one kept so long after it. Default 4096, or that bound.
    pub announce_before: u32,
}

/// Length of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "ciphers by their names")]
pub enum KeyLength {
    Aes128,
    Aes192,
    Aes256,
}

impl KeyLength {
    /// 16, 24 or 32.
    pub fn bytes(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
}

/// Mode of the cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CipherMode {
    /// 0, the default: CTR when we start the handshake, otherwise whatever the peer proposes.
    #[default]
    Auto,
    /// 1: AES-CTR, and nothing else.
    Ctr,
    /// 2: AES-GCM, and nothing else; the peer's libsrt must be 1.5.2 or later and built for it.
    Gcm,
}

/// How much may be sent, in bytes per second of payload and headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SrtBandwidth {
    /// `maxbw=-1`, the default.
    #[default]
    Unlimited,
    /// `maxbw`, 1 to 2^40.
    Fixed(u64),
    /// `maxbw=0`, or only `inputbw`: what the stream needs, and something for retransmits.
    Input {
        /// `inputbw`, 1 to 2^40; `None` (0) = measured.
        rate: Option<u64>,
        /// `mininputbw`, 0 to 2^40: the least that a measured rate counts as. Default 0.
        least: u64,
        /// `oheadbw`, 5 to 100 percent more. Default 25.
        overhead: u8,
    },
}

/// What becomes of a publisher when the next one dials in under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Takeover {
    /// It is ended, the new one takes its place: a publisher that comes back after its network changed is let in at
    /// once. The default.
    #[default]
    Replace,
    /// It stays, the new one is rejected.
    Reject,
}

/// Text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text: for the peer, never for logs or answers.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the same; takes as long for a wrong guess as for a right one of the same length.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        own.len() == given.len() && own.iter().zip(given).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl SrtLink {
    /// The longer of the two latencies that this end asks for.
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.receive_latency.max(self.peer_latency).into())
    }

    /// Whom it dials, of a group the first; `None` = peers dial in.
    pub fn dial(&self) -> Option<&SrtDial> {
        match &self.end {
            SrtEnd::Caller(dial) | SrtEnd::Rendezvous(dial) => Some(dial),
            SrtEnd::Group(group) => group.nodes.first().map(|node| &node.dial),
            SrtEnd::Listener(_) => None,
        }
    }

    /// Where it listens; `None` = it dials.
    pub fn listen(&self) -> Option<&SrtListen> {
        match &self.end {
            SrtEnd::Listener(listen) => Some(listen),
            SrtEnd::Caller(_) | SrtEnd::Rendezvous(_) | SrtEnd::Group(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let secret = Secret::new("correct horse");
        assert!(secret.is(b"correct horse"));
        for wrong in ["correct horsf", "correct hors", "correct horse ", ""] {
            assert!(!secret.is(wrong.as_bytes()), "{wrong:?}");
        }
        let crypto = SrtCrypto {
            passphrase: secret,
            key_length: None,
            cipher: CipherMode::Auto,
            refresh_after: 1 << 24,
            announce_before: 4096,
        };
        assert!(!format!("{crypto:?}").contains("horse"));
    }
}
