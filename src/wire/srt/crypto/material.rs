//! The body of a KMREQ or KMRSP enters, its fields and the keys in it leave; or keys enter and the body leaves
//! (draft-sharabayko-srt-01, 3.2.2 and 6.1.5). Never decides what is done with a key.

use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use aes_kw::AesKw;
use zeroize::Zeroizing;

use super::{Cipher, Kek, KeyLength, ReceiveKeys, RefreshPlan, SALT, Sek, SendKeys};
use crate::wire::srt::KeyFlag;

/// The longest key message in bytes: two keys of 32.
pub const KEY_MESSAGE_MOST: usize = FIXED + SALT + 2 * 32 + WRAP;

/// A key message, read and checked but not unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMaterial<'a> {
    /// Which keys are in it.
    pub keys: KeySet,
    /// The cipher they are for.
    pub cipher: Cipher,
    /// How long each key is.
    pub length: KeyLength,
    /// What the wrapping key was derived with, and part of every counter block.
    pub salt: [u8; SALT],
    wrapped: &'a [u8],
}

/// Which keys a message holds (3.2.2, KK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySet {
    /// The even key.
    Even = 0b01,
    /// The odd key.
    Odd = 0b10,
    /// Both, the even one first.
    Both = 0b11,
}

/// Where an exchange of keys stands, as a KMRSP of one word says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Nothing is encrypted.
    Unsecured = 0,
    /// Keys are on their way.
    Securing = 1,
    /// Both sides have the keys.
    Secured = 2,
    /// One side has a passphrase, the other none.
    NoSecret = 3,
    /// The passphrases differ.
    BadSecret = 4,
    /// The ciphers differ.
    BadCipher = 5,
}

/// Why bytes are no key message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SRT key message: {field} is {found}, expected {expected}")]
pub struct BadMaterial {
    /// Which field.
    pub field: &'static str,
    /// What stands in it.
    pub found: usize,
    /// What may stand in it.
    pub expected: &'static str,
}

/// The message was wrapped with another passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SRT key message: wrapped with another passphrase")]
pub struct WrongSecret;

/// The keys of one message by their flag.
#[derive(Default)]
pub(crate) struct Seks {
    pub(crate) even: Option<Sek>,
    pub(crate) odd: Option<Sek>,
}

impl<'a> KeyMaterial<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// A field breaks the draft, or names what this side does not know.
    pub fn parse(message: &'a [u8]) -> Result<Self, BadMaterial> {
        let bad = |field, found, expected| Err(BadMaterial { field, found, expected });
        let Some((fixed, rest)) = message.split_first_chunk::<FIXED>() else {
            return bad("length", message.len(), "at least 64");
        };
        let [first, sign_high, sign_low, flags, _, _, _, _, cipher, auth, carrier, _, _, _, salts, lengths] =
            *fixed;
        if first != VERSION_AND_TYPE {
            return bad("version and type", first.into(), "18");
        }
        if [sign_high, sign_low] != SIGN {
            return bad("signature", u16::from_be_bytes([sign_high, sign_low]).into(), "8233");
        }
        let keys = match flags & 0b11 {
            0b01 => KeySet::Even,
            0b10 => KeySet::Odd,
            0b11 => KeySet::Both,
            _ => return bad("key flags", flags.into(), "at least one key"),
        };
        let (cipher, authentication) = match cipher {
            CTR => (Cipher::Ctr, 0),
            GCM => (Cipher::Gcm, 1),
            other => return bad("cipher", other.into(), "2 (CTR) or 4 (GCM)"),
        };
        if auth != authentication {
            return bad("authentication", auth.into(), "0 for CTR, 1 for GCM");
        }
        if carrier != SRT {
            return bad("stream encapsulation", carrier.into(), "2 (SRT)");
        }
        if usize::from(salts) * 4 != SALT {
            return bad("salt length", usize::from(salts) * 4, "16");
        }
        let Some(length) = KeyLength::of(usize::from(lengths) * 4) else {
            return bad("key length", usize::from(lengths) * 4, "16, 24 or 32");
        };
        match rest.split_first_chunk::<SALT>() {
            Some((salt, wrapped)) if wrapped.len() == WRAP + keys.count() * length.bytes() => {
                Ok(Self { keys, cipher, length, salt: *salt, wrapped })
            }
            _ => bad("length", message.len(), "what the key length and flags ask for"),
        }
    }

    /// The keys that both directions begin with.
    ///
    /// # Errors
    /// The passphrases differ.
    pub(crate) fn keys(
        &self,
        kek: &Kek,
        plan: RefreshPlan,
        legacy: bool,
    ) -> Result<(SendKeys, ReceiveKeys), WrongSecret> {
        let seks = self.unwrap(kek)?;
        let first = match (&seks.even, &seks.odd) {
            (Some(even), _) => (KeyFlag::Even, even),
            (None, Some(odd)) => (KeyFlag::Odd, odd),
            (None, None) => return Err(WrongSecret),
        };
        let sender = SendKeys::new(kek, self.cipher, self.length, first, plan, legacy);
        Ok((sender, ReceiveKeys::new(kek, self.cipher, self.length, &seks, legacy)))
    }

    /// Takes the keys out.
    ///
    /// # Errors
    /// The passphrases differ. `kek` must be derived with this message's salt; one of another salt fails too.
    pub(crate) fn unwrap(&self, kek: &Kek) -> Result<Seks, WrongSecret> {
        let mut buffer = Zeroizing::new([0; 2 * 32]);
        let key = kek.bytes(self.length);
        let keys = match self.length {
            KeyLength::Aes128 => opened::<Aes128>(key, self.wrapped, &mut buffer),
            KeyLength::Aes192 => opened::<Aes192>(key, self.wrapped, &mut buffer),
            KeyLength::Aes256 => opened::<Aes256>(key, self.wrapped, &mut buffer),
        }
        .ok_or(WrongSecret)?;
        let sek = |bytes: &[u8]| {
            let mut sek = [0; 32];
            sek[..bytes.len()].copy_from_slice(bytes);
            Sek::new(sek)
        };
        Ok(match self.keys {
            KeySet::Even => Seks { even: Some(sek(keys)), odd: None },
            KeySet::Odd => Seks { even: None, odd: Some(sek(keys)) },
            KeySet::Both => {
                let (even, odd) = keys.split_at(keys.len() / 2);
                Seks { even: Some(sek(even)), odd: Some(sek(odd)) }
            }
        })
    }
}

