//! Fragments of an MP4 file: access units enter, movie fragments leave (ISO/IEC 14496-12, 8.8), each a message whose
//! preface is the head of a file. Every file that begins with a preface and goes on with whole messages of that head
//! can be played, whenever its writing ends.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mp4_atom::{
    Atom, Audio, Avc3, Avcc, Codec as Entry, Dinf, Dops, Dref, Encode, Esds, Ftyp, Hdlr, Hev1, Hvcc, Mdhd,
    Mdia, Mfhd, Minf, Moof, Moov, Mp4a, Mvex, Mvhd, Opus, Smhd, Stbl, Stco, Stsd, Tfdt, Tfhd, Tkhd, Traf,
    Trak, Trex, Trun, TrunEntry, TrunSamples, Url, Visual, Vmhd, esds,
};

mod times;

use super::Maker;
use crate::hub::{LaneWriter, Pulse};
use crate::media::{
    AudioFormat, Codec, Frame, Kind, Message, Nanos, Setup, TICKS_PER_SECOND, Ticks, Track, Tracks,
};
use crate::wire::h26x::{ParameterSets, Standard, avcc, hvcc, length_prefixed, put_length_prefixed};

pub use times::rebased;

/// Fills a lane with movie fragments of about a second, each track with times of its own.
pub struct Mp4 {
    writer: LaneWriter<Message>,
    tracks: Arc<Tracks>,
    lanes: Vec<Lane>,
    /// The head of a file; `None` until every track that can be carried is known well enough, or was waited for long
    /// enough.
    head: Option<Bytes>,
    /// Nothing that a file of this head can begin with came yet.
    fresh: bool,
    /// Since when tracks are waited for of which too little is known.
    waiting: Option<Nanos>,
    /// What came meanwhile.
    held: Vec<Frame>,
    sequence: u32,
    /// Arrival of the first frame of the fragment under way.
    arrival: Nanos,
}

/// A track of the file.
struct Lane {
    /// Its index in the stream.
    track: usize,
    id: u32,
    video: bool,
    /// What the head says of it.
    told: Track,
    /// Its parameter sets are others than those of the head, and stand before its pictures.
    in_band: bool,
    samples: Vec<Sample>,
    /// How long its last sample took.
    duration: Ticks,
}

struct Sample {
    dts: Ticks,
    pts: Ticks,
    random_access: bool,
    data: Bytes,
}

impl Mp4 {
    /// One that has seen nothing.
    pub fn new(writer: LaneWriter<Message>) -> Self {
        Self {
            writer,
            tracks: Arc::default(),
            lanes: Vec::new(),
            head: None,
            fresh: true,
            waiting: None,
            held: Vec::new(),
            sequence: 0,
            arrival: 0,
        }
    }

    /// Whether a file can carry a track of this codec.
    pub fn carries(codec: Codec) -> bool {
        matches!(codec, Codec::H264 | Codec::H265 | Codec::Aac | Codec::MpegAudio | Codec::Opus)
    }

    /// The tracks of a stream that a file leaves out, and why: their indexes. Those of which too little is known yet are
    /// among them as long as another one is carried.
    pub fn left_out(tracks: &Tracks) -> Vec<(usize, &'static str)> {
        let all = || tracks.0.iter().map(why_not).enumerate();
        let some = all().any(|(_, why)| why.is_none());
        all().filter_map(|(index, why)| Some((index, why.filter(|why| some || *why != UNKNOWN)?))).collect()
    }

    /// Begins with other tracks. What was gathered of the former ones leaves first, unless a file can go on with these.
    fn follow(&mut self, tracks: &Arc<Tracks>) {
        self.tracks = Arc::clone(tracks);
        let known: Vec<(usize, &Track)> =
            tracks.0.iter().enumerate().filter(|(_, track)| entry(track).is_some()).collect();
        let same = known.len() == self.lanes.len()
            && known.iter().zip(&self.lanes).all(|((_, track), lane)| goes_on(&lane.told, track));
        if self.head.is_some() && same {
            for ((index, track), lane) in known.into_iter().zip(&mut self.lanes) {
                lane.track = index;
                lane.in_band |= lane.video && track.setup != lane.told.setup;
            }
            return;
        }
        self.cut(None);
        self.lanes.clear();
        self.head = None;
        if !tracks.0.iter().any(|track| why_not(track) == Some(UNKNOWN)) {
            self.begin();
        }
    }

