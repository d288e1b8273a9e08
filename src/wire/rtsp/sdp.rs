//! Session descriptions (RFC 8866) enter, the tracks of a session leave; or tracks enter and a description leaves.
//! Never decides which tracks are taken.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, prelude::BASE64_STANDARD};
use bytes::Bytes;

use crate::wire::rtp::{AuHeaders, MuxConfig};

/// What a session consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Control URL of all tracks together, as it stands there.
    pub control: Option<String>,
    /// Its tracks.
    pub media: Vec<Media>,
}

/// One track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// What it carries.
    pub format: Format,
    /// RTP payload type.
    pub payload_type: u8,
    /// Units of the RTP timestamp in a second.
    pub clock_rate: u32,
    /// Control URL, as it stands there.
    pub control: Option<String>,
    /// The group that it is sent to, with its port and hops, where it is multicast.
    pub group: Option<(IpAddr, u16, Option<u8>)>,
}

/// What a track carries, and what a decoder must know before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// RFC 6184, with the parameter sets of `sprop-parameter-sets`.
    H264 {
        /// Sequence parameter sets.
        sps: Vec<Bytes>,
        /// Picture parameter sets.
        pps: Vec<Bytes>,
    },
    /// RFC 7798, with the parameter sets of `sprop-vps`, `sprop-sps`, `sprop-pps`.
    H265 {
        /// Video parameter sets.
        vps: Vec<Bytes>,
        /// Sequence parameter sets.
        sps: Vec<Bytes>,
        /// Picture parameter sets.
        pps: Vec<Bytes>,
    },
    /// RFC 3640, AAC-hbr or AAC-lbr.
    Aac {
        /// AudioSpecificConfig.
        config: Bytes,
        /// How headers of access units look.
        headers: AuHeaders,
        /// Channels of the rtpmap.
        channels: u8,
    },
    /// RFC 6416, MP4A-LATM.
    Latm {
        /// StreamMuxConfig, if it is told.
        config: Option<MuxConfig>,
        /// More of them may come in band.
        in_band: bool,
    },
    /// RFC 7587.
    Opus {
        /// 1 or 2, by `sprop-stereo`.
        channels: u8,
    },
    /// G.711 A-law (RFC 3551, 4.5.14).
    PcmA {
        /// Channels.
        channels: u8,
    },
    /// G.711 µ-law (RFC 3551, 4.5.14).
    PcmU {
        /// Channels.
        channels: u8,
    },
    /// RFC 2250, 3.
    MpegAudio,
    /// RFC 4184.
    Ac3 {
        /// Channels.
        channels: u8,
    },
    /// RFC 6597.
    Klv,
    /// A transport stream (RFC 2250, 2).
    Mp2t,
    /// Nothing that is read here: its encoding name, or the reason.
    Other(String),
}

/// Why bytes are no session description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too long.
    #[error("session description of {0} bytes, expected at most 65536")]
    Long(usize),
    /// It breaks the grammar of the lines that count.
    #[error("session description is not of the form v=, s=, m=")]
    Grammar,
    /// Too many tracks.
    #[error("session description with more than {MEDIA_MOST} tracks")]
    Media,
}

impl Description {
    /// Reads a description. Lines that say nothing about tracks (o=, t=, b=, …) are passed over, well formed or not.
    ///
    /// # Errors
    /// The rest is no description.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > LENGTH_MOST {
            return Err(Malformed::Long(bytes.len()));
        }
        let session = sdp_types::Session::parse(&essence(bytes)).map_err(|_| Malformed::Grammar)?;
        if session.medias.len() > MEDIA_MOST {
            return Err(Malformed::Media);
        }
        let attribute = |name: &str| find(&session.attributes, name);
        Ok(Self {
            control: attribute("control").map(Into::into),
            media: session
                .medias
                .iter()
                .map(|media| read_media(media, session.connection.as_ref()))
                .collect(),
        })
    }

    /// The description as text, for `name`; `group` = every track is multicast to this address, from the ports and
    /// with the hops of its [`Media::group`].
    pub fn write(&self, name: &str) -> String {
        let origin = sdp_types::Origin::with_ip_addr("0", 0, IpAddr::from([0, 0, 0, 0]));
        let clean: String = name.chars().filter(|c| !c.is_control()).collect();
        let mut session = sdp_types::Session::new(origin, if clean.is_empty() { "-" } else { &clean });
        session.connection = Some(sdp_types::Connection::from_ip_addr(IpAddr::from([0, 0, 0, 0])));
        session.times = vec![sdp_types::Time { start_time: 0, stop_time: 0, repeats: Vec::new() }];
        session.attributes = vec![attribute("control", self.control.as_deref().unwrap_or("*"))];
        session.medias = self.media.iter().map(write_media).collect();
        session.to_string()
    }
}

