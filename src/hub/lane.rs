//! One representation of a stream in memory: items enter once, many cursors read them. Bounded in bytes and time; the
//! writer never waits for a reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::RwLock;

use super::pulse::Pulse;
use crate::media::{Datagram, Frame, Message, Nanos};

/// How much a lane keeps: whichever bound is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of payload.
    pub bytes: usize,
    /// Age of the oldest item.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 32 << 20, age: Duration::from_secs(8) }
    }
}

/// What a lane holds: cheap to clone, because its bytes are shared.
pub trait Item: Clone + Send + Sync + 'static {
    /// Bytes of payload that it keeps in memory.
    fn length(&self) -> usize;

    /// When it arrived.
    fn arrival(&self) -> Nanos;
}

/// A bounded ring of items that many readers share. Positions count items from 0 and never wrap.
#[derive(Debug)]
pub struct Lane<T = Datagram> {
    ring: RwLock<Ring<T>>,
    pulse: Arc<Pulse>,
}

/// The only one who writes to a lane.
#[derive(Debug)]
pub struct LaneWriter<T = Datagram> {
    lane: Arc<Lane<T>>,
    bounds: Bounds,
    /// Where payload is copied to; datagrams are refcounted slices of it.
    block: BytesMut,
    /// Not yet visible to readers.
    staged: Vec<T>,
    /// Random access points among the staged.
    staged_access: Vec<u64>,
    next: u64,
}

/// A reader's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// What one read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Read {
    /// Items handed out.
    pub taken: usize,
    /// Items that had left the ring before this reader came: it went on at a random access point.
    pub skipped: u64,
}

impl<T: Item> Lane<T> {
    /// An empty lane and its writer.
    pub fn new(bounds: Bounds) -> (Arc<Self>, LaneWriter<T>) {
        let lane = Arc::new(Self { ring: RwLock::new(Ring::default()), pulse: Arc::default() });
        let writer = LaneWriter {
            lane: Arc::clone(&lane),
            bounds,
            block: BytesMut::new(),
            staged: Vec::new(),
            staged_access: Vec::new(),
            next: 0,
        };
        (lane, writer)
    }

    /// How far it is written, and who wants to know.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// The position that the next item will have.
    pub fn head(&self) -> u64 {
        self.pulse.head()
    }

    /// A cursor that sees only what comes from now on.
    pub fn live(&self) -> Cursor {
        Cursor(self.head())
    }

    /// The newest random access point that is still in the ring.
    pub fn random_access(&self) -> Option<Cursor> {
        let ring = self.ring.read();
        ring.access.back().map(|&position| Cursor(position))
    }

    /// Appends up to `most` items from the cursor on to `out`, as long as `take` agrees, and moves the
    /// cursor behind them. A reader that fell out of the ring goes on at the newest random access point, or at
    /// the head where there is none.
    pub fn read(
        &self,
        cursor: &mut Cursor,
        most: usize,
        out: &mut Vec<T>,
        mut take: impl FnMut(&T) -> bool,
    ) -> Read {
        let mut read = Read::default();
        if cursor.0 >= self.head() {
            return read;
        }
        let ring = self.ring.read();
        if cursor.0 < ring.first {
            let to = ring.access.back().copied().unwrap_or_else(|| ring.end());
            read.skipped = to - cursor.0;
            cursor.0 = to;
        }
        for item in ring.items.range((cursor.0 - ring.first) as usize..).take(most) {
            if !take(item) {
                break;
            }
            out.push(item.clone());
            read.taken += 1;
        }
        cursor.0 += read.taken as u64;
        read
    }

    /// The item at a position, if it is still in the ring (and was written).
    pub fn at(&self, position: u64) -> Option<T> {
        let ring = self.ring.read();
        let index = position.checked_sub(ring.first)?;
        ring.items.get(usize::try_from(index).ok()?).cloned()
    }

    /// The position of the oldest item that is still in the ring.
    pub fn tail(&self) -> u64 {
        self.ring.read().first
    }

    /// Counts a reader on another shard than the writer's: its stream has to be polled often enough for it.
    pub fn add_distant_reader(&self) {
        self.pulse.add_distant_reader();
    }

