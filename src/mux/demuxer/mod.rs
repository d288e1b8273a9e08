//! Datagrams of a transport stream enter, access units of one of its programs leave, on one timeline. Never waits for
//! more than an access unit needs.

mod sound;
mod video;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use self::sound::Sound;
use self::video::Video;
use crate::media::{Codec, Frame, Nanos, Setup, Stamps, Ticks, Timeline, Track, TrackId, Tracks};
use crate::wire::h26x::Standard;
use crate::wire::ts::demux::{Demux, Elementary, Event, Format, Pes};
use crate::wire::ts::metadata::{Carriage, Metadata};

/// What becomes of pictures when packets of one were lost. The damaged picture itself is left out either way: half a
/// picture has no place in a form that says how long each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Damage {
    /// What follows is kept, though it may be predicted from what is missing: decoders show faults until the next intra
    /// picture. Who watches a camera over a bad network sees more that way: at two losses a second and an intra picture
    /// each second, 166 of 180 pictures instead of 11.
    #[default]
    GoOn,
    /// What follows is left out, too, until a decoder can start anew, but at most for 2 s: in streams that have no such
    /// place, or few, a picture with faults is better than none. Where nothing is predicted from the damaged picture,
    /// only that is left out. What is kept decodes without errors.
    Wait,
}

/// What a [`Demuxer`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DemuxerOptions {
    /// The program (program_number); none = the first.
    pub program: Option<u16>,
    /// What becomes of pictures when packets of one were lost.
    pub damage: Damage,
}

/// What a [`Demuxer`] left out so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DemuxerCounters {
    /// Frames that left.
    pub frames: u64,
    /// PES packets left out because something of them was missing.
    pub damaged: u64,
    /// Whole pictures left out because one before them was damaged.
    pub waiting: u64,
    /// PES packets in which nothing was found that their stream should carry.
    pub foreign: u64,
    /// Frames that came before a time stamp did.
    pub untimed: u64,
}

/// Takes one program of a transport stream apart into frames.
///
/// Frames leave in the order in which their last byte came, each track in the order of decoding. Tracks are those of
/// the program that are known here, in the order of its PMT, under their PIDs; private streams join them when KLV is
/// found in them. KLV without a time stamp gets the decoding time of the picture that was under way when it came: its
/// multiplexer put it there. [`Self::ignored`] names the streams that are left out.
#[derive(Debug)]
pub struct Demuxer {
    demux: Demux,
    stage: Stage,
}

/// Everything behind the PES packets.
#[derive(Debug)]
struct Stage {
    damage: Damage,
    timeline: Timeline,
    elementary: Vec<Elementary>,
    lanes: Vec<Lane>,
    tracks: Arc<Tracks>,
    /// The decoding time of the last picture that started, as it came; without pictures the program clock.
    moment: Option<i64>,
    /// KLV that came before anybody could say when.
    untimed: Vec<(TrackId, Bytes, Nanos)>,
    counters: DemuxerCounters,
}

/// What is made of one elementary stream.
#[derive(Debug)]
struct Lane {
    pid: TrackId,
    /// Where its track is; none while it has none.
    track: Option<usize>,
    language: Option<[u8; 3]>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Video(Video),
    Sound(Sound),
    Metadata { klv: Metadata, declared: Option<bool>, synchronous: Option<bool> },
}

/// What is made of a PES packet before its frames leave.
struct Unit {
    data: Bytes,
    stamps: Stamps,
    random_access: bool,
}

impl Demuxer {
    /// One that has seen nothing.
    pub fn new(options: DemuxerOptions) -> Self {
        let stage = Stage {
            damage: options.damage,
            timeline: Timeline::new(33),
            elementary: Vec::new(),
            lanes: Vec::new(),
            tracks: Arc::default(),
            moment: None,
            untimed: Vec::new(),
            counters: DemuxerCounters::default(),
        };
        Self { demux: Demux::new(options.program), stage }
    }

    /// Takes the next datagram of whole packets, which came at `arrival`, and hands out every frame that it completes.
    pub fn push(&mut self, datagram: &[u8], arrival: Nanos, sink: &mut impl FnMut(Frame)) {
        let stage = &mut self.stage;
        self.demux.push(datagram, &mut |event| stage.take(event, arrival, sink));
    }

    /// Nothing more comes for now: hands out the picture that only the next one would end.
    pub fn flush(&mut self, arrival: Nanos, sink: &mut impl FnMut(Frame)) {
        let stage = &mut self.stage;
        self.demux.flush(&mut |event| stage.take(event, arrival, sink));
    }

