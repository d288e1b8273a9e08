//! The end of an RTSP connection that takes media over it or beside it: a server that records, or a reader. Bytes of the other end
//! enter, answers, requests and access units leave. Never keeps more of a unit than is looked at.
//!
//! Written from RFC 2326, RFC 3550, RFC 6184 and RFC 3640 alone, not from the engine's RTSP.

use std::fmt::Write;

use crate::Result;
use crate::tcp_sink::{End, HEAD, Heard};
use crate::units::Kind;

/// One connection.
pub(crate) struct RtspEnd {
    /// The beginning of what comes next, until it is whole: a message, or an interleaved packet.
    begun: Vec<u8>,
    medias: Vec<Media>,
    /// What a reader asks for; none = it is asked.
    reads: Option<Reader>,
    /// What is told who asks what there is.
    description: String,
    whole: bool,
}

struct Reader {
    url: String,
    base: String,
    session: String,
    requests: u32,
    asked: Asked,
    said_at: u64,
    /// Where the packets of each media shall go; none = over the connection.
    ports: Option<[u16; 2]>,
}

#[derive(Clone, Copy)]
enum Asked {
    Describe,
    SetUp(usize),
    Play,
    Nothing,
}

/// A track and its packets.
struct Media {
    kind: Kind,
    control: String,
    channel: Option<u8>,
    next: Option<u16>,
    /// NAL units behind their lengths, as far as they are kept.
    unit: Vec<u8>,
    /// Where the length of the unit under way stands.
    open: usize,
}

impl RtspEnd {
    /// One that records what comes.
    pub(crate) fn recording() -> Self {
        Self { begun: Vec::new(), medias: Vec::new(), reads: None, description: String::new(), whole: false }
    }

    /// One that plays what the description says, as far as answers go.
    pub(crate) fn serving(description: &str) -> Self {
        Self { description: description.into(), medias: medias(description), ..Self::recording() }
    }

    /// One that reads, over the connection where no ports are given; the first request goes into `out`.
    pub(crate) fn reading(url: &str, ports: Option<[u16; 2]>, now: u64, out: &mut Vec<u8>) -> Self {
        let reader = Reader {
            url: url.into(),
            base: url.into(),
            session: String::new(),
            requests: 0,
            asked: Asked::Describe,
            said_at: now,
            ports,
        };
        let mut end = Self { reads: Some(reader), ..Self::recording() };
        end.ask("DESCRIBE", url, "Accept: application/sdp\r\n", out);
        end
    }

