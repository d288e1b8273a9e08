//! Urls as they were written enter, urls that may be shown leave: secrets are replaced by `***`. A url without
//! secrets is shown byte for byte.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::refusal::FieldError;

/// A url as the operator wrote it. Printing it, for people or for debugging, shows it redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct RawUrl(Arc<str>);

impl RawUrl {
    /// The whole text, secrets included: for parsing and storing, never for logs or answers.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for RawUrl {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for RawUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for RawUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redact(&self.0), f)
    }
}

/// The url with every secret replaced by `***`: the password of the user information (RFC 3986, 3.2.1), the
/// values of options that name a secret, the password in a stream id of SRT, and for rtmp the stream key, unless
/// `key_is_public=true` is said. Accepts anything: a text that is no url is searched in the same way.
pub fn redact(url: &str) -> Cow<'_, str> {
    hide(url, places(url).into_iter().map(|place| place.at))
}

/// A stream id of SRT with its password replaced by `***`.
pub fn redact_stream_id(stream_id: &str) -> Cow<'_, str> {
    hide(stream_id, stream_id_secrets(stream_id.as_bytes()).into_iter())
}

/// Puts the secrets of the `stored` url in the places where the `written` one has `***`.
///
/// # Errors
/// A place whose secret was never set.
pub(super) fn restore(written: RawUrl, stored: Option<&RawUrl>) -> Result<RawUrl, FieldError> {
    let stored = stored.map_or("", RawUrl::reveal);
    let (asked, known) = (places(&written.0), places(stored));
    let (mut whole, mut end) = (String::new(), 0);
    for (index, place) in asked.iter().enumerate().filter(|(_, place)| &written.0[place.at.clone()] == HIDDEN)
    {
        let nth = asked[..index].iter().filter(|before| before.name == place.name).count();
        let same = known.iter().filter(|known| known.name == place.name).nth(nth);
        let Some(secret) = same.map(|same| &stored[same.at.clone()]).filter(|secret| *secret != HIDDEN)
        else {
            // A name that is no word may be a piece of something else.
            let word = place.name.len() <= 32
                && place.name.bytes().all(|b| b.is_ascii_lowercase() || b"_ ".contains(&b));
            let name = if word { place.name } else { "such secret" };
            let msg = format!("{HIDDEN} stands for a secret that is stored, and no {name} is: write it out");
            return Err(FieldError::value("url", msg));
        };
        whole.push_str(&written.0[end..place.at.start]);
        whole.push_str(secret);
        end = place.at.end;
    }
    whole.push_str(&written.0[end..]);
    Ok(whole.into())
}

/// Whether an option of this name holds a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "token", "secret", "key", "auth", "credential", "signature", "jwt"]
        .iter()
        .any(|w| name.contains(w))
        // The length of a key, whether one is public, and the path of a file that holds one, are none.
        && !matches!(name.as_str(), "pbkeylen" | "key_is_public" | "tls_key")
}

/// Where a secret stands, never empty, and what it is.
#[derive(Debug)]
struct Place<'a> {
    name: &'a str,
    at: Range<usize>,
}

/// Every secret of a url, first to last.
fn places(url: &str) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    let mut rest = 0;
    if let Some(at) = password(url) {
        rest = at.end;
        places.push(Place { name: "password", at });
    }
    let (path, query) = url[rest..].split_once('?').map_or((&url[rest..], None), |(p, q)| (p, Some(q)));
    if let Some(at) = stream_key(url, path, query) {
        places.push(Place { name: "stream key", at: rest + at..rest + path.len() });
    }
    let mut start = rest + path.len() + 1;
    for option in query.into_iter().flat_map(|q| q.split('&')) {
        if let Some((name, value)) = option.split_once('=').filter(|(_, value)| !value.is_empty()) {
            let value_at = start + name.len() + 1;
            if is_secret(name) {
                places.push(Place { name, at: value_at..start + option.len() });
            } else if matches!(name, "streamid" | "srt_streamid") {
                let (decoded, origins) = decode(value);
                places.extend(stream_id_secrets(&decoded).into_iter().map(|at| Place {
                    name: "password in the stream id",
                    at: value_at + origins[at.start]..value_at + origins[at.end],
                }));
            }
        }
        start += option.len() + 1;
    }
    places
}

fn hide(text: &str, places: impl Iterator<Item = Range<usize>>) -> Cow<'_, str> {
    let (mut shown, mut end) = (String::new(), 0);
    for at in places {
        shown.push_str(&text[end..at.start]);
        shown.push_str(HIDDEN);
        end = at.end;
    }
    shown.push_str(&text[end..]);
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

