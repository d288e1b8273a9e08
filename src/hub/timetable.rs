//! When groups of outputs are walked: arrivals, rings and moments in time enter, the next group that is due leaves.
//! Knows lanes and delay classes, no sockets.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::{Pulse, Schedule, StreamKey};
use crate::media::Nanos;
use crate::net::Doorbell;

/// When the datagrams of a line leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pace {
    /// Its delay class, nanoseconds; 0 = as soon as something arrives.
    pub delay: Nanos,
    /// Datagrams have departures of their own, which the reader says after each walk ([`Timetable::awaits`]).
    pub own: bool,
    /// Lines of this delay take turns, instead of being walked at the same moments.
    pub turns: bool,
}

impl Pace {
    /// At the moments of a delay class.
    pub const fn class(delay: Nanos) -> Self {
        Self { delay, own: false, turns: true }
    }

    /// At each moment of a delay class, whichever line's it is: four times as often.
    pub const fn each_moment(delay: Nanos) -> Self {
        Self { delay: delay / SLOTS as Nanos, own: false, turns: false }
    }
}

/// A group of outputs that is walked as one.
#[derive(Debug)]
pub struct Line {
    /// The stream that it reads.
    pub stream: StreamKey,
    /// The pulse of the lane that it reads.
    pub lane: Arc<Pulse>,
    /// How long its datagrams may wait, and by whose clock they leave.
    pub pace: Pace,
    /// Which of the four moments of its delay class is its own.
    pub slot: u8,
    /// The stream's intake lives on another shard.
    pub distant: bool,
    /// Outputs in it: they spread over the moments.
    weight: usize,
    due: Option<Nanos>,
    /// Walks in a row that found nothing.
    idle: u32,
    /// The lane rings when it is written.
    watching: bool,
    /// Datagrams that were read so far.
    read_to: u64,
}

impl Line {
    fn pending(&self) -> u64 {
        self.lane.head().saturating_sub(self.read_to)
    }
}

/// The lines of one shard, by number.
#[derive(Debug)]
pub struct Timetable {
    lines: Vec<Option<Line>>,
    streams: HashMap<StreamKey, Stream>,
    due: BinaryHeap<Reverse<(Nanos, usize)>>,
    slots: HashMap<(Nanos, u8), usize>,
    bell: Arc<Doorbell>,
}

#[derive(Debug, Default)]
struct Stream {
    lines: Vec<usize>,
    local: bool,
    ticking: bool,
}

impl Timetable {
    /// An empty one; `bell` wakes the shard when another one writes to a lane.
    pub fn new(bell: Arc<Doorbell>) -> Self {
        Self {
            lines: Vec::new(),
            streams: HashMap::new(),
            due: BinaryHeap::new(),
            slots: HashMap::new(),
            bell,
        }
    }

