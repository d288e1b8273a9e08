//! Ticks of the programme clock enter, breaches of rules about intervals leave. Never looks at a packet: counters that
//! others keep tell what came between two ticks, so that a rule costs nothing for each packet.
//!
//! A table that was not seen between two PCRs was not there for at least the time between them; so every breach is
//! proven, and none is guessed from a bit rate.

use super::{Breach, Slip, Vital, Vitals};
use crate::wire::ts::packet::PCR_HZ;

/// Follows the clock of the first program, and what must come within times; the clocks of all of them for their quality.
#[derive(Debug, Default)]
pub(in crate::wire::ts) struct Watch {
    pub(in crate::wire::ts) vitals: Vitals,
    pat: Interval,
    arrival: u64,
    /// When the last datagram came, and how long datagrams have come since the last tick, nanoseconds.
    datagram: Option<u64>,
    flow: u64,
    /// Ticks that were counted without a PCR since the last one.
    credited: u64,
    /// The PCRs went missing and it was said.
    silent: bool,
    /// When PIDs were looked at last.
    looked: u64,
    cat_told: bool,
    /// Jumps of clocks so far: PTS on both sides of one say nothing.
    pub(in crate::wire::ts) epoch: u8,
    /// Of each program's clock, as far as there is room.
    lines: Vec<Line>,
    framed: (u64, u64),
}

/// The last PCRs of a program.
#[derive(Debug)]
struct Line {
    pid: u16,
    /// Byte and PCR of each, and how many there are.
    points: [(u64, u64); LINE],
    filled: usize,
    /// PCRs to pass before a line is looked for again: most streams have none.
    rest: u32,
}

/// When something was last seen.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::wire::ts) struct Interval {
    seen: u64,
    since: u64,
    begun: bool,
    told: bool,
    told_rate: bool,
}

/// What is kept of each PID for its rules.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::wire::ts) struct PidWatch {
    /// Milliseconds after which it is missing; 0 = it need not come.
    pub(in crate::wire::ts) limit: u16,
    /// A table names it.
    pub(in crate::wire::ts) named: bool,
    /// Pictures or sound.
    pub(in crate::wire::ts) timed: bool,
    /// It carries the clock of a program.
    pub(in crate::wire::ts) clock: bool,
    told: bool,
    begun: bool,
    epoch: u8,
    packets: u32,
    /// Milliseconds of the stream's clock.
    since: u32,
    pts: Option<u64>,
}

impl Watch {
    /// Notes a breach that shows now.
    pub(in crate::wire::ts) fn note(&mut self, vital: Vital, pid: Option<u16>, slip: Slip) {
        let breach = self.breach(pid, slip);
        self.vitals.note(vital, breach);
    }

    /// What the framer threw away so far.
    pub(in crate::wire::ts) fn framing(&mut self, junk: u64, resyncs: u64) {
        self.vitals.judge(Vital::SyncLoss);
        self.vitals.judge(Vital::SyncByte);
        let (junk_before, resyncs_before) = std::mem::replace(&mut self.framed, (junk, resyncs));
        if junk > junk_before {
            self.note(Vital::SyncByte, None, Slip::Junk(junk - junk_before));
        }
        if resyncs > resyncs_before {
            self.note(Vital::SyncLoss, None, Slip::Resync(resyncs - resyncs_before));
        }
    }

    /// A datagram arrives. Whether time passed without a PCR that rules have to know of.
    pub(in crate::wire::ts) fn datagram(&mut self, arrival: u64) -> bool {
        self.arrival = arrival;
        let passed = self.datagram.replace(arrival).map_or(0, |last| arrival.saturating_sub(last));
        // a stream that stood still is the network's matter, not one of its tables
        if passed < STANDSTILL {
            self.flow += passed;
        }
        if self.flow < BLIND {
            return false;
        }
        let ticks = self.flow * TICKS_PER_US / 1000;
        self.flow = 0;
        self.credited += ticks;
        self.vitals.clock += ticks;
        true
    }

    /// The clock of the first program did not come though datagrams did.
    pub(in crate::wire::ts) fn clock_silent(&mut self, pid: u16) {
        let breach = self.breach(Some(pid), Slip::Late(self.credited));
        if std::mem::replace(&mut self.silent, true) {
            self.vitals.amend(Vital::PcrRepetition, breach);
        } else {
            self.vitals.note(Vital::PcrRepetition, breach);
        }
    }

    /// A PCR of the first program, so many ticks after the one before. Answers whether it is time to look at tables.
    pub(in crate::wire::ts) fn tick(&mut self, step: u64) -> bool {
        (self.flow, self.silent) = (0, false);
        let ticks = step.saturating_sub(std::mem::take(&mut self.credited));
        self.vitals.clock += ticks;
        ticks > 0
    }

