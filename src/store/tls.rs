//! What a url says about servers that it dials over TLS, parsed.

use std::path::PathBuf;

/// Which servers are believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TlsTrust {
    /// Those that an authority of this system vouches for. The default.
    #[default]
    System,
    /// `tls_ca=PATH`: those that one of these authorities (PEM) vouches for. The path is resolved inside the configured
    /// roots at every attempt.
    Authorities(PathBuf),
    /// `tls_pin=SHA256`: the one whose certificate has this SHA-256, written in 64 hexadecimal digits.
    Pinned([u8; 32]),
    /// `tls_insecure=true`: all of them.
    Anybody,
}