    /// Takes one back.
    pub fn remove_distant_reader(&self) {
        self.pulse.remove_distant_reader();
    }

    /// Bytes held now.
    pub fn held_bytes(&self) -> usize {
        self.ring.read().bytes
    }
}

impl<T: Item> LaneWriter<T> {
    /// The lane that this writes to.
    pub fn lane(&self) -> &Arc<Lane<T>> {
        &self.lane
    }

    /// The position that the next staged item gets.
    pub fn next_position(&self) -> u64 {
        self.next
    }

    /// Puts an item behind the others. Readers see it after `commit`.
    pub fn push(&mut self, item: T) {
        self.staged.push(item);
        self.next += 1;
    }

    /// Marks a position as one where a decoder can start.
    pub fn mark_random_access(&mut self, position: u64) {
        self.staged_access.push(position);
    }

    /// Shows what was staged to all readers. Answers `false` when a reader holds the ring at this very moment:
    /// the writer does not wait, and the caller tries again at its next turn.
    pub fn commit(&mut self, now: Nanos) -> bool {
        if self.staged.is_empty() && self.staged_access.is_empty() {
            return true;
        }
        let mut ring = match self.lane.ring.try_write() {
            Some(ring) => ring,
            // Readers hold it for less than a microsecond, unless the scheduler stops one right there.
            None if self.staged.len() < STAGED_MOST => return false,
            None => self.lane.ring.write(),
        };
        for item in self.staged.drain(..) {
            ring.bytes += item.length();
            ring.items.push_back(item);
        }
        ring.access.extend(self.staged_access.drain(..));
        ring.evict(self.bounds, now);
        drop(ring);
        self.lane.pulse.beat(self.next);
        true
    }
}

impl LaneWriter {
    /// Copies a datagram into the ring's current block. Readers see it after `commit`.
    pub fn stage(&mut self, payload: &[u8], arrival: Nanos, pcr: Option<u64>) {
        if self.block.capacity() - self.block.len() < payload.len() {
            self.block = BytesMut::with_capacity(BLOCK.max(payload.len()));
        }
        self.block.extend_from_slice(payload);
        let bytes = self.block.split().freeze();
        self.push(Datagram { bytes, arrival, pcr });
    }
}

impl Item for Datagram {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn arrival(&self) -> Nanos {
        self.arrival
    }
}

impl Item for Frame {
    fn length(&self) -> usize {
        self.data.len()
    }

    fn arrival(&self) -> Nanos {
        self.arrival
    }
}

impl Item for Message {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn arrival(&self) -> Nanos {
        self.arrival
    }
}

#[derive(Debug)]
struct Ring<T> {
    /// Position of the oldest item.
    first: u64,
    items: VecDeque<T>,
    access: VecDeque<u64>,
    bytes: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { first: 0, items: VecDeque::new(), access: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Item> Ring<T> {
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn evict(&mut self, bounds: Bounds, now: Nanos) {
        let oldest = now.saturating_sub(bounds.age.as_nanos() as u64);
        while let Some(item) = self.items.front() {
            if self.bytes <= bounds.bytes && item.arrival() >= oldest {
                break;
            }
            self.bytes -= item.length();
            self.items.pop_front();
            self.first += 1;
        }
        while self.access.front().is_some_and(|&position| position < self.first) {
            self.access.pop_front();
        }
    }
}

/// 64 KiB: 49 full datagrams, so that runs of one block are long and an idle stream holds little.
const BLOCK: usize = 64 << 10;
/// Items that wait for a reader to let go before the writer waits for it after all.
const STAGED_MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn fill(writer: &mut LaneWriter, from: u64, count: u64, now: Nanos) {
        for i in from..from + count {
            writer.stage(&[i as u8; 188], now, None);
        }
        assert!(writer.commit(now));
    }

    fn read(lane: &Lane, cursor: &mut Cursor, most: usize) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        let read = lane.read(cursor, most, &mut out, |_| true);
        (out.iter().map(|d| d.bytes[0]).collect(), read.skipped)
    }

