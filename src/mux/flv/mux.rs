//! Access units enter, chunked RTMP messages leave, with what a decoder must know in front of each place to start.

use std::sync::Arc;

use bytes::Bytes;

use super::{DroppedTrack, LAYER, Selection};
use crate::media::{AudioFormat, Frame, Nanos, Setup, TICKS_PER_SECOND, Ticks, Tracks};
use crate::wire::flv::{AudioCodec, Metadata, VideoCodec, write_audio_head, write_video_head};
use crate::wire::h26x::{ParameterSets, Standard, avcc, hvcc, length_prefixed};
use crate::wire::rtmp::{data_message, kind, write_chunked};

/// What all outputs of one lane have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlvConfig {
    /// Chunk size that they told their servers.
    pub chunk_size: u32,
    /// Message stream that their servers gave them.
    pub stream: u32,
}

/// One message, in chunks.
#[derive(Debug, Clone)]
pub struct FlvMessage {
    /// What it is.
    pub kind: FlvKind,
    /// When it is decoded.
    pub dts: Ticks,
    /// The same in milliseconds from the start of the lane, as the message says it.
    pub timestamp: u32,
    /// When what it was made of was received.
    pub arrival: Nanos,
    /// Its chunks.
    pub bytes: Bytes,
    /// At a place to start: what a decoder must know, to be sent before this message to who starts here.
    pub setup: Option<Bytes>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlvKind {
    /// Metadata, or what a decoder must know from here on.
    Setup,
    /// A picture where decoding can start.
    Key,
    /// Another picture.
    Inter,
    /// Sound.
    Audio,
}

/// Makes the messages of one stream.
#[derive(Debug)]
pub struct FlvMux {
    config: FlvConfig,
    tracks: Option<Arc<Tracks>>,
    selection: Selection,
    sets: Option<ParameterSets>,
    /// Bodies of the setup messages that were made last.
    metadata: Option<Bytes>,
    video: Option<Bytes>,
    audio: Option<Bytes>,
    base: Option<Ticks>,
    last_start: Option<Ticks>,
    /// Something changed that setup messages are made of.
    news: bool,
    waiting: u64,
}

impl FlvMux {
    /// Starts with nothing; the time of the first frame becomes 0.
    pub fn new(config: FlvConfig) -> Self {
        Self {
            config,
            tracks: None,
            selection: Selection::default(),
            sets: None,
            metadata: None,
            video: None,
            audio: None,
            base: None,
            last_start: None,
            news: false,
            waiting: 0,
        }
    }

    /// Makes the messages of a frame.
    pub fn push(&mut self, frame: &Frame, out: &mut Vec<FlvMessage>) {
        if self.tracks.as_ref().is_none_or(|tracks| !Arc::ptr_eq(tracks, &frame.tracks)) {
            self.adopt(&frame.tracks);
        }
        let base = *self.base.get_or_insert(frame.dts);
        let (dts, pts) = (milliseconds(frame.dts - base), milliseconds(frame.pts - base));
        if let Some((_, codec)) = self.selection.video.filter(|(track, _)| *track == frame.track) {
            self.learn(frame, codec);
            self.announce(frame, dts, out);
            if self.video.is_none() {
                self.waiting += 1;
                return;
            }
            let mut head = Vec::with_capacity(8);
            write_video_head(&mut head, codec, frame.random_access, Some((pts - dts) as i32));
            let setup = frame.random_access.then(|| self.setup(dts as u32));
            let kind = if frame.random_access { FlvKind::Key } else { FlvKind::Inter };
            out.push(self.message(frame, dts, kind, (kind::VIDEO, VIDEO), &head, setup));
        } else if let Some((_, codec)) = self.selection.audio.filter(|(track, _)| *track == frame.track) {
            if codec == AudioCodec::Mp3 && !is_layer_3(&frame.data) {
                self.selection.audio = None;
                self.news = true;
                self.selection.dropped.push(DroppedTrack { track: frame.track, reason: LAYER });
                return;
            }
            self.announce(frame, dts, out);
            if self.audio.is_none() && codec == AudioCodec::Aac {
                self.waiting += 1;
                return;
            }
            let format = self.format().unwrap_or(AudioFormat { rate: 48_000, channels: 2 });
            let mut head = Vec::with_capacity(8);
            write_audio_head(&mut head, codec, false, format.rate, format.channels);
            // Where there are pictures they say where to start; sound alone can start anywhere.
            let due = self.last_start.is_none_or(|last| frame.dts - last >= TICKS_PER_SECOND);
            let setup = (self.selection.video.is_none() && due).then(|| {
                self.last_start = Some(frame.dts);
                self.setup(dts as u32)
            });
            out.push(self.message(frame, dts, FlvKind::Audio, (kind::AUDIO, AUDIO), &head, setup));
        }
    }