    /// Adds a line that has read up to `read_to`, and answers its number. `local`: the stream's intake lives on
    /// this shard.
    pub fn open(
        &mut self,
        (stream, lane, local): (StreamKey, Arc<Pulse>, bool),
        pace: Pace,
        read_to: u64,
        now: Nanos,
    ) -> usize {
        let slot = if pace.turns { self.quietest(pace.delay) } else { 0 };
        let state = self.streams.entry(stream).or_default();
        state.local = local;
        // A stream of another shard is read at our own moments from the start.
        state.ticking |= !local;
        if !local {
            lane.add_distant_reader();
        }
        let mut line = Line {
            stream,
            lane,
            pace,
            slot,
            distant: !local,
            weight: 0,
            due: None,
            idle: 0,
            watching: false,
            read_to,
        };
        // Without a delay there are no moments: a distant lane has to ring.
        if !local && pace.delay == 0 {
            line.watching = true;
            line.lane.watch(&self.bell);
        }
        // It did not ring for what was written before, so that one without moments is looked at once.
        let due = state.ticking.then(|| next_moment(pace.delay, slot, now));
        let index = match self.lines.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.lines.push(None);
                self.lines.len() - 1
            }
        };
        state.lines.push(index);
        self.lines[index] = Some(line);
        if let Some(due) = due {
            self.schedule_at(index, due);
        }
        index
    }

    /// Removes a line.
    pub fn close(&mut self, index: usize) {
        let Some(line) = self.lines.get_mut(index).and_then(Option::take) else { return };
        self.count(&line, 0);
        if let Some(state) = self.streams.get_mut(&line.stream) {
            state.lines.retain(|&i| i != index);
            if state.lines.is_empty() && !state.local {
                self.streams.remove(&line.stream);
            }
        }
        if line.distant {
            line.lane.remove_distant_reader();
        }
        if line.watching {
            self.unwatch_unless_needed(&line.lane);
        }
    }

    /// Says how many outputs a line has.
    pub fn weigh(&mut self, index: usize, outputs: usize) {
        let Some(mut line) = self.lines.get_mut(index).and_then(Option::take) else { return };
        self.count(&line, outputs);
        line.weight = outputs;
        self.lines[index] = Some(line);
    }

    /// Gives a line that grew the moment at which the fewest other outputs leave.
    pub fn spread(&mut self, index: usize) {
        let Some(mut line) = self.lines.get_mut(index).and_then(Option::take) else { return };
        let weight = std::mem::take(&mut line.weight);
        let booked = self.slots.entry((line.pace.delay, line.slot)).or_default();
        *booked = booked.saturating_sub(weight);
        if line.pace.turns {
            line.slot = self.quietest(line.pace.delay);
        }
        self.count(&line, weight);
        line.weight = weight;
        self.lines[index] = Some(line);
    }

    /// The line of that number.
    pub fn line(&self, index: usize) -> Option<&Line> {
        self.lines.get(index)?.as_ref()
    }

    /// A stream got new datagrams; `hurry`: as a burst that is over.
    pub fn arrived(&mut self, stream: StreamKey, hurry: bool, now: Nanos) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let lines = std::mem::take(&mut state.lines);
        for &index in &lines {
            let Some(line) = self.line(index) else { continue };
            let due = if hurry || line.pace.delay == 0 || line.pace.own || line.pending() >= FULL {
                now
            } else {
                next_moment(line.pace.delay, line.slot, now)
            };
            self.schedule_at(index, due);
        }
        if let Some(state) = self.streams.get_mut(&stream) {
            state.lines = lines;
        }
    }

    /// Another shard rang.
    pub fn rang(&mut self, now: Nanos) {
        for index in 0..self.lines.len() {
            let Some(line) = &mut self.lines[index] else { continue };
            if !line.watching || line.pending() == 0 {
                continue;
            }
            if line.pace.delay > 0 {
                line.watching = false;
                line.idle = 0;
                let lane = Arc::clone(&line.lane);
                self.unwatch_unless_needed(&lane);
            }
            self.schedule_at(index, now);
        }
    }

    /// When the next line is due.
    pub fn next_due(&mut self) -> Option<Nanos> {
        while let Some(&Reverse((due, index))) = self.due.peek() {
            if self.line(index).is_some_and(|line| line.due == Some(due)) {
                return Some(due);
            }
            self.due.pop();
        }
        None
    }

    /// Takes a line that is due; it is to be walked and then given to [`Timetable::walked`].
    pub fn take_due(&mut self, now: Nanos) -> Option<usize> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse((_, index)) = self.due.pop()?;
        if let Some(line) = &mut self.lines[index] {
            line.due = None;
        }
        Some(index)
    }

    /// Books a walk that read up to `read_to`, and decides when the line is walked again.
    pub fn walked(&mut self, index: usize, read_to: u64, now: Nanos) {
        let Some(line) = self.lines.get_mut(index).and_then(Option::as_mut) else { return };
        // Whatever it was due for is done.
        line.due = None;
        line.idle = if line.read_to == read_to { line.idle + 1 } else { 0 };
        line.read_to = read_to;
        let ticking = self.streams.get(&line.stream).is_some_and(|s| s.ticking);
        let next = if line.pending() > 0 {
            Some(now)
        } else if !ticking || line.pace.delay == 0 {
            None
        } else if line.distant && line.idle > IDLE_WALKS {
            // Nothing came for long: the writer shall ring. It does not ring for what it just wrote.
            line.watching = true;
            line.lane.watch(&self.bell);
            (line.pending() > 0).then_some(now)
        } else {
            Some(next_moment(line.pace.delay, line.slot, now))
        };
        if let Some(next) = next {
            self.schedule_at(index, next);
        }
    }

    /// Books a walk of a line with departures of its own: it read up to `read_to`, and wants to be walked at
    /// `departure`, or when something arrives.
    pub fn awaits(&mut self, index: usize, read_to: u64, departure: Option<Nanos>, now: Nanos) {
        let Some(line) = self.lines.get_mut(index).and_then(Option::as_mut) else { return };
        line.due = None;
        line.read_to = read_to;
        let ticking = self.streams.get(&line.stream).is_some_and(|s| s.ticking);
        if let Some(next) = departure.or_else(|| ticking.then_some(now + OWN_POLL)) {
            self.schedule_at(index, next);
        }
    }

    /// Has a line walked at `due`, if not before.
    pub fn schedule_at(&mut self, index: usize, due: Nanos) {
        if let Some(line) = self.lines.get_mut(index).and_then(Option::as_mut)
            && line.due.is_none_or(|was| was > due)
        {
            line.due = Some(due);
            self.due.push(Reverse((due, index)));
        }
    }

    /// How the lines of a stream want it to be polled.
    pub fn schedule(&self, stream: StreamKey) -> Schedule {
        let Some(state) = self.streams.get(&stream) else { return Schedule::default() };
        let mut moments: Vec<(Nanos, u8)> = Vec::new();
        let mut immediate = false;
        for line in state.lines.iter().filter_map(|&i| self.line(i)) {
            let Pace { delay, own, .. } = line.pace;
            immediate |= delay == 0 || own;
            if delay > 0 && !moments.contains(&(delay, line.slot)) {
                moments.push((delay, line.slot));
            }
        }
        let ticks = moments.iter().map(|(delay, _)| 1_000_000_000 / delay).sum::<Nanos>();
        Schedule { immediate, ticks_per_second: ticks as u32 }
    }

    /// Whether the intake of a stream is polled at the lines' own moments or when something arrives.
    pub fn set_ticking(&mut self, stream: StreamKey, ticking: bool, now: Nanos) {
        let state = self.streams.entry(stream).or_default();
        state.ticking = ticking;
        state.local = true;
        if !ticking {
            if state.lines.is_empty() {
                self.streams.remove(&stream);
            }
            return;
        }
        for index in state.lines.clone() {
            let Some(line) = self.line(index) else { continue };
            let due = next_moment(line.pace.delay, line.slot, now);
            self.schedule_at(index, due);
        }
    }

    /// The moment of a delay class at which the fewest outputs leave.
    fn quietest(&self, delay: Nanos) -> u8 {
        (0..SLOTS).min_by_key(|&slot| self.slots.get(&(delay, slot)).copied().unwrap_or(0)).unwrap_or(0)
    }

    /// Outputs that leave at a moment of a delay class.
    #[cfg(test)]
    pub(crate) fn outputs_at(&self, delay: Nanos, slot: u8) -> usize {
        self.slots.get(&(delay, slot)).copied().unwrap_or(0)
    }

    fn count(&mut self, line: &Line, outputs: usize) {
        let slot = self.slots.entry((line.pace.delay, line.slot)).or_default();
        *slot = (*slot + outputs).saturating_sub(line.weight);
    }

    /// A lane has one bell for all lines of this shard.
    fn unwatch_unless_needed(&self, lane: &Arc<Pulse>) {
        if !self.lines.iter().flatten().any(|l| l.watching && Arc::ptr_eq(&l.lane, lane)) {
            lane.unwatch(&self.bell);
        }
    }
}

