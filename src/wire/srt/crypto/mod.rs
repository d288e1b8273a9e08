//! Passphrases, key messages and payloads enter; keys, key messages and encrypted or clear payloads leave
//! (draft-sharabayko-srt-01, section 6). Never draws a random byte, and never shows a secret.
//!
//! The passphrase makes a key that encrypts keys ([`Kek`], slow, once per salt), which wraps the keys of the
//! stream, which encrypt payloads ([`DataKey`]). [`SendKeys`] changes the stream's keys as packets go by;
//! [`ReceiveKeys`] follows the peer's changes.

mod cipher;
mod material;
mod receive;
mod send;

use std::fmt;

use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use zeroize::{Zeroize, Zeroizing};

use crate::wire::srt::KeyFlag;
use material::{Announced, Seks};

pub use cipher::{DataKey, GCM_TAG};
pub use material::{BadMaterial, KEY_MESSAGE_MOST, KeyMaterial, KeySet, KeyState, WrongSecret};
pub use receive::{KeyReply, ReceiveKeys};
pub use send::{RefreshPlan, SendKeys};

/// Length of a salt in bytes (3.2.2: the only one that is defined).
pub const SALT: usize = 16;

/// How long the keys are (`pbkeylen`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyLength {
    /// 16 bytes.
    Aes128 = 16,
    /// 24 bytes.
    Aes192 = 24,
    /// 32 bytes.
    Aes256 = 32,
}

/// How payloads are encrypted (`cryptomode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// AES in counter mode: the same length, nothing is authenticated.
    Ctr,
    /// AES-GCM: 16 bytes more, payload and header are authenticated. libsrt ≥ 1.5.2 built with its AEAD preview.
    Gcm,
}

/// A passphrase of 10 to 80 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<Box<str>>);

/// A passphrase of the wrong length; the text says what is right and nothing of the passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("passphrase of {0} bytes, expected 10 to 80")]
pub struct BadPassphrase(pub usize);

/// The key that wraps keys, and the salt that it was derived with. Holds for every key length.
#[derive(Clone)]
pub struct Kek {
    salt: [u8; SALT],
    key: Zeroizing<[u8; 32]>,
}

/// What the side that opens a connection brings along: a salt, the key derived with it, and the first stream key.
#[derive(Debug, Clone)]
pub struct Offer {
    kek: Kek,
    sek: Sek,
}

/// A stream key before it is given its place in a cipher; only the first bytes count where it is to be shorter.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sek(Zeroizing<[u8; 32]>);

impl KeyLength {
    /// The length of so many bytes.
    pub const fn of(bytes: usize) -> Option<Self> {
        match bytes {
            16 => Some(Self::Aes128),
            24 => Some(Self::Aes192),
            32 => Some(Self::Aes256),
            _ => None,
        }
    }

    /// 16, 24 or 32.
    pub const fn bytes(self) -> usize {
        self as usize
    }
}

impl Passphrase {
    /// Takes a passphrase.
    ///
    /// # Errors
    /// It has less than 10 bytes or more than 80, which libsrt would refuse too.
    pub fn new(text: &str) -> Result<Self, BadPassphrase> {
        if !(10..=80).contains(&text.len()) {
            return Err(BadPassphrase(text.len()));
        }
        Ok(Self(Zeroizing::new(text.into())))
    }
}

/// The key that wraps keys under this salt: PBKDF2 of HMAC-SHA-1, 2048 rounds, over the salt's last 8 bytes
/// (6.1.4). Takes milliseconds: never on a data thread.
pub fn derive(passphrase: &Passphrase, salt: [u8; SALT]) -> Kek {
    // PBKDF2 makes its output from the front, so the key for a shorter length is the beginning of the longest.
    let mut key = Zeroizing::new([0; 32]);
    pbkdf2_hmac::<Sha1>(passphrase.0.as_bytes(), &salt[SALT - 8..], 2048, key.as_mut_slice());
    Kek { salt, key }
}

impl Kek {
    /// The salt it was derived with.
    pub const fn salt(&self) -> [u8; SALT] {
        self.salt
    }

    fn bytes(&self, length: KeyLength) -> &[u8] {
        &self.key[..length.bytes()]
    }
}

impl Offer {
    /// Derives a key from `passphrase` with a salt out of `random`, whose other bytes are the first stream key.
    /// Takes milliseconds: never on a data thread.
    pub fn new(passphrase: &Passphrase, mut random: [u8; SALT + 32]) -> Self {
        let (mut salt, mut sek) = ([0; SALT], [0; 32]);
        salt.copy_from_slice(&random[..SALT]);
        sek.copy_from_slice(&random[SALT..]);
        random.zeroize();
        Self { kek: derive(passphrase, salt), sek: Sek::new(sek) }
    }

    /// The key message for the peer.
    pub(crate) fn message(&self, cipher: Cipher, length: KeyLength) -> Vec<u8> {
        material::write(&self.kek, cipher, length, &Announced::One(KeyFlag::Even, &self.sek))
    }

    /// The keys that both directions begin with once the peer has confirmed the message: it is the same one.
    pub(crate) fn keys(
        &self,
        cipher: Cipher,
        length: KeyLength,
        plan: RefreshPlan,
        legacy: bool,
    ) -> (SendKeys, ReceiveKeys) {
        let sender = SendKeys::new(&self.kek, cipher, length, (KeyFlag::Even, &self.sek), plan, legacy);
        let seks = Seks { even: Some(self.sek.clone()), odd: None };
        (sender, ReceiveKeys::new(&self.kek, cipher, length, &seks, legacy))
    }
}

impl Sek {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self, length: KeyLength) -> &[u8] {
        &self.0[..length.bytes()]
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(***)")
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(***)")
    }
}

impl fmt::Debug for Sek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sek(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_has_10_to_80_bytes() {
        assert_eq!(Passphrase::new("ninebytes"), Err(BadPassphrase(9)));
        assert!(Passphrase::new("tenbytes10").is_ok());
        assert!(Passphrase::new(&"x".repeat(80)).is_ok());
        assert_eq!(Passphrase::new(&"x".repeat(81)), Err(BadPassphrase(81)));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let passphrase = Passphrase::new("open sesame!").unwrap();
        let offer = Offer::new(&passphrase, [0xAB; 48]);
        let shown = format!("{passphrase:?} {offer:?}");
        assert!(!shown.contains("sesame") && !shown.contains("171") && !shown.to_lowercase().contains("ab,"));
    }

    #[test]
    fn a_shorter_key_is_the_beginning_of_the_longest() {
        let passphrase = Passphrase::new("open sesame!").unwrap();
        let salt = [7; SALT];
        let kek = derive(&passphrase, salt);
        for length in [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256] {
            let mut direct = vec![0; length.bytes()];
            pbkdf2_hmac::<Sha1>(b"open sesame!", &salt[8..], 2048, &mut direct);
            assert_eq!(kek.bytes(length), direct);
        }
    }
}