    fn ask(&mut self, method: &str, url: &str, headers: &str, out: &mut Vec<u8>) {
        let Some(reader) = &mut self.reads else { return };
        reader.requests += 1;
        let mut text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{headers}", reader.requests);
        if !reader.session.is_empty() {
            let _ = write!(text, "Session: {}\r\n", reader.session);
        }
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// One whole message or packet.
    fn item(&mut self, item: &[u8], out: &mut Vec<u8>, hear: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        if let [b'$', channel, _, _, packet @ ..] = item {
            let whole = self.whole;
            let media = self.medias.iter_mut().find(|media| media.channel == Some(*channel));
            // The other channels carry RTCP.
            return media.map_or(Ok(()), |media| media.take(packet, whole, hear));
        }
        let message = std::str::from_utf8(item)?;
        let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
        if self.reads.is_some() { self.answered(head, body, out) } else { self.asked(head, body, out, hear) }
    }

    /// A request of who sends.
    fn asked(
        &mut self,
        head: &str,
        body: &str,
        out: &mut Vec<u8>,
        hear: &mut dyn FnMut(Heard<'_>),
    ) -> Result<()> {
        let mut words = head.split_whitespace();
        let (Some(method), Some(url)) = (words.next(), words.next()) else {
            return Err("a request of nothing".into());
        };
        let (mut answer, mut body_out, mut status) = (String::new(), "", "200 OK");
        match method {
            "OPTIONS" => {
                answer.push_str("Public: OPTIONS, ANNOUNCE, SETUP, RECORD, TEARDOWN, GET_PARAMETER\r\n")
            }
            "ANNOUNCE" => {
                self.medias = medias(body);
                let path = url.split('?').next().unwrap_or_default();
                hear(Heard::Name(path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()));
            }
            "SETUP" if header(head, "Transport").is_none_or(|transport| !transport.contains("/TCP")) => {
                status = "461 Unsupported Transport";
            }
            "SETUP" => {
                let transport = header(head, "Transport").unwrap_or_default();
                let named = |media: &Media| !media.control.is_empty() && url.ends_with(&media.control);
                let place = self.medias.iter().position(named);
                let place = place.or_else(|| self.medias.iter().position(|media| media.channel.is_none()));
                let media =
                    place.and_then(|place| self.medias.get_mut(place)).ok_or("a track that is not there")?;
                media.channel = Some(channel(transport).ok_or("a transport that is no connection")?);
                let _ = write!(answer, "Transport: {transport}\r\n");
            }
            "DESCRIBE" => {
                body_out = &self.description;
                let _ = write!(answer, "Content-Base: {url}/\r\nContent-Type: application/sdp\r\n");
                let _ = write!(answer, "Content-Length: {}\r\n", body_out.len());
            }
            "PLAY" | "RECORD" => hear(Heard::Begun),
            _ => {}
        }
        let sequence = header(head, "CSeq").unwrap_or("0");
        let answer = format!("RTSP/1.0 {status}\r\nCSeq: {sequence}\r\nSession: 1\r\n{answer}\r\n{body_out}");
        out.extend_from_slice(answer.as_bytes());
        Ok(())
    }

    /// An answer to what a reader asked.
    fn answered(&mut self, head: &str, body: &str, out: &mut Vec<u8>) -> Result<()> {
        let Some(reader) = &mut self.reads else { return Ok(()) };
        if matches!(reader.asked, Asked::Nothing) {
            return Ok(());
        }
        if !head.starts_with("RTSP/1.0 200") {
            return Err(format!("a reader was answered {}", head.lines().next().unwrap_or_default()).into());
        }
        if let Some(session) = header(head, "Session") {
            reader.session = session.split(';').next().unwrap_or_default().trim().into();
        }
        let next = match reader.asked {
            Asked::Describe => {
                let base = header(head, "Content-Base").unwrap_or(&reader.url);
                reader.base = base.trim_end_matches('/').into();
                self.medias = medias(body);
                0
            }
            Asked::SetUp(place) => {
                let given = header(head, "Transport").and_then(channel).unwrap_or(2 * place as u8);
                self.medias[place].channel = Some(given);
                place + 1
            }
            Asked::Play | Asked::Nothing => {
                reader.asked = Asked::Nothing;
                return Ok(());
            }
        };
        let base = reader.base.clone();
        if let Some(media) = self.medias.get(next) {
            reader.asked = Asked::SetUp(next);
            let url = if media.control.contains("://") {
                media.control.clone()
            } else {
                format!("{base}/{}", media.control)
            };
            let (way, first) = match reader.ports {
                Some(ports) => ("/UDP;unicast;client_port", *ports.get(next).ok_or("a third media")?),
                None => ("/TCP;unicast;interleaved", 2 * next as u16),
            };
            let transport = format!("Transport: RTP/AVP{way}={first}-{}\r\n", first + 1);
            self.ask("SETUP", &url, &transport, out);
        } else if next > 0 {
            reader.asked = Asked::Play;
            self.ask("PLAY", &base, "Range: npt=0-\r\n", out);
        } else {
            return Err("a description without media".into());
        }
        Ok(())
    }
}

impl End for RtspEnd {
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>, hear: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        let mut bytes = bytes;
        while !self.begun.is_empty() {
            let wanted = length(&self.begun).unwrap_or(self.begun.len() + 1);
            let missing = wanted.saturating_sub(self.begun.len());
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.begun.extend_from_slice(now);
            bytes = later;
            if length(&self.begun).is_some_and(|length| length <= self.begun.len()) {
                let mut item = std::mem::take(&mut self.begun);
                self.item(&item, out, hear)?;
                item.clear();
                self.begun = item;
            } else if bytes.is_empty() {
                return Ok(());
            }
        }
        while !bytes.is_empty() {
            match length(bytes).and_then(|length| bytes.split_at_checked(length)) {
                Some((item, later)) => {
                    bytes = later;
                    self.item(item, out, hear)?;
                }
                None => {
                    self.begun.extend_from_slice(bytes);
                    break;
                }
            }
        }
        Ok(())
    }

    fn take_datagram(
        &mut self,
        media: usize,
        datagram: &[u8],
        hear: &mut dyn FnMut(Heard<'_>),
    ) -> Result<()> {
        let whole = self.whole;
        self.medias.get_mut(media).map_or(Ok(()), |media| media.take(datagram, whole, hear))
    }

    fn keep_whole(&mut self) {
        self.whole = true;
    }

    fn tick(&mut self, now: u64, out: &mut Vec<u8>) {
        let Some(reader) = &mut self.reads else { return };
        if matches!(reader.asked, Asked::Nothing) && now > reader.said_at + KEEP_ALIVE {
            reader.said_at = now;
            let base = reader.base.clone();
            self.ask("OPTIONS", &base, "", out);
        }
    }
}

impl Media {
    /// An RTP packet (RFC 3550, 5.1).
    fn take(&mut self, packet: &[u8], whole: bool, hear: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        let &[first, second, s0, s1, ..] = packet else {
            return Err("an RTP packet without a header".into());
        };
        let mut start = 12 + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let words =
                packet.get(start + 2..start + 4).map_or(0, |words| u16::from_be_bytes([words[0], words[1]]));
            start += 4 + 4 * usize::from(words);
        }
        let sequence = u16::from_be_bytes([s0, s1]);
        let ahead = self.next.map_or(0, |next| sequence.wrapping_sub(next) as i16);
        match ahead {
            0 => {}
            1.. => hear(Heard::Missing(ahead as u64)),
            MISORDER..0 => {
                hear(Heard::Repeated);
                return Ok(());
            }
            // So far back is a sender that begins anew (RFC 3550, A.1).
            _ => self.unit.clear(),
        }
        self.next = Some(sequence.wrapping_add(1));
        let payload = packet.get(start..).ok_or("an RTP packet that ends in its header")?;
        match self.kind {
            Kind::Picture => {
                self.take_picture(payload, whole);
                if second & 0x80 != 0 {
                    hear(Heard::Unit(Kind::Picture, &self.unit));
                    self.unit.clear();
                }
            }
            // RFC 3640, 3.2.1: the length of the headers in bits, headers of 13 bits of size and 3 more, then the frames.
            Kind::Sound => {
                let (bits, rest) = payload.split_first_chunk().ok_or("a packet of sound without headers")?;
                let headers = usize::from(u16::from_be_bytes(*bits)).div_ceil(16);
                let (sizes, mut frames) =
                    rest.split_at_checked(2 * headers).ok_or("headers of sound that end early")?;
                for size in sizes.as_chunks().0 {
                    let size = usize::from(u16::from_be_bytes(*size) >> 3);
                    let (frame, later) =
                        frames.split_at_checked(size).ok_or("a frame of sound in several packets")?;
                    frames = later;
                    hear(Heard::Unit(Kind::Sound, frame));
                }
            }
        }
        Ok(())
    }

    /// RFC 6184, 5.6 to 5.8: one NAL unit, several, or a part of one.
    fn take_picture(&mut self, payload: &[u8], whole: bool) {
        let (Some(&indicator), most) = (payload.first(), if whole { usize::MAX } else { HEAD }) else {
            return;
        };
        if self.unit.len() >= most {
            return;
        }
        match indicator & 0x1f {
            24 => {
                let mut rest = &payload[1..];
                while let Some((size, behind)) = rest.split_first_chunk() {
                    let Some((nal, behind)) = behind.split_at_checked(usize::from(u16::from_be_bytes(*size)))
                    else {
                        return;
                    };
                    rest = behind;
                    self.begin();
                    self.append(nal);
                }
            }
            28 => {
                let Some(&head) = payload.get(1) else { return };
                if head & 0x80 != 0 {
                    self.begin();
                    self.append(&[indicator & 0xe0 | head & 0x1f]);
                }
                self.append(&payload[2..]);
            }
            _ => {
                self.begin();
                self.append(payload);
            }
        }
    }

    fn begin(&mut self) {
        self.open = self.unit.len();
        self.unit.extend([0; 4]);
    }

    fn append(&mut self, bytes: &[u8]) {
        self.unit.extend_from_slice(bytes);
        let length = self.unit.len().saturating_sub(self.open + 4) as u32;
        if let Some(place) = self.unit.get_mut(self.open..self.open + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// The pictures and the sound of a description (RFC 4566), in their order.
fn medias(description: &str) -> Vec<Media> {
    let mut medias: Vec<Media> = Vec::new();
    for line in description.lines() {
        if let Some(kind) = line.strip_prefix("m=") {
            let kind = if kind.starts_with("audio") { Kind::Sound } else { Kind::Picture };
            let (control, unit) = (String::new(), Vec::new());
            medias.push(Media { kind, control, channel: None, next: None, unit, open: 0 });
        } else if let (Some(control), Some(media)) = (line.strip_prefix("a=control:"), medias.last_mut()) {
            media.control = control.trim().into();
        }
    }
    medias
}

/// Length of the message or the packet that begins here (RFC 2326, 10.12); none when too little of it is there.
fn length(bytes: &[u8]) -> Option<usize> {
    if let [b'$', rest @ ..] = bytes {
        let &[_, high, low, ..] = rest else { return None };
        return Some(4 + usize::from(u16::from_be_bytes([high, low])));
    }
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..head]);
    Some(head + 4 + header(&text, "Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The channel of a transport.
fn channel(transport: &str) -> Option<u8> {
    let (_, channels) = transport.split_once("interleaved=")?;
    channels.split(['-', ';', ',']).next()?.trim().parse().ok()
}

/// How far a packet may be behind (RFC 3550, A.1).
const MISORDER: i16 = -100;
/// Nanoseconds between signs of life of a reader (RFC 2326, 12.37: the session of a silent one ends after a minute).
const KEEP_ALIVE: u64 = 20_000_000_000;
