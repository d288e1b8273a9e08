//! Frames enter in the order in which they came, datagrams of a transport stream that keeps to STANAG 4609 leave. Never
//! holds a frame back, and never changes what is coded.

use std::sync::Arc;

use thiserror::Error;

use crate::media::{Codec, Frame, Kind, Nanos, Setup, TICKS_PER_SECOND, Ticks, Track, TrackId, Tracks};
use crate::wire::aac::{Config, adts_header};
use crate::wire::audio::opus;
use crate::wire::h26x::{self, Standard, length_prefixed};
use crate::wire::ts::metadata::{klv_packets, put_cells};
use crate::wire::ts::multiplexer::{Multiplexer, Options, Unit};
use crate::wire::ts::psi::Stream;

/// What a [`Muxer`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MuxerOptions {
    /// transport_stream_id.
    pub transport_stream_id: u16,
    /// program_number, 1 to 65535.
    pub program: u16,
    /// Bits per second, filled up with null packets; none = as many as there are.
    pub rate: Option<u64>,
    /// How far the clock is behind the decoding times.
    pub delay: Ticks,
}

/// A track that a transport stream cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("Unsupported: track {track} is {}, {reason}", .codec.name())]
pub struct Unsupported {
    /// Its name.
    pub track: TrackId,
    /// What it is coded in.
    pub codec: Codec,
    /// Why not.
    pub reason: &'static str,
}

/// What a [`Muxer`] did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MuxerCounters {
    /// Frames that were written.
    pub frames: u64,
    /// Frames of tracks that a transport stream cannot carry, or of which too little is known yet.
    pub refused: u64,
    /// Frames that left after the clock had passed their decoding time: they came too late after others.
    pub late: u64,
}

/// Puts the frames of a stream into one program of a transport stream.
///
/// **Times.** The clock is the furthest decoding time of sound and pictures less a constant delay, 300 ms: frames of
/// different tracks that belong together may arrive that much apart, and yet none of them is late for a decoder that
/// follows the clock. It is no more because such a decoder shows everything that much later. Where tracks come further
/// apart (the picture buffer of a broadcast encoder), the delay grows to what they need, up to 3 s: for that time the
/// clock runs at half its speed. It never goes back.
///
/// **Latency.** A frame is written when it is pushed. Its last packets wait until their datagram is full: at most until
/// the next frame, or until [`Self::tick`] finds that they have waited for 10 ms.
///
/// **Pictures** start with a delimiter; in front of every random access point stand all parameter sets, whether they
/// came there or not. **AAC** gets ADTS headers. **KLV** travels as its track says: bare in stream type 0x06 with a
/// registration and without a time, or in metadata access unit cells in stream type 0x15 with both descriptors and a
/// time, their sequence numbers running over the whole stream.
#[derive(Debug)]
pub struct Muxer {
    multiplexer: Multiplexer,
    tracks: Arc<Tracks>,
    lanes: Vec<Option<Lane>>,
    refused: Vec<Unsupported>,
    clock: Pace,
    /// When the first packet came that waits for its datagram.
    waiting: Option<Nanos>,
    /// Headers and cells of the frame under way.
    scratch: Vec<u8>,
    counters: MuxerCounters,
}

/// Where a track goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lane {
    pid: u16,
    stream_id: u8,
    stream: Stream,
    form: Form,
    /// Sequence number of the next metadata access unit cell.
    sequence: u8,
}

/// How its frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Pictures(Standard),
    /// None while nothing is known of it.
    Adts(Option<Config>),
    Opus,
    AsTheyAre,
    Bare,
    Cells,
}

/// Makes the time of the multiplex out of the decoding times of frames.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The furthest decoding time, and when it arrived.
    lead: Option<(Ticks, Nanos)>,
    /// How far the clock is behind it, and should be.
    behind: Ticks,
    wanted: Ticks,
}

