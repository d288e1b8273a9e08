//! Time stamps of a source enter as they wrap and jump, times of one timeline leave that only goes on. Never holds a
//! frame, and never moves one track against another unless the source did.

use std::collections::BTreeSet;

use super::{Nanos, TICKS_PER_SECOND, Ticks, TrackId};

/// When a frame is presented and decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    /// When it is presented.
    pub pts: Ticks,
    /// When it is decoded: not after `pts`.
    pub dts: Ticks,
}

/// The timeline of one stream.
///
/// It starts at the first time stamp as it came, and unwraps the counter from there: every stamp is taken to be the one
/// nearest to where the stream is.
///
/// **Jumps.** A track goes on where it was as long as its stamps go back by no more than 0.25 s (2 s where they are in
/// the order of presentation) and forward by no more than 10 s, or stay within 10 s of where the stream should be after
/// the time that passed since. Anything else is a jump: the source started anew. The first track that jumps is put
/// where the stream should be by now, behind its own last frame, and the difference is the offset of the stream from
/// then on. The other tracks keep the old offset for what still comes from before the jump and take the new one over
/// with their own jump, so that all of them move by the same and stay as much apart as they were.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Ticks after which the counter starts again; 0 = never.
    wrap: i64,
    /// What is added to stamps since the last jump.
    offset: Ticks,
    /// The furthest that any track is, and when that arrived.
    latest: Option<(Ticks, Nanos)>,
    tracks: Vec<TrackTime>,
    jumps: u64,
}

#[derive(Debug, Clone)]
struct TrackTime {
    id: TrackId,
    offset: Ticks,
    /// Its last stamp, and when it arrived.
    last: Ticks,
    arrival: Nanos,
    /// Between its last two stamps.
    step: Ticks,
    /// The last decoding time handed out.
    told: Ticks,
}

/// Which of the two times of a frame a stamp is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Decoding,
    Presentation,
}

impl Timeline {
    /// For stamps in units of 1/90 kHz that are counted in `bits` bits: 33 in transport streams, 64 where they were
    /// unwrapped before.
    pub fn new(bits: u32) -> Self {
        let wrap = if bits < 63 { 1 << bits } else { 0 };
        Self { wrap, offset: 0, latest: None, tracks: Vec::new(), jumps: 0 }
    }

    /// The times of a frame whose decoding time the source says, or which is decoded when it is presented (`dts` none).
    /// Decoding times of a track only grow. `arrival` is when the frame came, on a clock that does not step back.
    pub fn place(&mut self, track: TrackId, pts: i64, dts: Option<i64>, arrival: Nanos) -> Stamps {
        let stamp = dts.unwrap_or(pts);
        let mut dts = self.map(track, stamp, arrival, Order::Decoding);
        // Decoded after it is presented, or long before it: one of the two is wrong.
        let ahead = self.near(pts.saturating_sub(stamp), 0);
        let pts = dts + if (0..=AHEAD).contains(&ahead) { ahead } else { 0 };
        if let Some(state) = self.tracks.iter_mut().find(|state| state.id == track) {
            dts = dts.max(state.told.saturating_add(1));
            state.told = dts;
        }
        Stamps { pts: pts.max(dts), dts }
    }

    /// The time of a frame of which the source says only when it is presented, in the order of decoding:
    /// [`DecodingTimes`] makes the rest.
    pub fn place_presented(&mut self, track: TrackId, pts: i64, arrival: Nanos) -> Ticks {
        self.map(track, pts, arrival, Order::Presentation)
    }

    /// Where the stream is at `arrival`; none before the first frame.
    pub fn now(&self, arrival: Nanos) -> Option<Ticks> {
        self.latest.map(|(ticks, at)| ticks + passed(at, arrival))
    }

    /// How much later frames of track `a` arrive than those of `b` with the same time: what a receiver has to hold of
    /// `b` so that both play together. None before both had a frame.
    pub fn skew(&self, a: TrackId, b: TrackId) -> Option<Ticks> {
        let find = |id| self.tracks.iter().find(|track| track.id == id);
        let (a, b) = (find(a)?, find(b)?);
        Some(passed(b.arrival, a.arrival) - passed(a.arrival, b.arrival) - (a.last - b.last))
    }

    /// How often the source started anew.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// A track has gone: its name may come back as something else.
    pub fn forget(&mut self, track: TrackId) {
        self.tracks.retain(|state| state.id != track);
    }