    /// Makes the head of the tracks that are known.
    fn begin(&mut self) {
        self.waiting = None;
        let mut traks = Vec::new();
        for (track, told) in self.tracks.0.iter().enumerate() {
            let (Some((entry, size)), id) = (entry(told), traks.len() as u32 + 1) else { continue };
            let video = told.codec.kind() == Kind::Video;
            traks.push(trak(id, told, entry, size));
            let duration = if video { TICKS_PER_SECOND / 25 } else { TICKS_PER_SECOND / 50 };
            let told = told.clone();
            self.lanes.push(Lane { track, id, video, told, in_band: false, samples: Vec::new(), duration });
        }
        if !traks.is_empty() {
            self.head = head(traks);
            self.fresh = true;
        }
    }

    /// Lets what was gathered leave as a fragment; `next`: a track of the stream and the time of its next sample.
    fn cut(&mut self, next: Option<(usize, Ticks)>) {
        let Some(head) = &self.head else { return };
        let mut trafs = Vec::new();
        let mut bytes = BytesMut::new();
        let mut access = !self.lanes.iter().any(|lane| lane.video);
        let mut start = None;
        for lane in self.lanes.iter_mut().filter(|lane| !lane.samples.is_empty()) {
            if lane.video {
                access = lane.samples[0].random_access;
            }
            let first = lane.samples[0].dts;
            start = Some(start.map_or(first, |start: Ticks| start.min(first)));
            let end = next.filter(|(track, _)| *track == lane.track).map(|(_, dts)| dts);
            let entries = lane.entries(end);
            let trun =
                Trun { data_offset: Some(bytes.len() as i32), samples: TrunSamples::Explicit(entries) };
            lane.samples.drain(..).for_each(|sample| bytes.put_slice(&sample.data));
            trafs.push(Traf {
                tfhd: Tfhd { track_id: lane.id, default_base_is_moof: true, ..Tfhd::default() },
                tfdt: Some(Tfdt { base_media_decode_time: first.max(0) as u64 }),
                trun: vec![trun],
                ..Traf::default()
            });
        }
        let Some(dts) = start else { return };
        self.sequence += 1;
        let moof = Moof { mfhd: Mfhd { sequence_number: self.sequence }, traf: trafs };
        let Some(fragment) = fragment(moof, &bytes) else { return };
        let position = self.writer.next_position();
        let preface = access.then(|| head.clone());
        if access {
            self.writer.mark_random_access(position);
        }
        self.writer.push(Message { bytes: fragment, arrival: self.arrival, dts, preface });
    }
}

impl Maker for Mp4 {
    fn wants_frames(&self) -> bool {
        true
    }

    fn frame(&mut self, frame: &Frame) {
        if !Arc::ptr_eq(&frame.tracks, &self.tracks) {
            self.follow(&frame.tracks);
        }
        if self.head.is_none() {
            let since = *self.waiting.get_or_insert(frame.arrival);
            if frame.arrival.saturating_sub(since) < PATIENCE {
                if self.held.len() < SAMPLES_MOST {
                    self.held.push(frame.clone());
                }
                return;
            }
            // A track that never says how it is decoded must not cost the others their file.
            self.begin();
        }
        for held in std::mem::take(&mut self.held) {
            let lane = self.lanes.iter().find(|lane| lane.track == held.track);
            // Of a track that was not known yet, or is still what it was then.
            if lane.zip(held.track()).is_some_and(|(lane, track)| {
                let unknown = track.setup == Setup::Unknown && track.codec == lane.told.codec;
                unknown || goes_on(&lane.told, track)
            }) {
                self.add(&held);
            }
        }
        self.add(frame);
    }

    fn end(&mut self) {
        self.cut(None);
    }

    fn commit(&mut self, now: Nanos) -> bool {
        self.writer.commit(now)
    }

