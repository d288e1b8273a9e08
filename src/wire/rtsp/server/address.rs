//! URLs of requests enter, the paths and tracks that they mean leave. Looks at no session.

use crate::wire::rtsp::sdp::{Description, resolve};

/// The URL without its track, and the track's number: what a description of ours says.
pub(super) fn split_track(uri: &str) -> (&str, Option<usize>) {
    let uri = uri.trim_end_matches('/');
    let split = uri.rsplit_once('/').and_then(|(base, last)| {
        let number = last.strip_prefix(TRACK)?.parse().ok()?;
        Some((base.trim_end_matches('/'), Some(number)))
    });
    split.unwrap_or((uri, None))
}

/// Which announced track a URL means: by its control attribute, put behind the session's URL.
pub(super) fn announced_track(description: &Description, base: &str, uri: &str) -> Option<usize> {
    let wanted = uri.trim_end_matches('/');
    let same = |control: Option<&str>| {
        let full = resolve(base, control);
        let full = full.trim_end_matches('/');
        // Hosts may be written in several ways: from the path on they are equal, or the control stands at the end.
        let tail = |url: &str| {
            url.split_once("://").map_or(url, |(_, rest)| rest).split_once('/').map(|(_, p)| p.to_owned())
        };
        full == wanted || tail(full) == tail(wanted)
    };
    let found = description.media.iter().position(|media| same(media.control.as_deref()));
    let named = || {
        let last = wanted.rsplit('/').next()?;
        description.media.iter().position(|media| {
            media.control.as_deref().is_some_and(|control| control.rsplit('/').next() == Some(last))
        })
    };
    let alone = || (description.media.len() == 1 && wanted == base).then_some(0);
    found.or_else(named).or_else(alone)
}

/// Path and query of a URL, escapes of the path decoded.
pub(super) fn read_path(url: &str) -> Option<(String, String)> {
    let rest = match url.split_once("://") {
        Some((scheme, rest)) => {
            // Behind a TLS proxy, rtsps:// stands on a plain connection.
            let known = ["rtsp", "rtsps", "rtspu"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
            rest.split_once('/').filter(|_| known)?.1
        }
        None => url.strip_prefix('/')?,
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = decode_percent(path.trim_matches('/'))?;
    let clean = !path.is_empty()
        && path.len() <= PATH_MOST
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    clean.then(|| (path, query.trim_end_matches('/').into()))
}

fn decode_percent(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        out.push(match byte {
            b'%' => (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8,
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// What stands before the number of a track in its control URL.
pub(super) const TRACK: &str = "trackID=";
const PATH_MOST: usize = 512;
