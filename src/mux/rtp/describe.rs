//! Tracks enter, the media of a session description leaves, and the other way round. Names what cannot be carried.

use bytes::Bytes;

use crate::media::{AudioFormat, Codec, Kind, Setup, Track, TrackId, Tracks};
use crate::wire::rtp::AuHeaders;
use crate::wire::rtsp::{Description, Format, Media};

/// A track that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its name in the stream; its place in the description when it comes from one.
    pub id: TrackId,
    /// What it is coded in.
    pub codec: String,
    /// Why it is left out.
    pub why: &'static str,
}

impl Dropped {
    /// It may be carried once more is known of it.
    pub fn is_pending(&self) -> bool {
        [CONFIG_UNKNOWN, RATE_UNKNOWN].contains(&self.why)
    }
}

/// Tracks as a session: those that RTP carries, each with its index as `trackID=` and twice its index as channel; and
/// those that are left out. Only the first 16 tracks count.
pub fn describe(tracks: &Tracks) -> (Description, Vec<(usize, Dropped)>) {
    let (mut description, mut dropped) = (Description::default(), Vec::new());
    for (index, track) in tracks.0.iter().enumerate() {
        let media = match u8::try_from(index).ok().filter(|index| *index < TRACKS_MOST) {
            Some(index) => media_of(track, FIRST_TYPE + index),
            None => Err("RTP carries 16 tracks here"),
        };
        match media {
            Ok(media) => description.media.push(Media { control: Some(format!("trackID={index}")), ..media }),
            Err(why) => {
                dropped.push((index, Dropped { id: track.id, codec: track.codec.name().into(), why }))
            }
        }
    }
    (description, dropped)
}

/// Whether a session that was told of the tracks before can go on with those after: each that it carries is where it
/// was, and of sound decoders need to know the same. New parameter sets travel with the pictures.
pub fn goes_on(before: &Tracks, after: &Tracks) -> bool {
    before.0.iter().zip(0..TRACKS_MOST).all(|(old, index)| {
        let carried = media_of(old, FIRST_TYPE + index).is_ok();
        let same = after.0.get(usize::from(index)).is_some_and(|new| same(old, new));
        !carried || same
    })
}

/// Whether a track is still the one that it was. Of MPEG audio each frame says everything, whatever was known before.
pub(super) fn same(old: &Track, new: &Track) -> bool {
    let told_by_frames = old.codec.kind() == Kind::Video || old.codec == Codec::MpegAudio;
    old.id == new.id && old.codec == new.codec && (told_by_frames || old.setup == new.setup)
}

/// The media of a track; `number` chooses its payload type where the format has none of its own.
///
/// # Errors
/// Why RTP does not carry it here.
pub(super) fn media_of(track: &Track, number: u8) -> Result<Media, &'static str> {
    let audio = |usual: AudioFormat| match track.setup {
        Setup::Audio(format) => format,
        _ => usual,
    };
    let usual = AudioFormat { rate: 8000, channels: 1 };
    let (format, clock_rate, payload_type) = match track.codec {
        Codec::H264 => {
            let (_, sps, pps) = parameter_sets(&track.setup);
            (Format::H264 { sps, pps }, VIDEO_RATE, number)
        }
        Codec::H265 => {
            let (vps, sps, pps) = parameter_sets(&track.setup);
            (Format::H265 { vps, sps, pps }, VIDEO_RATE, number)
        }
        Codec::Aac => {
            let Setup::Aac { config, format } = &track.setup else {
                return Err(CONFIG_UNKNOWN);
            };
            let aac =
                Format::Aac { config: config.clone(), headers: AuHeaders::HBR, channels: format.channels };
            (aac, format.rate, number)
        }
        Codec::Opus => {
            let channels = audio(AudioFormat { rate: OPUS_RATE, channels: 2 }).channels;
            if channels > 2 {
                return Err("RTP carries Opus with one or two channels");
            }
            (Format::Opus { channels }, OPUS_RATE, number)
        }
        Codec::PcmA | Codec::PcmU => {
            let AudioFormat { rate, channels } = audio(usual);
            let a_law = track.codec == Codec::PcmA;
            let fixed = if a_law { 8 } else { 0 };
            let payload_type = if rate == 8000 && channels == 1 { fixed } else { number };
            let format = if a_law { Format::PcmA { channels } } else { Format::PcmU { channels } };
            (format, rate, payload_type)
        }
        Codec::MpegAudio => (Format::MpegAudio, VIDEO_RATE, 14),
        Codec::Ac3 => {
            let AudioFormat { rate, channels } = audio(AudioFormat { rate: 48_000, channels: 2 });
            (Format::Ac3 { channels }, rate, number)
        }
        Codec::Klv => (Format::Klv, VIDEO_RATE, number),
        Codec::Av1 => return Err("RTP does not carry AV1 here"),
    };
    if clock_rate == 0 {
        return Err(RATE_UNKNOWN);
    }
    Ok(Media { format, payload_type, clock_rate, control: None, group: None })
}