/// The message that tells the peer `keys`: one with its flag, or both with the even one first.
pub(crate) fn write(kek: &Kek, cipher: Cipher, length: KeyLength, keys: &Announced<'_>) -> Vec<u8> {
    let mut clear = Zeroizing::new([0; 2 * 32]);
    let (set, count) = match keys {
        Announced::One(KeyFlag::Odd, sek) => {
            clear[..length.bytes()].copy_from_slice(sek.bytes(length));
            (KeySet::Odd, 1)
        }
        Announced::One(_, sek) => {
            clear[..length.bytes()].copy_from_slice(sek.bytes(length));
            (KeySet::Even, 1)
        }
        Announced::Both { even, odd } => {
            clear[..length.bytes()].copy_from_slice(even.bytes(length));
            clear[length.bytes()..2 * length.bytes()].copy_from_slice(odd.bytes(length));
            (KeySet::Both, 2)
        }
    };
    let clear = &clear[..count * length.bytes()];
    let (cipher, authentication) = match cipher {
        Cipher::Ctr => (CTR, 0),
        Cipher::Gcm => (GCM, 1),
    };
    let mut message = Vec::with_capacity(KEY_MESSAGE_MOST);
    message.extend([VERSION_AND_TYPE, SIGN[0], SIGN[1], set as u8]);
    message.extend([0; 4]);
    message.extend([cipher, authentication, SRT, 0, 0, 0, (SALT / 4) as u8, (length.bytes() / 4) as u8]);
    message.extend(kek.salt);
    let mut wrapped_bytes = [0; 2 * 32 + WRAP];
    let key = kek.bytes(length);
    // It cannot fail: the key has the cipher's length, and what it wraps is a multiple of 8 bytes.
    let wrapped = match length {
        KeyLength::Aes128 => wrapped::<Aes128>(key, clear, &mut wrapped_bytes),
        KeyLength::Aes192 => wrapped::<Aes192>(key, clear, &mut wrapped_bytes),
        KeyLength::Aes256 => wrapped::<Aes256>(key, clear, &mut wrapped_bytes),
    };
    message.extend(wrapped.unwrap_or_default());
    message
}

/// RFC 3394.
fn wrapped<'a, A>(key: &[u8], clear: &[u8], into: &'a mut [u8]) -> Option<&'a [u8]>
where
    A: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    AesKw::<A>::new_from_slice(key).ok()?.wrap_key(clear, into).ok()
}

/// `None` when the check value says that it was another key.
fn opened<'a, A>(key: &[u8], wrapped: &[u8], into: &'a mut [u8; 64]) -> Option<&'a [u8]>
where
    A: KeyInit + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    AesKw::<A>::new_from_slice(key).ok()?.unwrap_key(wrapped, into).ok()
}

/// What [`write()`] tells.
pub(crate) enum Announced<'a> {
    One(KeyFlag, &'a Sek),
    Both { even: &'a Sek, odd: &'a Sek },
}

impl KeySet {
    const fn count(self) -> usize {
        match self {
            Self::Even | Self::Odd => 1,
            Self::Both => 2,
        }
    }
}

impl KeyState {
    /// The body of a KMRSP that says it. libsrt copies the number as it stands in memory, so on nearly every
    /// machine the least byte comes first.
    pub const fn to_bytes(self) -> [u8; 4] {
        (self as u32).to_le_bytes()
    }