    fn pulses(&self, each: &mut dyn FnMut(&Pulse)) {
        each(self.writer.lane().pulse());
    }
}

impl Mp4 {
    /// Gathers a frame of the tracks that the head names.
    fn add(&mut self, frame: &Frame) {
        let has_video = self.lanes.iter().any(|lane| lane.video);
        let Some(at) = self.lanes.iter().position(|lane| lane.track == frame.track) else { return };
        // Nothing of a new head may get into a file of the former one, and no file begins before its first picture.
        if self.fresh && has_video && !(self.lanes[at].video && frame.random_access) {
            return;
        }
        self.fresh = false;
        let leads = self.lanes[at].video || !has_video;
        let began = self.lanes.iter().filter_map(|lane| lane.samples.first()).map(|s| s.dts).min();
        let full = began.is_some_and(|began| frame.dts - began >= FRAGMENT);
        if leads && began.is_some() && (full || (self.lanes[at].video && frame.random_access)) {
            self.cut(Some((frame.track, frame.dts)));
        }
        if self.lanes.iter().all(|lane| lane.samples.is_empty()) {
            self.arrival = frame.arrival;
        }
        // A source without pictures for long must not gather sound for ever.
        if self.lanes[at].samples.len() >= SAMPLES_MOST {
            self.cut(None);
        }
        let data = self.lanes[at].data(frame);
        self.lanes[at].samples.push(Sample {
            dts: frame.dts,
            pts: frame.pts,
            random_access: frame.random_access,
            data,
        });
    }
}

impl Lane {
    /// What a sample holds: the frame, at places to start behind the parameter sets that the head does not have.
    fn data(&self, frame: &Frame) -> Bytes {
        let Some(Setup::ParameterSets { vps, sps, pps }) = frame.track().map(|track| &track.setup) else {
            return frame.data.clone();
        };
        if !self.in_band || !frame.random_access {
            return frame.data.clone();
        }
        let there = |set: &Bytes| length_prefixed(&frame.data, 4).any(|unit| unit == set);
        let mut data = BytesMut::new();
        for set in [vps, sps, pps].into_iter().flatten().filter(|set| !there(set)) {
            put_length_prefixed(set, &mut data);
        }
        data.put_slice(&frame.data);
        data.freeze()
    }

    /// What is said of its samples; `end`: when the next one begins, if that is known.
    fn entries(&mut self, end: Option<Ticks>) -> Vec<TrunEntry> {
        let ends = self.samples.iter().skip(1).map(|sample| Some(sample.dts)).chain([end]);
        let mut duration = self.duration;
        let entries = self.samples.iter().zip(ends).map(|(sample, end)| {
            duration = end.map_or(duration, |end| end - sample.dts).clamp(1, Ticks::from(u32::MAX));
            TrunEntry {
                duration: Some(duration as u32),
                size: u32::try_from(sample.data.len()).ok(),
                flags: Some(if sample.random_access { SYNC } else { DEPENDS }),
                cts: Some((sample.pts - sample.dts).clamp(0, Ticks::from(i32::MAX))),
            }
        });
        let entries = entries.collect();
        self.duration = duration;
        entries
    }
}

/// Why a file leaves a track out, for now or for good.
fn why_not(track: &Track) -> Option<&'static str> {
    match (track.codec, &track.setup) {
        (Codec::Klv, _) => Some("MP4 files do not carry KLV metadata here"),
        (codec, _) if !Mp4::carries(codec) => Some("MP4 files do not carry this codec here"),
        (Codec::Opus, Setup::Audio(format)) if format.channels > 2 => Some(OPUS),
        _ => entry(track).is_none().then_some(UNKNOWN),
    }
}

/// Whether a file can go on when a track of it becomes this one. Picture parameter sets may change from picture to
/// picture and travel with them; what says how large the pictures are belongs into the head of another file, because
/// not every player takes it anywhere else.
fn goes_on(told: &Track, now: &Track) -> bool {
    let same = match (&told.setup, &now.setup) {
        (
            Setup::ParameterSets { vps, sps, .. },
            Setup::ParameterSets { vps: other_vps, sps: other_sps, .. },
        ) => (vps, sps) == (other_vps, other_sps),
        (told, now) => told == now,
    };
    same && told.codec == now.codec && told.language == now.language
}

