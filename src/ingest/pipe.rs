//! What happens to what a stream receives: datagrams and frames enter, the native lane, the lane of frames and the
//! makers of derived lanes get what they need. A stream always has its `ts` lane, whatever its source speaks: health,
//! random access and every transport stream output read it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;

use super::splice::Splice;
use crate::hub::{Bounds, Cursor, Lane, LaneWriter, Polled, Pulse};
use crate::inspect::klv::Tap;
use crate::media::{Frame, Kind, Nanos, PACKET, Tracks};
use crate::mux::{Demuxer, DemuxerOptions, Derivation, Maker, Muxer, MuxerOptions};
use crate::telemetry::InputStats;
use crate::wire::ts::{Analyzer, Report, Sample};

/// One stream between its driver and its lanes.
pub(super) struct Pipe {
    pub(super) writer: LaneWriter,
    analyzer: Analyzer,
    makers: Vec<(Derivation, Box<dyn Maker>)>,
    pub(super) stats: Arc<InputStats>,
    pub(super) polled: Polled,
    pub(super) last_arrival: Nanos,
    bounds: Bounds,
    /// Makes the `ts` lane while the source gives frames.
    muxer: Option<Box<Muxer>>,
    splice: Splice,
    frames: Option<Frames>,
    tracks: watch::Sender<Arc<Tracks>>,
    /// Looks for KLV in what the source gives; none where nobody wants to know.
    tap: Option<Box<Tap>>,
    /// When the muxer is looked after, while frames come.
    next_tick: Option<Nanos>,
    /// Scratch.
    made: Vec<Frame>,
}

/// The lane of frames, as long as somebody needs it.
struct Frames {
    writer: LaneWriter<Frame>,
    /// Makes them while the source gives datagrams.
    demuxer: Option<Box<Demuxer>>,
}

impl Pipe {
    pub(super) fn new(
        writer: LaneWriter,
        bounds: Bounds,
        tracks: watch::Sender<Arc<Tracks>>,
        stats: Arc<InputStats>,
        tap: Option<Tap>,
    ) -> Self {
        let mut analyzer = Analyzer::new();
        analyzer.keep_sample();
        Self {
            writer,
            analyzer,
            makers: Vec::new(),
            stats,
            polled: Polled::default(),
            last_arrival: 0,
            bounds,
            muxer: None,
            splice: Splice::default(),
            frames: None,
            tracks,
            tap: tap.map(Box::new),
            next_tick: None,
            made: Vec::new(),
        }
    }

    /// A source begins that gives frames, or datagrams.
    pub(super) fn begin(&mut self, frames: bool) {
        self.stats.is_muxed.store(frames, Relaxed);
        if let Some(tap) = &mut self.tap {
            tap.begin();
        }
        if frames {
            self.splice.begin();
            self.muxer.get_or_insert_with(|| Box::new(Muxer::new(MuxerOptions::default())));
        } else {
            self.muxer = None;
        }
        self.open_frames();
    }

    /// The source is gone: what only its next packet would have ended leaves.
    pub(super) fn end(&mut self) {
        let arrival = self.last_arrival;
        if let Some(tap) = &mut self.tap {
            tap.end(arrival);
        }
        if let Some(demuxer) = self.frames.as_mut().and_then(|frames| frames.demuxer.as_mut()) {
            demuxer.flush(arrival, &mut |frame| self.made.push(frame));
            self.keep_made();
        }
        self.mux(|muxer, sink| muxer.flush(&mut |datagram, arrival| sink(datagram, arrival)));
        self.makers.iter_mut().for_each(|(_, maker)| maker.end());
    }

    pub(super) fn arrive(&mut self, arrival: Nanos) {
        if arrival.saturating_sub(self.last_arrival) > CLUSTER {
            self.polled.clusters += 1;
        }
        self.last_arrival = arrival;
        self.stats.datagrams.fetch_add(1, Relaxed);
    }

    /// So many packets behind what it took, the source plays anew from its beginning.
    pub(super) fn seam(&mut self, ahead: u64) {
        self.analyzer.seam(ahead);
    }

    /// Takes a datagram of whole packets.
    pub(super) fn take(&mut self, datagram: &[u8], arrival: Nanos) {
        if let Some(tap) = &mut self.tap {
            tap.datagram(datagram, arrival);
        }
        self.stage(datagram, arrival);
        if let Some(demuxer) = self.frames.as_mut().and_then(|frames| frames.demuxer.as_mut()) {
            demuxer.push(datagram, arrival, &mut |frame| self.made.push(frame));
            self.keep_made();
        }
    }

