//! Challenges enter and credentials leave (client); or credentials enter and the answer whether they are right leaves
//! (server). Basic (RFC 7617) and Digest (RFC 7616, 2617). Keeps no password that it was not given, logs none.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http_auth::{ChallengeRef, DigestClient, ParamValue, PasswordParams, parse_challenges};
use md5::{Digest as _, Md5};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::message::Headers;

/// Who dials, and the proof. Shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

/// Answers the challenges of one server.
pub struct Responder {
    credentials: Credentials,
    scheme: Scheme,
    /// Challenges that were taken in a row without a request going through.
    tries: u8,
}

enum Scheme {
    Unknown,
    Basic,
    Digest(Box<DigestClient>),
}

/// Why a challenge has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// The same credentials were refused before.
    #[error("the server refuses user and password")]
    Refused,
    /// No scheme that is known, or a challenge that breaks its grammar.
    #[error("the server asks for neither Basic nor Digest authentication with MD5 or SHA-256")]
    Scheme,
}

/// Makes nonces, and knows its own again without remembering them.
#[derive(Clone)]
pub struct Nonces {
    secret: Zeroizing<[u8; 32]>,
    realm: String,
}

/// What a request said about who sends it.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Presented {
    /// Nothing.
    #[default]
    Nobody,
    /// In clear.
    Basic(Credentials),
    /// A digest.
    Digest(Box<Digest>),
    /// A nonce that is too old, or none of ours: the peer asks again with a new one.
    Stale,
    /// Something that is neither.
    Garbled,
}

/// The fields of a digest that [`Presented::proves`] needs; its nonce is ours and young.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest {
    user: String,
    realm: String,
    method: String,
    uri: String,
    nonce: String,
    response: String,
    /// `nc`, `cnonce` and `qop`, if there is a `qop`.
    quality: Option<(String, String, String)>,
}

impl Credentials {
    /// Takes a user and a password.
    pub fn new(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: Zeroizing::new(password.into()) }
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl Responder {
    /// Answers with these credentials.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, scheme: Scheme::Unknown, tries: 0 }
    }

    /// Takes the challenges of a 401. The strongest scheme wins: Digest with SHA-256, Digest with MD5, Basic.
    ///
    /// # Errors
    /// They cannot be answered, or were answered in vain: a new nonce is taken (once per request, twice when the
    /// server calls the old one stale), the same one is not.
    pub fn challenge(&mut self, headers: &Headers) -> Result<(), Unanswerable> {
        let values: Vec<&str> = headers.all("WWW-Authenticate").take(8).collect();
        let challenges: Vec<ChallengeRef<'_>> =
            values.iter().filter_map(|value| parse_challenges(value).ok()).flatten().collect();
        let digest = challenges
            .iter()
            .filter_map(read_digest)
            .max_by_key(|digest| u8::from(digest.algorithm() != http_auth::digest::Algorithm::Md5));
        let basic = challenges.iter().any(|challenge| challenge.scheme.eq_ignore_ascii_case("Basic"));
        let next = match digest {
            Some(digest) => Scheme::Digest(Box::new(digest)),
            None if basic => Scheme::Basic,
            None => return Err(Unanswerable::Scheme),
        };
        let again = match (&self.scheme, &next) {
            (Scheme::Basic, Scheme::Basic) => true,
            (Scheme::Digest(old), Scheme::Digest(new)) => old.nonce() == new.nonce() && !new.stale(),
            _ => false,
        };
        self.tries += 1;
        if again || self.tries > TRIES_MOST {
            return Err(Unanswerable::Refused);
        }
        self.scheme = next;
        Ok(())
    }

    /// A request went through.
    pub fn accepted(&mut self) {
        self.tries = 0;
    }

    /// The Authorization header of a request; `None` before the first challenge. `random` makes the client's nonce.
    pub fn authorize(&mut self, method: &str, uri: &str, random: [u8; 16]) -> Option<String> {
        let (username, password) = (self.credentials.user.as_str(), self.credentials.password.as_str());
        match &mut self.scheme {
            Scheme::Unknown => None,
            Scheme::Basic => Some(http_auth::basic::encode_credentials(username, password)),
            Scheme::Digest(client) => {
                let params = PasswordParams { username, password, uri, method, body: None };
                // The name is a warning to those who give a constant; randomness is an argument here.
                client.respond_with_testing_cnonce(&params, &hex(&random)).ok()
            }
        }
    }
}

