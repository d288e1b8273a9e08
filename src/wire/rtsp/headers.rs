//! Values of RTSP headers enter, what they say leaves, as tolerant as peers are sloppy; or fields enter and a value
//! leaves as strict as peers are. Decides nothing.

use std::fmt::Write as _;
use std::net::IpAddr;

/// One transport of a Transport header (RFC 2326, 12.39).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transport {
    /// Over the connection, or over UDP.
    pub lower: Lower,
    /// To a group, not to one reader. (The header's default is multicast; nobody means it.)
    pub multicast: bool,
    /// Channels of RTP and RTCP on the connection.
    pub interleaved: Option<(u8, u8)>,
    /// Ports of the client for RTP and RTCP.
    pub client_port: Option<(u16, u16)>,
    /// Ports of the server for RTP and RTCP.
    pub server_port: Option<(u16, u16)>,
    /// Ports of the group for RTP and RTCP.
    pub port: Option<(u16, u16)>,
    /// Where packets go, if it is said: the group.
    pub destination: Option<IpAddr>,
    /// Where packets come from, if it is said.
    pub source: Option<IpAddr>,
    /// Hops that packets to the group live.
    pub ttl: Option<u8>,
    /// Synchronisation source of the sender.
    pub ssrc: Option<u32>,
    /// To be recorded, not played.
    pub record: bool,
}

/// What carries RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Lower {
    /// Interleaved on the connection.
    #[default]
    Tcp,
    /// Datagrams of its own.
    Udp,
}

/// A Session header (RFC 2326, 12.37).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session.
    pub id: String,
    /// Seconds after which the server forgets it, 60 where it is not said.
    pub timeout: u32,
}

/// What an RTP-Info header (RFC 2326, 12.33) says of one track.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RtpInfo {
    /// Its control URL.
    pub url: String,
    /// Sequence number of its first packet.
    pub sequence: Option<u16>,
    /// RTP timestamp of the start of the range.
    pub timestamp: Option<u32>,
}

impl Transport {
    /// Reads the transports of a header that can be understood, in the order of preference. Others (SRTP, other
    /// profiles) are left out. At most 8 are read.
    pub fn parse_all(value: &str) -> Vec<Self> {
        value.split(',').filter_map(Self::parse).take(8).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        let mut transport = Self::default();
        let mut specifier = parts.next()?.split('/').map(|word| word.trim().to_ascii_uppercase());
        if specifier.next()? != "RTP" || specifier.next()? != "AVP" {
            return None;
        }
        transport.lower = match specifier.next().as_deref() {
            Some("TCP") => Lower::Tcp,
            None | Some("UDP") => Lower::Udp,
            Some(_) => return None,
        };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "multicast" => transport.multicast = true,
                "interleaved" => transport.interleaved = parse_pair(value),
                "client_port" => transport.client_port = parse_pair(value),
                "server_port" => transport.server_port = parse_pair(value),
                "port" => transport.port = parse_pair(value),
                "destination" => transport.destination = value.parse().ok(),
                "source" => transport.source = value.parse().ok(),
                "ttl" => transport.ttl = value.parse().ok(),
                // Some servers write it with a prefix, some in decimal; it is only a hint.
                "ssrc" => transport.ssrc = u32::from_str_radix(value.trim_start_matches("0x"), 16).ok(),
                "mode" => transport.record = mode_records(value),
                // `unicast` is what is taken for granted.
                _ => {}
            }
        }
        Some(transport)
    }

    /// Its value: `mode=record` unquoted and in lower case, as ffmpeg wants it.
    pub fn write(&self) -> String {
        let mut out = String::from(match self.lower {
            Lower::Tcp => "RTP/AVP/TCP",
            Lower::Udp => "RTP/AVP",
        });
        out.push_str(if self.multicast { ";multicast" } else { ";unicast" });
        let pairs = [
            ("interleaved", self.interleaved.map(|(a, b)| (a.into(), b.into()))),
            ("client_port", self.client_port),
            ("server_port", self.server_port),
            ("port", self.port),
        ];
        for (name, pair) in pairs {
            if let Some((rtp, rtcp)) = pair {
                let _ = write!(out, ";{name}={rtp}-{rtcp}");
            }
        }
        for (name, address) in [("destination", self.destination), ("source", self.source)] {
            if let Some(address) = address {
                let _ = write!(out, ";{name}={address}");
            }
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(out, ";ttl={ttl}");
        }
        if let Some(ssrc) = self.ssrc {
            let _ = write!(out, ";ssrc={ssrc:08X}");
        }
        if self.record {
            out.push_str(";mode=record");
        }
        out
    }
}

impl Session {
    /// Reads a header; `None` when it names no session of 1 to 256 printable characters.
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let id = parts.next().filter(|id| !id.is_empty() && id.len() <= ID_MOST)?;
        if !id.chars().all(|c| c.is_ascii_graphic()) {
            return None;
        }
        let timeout = parts.filter_map(|part| part.split_once('=')).find_map(|(name, value)| {
            let named = name.trim().eq_ignore_ascii_case("timeout");
            named.then(|| value.trim().parse().ok()).flatten().filter(|seconds| *seconds > 0)
        });
        Some(Self { id: id.into(), timeout: timeout.unwrap_or(SESSION_TIMEOUT) })
    }
}