/// Percent-decodes what can be, and says for each byte (and the end) where it came from.
fn decode(text: &str) -> (Vec<u8>, Vec<usize>) {
    let (mut decoded, mut origins) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        let hex = text
            .as_bytes()
            .get(at + 1..at + 3)
            .filter(|hex| byte == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let coded = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(coded.unwrap_or(byte));
        origins.push(at);
        at += if coded.is_some() { 3 } else { 1 };
    }
    origins.push(at);
    (decoded, origins)
}

/// Where passwords stand in a stream id: behind the third colon of `read:NAME:USER:PASSWORD`, and in the values of
/// `#!::r=NAME,u=USER,s=PASSWORD`, of `r=NAME?secret=…` and the like.
fn stream_id_secrets(stream_id: &[u8]) -> Vec<Range<usize>> {
    let listed = stream_id.starts_with(b"#!:");
    let plain = stream_id.starts_with(b"read:") || stream_id.starts_with(b"publish:");
    let mut secrets = Vec::new();
    if plain {
        let third = stream_id.iter().enumerate().filter(|(_, b)| **b == b':').nth(2);
        secrets.extend(third.map(|(colon, _)| colon + 1..stream_id.len()).filter(|at| !at.is_empty()));
        return secrets;
    }
    let mut start = 0;
    for part in stream_id.split(|b| matches!(b, b',' | b'?' | b'&' | b'{' | b'}')) {
        if let Some(equals) = part.iter().position(|b| *b == b'=') {
            let (name, value) =
                (String::from_utf8_lossy(&part[..equals]), start + equals + 1..start + part.len());
            let name = name.rsplit(':').next().unwrap_or_default();
            if !value.is_empty() && (is_secret(name) || listed && name == "s") {
                secrets.push(value);
            }
        }
        start += part.len() + 1;
    }
    secrets
}