impl Format {
    /// The name of the encoding, as rtpmap and people say it.
    pub fn name(&self) -> &str {
        match self {
            Self::H264 { .. } => "H264",
            Self::H265 { .. } => "H265",
            Self::Aac { .. } => "mpeg4-generic",
            Self::Latm { .. } => "MP4A-LATM",
            Self::Opus { .. } => "opus",
            Self::PcmA { .. } => "PCMA",
            Self::PcmU { .. } => "PCMU",
            Self::MpegAudio => "MPA",
            Self::Ac3 { .. } => "ac3",
            Self::Klv => "SMPTE336M",
            Self::Mp2t => "MP2T",
            Self::Other(name) => name,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::H264 { .. } | Self::H265 { .. } | Self::Mp2t => "video",
            Self::Klv | Self::Other(_) => "application",
            _ => "audio",
        }
    }
}

/// The URL of a control attribute: absolute as it is, `*` the base itself, anything else behind the base as text, the
/// way every client does it (queries of the base stay in front).
pub fn resolve(base: &str, control: Option<&str>) -> String {
    match control {
        None | Some("" | "*") => base.into(),
        Some(control) if control.contains("://") => control.into(),
        Some(control) => {
            let control = control.strip_prefix('/').unwrap_or(control);
            format!("{}/{control}", base.strip_suffix('/').unwrap_or(base))
        }
    }
}

