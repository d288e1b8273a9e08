//! When groups of outputs are walked: arrivals, rings and moments in time enter, the next group that is due leaves.
//! Knows lanes and delay classes, no sockets.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::{Lane, Schedule, StreamKey};
use crate::media::Nanos;
use crate::net::Doorbell;

/// A group of outputs that is walked as one.
#[derive(Debug)]
pub struct Line {
    /// The stream that it reads.
    pub stream: StreamKey,
    /// The lane that it reads.
    pub lane: Arc<Lane>,
    /// Its delay class, nanoseconds; 0 = as soon as something arrives.
    pub delay: Nanos,
    /// Which of the four moments of its delay class is its own.
    slot: u8,
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

/// The lines of one shard's sessions, by number.
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
        (stream, lane, local): (StreamKey, Arc<Lane>, bool),
        delay: Nanos,
        read_to: u64,
        now: Nanos,
    ) -> usize {
        let slot = (0..SLOTS).min_by_key(|&s| self.slots.get(&(delay, s)).copied().unwrap_or(0)).unwrap_or(0);
        let state = self.streams.entry(stream).or_default();
        state.local = local;
        // A stream of another shard is read at our own moments from the start.
        state.ticking |= !local;
        if !local {
            lane.add_distant_reader();
        }
        let mut line =
            Line { stream, lane, delay, slot, weight: 0, due: None, idle: 0, watching: false, read_to };
        // Without a delay there are no moments: a distant lane has to ring.
        if !local && delay == 0 {
            line.watching = true;
            line.lane.watch(&self.bell);
        }
        let due = (state.ticking && delay > 0).then(|| next_moment(delay, slot, now));
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
            if !state.local {
                line.lane.remove_distant_reader();
            }
            if state.lines.is_empty() && !state.local {
                self.streams.remove(&line.stream);
            }
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
            let due = if hurry || line.delay == 0 || line.pending() >= FULL {
                now
            } else {
                next_moment(line.delay, line.slot, now)
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
            if line.delay > 0 {
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
        line.idle = if line.read_to == read_to { line.idle + 1 } else { 0 };
        line.read_to = read_to;
        let (local, ticking) = self.streams.get(&line.stream).map_or((true, false), |s| (s.local, s.ticking));
        let next = if line.pending() > 0 {
            Some(now)
        } else if !ticking || line.delay == 0 {
            None
        } else if !local && line.idle > IDLE_WALKS {
            // Nothing came for long: the writer shall ring. It does not ring for what it just wrote.
            line.watching = true;
            line.lane.watch(&self.bell);
            (line.pending() > 0).then_some(now)
        } else {
            Some(next_moment(line.delay, line.slot, now))
        };
        if let Some(next) = next {
            self.schedule_at(index, next);
        }
    }

    /// How the lines of a stream want it to be polled.
    pub fn schedule(&self, stream: StreamKey) -> Schedule {
        let Some(state) = self.streams.get(&stream) else { return Schedule::default() };
        let mut moments: Vec<(Nanos, u8)> = Vec::new();
        let mut immediate = false;
        for line in state.lines.iter().filter_map(|&i| self.line(i)) {
            immediate |= line.delay == 0;
            if line.delay > 0 && !moments.contains(&(line.delay, line.slot)) {
                moments.push((line.delay, line.slot));
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
            let due = next_moment(line.delay, line.slot, now);
            self.schedule_at(index, due);
        }
    }

    fn schedule_at(&mut self, index: usize, due: Nanos) {
        if let Some(line) = self.lines.get_mut(index).and_then(Option::as_mut)
            && line.due.is_none_or(|was| was > due)
        {
            line.due = Some(due);
            self.due.push(Reverse((due, index)));
        }
    }

    fn count(&mut self, line: &Line, outputs: usize) {
        let slot = self.slots.entry((line.delay, line.slot)).or_default();
        *slot = (*slot + outputs).saturating_sub(line.weight);
    }

    /// A lane has one bell for all lines of this shard.
    fn unwatch_unless_needed(&self, lane: &Arc<Lane>) {
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

#[cfg(test)]
mod tests {
    use super::super::Bounds;
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
        let (lane, mut writer) = Lane::new(Bounds::default());
        let mut table = table();
        table.set_ticking(1, false, 0);
        let line = table.open((1, Arc::clone(&lane), true), D, 0, 0);
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
        let (lane, mut writer) = Lane::new(Bounds::default());
        let mut table = table();
        let line = table.open((1, Arc::clone(&lane), true), 40 * MS, 0, 0);
        write(&mut writer, FULL as usize, MS);
        table.arrived(1, false, MS);
        assert_eq!(table.take_due(MS), Some(line));
    }

    #[test]
    fn lines_of_one_delay_class_take_turns() {
        let (lane, _writer) = Lane::new(Bounds::default());
        let mut table = table();
        table.set_ticking(1, true, 0);
        let mut due = Vec::new();
        for _ in 0..4 {
            let line = table.open((1, Arc::clone(&lane), true), D, 0, 0);
            table.weigh(line, 100);
            due.push(table.line(line).unwrap().due.unwrap() % D);
        }
        due.sort_unstable();
        assert_eq!(due, [0, D / 4, D / 2, 3 * D / 4]);
        // An emptied moment is the next one's.
        table.close(2);
        let line = table.open((1, lane, true), D, 0, 0);
        assert_eq!((line, table.line(line).unwrap().due.unwrap() % D), (2, D / 2));
    }

    #[test]
    fn a_line_that_is_closed_is_never_due() {
        let (lane, _writer) = Lane::new(Bounds::default());
        let mut table = table();
        let line = table.open((1, lane, false), D, 0, 0);
        assert!(table.next_due().is_some());
        table.close(line);
        assert_eq!((table.next_due(), table.take_due(Nanos::MAX)), (None, None));
    }

    #[test]
    fn a_distant_lane_that_is_silent_rings_instead_of_being_looked_at() {
        let (lane, mut writer) = Lane::new(Bounds::default());
        let mut table = table();
        let line = table.open((1, Arc::clone(&lane), false), D, 0, 0);
        let mut now = 0;
        while let Some(due) = table.next_due() {
            now = due;
            assert_eq!(table.take_due(now), Some(line));
            table.walked(line, 0, now);
            assert!(now < 2 * u64::from(IDLE_WALKS) * D, "it is looked at for ever");
        }
        assert!(lane.is_watched());
        write(&mut writer, 1, now);
        table.rang(now);
        assert!(!lane.is_watched());
        assert_eq!(table.take_due(now), Some(line));
        table.walked(line, 1, now);
        assert!(table.next_due().is_some(), "it is looked at again");
        table.close(line);
        assert!(!lane.has_distant_readers());
    }

    #[test]
    fn what_a_walk_left_is_due_at_once() {
        let (lane, mut writer) = Lane::new(Bounds::default());
        let mut table = table();
        let line = table.open((1, lane, true), D, 0, 0);
        write(&mut writer, 9, MS);
        table.arrived(1, false, MS);
        assert_eq!(table.take_due(MS), Some(line));
        table.walked(line, 5, MS);
        assert_eq!(table.next_due(), Some(MS));
    }
}