    /// The tracks as they are now; none before the first PMT.
    pub fn tracks(&self) -> &Arc<Tracks> {
        &self.stage.tracks
    }

    /// PIDs and names of the streams of the program that became no track.
    pub fn ignored(&self) -> impl Iterator<Item = (u16, &'static str)> {
        let tracked = |pid| self.stage.lanes.iter().any(|lane| lane.pid == pid && lane.track.is_some());
        self.stage.elementary.iter().filter(move |e| !tracked(e.pid)).map(|e| (e.pid, e.name))
    }

    /// Packets, losses and PES packets so far.
    pub fn packets(&self) -> crate::wire::ts::demux::Counters {
        self.demux.counters()
    }

    /// Frames so far, and what was left out.
    pub fn counters(&self) -> DemuxerCounters {
        self.stage.counters
    }

    /// The timeline of the frames: jumps of the source, and how far apart tracks arrive.
    pub fn timeline(&self) -> &Timeline {
        &self.stage.timeline
    }

    /// How much later sound arrives than the pictures that it belongs to; none before there are both.
    pub fn skew(&self) -> Option<Ticks> {
        let first =
            |kind| self.stage.tracks.0.iter().find(|track| track.codec.kind() == kind).map(|track| track.id);
        let (sound, pictures) = (first(crate::media::Kind::Audio)?, first(crate::media::Kind::Video)?);
        self.stage.timeline.skew(sound, pictures)
    }
}

impl Stage {
    fn take(&mut self, event: Event<'_>, arrival: Nanos, sink: &mut impl FnMut(Frame)) {
        match event {
            Event::Program(elementary) => self.follow(elementary),
            Event::Start { pid, header } => {
                let video = |lane: &Lane| lane.pid == pid && lane.content.is_video();
                if let Some(stamp) = header.dts.or(header.pts)
                    && self.lanes.iter().any(video)
                {
                    self.moment = Some(stamp as i64);
                    self.place_untimed(sink);
                }
            }
            Event::Clock { pcr, .. } => {
                if !self.lanes.iter().any(|lane| lane.content.is_video()) {
                    self.moment = Some((pcr / 300) as i64);
                    self.place_untimed(sink);
                }
            }
            Event::Pes(pes) => self.read(pes, arrival, sink),
        }
    }

    /// The first moment is known: what waited for it leaves.
    fn place_untimed(&mut self, sink: &mut impl FnMut(Frame)) {
        let Some(moment) = self.moment else { return };
        for (pid, data, arrival) in std::mem::take(&mut self.untimed) {
            let stamps = self.timeline.place(pid, moment, None, arrival);
            let track = self.lanes.iter().find(|lane| lane.pid == pid).and_then(|lane| lane.track);
            if let Some(track) = track {
                self.leave(track, Unit { data, stamps, random_access: true }, arrival, sink);
            }
        }
    }

    fn leave(&mut self, track: usize, unit: Unit, arrival: Nanos, sink: &mut impl FnMut(Frame)) {
        self.counters.frames += 1;
        sink(Frame {
            tracks: Arc::clone(&self.tracks),
            track,
            pts: unit.stamps.pts,
            dts: unit.stamps.dts,
            random_access: unit.random_access,
            arrival,
            data: unit.data,
        });
    }

    /// Other streams from here on. Those that go on keep what was learnt of them.
    fn follow(&mut self, elementary: &[Elementary]) {
        let mut before = std::mem::take(&mut self.lanes);
        for stream in elementary {
            let same = |known: &Elementary| known.pid == stream.pid && known.format == stream.format;
            let known = self
                .elementary
                .iter()
                .any(same)
                .then(|| before.iter().position(|lane| lane.pid == stream.pid))
                .flatten()
                .map(|at| before.swap_remove(at));
            let lane = known.or_else(|| {
                let content = Content::new(stream)?;
                Some(Lane { pid: stream.pid, track: None, language: None, content })
            });
            self.lanes.extend(lane.map(|lane| Lane { language: stream.language, ..lane }));
        }
        let gone = before.iter().filter(|lane| elementary.iter().all(|stream| stream.pid != lane.pid));
        gone.for_each(|lane| self.timeline.forget(lane.pid));
        self.elementary = elementary.to_vec();
        self.list();
    }

    /// Makes the list of tracks anew; the allocation stays while it says the same.
    fn list(&mut self) {
        let mut tracks = Vec::with_capacity(self.lanes.len());
        for lane in &mut self.lanes {
            lane.track = lane.content.codec().map(|codec| {
                let setup = lane.content.setup();
                tracks.push(Track { id: lane.pid, codec, setup, language: lane.language });
                tracks.len() - 1
            });
        }
        if self.tracks.0 != tracks {
            self.tracks = Arc::new(Tracks(tracks));
        }
    }

