//! What a url says about servers enters, what TLS needs to know leaves: files are read inside the configured roots, at
//! every attempt.

use std::io::Read;
use std::sync::Arc;

use super::dial::DialError;
use super::director::Defaults;
use crate::net::Trust;
use crate::store::TlsTrust;

/// Reads the authorities, where a url names a file of them.
pub(super) async fn trust(told: &TlsTrust, defaults: &Defaults) -> Result<Trust, DialError> {
    Ok(match told {
        TlsTrust::System => Trust::System,
        TlsTrust::Pinned(pin) => Trust::Pinned(*pin),
        TlsTrust::Anybody => Trust::Anybody,
        TlsTrust::Authorities(path) => {
            let (roots, path) = (Arc::clone(&defaults.roots), path.clone());
            // A network file system may block for long: not on the runtime's own threads.
            let read = tokio::task::spawn_blocking(move || -> Result<Vec<u8>, DialError> {
                let mut pem = Vec::new();
                let file = roots.open_read(&path)?;
                file.take(PEM_MOST).read_to_end(&mut pem).map_err(DialError::Authorities)?;
                Ok(pem)
            });
            Trust::Authorities(read.await.map_err(|_| DialError::Broken)??)
        }
    })
}

/// The bundle of a whole system has a quarter of this.
const PEM_MOST: u64 = 1 << 20;
