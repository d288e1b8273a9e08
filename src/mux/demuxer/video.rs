//! PES packets of H.264 or H.265 enter, pictures with lengths in front of their NAL units leave. Never holds one back.

use bytes::{Bytes, BytesMut};

use super::{Damage, DemuxerCounters, Unit, make_room};
use crate::media::{Codec, DecodingTimes, Nanos, Setup, Stamps, TICKS_PER_SECOND, Ticks, Timeline};
use crate::wire::h26x::{Kind, ParameterSets, Picture, Slice, Standard, annex_b, put_length_prefixed};
use crate::wire::ts::demux::Pes;
use crate::wire::ts::pes::PTS_WRAP;

/// One stream of pictures.
#[derive(Debug)]
pub(super) struct Video {
    sets: ParameterSets,
    /// Where frames are put together; each takes its part of it along.
    room: BytesMut,
    /// What is known of the picture to which the units in `room` belong: they came in front of it.
    ahead: Picture,
    /// Makes decoding times, once a picture without one was to be presented before the one in front of it.
    times: Option<DecodingTimes>,
    /// The last stamp of decoding as it came, and whether any picture had one of its own.
    stamp: Option<i64>,
    has_decoding: bool,
    last: Option<Stamps>,
    /// Between the last two pictures.
    step: Ticks,
    /// Since when pictures are left out because one before them was damaged.
    waiting: Option<Nanos>,
}

impl Video {
    pub(super) fn new(standard: Standard) -> Self {
        Self {
            sets: ParameterSets::new(standard),
            room: BytesMut::new(),
            ahead: Picture::default(),
            times: None,
            stamp: None,
            has_decoding: false,
            last: None,
            step: TICKS_PER_SECOND / 30,
            waiting: None,
        }
    }

    pub(super) fn codec(&self) -> Codec {
        match self.sets.standard() {
            Standard::H264 => Codec::H264,
            Standard::H265 => Codec::H265,
        }
    }

    pub(super) fn setup(&self) -> Setup {
        if self.sets.all().next().is_none() {
            return Setup::Unknown;
        }
        Setup::ParameterSets {
            vps: self.sets.vps().cloned().collect(),
            sps: self.sets.sps().cloned().collect(),
            pps: self.sets.pps().cloned().collect(),
        }
    }

    /// Answers whether parameter sets changed.
    ///
    /// A PES packet is one picture, or the two fields of a frame, as multiplexers make them. Where it is more, they are
    /// told apart; where it has no slice at all, what is in it stands in front of the next picture. A picture that is
    /// spread over several PES packets comes as several: only the next packet would show that.
    pub(super) fn read(
        &mut self,
        pes: &Pes<'_>,
        arrival: Nanos,
        damage: Damage,
        timeline: &mut Timeline,
        counters: &mut DemuxerCounters,
        units: &mut Vec<Unit>,
    ) -> bool {
        let standard = self.sets.standard();
        let mut picture = std::mem::take(&mut self.ahead);
        let mut pictures: Vec<(Bytes, Picture)> = Vec::new();
        let mut changed = false;
        make_room(&mut self.room, pes.data.len() + ROOM);
        for unit in annex_b(pes.data) {
            let kind = standard.kind_of(unit);
            if picture.coded && self.is_next(kind, unit) {
                pictures.push((self.room.split().freeze(), std::mem::take(&mut picture)));
            }
            match kind {
                Kind::Delimiter | Kind::Filler => continue,
                Kind::Vps | Kind::Sps | Kind::Pps if !pes.damaged => changed |= self.sets.take(unit),
                _ => {}
            }
            picture.take(standard, unit);
            put_length_prefixed(unit, &mut self.room);
        }
        if pes.damaged {
            self.room.clear();
            counters.damaged += 1;
            let reference = picture.reference || !picture.coded || !pictures.is_empty();
            if damage == Damage::Wait && reference {
                self.waiting = self.waiting.or(Some(arrival));
            }
            return false;
        }
        if picture.coded {
            pictures.push((self.room.split().freeze(), picture));
        } else if self.room.len() <= AHEAD {
            self.ahead = picture;
        } else {
            self.room.clear();
        }
        counters.foreign += u64::from(pictures.is_empty() && self.room.is_empty());
        if changed {
            self.configure();
        }
        for (index, (data, picture)) in pictures.into_iter().enumerate() {
            let random_access = picture.is_random_access(pes.random_access && index == 0);
            let stamps = if index == 0 { self.place(pes, arrival, timeline) } else { self.place_next() };
            if let Some(since) = self.waiting {
                if !random_access && arrival.saturating_sub(since) < WAIT {
                    counters.waiting += 1;
                    continue;
                }
                self.waiting = None;
            }
            match stamps {
                Some(stamps) => units.push(Unit { data, stamps, random_access }),
                None => counters.untimed += 1,
            }
        }
        changed
    }

