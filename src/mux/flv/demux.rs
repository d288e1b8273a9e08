//! The messages of a publisher enter, access units leave. What cannot be read is named and left out; the stream goes
//! on.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::media::{
    AudioFormat, Codec, Frame, Nanos, Setup, TICKS_PER_SECOND, Ticks, Track, TrackId, Tracks,
};
use crate::wire::aac;
use crate::wire::audio::Syntax;
use crate::wire::flv::{
    AudioCodec, AudioPacket, BadTag, Metadata, VideoCodec, VideoPacket, VideoTag, read_audio, read_metadata,
    read_video,
};
use crate::wire::h26x::{
    Kind, ParameterSets, Picture, Record, RecordError, Standard, length_prefixed, put_length_prefixed,
};
use crate::wire::rtmp::{Message, kind, read_data};

/// Why a message was left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMedia {
    /// It is no tag.
    #[error(transparent)]
    Tag(#[from] BadTag),
    /// Its decoder configuration record is malformed.
    #[error("decoder configuration record: {0}")]
    Record(#[from] RecordError),
    /// What a decoder must know did not come yet.
    #[error("{0} before its sequence header")]
    Early(&'static str),
    /// A length of a NAL unit goes beyond the picture.
    #[error("NAL units do not fill their picture")]
    Units,
    /// AudioSpecificConfig cannot be read.
    #[error("AAC sequence header of {0} bytes is not an AudioSpecificConfig that is supported")]
    Config(usize),
}

/// Makes access units of the messages of one publisher.
#[derive(Debug, Default)]
pub struct FlvDemux {
    tracks: Arc<Tracks>,
    video: Option<Video>,
    audio: Option<Audio>,
    metadata: Option<Metadata>,
    /// Sound that the metadata promised, without a word of it yet: its place, and when it was promised.
    promised: Option<(usize, Nanos)>,
    /// The newest time in milliseconds without its wraps, and when that message was received.
    last: Option<(i64, Nanos)>,
    /// What is added to times, so that they go on where the publisher's clock jumps.
    offset: i64,
}

#[derive(Debug)]
struct Video {
    track: usize,
    /// The newest decoding time.
    dts: Ticks,
    codec: VideoCodec,
    /// Of H.264 and H.265: bytes of a length, and the sets in force.
    length_size: usize,
    sets: Option<ParameterSets>,
}

#[derive(Debug)]
struct Audio {
    track: usize,
    /// The newest time.
    dts: Ticks,
    codec: AudioCodec,
    configured: bool,
}

impl FlvDemux {
    /// Starts with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a message of audio, video or data; `arrival` is when its last byte was received.
    ///
    /// # Errors
    /// It was left out.
    pub fn push(&mut self, message: &Message, arrival: Nanos) -> Result<Option<Frame>, BadMedia> {
        self.give_up(arrival);
        match message.kind {
            kind::VIDEO => self.video(message, arrival),
            kind::AUDIO => self.audio(message, arrival),
            kind::DATA | kind::DATA_AMF3 => {
                if let Some(metadata) = read_metadata(&read_data(message).0) {
                    self.metadata = Some(metadata);
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The tracks so far.
    pub fn tracks(&self) -> &Arc<Tracks> {
        &self.tracks
    }

    /// What the publisher said about its stream last.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    fn video(&mut self, message: &Message, arrival: Nanos) -> Result<Option<Frame>, BadMedia> {
        let tag = read_video(&message.payload)?;
        match &tag.packet {
            VideoPacket::Setup(record) => {
                self.configure_video(tag.codec, record)?;
                self.promise(arrival);
                Ok(None)
            }
            VideoPacket::Frame { composition, data } => {
                let dts = self.ticks(message.timestamp, tag.nanoseconds, arrival);
                let pts = dts + i64::from(*composition) * TICKS_PER_MILLISECOND;
                self.picture(&tag, (dts.min(pts), pts), data, arrival)
            }
            VideoPacket::End | VideoPacket::Metadata(_) | VideoPacket::Nothing => Ok(None),
        }
    }

    fn configure_video(&mut self, codec: VideoCodec, record: &Bytes) -> Result<(), BadMedia> {
        let (length_size, sets) = match standard(codec) {
            Some(standard) => {
                let record = Record::parse(standard, record)?;
                (record.length_size, Some(record.sets))
            }
            None => (0, None),
        };
        let setup = match &sets {
            Some(sets) => setup_of(sets),
            None => Setup::Av1(record.clone()),
        };
        let track =
            self.place(self.video.as_ref().map(|video| video.track), VIDEO, codec_of_video(codec), setup);
        let dts = self.video.as_ref().map_or(Ticks::MIN, |video| video.dts);
        self.video = Some(Video { track, dts, codec, length_size, sets });
        Ok(())
    }

    fn picture(
        &mut self,
        tag: &VideoTag,
        (dts, pts): (Ticks, Ticks),
        data: &Bytes,
        arrival: Nanos,
    ) -> Result<Option<Frame>, BadMedia> {
        let Some(video) = self.video.as_mut().filter(|video| video.codec == tag.codec) else {
            return Err(BadMedia::Early("video"));
        };
        let (mut random_access, mut data) = (tag.key, data.clone());
        if let Some(sets) = &mut video.sets {
            let standard = sets.standard();
            let mut picture = Picture::default();
            let mut changed = false;
            let mut clean = video.length_size == 4;
            let mut units = length_prefixed(&data, video.length_size);
            for unit in &mut units {
                clean &= is_kept(standard, unit);
                changed |= sets.take(unit);
                picture.take(standard, unit);
            }
            if !units.is_whole() {
                return Err(BadMedia::Units);
            }
            if !clean {
                let mut kept = BytesMut::with_capacity(data.len() + 64);
                for unit in length_prefixed(&data, video.length_size).filter(|unit| is_kept(standard, unit)) {
                    put_length_prefixed(unit, &mut kept);
                }
                data = kept.freeze();
            }
            if changed {
                let (track, setup) = (video.track, setup_of(sets));
                self.place(Some(track), VIDEO, codec_of_video(tag.codec), setup);
            }
            if !picture.coded {
                return Ok(None);
            }
            random_access = picture.is_random_access(tag.key);
        }
        if data.is_empty() {
            return Ok(None);
        }
        let Some(video) = &mut self.video else { return Ok(None) };
        // Within a track decoding time never goes back, whatever the publisher says.
        video.dts = video.dts.max(dts);
        let (track, dts, pts) = (video.track, video.dts, pts.max(video.dts));
        let tracks = self.tracks.clone();
        Ok(Some(Frame { tracks, track, pts, dts, random_access, arrival, data }))
    }

    fn audio(&mut self, message: &Message, arrival: Nanos) -> Result<Option<Frame>, BadMedia> {
        let tag = read_audio(&message.payload)?;
        match tag.packet {
            AudioPacket::Setup(config) => self.configure_audio(tag.codec, &config).map(|()| None),
            AudioPacket::Frame(data) if !data.is_empty() => {
                self.meet_audio(tag.codec, &message.payload)?;
                let dts = self.ticks(message.timestamp, tag.nanoseconds, arrival);
                let Some(audio) = &mut self.audio else { return Err(BadMedia::Early("audio")) };
                audio.dts = audio.dts.max(dts);
                let (track, dts) = (audio.track, audio.dts);
                let tracks = self.tracks.clone();
                Ok(Some(Frame { tracks, track, pts: dts, dts, random_access: true, arrival, data }))
            }
            AudioPacket::Frame(_) | AudioPacket::End | AudioPacket::Nothing => Ok(None),
        }
    }

    fn configure_audio(&mut self, codec: AudioCodec, config: &Bytes) -> Result<(), BadMedia> {
        if config.is_empty() {
            // ffmpeg sends one first when it copies ADTS, and the right one when it knows it.
            return Ok(());
        }
        let setup = match codec {
            AudioCodec::Aac => {
                let told = aac::Config::parse(config).ok_or(BadMedia::Config(config.len()))?;
                let format = AudioFormat { rate: told.rate, channels: told.channel_count() };
                Setup::Aac { config: config.clone(), format }
            }
            // The identification header (RFC 7845, 5.1): magic of 8 bytes, version, channels.
            AudioCodec::Opus => {
                let channels = config.strip_prefix(b"OpusHead").and_then(|rest| rest.get(1));
                Setup::Audio(AudioFormat { rate: 48_000, channels: channels.copied().unwrap_or(2) })
            }
            _ => Setup::Unknown,
        };
        self.take_audio(codec, setup);
        Ok(())
    }

    /// Codecs whose frames say it all need no sequence header.
    fn meet_audio(&mut self, codec: AudioCodec, body: &Bytes) -> Result<(), BadMedia> {
        if self.audio.as_ref().is_some_and(|audio| audio.codec == codec && audio.configured) {
            return Ok(());
        }
        let of_frame = |syntax: Syntax| {
            let header = body.get(1..).and_then(|frame| syntax.header(frame))?;
            Some(Setup::Audio(AudioFormat { rate: header.rate, channels: header.channels }))
        };
        let setup = match codec {
            AudioCodec::Aac => return Err(BadMedia::Early("AAC")),
            AudioCodec::Opus => Setup::Audio(AudioFormat { rate: 48_000, channels: 2 }),
            AudioCodec::PcmA | AudioCodec::PcmU => {
                let channels = body.first().map_or(1, |first| 1 + (first & 1));
                Setup::Audio(AudioFormat { rate: 8000, channels })
            }
            AudioCodec::Mp3 => of_frame(Syntax::Mpeg).unwrap_or_default(),
            // Behind the extended header of five bytes.
            AudioCodec::Ac3 => body
                .get(5..)
                .and_then(|frame| Syntax::Ac3.header(frame))
                .map(|header| Setup::Audio(AudioFormat { rate: header.rate, channels: header.channels }))
                .unwrap_or_default(),
        };
        self.take_audio(codec, setup);
        Ok(())
    }

    fn take_audio(&mut self, codec: AudioCodec, setup: Setup) {
        let promised = self.promised.take().map(|(track, _)| track);
        let known = self.audio.as_ref().map(|audio| audio.track).or(promised);
        let configured = setup != Setup::Unknown;
        let track = self.place(known, AUDIO, codec_of_audio(codec), setup);
        let dts = self.audio.as_ref().map_or(Ticks::MIN, |audio| audio.dts);
        self.audio = Some(Audio { track, dts, codec, configured });
    }

    /// Names the AAC that the metadata speak of beside the pictures, before it comes: who asks for the tracks in between
    /// would never hear of it. Other codecs could be told wrong, for what they need to say is in their frames.
    fn promise(&mut self, arrival: Nanos) {
        let told = self.metadata.as_ref().and_then(|metadata| metadata.audio_codec);
        if told.is_some_and(|codec| AAC.contains(&codec)) && self.audio.is_none() && self.promised.is_none() {
            let track = self.place(None, AUDIO, Codec::Aac, Setup::Unknown);
            self.promised = Some((track, arrival));
        }
    }

    /// Forgets sound that was promised and did not come: files wait for every track.
    fn give_up(&mut self, arrival: Nanos) {
        let Some((track, since)) = self.promised else { return };
        if arrival.saturating_sub(since) > PROMISE {
            self.promised = None;
            self.metadata.iter_mut().for_each(|metadata| metadata.audio_codec = None);
            let mut tracks = Tracks::clone(&self.tracks);
            // It is the last one: it came behind the pictures, and nothing behind it.
            tracks.0.truncate(track);
            self.tracks = Arc::new(tracks);
        }
    }

    /// Puts a track among the tracks, at its place if it has one, and answers where it is. Tracks that are as they
    /// were stay the same allocation.
    fn place(&mut self, at: Option<usize>, id: TrackId, codec: Codec, setup: Setup) -> usize {
        let track = Track { id, codec, setup, language: None };
        let at = at.unwrap_or(self.tracks.0.len());
        if self.tracks.0.get(at) != Some(&track) {
            let mut tracks = Tracks::clone(&self.tracks);
            match tracks.0.get_mut(at) {
                Some(place) => *place = track,
                None => tracks.0.push(track),
            }
            self.tracks = Arc::new(tracks);
        }
        at
    }

    /// The time of a message without the wraps of 2^32 milliseconds, and without jumps of the publisher's clock.
    fn ticks(&mut self, timestamp: u32, nanoseconds: u32, arrival: Nanos) -> Ticks {
        let mut time = i64::from(timestamp);
        if let Some((last, at)) = self.last {
            // The shorter way, which may lead back: tracks are not interleaved to the millisecond.
            let advance = i64::from(timestamp.wrapping_sub(last as u32) as i32);
            let passed = i64::try_from(arrival.saturating_sub(at) / 1_000_000).unwrap_or(i64::MAX / 4);
            if advance < -BACK_MOST || (advance - passed).abs() > APART_MOST {
                self.offset += passed.max(STEP) - advance;
            }
            time = last + advance;
        }
        self.last = Some((time, arrival));
        (time + self.offset) * TICKS_PER_MILLISECOND
            + i64::from(nanoseconds) * TICKS_PER_SECOND / 1_000_000_000
    }
}

/// Neither a delimiter nor filler: those are a matter of the container.
fn is_kept(standard: Standard, unit: &[u8]) -> bool {
    !matches!(standard.kind_of(unit), Kind::Delimiter | Kind::Filler)
}

fn setup_of(sets: &ParameterSets) -> Setup {
    Setup::ParameterSets {
        vps: sets.vps().cloned().collect(),
        sps: sets.sps().cloned().collect(),
        pps: sets.pps().cloned().collect(),
    }
}

fn standard(codec: VideoCodec) -> Option<Standard> {
    match codec {
        VideoCodec::Avc => Some(Standard::H264),
        VideoCodec::Hevc => Some(Standard::H265),
        VideoCodec::Av1 => None,
    }
}

fn codec_of_video(codec: VideoCodec) -> Codec {
    match codec {
        VideoCodec::Avc => Codec::H264,
        VideoCodec::Hevc => Codec::H265,
        VideoCodec::Av1 => Codec::Av1,
    }
}

fn codec_of_audio(codec: AudioCodec) -> Codec {
    match codec {
        AudioCodec::Aac => Codec::Aac,
        AudioCodec::Mp3 => Codec::MpegAudio,
        AudioCodec::Ac3 => Codec::Ac3,
        AudioCodec::Opus => Codec::Opus,
        AudioCodec::PcmA => Codec::PcmA,
        AudioCodec::PcmU => Codec::PcmU,
    }
}

const TICKS_PER_MILLISECOND: Ticks = TICKS_PER_SECOND / 1000;
/// How far tracks may be apart in a stream that is interleaved badly, in milliseconds.
const BACK_MOST: i64 = 2000;
/// How far a publisher's clock and ours may drift from each other between two messages, in milliseconds.
const APART_MOST: i64 = 10_000;
const STEP: i64 = 20;
/// `audiocodecid` of AAC: that of the tags, and `mp4a` of Enhanced RTMP.
const AAC: [f64; 2] = [10.0, 0x6D70_3461 as f64];
/// How long a promise of sound is believed.
const PROMISE: Nanos = 2_000_000_000;
const VIDEO: TrackId = 1;
const AUDIO: TrackId = 2;
