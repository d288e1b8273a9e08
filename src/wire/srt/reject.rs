//! A rejection code enters; its name, what it means to an operator and whether dialling again can help leave.

use std::fmt;

/// Why a connection was refused, numbered as libsrt does: 0 to 17 are its own reasons, 1000 to 1999 those of its
/// access-control guideline (1000 and HTTP's codes + 1000), from 2000 the application's. On the wire 1000 is
/// added.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reject(u32);

impl Reject {
    /// Refused without a reason.
    pub const UNKNOWN: Self = Self(0);
    /// A system call failed.
    pub const SYSTEM: Self = Self(1);
    /// The peer's application refused.
    pub const PEER: Self = Self(2);
    /// Out of memory, sockets or the like.
    pub const RESOURCE: Self = Self(3);
    /// The handshake breaks the protocol.
    pub const ROGUE: Self = Self(4);
    /// Too many callers wait already.
    pub const BACKLOG: Self = Self(5);
    /// An internal error.
    pub const INTERNAL: Self = Self(6);
    /// The socket is closing.
    pub const CLOSE: Self = Self(7);
    /// The peer's version is too old.
    pub const VERSION: Self = Self(8);
    /// Both sides of a rendezvous have the same cookie, or the cookie is wrong.
    pub const COOKIE: Self = Self(9);
    /// The passphrases differ.
    pub const BAD_SECRET: Self = Self(10);
    /// One side has a passphrase, the other none.
    pub const UNSECURE: Self = Self(11);
    /// One side speaks of messages, the other of a stream of bytes.
    pub const MESSAGE_API: Self = Self(12);
    /// Another congestion controller.
    pub const CONGESTION: Self = Self(13);
    /// Another packet filter.
    pub const FILTER: Self = Self(14);
    /// A connection group that is not allowed or does not fit.
    pub const GROUP: Self = Self(15);
    /// No answer in time.
    pub const TIMEOUT: Self = Self(16);
    /// The ciphers differ (CTR and GCM), or a key is too short.
    pub const CRYPTO: Self = Self(17);

    /// The stream id breaks its grammar.
    pub const BAD_REQUEST: Self = Self(1400);
    /// User or password are wrong.
    pub const UNAUTHORIZED: Self = Self(1401);
    /// The server is full.
    pub const OVERLOAD: Self = Self(1402);
    /// Not allowed.
    pub const FORBIDDEN: Self = Self(1403);
    /// There is no such stream now.
    pub const NOT_FOUND: Self = Self(1404);
    /// The mode does not fit, such as publishing to what only serves.
    pub const BAD_MODE: Self = Self(1405);
    /// Somebody publishes this stream already.
    pub const CONFLICT: Self = Self(1409);
    /// The kind of resource is not supported.
    pub const UNSUPPORTED_MEDIA: Self = Self(1415);
    /// The server has an error.
    pub const SERVER_ERROR: Self = Self(1500);
    /// The server is down for now.
    pub const DOWN: Self = Self(1503);

    /// The reason of a number as libsrt counts them.
    pub const fn new(reason: u32) -> Self {
        Self(reason)
    }

    /// The number as libsrt counts them.
    pub const fn reason(self) -> u32 {
        self.0
    }

    /// The reason in the handshake type of a rejection; `None` below 1000, where the type is none. Numbers that
    /// nobody has defined are [`Self::UNKNOWN`], as in libsrt.
    pub const fn from_wire(kind: u32) -> Option<Self> {
        match kind.checked_sub(WIRE) {
            None => None,
            Some(reason @ (0..=17 | 1000..)) => Some(Self(reason)),
            Some(_) => Some(Self::UNKNOWN),
        }
    }

    /// The handshake type that says it.
    pub const fn wire(self) -> u32 {
        self.0.saturating_add(WIRE)
    }

    /// libsrt's name for it.
    pub fn name(self) -> &'static str {
        match (self.known(), self.0) {
            (Some(known), _) => known.1,
            (None, 2000..) => "USERDEFINED",
            (None, 1000..) => "PREDEFINED",
            (None, _) => "UNKNOWN",
        }
    }

    /// Whether dialling again cannot help until a configuration changes, here or at the peer.
    pub fn is_fatal(self) -> bool {
        self.known().is_some_and(|known| known.2 == FATAL)
    }

    /// What an operator reads: the cause, and what to look at.
    pub fn cause(self) -> &'static str {
        match (self.known(), self.0) {
            (Some(known), _) => known.3,
            (None, 2000..) => "the peer's application refused the connection with a code of its own",
            (None, 1000..) => "the peer's application refused the connection",
            (None, _) => "the peer gave no reason",
        }
    }

    fn known(self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.0 == self.0)
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SRT rejection {}, {})", self.cause(), self.wire(), self.name())
    }
}

impl fmt::Debug for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reject({} {})", self.0, self.name())
    }
}

const WIRE: u32 = 1000;

/// Reason, libsrt's name, whether it is fatal for a caller, cause.
type Known = (u32, &'static str, bool, &'static str);

const FATAL: bool = true;
const RETRY: bool = false;