    /// Takes an access unit of a source that gives those.
    pub(super) fn take_frame(&mut self, mut frame: Frame) {
        self.arrive(frame.arrival);
        self.splice.place(&mut frame);
        // Here, and not behind the muxer: there it would wait for company.
        if let Some(tap) = &mut self.tap {
            tap.frame(&frame);
        }
        self.next_tick.get_or_insert(frame.arrival + TICK);
        self.mux(|muxer, sink| muxer.push(&frame, &mut |datagram, arrival| sink(datagram, arrival)));
        self.keep(frame);
    }

    /// Lets the muxer do what time asks for: as long as frames come, its tables and clock go on between them. Once they
    /// stay away the stream is as silent as its source.
    pub(super) fn tick(&mut self, now: Nanos) {
        if self.next_tick.is_some_and(|due| due <= now) {
            let silent = now.saturating_sub(self.last_arrival) > SILENT;
            self.next_tick = (!silent).then_some(now + TICK);
            self.mux(|muxer, sink| match silent {
                true => muxer.flush(&mut |datagram, arrival| sink(datagram, arrival)),
                false => muxer.tick(now, &mut |datagram, arrival| sink(datagram, arrival)),
            });
        }
    }

    /// When it wants [`Pipe::tick`].
    pub(super) fn next_tick(&self) -> Option<Nanos> {
        self.next_tick
    }

    /// Has a lane made, and gives its maker what a reader can begin with.
    pub(super) fn derive(&mut self, derivation: Derivation, mut maker: Box<dyn Maker>, now: Nanos) {
        if maker.wants_frames() {
            self.commit(now);
            self.open_frames();
            // What `open_frames` found in the `ts` lane has to be seen below.
            self.commit(now);
            if let Some(frames) = &self.frames {
                replay(frames.writer.lane(), |frame| maker.frame(&frame));
            }
        }
        self.makers.push((derivation, maker));
        self.open_frames();
    }

    /// Lets a maker write out what waits in it for more.
    pub(super) fn settle(&mut self, derivation: &Derivation) {
        self.makers.iter_mut().filter(|(made, _)| made == derivation).for_each(|(_, maker)| maker.end());
    }

    /// Has it made no more.
    pub(super) fn forget(&mut self, derivation: &Derivation) {
        self.makers.retain(|(made, _)| made != derivation);
        if self.muxer.is_none() && !self.makers.iter().any(|(_, maker)| maker.wants_frames()) {
            self.frames = None;
        }
    }

    /// Shows readers what was made; `false` = try again.
    pub(super) fn commit(&mut self, now: Nanos) -> bool {
        let mut done = self.writer.commit(now);
        if let Some(frames) = &mut self.frames {
            done &= frames.writer.commit(now);
        }
        for (_, maker) in &mut self.makers {
            done &= maker.commit(now);
        }
        done
    }

    /// Sends on what has waited in makers since before `oldest`; how much that was.
    pub(super) fn flush(&mut self, oldest: Nanos) -> u32 {
        self.makers.iter_mut().map(|(_, maker)| maker.flush(oldest)).sum()
    }

    /// Since when something waits in a maker.
    pub(super) fn waiting_since(&self) -> Option<Nanos> {
        self.makers.iter().filter_map(|(_, maker)| maker.waiting_since()).min()
    }

    /// The pulse of every lane.
    pub(super) fn pulses(&self, each: &mut dyn FnMut(&Pulse)) {
        each(self.writer.lane().pulse());
        if let Some(frames) = &self.frames {
            each(frames.writer.lane().pulse());
        }
        self.makers.iter().for_each(|(_, maker)| maker.pulses(each));
    }

