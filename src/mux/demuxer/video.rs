//! PES packets of H.264 or H.265 enter, pictures with lengths in front of their NAL units leave. Never joins or splits
//! a picture that its multiplexer put into one PES packet.

use bytes::BytesMut;

use super::{Damage, DemuxerCounters, Unit};
use crate::media::{Codec, DecodingTimes, Nanos, Setup, Stamps, TICKS_PER_SECOND, Ticks, Timeline};
use crate::wire::h26x::{Kind, ParameterSets, Picture, Standard, annex_b, put_length_prefixed};
use crate::wire::ts::demux::Pes;
use crate::wire::ts::pes::PTS_WRAP;

/// One stream of pictures.
#[derive(Debug)]
pub(super) struct Video {
    sets: ParameterSets,
    /// Where frames are put together; each takes its part of it along.
    room: BytesMut,
    /// Makes decoding times, once a picture without one was to be presented before the one in front of it.
    times: Option<DecodingTimes>,
    /// The last stamp of decoding as it came, and whether any picture had one of its own.
    stamp: Option<i64>,
    has_decoding: bool,
    last: Option<Ticks>,
    /// Since when pictures are left out because one before them was damaged.
    waiting: Option<Nanos>,
}

impl Video {
    pub(super) fn new(standard: Standard) -> Self {
        Self {
            sets: ParameterSets::new(standard),
            room: BytesMut::new(),
            times: None,
            stamp: None,
            has_decoding: false,
            last: None,
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
        let mut picture = Picture::default();
        let mut changed = false;
        self.room.reserve(pes.data.len() + ROOM);
        for unit in annex_b(pes.data) {
            match standard.kind_of(unit) {
                Kind::Delimiter | Kind::Filler => continue,
                Kind::Vps | Kind::Sps | Kind::Pps if !pes.damaged => changed |= self.sets.take(unit),
                _ => {}
            }
            picture.take(standard, unit);
            put_length_prefixed(unit, &mut self.room);
        }
        let data = self.room.split().freeze();
        if data.is_empty() {
            counters.foreign += u64::from(!pes.damaged);
        }
        if pes.damaged {
            counters.damaged += 1;
            if damage == Damage::Wait && (picture.reference || !picture.coded) {
                self.waiting = self.waiting.or(Some(arrival));
            }
            return false;
        }
        if data.is_empty() {
            return changed;
        }
        let random_access = picture.is_random_access(pes.random_access);
        if let Some(since) = self.waiting {
            if random_access || arrival.saturating_sub(since) >= WAIT {
                self.waiting = None;
            } else {
                counters.waiting += 1;
                return changed;
            }
        }
        if changed {
            self.configure();
        }
        let Some(stamps) = self.place(pes, arrival, timeline) else {
            counters.untimed += 1;
            return changed;
        };
        units.push(Unit { data, stamps, random_access });
        changed
    }

    fn place(&mut self, pes: &Pes<'_>, arrival: Nanos, timeline: &mut Timeline) -> Option<Stamps> {
        let Some(pts) = pes.header.pts.map(|pts| pts as i64) else {
            // A second field or a part of a picture in a PES packet of its own: right behind the one before.
            let last = self.last? + 1;
            self.last = Some(last);
            return Some(Stamps { pts: last, dts: last });
        };
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
        stamps.dts = self.last.map_or(stamps.dts, |last| stamps.dts.max(last + 1));
        stamps.pts = stamps.pts.max(stamps.dts);
        self.last = Some(stamps.dts);
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
/// Room beyond the bytes of a picture: start codes of three bytes become lengths of four.
const ROOM: usize = 256;
