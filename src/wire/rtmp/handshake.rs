//! The first 3,073 bytes of a connection enter, what answers them leaves: the handshake as RTMP 1.0 has it (5.2), and
//! the one with digests that Flash Media Server and ffmpeg speak. What is left over are chunks. Never encrypts
//! (RTMPE is refused by name).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Greets a server: C0 and C1, then C2.
#[derive(Debug)]
pub struct Caller {
    hello: Hello,
    input: Vec<u8>,
    /// S0 and S1 were answered.
    answered: bool,
    done: bool,
}

/// Answers a client: S0, S1 and S2.
#[derive(Debug)]
pub struct Answerer {
    seed: [u8; 16],
    time: u32,
    input: Vec<u8>,
    answered: bool,
    done: bool,
}

/// Why a peer does not speak RTMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// An encrypted variant of the protocol.
    #[error("the peer wants RTMPE (version {0}), expected plain RTMP or RTMPS")]
    Encrypted(u8),
    /// A TLS record.
    #[error("the peer speaks TLS: rtmps:// belongs on the TLS port")]
    Tls,
    /// An HTTP request or answer.
    #[error("the peer speaks HTTP, expected RTMP (RTMPT is not supported)")]
    Http,
    /// Something else.
    #[error("RTMP version {0}, expected 3")]
    Version(u8),
}

/// C0 and C1 as they were sent.
type Hello = Box<[u8; 1 + BLOCK]>;

impl Caller {
    /// Appends C0 and C1 to `out`. `time` is in milliseconds from any origin, `seed` random; `digest` says that C1
    /// has one, and C2 too where the server has one.
    pub fn new(time: u32, seed: [u8; 16], digest: bool, out: &mut Vec<u8>) -> Self {
        let version = if digest { PLAYER_VERSION } else { [0; 4] };
        let hello = hello(time, version, seed, digest.then_some(&PLAYER_KEY[..30]));
        out.extend(hello.iter());
        Self { hello, input: Vec::new(), answered: false, done: false }
    }

    /// Takes bytes from the front of `input`, appends what answers them to `out`, and answers whether chunks follow.
    ///
    /// # Errors
    /// The peer speaks something else.
    pub fn read(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, BadHello> {
        take(&mut self.input, 1 + 2 * BLOCK, input);
        check_version(&self.input)?;
        if !self.answered
            && let Some((s1, _)) = self.input.get(1..).and_then(|rest| rest.split_first_chunk::<BLOCK>())
        {
            // Only a client that signed C1 has a C2 to sign.
            let digest = self.hello[5..9] != [0; 4];
            match find_digest(s1, &SERVER_KEY[..36]).filter(|_| digest) {
                Some(digest) => {
                    let mut seed = [0; 16];
                    seed.copy_from_slice(&digest[..16]);
                    out.extend(signed_reply(&digest, seed, &PLAYER_KEY));
                }
                None => out.extend(s1),
            }
            self.answered = true;
        }
        // S2 is read and not looked at: servers that echo something else are about, and nothing rests on it.
        self.done = self.input.len() == 1 + 2 * BLOCK;
        Ok(self.done)
    }
}

impl Answerer {
    /// Waits for a client. `time` is in milliseconds from any origin, `seed` random.
    pub fn new(time: u32, seed: [u8; 16]) -> Self {
        Self { seed, time, input: Vec::new(), answered: false, done: false }
    }