/// The lines that count, each in a form that every parser takes.
fn essence(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\n".to_vec();
    let text = String::from_utf8_lossy(bytes);
    for line in text.split(['\r', '\n']).map(str::trim) {
        let kept = match line.get(..2) {
            Some("m=" | "a=") => line.len() > 2,
            // `c=IN IP4 group/ttl`; some devices leave half of it out.
            Some("c=") => line.split_whitespace().count() == 3,
            _ => false,
        };
        if kept {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

fn read_media(media: &sdp_types::Media, session: Option<&sdp_types::Connection>) -> Media {
    let payload_type = media.fmt.split_whitespace().next().and_then(|fmt| fmt.parse().ok());
    let payload_type = payload_type.filter(|number: &u8| *number < 128);
    let number = payload_type.unwrap_or(0);
    // a=rtpmap:96 H264/90000, a=fmtp:96 name=value;name=value
    let of_type = |name: &'static str| {
        let values = media.attributes.iter().filter(move |attribute| attribute.attribute == name);
        values.filter_map(|attribute| attribute.value.as_deref()).find_map(move |value| {
            let (kind, rest) = value.trim_start().split_once([' ', '\t'])?;
            (kind.parse() == Ok(number)).then(|| rest.trim())
        })
    };
    let map = of_type("rtpmap").or_else(|| static_map(number)).unwrap_or_default();
    let mut map = map.split('/').map(str::trim);
    let name = map.next().unwrap_or_default();
    let clock_rate =
        map.next().and_then(|rate| rate.parse().ok()).filter(|rate| (1..=RATE_MOST).contains(rate));
    let channels = map.next().and_then(|channels| channels.parse().ok()).filter(|n| *n > 0).unwrap_or(1);
    let fmtp = Fmtp(of_type("fmtp").unwrap_or_default());
    // RTP/AVP and its feedback variants; not SRTP.
    let plain = media.proto.starts_with("RTP/AVP");
    let format = match (plain, payload_type, clock_rate) {
        (true, Some(_), Some(_)) => read_format(name, channels, &fmtp),
        (false, ..) => Format::Other(media.proto.clone()),
        _ => Format::Other(if name.is_empty() { media.fmt.clone() } else { name.into() }),
    };
    let connection = media.connections.first().or(session);
    let group = connection.and_then(|connection| {
        let address = connection.try_address().ok()?;
        let text = connection.connection_address.split('/').next()?;
        let ip: IpAddr = text.parse().ok().filter(IpAddr::is_multicast)?;
        Some((ip, media.port, address.ttl))
    });
    Media {
        format,
        payload_type: number,
        clock_rate: clock_rate.unwrap_or(90_000),
        control: find(&media.attributes, "control").map(Into::into),
        group,
    }
}

fn read_format(name: &str, channels: u8, fmtp: &Fmtp<'_>) -> Format {
    match name.to_ascii_uppercase().as_str() {
        "H264" => {
            let (mut sps, mut pps) = (Vec::new(), Vec::new());
            for set in fmtp.sets("sprop-parameter-sets") {
                match set.first().map(|byte| byte & 0x1f) {
                    Some(7) => sps.push(set),
                    Some(8) => pps.push(set),
                    _ => {}
                }
            }
            Format::H264 { sps, pps }
        }
        "H265" | "HEVC" => Format::H265 {
            vps: fmtp.sets("sprop-vps"),
            sps: fmtp.sets("sprop-sps"),
            pps: fmtp.sets("sprop-pps"),
        },
        "MPEG4-GENERIC" => {
            let bits = |name| fmtp.value(name).and_then(|bits| bits.parse().ok()).filter(|bits| *bits <= 32);
            let mode = fmtp.value("mode").unwrap_or("AAC-hbr").to_ascii_uppercase();
            if !mode.starts_with("AAC") || fmtp.value("auxiliarydatasizelength").is_some_and(|n| n != "0") {
                return Format::Other(format!("mpeg4-generic {mode}"));
            }
            let usual = if mode == "AAC-LBR" {
                AuHeaders { size: 6, index: 2, index_delta: 2 }
            } else {
                AuHeaders::HBR
            };
            let headers = AuHeaders {
                size: bits("sizelength").filter(|bits| *bits > 0).unwrap_or(usual.size),
                index: bits("indexlength").unwrap_or(usual.index),
                index_delta: bits("indexdeltalength").unwrap_or(usual.index_delta),
            };
            Format::Aac { config: fmtp.hex("config").unwrap_or_default(), headers, channels }
        }
        "MP4A-LATM" => {
            let config = fmtp.hex("config").and_then(|config| MuxConfig::parse(&config));
            let in_band = fmtp.value("cpresent").is_none_or(|value| value != "0");
            if config.is_none() && !in_band {
                return Format::Other("MP4A-LATM without a configuration that is understood".into());
            }
            Format::Latm { config, in_band }
        }
        // The rtpmap always says 2 (RFC 7587, 7).
        "OPUS" => Format::Opus { channels: if fmtp.value("sprop-stereo") == Some("1") { 2 } else { 1 } },
        "PCMA" => Format::PcmA { channels },
        "PCMU" => Format::PcmU { channels },
        "MPA" => Format::MpegAudio,
        "AC3" => Format::Ac3 { channels },
        "SMPTE336M" | "SMTPE336M" => Format::Klv,
        "MP2T" => Format::Mp2t,
        _ => Format::Other(name.into()),
    }
}

/// Payload types that need no rtpmap (RFC 3551, 6).
fn static_map(payload_type: u8) -> Option<&'static str> {
    match payload_type {
        0 => Some("PCMU/8000"),
        8 => Some("PCMA/8000"),
        14 => Some("MPA/90000"),
        33 => Some("MP2T/90000"),
        _ => None,
    }
}

fn write_media(media: &Media) -> sdp_types::Media {
    let number = media.payload_type;
    let (group, port) = media.group.map_or((None, 0), |(group, port, ttl)| (Some((group, ttl)), port));
    let map = |channels: u8| {
        let rate = media.clock_rate;
        let name = media.format.name();
        if channels > 1 {
            format!("{number} {name}/{rate}/{channels}")
        } else {
            format!("{number} {name}/{rate}")
        }
    };
    let channels = match media.format {
        Format::Aac { channels, .. }
        | Format::PcmA { channels }
        | Format::PcmU { channels }
        | Format::Ac3 { channels } => channels,
        Format::Opus { .. } => 2,
        _ => 1,
    };
    let mut attributes = vec![attribute("rtpmap", &map(channels))];
    let fmtp = write_fmtp(&media.format);
    if !fmtp.is_empty() {
        attributes.push(attribute("fmtp", &format!("{number} {fmtp}")));
    }
    attributes.extend(media.control.as_deref().map(|control| attribute("control", control)));
    sdp_types::Media {
        media: media.format.kind().into(),
        port,
        num_ports: None,
        proto: "RTP/AVP".into(),
        fmt: number.to_string(),
        media_title: None,
        connections: group
            .map(|(group, ttl)| sdp_types::Connection::from_ip_addr_ttl(group, ttl))
            .into_iter()
            .collect(),
        bandwidths: Vec::new(),
        key: None,
        attributes,
    }
}

fn write_fmtp(format: &Format) -> String {
    let base64 =
        |sets: &[Bytes]| sets.iter().map(|set| BASE64_STANDARD.encode(set)).collect::<Vec<_>>().join(",");
    let mut parts = Vec::new();
    match format {
        Format::H264 { sps, pps } => {
            parts.push("packetization-mode=1".into());
            if let Some(&[_, profile, constraints, level, ..]) = sps.first().map(AsRef::as_ref) {
                parts.push(format!("profile-level-id={profile:02X}{constraints:02X}{level:02X}"));
            }
            if !sps.is_empty() {
                let sets: Vec<Bytes> = sps.iter().chain(pps).cloned().collect();
                parts.push(format!("sprop-parameter-sets={}", base64(&sets)));
            }
        }
        Format::H265 { vps, sps, pps } => {
            for (name, sets) in [("sprop-vps", vps), ("sprop-sps", sps), ("sprop-pps", pps)] {
                if !sets.is_empty() {
                    parts.push(format!("{name}={}", base64(sets)));
                }
            }
        }
        Format::Aac { config, headers, .. } => {
            let hex: String = config.iter().map(|byte| format!("{byte:02x}")).collect();
            parts.push("streamtype=5;profile-level-id=1;mode=AAC-hbr".into());
            parts.push(format!("sizelength={};indexlength={}", headers.size, headers.index));
            parts.push(format!("indexdeltalength={};config={hex}", headers.index_delta));
        }
        Format::Opus { channels } => parts.push(format!("sprop-stereo={}", u8::from(*channels > 1))),
        _ => {}
    }
    parts.join(";")
}

fn attribute(name: &str, value: &str) -> sdp_types::Attribute {
    let clean: String = value.chars().filter(|c| !c.is_control()).collect();
    sdp_types::Attribute { attribute: name.into(), value: Some(clean) }
}

fn find<'a>(attributes: &'a [sdp_types::Attribute], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.attribute.eq_ignore_ascii_case(name));
    found.and_then(|attribute| attribute.value.as_deref()).map(str::trim)
}

