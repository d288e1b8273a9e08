//! A header and a payload enter, the payload encrypted or clear leaves. Never keeps a payload or counts packets.

use std::fmt;

use aes::cipher::consts::U12;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipherCore, consts::U16};
use aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInOut;
use ctr::CtrCore;
use ctr::flavors::Ctr32BE;

use super::{Cipher, KeyLength, SALT, Sek};
use crate::wire::srt::HEADER;

/// What AES-GCM adds to a payload, in bytes.
pub const GCM_TAG: usize = 16;

/// One stream key with its key schedule, which is made once and not per packet. About 1 kB on the heap.
pub struct DataKey {
    schedule: Schedule,
    salt: [u8; SALT],
    /// libsrt before 1.5.4 has another layout of nonce and authenticated header.
    legacy: bool,
}

enum Schedule {
    Ctr128(Box<Aes128Enc>),
    Ctr192(Box<Aes192Enc>),
    Ctr256(Box<Aes256Enc>),
    Gcm128(Box<AesGcm<Aes128Enc, U12>>),
    Gcm192(Box<AesGcm<Aes192Enc, U12>>),
    Gcm256(Box<AesGcm<Aes256Enc, U12>>),
}

impl DataKey {
    pub(crate) fn new(cipher: Cipher, length: KeyLength, salt: [u8; SALT], sek: &Sek, legacy: bool) -> Self {
        let bytes = sek.bytes(length);
        let mut key = [0; 32];
        key[..bytes.len()].copy_from_slice(bytes);
        let key = zeroize::Zeroizing::new(key);
        let (k16, k24) = (key.first_chunk::<16>(), key.first_chunk::<24>());
        // Chunks of an array that is long enough: the other arms are never taken.
        let schedule = match (cipher, length, k16, k24) {
            (Cipher::Ctr, KeyLength::Aes128, Some(key), _) => {
                Schedule::Ctr128(Box::new(Aes128Enc::new(key.into())))
            }
            (Cipher::Ctr, KeyLength::Aes192, _, Some(key)) => {
                Schedule::Ctr192(Box::new(Aes192Enc::new(key.into())))
            }
            (Cipher::Gcm, KeyLength::Aes128, Some(key), _) => {
                Schedule::Gcm128(Box::new(AesGcm::new(key.into())))
            }
            (Cipher::Gcm, KeyLength::Aes192, _, Some(key)) => {
                Schedule::Gcm192(Box::new(AesGcm::new(key.into())))
            }
            (Cipher::Ctr, ..) => Schedule::Ctr256(Box::new(Aes256Enc::new((&*key).into()))),
            (Cipher::Gcm, ..) => Schedule::Gcm256(Box::new(AesGcm::new((&*key).into()))),
        };
        Self { schedule, salt, legacy }
    }

    /// Bytes that a payload grows by when it is encrypted: 0 or [`GCM_TAG`].
    #[inline]
    pub const fn growth(&self) -> usize {
        match self.schedule {
            Schedule::Ctr128(_) | Schedule::Ctr192(_) | Schedule::Ctr256(_) => 0,
            Schedule::Gcm128(_) | Schedule::Gcm192(_) | Schedule::Gcm256(_) => GCM_TAG,
        }
    }

    /// Encrypts `clear` into the front of `into` and answers how many bytes that took; `None` when they do not
    /// fit, and nothing is written. `header` is the packet's, with its key flag; the retransmit flag makes no
    /// difference.
    #[inline]
    pub fn seal(&self, header: &[u8; HEADER], clear: &[u8], into: &mut [u8]) -> Option<usize> {
        let length = clear.len() + self.growth();
        let (text, tag) = into.get_mut(..length)?.split_at_mut(clear.len());
        let buffer = InOutBuf::new(clear, text).ok()?;
        let sealed = match &self.schedule {
            Schedule::Ctr128(aes) => return self.count(&**aes, header, buffer).then_some(length),
            Schedule::Ctr192(aes) => return self.count(&**aes, header, buffer).then_some(length),
            Schedule::Ctr256(aes) => return self.count(&**aes, header, buffer).then_some(length),
            Schedule::Gcm128(gcm) => {
                gcm.encrypt_inout_detached(&self.nonce(header), &self.authenticated(header), buffer)
            }
            Schedule::Gcm192(gcm) => {
                gcm.encrypt_inout_detached(&self.nonce(header), &self.authenticated(header), buffer)
            }
            Schedule::Gcm256(gcm) => {
                gcm.encrypt_inout_detached(&self.nonce(header), &self.authenticated(header), buffer)
            }
        };
        tag.copy_from_slice(&sealed.ok()?);
        Some(length)
    }

