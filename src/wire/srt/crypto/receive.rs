//! KMREQs and encrypted payloads enter, KMRSPs and clear payloads leave (draft-sharabayko-srt-01, 6.1.6). Never
//! derives a key itself: that takes milliseconds, so the owner is asked to.

use super::material::{KeyMaterial, KeyState, Seks};
use super::{Cipher, DataKey, Kek, KeyLength, SALT};
use crate::wire::srt::{HEADER, KeyFlag};

/// The keys that one side decrypts with, as the peer changes them.
#[derive(Debug)]
pub struct ReceiveKeys {
    kek: Kek,
    cipher: Cipher,
    length: KeyLength,
    legacy: bool,
    even: Option<DataKey>,
    odd: Option<DataKey>,
    /// The message that the keys came with, to know its repeats by.
    last: Vec<u8>,
}

/// What a KMREQ asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum KeyReply {
    /// Send this body as KMRSP: the message itself if its keys are in use now, or one word that says why not.
    Answer(Vec<u8>),
    /// The peer has changed its salt: derive with it, away from the data thread, and call
    /// [`ReceiveKeys::adopt`] with the same message. One derivation at a time is enough; the peer repeats itself.
    Derive([u8; SALT]),
}

impl ReceiveKeys {
    pub(crate) fn new(kek: &Kek, cipher: Cipher, length: KeyLength, first: &Seks, legacy: bool) -> Self {
        let key = |sek| DataKey::new(cipher, length, kek.salt, sek, legacy);
        let (even, odd) = (first.even.as_ref().map(key), first.odd.as_ref().map(key));
        Self { kek: kek.clone(), cipher, length, legacy, even, odd, last: Vec::new() }
    }

    /// Decrypts `payload` in place with the key that `flag` names and answers how many bytes of it are clear
    /// text; `None` when there is no such key, or (GCM) the packet is not what was sent.
    #[inline]
    pub fn open(&self, header: &[u8; HEADER], flag: KeyFlag, payload: &mut [u8]) -> Option<usize> {
        match flag {
            KeyFlag::Even => self.even.as_ref(),
            KeyFlag::Odd => self.odd.as_ref(),
            KeyFlag::Clear => None,
        }?
        .open(header, payload)
    }

    /// Takes the body of a KMREQ. One that is malformed or wrapped otherwise changes no key.
    pub fn handle(&mut self, request: &[u8]) -> KeyReply {
        if !self.last.is_empty() && self.last == request {
            return KeyReply::Answer(request.to_vec());
        }
        match KeyMaterial::parse(request) {
            // libsrt says so of whatever it cannot read
            Err(_) => refusal(KeyState::NoSecret),
            Ok(material) if material.salt != self.kek.salt => KeyReply::Derive(material.salt),
            Ok(material) => self.take(&material, request),
        }
    }

    /// Goes on with a KMREQ that [`KeyReply::Derive`] was the reply to. A `kek` of another passphrase changes no
    /// key.
    pub fn adopt(&mut self, kek: &Kek, request: &[u8]) -> KeyReply {
        match KeyMaterial::parse(request) {
            Err(_) => refusal(KeyState::NoSecret),
            Ok(material) if material.salt != kek.salt => KeyReply::Derive(material.salt),
            Ok(material) => {
                let old = std::mem::replace(&mut self.kek, kek.clone());
                let reply = self.take(&material, request);
                if self.last != request {
                    self.kek = old;
                }
                reply
            }
        }
    }

    /// The cipher and how long the keys are.
    pub const fn strength(&self) -> (Cipher, KeyLength) {
        (self.cipher, self.length)
    }

    fn take(&mut self, material: &KeyMaterial<'_>, request: &[u8]) -> KeyReply {
        if material.cipher != self.cipher {
            return refusal(KeyState::BadCipher);
        }
        let Ok(seks) = material.unwrap(&self.kek) else { return refusal(KeyState::BadSecret) };
        let key = |sek| DataKey::new(self.cipher, material.length, material.salt, &sek, self.legacy);
        let (even, odd) = (seks.even.map(key), seks.odd.map(key));
        self.length = material.length;
        self.even = even.or(self.even.take());
        self.odd = odd.or(self.odd.take());
        self.last = request.to_vec();
        KeyReply::Answer(request.to_vec())
    }
}

