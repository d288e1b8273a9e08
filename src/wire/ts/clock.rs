//! PCRs with their place in the stream and their arrival enter; programme time and its quality leave. Never waits.

use serde::Serialize;

use super::packet::{PCR_HZ, pcr_add, pcr_delta};

/// Follows the programme clock on one PID.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<Tick>,
    /// Ticks per byte between the last two PCRs, and the ticks between them; 0 = not known.
    rate: f64,
    step: i64,
    count: u64,
    discontinuities: u64,
    late: u64,
    shortest: i64,
    longest: i64,
    /// Sum and number of the intervals.
    sum: i64,
    intervals: u64,
    /// RFC 3550, 6.4.1, in nanoseconds.
    jitter: f64,
    peaks: [u64; 2],
    peaks_since: u64,
}

/// What a PCR showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    /// It is the first one.
    First,
    /// The clock went on by so many ticks, and it arrived so many nanoseconds later than that says.
    On(u64, f64),
    /// The clock jumped by so many ticks.
    Jump(i64),
}

#[derive(Debug, Clone, Copy)]
struct Tick {
    pcr: u64,
    byte: u64,
    arrival: u64,
}

impl Clock {
    /// Takes a PCR that stands at this byte of the stream. `jump` = a discontinuity was announced.
    pub(super) fn observe(&mut self, pcr: u64, byte: u64, arrival: u64, jump: bool) -> Step {
        self.count += 1;
        let Some(last) = self.last.replace(Tick { pcr, byte, arrival }) else {
            self.peaks_since = arrival;
            return Step::First;
        };
        let step = pcr_delta(last.pcr, pcr);
        if jump || !(0..=JUMP).contains(&step) {
            self.discontinuities += 1;
            return Step::Jump(step);
        }
        if step > 0 && byte > last.byte {
            (self.rate, self.step) = (step as f64 / (byte - last.byte) as f64, step);
        }
        self.shortest = if self.intervals == 0 { step } else { self.shortest.min(step) };
        self.longest = self.longest.max(step);
        self.sum += step;
        self.intervals += 1;
        self.late += u64::from(step > LATE);

        let travelled = arrival.saturating_sub(last.arrival) as f64 - step as f64 * NS_PER_TICK;
        self.jitter += (travelled.abs() - self.jitter) / 16.0;
        if arrival.saturating_sub(self.peaks_since) > PEAK_NS {
            self.peaks = [0, self.peaks[0]];
            self.peaks_since = arrival;
        }
        self.peaks[0] = self.peaks[0].max(travelled.abs() as u64);
        Step::On(step as u64, travelled)
    }

    /// Programme time at a byte of the stream, at most one interval away from the last PCR: behind a burst the rate
    /// says nothing. None until two PCRs gave a rate.
    pub(super) fn at(&self, byte: u64) -> Option<u64> {
        let last = self.last.filter(|_| self.rate > 0.0)?;
        let ticks = (byte as f64 - last.byte as f64) * self.rate;
        Some(pcr_add(last.pcr, (ticks as i64).clamp(-self.step, self.step)))
    }

    pub(super) fn report(&self) -> ClockReport {
        let ms = |ticks: f64| ticks * 1e3 / PCR_HZ as f64;
        ClockReport {
            count: self.count,
            discontinuities: self.discontinuities,
            late: self.late,
            interval_min_ms: ms(self.shortest as f64),
            interval_avg_ms: ms(self.sum as f64 / self.intervals.max(1) as f64),
            interval_max_ms: ms(self.longest as f64),
            jitter_mean_us: self.jitter / 1e3,
            jitter_peak_us: self.peaks[0].max(self.peaks[1]) as f64 / 1e3,
        }
    }
}

/// Health of a programme clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClockReport {
    /// PCRs seen.
    pub count: u64,
    /// Jumps: announced ones, steps back, and steps of more than 1 s. They count in nothing below.
    pub discontinuities: u64,
    /// Intervals of more than 100 ms, the longest that ISO/IEC 13818-1, 2.7.2 allows.
    pub late: u64,
    /// Shortest interval between two PCRs in milliseconds of programme time; 0 before the second one.
    pub interval_min_ms: f64,
    /// Mean interval in milliseconds.
    pub interval_avg_ms: f64,
    /// Longest interval in milliseconds.
    pub interval_max_ms: f64,
    /// How much later or earlier than its PCR says a PCR arrives after the one before it: running mean as in
    /// RFC 3550, 6.4.1, in microseconds.
    pub jitter_mean_us: f64,
    /// The largest such difference of the last 5 to 10 s, in microseconds.
    pub jitter_peak_us: f64,
}

const NS_PER_TICK: f64 = 1e9 / PCR_HZ as f64;
/// A longer step is no interval but another clock.
const JUMP: i64 = PCR_HZ as i64;
pub(super) const LATE: i64 = PCR_HZ as i64 / 10;
const PEAK_NS: u64 = 5_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ts::packet::PCR_WRAP;

    const MS: u64 = 27_000;

    #[test]
    fn time_goes_on_between_pcrs_and_over_the_wrap() {
        let mut clock = Clock::default();
        assert_eq!(clock.at(0), None);
        clock.observe(PCR_WRAP - 20 * MS, 1_000, 0, false);
        assert_eq!(clock.at(1_000), None);
        clock.observe(20 * MS, 5_000, 40_000_000, false);
        assert_eq!(clock.at(5_000), Some(20 * MS));
        assert_eq!(clock.at(6_000), Some(30 * MS));
        assert_eq!(clock.at(4_000), Some(10 * MS));
        assert_eq!(clock.at(1_000), Some(PCR_WRAP - 20 * MS));
        // no further than one interval
        assert_eq!(clock.at(100_000), Some(60 * MS));
        assert_eq!(clock.report().discontinuities, 0);
    }

    #[test]
    fn a_jump_keeps_the_rate() {
        for (to, announced) in [(5_000 * MS, false), (10 * MS, false), (45 * MS, true)] {
            let mut clock = Clock::default();
            clock.observe(0, 0, 0, false);
            clock.observe(40 * MS, 4_000, 40_000_000, false);
            clock.observe(to, 8_000, 80_000_000, announced);
            assert_eq!(clock.at(9_000), Some(to + 10 * MS));
            let report = clock.report();
            assert_eq!((report.discontinuities, report.interval_max_ms), (1, 40.0));
            assert!(report.jitter_peak_us < 1.0);
        }
    }

    #[test]
    fn jitter_is_arrival_against_pcr() {
        let mut clock = Clock::default();
        let mut arrival = 0;
        for n in 0..200 {
            clock.observe(n * 20 * MS, n * 1_000, arrival + if n % 2 == 0 { 0 } else { 100_000 }, false);
            arrival += 20_000_000;
        }
        clock.observe(200 * 20 * MS + 90 * MS, 200_000, arrival + 90_000_000, false);
        let report = clock.report();
        assert!((95.0..=100.1).contains(&report.jitter_mean_us), "{report:?}");
        assert!((99.0..=101.0).contains(&report.jitter_peak_us), "{report:?}");
        assert_eq!((report.count, report.late, report.interval_min_ms), (201, 1, 20.0));
        assert!((report.interval_max_ms - 110.0).abs() < 1e-9);
    }
}
