//! Bytes of an RTSP connection enter in any pieces; requests, responses and interleaved packets leave. Bounds what it
//! holds; finds its place again after stray bytes between packets.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use super::message::{Headers, Request, Response, Status};

/// What stands on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A request.
    Request(Request),
    /// An answer to one.
    Response(Response),
    /// An interleaved packet (RFC 2326, 10.12).
    Data {
        /// Its channel.
        channel: u8,
        /// Its bytes.
        bytes: Bytes,
    },
}

/// Why the bytes of a connection cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither a message nor an interleaved packet.
    #[error("no RTSP message begins with the byte {0:#04x}")]
    Start(u8),
    /// The first line is neither that of a request nor that of a response.
    #[error("RTSP message without a request line or status line")]
    FirstLine,
    /// The head of a message is too long, or has too many headers.
    #[error("RTSP message head beyond {HEAD_MOST} bytes or {HEADERS_MOST} headers")]
    Head,
    /// A header line without a colon.
    #[error("RTSP header line {0} has no colon")]
    Header(usize),
    /// Content-Length is no number, or more than is taken.
    #[error("RTSP Content-Length is not a number up to {BODY_MOST}")]
    ContentLength,
    /// Too many stray bytes in a row.
    #[error("more than {STRAY_MOST} bytes that are neither RTSP messages nor interleaved packets")]
    Stray,
}

/// Takes the bytes of one connection apart.
///
/// Lines may end in CRLF or LF. Once a message was read, bytes that cannot begin anything are passed over up to the
/// next `$` of a channel that is in use or the next line that looks like a message, at most 256 kB in a row;
/// before that they are an error, for the peer does not speak RTSP.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes of `buffer` known to hold no end of a head.
    scanned: usize,
    channels: Channels,
    /// A message was read: the peer speaks RTSP.
    established: bool,
    /// Stray bytes in a row.
    stray: usize,
    stray_total: u64,
}

/// Channels, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Channels([u128; 2]);

impl Decoder {
    /// Takes bytes that came in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where the owner reads bytes into, instead of [`Self::push`].
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Interleaved packets of this channel are expected from now on.
    pub fn open_channel(&mut self, channel: u8) {
        if let Some(half) = self.channels.0.get_mut(usize::from(channel >> 7)) {
            *half |= 1 << (channel & 0x7f);
        }
    }

    /// Bytes that were passed over so far.
    pub fn stray_bytes(&self) -> u64 {
        self.stray_total
    }

    /// Bytes that wait for more.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// The next item, `None` when more bytes are needed.
    ///
    /// # Errors
    /// The connection cannot be read on.
    pub fn decode(&mut self) -> Result<Option<Item>, Malformed> {
        loop {
            let Some(&first) = self.buffer.first() else { return Ok(None) };
            match first {
                b'$' => {
                    let Some(&[_, channel, l0, l1]) = self.buffer.first_chunk::<4>() else { return Ok(None) };
                    // Found among stray bytes, a `$` counts when its channel is in use.
                    if self.stray > 0 && !self.channels.contains(channel) {
                        self.skip(1)?;
                        continue;
                    }
                    let length = usize::from(u16::from_be_bytes([l0, l1]));
                    if self.buffer.len() < 4 + length {
                        self.buffer.reserve(4 + length - self.buffer.len());
                        return Ok(None);
                    }
                    self.buffer.advance(4);
                    let bytes = self.buffer.split_to(length).freeze();
                    self.settle();
                    if self.channels.contains(channel) {
                        return Ok(Some(Item::Data { channel, bytes }));
                    }
                }
                // Empty lines between messages (RFC 2326, 4).
                b'\r' | b'\n' => {
                    self.buffer.advance(1);
                    self.scanned = 0;
                }
                _ if first.is_ascii_uppercase() => match self.message()? {
                    Step::Item(item) => return Ok(Some(item)),
                    Step::Wait => return Ok(None),
                    Step::Again => {}
                },
                _ if self.established => {
                    let rest = self.buffer.get(1..).unwrap_or_default();
                    let next = rest.iter().position(|byte| *byte == b'$' || byte.is_ascii_uppercase());
                    self.skip(1 + next.unwrap_or(rest.len()))?;
                }
                other => return Err(Malformed::Start(other)),
            }
        }
    }