impl Default for MuxerOptions {
    fn default() -> Self {
        Self { transport_stream_id: 1, program: 1, rate: None, delay: 300 * TICKS_PER_SECOND / 1000 }
    }
}

impl Muxer {
    /// One that has seen nothing.
    pub fn new(options: MuxerOptions) -> Self {
        Self {
            multiplexer: Multiplexer::new(options.multiplex(PMT_PID)),
            tracks: Arc::default(),
            lanes: Vec::new(),
            refused: Vec::new(),
            clock: Pace { lead: None, behind: options.delay, wanted: options.delay },
            waiting: None,
            scratch: Vec::new(),
            counters: MuxerCounters::default(),
        }
    }

    /// Writes a frame, and hands out every datagram that is full by it, with the arrival of its first packet.
    pub fn push(&mut self, frame: &Frame, sink: &mut impl FnMut(&[u8], Nanos)) {
        if !Arc::ptr_eq(&frame.tracks, &self.tracks) {
            self.follow(&frame.tracks);
        }
        let Some(Some(lane)) = self.lanes.get_mut(frame.track) else {
            self.counters.refused += 1;
            return;
        };
        let media = frame.track().is_some_and(|track| track.codec.kind() != Kind::Metadata);
        let time = self.clock.follow(frame.dts, frame.arrival, media);
        let late =
            media && self.multiplexer.clock().is_some_and(|clock| clock > frame.dts.saturating_mul(PER_TICK));

        let setup = frame.track().map_or(&Setup::Unknown, |track| &track.setup);
        let mut parts: Vec<&[u8]> = Vec::new();
        self.scratch.clear();
        match lane.form {
            Form::Pictures(standard) => put_picture(frame, standard, setup, &mut parts),
            Form::Adts(config) => match config.and_then(|config| adts_header(config, frame.data.len())) {
                Some(header) => {
                    self.scratch.extend_from_slice(&header);
                    parts.extend([self.scratch.as_slice(), &frame.data]);
                }
                None => {
                    self.counters.refused += 1;
                    return;
                }
            },
            Form::Opus => {
                opus::put_header(frame.data.len(), &mut self.scratch);
                parts.extend([self.scratch.as_slice(), &frame.data]);
            }
            Form::AsTheyAre | Form::Bare => parts.push(&frame.data),
            Form::Cells => {
                let packets = klv_packets(&frame.data);
                packets.for_each(|packet| put_cells(packet, CELL, &mut lane.sequence, &mut self.scratch));
                parts.push(&self.scratch);
            }
        }
        let (pid, stream_id, form) = (lane.pid, lane.stream_id, lane.form);
        let pictures = matches!(form, Form::Pictures(_));
        let unit = Unit {
            pid,
            stream_id,
            pts: (form != Form::Bare).then_some(frame.pts),
            dts: pictures.then_some(frame.dts),
            random_access: pictures && frame.random_access,
            aligned: true,
            parts: &[],
        };
        self.counters.frames += 1;
        self.counters.late += u64::from(late);
        let mut emit = stamp(&mut self.waiting, frame.arrival, sink);
        // Only pictures may leave the length of their packet open: the rest goes on in further packets.
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        if pictures || (1..=PES_MOST).contains(&whole) {
            self.multiplexer.write(&Unit { parts: &parts, ..unit }, time, &mut emit);
        } else {
            let mut aligned = true;
            for part in split(&parts.concat(), form) {
                self.multiplexer.write(&Unit { aligned, parts: &[part], ..unit }, time, &mut emit);
                aligned = form == Form::Cells;
            }
        }
        drop(emit);
        self.settle(frame.arrival);
    }

    /// Time has passed: packets that have waited for 10 ms leave, the tables and the clock go on between frames that
    /// are far apart. Worth calling every 10 ms.
    pub fn tick(&mut self, now: Nanos, sink: &mut impl FnMut(&[u8], Nanos)) {
        if let Some(time) = self.clock.at(now) {
            self.multiplexer.advance(time, &mut stamp(&mut self.waiting, now, sink));
            self.settle(now);
        }
        if self.waiting.is_some_and(|since| now.saturating_sub(since) >= HELD) {
            self.flush(sink);
        }
    }