    fn map(&mut self, id: TrackId, stamp: i64, arrival: Nanos, order: Order) -> Ticks {
        let Some((latest, at)) = self.latest else {
            self.latest = Some((stamp, arrival));
            self.tracks.push(TrackTime::new(id, 0, stamp, arrival));
            return stamp;
        };
        let expected = latest + passed(at, arrival);
        let place = |offset: Ticks, around: Ticks| self.near(stamp.wrapping_add(offset), around);
        let is_near =
            |time: Ticks| time.abs_diff(expected) <= AHEAD as u64 || time.abs_diff(latest) <= AHEAD as u64;
        let known = self.tracks.iter().position(|track| track.id == id);
        let own = known.and_then(|index| self.tracks.get(index));

        let back = if order == Order::Decoding { BACK } else { BACK_PRESENTED };
        let by_own = own.map(|track| (track.offset, place(track.offset, track.last))).filter(|&(_, time)| {
            own.is_some_and(|track| {
                let step = time.saturating_sub(track.last);
                step >= -back && (step <= AHEAD || is_near(time))
            })
        });
        let by_stream = || {
            let time = place(self.offset, expected);
            let behind = own.is_some_and(|track| time < track.last - back);
            (is_near(time) && !behind).then_some((self.offset, time))
        };
        let (offset, time, jumped) = match by_own.or_else(by_stream) {
            Some((offset, time)) => (offset, time, false),
            None => {
                let behind_own = own.map_or(expected, |track| track.last + track.step.max(1));
                let time = expected.max(behind_own);
                (time.wrapping_sub(stamp), time, true)
            }
        };
        if jumped {
            self.offset = offset;
            self.jumps += 1;
        }
        match known.and_then(|index| self.tracks.get_mut(index)) {
            Some(track) => track.follow(offset, time, arrival),
            None => {
                // A source that names ever new tracks gets no more than it can have at once.
                if self.tracks.len() >= TRACKS {
                    self.tracks.remove(0);
                }
                self.tracks.push(TrackTime::new(id, offset, time, arrival));
            }
        }
        if time > latest {
            self.latest = Some((time, arrival));
        }
        time
    }

    /// The value that this one may stand for, modulo the wrap, that is nearest to `around`.
    fn near(&self, value: i64, around: Ticks) -> Ticks {
        if self.wrap == 0 {
            return value;
        }
        let ahead = value.wrapping_sub(around).rem_euclid(self.wrap);
        around + if ahead < self.wrap / 2 { ahead } else { ahead - self.wrap }
    }
}

impl TrackTime {
    fn new(id: TrackId, offset: Ticks, last: Ticks, arrival: Nanos) -> Self {
        Self { id, offset, last, arrival, step: 0, told: Ticks::MIN }
    }

    fn follow(&mut self, offset: Ticks, time: Ticks, arrival: Nanos) {
        let step = time.saturating_sub(self.last);
        if (1..=TICKS_PER_SECOND).contains(&step) {
            self.step = step;
        }
        (self.offset, self.last, self.arrival) = (offset, time, arrival);
    }
}

/// Unwraps a counter of one track on its own, in any unit.
#[derive(Debug, Clone, Copy)]
pub struct Unwrap {
    bits: u32,
    last: Option<i64>,
}

impl Unwrap {
    /// For a counter of `bits` bits, 1 to 62: 32 in RTP, RTMP and FLV.
    pub fn new(bits: u32) -> Self {
        Self { bits: bits.clamp(1, 62), last: None }
    }

    /// The value nearest to the one before that this counter may stand for; the first one stays as it is.
    pub fn push(&mut self, counter: u64) -> i64 {
        let wrap = 1i64 << self.bits;
        let counter = (counter & (wrap as u64 - 1)) as i64;
        let value = match self.last {
            None => counter,
            Some(last) => {
                let ahead = counter.wrapping_sub(last).rem_euclid(wrap);
                last + if ahead < wrap / 2 { ahead } else { ahead - wrap }
            }
        };
        self.last = Some(value);
        value
    }
}