    /// Decrypts `payload` in place and answers how many bytes of it are clear text now; `None` when they are not
    /// what was encrypted (GCM only), and the payload is as it was.
    #[inline]
    pub fn open(&self, header: &[u8; HEADER], payload: &mut [u8]) -> Option<usize> {
        let length = payload.len().checked_sub(self.growth())?;
        let (text, tag) = payload.split_at_mut(length);
        let buffer = InOutBuf::from(text);
        match &self.schedule {
            Schedule::Ctr128(aes) => return self.count(&**aes, header, buffer).then_some(length),
            Schedule::Ctr192(aes) => return self.count(&**aes, header, buffer).then_some(length),
            Schedule::Ctr256(aes) => return self.count(&**aes, header, buffer).then_some(length),
            _ => {}
        }
        let tag = tag.first_chunk::<GCM_TAG>()?.into();
        let (nonce, authenticated) = (self.nonce(header), self.authenticated(header));
        match &self.schedule {
            Schedule::Gcm128(gcm) => gcm.decrypt_inout_detached(&nonce, &authenticated, buffer, tag),
            Schedule::Gcm192(gcm) => gcm.decrypt_inout_detached(&nonce, &authenticated, buffer, tag),
            Schedule::Gcm256(gcm) => gcm.decrypt_inout_detached(&nonce, &authenticated, buffer, tag),
            _ => return None,
        }
        .is_ok()
        .then_some(length)
    }

    /// Adds the key stream of this packet. The counter block is 14 bytes of salt, with the packet's number over
    /// its last four, and a block counter of 16 bits (6.2.2); no payload has 2^16 blocks.
    #[inline]
    fn count<A>(&self, aes: &A, header: &[u8; HEADER], buffer: InOutBuf<'_, '_, u8>) -> bool
    where
        A: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        let block = self.counter(header);
        CtrCore::<&A, Ctr32BE>::inner_iv_init(aes, &block.into()).try_apply_keystream_partial(buffer).is_ok()
    }

    #[inline]
    fn counter(&self, header: &[u8; HEADER]) -> [u8; 16] {
        let mut block = self.salt;
        [block[14], block[15]] = [0; 2];
        for (byte, number) in block[10..14].iter_mut().zip(&header[..4]) {
            *byte ^= number;
        }
        block
    }

    /// libsrt ≥ 1.5.4: 12 bytes of salt with the packet's number over the last four. Before: the front of the
    /// counter block, so that only the number's upper half counts. That repeats nonces and protects little; it
    /// is what those peers speak.
    #[inline]
    fn nonce(&self, header: &[u8; HEADER]) -> aes_gcm::Nonce<U12> {
        let mut nonce = [0; 12];
        if self.legacy {
            nonce.copy_from_slice(&self.counter(header)[..12]);
        } else {
            nonce.copy_from_slice(&self.salt[..12]);
            for (byte, number) in nonce[8..].iter_mut().zip(&header[..4]) {
                *byte ^= number;
            }
        }
        nonce.into()
    }

    /// The header as it was first sent; before libsrt 1.5.4, each word in the order of a little-endian machine.
    #[inline]
    fn authenticated(&self, header: &[u8; HEADER]) -> [u8; HEADER] {
        let mut header = *header;
        header[4] &= !RETRANSMITTED;
        if self.legacy {
            header.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        }
        header
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(***)")
    }
}