/// `name=value;name=value`
struct Fmtp<'a>(&'a str);

impl<'a> Fmtp<'a> {
    fn value(&self, wanted: &str) -> Option<&'a str> {
        self.0.split(';').find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
        })
    }

    /// NAL units in base 64, at most 64. A start code in front, as some cameras have it, is taken off.
    fn sets(&self, name: &str) -> Vec<Bytes> {
        let sets =
            self.value(name).unwrap_or_default().split(',').filter_map(|set| BASE64.decode(set.trim()).ok());
        let nal = |set: Vec<u8>| {
            let set = set.strip_prefix(&[0, 0, 0, 1]).unwrap_or(&set);
            Bytes::copy_from_slice(set.strip_prefix(&[0, 0, 1]).unwrap_or(set))
        };
        sets.map(nal).filter(|set| set.len() > 2).take(SETS_MOST).collect()
    }

    fn hex(&self, name: &str) -> Option<Bytes> {
        let text = self.value(name).filter(|text| text.is_ascii() && text.len() <= 512)?;
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits?;
        // An odd last digit is the upper half of a byte: LATM configurations end in the middle of one.
        Some(
            digits
                .chunks(2)
                .map(|pair| pair.first().map_or(0, |d| d << 4) | pair.get(1).unwrap_or(&0))
                .collect(),
        )
    }
}

/// Base 64 with or without padding: some cameras leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const LENGTH_MOST: usize = 64 << 10;
const RATE_MOST: u32 = 10_000_000;
const SETS_MOST: usize = 64;