    /// Whether another picture starts with this unit, after slices of one. Fields are not told apart.
    fn is_next(&self, kind: Kind, unit: &[u8]) -> bool {
        match (self.sets.standard(), kind) {
            (Standard::H264, Kind::Delimiter) => self.sets.sequence().is_some_and(|s| !s.fields),
            (Standard::H265, Kind::Delimiter) => true,
            (Standard::H265, Kind::KeySlice | Kind::Slice) => {
                Slice::parse(Standard::H265, unit).is_some_and(|slice| slice.first)
            }
            _ => false,
        }
    }

    fn place(&mut self, pes: &Pes<'_>, arrival: Nanos, timeline: &mut Timeline) -> Option<Stamps> {
        let Some(pts) = pes.header.pts.map(|pts| pts as i64) else { return self.place_next() };
        let dts = pes.header.dts.map(|dts| dts as i64);
        self.has_decoding |= dts.is_some();
        let back = self.stamp.map_or(0, |last| (last - pts).rem_euclid(PTS_WRAP as i64));
        if !self.has_decoding && self.times.is_none() && (1..REORDERED).contains(&back) {
            self.times = Some(DecodingTimes::new(None));
            self.configure();
        }
        self.stamp = dts.or(Some(pts));
        let mut stamps = match (dts, &mut self.times) {
            (None, Some(times)) => times.push(timeline.place_presented(pes.pid, pts, arrival)),
            _ => timeline.place(pes.pid, pts, dts, arrival),
        };
        if let Some(last) = self.last {
            let step = stamps.dts - last.dts;
            self.step = if (1..TICKS_PER_SECOND).contains(&step) { step } else { self.step };
            stamps.dts = stamps.dts.max(last.dts + 1);
        }
        stamps.pts = stamps.pts.max(stamps.dts);
        self.last = Some(stamps);
        Some(stamps)
    }

    /// A picture without a time stamp: one step behind the one before.
    fn place_next(&mut self) -> Option<Stamps> {
        let last = self.last?;
        let stamps = Stamps { pts: last.pts + self.step, dts: last.dts + self.step };
        self.last = Some(stamps);
        Some(stamps)
    }

    fn configure(&mut self) {
        let sequence = self.sets.sequence();
        let frame = sequence.and_then(|s| s.rate).map(|(count, seconds)| {
            TICKS_PER_SECOND.saturating_mul(seconds.into()) / i64::from(count.max(1))
        });
        if let Some(times) = &mut self.times {
            times.configure(sequence.and_then(|s| s.reorder), frame);
        }
    }
}

/// How long pictures are left out behind a damaged one, where no place to start comes.
const WAIT: Nanos = 2_000_000_000;
/// A picture this much before the one in front of it is out of order; further back, the source started anew.
const REORDERED: i64 = 2 * TICKS_PER_SECOND;
/// Longest that comes in front of a picture in PES packets of its own.
const AHEAD: usize = 64 << 10;
/// Room beyond the bytes of a picture: start codes of three bytes become lengths of four.
const ROOM: usize = 256;

#[cfg(test)]
mod tests;