impl Nonces {
    /// Nonces of a server; `secret` is random, `realm` is what the user is shown.
    pub fn new(secret: [u8; 32], realm: &str) -> Self {
        Self { secret: Zeroizing::new(secret), realm: realm.replace(['"', '\\'], "") }
    }

    /// The values of the WWW-Authenticate headers for `peer` (its address) at `now` (nanoseconds): Digest with MD5,
    /// as every client knows it, and Basic where it is allowed (only where nobody listens: TLS, or by choice).
    pub fn challenges(&self, peer: &[u8], now: u64, stale: bool, basic: bool) -> Vec<String> {
        let nonce = self.nonce(peer, now / NANOS);
        let stale = if stale { ", stale=true" } else { "" };
        let mut out =
            vec![format!("Digest realm=\"{}\", nonce=\"{nonce}\", algorithm=MD5{stale}", self.realm)];
        if basic {
            out.push(format!("Basic realm=\"{}\"", self.realm));
        }
        out
    }

    /// Reads what a request of `peer` presents at `now` (nanoseconds).
    pub fn read(
        &self,
        authorization: Option<&str>,
        method: &str,
        uri: &str,
        peer: &[u8],
        now: u64,
    ) -> Presented {
        let Some(value) = authorization else { return Presented::Nobody };
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("Basic") {
            return read_basic(rest.trim()).map_or(Presented::Garbled, Presented::Basic);
        }
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Presented::Garbled;
        }
        let field = |name: &str| parameter(rest, name);
        let (Some(user), Some(nonce), Some(theirs), Some(response)) =
            (field("username"), field("nonce"), field("uri"), field("response"))
        else {
            return Presented::Garbled;
        };
        let md5 = field("algorithm").is_none_or(|name| name.eq_ignore_ascii_case("MD5"));
        if !md5 || !same_resource(&theirs, uri) {
            return Presented::Garbled;
        }
        if !self.is_ours(&nonce, peer, now / NANOS) {
            return Presented::Stale;
        }
        let quality = match (field("qop"), field("nc"), field("cnonce")) {
            (None, _, _) => None,
            (Some(qop), Some(nc), Some(cnonce)) if qop == "auth" => Some((nc, cnonce, qop)),
            _ => return Presented::Garbled,
        };
        let realm = self.realm.clone();
        Presented::Digest(Box::new(Digest {
            user,
            realm,
            method: method.into(),
            uri: theirs,
            nonce,
            response,
            quality,
        }))
    }

    /// Seconds in clear, and a code over them that only this server can make.
    fn nonce(&self, peer: &[u8], seconds: u64) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(&*self.secret).unwrap_or_else(|_| {
            // HMAC takes keys of any length (RFC 2104, 2).
            Hmac::<Sha1>::new(&Default::default())
        });
        mac.update(&seconds.to_be_bytes());
        mac.update(peer);
        hex(&seconds.to_be_bytes()) + &hex(&mac.finalize().into_bytes())
    }

    fn is_ours(&self, nonce: &str, peer: &[u8], now: u64) -> bool {
        let seconds = nonce.get(..16).and_then(|text| u64::from_str_radix(text, 16).ok());
        seconds.is_some_and(|seconds| {
            seconds <= now && now - seconds <= NONCE_SECONDS && equal(&self.nonce(peer, seconds), nonce)
        })
    }
}

impl Presented {
    /// Who it says it is.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Basic(credentials) => Some(&credentials.user),
            Self::Digest(digest) => Some(&digest.user),
            Self::Nobody | Self::Stale | Self::Garbled => None,
        }
    }

    /// The password, where it came in clear.
    pub fn password(&self) -> Option<&str> {
        match self {
            Self::Basic(credentials) => Some(&credentials.password),
            _ => None,
        }
    }

    /// True when it proves to be `user` with `password`.
    pub fn proves(&self, user: &str, password: &str) -> bool {
        match self {
            Self::Basic(credentials) => {
                // Both are compared, whatever the first says.
                equal(&credentials.user, user) & equal(&credentials.password, password)
            }
            Self::Digest(digest) => {
                let named = equal(&digest.user, user);
                named & equal(&digest.expected(password), &digest.response.to_ascii_lowercase())
            }
            Self::Nobody | Self::Stale | Self::Garbled => false,
        }
    }
}