    /// Sends the packets that wait for their datagram to fill.
    pub fn flush(&mut self, sink: &mut impl FnMut(&[u8], Nanos)) {
        let since = self.waiting.take().unwrap_or(0);
        self.multiplexer.flush(&mut |datagram| sink(datagram, since));
    }

    /// Since when packets wait for their datagram to fill.
    pub fn waiting_since(&self) -> Option<Nanos> {
        self.waiting
    }

    /// The tracks that cannot be carried, each with the reason.
    pub fn refused(&self) -> &[Unsupported] {
        &self.refused
    }

    /// What was done so far.
    pub fn counters(&self) -> MuxerCounters {
        self.counters
    }

    fn settle(&mut self, arrival: Nanos) {
        self.waiting = match self.multiplexer.pending() {
            0 => None,
            _ => self.waiting.or(Some(arrival)),
        };
    }

    /// Other tracks from here on, or other setups of the same: the program changes only if they travel otherwise.
    fn follow(&mut self, tracks: &Arc<Tracks>) {
        self.tracks = Arc::clone(tracks);
        self.refused.clear();
        let before = std::mem::take(&mut self.lanes);
        let mut used = vec![PMT_PID];
        for track in &tracks.0 {
            let pid = free_pid(track.id, &mut used);
            let count = self.lanes.iter().flatten().count() as u8;
            match Lane::new(track, pid, count) {
                Ok(mut lane) => {
                    let known = before.iter().flatten().find(|known| known.pid == lane.pid);
                    lane.sequence = known.map_or(0, |known| known.sequence);
                    self.lanes.push(Some(lane));
                }
                Err(unsupported) => {
                    self.refused.push(unsupported);
                    self.lanes.push(None);
                }
            }
        }
        let streams: Vec<Stream> = self.lanes.iter().flatten().map(|lane| lane.stream.clone()).collect();
        let first = |kind: Kind| {
            let mut pairs = tracks.0.iter().zip(&self.lanes);
            pairs
                .find_map(|(track, lane)| lane.as_ref().filter(|_| track.codec.kind() == kind).map(|l| l.pid))
        };
        let clock = first(Kind::Video).or_else(|| first(Kind::Audio)).or_else(|| first(Kind::Metadata));
        if let Some(clock) = clock
            && self.multiplexer.describe(streams, clock).is_err()
        {
            // More tracks than a PMT can name: none of them is written, and each says so.
            let reason = "and the tables of a transport stream have no room for so many tracks";
            self.refused =
                tracks.0.iter().map(|t| Unsupported { track: t.id, codec: t.codec, reason }).collect();
            self.lanes.clear();
        }
    }
}

/// The tracks of a stream that a transport stream cannot carry, and why: their indexes.
pub fn unsupported(tracks: &Tracks) -> Vec<(usize, &'static str)> {
    let refused = |(index, track)| Some((index, Lane::new(track, PMT_PID, 0).err()?.reason));
    tracks.0.iter().enumerate().filter_map(refused).collect()
}

impl MuxerOptions {
    fn multiplex(self, pmt_pid: u16) -> Options {
        let Self { transport_stream_id, program, rate, .. } = self;
        Options { transport_stream_id, program: program.max(1), pmt_pid, rate }
    }
}

