//! Arrival times and programme clocks of live datagrams enter, times of departure leave. Never waits and never
//! sees a byte.

use crate::wire::ts::packet::{PCR_HZ, pcr_delta};

/// Spreads a live stream that arrives in bursts over its own clock (`pace=pcr`).
///
/// A datagram leaves at `base + clock`. `base` starts so that the first datagram waits 60 ms, and then follows
/// what was seen of the arrivals:
/// - the least time that a datagram waited is steered towards 20 ms, at no more than 500 ppm: upwards by the
///   worst of the last second, downwards by the worst of the last ten. This follows the drift of the sender's
///   clock and gives back latency that no burst needs;
/// - a datagram that arrives after it was due leaves 20 ms later, and all behind it (an underrun);
/// - a clock step of more than 1 s ahead or 100 ms back, or a datagram that would wait longer than 1 s, starts
///   anew: it leaves 60 ms later, or with the last one if that is later. Steps back of less are no
///   discontinuity, for the clock of a datagram is extrapolated and a falling bit rate makes it run ahead.
///
/// A datagram without a clock leaves at once, or with the one before it. Departures never go back, and between
/// two of these events keep the distances of the clock to 500 ppm.
#[derive(Debug, Default)]
pub struct LivePacer {
    clock: Option<Clock>,
    last_departure: u64,
    underruns: u64,
    anchors: u64,
}

/// What is known since the last start.
#[derive(Debug)]
struct Clock {
    /// Clock of the last datagram, and the ticks since the start.
    pcr: u64,
    elapsed: i64,
    /// Departure of tick 0 (ns).
    base: i64,
    /// What was steered and is not yet a whole nanosecond, in ticks × ppm.
    steered: i64,
    /// How fast `base` moves.
    ppm: i64,
    /// The latest arrival of tick 0 that a datagram of the running second stands for (ns).
    worst: i64,
    /// The same of the seconds before, oldest overwritten first.
    worsts: [i64; SECONDS],
    second: usize,
    second_ends: u64,
}

impl LivePacer {
    /// When a datagram leaves that arrived at `arrival` (nanoseconds, not decreasing) and whose first byte
    /// stands at `pcr` (27 MHz) of the programme's clock. Never before it arrived, never before the last one.
    pub fn depart(&mut self, arrival: u64, pcr: Option<u64>) -> u64 {
        let due = pcr.map_or(arrival, |pcr| self.due(arrival, pcr));
        self.last_departure = self.last_departure.max(due).max(arrival);
        self.last_departure
    }

    /// Datagrams that arrived after they were due.
    pub fn underruns(&self) -> u64 {
        self.underruns
    }

    /// How often pacing started anew, the first time included.
    pub fn anchors(&self) -> u64 {
        self.anchors
    }

    fn due(&mut self, arrival: u64, pcr: u64) -> u64 {
        let Some(clock) = &mut self.clock else { return self.anchor(arrival, pcr) };
        let step = pcr_delta(clock.pcr, pcr);
        if !(-STEP_BACK..=STEP_AHEAD).contains(&step) {
            return self.anchor(arrival, pcr);
        }
        let now = arrival as i64;
        clock.advance(step, pcr);
        clock.observe(now, arrival);
        let wait = clock.due() - now;
        if wait > WAIT_MAX {
            return self.anchor(arrival, pcr);
        }
        if wait < 0 {
            self.underruns += 1;
            clock.base += RESERVE - wait;
        }
        u64::try_from(clock.due()).unwrap_or(arrival)
    }

    fn anchor(&mut self, arrival: u64, pcr: u64) -> u64 {
        self.anchors += 1;
        let due = self.last_departure.max(arrival.saturating_add(START));
        let worst = arrival as i64;
        self.clock = Some(Clock {
            pcr,
            elapsed: 0,
            base: due as i64,
            steered: 0,
            ppm: 0,
            worst,
            worsts: [worst; SECONDS],
            second: 0,
            second_ends: arrival.saturating_add(SECOND as u64),
        });
        due
    }
}

impl Clock {
    fn due(&self) -> i64 {
        self.base.saturating_add(nanos(self.elapsed))
    }

    fn advance(&mut self, step: i64, pcr: u64) {
        self.pcr = pcr;
        self.elapsed += step;
        // A step back is an error of extrapolation, no time that passed.
        self.steered += step.max(0) * self.ppm;
        self.base += self.steered / TICK_PPM;
        self.steered %= TICK_PPM;
    }