impl Digest {
    /// RFC 2617, 3.2.2.1: with a `qop` and without.
    fn expected(&self, password: &str) -> String {
        let secret = md5_hex(&[&self.user, &self.realm, password]);
        let request = md5_hex(&[&self.method, &self.uri]);
        match &self.quality {
            Some((nc, cnonce, qop)) => md5_hex(&[&secret, &self.nonce, nc, cnonce, qop, &request]),
            None => md5_hex(&[&secret, &self.nonce, &request]),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("tries", &self.tries).finish_non_exhaustive()
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonces").field("realm", &self.realm).finish_non_exhaustive()
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Basic(_) => "Basic",
            Self::Digest(_) => "Digest",
            Self::Stale => "Stale",
            Self::Garbled => "Garbled",
        })
    }
}

/// A Digest challenge that can be answered. Some cameras write the algorithm in lower case.
fn read_digest(challenge: &ChallengeRef<'_>) -> Option<DigestClient> {
    let mut challenge = challenge.clone();
    for (name, value) in &mut challenge.params {
        if name.eq_ignore_ascii_case("algorithm") && value.as_escaped().eq_ignore_ascii_case("md5") {
            *value = ParamValue::try_from_escaped("MD5").ok()?;
        }
    }
    DigestClient::try_from(&challenge).ok()
}

fn read_basic(text: &str) -> Option<Credentials> {
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
    let (user, password) = str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some(Credentials::new(user, password))
}

/// A parameter of a Digest header: a token, or a quoted string with its escapes.
fn parameter(rest: &str, wanted: &str) -> Option<String> {
    let mut rest = rest;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let (name, behind) = rest.split_once('=')?;
        let (value, next) = match behind.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let end = loop {
                    match chars.next()? {
                        (at, '"') => break at + 1,
                        (_, '\\') => value.push(chars.next()?.1),
                        (_, other) => value.push(other),
                    }
                };
                (value, quoted.get(end..)?)
            }
            None => {
                let end = behind.find(',').unwrap_or(behind.len());
                (behind.get(..end)?.trim().to_owned(), behind.get(end..)?)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = next;
    }
}

/// Clients sign the URI of the request, the one without the track, or one with another slash at its end: each of them
/// begins with the other.
fn same_resource(signed: &str, requested: &str) -> bool {
    let path = |uri: &str| {
        let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
        let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("");
        path.trim_end_matches('/').to_owned()
    };
    let (signed, requested) = (path(signed), path(requested));
    let within = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    within(&signed, &requested) || within(&requested, &signed)
}

fn md5_hex(parts: &[&str]) -> String {
    let mut hash = Md5::new();
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            hash.update(b":");
        }
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}

/// Compares in a time that tells nothing about where the texts differ.
fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const NANOS: u64 = 1_000_000_000;

/// A nonce is taken so long.
const NONCE_SECONDS: u64 = 300;