/// The next moment of a delay class after `now`: a quarter of D apart for the four slots, the same for all
/// streams, so that one wake of the thread serves many.
fn next_moment(delay: Nanos, slot: u8, now: Nanos) -> Nanos {
    if delay == 0 {
        return now;
    }
    let offset = delay / Nanos::from(SLOTS) * Nanos::from(slot);
    (now.saturating_sub(offset) / delay + 1) * delay + offset
}

const SLOTS: u8 = 4;
/// Waiting datagrams at which a line is walked before its moment: GSO gains little beyond.
const FULL: u64 = 8;
/// Walks that found nothing after which a distant lane has to ring.
const IDLE_WALKS: u32 = 64;
/// How often a line with departures of its own looks for what is new where nothing says so.
const OWN_POLL: Nanos = 5_000_000;

#[cfg(test)]
mod tests {
    use super::super::{Bounds, Lane};
    use super::*;

    const MS: Nanos = 1_000_000;
    const D: Nanos = 10 * MS;

    fn table() -> Timetable {
        Timetable::new(Arc::new(Doorbell::new().unwrap()))
    }

    fn write(writer: &mut super::super::LaneWriter, count: usize, now: Nanos) {
        for _ in 0..count {
            writer.stage(&[0x47; 188], now, None);
        }
        assert!(writer.commit(now));
    }