    /// Tracks that are left out, with what only their frames could tell.
    pub fn dropped(&self) -> &[DroppedTrack] {
        &self.selection.dropped
    }

    /// Whether pictures and sound are carried.
    pub fn carries_both(&self) -> bool {
        self.selection.video.is_some() && self.selection.audio.is_some()
    }

    /// Frames that were left out because nothing said yet how to decode them.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    fn adopt(&mut self, tracks: &Arc<Tracks>) {
        let before = std::mem::replace(&mut self.selection, Selection::new(tracks));
        if before.video != self.selection.video {
            (self.sets, self.video) = (None, None);
        }
        if before.audio != self.selection.audio {
            self.audio = None;
        }
        // What frames told about a track that is the same holds.
        let layer = |dropped: &DroppedTrack| dropped.reason == LAYER;
        if before.dropped.iter().any(|d| layer(d) && self.selection.audio.map(|a| a.0) == Some(d.track))
            && let Some((track, _)) = self.selection.audio.take()
        {
            self.selection.dropped.push(DroppedTrack { track, reason: LAYER });
        }
        self.tracks = Some(tracks.clone());
        self.news = true;
    }

    /// Takes what a video frame and its tracks say about how to decode it.
    fn learn(&mut self, frame: &Frame, codec: VideoCodec) {
        let standard = match codec {
            VideoCodec::Avc => Standard::H264,
            VideoCodec::Hevc => Standard::H265,
            VideoCodec::Av1 => return,
        };
        let fresh = self.sets.is_none();
        let sets = self.sets.get_or_insert_with(|| ParameterSets::new(standard));
        let mut changed = false;
        if let Some(Setup::ParameterSets { vps, sps, pps }) =
            frame.track().map(|track| &track.setup).filter(|_| fresh || frame.random_access)
        {
            let all = vps.iter().chain(sps).chain(pps);
            all.for_each(|unit| changed |= sets.take(unit));
        }
        for unit in length_prefixed(&frame.data, 4) {
            changed |= sets.take(unit);
        }
        self.news |= changed;
    }

    /// Sends what a decoder must know when that is news.
    fn announce(&mut self, frame: &Frame, dts: i64, out: &mut Vec<FlvMessage>) {
        if !std::mem::take(&mut self.news) {
            return;
        }
        let [metadata, video, audio] = [self.metadata_body(), self.video_body(), self.audio_body()];
        let send = |old: &mut Option<Bytes>, new: Option<Bytes>| {
            let news = new.is_some() && *old != new;
            if news {
                *old = new;
            }
            news
        };
        let news = [
            (send(&mut self.metadata, metadata), kind::DATA),
            (send(&mut self.video, video), kind::VIDEO),
            (send(&mut self.audio, audio), kind::AUDIO),
        ];
        for (_, kind) in news.into_iter().filter(|(news, _)| *news) {
            let (body, chunk_stream) = match kind {
                kind::DATA => (&self.metadata, DATA),
                kind::VIDEO => (&self.video, VIDEO),
                _ => (&self.audio, AUDIO),
            };
            let mut bytes = Vec::new();
            let head = (kind, dts as u32, self.config.stream);
            write_chunked(
                &mut bytes,
                chunk_stream,
                self.config.chunk_size,
                head,
                &[body.as_deref().unwrap_or(&[])],
            );
            out.push(FlvMessage {
                kind: FlvKind::Setup,
                dts: frame.dts,
                timestamp: dts as u32,
                arrival: frame.arrival,
                bytes: bytes.into(),
                setup: None,
            });
        }
    }

    fn message(
        &self,
        frame: &Frame,
        dts: i64,
        kind: FlvKind,
        (message, chunk_stream): (u8, u32),
        head: &[u8],
        setup: Option<Bytes>,
    ) -> FlvMessage {
        let mut bytes = Vec::new();
        let fields = (message, dts as u32, self.config.stream);
        write_chunked(&mut bytes, chunk_stream, self.config.chunk_size, fields, &[head, &frame.data]);
        let timestamp = dts as u32;
        FlvMessage { kind, dts: frame.dts, timestamp, arrival: frame.arrival, bytes: bytes.into(), setup }
    }

    /// All setup messages as they are now, at this time.
    fn setup(&self, timestamp: u32) -> Bytes {
        let mut out = Vec::new();
        for (body, kind, chunk_stream) in [
            (&self.metadata, kind::DATA, DATA),
            (&self.video, kind::VIDEO, VIDEO),
            (&self.audio, kind::AUDIO, AUDIO),
        ] {
            if let Some(body) = body {
                let head = (kind, timestamp, self.config.stream);
                write_chunked(&mut out, chunk_stream, self.config.chunk_size, head, &[body]);
            }
        }
        out.into()
    }

