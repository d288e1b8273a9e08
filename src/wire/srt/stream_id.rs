//! The bytes of a stream id enter, what the peer asks for leaves; or an id enters and its extension block leaves.
//! Never decides who may have what.

use std::fmt;

/// The longest stream id in bytes (draft-sharabayko-srt-01, 3.2.1.3).
pub const STREAM_ID_MOST: usize = 512;

/// What a caller says about itself in its handshake: 1 to 512 bytes, not all zero at the end. It may hold a
/// password, so it shows itself only through [`Self::as_bytes`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StreamId(Box<[u8]>);

/// A stream id that is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SRT stream id of {0} bytes, expected 1 to 512")]
pub struct BadLength(pub usize);

/// What a stream id asks for. All texts are free of control characters.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Ask<'a> {
    /// The name of the stream.
    pub resource: Option<&'a str>,
    /// What is to be done with it; `None` where a plain id leaves that to the port.
    pub mode: Option<AskMode>,
    /// Who asks.
    pub user: Option<&'a str>,
    /// The password, of `read:NAME:user:pass` or the key `s` of the access-control form: SRT knows that key as a
    /// session of the application's own, and other servers take their passwords there.
    pub password: Option<&'a str>,
    /// The host that the caller dialled, key `h`.
    pub host: Option<&'a str>,
    /// The kind of resource, key `t`; `stream` where it is not said.
    pub kind: Option<&'a str>,
}

/// The direction that a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskMode {
    /// To be sent the stream.
    Request,
    /// To send it.
    Publish,
    /// Both.
    Bidirectional,
}

/// Why a stream id asks for nothing that can be understood. None of these repeats a byte of the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAsk {
    /// Not UTF-8, or with control characters.
    #[error("stream id is not printable text")]
    Text,
    /// An item without `=`, or with nothing before it.
    #[error("stream id item {0} is not of the form key=value")]
    Item(usize),
    /// A key twice.
    #[error("stream id names the key {0} twice")]
    Twice(char),
    /// The nested form.
    #[error("stream id of the nested form #!:{{ is not supported, expected #!::key=value,...")]
    Nested,
    /// Another mode.
    #[error("stream id key m is none of request, publish, bidirectional")]
    Mode,
    /// `read:` or `publish:` with nothing after it.
    #[error("stream id has no name of a stream")]
    Name,
}

impl StreamId {
    /// Takes an id.
    ///
    /// # Errors
    /// It is empty or longer than [`STREAM_ID_MOST`].
    pub fn new(id: &[u8]) -> Result<Self, BadLength> {
        if id.is_empty() || id.len() > STREAM_ID_MOST {
            return Err(BadLength(id.len()));
        }
        Ok(Self(id.into()))
    }

    /// The bytes as the peer meant them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it asks for. Three forms: `#!::r=NAME,m=publish,u=user,...` (the access-control guideline of libsrt;
    /// keys other than r, m, u, s, h and t are left aside, as it lets applications have their own),
    /// `read:NAME[:user:pass]` or `publish:NAME[:user:pass]`, and anything else, which is the name of a stream.
    ///
    /// # Errors
    /// It begins like one of the forms and breaks its grammar, or is not printable text.
    pub fn ask(&self) -> Result<Ask<'_>, BadAsk> {
        let text = std::str::from_utf8(&self.0).map_err(|_| BadAsk::Text)?;
        if text.chars().any(char::is_control) {
            return Err(BadAsk::Text);
        }
        if let Some(items) = text.strip_prefix("#!::") {
            return access_control(items);
        }
        if text.starts_with("#!:") {
            return Err(BadAsk::Nested);
        }
        let (mode, rest) = match text.split_once(':') {
            Some(("read", rest)) => (AskMode::Request, rest),
            Some(("publish", rest)) => (AskMode::Publish, rest),
            _ => return Ok(Ask { resource: Some(text), ..Ask::default() }),
        };
        let mut parts = rest.splitn(3, ':');
        let resource = parts.next().filter(|name| !name.is_empty()).ok_or(BadAsk::Name)?;
        Ok(Ask {
            resource: Some(resource),
            mode: Some(mode),
            user: parts.next(),
            password: parts.next(),
            ..Ask::default()
        })
    }

    /// The contents of an extension block: filled up with zeros to words, the bytes of each word in reverse
    /// (3.2.1.3).
    pub(crate) fn to_block(&self) -> Vec<u8> {
        reversed_text(&self.0)
    }

    /// Reads the contents of an extension block; `None` when it is empty, too long or nothing but zeros.
    pub(crate) fn from_block(block: &[u8]) -> Option<Self> {
        if block.len() > STREAM_ID_MOST {
            return None;
        }
        Self::new(&text_of(block)).ok()
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({} bytes)", self.0.len())
    }
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("resource", &self.resource)
            .field("mode", &self.mode)
            .field("user", &self.user)
            .field("password", &self.password.map(|_| "***"))
            .field("host", &self.host)
            .field("kind", &self.kind)
            .finish()
    }
}