/// Challenges in a row that are answered for one request: the first, and one with a fresh nonce.
const TRIES_MOST: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "rtsp://h:8554/cam/trackID=0";
    const PEER: &[u8] = &[192, 0, 2, 1];
    const NOW: u64 = 1_000 * NANOS;

    fn headers(challenges: &[&str]) -> Headers {
        let mut headers = Headers::default();
        challenges.iter().for_each(|challenge| headers.push("WWW-Authenticate", *challenge));
        headers
    }

    fn nonces() -> Nonces {
        Nonces::new([7; 32], "millrace")
    }

    fn answer(challenges: &[String], user: &str, password: &str) -> String {
        let mut responder = Responder::new(Credentials::new(user, password));
        let challenges: Vec<&str> = challenges.iter().map(String::as_str).collect();
        responder.challenge(&headers(&challenges)).unwrap();
        responder.authorize("SETUP", URI, [1; 16]).unwrap()
    }

    #[test]
    fn our_client_proves_itself_to_our_server() {
        let nonces = nonces();
        let digest = nonces.challenges(PEER, NOW, false, true);
        for challenges in [&digest[..], &digest[1..]] {
            for (password, right) in [("s3cret\"\\", true), ("wrong", false)] {
                let value = answer(challenges, "ann", password);
                let presented = nonces.read(Some(&value), "SETUP", URI, PEER, NOW + NANOS);
                assert_eq!(presented.user(), Some("ann"));
                assert_eq!(presented.proves("ann", "s3cret\"\\"), right);
                assert!(!presented.proves("bob", password));
            }
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_proven() {
        // RFC 2617, 3.5, whose nonce is not ours
        let digest = Digest {
            user: "Mufasa".into(),
            realm: "testrealm@host.com".into(),
            method: "GET".into(),
            uri: "/dir/index.html".into(),
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093".into(),
            response: "6629FAE49393A05397450978507C4EF1".into(),
            quality: Some(("00000001".into(), "0a4f113b".into(), "auth".into())),
        };
        let presented = Presented::Digest(Box::new(digest));
        assert!(presented.proves("Mufasa", "Circle Of Life"));
        assert!(!presented.proves("Mufasa", "circle of life"));
    }

    #[test]
    fn a_nonce_is_taken_from_its_peer_while_it_is_young() {
        let nonces = nonces();
        let value = answer(&nonces.challenges(PEER, NOW, false, false), "ann", "x");
        let read = |peer, now| nonces.read(Some(&value), "SETUP", URI, peer, now);
        assert!(read(PEER, NOW + 300 * NANOS).proves("ann", "x"));
        assert_eq!(read(PEER, NOW + 301 * NANOS), Presented::Stale);
        assert_eq!(read(PEER, NOW - NANOS), Presented::Stale);
        assert_eq!(read(&[192, 0, 2, 2], NOW), Presented::Stale);
        assert_eq!(
            Nonces::new([8; 32], "millrace").read(Some(&value), "SETUP", URI, PEER, NOW),
            Presented::Stale
        );
    }

    #[test]
    fn a_signature_for_something_else_is_worth_nothing() {
        let nonces = nonces();
        let value = answer(&nonces.challenges(PEER, NOW, false, false), "ann", "x");
        let read = |method, uri| nonces.read(Some(&value), method, uri, PEER, NOW);
        assert!(!read("RECORD", URI).proves("ann", "x"));
        assert_eq!(read("SETUP", "rtsp://h/other"), Presented::Garbled);
        assert_eq!(read("SETUP", "rtsp://h/camera"), Presented::Garbled);
        // what clients do with the URI
        assert!(read("SETUP", "rtsp://h:8554/cam/").proves("ann", "x"));
        assert!(same_resource("rtsp://h/cam?a=b", "rtsp://h/cam"));
    }

    #[test]
    fn garbled_credentials_are_nobody() {
        let nonces = nonces();
        let garbled = [
            "Basic !",
            "Basic YQ==",
            "Bearer a",
            "Digest",
            "Digest username=\"a",
            "Digest username=a, uri=b",
            "",
        ];
        for value in garbled {
            let presented = nonces.read(Some(value), "PLAY", URI, PEER, NOW);
            assert!(matches!(presented, Presented::Garbled), "{value}");
            assert!(!presented.proves("", ""));
        }
        assert_eq!(nonces.read(None, "PLAY", URI, PEER, NOW), Presented::Nobody);
    }

    #[test]
    fn the_strongest_scheme_is_answered() {
        let mut responder = Responder::new(Credentials::new("u", "p"));
        let challenges = headers(&[
            "Basic realm=\"r\"",
            "Digest realm=\"r\", nonce=\"1\", algorithm=md5",
            "Digest realm=\"r\", nonce=\"2\", algorithm=SHA-256, qop=\"auth\"",
            "Nonsense {",
        ]);
        responder.challenge(&challenges).unwrap();
        let value = responder.authorize("PLAY", "rtsp://h/", [0; 16]).unwrap();
        assert!(value.contains("algorithm=SHA-256") && value.contains("nonce=\"2\""), "{value}");
        assert_eq!(responder.challenge(&headers(&["Nonsense"])), Err(Unanswerable::Scheme));
    }

    #[test]
    fn a_fresh_nonce_is_answered_and_a_refusal_is_not() {
        let mut responder = Responder::new(Credentials::new("u", "p"));
        let challenge = |nonce: &str| headers(&[&format!("Digest realm=\"r\", nonce=\"{nonce}\"")]);
        assert!(responder.authorize("PLAY", "u", [0; 16]).is_none());
        responder.challenge(&challenge("1")).unwrap();
        assert_eq!(responder.challenge(&challenge("1")), Err(Unanswerable::Refused));
        responder.accepted();
        // in mid-session, however often, as long as requests go through
        for nonce in 2..9 {
            responder.challenge(&challenge(&nonce.to_string())).unwrap();
            responder.accepted();
        }
        responder.challenge(&challenge("10")).unwrap();
        responder.challenge(&challenge("11")).unwrap();
        assert_eq!(responder.challenge(&challenge("12")), Err(Unanswerable::Refused));
    }

    #[test]
    fn nothing_shows_a_password() {
        let credentials = Credentials::new("ann", "s3cret");
        let presented = Presented::Basic(credentials.clone());
        let shown = format!("{credentials:?}{presented:?}{:?}", Responder::new(credentials.clone()));
        assert!(!shown.contains("s3cret") && !shown.contains("ann"));
    }
}