    fn video_body(&self) -> Option<Bytes> {
        let (track, codec) = self.selection.video?;
        let record = match codec {
            VideoCodec::Av1 => match &self.tracks.as_ref()?.0.get(track)?.setup {
                Setup::Av1(record) => record.to_vec(),
                _ => return None,
            },
            VideoCodec::Avc => avcc(self.sets.as_ref().filter(|sets| sets.is_complete())?).ok()?,
            VideoCodec::Hevc => hvcc(self.sets.as_ref().filter(|sets| sets.is_complete())?).ok()?,
        };
        let mut body = Vec::with_capacity(record.len() + 5);
        write_video_head(&mut body, codec, true, None);
        body.extend(record);
        Some(body.into())
    }

    fn audio_body(&self) -> Option<Bytes> {
        let (track, codec) = self.selection.audio?;
        let mut body = Vec::new();
        match (codec, &self.tracks.as_ref()?.0.get(track)?.setup) {
            (AudioCodec::Aac, Setup::Aac { config, .. }) => {
                write_audio_head(&mut body, codec, true, 0, 0);
                body.extend(config);
            }
            (AudioCodec::Opus, setup) => {
                let channels = if let Setup::Audio(format) = setup { format.channels.clamp(1, 2) } else { 2 };
                write_audio_head(&mut body, codec, true, 0, 0);
                // The identification header (RFC 7845, 5.1): version 1, pre-skip 312, 48 kHz, no gain, mapping 0.
                body.extend(b"OpusHead\x01");
                body.extend([channels, 0x38, 0x01, 0x80, 0xBB, 0, 0, 0, 0, 0]);
            }
            _ => return None,
        }
        Some(body.into())
    }

    fn metadata_body(&self) -> Option<Bytes> {
        // Not before the first picture can be described, so that it is told once.
        let sequence = self.sets.as_ref().and_then(ParameterSets::sequence);
        if matches!(self.selection.video, Some((_, VideoCodec::Avc | VideoCodec::Hevc))) && sequence.is_none()
        {
            return None;
        }
        let mut metadata = Metadata {
            duration: Some(0.0),
            file_size: Some(0.0),
            encoder: Some(ENCODER.into()),
            ..Metadata::default()
        };
        if let Some((_, codec)) = self.selection.video {
            metadata.video_codec = Some(match codec {
                VideoCodec::Avc => 7.0,
                other => f64::from(u32::from_be_bytes(other.four_cc())),
            });
            metadata.width = sequence.map(|s| f64::from(s.width));
            metadata.height = sequence.map(|s| f64::from(s.height));
            metadata.frame_rate = sequence
                .and_then(|s| s.rate)
                .filter(|(_, under)| *under > 0)
                .map(|(over, under)| f64::from(over) / f64::from(under));
        }
        if let Some((_, codec)) = self.selection.audio {
            metadata.audio_codec = Some(match codec {
                AudioCodec::Aac => 10.0,
                AudioCodec::Mp3 => 2.0,
                AudioCodec::PcmA => 7.0,
                AudioCodec::PcmU => 8.0,
                AudioCodec::Ac3 => f64::from(u32::from_be_bytes(*b"ac-3")),
                AudioCodec::Opus => f64::from(u32::from_be_bytes(*b"Opus")),
            });
            metadata.sample_size = Some(16.0);
            if let Some(format) = self.format() {
                metadata.sample_rate = Some(f64::from(format.rate));
                metadata.channels = Some(f64::from(format.channels));
                metadata.stereo = Some(format.channels == 2);
            }
        }
        Some(data_message(0, 0, &metadata.values()).payload)
    }

    /// Rate and channels of the audio that is carried.
    fn format(&self) -> Option<AudioFormat> {
        let (track, codec) = self.selection.audio?;
        match (&self.tracks.as_ref()?.0.get(track)?.setup, codec) {
            (Setup::Aac { format, .. } | Setup::Audio(format) | Setup::MpegAudio { format, .. }, _) => {
                Some(*format)
            }
            (_, AudioCodec::PcmA | AudioCodec::PcmU) => Some(AudioFormat { rate: 8000, channels: 1 }),
            _ => None,
        }
    }
}

/// Whole milliseconds, not before 0: what comes before the first frame of the lane comes with it.
fn milliseconds(ticks: Ticks) -> i64 {
    ticks.max(0) / (TICKS_PER_SECOND / 1000)
}

/// The layer of an MPEG audio frame (ISO/IEC 11172-3, 2.4.2.3).
fn is_layer_3(frame: &[u8]) -> bool {
    matches!(frame, [0xFF, second, ..] if second & 0xE6 == 0xE2)
}

const ENCODER: &str = concat!("Millrace ", env!("CARGO_PKG_VERSION"));
/// Chunk streams: sound, data and pictures have their own.
const AUDIO: u32 = 4;
const DATA: u32 = 5;
const VIDEO: u32 = 6;
