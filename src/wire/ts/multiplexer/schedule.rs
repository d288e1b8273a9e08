//! Times and packets enter, what is due leaves: the clock, the tables, null packets. Never steps back.

use crate::wire::ts::packet::{PACKET, PCR_HZ};

/// When what is due. Times are in units of 1/27 MHz.
#[derive(Debug)]
pub(super) struct Schedule {
    rate: Option<u64>,
    /// Where time is; at a constant rate that of the next packet.
    now: Option<i64>,
    /// At a constant rate: the time that packets are counted from, and how many there were.
    origin: i64,
    packets: u64,
    clock: Option<i64>,
    tables: Option<i64>,
    discontinuity: bool,
}

impl Schedule {
    pub(super) fn new(rate: Option<u64>) -> Self {
        let rate = rate.map(|rate| rate.max(SLOWEST));
        Self { rate, now: None, origin: 0, packets: 0, clock: None, tables: None, discontinuity: false }
    }

    pub(super) fn is_constant(&self) -> bool {
        self.rate.is_some()
    }

    pub(super) fn clock(&self) -> Option<i64> {
        self.clock
    }

    /// A call names this time: the first one starts it, and one far ahead is a new start.
    pub(super) fn begin(&mut self, time: i64) {
        match self.now {
            Some(now) if time.saturating_sub(now) <= LEAP => return,
            Some(_) => self.discontinuity = true,
            None => {}
        }
        (self.now, self.origin, self.packets) = (Some(time), time, 0);
        (self.clock, self.tables) = (None, None);
    }

    /// Moves on towards a time; whether something may be due before it. At a constant rate a packet's time must be
    /// filled; else the next moment of the clock or the tables is one.
    pub(super) fn step(&mut self, time: i64) -> bool {
        let Some(now) = self.now else { return false };
        if self.rate.is_some() {
            return now < time;
        }
        let clock = self.clock.map_or(now, |clock| clock.saturating_add(CLOCK));
        let tables = self.tables.map_or(now, |tables| tables.saturating_add(TABLES));
        let next = clock.min(tables);
        if next < time {
            self.now = Some(now.max(next));
            return true;
        }
        self.now = Some(now.max(time));
        false
    }

    /// A packet was put: at a constant rate its time has passed.
    pub(super) fn packet(&mut self) {
        if let Some(rate) = self.rate {
            self.packets += 1;
            let bits = u128::from(self.packets) * 8 * PACKET as u128;
            let ticks = bits * u128::from(PCR_HZ) / u128::from(rate);
            self.now = Some(self.origin.saturating_add(ticks as i64));
        }
    }

    pub(super) fn is_clock_due(&self) -> bool {
        match (self.now, self.clock) {
            (Some(now), Some(clock)) => now - clock >= CLOCK,
            (Some(_), None) => true,
            _ => false,
        }
    }

    /// The clock as it is now, and whether a jump is to be announced; none when it did not move since the last one.
    pub(super) fn take_clock(&mut self) -> (Option<i64>, bool) {
        let Some(now) = self.now.filter(|&now| self.clock.is_none_or(|clock| now > clock)) else {
            return (None, false);
        };
        self.clock = Some(now);
        (Some(now), std::mem::take(&mut self.discontinuity))
    }

    /// The tables leave as soon as something does.
    pub(super) fn force_tables(&mut self) {
        self.tables = None;
    }

    /// Whether the tables are due, and if so, that they leave now.
    pub(super) fn take_tables(&mut self) -> bool {
        let Some(now) = self.now else { return false };
        let due = self.tables.is_none_or(|last| now - last >= TABLES);
        if due {
            self.tables = Some(now);
        }
        due
    }
}

/// PAT and PMT at least every 100 ms, with room for a long picture in between.
const TABLES: i64 = PCR_HZ as i64 * 90 / 1000;
/// The clock at least every 40 ms (MISB ST 1402; ETSI TR 101 290, 5.2.2).
const CLOCK: i64 = PCR_HZ as i64 * 36 / 1000;
/// A longer step is not filled.
const LEAP: i64 = PCR_HZ as i64;
/// Bits per second below which tables and clock alone would not fit.
const SLOWEST: u64 = 100_000;