    fn message(&mut self) -> Result<Step, Malformed> {
        match first_line(&self.buffer) {
            FirstLine::Wait if self.buffer.len() <= LINE_MOST => return Ok(Step::Wait),
            FirstLine::Known => {}
            _ if self.established => {
                self.skip(1)?;
                return Ok(Step::Again);
            }
            _ => return Err(Malformed::FirstLine),
        }
        let Some(end) = self.head_end() else {
            return if self.buffer.len() > HEAD_MOST { Err(Malformed::Head) } else { Ok(Step::Wait) };
        };
        if end > HEAD_MOST {
            return Err(Malformed::Head);
        }
        let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default());
        let (start, headers) = read_head(&head)?;
        let length = match headers.first("Content-Length") {
            None => 0,
            Some(text) => {
                text.trim().parse().ok().filter(|n| *n <= BODY_MOST).ok_or(Malformed::ContentLength)?
            }
        };
        if self.buffer.len() < end + length {
            return Ok(Step::Wait);
        }
        self.buffer.advance(end);
        let body = Bytes::copy_from_slice(&self.buffer.split_to(length));
        self.established = true;
        self.settle();
        Ok(Step::Item(match start {
            Start::Request { method, uri } => Item::Request(Request { method, uri, headers, body }),
            Start::Response { status, reason } => Item::Response(Response { status, reason, headers, body }),
        }))
    }

    /// Where the body begins: behind an empty line.
    fn head_end(&mut self) -> Option<usize> {
        let mut at = self.scanned;
        while let Some(found) = self.buffer.get(at..).and_then(|rest| memchr(b'\n', rest)) {
            let behind = at + found + 1;
            match self.buffer.get(behind..)? {
                [b'\n', ..] => return Some(behind + 1),
                [b'\r', b'\n', ..] => return Some(behind + 2),
                // One byte more decides.
                [] | [b'\r'] => {
                    self.scanned = behind - 1;
                    return None;
                }
                _ => at = behind,
            }
        }
        self.scanned = self.buffer.len();
        None
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.buffer.advance(count.min(self.buffer.len()));
        self.scanned = 0;
        self.stray += count;
        self.stray_total += count as u64;
        if self.stray > STRAY_MOST { Err(Malformed::Stray) } else { Ok(()) }
    }

    fn settle(&mut self) {
        self.scanned = 0;
        self.stray = 0;
    }
}

impl Channels {
    fn contains(self, channel: u8) -> bool {
        self.0.get(usize::from(channel >> 7)).is_some_and(|half| half >> (channel & 0x7f) & 1 == 1)
    }
}

enum Step {
    Item(Item),
    Wait,
    Again,
}

enum Start {
    Request { method: String, uri: String },
    Response { status: Status, reason: String },
}

enum FirstLine {
    Known,
    Unknown,
    Wait,
}