    /// Takes bytes from the front of `input`, appends what answers them to `out`, and answers whether chunks follow.
    ///
    /// # Errors
    /// The peer speaks something else.
    pub fn read(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, BadHello> {
        take(&mut self.input, 1 + 2 * BLOCK, input);
        check_version(&self.input)?;
        if !self.answered
            && let Some((c1, _)) = self.input.get(1..).and_then(|rest| rest.split_first_chunk::<BLOCK>())
        {
            // Both layouts have their key in the same place of the same hash, so that the answer need not know which.
            let digest = (c1[4..8] != [0; 4]).then(|| find_digest(c1, &PLAYER_KEY[..30])).flatten();
            match digest {
                Some(digest) => {
                    out.extend(hello(self.time, SERVER_VERSION, self.seed, Some(&SERVER_KEY[..36])).iter());
                    out.extend(signed_reply(&digest, self.seed, &SERVER_KEY));
                }
                None => {
                    out.extend(hello(self.time, [0; 4], self.seed, None).iter());
                    out.extend(c1);
                }
            }
            self.answered = true;
        }
        self.done = self.input.len() == 1 + 2 * BLOCK;
        Ok(self.done)
    }
}

/// Moves bytes from `input` to `into` until that has `whole`.
fn take(into: &mut Vec<u8>, whole: usize, input: &mut &[u8]) {
    let (now, later) = input.split_at(whole.saturating_sub(into.len()).min(input.len()));
    into.extend(now);
    *input = later;
}

fn check_version(input: &[u8]) -> Result<(), BadHello> {
    match input {
        [] | [VERSION, ..] => Ok(()),
        [0x16, ..] => Err(BadHello::Tls),
        [version @ (6 | 8 | 9), ..] => Err(BadHello::Encrypted(*version)),
        // GET, POST, PUT, HEAD, OPTIONS, HTTP/1.1
        [b'G' | b'P' | b'H' | b'O', ..] => Err(BadHello::Http),
        [version, ..] => Err(BadHello::Version(*version)),
    }
}

/// C0 and C1, or S0 and S1.
fn hello(time: u32, version: [u8; 4], seed: [u8; 16], key: Option<&[u8]>) -> Hello {
    let mut hello = Box::new([0; 1 + BLOCK]);
    hello[0] = VERSION;
    hello[1..5].copy_from_slice(&time.to_be_bytes());
    hello[5..9].copy_from_slice(&version);
    fill(&mut hello[9..], seed);
    if let Some(key) = key {
        let mut block = [0; BLOCK];
        block.copy_from_slice(&hello[1..]);
        let at = digest_place(&block, FIRST_LAYOUT);
        let digest = hmac(key, &[&block[..at], &block[at + DIGEST..]]);
        hello[1 + at..1 + at + DIGEST].copy_from_slice(&digest);
    }
    hello
}

/// C2 or S2 with a digest that only who saw `digest` can make.
fn signed_reply(digest: &[u8; DIGEST], seed: [u8; 16], key: &[u8]) -> [u8; BLOCK] {
    let mut reply = [0; BLOCK];
    fill(&mut reply[..BLOCK - DIGEST], seed.map(|byte| !byte));
    let signature = hmac(&hmac(key, &[digest]), &[&reply[..BLOCK - DIGEST]]);
    reply[BLOCK - DIGEST..].copy_from_slice(&signature);
    reply
}

/// The digest of C1 or S1, in either of the two layouts, if it has one that is right.
fn find_digest(block: &[u8; BLOCK], key: &[u8]) -> Option<[u8; DIGEST]> {
    [FIRST_LAYOUT, SECOND_LAYOUT].into_iter().find_map(|layout| {
        let at = digest_place(block, layout);
        let digest = hmac(key, &[&block[..at], &block[at + DIGEST..]]);
        (digest[..] == block[at..at + DIGEST]).then_some(digest)
    })
}

/// Where the digest stands: behind four bytes whose sum says how far.
fn digest_place(block: &[u8; BLOCK], layout: usize) -> usize {
    let sum: usize = block[layout..layout + 4].iter().map(|byte| usize::from(*byte)).sum();
    layout + 4 + sum % 728
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; DIGEST] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Bytes that differ from connection to connection; nothing secret rests on them (splitmix64).
fn fill(bytes: &mut [u8], seed: [u8; 16]) {
    let mut state = u128::from_be_bytes(seed) as u64 ^ (u128::from_be_bytes(seed) >> 64) as u64;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        chunk.copy_from_slice(&(word ^ (word >> 31)).to_be_bytes()[..chunk.len()]);
    }
}

const VERSION: u8 = 3;
/// C1, C2, S1 and S2.
const BLOCK: usize = 1536;
const DIGEST: usize = 32;
const FIRST_LAYOUT: usize = 8;
const SECOND_LAYOUT: usize = 772;
const PLAYER_VERSION: [u8; 4] = [9, 0, 124, 2];
const SERVER_VERSION: [u8; 4] = [4, 5, 0, 1];
/// What every implementation signs with: a name, then 32 bytes that both sides have.
const PLAYER_KEY: [u8; 62] = *b"Genuine Adobe Flash Player 001\
    \xF0\xEE\xC2\x4A\x80\x68\xBE\xE8\x2E\x00\xD0\xD1\x02\x9E\x7E\x57\
    \x6E\xEC\x5D\x2D\x29\x80\x6F\xAB\x93\xB8\xE6\x36\xCF\xEB\x31\xAE";
const SERVER_KEY: [u8; 68] = *b"Genuine Adobe Flash Media Server 001\
    \xF0\xEE\xC2\x4A\x80\x68\xBE\xE8\x2E\x00\xD0\xD1\x02\x9E\x7E\x57\
    \x6E\xEC\x5D\x2D\x29\x80\x6F\xAB\x93\xB8\xE6\x36\xCF\xEB\x31\xAE";

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets both shake hands with `step` bytes in each piece; answers what each sent.
    fn shake(digest: bool, step: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
        let mut caller = Caller::new(7, [1; 16], digest, &mut from_client);
        let mut answerer = Answerer::new(9, [2; 16]);
        let (mut client_at, mut server_at, mut done) = (0, 0, [false; 2]);
        while done != [true; 2] {
            let mut piece = &from_client[client_at..(client_at + step).min(from_client.len())];
            client_at += piece.len();
            done[0] = answerer.read(&mut piece, &mut from_server).unwrap();
            assert!(piece.is_empty());
            let mut piece = &from_server[server_at..(server_at + step).min(from_server.len())];
            server_at += piece.len();
            done[1] = caller.read(&mut piece, &mut from_client).unwrap();
            assert!(piece.is_empty());
        }
        (from_client, from_server)
    }