/// Most tracks of a session.
pub const MEDIA_MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: &str = "v=0\r\no=- 16 1 IN IP4\r\ns=\r\nt=0\r\nb=AS:x\r\na=control:rtsp://h/all\r\n\
        m=video 0 RTP/AVP 96\r\nc=IN IP4\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1; profile-level-id=420029; sprop-parameter-sets=AAAAAWdCAClA,aM4BqA\r\n\
        a=control:trackID=1\r\n\
        m=audio 0 RTP/AVP 0\r\na=control:trackID=2\n\
        m=audio 0 RTP/AVP 97\na=rtpmap:97 MPEG4-GENERIC/48000/2\n\
        a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190\n\
        m=application 0 RTP/AVP 98\na=rtpmap:98 SMPTE336M/90000\n\
        m=application 0 RTP/AVP 107\na=rtpmap:107 vnd.onvif.metadata/90000\n\
        m=video 5000/2 RTP/AVP 33\nc=IN IP4 239.1.2.3/16\n\
        m=audio 0 RTP/SAVP 96\na=rtpmap:96 opus/48000/2\n";

    #[test]
    fn the_description_of_a_sloppy_camera_is_read() {
        let description = Description::parse(CAMERA.as_bytes()).unwrap();
        assert_eq!(description.control.as_deref(), Some("rtsp://h/all"));
        let names: Vec<_> = description.media.iter().map(|media| media.format.name()).collect();
        let want = ["H264", "PCMU", "mpeg4-generic", "SMPTE336M", "vnd.onvif.metadata", "MP2T", "RTP/SAVP"];
        assert_eq!(names, want);
        let Format::H264 { sps, pps } = &description.media[0].format else { panic!() };
        assert_eq!((sps[0][..2].to_vec(), pps[0][..2].to_vec()), (vec![0x67, 0x42], vec![0x68, 0xce]));
        let Format::Aac { config, channels: 2, .. } = &description.media[2].format else { panic!() };
        assert_eq!(config[..], [0x11, 0x90]);
        assert_eq!(description.media[5].group, Some(("239.1.2.3".parse().unwrap(), 5000, Some(16))));
        let rates: Vec<_> = description.media.iter().map(|media| media.clock_rate).collect();
        assert_eq!(rates[..4], [90_000, 8000, 48_000, 90_000]);
    }

    #[test]
    fn what_is_written_is_read() {
        let set = |first: u8| Bytes::from(vec![first, 0x64, 0, 0x1f, 5]);
        let media = |format, payload_type, clock_rate, i: usize| Media {
            format,
            payload_type,
            clock_rate,
            control: Some(format!("trackID={i}")),
            group: None,
        };
        let config = Bytes::from_static(&[0x11, 0x90]);
        let formats = [
            (Format::H264 { sps: vec![set(0x67), set(0x67)], pps: vec![set(0x68)] }, 90_000),
            (Format::H265 { vps: vec![set(64)], sps: vec![set(66)], pps: vec![set(68), set(68)] }, 90_000),
            (Format::Aac { config, headers: AuHeaders::HBR, channels: 2 }, 48_000),
            (Format::Opus { channels: 2 }, 48_000),
            (Format::PcmA { channels: 1 }, 8000),
            (Format::PcmU { channels: 2 }, 16_000),
            (Format::MpegAudio, 90_000),
            (Format::Ac3 { channels: 6 }, 48_000),
            (Format::Klv, 90_000),
            (Format::Mp2t, 90_000),
        ];
        let media: Vec<_> = formats
            .into_iter()
            .enumerate()
            .map(|(i, (format, rate))| media(format, 96 + i as u8, rate, i))
            .collect();
        let description = Description { control: Some("*".into()), media };
        let text = description.write("a\r\nb");
        assert_eq!(Description::parse(text.as_bytes()), Ok(description));
        assert!(text.contains("s=ab\r\n") && text.contains("profile-level-id=64001F"), "{text}");
    }

    #[test]
    fn bounds_are_held() {
        assert_eq!(Description::parse(&vec![b'v'; LENGTH_MOST + 1]), Err(Malformed::Long(65_537)));
        let many = "v=0\r\n".to_owned() + &"m=video 0 RTP/AVP 96\r\n".repeat(17);
        assert_eq!(Description::parse(many.as_bytes()), Err(Malformed::Media));
        assert_eq!(Description::parse(b"v=0\r\nm=nonsense\r\n"), Err(Malformed::Grammar));
        assert_eq!(Description::parse(b""), Ok(Description::default()));
        let odd = "m=video 0 RTP/AVP 200\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/0\r\n";
        let odd = Description::parse(odd.as_bytes()).unwrap();
        assert!(odd.media.iter().all(|media| matches!(media.format, Format::Other(_))));
    }

    #[test]
    fn control_urls_are_put_behind_their_base() {
        assert_eq!(resolve("rtsp://h/a", Some("trackID=1")), "rtsp://h/a/trackID=1");
        assert_eq!(resolve("rtsp://h/a/", Some("/trackID=1")), "rtsp://h/a/trackID=1");
        assert_eq!(resolve("rtsp://h/a?x=y", Some("t")), "rtsp://h/a?x=y/t");
        assert_eq!(resolve("rtsp://h/a", Some("rtsp://h/b")), "rtsp://h/b");
        assert_eq!(resolve("rtsp://h/a", Some("*")), "rtsp://h/a");
        assert_eq!(resolve("rtsp://h/a", None), "rtsp://h/a");
    }
}