/// Whether bytes begin with the line of a request or a response, as far as can be told.
fn first_line(bytes: &[u8]) -> FirstLine {
    let line = match memchr(b'\n', bytes) {
        Some(end) => bytes.get(..end).unwrap_or_default(),
        // No text can come of it any more.
        None if bytes.iter().any(|byte| byte.is_ascii_control() && *byte != b'\r') => {
            return FirstLine::Unknown;
        }
        None => return FirstLine::Wait,
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= LINE_MOST && str::from_utf8(line).is_ok_and(|line| read_start(line).is_some()) {
        FirstLine::Known
    } else {
        FirstLine::Unknown
    }
}

fn read_start(line: &str) -> Option<Start> {
    if let Some(rest) = line.strip_prefix("RTSP/") {
        let (version, rest) = rest.split_once(' ')?;
        // Some devices leave the reason out, and the space before it.
        let (status, reason) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
        let status = status.parse().ok().filter(|status| (100..600).contains(status))?;
        return version
            .starts_with("1.")
            .then(|| Start::Response { status: Status(status), reason: reason.into() });
    }
    let (method, rest) = line.split_once(' ')?;
    // A URI with spaces in it ends before the version all the same.
    let (uri, version) = rest.trim_end().rsplit_once(' ')?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let known = version.starts_with("RTSP/1.") && !uri.trim().is_empty();
    let named = method.len() <= METHOD_MOST && method.chars().all(token);
    let clean = !uri.chars().any(char::is_control);
    (known && named && clean).then(|| Start::Request { method: method.into(), uri: uri.trim().into() })
}

fn read_head(head: &str) -> Result<(Start, Headers), Malformed> {
    let mut lines = head.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let start = lines.next().and_then(read_start).ok_or(Malformed::FirstLine)?;
    let mut headers = Headers::default();
    for (number, line) in lines.enumerate() {
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            headers.fold(line.trim());
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(Malformed::Header(number + 2))?;
        if headers.len() == HEADERS_MOST {
            return Err(Malformed::Head);
        }
        headers.push(name.trim(), value.trim());
    }
    Ok((start, headers))
}

/// Longest head of a message in bytes.
pub const HEAD_MOST: usize = 16 << 10;

/// Most headers of a message.
const HEADERS_MOST: usize = 64;

/// Longest body of a message in bytes.
pub const BODY_MOST: usize = 64 << 10;

/// Most bytes in a row that are passed over.
const STRAY_MOST: usize = 256 << 10;

/// Longest first line in bytes.
const LINE_MOST: usize = 4 << 10;
const METHOD_MOST: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<Item> {
        std::iter::from_fn(|| decoder.decode().unwrap()).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Item>, Malformed> {
        let mut decoder = Decoder::default();
        decoder.open_channel(0);
        decoder.push(bytes);
        let mut out = Vec::new();
        while let Some(item) = decoder.decode()? {
            out.push(item);
        }
        Ok(out)
    }

    fn frame(channel: u8, body: &[u8]) -> Vec<u8> {
        [&[b'$', channel, 0, body.len() as u8], body].concat()
    }

    const OK: &[u8] = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n";

    #[test]
    fn messages_and_packets_are_told_apart_in_any_pieces() {
        let stream = [
            b"\r\nOPTIONS rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\nX: a\r\n\tb\r\n\r\n",
            frame(0, b"$RTSP/1.0").as_slice(),
            b"RTSP/1.0 200\nContent-Length:3 \nSession: 1;timeout=5\n\nabc",
            &frame(1, b"nobody asked for it"),
            &frame(200, b"x"),
        ]
        .concat();
        for step in [1, 2, 7, 1000] {
            let mut decoder = Decoder::default();
            decoder.open_channel(0);
            decoder.open_channel(200);
            let mut items = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                items.extend(all(&mut decoder));
            }
            let [Item::Request(request), Item::Data { channel: 0, bytes }, Item::Response(response), last] =
                items.as_slice()
            else {
                panic!("{items:?}")
            };
            assert_eq!((request.method.as_str(), request.uri.as_str()), ("OPTIONS", "rtsp://a/b"));
            assert_eq!((request.headers.first("cseq"), request.headers.first("x")), (Some("1"), Some("a b")));
            assert_eq!(bytes[..], b"$RTSP/1.0"[..]);
            assert_eq!((response.status, response.reason.as_str()), (Status::OK, ""));
            assert_eq!(
                (&response.body[..], response.headers.first("SESSION")),
                (&b"abc"[..], Some("1;timeout=5"))
            );
            assert_eq!(*last, Item::Data { channel: 200, bytes: Bytes::from_static(b"x") });
            assert_eq!((decoder.pending(), decoder.stray_bytes()), (0, 0));
        }
    }

    #[test]
    fn stray_bytes_between_packets_are_passed_over() {
        let stray = b"\x00\x01garbage $\x09\xff\xff GET A more\x00";
        let stream = [OK, &frame(0, b"1"), stray, &frame(0, b"2"), b"\x80", OK].concat();
        let items = decode(&stream).unwrap();
        assert_eq!(items.len(), 4);
        assert_eq!(items[2], Item::Data { channel: 0, bytes: Bytes::from_static(b"2") });
        assert!(matches!(items[3], Item::Response(_)));
        let endless = [OK, &vec![0; STRAY_MOST + 1]].concat();
        assert_eq!(decode(&endless), Err(Malformed::Stray));
    }

    #[test]
    fn a_peer_that_speaks_something_else_is_refused() {
        assert_eq!(decode(b"\x16\x03\x01"), Err(Malformed::Start(0x16)));
        assert_eq!(decode(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Malformed::FirstLine));
        assert_eq!(decode(b"SSH\x00"), Err(Malformed::FirstLine));
        assert_eq!(decode(b"OPTIONS  RTSP/1.0\r\n\r\n"), Err(Malformed::FirstLine));
        assert_eq!(decode(b"RTSP/1.0 99 Low\r\n\r\n"), Err(Malformed::FirstLine));
    }

    #[test]
    fn heads_and_bodies_have_bounds() {
        let request = |rest: &str| decode(format!("OPTIONS * RTSP/1.0\r\n{rest}").as_bytes());
        assert_eq!(request("a\r\n\r\n"), Err(Malformed::Header(2)));
        assert_eq!(request("Content-Length: 65537\r\n\r\n"), Err(Malformed::ContentLength));
        assert_eq!(request("Content-Length: -1\r\n\r\n"), Err(Malformed::ContentLength));
        assert_eq!(request(&"a: b\r\n".repeat(65)), Ok(vec![]));
        assert_eq!(request(&("a: b\r\n".repeat(65) + "\r\n")), Err(Malformed::Head));
        assert_eq!(request(&"a".repeat(HEAD_MOST)), Err(Malformed::Head));
        assert_eq!(decode("A".repeat(LINE_MOST + 1).as_bytes()), Err(Malformed::FirstLine));
        assert!(request("Content-Length: 65536\r\n\r\n").unwrap().is_empty());
    }

    #[test]
    fn rtsp_types_reads_what_is_written_and_writes_what_is_read() {
        let request =
            Request { body: Bytes::from_static(b"v=0\r\n"), ..Request::new("ANNOUNCE", "rtsp://h/p") }
                .with("CSeq", "3")
                .with("X-Bad", "a\r\nb: c");
        let mut out = Vec::new();
        request.write(&mut out);
        let (theirs, used) = rtsp_types::Message::<Vec<u8>>::parse(&out).unwrap();
        let rtsp_types::Message::Request(theirs) = theirs else { panic!("{theirs:?}") };
        assert_eq!((used, theirs.body().as_slice()), (out.len(), &b"v=0\r\n"[..]));
        assert_eq!(theirs.method(), &rtsp_types::Method::Announce);
        assert_eq!(theirs.headers().count(), 3);
        let mut again = Vec::new();
        theirs.write(&mut again).unwrap();
        let items = decode(&again).unwrap();
        let [Item::Request(ours)] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!((&ours.uri, &ours.body), (&request.uri, &request.body));
        assert_eq!(ours.headers.first("X-Bad"), Some("ab: c"));
    }

    proptest! {
        #[test]
        fn any_bytes_end_or_wait(bytes in prop::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
            let mut decoder = Decoder::default();
            decoder.open_channel(0);
            decoder.push(OK);
            'all: for piece in bytes.chunks(step) {
                decoder.push(piece);
                loop {
                    match decoder.decode() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
            }
        }
    }
}
