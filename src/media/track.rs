//! What a stream consists of: its tracks, and what a decoder must know before the first frame.

use bytes::Bytes;

/// Names a track within its stream: the PID in a transport stream, a running number elsewhere.
pub type TrackId = u16;

/// All tracks of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracks(pub Vec<Track>);

/// One elementary stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Its name.
    pub id: TrackId,
    /// What it is coded in.
    pub codec: Codec,
    /// What a decoder must know before its first frame, as far as it is known by now.
    pub setup: Setup,
    /// ISO 639-2 code, if it was told.
    pub language: Option<[u8; 3]>,
}

/// What a track is coded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// ITU-T H.264, ISO/IEC 14496-10.
    H264,
    /// ITU-T H.265, ISO/IEC 23008-2.
    H265,
    /// AOMedia Video 1.
    Av1,
    /// ISO/IEC 14496-3.
    Aac,
    /// ISO/IEC 11172-3 and 13818-3, layers 1 to 3.
    MpegAudio,
    /// ETSI TS 102 366.
    Ac3,
    /// RFC 6716.
    Opus,
    /// ITU-T G.711, A-law.
    PcmA,
    /// ITU-T G.711, µ-law.
    PcmU,
    /// SMPTE 336 metadata.
    Klv,
}

/// What kind of thing a codec carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Metadata.
    Metadata,
}

/// What a decoder must know before the first frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Setup {
    /// Nothing, or not known yet.
    #[default]
    Unknown,
    /// Parameter sets of H.264 (`vps` empty) or H.265, as NAL units without start codes, each id once, the newest.
    ParameterSets {
        /// Video parameter sets.
        vps: Vec<Bytes>,
        /// Sequence parameter sets.
        sps: Vec<Bytes>,
        /// Picture parameter sets.
        pps: Vec<Bytes>,
    },
    /// AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1), and what it says.
    Aac {
        /// Its bytes.
        config: Bytes,
        /// Rate and channels of the core.
        format: AudioFormat,
    },
    /// AV1CodecConfigurationRecord.
    Av1(Bytes),
    /// Rate and channels of other audio. Opus: always 48 kHz.
    Audio(AudioFormat),
    /// Layer (1 to 3), rate and channels of MPEG audio.
    MpegAudio {
        /// Layer.
        layer: u8,
        /// Rate and channels.
        format: AudioFormat,
    },
    /// How metadata travels in a transport stream.
    Klv {
        /// In metadata AU cells with a time stamp (stream type 0x15), not bare (0x06).
        synchronous: bool,
    },
}

/// Rate and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioFormat {
    /// Samples per second.
    pub rate: u32,
    /// Channels.
    pub channels: u8,
}

impl Codec {
    /// What it carries.
    pub fn kind(self) -> Kind {
        match self {
            Self::H264 | Self::H265 | Self::Av1 => Kind::Video,
            Self::Aac | Self::MpegAudio | Self::Ac3 | Self::Opus | Self::PcmA | Self::PcmU => Kind::Audio,
            Self::Klv => Kind::Metadata,
        }
    }

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Av1 => "AV1",
            Self::Aac => "AAC",
            Self::MpegAudio => "MPEG audio",
            Self::Ac3 => "AC-3",
            Self::Opus => "Opus",
            Self::PcmA => "G.711 A-law",
            Self::PcmU => "G.711 µ-law",
            Self::Klv => "KLV",
        }
    }
}
