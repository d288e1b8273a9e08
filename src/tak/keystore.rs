//! PKCS#12 files, as TAK Server makes them, and certificates enter, chains and keys in DER leave, and what is to be said
//! of them (RFC 7292, RFC 5280). Never shows a key.

use std::fmt;

use p12_keystore::error::Error as Pkcs12Error;
use p12_keystore::{CertificateBag, Pkcs12Archive, PrivateKeyBag};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

/// What a PKCS#12 file holds, in DER.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Keystore {
    /// The private key (PKCS#8); `None` in a trust store.
    pub key: Option<Zeroizing<Vec<u8>>>,
    /// The certificate of that key and those that vouch for it, one for the one before.
    pub chain: Vec<Vec<u8>>,
    /// All other certificates: authorities.
    pub authorities: Vec<Vec<u8>>,
}

/// What is to be said of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is, such as `CN=eye, O=TAK`.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// From when on it holds, seconds since 1970 in UTC, as the next.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// Whether it is one of an authority (basic constraints).
    pub is_authority: bool,
    /// SHA-256 of the whole, in hexadecimal.
    pub sha256: String,
}

/// Why a file is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeystoreError {
    /// The password is another one.
    #[error("the password of this PKCS#12 file is another one")]
    Password,
    /// Longer than any.
    #[error("PKCS#12 file of more than {KEYSTORE_MAX} bytes")]
    TooLong,
    /// It cannot be read.
    #[error("not a PKCS#12 file that can be read: {0}")]
    Malformed(String),
    /// A certificate cannot be read.
    #[error("not a certificate (X.509) that can be read")]
    Certificate,
    /// A key without its certificate.
    #[error("PKCS#12 file holds a key and no certificate for it")]
    Keyless,
}

impl Keystore {
    /// Reads a PKCS#12 file, with the RC2 and triple DES of old makers as well as AES.
    ///
    /// # Errors
    /// [`KeystoreError`] when it is none, or the password is another one.
    pub fn read(bytes: &[u8], password: &str) -> Result<Self, KeystoreError> {
        if bytes.len() > KEYSTORE_MAX {
            return Err(KeystoreError::TooLong);
        }
        let archive = Pkcs12Archive::from_pkcs12(bytes, password).map_err(|error| match error {
            // without a MAC it is the decryption that fails
            Pkcs12Error::MacError(_) | Pkcs12Error::UnpadError => KeystoreError::Password,
            other => KeystoreError::Malformed(other.to_string()),
        })?;
        let mut certificates = archive.certs;
        let Some(key) = archive.keys.into_iter().next() else {
            let authorities = certificates.iter().map(|bag| bag.cert.as_der().to_vec()).collect();
            return Ok(Self { key: None, chain: Vec::new(), authorities });
        };
        let mut chain = vec![own(&key, &mut certificates)?];
        // one vouches for the one before, until one vouches for itself
        while let Some(last) = chain.last()
            && last.cert.issuer() != last.cert.subject()
            && let Some(at) = certificates.iter().position(|bag| bag.cert.subject() == last.cert.issuer())
        {
            chain.push(certificates.swap_remove(at));
        }
        let der = |bag: CertificateBag| bag.cert.as_der().to_vec();
        Ok(Self {
            key: Some(Zeroizing::new(key.key.as_der().to_vec())),
            chain: chain.into_iter().map(der).collect(),
            authorities: certificates.into_iter().map(der).collect(),
        })
    }
}

impl fmt::Debug for Keystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(|_| "***");
        let (chain, authorities) = (self.chain.len(), self.authorities.len());
        write!(f, "Keystore {{ key: {key:?}, chain of {chain}, {authorities} authorities }}")
    }
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`KeystoreError::Certificate`] when it is none.
    pub fn read(der: &[u8]) -> Result<Self, KeystoreError> {
        let (_, certificate) = parse_x509_certificate(der).map_err(|_| KeystoreError::Certificate)?;
        let validity = certificate.validity();
        Ok(Self {
            subject: plain(&certificate.subject().to_string()),
            issuer: plain(&certificate.issuer().to_string()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_authority: certificate.is_ca(),
            sha256: Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// What is wrong with its times at `now`, seconds since 1970, in words; `None` while there is nothing to say.
    pub fn complaint(&self, now: i64) -> Option<String> {
        let days = |seconds: i64| seconds / DAY;
        let name = &self.subject;
        if now >= self.not_after {
            Some(format!("the certificate of {name} expired {} days ago", days(now - self.not_after)))
        } else if now < self.not_before {
            Some(format!("the certificate of {name} holds only in {} days", days(self.not_before - now) + 1))
        } else if self.not_after - now < WARNING {
            Some(format!("the certificate of {name} expires in {} days", days(self.not_after - now)))
        } else {
            None
        }
    }
}

/// The certificate of a key: the one with its id, else the first that is no authority's.
fn own(key: &PrivateKeyBag, certificates: &mut Vec<CertificateBag>) -> Result<CertificateBag, KeystoreError> {
    let id = key.local_key_id.as_ref().map(|id| id.0.as_slice());
    let same = certificates.iter().position(|bag| id.is_some() && bag.local_key_id.as_deref() == id);
    let plain = || {
        certificates
            .iter()
            .position(|bag| Certificate::read(bag.cert.as_der()).is_ok_and(|c| !c.is_authority))
    };
    let at = same.or_else(plain).ok_or(KeystoreError::Keyless)?;
    Ok(certificates.swap_remove(at))
}

/// Names come from a file of others: they are shown on one line, and not for ever.
pub(super) fn plain(text: &str) -> String {
    text.chars().take(NAME_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Longest PKCS#12 file that is read: those of TAK Server have a few kilobytes.
pub const KEYSTORE_MAX: usize = 1 << 20;

/// Before it expires it is said for so long.
const WARNING: i64 = 30 * DAY;
const DAY: i64 = 86_400;
/// Characters of a name that are shown.
const NAME_MAX: usize = 200;