fn refusal(state: KeyState) -> KeyReply {
    KeyReply::Answer(state.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::material::{Announced, write};
    use super::super::{Passphrase, Sek, derive};
    use super::*;

    const LENGTH: KeyLength = KeyLength::Aes192;

    fn kek(passphrase: &str, salt: u8) -> Kek {
        derive(&Passphrase::new(passphrase).unwrap(), [salt; SALT])
    }

    fn sek(fill: u8) -> Sek {
        Sek::new([fill; 32])
    }

    fn receiver() -> ReceiveKeys {
        let kek = kek("open sesame!", 9);
        ReceiveKeys::new(&kek, Cipher::Ctr, LENGTH, &Seks { even: Some(sek(1)), odd: None }, false)
    }

    fn sealed(kek: &Kek, fill: u8) -> [u8; 20] {
        let mut sealed = [0; 20];
        DataKey::new(Cipher::Ctr, LENGTH, kek.salt, &sek(fill), false)
            .seal(&[0; HEADER], &[0x47; 20], &mut sealed)
            .unwrap();
        sealed
    }

    fn opens(receiver: &ReceiveKeys, flag: KeyFlag, mut payload: [u8; 20]) -> bool {
        receiver.open(&[0; HEADER], flag, &mut payload) == Some(20) && payload == [0x47; 20]
    }

    #[test]
    fn a_new_key_is_taken_in_mid_stream_and_the_old_one_kept() {
        let (mut receiver, kek) = (receiver(), kek("open sesame!", 9));
        assert!(!opens(&receiver, KeyFlag::Odd, sealed(&kek, 2)));
        let request = write(&kek, Cipher::Ctr, LENGTH, &Announced::One(KeyFlag::Odd, &sek(2)));
        for _ in 0..2 {
            assert_eq!(receiver.handle(&request), KeyReply::Answer(request.clone()));
            assert!(opens(&receiver, KeyFlag::Even, sealed(&kek, 1)));
            assert!(opens(&receiver, KeyFlag::Odd, sealed(&kek, 2)));
        }
    }

    #[test]
    fn a_refused_request_changes_nothing() {
        let (mut receiver, good) = (receiver(), kek("open sesame!", 9));
        let other = kek("open barley!", 9);
        let even = Announced::One(KeyFlag::Even, &sek(7));
        for (request, state) in [
            (write(&other, Cipher::Ctr, LENGTH, &even), KeyState::BadSecret),
            (write(&good, Cipher::Gcm, LENGTH, &even), KeyState::BadCipher),
            (vec![0x12; 70], KeyState::NoSecret),
            (vec![], KeyState::NoSecret),
        ] {
            assert_eq!(receiver.handle(&request), KeyReply::Answer(state.to_bytes().to_vec()));
            assert!(opens(&receiver, KeyFlag::Even, sealed(&good, 1)));
        }
    }

    #[test]
    fn a_new_salt_is_derived_elsewhere() {
        let (mut receiver, fresh) = (receiver(), kek("open sesame!", 10));
        let request = write(&fresh, Cipher::Ctr, LENGTH, &Announced::One(KeyFlag::Even, &sek(5)));
        assert_eq!(receiver.handle(&request), KeyReply::Derive([10; SALT]));
        let wrong = kek("open barley!", 10);
        let bad = KeyReply::Answer(KeyState::BadSecret.to_bytes().to_vec());
        assert_eq!(receiver.adopt(&wrong, &request), bad);
        assert!(opens(&receiver, KeyFlag::Even, sealed(&kek("open sesame!", 9), 1)));
        assert_eq!(receiver.adopt(&fresh, &request), KeyReply::Answer(request.clone()));
        assert!(opens(&receiver, KeyFlag::Even, sealed(&fresh, 5)));
        assert_eq!(receiver.handle(&request), KeyReply::Answer(request));
    }
}