    fn read(&mut self, pes: Pes<'_>, arrival: Nanos, sink: &mut impl FnMut(Frame)) {
        let Some(index) = self.lanes.iter().position(|lane| lane.pid == pes.pid) else { return };
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let mut units = Vec::new();
        let counters = &mut self.counters;
        let mut untimed = 0;
        let changed = match &mut lane.content {
            Content::Video(video) => {
                video.read(&pes, arrival, self.damage, &mut self.timeline, counters, &mut units)
            }
            Content::Sound(sound) => sound.read(&pes, arrival, &mut self.timeline, counters, &mut units),
            Content::Metadata { klv, synchronous, .. } => {
                let before = *synchronous;
                let stamp = pes.header.pts.map(|pts| pts as i64).or(self.moment);
                read_klv(&pes, klv, counters, &mut |data, cells| {
                    *synchronous = Some(cells);
                    match stamp {
                        Some(stamp) => {
                            let stamps = self.timeline.place(pes.pid, stamp, None, arrival);
                            units.push(Unit { data, stamps, random_access: true });
                        }
                        None if self.untimed.len() < UNTIMED => self.untimed.push((pes.pid, data, arrival)),
                        None => untimed += 1,
                    }
                });
                *synchronous != before
            }
        };
        self.counters.untimed += untimed;
        if changed {
            self.list();
        }
        let Some(track) = self.lanes.get(index).and_then(|lane| lane.track) else { return };
        units.into_iter().for_each(|unit| self.leave(track, unit, arrival, sink));
    }
}

/// Hands out the KLV of a PES packet, and whether it came in cells: bare packets together, as they came, each metadata
/// access unit on its own.
fn read_klv(
    pes: &Pes<'_>,
    klv: &mut Metadata,
    counters: &mut DemuxerCounters,
    emit: &mut impl FnMut(Bytes, bool),
) {
    counters.damaged += u64::from(pes.damaged);
    let foreign = klv.counters().foreign;
    let mut bare = Vec::new();
    let mut take = |data: &[u8], carriage| match carriage {
        Carriage::Bare => bare.extend_from_slice(data),
        Carriage::Cells => emit(Bytes::copy_from_slice(data), true),
    };
    klv.push_sound(pes.data, pes.sound, &mut take);
    if !bare.is_empty() {
        emit(bare.into(), false);
    }
    counters.foreign += klv.counters().foreign - foreign;
}

/// Makes room for a frame of this many bytes. Small frames share blocks, so that most need no allocation.
fn make_room(room: &mut BytesMut, length: usize) {
    if room.capacity() - room.len() >= length {
        return;
    }
    if room.is_empty() {
        *room = BytesMut::with_capacity(length.max(BLOCK));
    } else {
        room.reserve(length);
    }
}

impl Content {
    /// None for a stream that is not known here.
    fn new(stream: &Elementary) -> Option<Self> {
        Some(match stream.format {
            Format::H264 => Self::Video(Video::new(Standard::H264)),
            Format::H265 => Self::Video(Video::new(Standard::H265)),
            Format::Metadata { declared } => {
                // What the stream_type promises holds until the first packet shows what is true.
                let declared = declared.then_some(stream.stream_type == 0x15);
                Self::Metadata { klv: Metadata::default(), declared, synchronous: None }
            }
            Format::Other => return None,
            format => Self::Sound(Sound::new(format, stream.channels)?),
        })
    }

    fn is_video(&self) -> bool {
        matches!(self, Self::Video(_))
    }

    /// None while a private stream has shown no KLV.
    fn codec(&self) -> Option<Codec> {
        match self {
            Self::Video(video) => Some(video.codec()),
            Self::Sound(sound) => Some(sound.codec()),
            Self::Metadata { declared, synchronous, .. } => declared.or(*synchronous).map(|_| Codec::Klv),
        }
    }

    fn setup(&self) -> Setup {
        match self {
            Self::Video(video) => video.setup(),
            Self::Sound(sound) => sound.setup(),
            Self::Metadata { declared, synchronous, .. } => match synchronous.or(*declared) {
                Some(synchronous) => Setup::Klv { synchronous },
                None => Setup::Unknown,
            },
        }
    }
}

/// KLV units that wait for a first time stamp.
const UNTIMED: usize = 64;
/// Frames that are smaller share blocks of this size.
const BLOCK: usize = 64 << 10;

#[cfg(test)]
mod tests;