/// Where the password of the user information stands.
fn password(url: &str) -> Option<Range<usize>> {
    let start = url.find("://")? + 3;
    let rest = &url[start..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let end = match authority.rfind('@') {
        Some(at) => at,
        None if ends_in_port(authority) => return None,
        // A bare `/`, `?` or `#` in the password cut the authority short.
        None => rest.rfind('@')?,
    };
    let colon = rest[..end].find(':')?;
    (colon + 1 < end).then_some(start + colon + 1..start + end)
}

fn ends_in_port(authority: &str) -> bool {
    let outside = authority.rfind(']').map_or(authority, |at| &authority[at..]);
    outside.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
}

/// Where the stream key stands in `path`: for rtmp the last segment, when there is an application before it.
fn stream_key(url: &str, path: &str, query: Option<&str>) -> Option<usize> {
    let scheme = url.split_once("://")?.0;
    let rtmp = ["rtmp", "rtmps"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
    let public = query.is_some_and(|q| q.split('&').any(|option| option == "key_is_public=true"));
    let segments = path.split_once("://").map_or(path, |(_, rest)| rest);
    let last = path.rfind('/')? + 1;
    (rtmp && !public && segments.matches('/').count() > 1 && last < path.len()).then_some(last)
}

const HIDDEN: &str = "***";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_without_secrets_are_unchanged() {
        for url in [
            "udp://239.1.1.1:5000?ttl=4&interface=eth0",
            "udp://@239.1.1.1:5000",
            "rtsp://operator@camera:554/stream@2",
            "rtsp://[fe80::1%eth0]:554/a@b",
            "file:clips/a:b@c.ts?loop=false",
            "file:///srv/a:b@c.ts",
            "rtmp://host/live",
            "rtmp://host/live/public?key_is_public=true",
            "srt://host:9000?passphrase=",
            "srt://host:9000?pbkeylen=16&streamid=read:cam:user",
            "srt://host:9000?streamid=%23!::r=cam,m=request,u=user&mode=caller",
            "srt://:8890?streamid=cam@home:a:b:c",
            "cot+tls://tak:8089?tls_cert=me.pem&tls_key=me.key",
            "",
            "?",
            "://",
        ] {
            assert!(matches!(redact(url), Cow::Borrowed(shown) if shown == url), "{url}");
        }
    }

    #[test]
    fn secrets_are_hidden() {
        for (url, shown) in [
            ("rtsp://admin:hunter2@camera/1", "rtsp://admin:***@camera/1"),
            ("rtsp://admin:a@b:c@camera/1", "rtsp://admin:***@camera/1"),
            ("rtsp://admin:hun/ter2@camera/1", "rtsp://admin:***@camera/1"),
            ("rtsp://admin:hun?ter2@camera/1", "rtsp://admin:***@camera/1"),
            (
                "srt://h:1?mode=caller&passphrase=0123456789&latency=9",
                "srt://h:1?mode=caller&passphrase=***&latency=9",
            ),
            ("udp://h:1?TOKEN=a=b", "udp://h:1?TOKEN=***"),
            ("srt://user:Ab%26%2A@:8890?mode=listener", "srt://user:***@:8890?mode=listener"),
            ("srt://h:1?streamid=read:cam:user:a:b&ttl=1", "srt://h:1?streamid=read:cam:user:***&ttl=1"),
            (
                "srt://h:1?streamid=publish%3Acam%3Auser%3Ap%26p%zz",
                "srt://h:1?streamid=publish%3Acam%3Auser%3A***",
            ),
            ("srt://h:1?streamid=#!::u=a,s=b,r=c", "srt://h:1?streamid=#!::u=a,s=***,r=c"),
            ("srt://h:1?streamid=%23!::s%3Db%2Cr=c", "srt://h:1?streamid=%23!::s%3D***%2Cr=c"),
            (
                "srt://h:1?srt_streamid=#!::r=live/a?secret=b,m=publish",
                "srt://h:1?srt_streamid=#!::r=live/a?secret=***,m=publish",
            ),
            ("cot+tls://tak?package=tak.zip&password=atakatak", "cot+tls://tak?package=tak.zip&password=***"),
            ("rtmp://host/live/abcd-efgh", "rtmp://host/live/***"),
            ("RTMPS://u:p@host:443/app/inst/key?x=1", "RTMPS://u:***@host:443/app/inst/***?x=1"),
        ] {
            assert_eq!(redact(url), shown);
            assert_eq!(
                format!("{:?} {}", RawUrl::from(url), RawUrl::from(url)),
                format!("{shown:?} {shown}")
            );
        }
    }

    #[test]
    fn stream_ids_are_shown_without_their_password() {
        for (given, shown) in [
            ("read:cam", "read:cam"),
            ("read:cam:user:pass word", "read:cam:user:***"),
            ("#!::r=cam,u=user,s=pass", "#!::r=cam,u=user,s=***"),
            ("#!:{r=cam,token=x}", "#!:{r=cam,token=***}"),
            ("é:ü:ß:€", "é:ü:ß:€"),
        ] {
            assert_eq!(redact_stream_id(given), shown);
        }
    }

    proptest! {
        #[test]
        fn anything_is_accepted_and_a_second_pass_changes_nothing(url in "\\PC{0,40}") {
            let once = redact(&url).into_owned();
            prop_assert_eq!(redact(&once), once.as_str());
        }

        #[test]
        fn what_is_hidden_comes_back(
            url in "(srt|rtsp|rtmp)://([a-z]{0,2}:?[a-z:@/?%é]{0,4}@)?[a-z:0-9]{0,3}(/[a-z]{0,2}){0,3}(\\?((passphrase|streamid|token|x)=((read:|#!::)?[a-zé:,=@%0-9]{0,8})&?){0,3})?"
        ) {
            let stored = RawUrl::from(url.as_str());
            let back = restore(RawUrl::from(redact(&url)), Some(&stored));
            prop_assert_eq!(back.map(|back| back.reveal().to_owned()), Ok(url));
        }

        #[test]
        fn stream_ids_of_any_kind_are_accepted(
            id in "(read:|publish:|#!:|%23!:){0,2}([a-zé:,=?&{}%0-9sr]|pass=|s=|%[0-9a-fA-F]{2}){0,12}"
        ) {
            let url = format!("srt://h:1?streamid={id}");
            let once = redact(&url).into_owned();
            prop_assert_eq!(redact(&once), once.as_str());
            let once = redact_stream_id(&id).into_owned();
            prop_assert_eq!(redact_stream_id(&once), once.as_str());
        }

        #[test]
        fn a_password_never_shows(password in "[a-z0-9:@%!$&'()*+,;=._~-]{0,8}Zebra[a-z0-9:@%!$&'()*+,;=._~-]{0,8}") {
            let url = format!("rtsp://admin:{password}@camera:554/stream");
            prop_assert!(!redact(&url).contains("Zebra"), "{} -> {}", url, redact(&url));
        }
    }
}