/// In the fifth byte of a data header.
const RETRANSMITTED: u8 = 0x04;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::srt::{Boundary, DataHeader, KeyFlag, Seq, SocketId};

    fn header(sequence: u32, retransmitted: bool) -> [u8; HEADER] {
        DataHeader {
            sequence: Seq::new(sequence),
            boundary: Boundary::Solo,
            in_order: false,
            key: KeyFlag::Even,
            retransmitted,
            message: 1,
            timestamp: 5,
            destination: SocketId(9),
        }
        .to_bytes()
    }

    fn keys() -> impl Iterator<Item = DataKey> {
        let sek = Sek::new(std::array::from_fn(|at| at as u8));
        [Cipher::Ctr, Cipher::Gcm].into_iter().flat_map(move |cipher| {
            let sek = sek.clone();
            [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256].into_iter().flat_map(move |length| {
                let sek = sek.clone();
                [false, true].map(|legacy| DataKey::new(cipher, length, [0x5A; SALT], &sek, legacy))
            })
        })
    }

    #[test]
    fn every_cipher_opens_what_it_sealed() {
        let clear: Vec<u8> = (0..1316).map(|at| at as u8).collect();
        for key in keys() {
            for length in [0, 1, 15, 16, 17, 188, 1316] {
                let clear = &clear[..length];
                let mut sealed = vec![0; length + GCM_TAG];
                let count = key.seal(&header(77, false), clear, &mut sealed).unwrap();
                assert_eq!(count, length + key.growth());
                sealed.truncate(count);
                assert!(length < 16 || sealed[..length] != *clear);
                // a retransmit opens as well
                assert_eq!(key.open(&header(77, true), &mut sealed), Some(length));
                assert_eq!(sealed[..length], *clear);
            }
        }
    }

    #[test]
    fn each_packet_has_its_own_key_stream() {
        for key in keys().filter(|key| !key.legacy) {
            let mut streams = [0, 1, 0x7FFF_FFFF].map(|sequence| {
                let mut stream = vec![0; 64 + GCM_TAG];
                key.seal(&header(sequence, false), &[0; 64], &mut stream).unwrap();
                stream
            });
            streams.sort();
            assert!(streams[0] != streams[1] && streams[1] != streams[2]);
        }
    }

    #[test]
    fn a_changed_packet_does_not_open_and_stays_as_it_was() {
        for key in keys().filter(|key| key.growth() > 0) {
            let mut sealed = vec![0; 100 + GCM_TAG];
            key.seal(&header(5, false), &[3; 100], &mut sealed).unwrap();
            for at in [0, 50, 100, 115] {
                let mut damaged = sealed.clone();
                damaged[at] ^= 1;
                let before = damaged.clone();
                assert_eq!(key.open(&header(5, false), &mut damaged), None);
                assert_eq!(damaged, before);
            }
            let mut other_time = header(5, false);
            other_time[11] ^= 1;
            assert_eq!(key.open(&other_time, &mut sealed.clone()), None);
            assert_eq!(key.open(&header(5, false), &mut [0; 15]), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        for key in keys() {
            let mut small = vec![0xEE; 99 + key.growth()];
            assert_eq!(key.seal(&header(5, false), &[3; 100], &mut small), None);
            assert!(small.iter().all(|byte| *byte == 0xEE));
        }
    }

    /// NIST SP 800-38A F.5.1, brought into SRT's counter block: the first block of CTR-AES128 with a counter
    /// whose last two bytes are zero is AES of that block.
    #[test]
    fn the_counter_block_is_salt_and_number() {
        let sek = Sek::new([0x2b; 32]);
        let key = DataKey::new(Cipher::Ctr, KeyLength::Aes128, [0x5A; SALT], &sek, false);
        let mut stream = [0; 16];
        key.seal(&header(0x0102_0304, false), &[0; 16], &mut stream).unwrap();
        let mut want = [0x5A; 16];
        for (at, byte) in [(10, 1), (11, 2), (12, 3), (13, 4)] {
            want[at] ^= byte;
        }
        [want[14], want[15]] = [0; 2];
        let mut block = want.into();
        Aes128Enc::new(&[0x2b; 16].into()).encrypt_block(&mut block);
        assert_eq!(stream, block.as_slice());
    }
}