    /// A PCR that came late; one whose absence was told counts once.
    pub(in crate::wire::ts) fn late(&mut self, pid: u16, step: u64, first_program: bool) {
        if !(first_program && std::mem::take(&mut self.silent)) {
            self.note(Vital::PcrRepetition, Some(pid), Slip::Late(step));
        }
    }

    /// The clock goes on somewhere else.
    pub(in crate::wire::ts) fn jumped(&mut self, pid: u16, first_program: bool) {
        self.epoch = self.epoch.wrapping_add(1);
        if first_program {
            (self.flow, self.credited, self.silent) = (0, 0, false);
        }
        if let Some(line) = self.lines.iter_mut().find(|line| line.pid == pid) {
            line.filled = 0;
        }
    }

    /// The PIDs that carry the clocks of programs are these from now on.
    pub(in crate::wire::ts) fn follow(&mut self, clocks: impl Iterator<Item = u16> + Clone) {
        self.lines.retain(|line| clocks.clone().any(|pid| pid == line.pid));
        for pid in clocks {
            if self.lines.len() < CLOCKS_MOST && self.lines.iter().all(|line| line.pid != pid) {
                self.lines.push(Line { pid, points: [(0, 0); LINE], filled: 0, rest: 0 });
            }
        }
    }

    /// How many programs' clocks are laid into lines.
    #[cfg(test)]
    pub(in crate::wire::ts) fn clocks(&self) -> usize {
        self.lines.len()
    }

    /// A PCR of a program at this byte: those of a constant rate lie on a line.
    pub(in crate::wire::ts) fn line(&mut self, pid: u16, byte: u64, pcr: u64) {
        let Some(line) = self.lines.iter_mut().find(|line| line.pid == pid) else { return };
        if line.rest > 0 {
            line.rest -= 1;
            return;
        }
        if let Some(point) = line.points.get_mut(line.filled) {
            *point = (byte, pcr);
            line.filled += 1;
        }
        if line.filled < LINE {
            return;
        }
        line.filled = 0;
        let Some(faults) = line_faults(&line.points) else {
            line.rest = REST;
            return;
        };
        self.vitals.judge(Vital::PcrAccuracy);
        for off in faults.into_iter().flatten() {
            self.note(Vital::PcrAccuracy, Some(pid), Slip::Inaccurate(off));
        }
    }

    /// A PCR arrived so many nanoseconds later than the one before it and the clock say.
    pub(in crate::wire::ts) fn arrived(&mut self, pid: u16, travelled: f64) {
        self.vitals.judge(Vital::PcrArrival);
        if travelled.abs() > PUNCTUAL {
            self.note(Vital::PcrArrival, Some(pid), Slip::Unpunctual(travelled));
        }
    }

    /// Looks at the PAT, of which so many sections came so far.
    pub(in crate::wire::ts) fn look_pat(&mut self, sections: u64) {
        let mut pat = self.pat;
        self.look_table(&mut pat, sections, Vital::Pat, 0, "PAT");
        self.pat = pat;
    }

    /// Looks at a PMT, of which so many sections came so far.
    pub(in crate::wire::ts) fn look_pmt(&mut self, interval: &mut Interval, sections: u64, pid: u16) {
        self.look_table(interval, sections, Vital::Pmt, pid, "PMT");
    }

    /// Whether it is time to look at PIDs.
    pub(in crate::wire::ts) fn looks(&mut self) -> bool {
        let due = self.vitals.clock - self.looked >= LOOK;
        if due {
            self.looked = self.vitals.clock;
        }
        due
    }

    /// Looks at a PID with so many packets. `known` = every PMT is.
    pub(in crate::wire::ts) fn look_pid(
        &mut self,
        pid: u16,
        watch: &mut PidWatch,
        packets: u64,
        known: bool,
    ) {
        let (now, packets) = (self.milliseconds(), packets as u32);
        let came = watch.packets != packets;
        watch.packets = packets;
        if watch.named {
            if watch.limit == 0 {
                return;
            }
            self.vitals.judge(Vital::Pid);
            if came || !watch.begun {
                (watch.since, watch.begun, watch.told) = (now, true, false);
                return;
            }
            let passed = now.wrapping_sub(watch.since);
            if passed > u32::from(watch.limit) {
                let breach = self.breach(Some(pid), Slip::Absent(u64::from(passed) * TICKS_PER_MS));
                if std::mem::replace(&mut watch.told, true) {
                    self.vitals.amend(Vital::Pid, breach);
                } else {
                    self.vitals.note(Vital::Pid, breach);
                }
            }
            return;
        }
        // reserved and DVB PIDs need no table to name them
        if !known || !came || pid < 0x20 {
            return;
        }
        if !watch.begun {
            (watch.since, watch.begun) = (now, true);
        } else if now.wrapping_sub(watch.since) > STRAY && !std::mem::replace(&mut watch.told, true) {
            self.note(Vital::Unreferenced, Some(pid), Slip::Stray);
        }
    }