/// The track of a media that is read here; `None` for a transport stream, which is more than a track.
pub(super) fn track_of(media: &Media, id: TrackId) -> Option<Track> {
    let audio = |channels| Setup::Audio(AudioFormat { rate: media.clock_rate, channels });
    let (codec, setup) = match &media.format {
        Format::H264 { sps, pps } => (Codec::H264, sets(&[], sps, pps)),
        Format::H265 { vps, sps, pps } => (Codec::H265, sets(vps, sps, pps)),
        Format::Aac { config, channels, .. } => {
            let format = AudioFormat { rate: media.clock_rate, channels: *channels };
            let known = Setup::Aac { config: config.clone(), format };
            (Codec::Aac, if config.is_empty() { Setup::Unknown } else { known })
        }
        Format::Latm { config, .. } => (Codec::Aac, config.as_ref().map_or(Setup::Unknown, latm_setup)),
        Format::Opus { channels } => (Codec::Opus, audio(*channels)),
        Format::PcmA { channels } => (Codec::PcmA, audio(*channels)),
        Format::PcmU { channels } => (Codec::PcmU, audio(*channels)),
        // The clock says nothing about the samples; each frame does.
        Format::MpegAudio => (Codec::MpegAudio, Setup::Unknown),
        Format::Ac3 { channels } => (Codec::Ac3, audio(*channels)),
        Format::Klv => (Codec::Klv, Setup::Klv { synchronous: true }),
        Format::Mp2t | Format::Other(_) => return None,
    };
    Some(Track { id, codec, setup, language: None })
}

pub(super) fn latm_setup(config: &crate::wire::rtp::MuxConfig) -> Setup {
    let format = AudioFormat { rate: config.rate, channels: config.channels };
    Setup::Aac { config: config.config.clone(), format }
}

fn sets(vps: &[Bytes], sps: &[Bytes], pps: &[Bytes]) -> Setup {
    if sps.is_empty() {
        return Setup::Unknown;
    }
    Setup::ParameterSets { vps: vps.into(), sps: sps.into(), pps: pps.into() }
}

fn parameter_sets(setup: &Setup) -> (Vec<Bytes>, Vec<Bytes>, Vec<Bytes>) {
    match setup {
        Setup::ParameterSets { vps, sps, pps } => (vps.clone(), sps.clone(), pps.clone()),
        _ => Default::default(),
    }
}

const CONFIG_UNKNOWN: &str = "its AudioSpecificConfig is not known yet";
const RATE_UNKNOWN: &str = "its sample rate is not known yet";

/// The first dynamic payload type (RFC 3551, 3).
const FIRST_TYPE: u8 = 96;
const TRACKS_MOST: u8 = 16;
const VIDEO_RATE: u32 = 90_000;
const OPUS_RATE: u32 = 48_000;
