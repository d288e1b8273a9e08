//! Urls as they were written enter, urls that may be shown leave: secrets are replaced by `***`. A url without
//! secrets is shown byte for byte.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

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
/// values of options that name a secret, and for rtmp the stream key, unless `key_is_public=true` is said.
/// Accepts anything: a text that is no url is searched in the same way.
pub fn redact(url: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = url;
    let hide = |shown: &mut String, visible: &str| {
        shown.push_str(visible);
        shown.push_str(HIDDEN);
    };
    if let Some(secret) = password(url) {
        hide(&mut shown, &url[..secret.start]);
        rest = &url[secret.end..];
    }
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    match stream_key(url, path, query) {
        Some(at) => hide(&mut shown, &path[..at]),
        None => shown.push_str(path),
    }
    for (index, option) in query.into_iter().flat_map(|q| q.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match option.split_once('=') {
            Some((name, value)) if is_secret(name) && !value.is_empty() => {
                hide(&mut shown, &option[..=name.len()]);
            }
            _ => shown.push_str(option),
        }
    }
    if shown == url { Cow::Borrowed(url) } else { Cow::Owned(shown) }
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

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "token", "secret", "key", "auth", "credential", "signature", "jwt"]
        .iter()
        .any(|w| name.contains(w))
        && name != "key_is_public"
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

    proptest! {
        #[test]
        fn anything_is_accepted_and_a_second_pass_changes_nothing(url in "\\PC{0,40}") {
            let once = redact(&url).into_owned();
            prop_assert_eq!(redact(&once), once.as_str());
        }

        #[test]
        fn a_password_never_shows(password in "[a-z0-9:@%!$&'()*+,;=._~-]{0,8}Zebra[a-z0-9:@%!$&'()*+,;=._~-]{0,8}") {
            let url = format!("rtsp://admin:{password}@camera:554/stream");
            prop_assert!(!redact(&url).contains("Zebra"), "{} -> {}", url, redact(&url));
        }
    }
}