/// Makes decoding times for pictures that come in the order of decoding with presentation times only.
///
/// Where at most `depth` pictures come before one in the stream and behind it on the screen, the decoding time of the
/// n-th picture is the presentation time of the one that is (n − depth)-th on the screen: it is known by then, grows
/// with every picture and is never behind the picture's own presentation time. In front of the first ones there are
/// none: they are put one frame apart.
#[derive(Debug, Clone)]
pub struct DecodingTimes {
    depth: usize,
    /// The source told the depth.
    told: bool,
    /// Pictures so far, up to those after which the source is no longer believed.
    count: u8,
    frame: Ticks,
    /// Presentation times that are no decoding times yet, at most `depth` between two pictures.
    waiting: BTreeSet<Ticks>,
    last: Option<Ticks>,
}

impl DecodingTimes {
    /// For a stream whose sequence parameter set tells this depth; none = it does not: pictures are taken to be in
    /// order until one is not, whose presentation then moves behind the decoding of the one before.
    pub fn new(depth: Option<u8>) -> Self {
        Self {
            depth: usize::from(depth.unwrap_or(0).min(DEEPEST)),
            told: depth.is_some(),
            count: 0,
            frame: FRAME,
            waiting: BTreeSet::new(),
            last: None,
        }
    }

    /// A sequence parameter set tells another depth, or the time between pictures.
    pub fn configure(&mut self, depth: Option<u8>, frame: Option<Ticks>) {
        if let Some(depth) = depth {
            self.depth = usize::from(depth.min(DEEPEST));
            self.told = true;
        }
        self.frame = frame.filter(|frame| (1..=TICKS_PER_SECOND).contains(frame)).unwrap_or(self.frame);
    }

    /// The times of the next picture. Its presentation time is changed only if it would be before its decoding time:
    /// the depth that was told is too small, or pictures are missing in front of the first one.
    pub fn push(&mut self, pts: Ticks) -> Stamps {
        self.count = self.count.saturating_add(1);
        let Some(last) = self.last else {
            self.waiting.insert(pts);
            let dts = pts.saturating_sub(self.depth as Ticks * self.frame);
            if self.depth == 0 {
                self.waiting.clear();
            }
            self.last = Some(dts);
            return Stamps { pts, dts };
        };
        if pts <= last {
            // It should have been decoded before: from now on there is room for one more. At the start of what a source
            // told rightly, pictures are missing that were to be shown before the first one.
            if !self.told || self.count >= BELIEVED {
                self.depth = (self.depth + 1).min(DEEPEST.into());
            }
            self.waiting.insert(pts);
            self.drop_surplus();
            self.last = Some(last + 1);
            return Stamps { pts: last + 1, dts: last + 1 };
        }
        self.waiting.insert(pts);
        let dts = if self.waiting.len() > self.depth {
            self.drop_surplus().unwrap_or(pts)
        } else {
            // Pictures before the first one on the screen are missing: in steps up to its time.
            let missing = (self.depth + 1 - self.waiting.len()) as Ticks;
            let first = self.waiting.first().copied().unwrap_or(pts);
            first.saturating_sub(missing * self.frame)
        };
        let dts = dts.max(last + 1).min(pts);
        self.last = Some(dts);
        Stamps { pts, dts }
    }

    /// Takes the earliest of those that wait out until no more than the depth do, and answers the last one taken.
    fn drop_surplus(&mut self) -> Option<Ticks> {
        let mut taken = None;
        while self.waiting.len() > self.depth {
            taken = self.waiting.pop_first();
        }
        taken
    }
}

/// Ticks that pass between two arrivals; 0 when the second is before the first.
fn passed(from: Nanos, to: Nanos) -> Ticks {
    (u128::from(to.saturating_sub(from)) * TICKS_PER_SECOND as u128 / 1_000_000_000) as Ticks
}

