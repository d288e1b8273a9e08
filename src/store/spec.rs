//! What a url of an input or output says, parsed: every field is valid by construction.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::rtmp::{RtmpInput, RtmpOutput};
use super::rtsp::{RtspInput, RtspOutput};
use super::srt::{SrtInput, SrtOutput};
use super::tak::{CotOutput, KlvOutput};
use crate::wire::ts::FilterSpec;

/// A source of a transport stream.
#[derive(Debug, Clone, PartialEq)]
pub enum InputUrl {
    /// `udp://`
    Udp(UdpInput),
    /// `rtp://`, payload type 33 (RFC 2250, RFC 3551).
    Rtp(RtpInput),
    /// `srt://`
    Srt(Box<SrtInput>),
    /// `rtmp://`, `rtmps://`
    Rtmp(Box<RtmpInput>),
    /// `rtsp://`, `rtsps://`
    Rtsp(Box<RtspInput>),
    /// `file:`
    File(FileInput),
}

/// `udp://[group|address|host]:port?interface=…&source=…&rcvbuf=…&stall_after=…`
#[derive(Debug, Clone, PartialEq)]
pub struct UdpInput {
    /// Address to bind to (0.0.0.0 when the url has none), or the multicast group; IPv6 without brackets, a
    /// scope as `fe80::1%eth0`. A name is resolved at every attempt.
    pub host: String,
    /// UDP port, 1 to 65535.
    pub port: u16,
    /// Network interface by name (or by one of its addresses): where a group is joined, or which one a
    /// unicast input listens on. `None` where the host has a scope.
    pub interface: Option<String>,
    /// Group: source-specific multicast from this sender. Unicast: the only sender listened to.
    pub source: Option<IpAddr>,
    /// Receive buffer asked of the kernel in bytes, 4096 to 2^30; `None` = the configuration's default.
    pub rcvbuf: Option<usize>,
    /// Without a packet for this long (0.1 s to 1 h) the input is Stalled, and a unicast input lets go of
    /// its sender; `None` = the configuration's default.
    pub stall_after: Option<Duration>,
}

/// `rtp://…?reorder_ms=…` and everything that `udp://` takes.
#[derive(Debug, Clone, PartialEq)]
pub struct RtpInput {
    /// The socket.
    pub udp: UdpInput,
    /// How long a gap in the sequence is waited for, 0 to 2000 ms; 0 = never. Default 50 ms.
    pub reorder: Duration,
}

/// `file:PATH?loop=true`
#[derive(Debug, Clone, PartialEq)]
pub struct FileInput {
    /// The path as given; resolved inside the configured roots when the file is opened.
    pub path: PathBuf,
    /// Start again at the end (the default), timestamps going on.
    pub looped: bool,
}

/// A destination of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputUrl {
    /// `udp://`
    Udp(UdpOutput),
    /// `rtp://`, payload type 33.
    Rtp(UdpOutput),
    /// `srt://`
    Srt(Box<SrtOutput>),
    /// `rtmp://`, `rtmps://`
    Rtmp(Box<RtmpOutput>),
    /// `rtsp://`, `rtsps://`
    Rtsp(Box<RtspOutput>),
    /// `file:`
    File(FileOutput),
    /// `klv+udp://`: what the metadata says, as it came.
    Klv(KlvOutput),
    /// `cot+udp://`, `cot+tcp://`, `cot+tls://`: what the metadata says, to TAK.
    Cot(Box<CotOutput>),
}

impl OutputUrl {
    /// Whether it carries what the metadata says, and no stream.
    pub fn tells(&self) -> bool {
        matches!(self, Self::Klv(_) | Self::Cot(_))
    }
}

/// `udp://host:port?ttl=…&interface=…&dscp=…&source_port=…&delay_ms=…&pace=…` and the filter options.
#[derive(Debug, Clone, PartialEq)]
pub struct UdpOutput {
    /// Address (IPv6 without brackets, a scope as `fe80::1%eth0`), multicast group or name; a name is
    /// resolved at every attempt.
    pub host: String,
    /// UDP port, 1 to 65535.
    pub port: u16,
    /// Time to live (IPv6: hop limit), 1 to 255; `None` = the kernel's default (multicast: 1).
    pub ttl: Option<u8>,
    /// Egress interface by name (or by one of its addresses). `None` where the host has a scope.
    pub interface: Option<String>,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: Option<u8>,
    /// Local port to send from; `None` = any.
    pub source_port: Option<u16>,
    /// Delay class; `None` = the configuration's default.
    pub delay: Option<Delay>,
    /// How datagrams are spread in time.
    pub pace: Pace,
    /// What is taken out of the stream before it is sent.
    pub transform: Transform,
}

