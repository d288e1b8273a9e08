//! FLV tag bodies as RTMP carries them (Adobe FLV 10.1, annex E; Enhanced RTMP v2): bytes enter, codecs, times and
//! payloads leave, and the other way round. Never knows of timestamps: those stand in the message.

mod audio;
mod extended;
mod metadata;
mod video;

pub use audio::{AudioCodec, AudioPacket, AudioTag, read_audio, write_audio_head};
pub use metadata::{Metadata, read_metadata};
pub use video::{VideoCodec, VideoPacket, VideoTag, read_video, write_video_head};

/// A tag body that breaks its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTag {
    /// It ends inside its header.
    #[error("{0} tag ends inside its header")]
    Short(&'static str),
    /// A codec that is not carried.
    #[error("{0} codec id {1} of FLV is not supported")]
    Codec(&'static str, u8),
    /// A codec that is not carried, named by four characters.
    #[error("{0} codec {name} is not supported", name = printable(.1))]
    FourCc(&'static str, [u8; 4]),
}

fn printable(name: &[u8; 4]) -> String {
    name.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect()
}