    /// Packets are scrambled: there must be a conditional access table.
    pub(in crate::wire::ts) fn look_cat(&mut self, there: bool) {
        self.vitals.judge(Vital::Cat);
        if !there && !std::mem::replace(&mut self.cat_told, true) {
            self.note(Vital::Cat, Some(1), Slip::NoCat);
        }
    }

    /// A PTS on a PID of pictures or sound.
    pub(in crate::wire::ts) fn pts(&mut self, pid: u16, watch: &mut PidWatch, pts: u64) {
        self.vitals.judge(Vital::Pts);
        let same = std::mem::replace(&mut watch.epoch, self.epoch) == self.epoch;
        let Some(last) = watch.pts.replace(pts).filter(|_| same) else { return };
        // pictures come in the order of decoding: either may be the later one
        let forward = pts.wrapping_sub(last) & PTS_MASK;
        let apart = forward.min(PTS_MASK + 1 - forward);
        if apart > STAMPS {
            self.note(Vital::Pts, Some(pid), Slip::Stamps(apart));
        }
    }

    fn look_table(
        &mut self,
        interval: &mut Interval,
        sections: u64,
        vital: Vital,
        pid: u16,
        table: &'static str,
    ) {
        let now = self.vitals.clock;
        self.vitals.judge(vital);
        self.vitals.judge(Vital::TableRate);
        if sections != interval.seen || !interval.begun {
            *interval = Interval { seen: sections, since: now, begun: true, told: false, told_rate: false };
            return;
        }
        let passed = now.saturating_sub(interval.since);
        for (limit, vital, told) in
            [(RATE, Vital::TableRate, &mut interval.told_rate), (GONE, vital, &mut interval.told)]
        {
            if passed > limit {
                let breach = self.breach(Some(pid), Slip::TableGap(table, passed));
                if std::mem::replace(told, true) {
                    self.vitals.amend(vital, breach);
                } else {
                    self.vitals.note(vital, breach);
                }
            }
        }
    }

    fn breach(&self, pid: Option<u16>, slip: Slip) -> Breach {
        Breach { arrival: self.arrival, clock: self.vitals.clock, pid, slip }
    }

    fn milliseconds(&self) -> u32 {
        (self.vitals.clock / TICKS_PER_MS) as u32
    }
}

impl PidWatch {
    /// Of a PID that a table names, or one that was merely seen.
    pub(in crate::wire::ts) fn new(named: bool) -> Self {
        Self { named, ..Self::default() }
    }

    /// What a table says of the PID from now on.
    pub(in crate::wire::ts) fn follow(&mut self, named: bool, limit: u16, timed: bool, clock: bool) {
        if self.named != named {
            (self.begun, self.told) = (false, false);
        }
        (self.named, self.limit, self.timed, self.clock) = (named, limit, timed, clock);
    }
}

/// By how many nanoseconds PCRs lie off the line that most of them make, of those that lie off it by more than 500 ns
/// (ISO/IEC 13818-1, 2.4.2.2); at most eight. None where they make no line: the rate is not constant.
fn line_faults(points: &[(u64, u64); LINE]) -> Option<[Option<f64>; 8]> {
    let (byte0, pcr0) = points[0];
    let points = points.map(|(byte, pcr)| {
        let ticks = crate::wire::ts::packet::pcr_delta(pcr0, pcr);
        (byte.wrapping_sub(byte0) as f64, ticks as f64)
    });
    // one bit for each that is still taken for a part of the line
    let mut left = u32::MAX;
    let mut faults = [None; 8];
    for place in 0..=faults.len() {
        let taken = || points.iter().zip(0..).filter(|(_, at)| left >> at & 1 == 1);
        let n = f64::from(left.count_ones());
        let (mean_x, mean_y) = taken().fold((0.0, 0.0), |s, ((x, y), _)| (s.0 + x / n, s.1 + y / n));
        let (xy, xx) = taken().fold((0.0, 0.0), |s, ((x, y), _)| {
            (s.0 + (x - mean_x) * (y - mean_y), s.1 + (x - mean_x) * (x - mean_x))
        });
        if xx <= 0.0 {
            return None;
        }
        let slope = xy / xx;
        let off = |(x, y): &(f64, f64)| (y - mean_y - slope * (x - mean_x)) * 1e9 / PCR_HZ as f64;
        let worst =
            taken().map(|(point, at)| (off(point), at)).max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()));
        let (worst, at): (f64, u32) = worst?;
        if worst.abs() > NO_LINE {
            return None;
        }
        if worst.abs() <= ACCURATE {
            return Some(faults);
        }
        // most of them must make the line
        *faults.get_mut(place)? = Some(worst);
        left &= !(1 << at);
    }
    None
}