    /// Whether somebody hears what its metadata say.
    pub(super) fn is_heard(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.is_heard())
    }

    /// Publishes counters.
    pub(super) fn publish(&self) {
        if let Some(tap) = &self.tap {
            tap.publish();
        }
    }

    /// What the framer threw away so far.
    pub(super) fn framing(&mut self, junk_bytes: u64, resyncs: u64) {
        self.analyzer.framing(junk_bytes, resyncs);
    }

    /// Copies of packets for rules that are looked at elsewhere.
    pub(super) fn take_sample(&mut self) -> Option<Sample> {
        self.analyzer.take_sample()
    }

    /// What is in the stream.
    pub(super) fn report(&mut self, now: Nanos) -> Report {
        self.analyzer.report(now)
    }

    /// Lets the muxer, where there is one, write to the `ts` lane.
    fn mux(&mut self, write: impl FnOnce(&mut Muxer, &mut dyn FnMut(&[u8], Nanos))) {
        if let Some(mut muxer) = self.muxer.take() {
            write(&mut muxer, &mut |datagram, arrival| self.stage(datagram, arrival));
            self.muxer = Some(muxer);
        }
    }

    fn stage(&mut self, datagram: &[u8], arrival: Nanos) {
        let position = self.writer.next_position();
        let seen = self.analyzer.datagram(position, datagram, arrival);
        self.writer.stage(datagram, arrival, seen.pcr);
        if let Some(access) = seen.random_access {
            self.writer.mark_random_access(access);
        }
        for (_, maker) in &mut self.makers {
            maker.datagram(datagram, arrival);
        }
        self.polled.datagrams += 1;
        let stats = &self.stats;
        stats.packets.fetch_add((datagram.len() / PACKET) as u64, Relaxed);
        stats.bytes.fetch_add(datagram.len() as u64, Relaxed);
    }

    /// Sees to the lane of frames where it is needed, and to a demuxer where the source gives datagrams: it begins
    /// with what the `ts` lane holds since a decoder could start, so that nobody has to wait for that again.
    fn open_frames(&mut self) {
        let native = self.muxer.is_some();
        let wanted = native || self.makers.iter().any(|(_, maker)| maker.wants_frames());
        if self.frames.is_none() && wanted {
            self.frames = Some(Frames { writer: Lane::new(self.bounds).1, demuxer: None });
        }
        let Some(frames) = &mut self.frames else { return };
        if native {
            frames.demuxer = None;
        } else if frames.demuxer.is_none() {
            let mut demuxer = Box::new(Demuxer::new(DemuxerOptions::default()));
            let made = &mut self.made;
            replay(self.writer.lane(), |datagram| {
                demuxer.push(&datagram.bytes, datagram.arrival, &mut |frame| made.push(frame));
            });
            frames.demuxer = Some(demuxer);
            self.keep_made();
        }
    }

    fn keep_made(&mut self) {
        for frame in std::mem::take(&mut self.made) {
            self.keep(frame);
        }
    }

    /// Keeps an access unit in the lane of frames, and gives it to those who make something of it.
    fn keep(&mut self, frame: Frame) {
        let Some(frames) = &mut self.frames else { return };
        self.tracks.send_if_modified(|tracks| {
            let changed = !Arc::ptr_eq(tracks, &frame.tracks);
            if changed {
                *tracks = Arc::clone(&frame.tracks);
            }
            changed
        });
        for (_, maker) in &mut self.makers {
            maker.frame(&frame);
        }
        if frame.random_access && begins(&frame) {
            let position = frames.writer.next_position();
            frames.writer.mark_random_access(position);
        }
        frames.writer.push(frame);
    }
}

/// Whether readers begin at random access points of this track: of the pictures, where there are any.
fn begins(frame: &Frame) -> bool {
    let is_video = |track: &crate::media::Track| track.codec.kind() == Kind::Video;
    frame.track().is_some_and(is_video) || !frame.tracks.0.iter().any(is_video)
}

/// Hands over what a lane holds since its newest random access point.
fn replay<T: crate::hub::Item>(lane: &Lane<T>, mut each: impl FnMut(T)) {
    let Some(Cursor(mut cursor)) = lane.random_access() else { return };
    let mut items = Vec::new();
    loop {
        let mut at = Cursor(cursor);
        let read = lane.read(&mut at, REPLAY, &mut items, |_| true);
        cursor = at.0;
        items.drain(..).for_each(&mut each);
        if read.taken == 0 {
            return;
        }
    }
}

/// Datagrams less than this apart arrived together.
const CLUSTER: Nanos = 1_000_000;
/// How often the muxer is looked after: packets that wait for company wait so long.
const TICK: Nanos = 10_000_000;
/// Without a frame for so long, the source counts as silent.
const SILENT: Nanos = 1_000_000_000;
/// Items read at once.
const REPLAY: usize = 256;
