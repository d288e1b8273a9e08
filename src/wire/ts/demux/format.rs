//! An entry of a PMT enters, what can be made of its PES packets leaves. Never looks at the packets.

use crate::wire::ts::codec::Codec;
use crate::wire::ts::psi::{Stream, descriptors};

/// How the PES packets of an elementary stream are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// NAL units of H.264 behind start codes.
    H264,
    /// NAL units of H.265 behind start codes.
    H265,
    /// AAC in ADTS.
    Adts,
    /// AAC in LATM and LOAS.
    Loas,
    /// MPEG audio.
    Mpeg,
    /// AC-3.
    Ac3,
    /// Opus behind control headers.
    Opus,
    /// Metadata, declared or possible: only the bytes tell whether it is KLV.
    Metadata {
        /// The tables say that it is.
        declared: bool,
    },
    /// Nothing that is known here: counted only.
    Other,
}

/// An elementary stream of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elementary {
    /// Where it comes.
    pub pid: u16,
    /// stream_type of its PMT.
    pub stream_type: u8,
    /// What it is called.
    pub name: &'static str,
    /// How it is read.
    pub format: Format,
    /// ISO 639-2 code, if a descriptor tells one.
    pub language: Option<[u8; 3]>,
    /// Channels that a descriptor tells (Opus).
    pub channels: Option<u8>,
    /// The program's clock comes with it.
    pub clock: bool,
    /// Its descriptors, raw.
    pub descriptors: Vec<u8>,
}

impl Elementary {
    pub(super) fn new(stream: &Stream, clock: bool) -> Self {
        let language = descriptors(&stream.descriptors).find_map(|entry| match entry {
            (0x0a, [a, b, c, ..]) => {
                Some([*a, *b, *c]).filter(|code| code.iter().all(u8::is_ascii_alphabetic))
            }
            _ => None,
        });
        // channel_config_code of the Opus extension descriptor: 0 is two single ones
        let channels = descriptors(&stream.descriptors).find_map(|entry| match entry {
            (0x7f, [0x80, 0, ..]) => Some(2),
            (0x7f, [0x80, code @ 1..=8, ..]) => Some(*code),
            _ => None,
        });
        Self {
            pid: stream.pid,
            stream_type: stream.stream_type,
            name: Codec::of(stream).name,
            format: Format::of(stream),
            language,
            channels,
            clock,
            descriptors: stream.descriptors.clone(),
        }
    }

    /// Whether what is under way of this one belongs to the other, too.
    pub(super) fn continues(&self, other: &Self) -> bool {
        self.pid == other.pid && self.stream_type == other.stream_type && self.format == other.format
    }
}

impl Format {
    fn of(stream: &Stream) -> Self {
        match (Codec::of(stream).name, stream.stream_type) {
            ("H.264", _) => Self::H264,
            ("H.265", _) => Self::H265,
            ("AAC", 0x0f) => Self::Adts,
            // With the DVB descriptor either may come; LATM is what TS 101 154 asks for.
            ("AAC (LATM)", 0x11) | ("AAC", _) => Self::Loas,
            ("MPEG-1 audio" | "MPEG-2 audio", _) => Self::Mpeg,
            ("AC-3", _) => Self::Ac3,
            ("Opus", _) => Self::Opus,
            ("KLV", _) => Self::Metadata { declared: true },
            // KLV hides in private PES packets of any name, metadata of other formats among them.
            ("private data" | "metadata" | "data", stream_type) if is_pes(stream_type) => {
                Self::Metadata { declared: false }
            }
            _ => Self::Other,
        }
    }

    /// Whether it is pictures.
    pub fn is_video(self) -> bool {
        matches!(self, Self::H264 | Self::H265)
    }
}

/// Whether a stream_type of private data or metadata means PES packets and not sections (table 2-34).
fn is_pes(stream_type: u8) -> bool {
    matches!(stream_type, 0x06 | 0x15 | 0x80..)
}