    #[test]
    fn a_plain_client_gets_an_echo() {
        for step in [1, 100, 5000] {
            let (client, server) = shake(false, step);
            assert_eq!((client.len(), server.len()), (3073, 3073));
            assert_eq!(client[1..1537], server[1537..], "S2 is C1");
            assert_eq!(server[1..1537], client[1537..], "C2 is S1");
        }
    }

    #[test]
    fn a_client_with_a_digest_gets_one_and_both_replies_are_signed() {
        for step in [1, 100, 5000] {
            let (client, server) = shake(true, step);
            let block = |bytes: &[u8]| *bytes.first_chunk::<BLOCK>().unwrap();
            let c1 = find_digest(&block(&client[1..]), &PLAYER_KEY[..30]).expect("C1 has a digest");
            let s1 = find_digest(&block(&server[1..]), &SERVER_KEY[..36]).expect("S1 has a digest");
            let signed = |reply: &[u8], digest, key: &[u8]| {
                hmac(&hmac(key, &[digest]), &[&reply[..1504]])[..] == reply[1504..]
            };
            assert!(signed(&server[1537..], &c1, &SERVER_KEY));
            assert!(signed(&client[1537..], &s1, &PLAYER_KEY));
        }
    }

    #[test]
    fn a_digest_in_the_second_layout_is_found() {
        let mut block = [0; BLOCK];
        fill(&mut block[8..], [5; 16]);
        let at = digest_place(&block, SECOND_LAYOUT);
        let digest = hmac(&PLAYER_KEY[..30], &[&block[..at], &block[at + DIGEST..]]);
        block[at..at + DIGEST].copy_from_slice(&digest);
        assert_eq!(find_digest(&block, &PLAYER_KEY[..30]), Some(digest));
        block[at] ^= 1;
        assert_eq!(find_digest(&block, &PLAYER_KEY[..30]), None);
    }

    #[test]
    fn what_follows_the_handshake_is_left_to_the_reader() {
        let mut out = Vec::new();
        let mut answerer = Answerer::new(0, [0; 16]);
        let bytes = [&[3][..], &[0; 3072], b"chunks"].concat();
        let mut input = bytes.as_slice();
        assert_eq!(answerer.read(&mut input, &mut out), Ok(true));
        assert_eq!(input, b"chunks");
    }

    #[test]
    fn other_protocols_are_named() {
        for (first, want) in [
            (6, BadHello::Encrypted(6)),
            (0x16, BadHello::Tls),
            (b'G', BadHello::Http),
            (b'H', BadHello::Http),
            (0, BadHello::Version(0)),
        ] {
            let mut out = Vec::new();
            assert_eq!(Answerer::new(0, [0; 16]).read(&mut &[first][..], &mut out), Err(want));
            assert!(out.is_empty(), "nothing is said to who does not speak RTMP");
        }
    }
}