/// Further forward, or from where the stream should be, is a jump.
const AHEAD: Ticks = 10 * TICKS_PER_SECOND;
/// Further back is a jump, where stamps only grow: less is jitter of a source that rounds.
const BACK: Ticks = TICKS_PER_SECOND / 4;
/// The same where pictures come in the order of decoding: 16 of them at 8 frames/s.
const BACK_PRESENTED: Ticks = 2 * TICKS_PER_SECOND;
/// Most tracks of a stream.
const TRACKS: usize = 64;
/// Most pictures out of order (H.264, A.3.1: MaxDpbFrames).
const DEEPEST: u8 = 16;
/// Pictures after which one that is out of order proves that the depth told is too small.
const BELIEVED: u8 = 32;
/// Between pictures, while nobody says more: 1/30 s.
const FRAME: Ticks = TICKS_PER_SECOND / 30;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WRAP: i64 = 1 << 33;
    const MS: Nanos = 1_000_000;

    #[test]
    fn a_counter_goes_on_over_its_wrap() {
        let mut unwrap = Unwrap::new(32);
        assert_eq!(unwrap.push(u64::from(u32::MAX) - 1), i64::from(u32::MAX) - 1);
        assert_eq!(unwrap.push(5), (1 << 32) + 5);
        assert_eq!(unwrap.push(u64::from(u32::MAX)), i64::from(u32::MAX));
    }

    #[test]
    fn a_stream_that_starts_before_the_wrap_goes_through_it() {
        let mut timeline = Timeline::new(33);
        let start = WRAP - 10 * TICKS_PER_SECOND;
        for n in 0..1000i64 {
            let (video, audio) = (start + n * 3600, start + n * 3600 - 900);
            let arrival = n as u64 * 40 * MS;
            let stamps = timeline.place(1, (video + 7200) % WRAP, Some(video % WRAP), arrival);
            assert_eq!(stamps, Stamps { pts: video + 7200, dts: video });
            // a track that comes only after the wrap, too
            if n % 2 == 0 || n > 600 {
                let track = if n > 600 { 3 } else { 2 };
                assert_eq!(timeline.place(track, audio % WRAP, None, arrival).pts, audio);
            }
        }
        assert_eq!(timeline.jumps(), 0);
    }

    #[test]
    fn all_tracks_jump_by_the_same() {
        for (jump, arrives) in
            [(90_000_000, true), (-90_000 * 5, true), (-90_000 * 5, false), (3 << 32, false)]
        {
            let mut timeline = Timeline::new(33);
            let mut last = [(0, 0); 2];
            for n in 0..400i64 {
                let arrival = if arrives { n as u64 * 40 * MS } else { 0 };
                // audio comes to the jump three frames after video
                let shift = |n: i64, at: i64| if n >= at { jump } else { 0 };
                let base = 1_000_000;
                let video = (base + n * 3600 + shift(n, 200)).rem_euclid(WRAP);
                let audio = (base + n * 3600 + 1000 + shift(n, 203)).rem_euclid(WRAP);
                let video = timeline.place(1, video, None, arrival).dts;
                let audio = timeline.place(2, audio, None, arrival).dts;
                if n > 0 {
                    assert!(video > last[0].0 && audio > last[1].0, "{n}");
                    assert!(video - last[0].0 < 90_000, "{jump} {n}");
                }
                if !(200..203).contains(&n) {
                    assert_eq!(audio - video, 1000, "{jump} {n}");
                }
                last = [(video, 0), (audio, 0)];
            }
            assert_eq!(timeline.jumps(), 1);
        }
    }

    #[test]
    fn a_pause_is_no_jump_and_a_restart_after_one_keeps_the_time_that_passed() {
        let mut timeline = Timeline::new(33);
        timeline.place(1, 1_000_000, None, 0);
        // an hour in which the clock of the source went on
        let hour = 3600 * TICKS_PER_SECOND;
        assert_eq!(timeline.place(1, 1_000_000 + hour, None, 3_600_000 * MS).dts, 1_000_000 + hour);
        assert_eq!(timeline.jumps(), 0);
        // the same, and it went on where it had stopped
        assert_eq!(timeline.place(1, 1_003_600 + hour, None, 7_200_000 * MS).dts, 1_003_600 + hour);
        // a minute later a new one starts at 0
        let now = timeline.now(7_260_000 * MS);
        assert_eq!(Some(timeline.place(1, 0, None, 7_260_000 * MS).dts), now);
        assert_eq!(timeline.jumps(), 1);
    }

    #[test]
    fn decoding_times_only_grow_and_presentation_is_never_before() {
        let mut timeline = Timeline::new(33);
        assert_eq!(timeline.place(1, 5000, Some(9000), 0), Stamps { pts: 9000, dts: 9000 });
        assert_eq!(timeline.place(1, 5000, Some(8000), 0), Stamps { pts: 9001, dts: 9001 });
        assert_eq!(timeline.place(1, 20_000, Some(12_000), 0), Stamps { pts: 20_000, dts: 12_000 });
    }

    #[test]
    fn skew_is_told() {
        let mut timeline = Timeline::new(33);
        assert_eq!(timeline.skew(1, 2), None);
        timeline.place(1, 90_000, None, 1_000 * MS);
        timeline.place(2, 90_000, None, 1_100 * MS);
        assert_eq!((timeline.skew(2, 1), timeline.skew(1, 2)), (Some(9_000), Some(-9_000)));
    }

    /// Presentation order of a hierarchy of B-pictures in the order of decoding, `levels` deep.
    fn pyramid(levels: u32, groups: usize) -> Vec<Ticks> {
        fn split(from: Ticks, to: Ticks, out: &mut Vec<Ticks>) {
            let middle = (from + to) / 2;
            if middle > from {
                out.push(middle);
                split(from, middle, out);
                split(middle, to, out);
            }
        }
        let mut out = vec![0];
        for group in 0..groups as Ticks {
            let (from, to) = (group << levels, (group + 1) << levels);
            out.push(to);
            split(from, to, &mut out);
        }
        out
    }

    /// How many at most come before one in the stream and behind it on the screen.
    fn depth(order: &[Ticks]) -> u8 {
        let behind = |n: usize| order[..n].iter().filter(|&&before| before > order[n]).count();
        (0..order.len()).map(behind).max().unwrap_or(0) as u8
    }

    proptest! {
        #[test]
        fn every_pyramid_gets_decoding_times(
            levels in 0u32..5, groups in 1usize..8, frame in 1000i64..9000, start in -1_000_000i64..1_000_000,
            told in any::<bool>(),
        ) {
            let order = pyramid(levels, groups);
            let depth = depth(&order);
            prop_assert!(u32::from(depth) == levels);
            let mut times = DecodingTimes::new(told.then_some(depth));
            if told {
                times.configure(None, Some(frame));
            }
            let mut last = Ticks::MIN;
            for (n, picture) in order.iter().enumerate() {
                let pts = start + picture * frame;
                let stamps = times.push(pts);
                prop_assert!(stamps.dts > last && stamps.dts <= stamps.pts, "{n} {stamps:?} {last}");
                if told {
                    prop_assert_eq!(stamps.pts, pts);
                    prop_assert_eq!(stamps.dts, start + (n as Ticks - Ticks::from(depth)) * frame);
                } else if n > 2 << levels {
                    prop_assert_eq!(stamps.pts, pts, "{}", n);
                }
                last = stamps.dts;
            }
        }

        #[test]
        fn any_presentation_times_give_growing_decoding_times(
            times in prop::collection::vec(-50i64..1000, 1..80), depth in prop::option::of(0u8..20),
        ) {
            let mut decoding = DecodingTimes::new(depth);
            let mut last = Ticks::MIN;
            for pts in times {
                let stamps = decoding.push(pts);
                prop_assert!(stamps.dts > last && stamps.dts <= stamps.pts && stamps.pts >= pts);
                prop_assert!(decoding.waiting.len() <= usize::from(DEEPEST) + 1);
                last = stamps.dts;
            }
        }

        #[test]
        fn any_stamps_give_growing_decoding_times(
            stamps in prop::collection::vec((0u16..4, 0i64..WRAP, prop::option::of(0i64..WRAP), 0u64..100_000), 1..200),
        ) {
            let mut timeline = Timeline::new(33);
            let mut last = [Ticks::MIN; 4];
            let mut arrival = 0;
            for (track, pts, dts, later) in stamps {
                arrival += later * MS;
                let stamps = timeline.place(track, pts, dts, arrival);
                prop_assert!(stamps.dts > last[usize::from(track)] && stamps.pts >= stamps.dts);
                last[usize::from(track)] = stamps.dts;
            }
        }

        #[test]
        fn jumps_of_any_size_leave_a_steady_stream(
            jumps in prop::collection::vec((5u64..60, -WRAP..WRAP), 0..8), start in 0i64..WRAP,
        ) {
            let mut timeline = Timeline::new(33);
            let (mut stamp, mut arrival, mut last) = (start, 0, None);
            for (frames, jump) in jumps {
                for _ in 0..frames {
                    let dts = timeline.place(1, stamp, None, arrival).dts;
                    if let Some(last) = last {
                        prop_assert!(dts > last && dts - last <= AHEAD + 3600);
                    }
                    last = Some(dts);
                    stamp = (stamp + 3600).rem_euclid(WRAP);
                    arrival += 40 * MS;
                }
                stamp = (stamp + jump).rem_euclid(WRAP);
            }
        }
    }
}