/// The head of a file: what it is, and what is in it.
fn head(trak: Vec<Trak>) -> Option<Bytes> {
    let ftyp = Ftyp {
        major_brand: b"iso6".into(),
        minor_version: 1,
        compatible_brands: vec![b"iso6".into(), b"mp41".into()],
    };
    let trex = |trak: &Trak| Trex {
        track_id: trak.tkhd.track_id,
        default_sample_description_index: 1,
        ..Trex::default()
    };
    let moov = Moov {
        mvhd: Mvhd {
            timescale: TICKS_PER_SECOND as u32,
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: trak.len() as u32 + 1,
            ..Mvhd::default()
        },
        mvex: Some(Mvex { trex: trak.iter().map(trex).collect(), ..Mvex::default() }),
        trak,
        ..Moov::default()
    };
    let mut bytes = Vec::new();
    ftyp.encode(&mut bytes).ok()?;
    moov.encode(&mut bytes).ok()?;
    Some(bytes.into())
}

/// A fragment whose runs say where in `data` they begin.
fn fragment(mut moof: Moof, data: &[u8]) -> Option<Bytes> {
    let mut bytes = Vec::new();
    moof.encode(&mut bytes).ok()?;
    // The offsets count from the beginning of the fragment.
    let before = i32::try_from(bytes.len() + BOX).ok()?;
    for run in moof.traf.iter_mut().flat_map(|traf| &mut traf.trun) {
        run.data_offset = run.data_offset.map(|offset| offset + before);
    }
    bytes.clear();
    moof.encode(&mut bytes).ok()?;
    bytes.put_u32(u32::try_from(data.len() + BOX).ok()?);
    bytes.put_slice(b"mdat");
    bytes.put_slice(data);
    Some(bytes.into())
}

fn trak(id: u32, track: &Track, entry: Entry, (width, height): (u16, u16)) -> Trak {
    let video = track.codec.kind() == Kind::Video;
    let language = track.language.and_then(|code| String::from_utf8(code.to_vec()).ok());
    let language = language.filter(|code| code.bytes().all(|byte| byte.is_ascii_lowercase()));
    Trak {
        tkhd: Tkhd {
            track_id: id,
            enabled: true,
            in_movie: true,
            volume: if video { 0.into() } else { 1.into() },
            width: width.into(),
            height: height.into(),
            ..Tkhd::default()
        },
        mdia: Mdia {
            mdhd: Mdhd {
                timescale: TICKS_PER_SECOND as u32,
                language: language.unwrap_or_else(|| "und".into()),
                ..Mdhd::default()
            },
            hdlr: Hdlr { handler: if video { b"vide".into() } else { b"soun".into() }, name: String::new() },
            minf: Minf {
                vmhd: video.then(Vmhd::default),
                smhd: (!video).then(Smhd::default),
                dinf: Dinf { dref: Dref { entries: vec![Url { location: String::new() }.into()] } },
                stbl: Stbl {
                    stsd: Stsd { codecs: vec![entry] },
                    stco: Some(Stco::default()),
                    ..Stbl::default()
                },
                ..Minf::default()
            },
        },
        ..Trak::default()
    }
}

