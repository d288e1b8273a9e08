//! Handshake packets and time enter; answers, and connections that both sides agreed on, leave
//! (draft-sharabayko-srt-01, 3.2.1 and 4.3; protocol version 5 only). Never derives a key from a passphrase: that
//! takes milliseconds, so it is asked for or brought along.

mod agree;
mod body;
mod caller;
mod cookie;
mod listener;
mod rendezvous;

use super::Nanos;
use super::crypto::SALT;

pub use agree::{Agreed, Local, PeerClock, Refusal, Secret, Security, Settings};
pub use body::{Flags, Group, GroupKind, Version};
pub use caller::{Caller, Dial};
pub use cookie::CookieSecret;
pub use listener::{Acceptance, Heard, KeyAsk, Listener, Request};
pub use rendezvous::Rendezvous;

/// What came of one packet.
#[derive(Debug)]
pub enum Progress {
    /// Nothing yet.
    Waiting,
    /// In a rendezvous only: derive the key of this salt from the passphrase, away from the data thread, and go on
    /// with [`Rendezvous::adopt`].
    Derive([u8; SALT]),
    /// Both sides agreed.
    Connected(Box<Agreed>),
    /// Nothing will come of it.
    Refused(Refusal),
}

/// How long a handshake waits for its answer before it is sent again (libsrt's).
const RETRY: Nanos = 250_000_000;

#[cfg(test)]
mod captured;
#[cfg(test)]
mod tests;