impl Lane {
    /// Where a track goes.
    fn new(track: &Track, pid: u16, count: u8) -> Result<Self, Unsupported> {
        let unsupported = |reason| Unsupported { track: track.id, codec: track.codec, reason };
        let count = count & 0x0f;
        let mut descriptors = Vec::new();
        let (stream_type, stream_id, form) = match (track.codec, &track.setup) {
            (Codec::H264, _) => (0x1b, 0xe0 | count, Form::Pictures(Standard::H264)),
            (Codec::H265, _) => (0x24, 0xe0 | count, Form::Pictures(Standard::H265)),
            (Codec::Aac, Setup::Aac { config, .. }) => {
                let config = Config::parse(config).filter(|&config| adts_header(config, 0).is_some());
                let reason = "of a kind that ADTS cannot describe";
                (0x0f, 0xc0 | count, Form::Adts(Some(config.ok_or(unsupported(reason))?)))
            }
            (Codec::Aac, _) => (0x0f, 0xc0 | count, Form::Adts(None)),
            // The half rates of ISO/IEC 13818-3 have a stream type of their own.
            (Codec::MpegAudio, Setup::Audio(format) | Setup::MpegAudio { format, .. })
                if format.rate < 32_000 =>
            {
                (0x04, 0xc0 | count, Form::AsTheyAre)
            }
            (Codec::MpegAudio, _) => (0x03, 0xc0 | count, Form::AsTheyAre),
            (Codec::Ac3, _) => {
                descriptors.extend_from_slice(b"\x05\x04AC-3");
                (0x81, 0xbd, Form::AsTheyAre)
            }
            (Codec::Opus, setup) => {
                let channels = if let Setup::Audio(format) = setup { format.channels } else { 2 };
                if !(1..=8).contains(&channels) {
                    return Err(unsupported(
                        "with a number of channels that a transport stream cannot describe",
                    ));
                }
                descriptors.extend_from_slice(b"\x05\x04Opus\x7f\x02\x80");
                descriptors.push(channels);
                (0x06, 0xbd, Form::Opus)
            }
            (Codec::Klv, Setup::Klv { synchronous: true }) => {
                // Application format 0x0100, format KLVA, service 0; then the rates and the buffer of the system
                // target decoder: 1 Mbit/s in and out, 64 kB (ISO/IEC 13818-1, 2.6.60 and 2.6.62; ST 1402).
                descriptors.extend_from_slice(b"\x26\x09\x01\x00\xffKLVA\x00\x0f");
                descriptors.extend_from_slice(&[0x27, 9, 0xc0, 0x09, 0xc4, 0xc0, 0, 64, 0xc0, 0x09, 0xc4]);
                (0x15, 0xfc, Form::Cells)
            }
            (Codec::Klv, _) => {
                descriptors.extend_from_slice(b"\x05\x04KLVA");
                (0x06, 0xbd, Form::Bare)
            }
            (Codec::PcmA | Codec::PcmU, _) => {
                return Err(unsupported("for which a transport stream has no stream type"));
            }
            (Codec::Av1, _) => {
                return Err(unsupported("whose carriage in transport streams is only a draft"));
            }
        };
        if let Some([a, b, c]) = track.language.filter(|_| track.codec.kind() == Kind::Audio) {
            descriptors.extend_from_slice(&[0x0a, 4, a, b, c, 0]);
        }
        let stream = Stream { stream_type, pid, descriptors };
        Ok(Self { pid, stream_id, stream, form, sequence: 0 })
    }
}

impl Pace {
    /// The time of the multiplex at a frame, in units of 1/27 MHz. Only `media` moves it, once there is any.
    fn follow(&mut self, dts: Ticks, arrival: Nanos, media: bool) -> i64 {
        let Some((lead, _)) = self.lead else {
            self.lead = Some((dts, arrival));
            return dts.saturating_sub(self.behind).saturating_mul(PER_TICK);
        };
        if media {
            let apart = lead.saturating_sub(dts).saturating_add(SLACK);
            if apart > self.wanted && apart <= APART {
                self.wanted = apart;
            }
            let step = dts.saturating_sub(lead);
            if step > 0 {
                self.behind += (self.wanted - self.behind).min(step / 2).max(0);
                self.lead = Some((dts, arrival));
            }
        }
        self.lead.map_or(0, |(lead, _)| lead.saturating_sub(self.behind).saturating_mul(PER_TICK))
    }