/// The sample entry of a track, and the size of its pictures; `None` while too little is known of it.
fn entry(track: &Track) -> Option<(Entry, (u16, u16))> {
    match (track.codec, &track.setup) {
        (Codec::H264, Setup::ParameterSets { vps, sps, pps }) => {
            let sets = sets(Standard::H264, vps, sps, pps)?;
            let (visual, size) = visual(&sets)?;
            let avcc = Avcc::decode_body(&mut avcc(&sets).ok()?.as_slice()).ok()?;
            // avc3: parameter sets may change, and come with the pictures (ISO/IEC 14496-15, 5.4.2).
            let entry = Avc3 {
                visual,
                avcc,
                btrt: None,
                colr: None,
                pasp: None,
                taic: None,
                fiel: None,
                spatial: Default::default(),
            };
            Some((entry.into(), size))
        }
        (Codec::H265, Setup::ParameterSets { vps, sps, pps }) => {
            let sets = sets(Standard::H265, vps, sps, pps)?;
            let (visual, size) = visual(&sets)?;
            let hvcc = Hvcc::decode_body(&mut hvcc(&sets).ok()?.as_slice()).ok()?;
            let entry = Hev1 { visual, hvcc, ..Hev1::default() };
            Some((entry.into(), size))
        }
        (Codec::Aac, Setup::Aac { config, format }) => {
            let specific = esds::DecoderSpecific { raw: config.to_vec(), ..Default::default() };
            Some((mp4a(*format, AAC, Some(specific)).into(), (0, 0)))
        }
        (Codec::MpegAudio, Setup::Audio(format) | Setup::MpegAudio { format, .. }) => {
            Some((mp4a(*format, MPEG_AUDIO, None).into(), (0, 0)))
        }
        (Codec::Opus, Setup::Audio(format)) => {
            let dops = Dops {
                output_channel_count: format.channels,
                pre_skip: 0,
                input_sample_rate: 48_000,
                output_gain: 0,
                channel_mapping: None,
            };
            let entry = Opus { audio: audio(*format), dops, btrt: None };
            // More channels need a mapping table, which is not known here (RFC 7845, 5.1.1).
            (format.channels <= 2).then_some((entry.into(), (0, 0)))
        }
        _ => None,
    }
}

fn sets(standard: Standard, vps: &[Bytes], sps: &[Bytes], pps: &[Bytes]) -> Option<ParameterSets> {
    let mut sets = ParameterSets::new(standard);
    for unit in [vps, sps, pps].into_iter().flatten() {
        sets.take(unit);
    }
    sets.is_complete().then_some(sets)
}

fn visual(sets: &ParameterSets) -> Option<(Visual, (u16, u16))> {
    let sequence = sets.sequence()?;
    let size = (u16::try_from(sequence.width).ok()?, u16::try_from(sequence.height).ok()?);
    let visual = Visual { data_reference_index: 1, width: size.0, height: size.1, ..Visual::default() };
    Some((visual, size))
}

fn mp4a(format: AudioFormat, object_type: u8, specific: Option<esds::DecoderSpecific>) -> Mp4a {
    let dec_config = esds::DecoderConfig {
        object_type_indication: object_type,
        stream_type: 5,
        dec_specific: specific,
        ..Default::default()
    };
    let es_desc = esds::EsDescriptor {
        es_id: 1,
        depends_on_es_id: None,
        url: None,
        ocr_es_id: None,
        stream_priority: 0,
        dec_config,
        sl_config: esds::SLConfig {},
    };
    Mp4a { audio: audio(format), esds: Esds { es_desc }, btrt: None, taic: None }
}

fn audio(format: AudioFormat) -> Audio {
    Audio {
        data_reference_index: 1,
        channel_count: format.channels.into(),
        sample_size: 16,
        // The field ends at 65,535; decoders read the rate from their configuration.
        sample_rate: u16::try_from(format.rate).unwrap_or(0).into(),
    }
}

/// Object types (ISO/IEC 14496-1, table 5): AAC by its AudioSpecificConfig, and MPEG-1 audio.
const AAC: u8 = 0x40;
const MPEG_AUDIO: u8 = 0x6B;
/// Sample flags (ISO/IEC 14496-12, 8.8.3.1): it depends on no other; or it does and is no sync sample.
const SYNC: u32 = 0x0200_0000;
const DEPENDS: u32 = 0x0101_0000;
/// Size and type of a box.
const BOX: usize = 8;
/// How long a fragment becomes where there is no random access point before.
const FRAGMENT: Ticks = TICKS_PER_SECOND;
const SAMPLES_MOST: usize = 4096;
/// How long a track is waited for of which too little is known.
const PATIENCE: Nanos = 2_000_000_000;
const OPUS: &str = "MP4 files carry Opus with one or two channels here";
const UNKNOWN: &str = "nothing said yet how it is decoded";

#[cfg(test)]
mod tests;