impl RtpInfo {
    /// Reads a header. Its URLs may hold commas and semicolons; at most 32 tracks are read.
    pub fn parse_all(value: &str) -> Vec<Self> {
        let mut tracks: Vec<Self> = Vec::new();
        for part in value.split([',', ';']) {
            let (name, value) = part.split_once('=').unwrap_or(("", part));
            match name.trim().to_ascii_lowercase().as_str() {
                "url" if tracks.len() == TRACKS_MOST => break,
                "url" => tracks.push(Self { url: value.trim().trim_matches('"').into(), ..Self::default() }),
                "seq" => drop(tracks.last_mut().map(|track| track.sequence = value.trim().parse().ok())),
                "rtptime" => drop(tracks.last_mut().map(|track| track.timestamp = value.trim().parse().ok())),
                _ => {}
            }
        }
        tracks
    }

    /// The value for these tracks.
    pub fn write_all(tracks: &[Self]) -> String {
        let one = |track: &Self| {
            let mut out = format!("url={}", track.url);
            if let Some(sequence) = track.sequence {
                let _ = write!(out, ";seq={sequence}");
            }
            if let Some(timestamp) = track.timestamp {
                let _ = write!(out, ";rtptime={timestamp}");
            }
            out
        };
        tracks.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

/// The type of a body without its parameters, in lower case: `application/sdp` for `application/SDP; charset=utf-8`.
pub(super) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `a-b`, or `a` alone with `a+1` as the second.
fn parse_pair<T: std::str::FromStr + Into<u32> + TryFrom<u32> + Copy>(value: &str) -> Option<(T, T)> {
    let (first, second) = match value.split_once('-') {
        Some((first, second)) => (first, Some(second)),
        None => (value, None),
    };
    let first: T = first.trim().parse().ok()?;
    let second = match second {
        Some(second) => second.trim().parse().ok()?,
        None => T::try_from(first.into() + 1).ok()?,
    };
    Some((first, second))
}

fn mode_records(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    value.contains("record") || value.contains("receive")
}

/// Seconds of a session that names none (RFC 2326, 12.37).
pub const SESSION_TIMEOUT: u32 = 60;

const ID_MOST: usize = 256;
const TRACKS_MOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_of_real_peers_are_read() {
        let one = |value| Transport::parse_all(value).remove(0);
        let tcp = one("RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=0A0B0C0D;mode=\"PLAY\"");
        assert_eq!(
            (tcp.lower, tcp.interleaved, tcp.ssrc, tcp.record),
            (Lower::Tcp, Some((2, 3)), Some(0x0a0b_0c0d), false)
        );
        let udp = one(
            "rtp/avp/udp; Unicast; client_port = 5000 - 5001 ;server_port=6000;source=192.0.2.1;mode=record",
        );
        assert_eq!((udp.client_port, udp.server_port), (Some((5000, 5001)), Some((6000, 6001))));
        assert_eq!((udp.lower, udp.record, udp.source), (Lower::Udp, true, "192.0.2.1".parse().ok()));
        let group = one("RTP/AVP;multicast;destination=239.1.2.3;port=7000-7001;ttl=16;mode=\"RECORD\"");
        assert_eq!(
            (group.multicast, group.port, group.ttl, group.record),
            (true, Some((7000, 7001)), Some(16), true)
        );
        let several =
            Transport::parse_all("RTP/SAVP;unicast,RTP/AVP/TCP;interleaved=255,RAW/RAW/UDP,RTP/AVP;unicast");
        assert_eq!(
            several.iter().map(|t| (t.lower, t.interleaved)).collect::<Vec<_>>(),
            [(Lower::Tcp, None), (Lower::Udp, None)]
        );
        assert!(Transport::parse_all(&",".repeat(100)).is_empty());
    }

    #[test]
    fn a_written_transport_is_read() {
        let transport = Transport {
            lower: Lower::Udp,
            multicast: true,
            port: Some((1, 2)),
            destination: "239.0.0.1".parse().ok(),
            source: "192.0.2.9".parse().ok(),
            ttl: Some(4),
            ssrc: Some(0xab),
            record: true,
            ..Transport::default()
        };
        assert_eq!(Transport::parse_all(&transport.write()), [transport]);
        let push = Transport { interleaved: Some((0, 1)), record: true, ..Transport::default() };
        assert_eq!(push.write(), "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
    }

    #[test]
    fn sessions_are_read_with_whatever_stands_around_them() {
        let read = |value| Session::parse(value).map(|session| (session.id, session.timeout));
        assert_eq!(read("abc"), Some(("abc".into(), 60)));
        assert_eq!(read("abc;timeout=30;x=y"), Some(("abc".into(), 30)));
        assert_eq!(read(" abc ; Timeout = 8 "), Some(("abc".into(), 8)));
        assert_eq!(read("abc;timeout=0"), Some(("abc".into(), 60)));
        assert_eq!(read(";timeout=5"), None);
        assert_eq!(read(&"a".repeat(257)), None);
    }

    #[test]
    fn rtp_info_survives_odd_urls() {
        let value = "url=rtsp://h/a;b?c,d/trackID=0;seq=5;rtptime=99, url=\"rtsp://h/1\";rtptime=7";
        let tracks = RtpInfo::parse_all(value);
        assert_eq!((tracks[0].sequence, tracks[0].timestamp), (Some(5), Some(99)));
        assert_eq!(
            (tracks[1].url.as_str(), tracks[1].sequence, tracks[1].timestamp),
            ("rtsp://h/1", None, Some(7))
        );
        assert_eq!(RtpInfo::parse_all(&RtpInfo::write_all(&tracks))[1], tracks[1]);
        assert_eq!(RtpInfo::parse_all(&"url=a,".repeat(99)).len(), 32);
    }

    #[test]
    fn parameters_of_a_media_type_are_passed_over() {
        assert_eq!(media_type("application/SDP; charset=utf-8"), "application/sdp");
        assert_eq!(media_type(""), "");
    }
}
