//! Access units enter, RTMP messages leave, chunked once for all outputs; and the messages of a publisher enter,
//! access units leave. Never sends, never waits.

mod demux;
mod maker;
mod mux;
mod order;

use crate::media::{Codec, Setup, Track, Tracks};
use crate::wire::flv::{AudioCodec, VideoCodec};

pub use demux::{BadMedia, FlvDemux};
pub use maker::{CHUNK_SIZE, RtmpMaker};
pub use mux::{FlvConfig, FlvKind, FlvMessage, FlvMux};

/// A track that RTMP does not carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedTrack {
    /// Its index among the tracks.
    pub track: usize,
    /// Why.
    pub reason: &'static str,
}

/// Which tracks of a stream RTMP leaves out, and why: it has slots for one picture and one sound.
pub fn dropped_tracks(tracks: &Tracks) -> Vec<DroppedTrack> {
    Selection::new(tracks).dropped
}

/// How a track travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Video(VideoCodec),
    Audio(AudioCodec),
}

/// Which tracks are carried: the first of each kind that can be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Selection {
    video: Option<(usize, VideoCodec)>,
    audio: Option<(usize, AudioCodec)>,
    dropped: Vec<DroppedTrack>,
}

impl Selection {
    fn new(tracks: &Tracks) -> Self {
        let mut selection = Self::default();
        for (track, told) in tracks.0.iter().enumerate() {
            let reason = match slot(told) {
                Ok(Slot::Video(codec)) if selection.video.is_none() => {
                    selection.video = Some((track, codec));
                    continue;
                }
                Ok(Slot::Audio(codec)) if selection.audio.is_none() => {
                    selection.audio = Some((track, codec));
                    continue;
                }
                Ok(Slot::Video(_)) => "RTMP carries one video track, and another comes before it",
                Ok(Slot::Audio(_)) => "RTMP carries one audio track, and another comes before it",
                Err(reason) => reason,
            };
            selection.dropped.push(DroppedTrack { track, reason });
        }
        selection
    }
}

fn slot(track: &Track) -> Result<Slot, &'static str> {
    let format = match &track.setup {
        Setup::Audio(format) => Some(*format),
        _ => None,
    };
    Ok(match track.codec {
        Codec::H264 => Slot::Video(VideoCodec::Avc),
        Codec::H265 => Slot::Video(VideoCodec::Hevc),
        Codec::Av1 => Slot::Video(VideoCodec::Av1),
        Codec::Aac => Slot::Audio(AudioCodec::Aac),
        Codec::MpegAudio if matches!(track.setup, Setup::MpegAudio { layer: 1 | 2, .. }) => {
            return Err(LAYER);
        }
        // Where nobody has looked yet, its frames tell: see `FlvMux::dropped`.
        Codec::MpegAudio => Slot::Audio(AudioCodec::Mp3),
        Codec::Ac3 => Slot::Audio(AudioCodec::Ac3),
        Codec::Opus if format.is_some_and(|format| format.channels > 2) => {
            return Err("RTMP carries Opus of one or two channels");
        }
        Codec::Opus => Slot::Audio(AudioCodec::Opus),
        Codec::PcmA | Codec::PcmU if format.is_some_and(|f| f.rate != 8000 || f.channels > 2) => {
            return Err("RTMP carries G.711 at 8 kHz with one or two channels");
        }
        Codec::PcmA => Slot::Audio(AudioCodec::PcmA),
        Codec::PcmU => Slot::Audio(AudioCodec::PcmU),
        Codec::Klv => {
            return Err(
                "RTMP has no slot for KLV metadata; an output klv+udp://HOST:PORT beside this one carries it",
            );
        }
    })
}

const LAYER: &str = "RTMP carries MPEG audio of layer 3 only";

#[cfg(test)]
mod tests;
