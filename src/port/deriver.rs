//! Key derivation away from the data thread: passphrases and salts enter, keys leave. A thread of its own, because
//! one derivation takes about a millisecond and anybody who can dial may ask for one.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::net::Doorbell;
use crate::wire::srt::crypto::{Kek, Passphrase, SALT, derive};

/// Derives keys, and rings when one is done. Ends with the last of its requests when dropped.
pub(super) struct Deriver<T> {
    requests: Sender<(T, Passphrase, [u8; SALT])>,
    done: Receiver<(T, Kek)>,
}

impl<T: Send + 'static> Deriver<T> {
    /// Starts the thread; `bell` is rung for every key.
    ///
    /// # Errors
    /// Out of threads.
    pub(super) fn start(bell: Arc<Doorbell>) -> io::Result<Self> {
        // Overflow policy: `ask` says no, the peer repeats its handshake.
        let (requests, asked) = crossbeam_channel::bounded::<(T, Passphrase, [u8; SALT])>(WAITING);
        let (answer, done) = crossbeam_channel::bounded(WAITING);
        std::thread::Builder::new().name("srt-keys".into()).spawn(move || {
            for (of, passphrase, salt) in asked {
                if answer.send((of, derive(&passphrase, salt))).is_err() {
                    return;
                }
                bell.ring();
            }
        })?;
        Ok(Self { requests, done })
    }

    /// Asks for a key; `false` when too many wait.
    pub(super) fn ask(&self, of: T, passphrase: Passphrase, salt: [u8; SALT]) -> bool {
        self.requests.try_send((of, passphrase, salt)).is_ok()
    }

    /// A key that is done.
    pub(super) fn take(&self) -> Option<(T, Kek)> {
        self.done.try_recv().ok()
    }
}

/// Derivations that may wait: half a second's worth.
const WAITING: usize = 512;