    /// Reads the body of a KMRSP of one word, in either order of bytes; `None` for anything else.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let word: [u8; 4] = body.try_into().ok()?;
        match u32::from_le_bytes(word).min(u32::from_be_bytes(word)) {
            0 => Some(Self::Unsecured),
            1 => Some(Self::Securing),
            2 => Some(Self::Secured),
            3 => Some(Self::NoSecret),
            4 => Some(Self::BadSecret),
            5 => Some(Self::BadCipher),
            _ => None,
        }
    }
}

/// What stands before the salt.
const FIXED: usize = 16;
/// What key wrap adds (RFC 3394).
const WRAP: usize = 8;
/// Version 1, packet type 2: keying material.
const VERSION_AND_TYPE: u8 = 0x12;
/// "HAI", five bits a letter.
const SIGN: [u8; 2] = [0x20, 0x29];
const CTR: u8 = 2;
const GCM: u8 = 4;
const SRT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::super::{Passphrase, derive};
    use super::*;

    const LENGTHS: [KeyLength; 3] = [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256];

    fn kek(passphrase: &str) -> Kek {
        derive(&Passphrase::new(passphrase).unwrap(), [9; SALT])
    }

    fn sek(fill: u8) -> Sek {
        Sek::new([fill; 32])
    }

    #[test]
    fn keys_come_out_as_they_went_in() {
        let kek = kek("open sesame!");
        for length in LENGTHS {
            for cipher in [Cipher::Ctr, Cipher::Gcm] {
                let message = write(&kek, cipher, length, &Announced::Both { even: &sek(1), odd: &sek(2) });
                assert_eq!(message.len(), 16 + 16 + 8 + 2 * length.bytes());
                let read = KeyMaterial::parse(&message).unwrap();
                assert_eq!((read.keys, read.cipher, read.length), (KeySet::Both, cipher, length));
                let seks = read.unwrap(&kek).unwrap();
                assert_eq!(seks.even.unwrap().bytes(length), sek(1).bytes(length));
                assert_eq!(seks.odd.unwrap().bytes(length), sek(2).bytes(length));

                let message = write(&kek, cipher, length, &Announced::One(KeyFlag::Odd, &sek(3)));
                let seks = KeyMaterial::parse(&message).unwrap().unwrap(&kek).unwrap();
                assert!(seks.even.is_none());
                assert_eq!(seks.odd.unwrap().bytes(length), sek(3).bytes(length));
            }
        }
    }

    /// The message of a libsrt peer, made again from what is in it.
    #[test]
    fn a_message_is_what_libsrt_writes() {
        let datagram = include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/testdata/srt/libsrt-1.5.1-aes192-conclusion.bin"
        ));
        let start = datagram.windows(3).position(|three| three == [0x12, 0x20, 0x29]).unwrap();
        let message = &datagram[start..];
        let read = KeyMaterial::parse(message).unwrap();
        let kek = derive(&Passphrase::new("opensesame!").unwrap(), read.salt);
        let even = read.unwrap(&kek).unwrap().even.unwrap();
        let ours = write(&kek, Cipher::Ctr, KeyLength::Aes192, &Announced::One(KeyFlag::Even, &even));
        assert_eq!(ours, message);
    }

    #[test]
    fn another_passphrase_unwraps_nothing() {
        for length in LENGTHS {
            let message =
                write(&kek("open sesame!"), Cipher::Ctr, length, &Announced::One(KeyFlag::Even, &sek(1)));
            let read = KeyMaterial::parse(&message).unwrap();
            assert!(read.unwrap(&kek("open barley!")).is_err());
        }
    }

    #[test]
    fn each_field_is_checked() {
        let message = write(
            &kek("open sesame!"),
            Cipher::Ctr,
            KeyLength::Aes128,
            &Announced::One(KeyFlag::Even, &sek(1)),
        );
        for (at, value, field) in [
            (0, 0x22, "version and type"),
            (1, 0, "signature"),
            (3, 0, "key flags"),
            (3, 3, "length"),
            (8, 1, "cipher"),
            (8, 4, "authentication"),
            (9, 1, "authentication"),
            (10, 1, "stream encapsulation"),
            (14, 0, "salt length"),
            (14, 255, "salt length"),
            (15, 0, "key length"),
            (15, 5, "key length"),
            (15, 8, "length"),
        ] {
            let mut message = message.clone();
            message[at] = value;
            assert_eq!(KeyMaterial::parse(&message).unwrap_err().field, field, "byte {at} = {value}");
        }
        for end in 0..message.len() {
            assert_eq!(KeyMaterial::parse(&message[..end]).unwrap_err().field, "length");
        }
    }

    #[test]
    fn a_state_is_read_in_either_order() {
        for state in [KeyState::Unsecured, KeyState::NoSecret, KeyState::BadSecret, KeyState::BadCipher] {
            let mut bytes = state.to_bytes();
            assert_eq!(KeyState::parse(&bytes), Some(state));
            bytes.reverse();
            assert_eq!(KeyState::parse(&bytes), Some(state));
        }
        assert_eq!(KeyState::parse(&[6, 0, 0, 0]), None);
        assert_eq!(KeyState::parse(&[3, 0, 0]), None);
        assert_eq!(KeyState::parse(&[]), None);
    }
}