    /// Notes how late this datagram is against its clock, and once a second decides where to steer.
    fn observe(&mut self, now: i64, arrival: u64) {
        let stands_for = now - nanos(self.elapsed);
        if arrival >= self.second_ends {
            self.second_ends = arrival.saturating_add(SECOND as u64);
            let recent = self.base - self.worst;
            if let Some(oldest) = self.worsts.get_mut(self.second) {
                *oldest = self.worst;
            }
            self.second = (self.second + 1) % SECONDS;
            let least = self.base - self.worsts.iter().copied().max().unwrap_or(self.worst);
            // Whoever waits less than the reserve pulls up at once, however much others waited before.
            let wanted = if recent < RESERVE { RESERVE - recent } else { (RESERVE - least).min(0) };
            self.ppm = (wanted / (SECOND / 1_000_000)).clamp(-STEER, STEER);
            self.worst = stands_for;
        }
        self.worst = self.worst.max(stands_for);
    }
}

fn nanos(ticks: i64) -> i64 {
    (i128::from(ticks) * 1000 / 27) as i64
}

/// What the first datagram waits (ns).
const START: u64 = 60_000_000;

/// What the datagram that waits least should wait (ns): for the jitter that was not seen yet.
const RESERVE: i64 = 20_000_000;

/// The most that a datagram may wait (ns).
const WAIT_MAX: i64 = 1_000_000_000;

/// Steps of the clock beyond these are discontinuities (27 MHz).
const STEP_AHEAD: i64 = PCR_HZ as i64;
const STEP_BACK: i64 = PCR_HZ as i64 / 10;

/// How fast the distances of departures may differ from those of the clock (ppm). Senders may be off by 30
/// (ISO/IEC 13818-1, 2.4.2.1).
const STEER: i64 = 500;

/// Ticks × ppm in a nanosecond.
const TICK_PPM: i64 = 27_000;

/// ns.
const SECOND: i64 = 1_000_000_000;

