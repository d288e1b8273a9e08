//! Certificates, key stores and data packages that a url names enter, what TLS shows and whom it trusts leaves, with what
//! is to be said of them. Files are read inside the configured roots, at every attempt.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use zeroize::Zeroizing;

use crate::app::dial::DialError;
use crate::app::director::Defaults;
use crate::app::trust::trust;
use crate::net::{self, TlsError, Trust, clock};
use crate::store::{CotTls, Roots, Shown};
use crate::tak::keystore::{Certificate, Keystore, KeystoreError};
use crate::tak::package::{PACKAGE_MAX, Package, PackageError};

/// Why a file does not give what it should.
#[derive(Debug, thiserror::Error)]
pub(in crate::app) enum FileError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Pem { path: PathBuf, source: TlsError },
    #[error("{path}: {source}")]
    Keystore { path: PathBuf, source: KeystoreError },
    #[error("{path}: PKCS#12 file without a key: it cannot be shown to a server")]
    Keyless { path: PathBuf },
    #[error("{path}: {source}")]
    Package { path: PathBuf, source: PackageError },
    #[error("{path}: no client certificate in the data package ({remarks})")]
    NoClient { path: PathBuf, remarks: String },
    #[error("{path}: no server over TLS in the data package: name one, cot+tls://HOST:PORT?package=…")]
    NoServer { path: PathBuf },
}

impl FileError {
    /// Whether the same file may be right later without a change.
    pub(in crate::app) fn is_retryable(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// What a client needs to know and to show.
pub(super) struct Papers {
    pub(super) shown: Option<net::Shown>,
    pub(super) trust: Trust,
    pub(super) checks_name: bool,
    /// The server of the data package.
    pub(super) server: Option<(String, u16)>,
    /// What is to be said of certificates.
    pub(super) warnings: Vec<String>,
    /// When the certificate that is shown expires, seconds since 1970; 0 = none is.
    pub(super) expires: u64,
}

/// Reads what a url names.
pub(super) async fn papers(tls: &CotTls, defaults: &Defaults) -> Result<Papers, DialError> {
    let (roots, shown, own_host) =
        (Arc::clone(&defaults.roots), tls.shown.clone(), !tls.dial.host.is_empty());
    // A network file system may block for long, and so may a key that is derived: not on the runtime's own threads.
    let read = tokio::task::spawn_blocking(move || read(&roots, &shown, own_host));
    let Found { shown, authorities, server } = read.await.map_err(|_| DialError::Broken)??;
    let of_package = tls.trust.is_none() && !authorities.is_empty();
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let read = |der: &Vec<u8>| Certificate::read(der).ok();
    let chain = shown.iter().flat_map(|shown| &shown.chain);
    let trusted = authorities.iter().filter(|_| of_package);
    let mut warnings: Vec<String> =
        chain.chain(trusted).filter_map(read).filter_map(|certificate| certificate.complaint(now)).collect();
    warnings.dedup();
    let own = shown.as_ref().and_then(|shown| shown.chain.first()).and_then(read);
    Ok(Papers {
        expires: own.map_or(0, |own| own.not_after.max(1) as u64),
        shown,
        trust: match &tls.trust {
            Some(told) => trust(told, defaults).await?,
            None if of_package => Trust::Certificates(authorities),
            None => Trust::System,
        },
        checks_name: tls.checks_name.unwrap_or(!of_package),
        server,
        warnings,
    })
}

#[derive(Default)]
struct Found {
    shown: Option<net::Shown>,
    authorities: Vec<Vec<u8>>,
    server: Option<(String, u16)>,
}

fn read(roots: &Roots, shown: &Shown, own_host: bool) -> Result<Found, DialError> {
    let found = match shown {
        Shown::Nothing => Found::default(),
        Shown::Pem { chain, key } => {
            let certificates = load(roots, chain, PEM_MAX)?;
            let key_path = key.as_deref().unwrap_or(chain);
            let key = Zeroizing::new(load(roots, key_path, PEM_MAX)?);
            let shown = net::Shown::from_pem(&certificates, &key).map_err(|source| {
                let path = if matches!(source, TlsError::Key(_)) { key_path } else { chain.as_path() };
                FileError::Pem { path: path.into(), source }
            })?;
            Found { shown: Some(shown), ..Found::default() }
        }
        Shown::Pkcs12 { path, password } => {
            let bytes = Zeroizing::new(load(roots, path, PEM_MAX)?);
            let keystore = Keystore::read(&bytes, password.reveal())
                .map_err(|source| FileError::Keystore { path: path.clone(), source })?;
            let shown = show(keystore).ok_or_else(|| FileError::Keyless { path: path.clone() })?;
            Found { shown: Some(shown), ..Found::default() }
        }
        Shown::Package { path, password } => {
            let bytes = Zeroizing::new(load(roots, path, PACKAGE_MAX as u64)?);
            let package = Package::read(&bytes, password.as_ref().map(|password| password.reveal()))
                .map_err(|source| FileError::Package { path: path.clone(), source })?;
            let server = package.server().map(|server| (server.host.clone(), server.port));
            if server.is_none() && !own_host {
                return Err(FileError::NoServer { path: path.clone() }.into());
            }
            let remarks = package.remarks.join("; ");
            let shown = package.client.and_then(show);
            let shown = shown.ok_or_else(|| FileError::NoClient { path: path.clone(), remarks })?;
            Found { shown: Some(shown), authorities: package.authorities, server }
        }
    };
    Ok(found)
}

fn show(keystore: Keystore) -> Option<net::Shown> {
    Some(net::Shown { chain: keystore.chain, key: keystore.key? })
}

fn load(roots: &Roots, path: &Path, most: u64) -> Result<Vec<u8>, DialError> {
    let mut bytes = Vec::new();
    let file = roots.open_read(path)?;
    // One byte more than is read, so that a file that is too long is known as such.
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|source| FileError::Read { path: path.into(), source })?;
    Ok(bytes)
}

/// Chains and keys have some kilobytes.
const PEM_MAX: u64 = 1 << 20;