    /// The same when no frame comes. It stops before the frames that may still come would be late.
    fn at(&self, now: Nanos) -> Option<i64> {
        let (lead, arrival) = self.lead?;
        let passed = u128::from(now.saturating_sub(arrival)) * TICKS_PER_SECOND as u128 / 1_000_000_000;
        let passed = (passed as Ticks).clamp(0, self.behind / 2);
        Some((lead - self.behind + passed).saturating_mul(PER_TICK))
    }
}

/// Lists what a picture consists of in a byte stream (H.264 and H.265, annex B).
fn put_picture<'a>(frame: &'a Frame, standard: Standard, setup: &'a Setup, parts: &mut Vec<&'a [u8]>) {
    parts.extend([START, standard.delimiter()]);
    let sets = match setup {
        Setup::ParameterSets { vps, sps, pps } if frame.random_access => [vps, sps, pps],
        _ => [const { &Vec::new() }; 3],
    };
    let all = || sets.iter().flat_map(|sets| sets.iter());
    all().for_each(|set| parts.extend([START, set]));
    for unit in length_prefixed(&frame.data, 4) {
        let again = match standard.kind_of(unit) {
            h26x::Kind::Delimiter => true,
            h26x::Kind::Vps | h26x::Kind::Sps | h26x::Kind::Pps => all().any(|set| set == unit),
            _ => false,
        };
        if !again {
            parts.extend([START, unit]);
        }
    }
}

/// Cuts what does not fit into one PES packet: at the cells of synchronous KLV, else anywhere.
fn split(bytes: &[u8], form: Form) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(PES_MOST);
        if form == Form::Cells {
            end = 0;
            while let Some(&[_, _, _, l0, l1]) = rest.get(end..).and_then(|cell| cell.first_chunk()) {
                let next = end + 5 + usize::from(u16::from_be_bytes([l0, l1]));
                if next > PES_MOST {
                    break;
                }
                end = next;
            }
        }
        let (part, behind) = rest.split_at_checked(end)?;
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}

/// The PID of a track: its name, where that is one that is free.
fn free_pid(id: TrackId, used: &mut Vec<u16>) -> u16 {
    let own = Some(id).filter(|id| FREE_PIDS.contains(id) && !used.contains(id));
    let pid = own.or_else(|| FIRST_PID.chain(FREE_PIDS).find(|pid| !used.contains(pid)));
    let pid = pid.unwrap_or(*FREE_PIDS.start());
    used.push(pid);
    pid
}

/// A sink of datagrams that tells since when their first packet waited.
fn stamp<'a>(
    waiting: &'a mut Option<Nanos>,
    arrival: Nanos,
    sink: &'a mut impl FnMut(&[u8], Nanos),
) -> impl FnMut(&[u8]) + 'a {
    move |datagram| sink(datagram, waiting.take().unwrap_or(arrival))
}

/// Units of the programme clock in a tick.
const PER_TICK: i64 = 300;
const START: &[u8] = &[0, 0, 0, 1];
const PMT_PID: u16 = 0x1000;
/// PIDs that no table has by convention (ISO/IEC 13818-1, table 2-3; ETSI EN 300 468, table 1).
const FREE_PIDS: std::ops::RangeInclusive<u16> = 0x20..=0x1ffe;
/// Where those go that have no PID of their own.
const FIRST_PID: std::ops::RangeInclusive<u16> = 0x101..=0x1ff;
/// What fits behind the longest header of a PES packet that says its length.
const PES_MOST: usize = u16::MAX as usize - 13;
/// Body of a cell that fits into one PES packet with its header.
const CELL: usize = PES_MOST - 5;
/// Packets wait no longer for their datagram to fill.
const HELD: Nanos = 10_000_000;
/// A frame shall be complete this long before it is decoded.
const SLACK: Ticks = TICKS_PER_SECOND / 20;
/// Tracks that are further apart are not waited for.
const APART: Ticks = 3 * TICKS_PER_SECOND;

#[cfg(test)]
mod tests;