const TICKS_PER_US: u64 = PCR_HZ / 1_000_000;
const TICKS_PER_MS: u64 = PCR_HZ / 1000;
/// TR 101 290, 1.3.a and 1.5.a: 0.5 s.
const GONE: u64 = PCR_HZ / 2;
/// ST 1402-02: more than four times a second.
const RATE: u64 = PCR_HZ / 4;
/// TR 101 290, 3.4: 0.5 s, in milliseconds.
const STRAY: u32 = 500;
/// TR 101 290, 2.5 and ST 1402, 7.3: 0.7 s of 90 kHz.
const STAMPS: u64 = 63_000;
const PTS_MASK: u64 = (1 << 33) - 1;
/// ETSI TS 102 034: jitter of the network, 40 ms, in nanoseconds.
const PUNCTUAL: f64 = 40e6;
/// 500 ns.
const ACCURATE: f64 = 500.0;
/// What lies off further is no fault of a constant rate but a rate that is not constant.
const NO_LINE: f64 = 250e3;
/// Programs whose PCRs are laid into a line.
const CLOCKS_MOST: usize = 16;
/// PCRs that are laid into a line.
const LINE: usize = 32;
/// PCRs between lines where there was none.
const REST: u32 = 7 * LINE as u32;
/// Nanoseconds without a PCR after which arrivals count.
const BLIND: u64 = 200_000_000;
/// Nanoseconds without a datagram after which the stream stands still.
const STANDSTILL: u64 = 100_000_000;
/// How often PIDs are looked at: 0.25 s.
const LOOK: u64 = PCR_HZ / 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pts_may_lie_seven_tenths_of_a_second_apart_either_way_and_anywhere_across_a_jump() {
        let (mut watch, mut pid) = (Watch::default(), PidWatch::new(true));
        let mut count = |pts: u64, jump: bool| {
            if jump {
                watch.jumped(0x101, false);
            }
            watch.pts(0x101, &mut pid, pts & PTS_MASK);
            watch.vitals.tally(Vital::Pts).count
        };
        assert_eq!(count(PTS_MASK - 9, false), 0);
        assert_eq!((count(62_990, false), count(10, false), count(63_011, false)), (0, 0, 1));
        assert_eq!((count(900_000, true), count(903_600, false)), (1, 1));
        assert_eq!(count(3_600, false), 2);
    }

    #[test]
    fn datagrams_without_a_clock_are_told_once_and_a_stream_that_stands_still_is_not() {
        let mut watch = Watch::default();
        let mut arrival = 1;
        for _ in 0..50 {
            arrival += 20_000_000;
            if watch.datagram(arrival) {
                watch.clock_silent(0x101);
            }
        }
        let tally = watch.vitals.tally(Vital::PcrRepetition);
        assert_eq!(tally.count, 1);
        assert!(
            matches!(tally.last.map(|last| last.slip), Some(Slip::Late(ticks)) if ticks > 20_000_000),
            "{tally:?}"
        );
        // the PCR that ends it is late, and was told of
        watch.late(0x101, 27_000_000, true);
        assert_eq!(watch.vitals.tally(Vital::PcrRepetition).count, 1);
        let before = watch.vitals.clock;
        for _ in 0..50 {
            arrival += 500_000_000;
            assert!(!watch.datagram(arrival));
        }
        assert_eq!(watch.vitals.clock, before);
    }

    #[test]
    fn a_line_is_told_from_a_rate_that_varies() {
        let mut points = [(0, 0); LINE];
        for (at, point) in (0..).zip(&mut points) {
            *point = (at * 1000, at * 54_000);
        }
        assert_eq!(line_faults(&points).map(|faults| faults.iter().flatten().count()), Some(0));
        points[7].1 += 27;
        points[20].1 -= 30;
        let faults = line_faults(&points).expect("a line");
        assert_eq!(faults.iter().flatten().count(), 2, "{faults:?}");
        points[9].0 += 500;
        assert_eq!(line_faults(&points), None);
    }
}