const KNOWN: &[Known] = &[
    (1, "SYSTEM", RETRY, "a system call failed at the peer"),
    (2, "PEER", RETRY, "the peer's application refused the connection"),
    (3, "RESOURCE", RETRY, "the peer is out of resources"),
    (4, "ROGUE", FATAL, "the handshake breaks the protocol: a peer that is no SRT, or speaks it otherwise"),
    (5, "BACKLOG", RETRY, "too many callers wait at the peer"),
    (6, "IPE", RETRY, "the peer has an internal error"),
    (7, "CLOSE", RETRY, "the peer is closing its socket"),
    (8, "VERSION", FATAL, "the versions do not fit: one side asks for a newer SRT"),
    (9, "RDVCOOKIE", RETRY, "the handshake's cookies clash or are stale"),
    (10, "BADSECRET", FATAL, "wrong passphrase: the two sides have different ones"),
    (
        11,
        "UNSECURE",
        FATAL,
        "one side has a passphrase and the other none, or cannot use the cipher: set the same on both",
    ),
    (
        12,
        "MESSAGEAPI",
        FATAL,
        "one side is in file or stream mode: set the live mode (transtype=live, messageapi=1) on both",
    ),
    (13, "CONGESTION", FATAL, "the congestion controllers differ: set live on both sides"),
    (14, "FILTER", FATAL, "the packet filters differ: remove packetfilter"),
    (15, "GROUP", FATAL, "the connection group is not allowed, or the peer knows no groups"),
    (
        16,
        "TIMEOUT",
        RETRY,
        "no answer in time: is the peer there, and does the network let UDP through both ways?",
    ),
    (
        17,
        "CRYPTO",
        FATAL,
        "the ciphers differ, or the key is too short: set the same cryptomode (AES-CTR or AES-GCM) and pbkeylen on both \
         sides",
    ),
    (1000, "FALLBACK", RETRY, "the peer's application refused the connection"),
    (1001, "KEY_NOTSUP", FATAL, "a key of the stream id is not supported by the peer"),
    (1002, "FILEPATH", FATAL, "the stream id names a file that the peer does not find"),
    (1003, "HOSTNOTFOUND", FATAL, "the host in the stream id is not known to the peer"),
    (1400, "BAD_REQUEST", FATAL, "the peer cannot read the stream id"),
    (1401, "UNAUTHORIZED", FATAL, "wrong user or password in the stream id"),
    (1402, "OVERLOAD", RETRY, "the peer is full: its limit of sessions is reached"),
    (1403, "FORBIDDEN", FATAL, "the peer forbids access to this stream"),
    (1404, "NOTFOUND", RETRY, "the peer has no such stream at this time: check the stream id"),
    (
        1405,
        "BAD_MODE",
        FATAL,
        "the mode in the stream id (m=request or m=publish) is not allowed for this stream",
    ),
    (1406, "UNACCEPTABLE", FATAL, "the peer cannot serve what the stream id asks for"),
    (1409, "CONFLICT", RETRY, "somebody publishes this stream already"),
    (1415, "NOTSUP_MEDIA", FATAL, "the type in the stream id (t=) is not supported by the peer"),
    (1423, "LOCKED", RETRY, "the stream is locked at the peer"),
    (1424, "FAILED_DEPEND", RETRY, "a session that this one depends on is gone"),
    (1500, "ISE", RETRY, "the peer has an internal error"),
    (1501, "UNIMPLEMENTED", FATAL, "the peer does not support this request"),
    (1502, "GW", RETRY, "a server behind the peer refused"),
    (1503, "DOWN", RETRY, "the peer's service is down for now"),
    (1505, "VERSION", FATAL, "the peer does not support this version of SRT"),
    (1507, "NOROOM", RETRY, "the peer has no room to store the stream"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_1000_higher_on_the_wire() {
        for (wire, want) in [
            (1000, Reject::UNKNOWN),
            (1002, Reject::PEER),
            (1010, Reject::BAD_SECRET),
            (1017, Reject::CRYPTO),
            (1018, Reject::UNKNOWN),
            (1999, Reject::UNKNOWN),
            (2403, Reject::FORBIDDEN),
            (3007, Reject::new(2007)),
        ] {
            assert_eq!(Reject::from_wire(wire), Some(want));
        }
        for kind in [0, 1, 999] {
            assert_eq!(Reject::from_wire(kind), None);
        }
        assert_eq!(Reject::UNAUTHORIZED.wire(), 2401);
        assert_eq!(Reject::new(u32::MAX).wire(), u32::MAX);
    }

    #[test]
    fn a_wrong_passphrase_is_fatal_and_named() {
        assert!(Reject::BAD_SECRET.is_fatal());
        let text = Reject::BAD_SECRET.to_string();
        assert!(text.contains("wrong passphrase") && text.contains("1010"), "{text}");
    }

    #[test]
    fn what_may_pass_is_not_fatal() {
        for reject in [
            Reject::UNKNOWN,
            Reject::BACKLOG,
            Reject::TIMEOUT,
            Reject::NOT_FOUND,
            Reject::CONFLICT,
            Reject::OVERLOAD,
            Reject::new(2001),
        ] {
            assert!(!reject.is_fatal(), "{reject:?}");
        }
        for reject in [Reject::UNSECURE, Reject::VERSION, Reject::FORBIDDEN, Reject::UNAUTHORIZED] {
            assert!(reject.is_fatal(), "{reject:?}");
        }
    }
}