/// `file:PATH?rotate_mb=…&rotate_s=…` and the filter options.
#[derive(Debug, Clone, PartialEq)]
pub struct FileOutput {
    /// The path as given; resolved inside the configured roots when the file is opened. With rotation the
    /// time of the first packet is put in front of the extension.
    pub path: PathBuf,
    /// What the file is: an MP4 file where its name ends in `.mp4`, a transport stream otherwise.
    pub container: Container,
    /// A new file after this many bytes, 10^6 to 10^12.
    pub rotate_bytes: Option<u64>,
    /// A new file after this much time, 1 s to 7 days.
    pub rotate_after: Option<Duration>,
    /// What is taken out of the stream before it is written.
    pub transform: Transform,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// A transport stream, as it came or filtered.
    #[default]
    Ts,
    /// Fragments of an MP4 file.
    Mp4,
}

/// How long a datagram may wait for others to be sent with (the delay class D).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Delay {
    /// Sent as soon as it arrives.
    Ms0,
    /// 5 ms.
    Ms5,
    /// 10 ms, the default.
    #[default]
    Ms10,
    /// 20 ms.
    Ms20,
    /// 40 ms.
    Ms40,
}

impl Delay {
    /// Every class, shortest first.
    pub const ALL: [Self; 5] = [Self::Ms0, Self::Ms5, Self::Ms10, Self::Ms20, Self::Ms40];

    /// The class of that many milliseconds, if there is one.
    pub fn from_ms(ms: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.as_ms() == ms)
    }

    /// Milliseconds.
    pub fn as_ms(self) -> u64 {
        match self {
            Self::Ms0 => 0,
            Self::Ms5 => 5,
            Self::Ms10 => 10,
            Self::Ms20 => 20,
            Self::Ms40 => 40,
        }
    }
}

/// How datagrams of an output are spread in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pace {
    /// In the batches of the delay class.
    #[default]
    Batch,
    /// Each at its PCR time, at most two at once, for decoders with small buffers.
    Pcr,
}

/// What becomes of a connection over TCP that falls out of the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lag {
    /// It goes on at the newest random access point. The default.
    #[default]
    SkipToKeyframe,
    /// It is ended, and made anew.
    Disconnect,
}

/// What is taken out of a stream; `None` = nothing, the stream is copied byte for byte.
pub type Transform = Option<FilterSpec>;

/// The API's word for how an output sends: five of them come from the contract, the rest are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the words of the API")]
pub enum Protocol {
    SrtCaller,
    SrtListener,
    Rtmp,
    Udp,
    Rtsp,
    Rtp,
    File,
    RtspListener,
    SrtRendezvous,
    KlvUdp,
    CotUdp,
    CotTcp,
    CotTls,
}

impl Protocol {
    /// Every protocol, in the order in which they are named to an operator.
    pub const ALL: [Self; 13] = [
        Self::SrtCaller,
        Self::SrtListener,
        Self::Rtmp,
        Self::Udp,
        Self::Rtsp,
        Self::Rtp,
        Self::File,
        Self::RtspListener,
        Self::SrtRendezvous,
        Self::KlvUdp,
        Self::CotUdp,
        Self::CotTcp,
        Self::CotTls,
    ];

    /// The word, as it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SrtCaller => "srt_caller",
            Self::SrtListener => "srt_listener",
            Self::Rtmp => "rtmp",
            Self::Udp => "udp",
            Self::Rtsp => "rtsp",
            Self::Rtp => "rtp",
            Self::File => "file",
            Self::RtspListener => "rtsp_listener",
            Self::SrtRendezvous => "srt_rendezvous",
            Self::KlvUdp => "klv_udp",
            Self::CotUdp => "cot_udp",
            Self::CotTcp => "cot_tcp",
            Self::CotTls => "cot_tls",
        }
    }

    /// The protocol of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == word)
    }

    /// What urls of this protocol start with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Udp => "udp://",
            Self::Rtp => "rtp://",
            Self::SrtCaller | Self::SrtListener | Self::SrtRendezvous => "srt://",
            Self::Rtmp => "rtmp://",
            Self::Rtsp | Self::RtspListener => "rtsp://",
            Self::File => "file:",
            Self::KlvUdp => "klv+udp://",
            Self::CotUdp => "cot+udp://",
            Self::CotTcp => "cot+tcp://",
            Self::CotTls => "cot+tls://",
        }
    }
}