    #[test]
    fn what_arrives_waits_for_the_lines_moment_and_a_burst_does_not() {
        let (lane, mut writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        table.set_ticking(1, false, 0);
        let line = table.open((1, Arc::clone(lane.pulse()), true), Pace::class(D), 0, 0);
        assert_eq!(table.next_due(), None);
        write(&mut writer, 1, MS);
        table.arrived(1, false, MS);
        assert_eq!(table.next_due(), Some(D));
        table.arrived(1, true, 2 * MS);
        assert_eq!((table.take_due(MS), table.take_due(2 * MS)), (None, Some(line)));
        table.walked(line, 1, 2 * MS);
        // Nothing waits, and the stream rings when there is more.
        assert_eq!(table.next_due(), None);
    }

    #[test]
    fn eight_that_wait_are_enough() {
        let (lane, mut writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        let line = table.open((1, Arc::clone(lane.pulse()), true), Pace::class(40 * MS), 0, 0);
        write(&mut writer, FULL as usize, MS);
        table.arrived(1, false, MS);
        assert_eq!(table.take_due(MS), Some(line));
    }

    #[test]
    fn lines_of_one_delay_class_take_turns() {
        let (lane, _writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        table.set_ticking(1, true, 0);
        let mut due = Vec::new();
        for _ in 0..4 {
            let line = table.open((1, Arc::clone(lane.pulse()), true), Pace::class(D), 0, 0);
            table.weigh(line, 100);
            due.push(table.line(line).unwrap().due.unwrap() % D);
        }
        due.sort_unstable();
        assert_eq!(due, [0, D / 4, D / 2, 3 * D / 4]);
        // An emptied moment is the next one's.
        table.close(2);
        let line = table.open((1, Arc::clone(lane.pulse()), true), Pace::class(D), 0, 0);
        assert_eq!((line, table.line(line).unwrap().due.unwrap() % D), (2, D / 2));
    }

    #[test]
    fn a_line_of_each_moment_adds_none() {
        let (lane, _writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        table.set_ticking(1, true, 0);
        let lines: Vec<usize> = (0..4)
            .map(|_| {
                let line = table.open((1, Arc::clone(lane.pulse()), true), Pace::class(D), 0, 0);
                table.weigh(line, 1);
                line
            })
            .collect();
        let rate = table.schedule(1).ticks_per_second;
        let each: Vec<usize> = (0..2)
            .map(|_| table.open((1, Arc::clone(lane.pulse()), true), Pace::each_moment(D), 0, 0))
            .collect();
        let mut walks = vec![0; 6];
        while let Some(now) = table.next_due().filter(|due| *due < 10 * D) {
            assert_eq!(now % (D / 4), 0, "no wake of its own");
            while let Some(line) = table.take_due(now) {
                walks[line] += 1;
                table.walked(line, 0, now);
            }
        }
        assert!(each.iter().all(|&line| walks[line] == 39), "{walks:?}");
        assert!(lines.iter().all(|&line| (9..=10).contains(&walks[line])), "{walks:?}");
        assert_eq!(rate, 400);
    }

    #[test]
    fn a_line_that_grew_finds_a_quieter_moment() {
        let (lane, _writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        let [small, large, grown] = [5, 100, 5].map(|outputs| {
            let line = table.open((1, Arc::clone(lane.pulse()), true), Pace::class(D), 0, 0);
            table.weigh(line, outputs);
            line
        });
        // All moments but one are full: it goes there.
        let full = table.open((1, Arc::clone(lane.pulse()), true), Pace::class(D), 0, 0);
        table.weigh(full, 100);
        table.weigh(small, 50);
        table.weigh(grown, 60);
        table.spread(grown);
        let slot = |line| table.line(line).unwrap().slot;
        assert_eq!([small, large, grown, full].map(slot), [0, 1, 2, 3], "its own is the quietest without it");
        table.weigh(small, 0);
        table.spread(grown);
        assert_eq!(table.line(grown).unwrap().slot, 0);
        assert_eq!([0, 1, 2, 3].map(|slot| table.outputs_at(D, slot)), [60, 100, 0, 100]);
    }

    #[test]
    fn a_line_with_departures_of_its_own_says_when_it_is_walked() {
        let (lane, mut writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        let line =
            table.open((1, Arc::clone(lane.pulse()), true), Pace { own: true, ..Pace::class(D) }, 0, 0);
        assert!(table.schedule(1).immediate);
        write(&mut writer, 2, MS);
        table.arrived(1, false, MS);
        assert_eq!(table.take_due(MS), Some(line));
        // What it read leaves later: that the lane has no more for it says nothing.
        table.awaits(line, 2, Some(3 * MS), MS);
        assert_eq!(table.next_due(), Some(3 * MS));
        assert_eq!(table.take_due(3 * MS), Some(line));
        table.awaits(line, 2, None, 3 * MS);
        assert_eq!(table.next_due(), None, "its stream says when there is more");
        table.set_ticking(1, true, 3 * MS);
        table.awaits(line, 2, None, 4 * MS);
        assert_eq!(table.next_due(), Some(4 * MS + OWN_POLL));
    }

    #[test]
    fn what_was_written_before_a_bell_was_hung_is_looked_at() {
        let (lane, mut writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        let cursor = lane.live();
        write(&mut writer, 1, MS);
        let line = table.open((1, Arc::clone(lane.pulse()), false), Pace::class(0), cursor.0, MS);
        assert_eq!(table.take_due(MS), Some(line));
    }

    #[test]
    fn a_line_that_is_closed_is_never_due() {
        let (lane, _writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        let line = table.open((1, Arc::clone(lane.pulse()), false), Pace::class(D), 0, 0);
        assert!(table.next_due().is_some());
        table.close(line);
        assert_eq!((table.next_due(), table.take_due(Nanos::MAX)), (None, None));
    }

    #[test]
    fn a_distant_lane_that_is_silent_rings_instead_of_being_looked_at() {
        let (lane, mut writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        let line = table.open((1, Arc::clone(lane.pulse()), false), Pace::class(D), 0, 0);
        let mut now = 0;
        while let Some(due) = table.next_due() {
            now = due;
            assert_eq!(table.take_due(now), Some(line));
            table.walked(line, 0, now);
            assert!(now < 2 * u64::from(IDLE_WALKS) * D, "it is looked at for ever");
        }
        assert!(lane.pulse().is_watched());
        write(&mut writer, 1, now);
        table.rang(now);
        assert!(!lane.pulse().is_watched());
        assert_eq!(table.take_due(now), Some(line));
        table.walked(line, 1, now);
        assert!(table.next_due().is_some(), "it is looked at again");
        table.close(line);
        assert!(!lane.pulse().has_distant_readers());
    }

    #[test]
    fn what_a_walk_left_is_due_at_once() {
        let (lane, mut writer) = <Lane>::new(Bounds::default());
        let mut table = table();
        let line = table.open((1, Arc::clone(lane.pulse()), true), Pace::class(D), 0, 0);
        write(&mut writer, 9, MS);
        table.arrived(1, false, MS);
        assert_eq!(table.take_due(MS), Some(line));
        table.walked(line, 5, MS);
        assert_eq!(table.next_due(), Some(MS));
    }
}