/// How many seconds are looked back at before latency is given back.
const SECONDS: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ts::packet::PCR_WRAP;

    const MS: u64 = 1_000_000;
    /// 7 packets at 4 Mb/s.
    const NOMINAL: u64 = 2_632_000;

    fn ticks(ns: u64) -> u64 {
        (u128::from(ns) * 27 / 1000 % u128::from(PCR_WRAP)) as u64
    }

    fn gaps(departures: &[u64]) -> Vec<u64> {
        departures.windows(2).map(|w| w[1] - w[0]).collect()
    }

    fn percentile(mut values: Vec<u64>, percent: usize) -> u64 {
        values.sort_unstable();
        values[(values.len() - 1) * percent / 100]
    }

    #[test]
    fn bursts_are_spread() {
        let mut pacer = LivePacer::default();
        let departures: Vec<u64> = (0..10 * 25 * 15)
            .map(|i| pacer.depart(1_000 * MS + i / 15 * 15 * NOMINAL, Some(ticks(i * NOMINAL))))
            .collect();
        let settled: Vec<u64> = departures.into_iter().filter(|d| *d > 2_000 * MS).collect();
        let gaps = gaps(&settled);
        assert!(gaps.len() > 3000);
        assert!(percentile(gaps.clone(), 99) <= NOMINAL + MS);
        assert!(gaps.iter().all(|gap| gap.abs_diff(NOMINAL) <= NOMINAL / 2000 + 40), "500 ppm and a tick");
        assert_eq!((pacer.underruns(), pacer.anchors()), (0, 1));
    }

    #[test]
    fn a_drifting_sender_is_followed() {
        for (name, real) in [("slow", NOMINAL + NOMINAL / 5000), ("fast", NOMINAL - NOMINAL / 5000)] {
            let mut pacer = LivePacer::default();
            let mut waits = Vec::new();
            for i in 0..600_000_000 * 1000 / NOMINAL {
                let arrival = 1_000 * MS + i / 15 * 15 * real;
                waits.push(pacer.depart(arrival, Some(ticks(i * NOMINAL))) - arrival);
            }
            assert_eq!((pacer.underruns(), pacer.anchors()), (0, 1), "{name}");
            let settled = waits.split_off(waits.len() / 2);
            let least = settled.iter().min().unwrap() / MS;
            assert!((18..=23).contains(&least), "{name}: {least} ms");
        }
    }

    #[test]
    fn an_underrun_makes_room_once() {
        let mut pacer = LivePacer::default();
        // From the second second on every tenth burst is 150 ms late.
        for i in 0..40_000u64 {
            let burst = i / 15;
            let late = if burst > 25 && burst.is_multiple_of(10) { 150 * MS } else { 0 };
            pacer.depart(1_000 * MS + burst * 15 * NOMINAL + late, Some(ticks(i * NOMINAL)));
        }
        assert_eq!((pacer.underruns(), pacer.anchors()), (1, 1));
    }

    #[test]
    fn steps_start_anew_without_a_burst() {
        let steps = [
            ("ahead", 2_000 * MS, 2),
            ("back", ticks_back(500 * MS), 2),
            ("slightly back", ticks_back(30 * MS), 1),
        ];
        for (name, jump, anchors) in steps {
            let mut pacer = LivePacer::default();
            let departures: Vec<u64> = (0..2000)
                .map(|i| {
                    let clock = i * NOMINAL + if i < 1000 { 0 } else { jump };
                    pacer.depart(1_000 * MS + i * NOMINAL, Some(ticks(clock)))
                })
                .collect();
            assert!(departures.is_sorted());
            assert_eq!(pacer.anchors(), anchors, "{name}");
            assert!(gaps(&departures).into_iter().all(|gap| gap <= 60 * MS), "{name}");
        }
    }

    fn ticks_back(ns: u64) -> u64 {
        u64::try_from(u128::from(PCR_WRAP) * 1000 / 27).unwrap() - ns
    }

    #[test]
    fn a_source_that_is_too_fast_waits_no_longer_than_the_cap() {
        let mut pacer = LivePacer::default();
        let mut last = 0;
        for i in 0..5000 {
            let arrival = 1_000 * MS + i * NOMINAL / 2;
            let departure = pacer.depart(arrival, Some(ticks(i * NOMINAL)));
            assert!(departure - arrival <= WAIT_MAX as u64 && departure >= last);
            assert!(i == 0 || departure - last <= NOMINAL + NOMINAL / 2000);
            last = departure;
        }
    }

    #[test]
    fn without_a_clock_it_leaves_at_once_or_with_the_last() {
        let mut pacer = LivePacer::default();
        assert_eq!(pacer.depart(5, None), 5);
        assert_eq!(pacer.depart(6, Some(0)), 6 + START);
        assert_eq!(pacer.depart(7, None), 6 + START);
        assert_eq!(pacer.depart(2 * START, None), 2 * START);
    }

    proptest! {
        #[test]
        fn departures_never_go_back(
            steps in prop::collection::vec((0u64..300_000_000, prop::option::of(0..PCR_WRAP), 0u64..20_000_000), 1..200),
        ) {
            let mut pacer = LivePacer::default();
            let (mut arrival, mut last, mut clock) = (0, 0, 0);
            for (wait, pcr, near) in steps {
                arrival += wait;
                clock = if near % 3 == 0 { pcr.unwrap_or(clock) } else { (clock + near) % PCR_WRAP };
                let departure = pacer.depart(arrival, (near % 5 > 0).then_some(clock));
                prop_assert!(departure >= last && departure >= arrival);
                prop_assert!(departure - arrival <= WAIT_MAX as u64);
                last = departure;
            }
        }

        /// Whatever the jitter, as long as nothing ran dry the distances are those of the clock.
        #[test]
        fn distances_of_the_clock_are_kept(
            datagrams in prop::collection::vec((0u64..50, 1u64..20), 2..500),
            base in 0..PCR_WRAP,
        ) {
            let mut pacer = LivePacer::default();
            let (mut clock, mut arrival, mut last): (u64, u64, Option<u64>) = (0, 0, None);
            for (jitter, step) in datagrams {
                clock += step * MS;
                arrival = arrival.max(1_000 * MS + clock + jitter * MS);
                let departure = pacer.depart(arrival, Some((base + ticks(clock)) % PCR_WRAP));
                if let Some(last) = last && pacer.underruns() == 0 {
                    let gap: u64 = departure - last;
                    prop_assert!(gap.abs_diff(step * MS) <= step * MS / 2000 + 40, "{} for {} ms", gap, step);
                }
                last = Some(departure);
            }
            prop_assert_eq!(pacer.anchors(), 1);
        }
    }
}