    #[test]
    fn readers_go_at_their_own_pace() {
        let (lane, mut writer) = <Lane>::new(Bounds::default());
        let (mut fast, mut slow) = (lane.live(), lane.live());
        fill(&mut writer, 0, 3, 0);
        assert_eq!(read(&lane, &mut fast, 10), (vec![0, 1, 2], 0));
        fill(&mut writer, 3, 2, 0);
        assert_eq!(read(&lane, &mut slow, 4), (vec![0, 1, 2, 3], 0));
        assert_eq!(read(&lane, &mut fast, 10), (vec![3, 4], 0));
        assert_eq!(read(&lane, &mut slow, 4), (vec![4], 0));
        assert_eq!(read(&lane, &mut slow, 4), (vec![], 0));
    }

    #[test]
    fn a_lost_reader_goes_on_at_the_newest_random_access_point() {
        let (lane, mut writer) = <Lane>::new(Bounds { bytes: 188 * 10, age: Duration::from_secs(8) });
        let mut cursor = lane.live();
        fill(&mut writer, 0, 12, 0);
        writer.mark_random_access(15);
        fill(&mut writer, 12, 8, 0);
        assert_eq!(lane.random_access(), Some(Cursor(15)));
        assert_eq!(lane.tail(), 10);
        assert_eq!((lane.at(9).is_none(), lane.at(20).is_none()), (true, true));
        assert_eq!((lane.at(10).unwrap().bytes[0], lane.at(19).unwrap().bytes[0]), (10, 19));
        let (got, skipped) = read(&lane, &mut cursor, 2);
        assert_eq!((got, skipped), (vec![15, 16], 15));
        assert_eq!(lane.held_bytes(), 188 * 10);
    }

    #[test]
    fn without_a_random_access_point_it_goes_on_at_the_head() {
        let (lane, mut writer) = <Lane>::new(Bounds { bytes: 188 * 4, age: Duration::from_secs(8) });
        let mut cursor = lane.live();
        fill(&mut writer, 0, 9, 0);
        assert_eq!(read(&lane, &mut cursor, 2), (vec![], 9));
        assert_eq!(cursor, lane.live());
    }

    #[test]
    fn old_datagrams_leave() {
        let (lane, mut writer) = <Lane>::new(Bounds { bytes: 1 << 20, age: Duration::from_millis(100) });
        fill(&mut writer, 0, 5, 0);
        fill(&mut writer, 5, 1, 101 * MS);
        assert_eq!(lane.held_bytes(), 188);
    }

    #[test]
    fn the_writer_does_not_wait_for_a_reader() {
        let (lane, mut writer) = <Lane>::new(Bounds::default());
        let mut cursor = lane.live();
        let held = lane.ring.read();
        writer.stage(&[7; 188], 0, None);
        assert!(!writer.commit(0));
        drop(held);
        assert!(writer.commit(0));
        assert_eq!(read(&lane, &mut cursor, 9).0, [7]);
    }

    #[test]
    fn a_slow_reader_pins_no_more_than_the_bound() {
        let (lane, mut writer) = <Lane>::new(Bounds { bytes: 1 << 20, age: Duration::from_secs(8) });
        for round in 0..100 {
            fill(&mut writer, round * 100, 100, round * MS);
            assert!(lane.held_bytes() <= 1 << 20);
        }
    }

    proptest::proptest! {
        #[test]
        fn every_datagram_is_read_once_or_counted_as_skipped(
            steps in proptest::collection::vec((0u64..40, 0usize..40, proptest::bool::ANY), 1..60)
        ) {
            let (lane, mut writer) = <Lane>::new(Bounds { bytes: 188 * 64, age: Duration::from_secs(8) });
            let mut cursor = lane.live();
            let (mut written, mut got, mut skipped) = (0u64, 0u64, 0u64);
            for (writes, reads, key) in steps {
                if key {
                    writer.mark_random_access(written);
                }
                fill(&mut writer, written, writes, 0);
                written += writes;
                let mut out = Vec::new();
                let read = lane.read(&mut cursor, reads, &mut out, |_| true);
                for (i, datagram) in out.iter().enumerate() {
                    proptest::prop_assert_eq!(datagram.bytes[0], (got + skipped + read.skipped + i as u64) as u8);
                }
                got += read.taken as u64;
                skipped += read.skipped;
                proptest::prop_assert_eq!(cursor.0, got + skipped);
                proptest::prop_assert!(cursor.0 <= written);
            }
        }
    }
}