/// Text as the extension blocks of the handshake carry it: in words whose bytes are in reverse.
pub(crate) fn reversed_text(text: &[u8]) -> Vec<u8> {
    let mut block = text.to_vec();
    block.resize(text.len().next_multiple_of(4), 0);
    block.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    block
}

/// The text of an extension block, without the zeros that fill its last word.
pub(crate) fn text_of(block: &[u8]) -> Vec<u8> {
    let mut text = block.to_vec();
    text.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    text.truncate(text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    text
}

fn access_control(items: &str) -> Result<Ask<'_>, BadAsk> {
    let mut ask = Ask::default();
    let mut mode = None;
    for (at, item) in items.split(',').enumerate().filter(|(_, item)| !item.is_empty()) {
        let (key, value) =
            item.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or(BadAsk::Item(at + 1))?;
        let (name, place) = match key {
            "r" => ('r', &mut ask.resource),
            "m" => ('m', &mut mode),
            "u" => ('u', &mut ask.user),
            "s" => ('s', &mut ask.password),
            "h" => ('h', &mut ask.host),
            "t" => ('t', &mut ask.kind),
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(BadAsk::Twice(name));
        }
    }
    // "request" is what an id without the key means
    ask.mode = Some(match mode {
        None | Some("request") => AskMode::Request,
        Some("publish") => AskMode::Publish,
        Some("bidirectional") => AskMode::Bidirectional,
        Some(_) => return Err(BadAsk::Mode),
    });
    Ok(ask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> StreamId {
        StreamId::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_id_has_1_to_512_bytes() {
        assert_eq!(StreamId::new(b""), Err(BadLength(0)));
        assert!(StreamId::new(&[b'x'; 512]).is_ok());
        assert_eq!(StreamId::new(&[b'x'; 513]), Err(BadLength(513)));
        assert_eq!(StreamId::from_block(&[0; 8]), None);
        assert_eq!(StreamId::from_block(&[]), None);
        assert_eq!(StreamId::from_block(&[b'x'; 516]), None);
    }

    #[test]
    fn a_block_has_its_words_in_reverse() {
        assert_eq!(id("cam/x").to_block(), b"/mac\0\0\0x");
        for text in ["a", "abc", "abcd", "abcde", "#!::r=live,m=publish", &"x".repeat(512)] {
            assert_eq!(StreamId::from_block(&id(text).to_block()), Some(id(text)));
        }
    }

    #[test]
    fn the_three_forms_are_understood() {
        let access = id("#!::r=live,m=publish,u=joe,s=secret,h=example.org,t=stream,x-own=1");
        let want = Ask {
            resource: Some("live"),
            mode: Some(AskMode::Publish),
            user: Some("joe"),
            password: Some("secret"),
            host: Some("example.org"),
            kind: Some("stream"),
        };
        assert_eq!(access.ask(), Ok(want));
        let request = Ask { resource: Some("live"), mode: Some(AskMode::Request), ..Ask::default() };
        assert_eq!(id("#!::r=live").ask(), Ok(request.clone()));
        assert_eq!(id("#!::m=request,,r=live,").ask(), Ok(request.clone()));
        assert_eq!(id("read:live").ask(), Ok(request.clone()));
        let with_user = Ask { user: Some("joe"), password: Some("a:b"), ..request };
        assert_eq!(id("read:live:joe:a:b").ask(), Ok(with_user));
        assert_eq!(id("publish:cam/1").ask().unwrap().mode, Some(AskMode::Publish));
        assert_eq!(id("cam/1:a").ask(), Ok(Ask { resource: Some("cam/1:a"), ..Ask::default() }));
        assert_eq!(id("#!::m=bidirectional").ask().unwrap().mode, Some(AskMode::Bidirectional));
        assert_eq!(id("#!::r=a=b").ask().unwrap().resource, Some("a=b"));
    }

    #[test]
    fn what_breaks_the_grammar_is_named() {
        for (text, want) in [
            ("#!::r", BadAsk::Item(1)),
            ("#!::r=a,=b", BadAsk::Item(2)),
            ("#!::r=a,r=b", BadAsk::Twice('r')),
            ("#!::m=play", BadAsk::Mode),
            ("#!:{r=a}", BadAsk::Nested),
            ("read:", BadAsk::Name),
            ("publish::joe", BadAsk::Name),
            ("a\nb", BadAsk::Text),
            ("a\0b", BadAsk::Text),
        ] {
            assert_eq!(id(text).ask(), Err(want), "{text:?}");
        }
        assert_eq!(StreamId::new(&[0xFF, 0xFE]).unwrap().ask(), Err(BadAsk::Text));
    }

    #[test]
    fn a_password_does_not_show() {
        let id = id("read:live:joe:hunter2");
        assert!(!format!("{id:?} {:?}", id.ask().unwrap()).contains("hunter2"));
    }
}
