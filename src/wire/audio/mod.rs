//! Sound that is coded in frames with headers: bytes enter in any pieces, whole frames leave. Never decodes sound.

mod ac3;
mod mpeg;
pub mod opus;
mod splitter;

pub use mpeg::layer as mpeg_layer;
pub use splitter::{Found, Splitter};

use crate::wire::aac::Adts;

/// How frames are found in a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// AAC in ADTS (ISO/IEC 14496-3, 1.A.2.2).
    Adts,
    /// AudioSyncStream with AAC in LATM (ISO/IEC 14496-3, 1.7.2).
    Loas,
    /// MPEG audio, layers 1 to 3 (ISO/IEC 11172-3 and 13818-3).
    Mpeg,
    /// AC-3 (ETSI TS 102 366, 4.3).
    Ac3,
}

/// What the header of a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole frame.
    pub length: usize,
    /// Samples in it; 0 = its inside says it (LOAS).
    pub samples: u32,
    /// Samples per second; 0 = its inside says it.
    pub rate: u32,
    /// Channels; 0 = its inside says it.
    pub channels: u8,
}

impl Syntax {
    /// Bytes that a header needs to be read.
    pub fn header_len(self) -> usize {
        match self {
            Self::Adts | Self::Ac3 => 7,
            Self::Loas => 3,
            Self::Mpeg => 4,
        }
    }

    /// Reads the header at the start of these bytes; none when none stands there or it is cut off.
    pub fn header(self, bytes: &[u8]) -> Option<Header> {
        match self {
            Self::Adts => Adts::parse(bytes).map(|adts| Header {
                length: adts.length,
                samples: adts.config.frame_samples * u32::from(adts.blocks),
                rate: adts.config.rate,
                channels: adts.config.channel_count(),
            }),
            Self::Loas => {
                let &[0x56, b1, b2, ..] = bytes else { return None };
                let length = 3 + (usize::from(b1 & 0x1f) << 8 | usize::from(b2));
                (b1 & 0xe0 == 0xe0 && length > 3).then_some(Header {
                    length,
                    samples: 0,
                    rate: 0,
                    channels: 0,
                })
            }
            Self::Mpeg => mpeg::header(bytes),
            Self::Ac3 => ac3::header(bytes),
        }
    }

    /// The first byte of every frame.
    fn first_byte(self) -> u8 {
        match self {
            Self::Adts | Self::Mpeg => 0xff,
            Self::Loas => 0x56,
            Self::Ac3 => 0x0b,
        }
    }
}
