//! RTP timestamps of the tracks of one session enter, times on one timeline leave: unwrapped, tied together by sender
//! reports, before the first of them by arrival. Never looks at what the packets hold.

use crate::media::{Nanos, TICKS_PER_SECOND, Ticks};
use crate::wire::rtp::rtcp::SenderReport;

/// The clocks of all tracks of one session.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    tracks: Vec<Clock>,
    /// Arrival of the first packet of any track: tick 0.
    origin: Option<Nanos>,
    /// NTP time in ticks minus time on the timeline, of the track that leads, and which one that is.
    lead: Option<(usize, Ticks)>,
}

#[derive(Debug)]
struct Clock {
    rate: u32,
    /// Last timestamp, unwrapped.
    last: Option<i64>,
    /// Arrival of the packet that it came with.
    arrival: Nanos,
    /// What is added to the timestamp in ticks.
    offset: Ticks,
    /// Its last report: NTP time in ticks, and the timestamp.
    report: Option<(Ticks, u32)>,
    synchronised: bool,
}

impl Clocks {
    pub(super) fn new(rates: impl IntoIterator<Item = u32>) -> Self {
        let clock = |rate: u32| Clock {
            rate: rate.max(1),
            last: None,
            arrival: 0,
            offset: 0,
            report: None,
            synchronised: false,
        };
        Self { tracks: rates.into_iter().map(clock).collect(), origin: None, lead: None }
    }

    /// The time of a timestamp that came at `arrival`; `gap` when packets before it are missing or its source is new.
    pub(super) fn time(&mut self, track: usize, timestamp: u32, arrival: Nanos, gap: bool) -> Option<Ticks> {
        let origin = *self.origin.get_or_insert(arrival);
        let clock = self.tracks.get_mut(track)?;
        let now = ticks_between(origin, arrival);
        let unwrapped = match clock.last {
            None => {
                clock.offset = now - clock.ticks(timestamp.into());
                timestamp.into()
            }
            Some(last) => {
                let step = i64::from(timestamp.wrapping_sub(last as u32) as i32);
                let told = clock.ticks(step);
                let passed = ticks_between(clock.arrival, arrival);
                let jump = (told - passed).abs();
                if jump > JUMP_SURE || gap && jump > JUMP_LIKELY {
                    // The sender's clock began anew: what passed by ours is believed.
                    clock.offset += passed - told;
                    clock.report = None;
                    clock.synchronised = false;
                }
                last + step
            }
        };
        clock.last = Some(unwrapped);
        clock.arrival = arrival;
        let time = clock.ticks(unwrapped) + clock.offset;
        if let Some(report) = clock.report.take_if(|_| !clock.synchronised) {
            // It came before the first packet.
            self.tie(track, report);
            let clock = self.tracks.get(track)?;
            return Some(clock.ticks(unwrapped) + clock.offset);
        }
        Some(time)
    }

    /// A sender report of a track. Of two tracks with the same wall clock, what was taken at the same moment gets the
    /// same time (RFC 3550, 6.4.1): at once with the first report, later by at most 1 ms each, for clocks drift.
    pub(super) fn report(&mut self, track: usize, report: &SenderReport) {
        // Fits: 2^32 s are 2^49 ticks.
        let wall = ((u128::from(report.ntp) * TICKS_PER_SECOND as u128) >> 32) as Ticks;
        if report.ntp >> 32 == 0 {
            // A sender without a wall clock says 0, or counts from its start: worth nothing between two tracks.
            return;
        }
        self.tie(track, (wall, report.rtp));
    }

    fn tie(&mut self, track: usize, (wall, timestamp): (Ticks, u32)) {
        let Some(clock) = self.tracks.get_mut(track) else { return };
        clock.report = Some((wall, timestamp));
        let Some(last) = clock.last else { return };
        let unwrapped = last + i64::from(timestamp.wrapping_sub(last as u32) as i32);
        let distance = wall - (clock.ticks(unwrapped) + clock.offset);
        match self.lead {
            Some((lead, _)) if lead == track => self.lead = Some((track, distance)),
            None => self.lead = Some((track, distance)),
            Some((_, lead)) => {
                let wrong = distance - lead;
                if wrong.abs() > BELIEVED {
                    // Two wall clocks.
                    return;
                }
                clock.offset += if clock.synchronised { wrong.clamp(-STEP, STEP) } else { wrong };
            }
        }
        clock.synchronised = true;
    }
}

impl Clock {
    fn ticks(&self, units: i64) -> Ticks {
        // Fits: units come of 32-bit steps, and rates are at most 10 MHz.
        (i128::from(units) * i128::from(TICKS_PER_SECOND) / i128::from(self.rate)) as Ticks
    }
}

fn ticks_between(from: Nanos, to: Nanos) -> Ticks {
    let ticks = |nanos: u64| (u128::from(nanos) * TICKS_PER_SECOND as u128 / 1_000_000_000) as Ticks;
    ticks(to.saturating_sub(from)) - ticks(from.saturating_sub(to))
}

/// A step of the timestamp that is so far from what passed is a new clock, whatever else is said.
const JUMP_SURE: Ticks = 60 * TICKS_PER_SECOND;

/// The same where packets are missing.
const JUMP_LIKELY: Ticks = 2 * TICKS_PER_SECOND;

/// Tracks of one session are not further apart.
const BELIEVED: Ticks = 10 * TICKS_PER_SECOND;

/// What one report moves a track once it was tied to the others: 1 ms.
const STEP: Ticks = 90;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn report(ntp_ms: u64, rtp: u32) -> SenderReport {
        let seconds = 4_000_000_000 + ntp_ms / 1000;
        SenderReport {
            ntp: (seconds << 32) | (((ntp_ms % 1000) << 32) / 1000),
            rtp,
            ..SenderReport::default()
        }
    }

    #[test]
    fn timestamps_are_unwrapped_and_tracks_begin_by_arrival() {
        let mut clocks = Clocks::new([90_000, 48_000]);
        assert_eq!(clocks.time(0, u32::MAX - 899, 5 * MS, false), Some(0));
        assert_eq!(clocks.time(1, 77, 25 * MS, false), Some(1800));
        assert_eq!(clocks.time(0, 900, 25 * MS, false), Some(1800));
        assert_eq!(clocks.time(1, 77 + 48_000, 1025 * MS, false), Some(1800 + 90_000));
        // B-frames go back
        assert_eq!(clocks.time(0, 0, 26 * MS, false), Some(900));
    }

    #[test]
    fn reports_tie_tracks_together_and_then_only_nudge_them() {
        let mut clocks = Clocks::new([90_000, 48_000]);
        clocks.time(0, 0, 0, false);
        clocks.time(1, 0, 100 * MS, false);
        // taken at the same moment, but the audio came 100 ms late
        clocks.report(0, &report(1000, 0));
        clocks.report(1, &report(1000, 0));
        assert_eq!(clocks.time(1, 480, 110 * MS, false), Some(900));
        // 5 ms wrong: 1 ms is taken back at a time
        clocks.report(1, &report(1015, 480));
        assert_eq!(clocks.time(1, 480, 110 * MS, false), Some(900 + 90));
        // another wall clock altogether is not believed
        clocks.report(1, &report(100_000, 480));
        assert_eq!(clocks.time(1, 480, 110 * MS, false), Some(900 + 90));
        // nor one that counts from the start
        clocks.report(1, &SenderReport { ntp: 5 << 20, ..SenderReport::default() });
        assert_eq!(clocks.time(1, 480, 110 * MS, false), Some(900 + 90));
    }

    #[test]
    fn a_report_before_the_first_packet_counts() {
        let mut clocks = Clocks::new([90_000, 90_000]);
        clocks.report(1, &report(1000, 50_000));
        clocks.time(0, 0, 0, false);
        clocks.report(0, &report(1000, 0));
        assert_eq!(clocks.time(1, 50_000, 200 * MS, false), Some(0));
    }

    #[test]
    fn a_new_clock_of_the_sender_goes_on_where_the_old_one_ended() {
        let mut clocks = Clocks::new([90_000]);
        clocks.time(0, 1000, 0, false);
        assert_eq!(clocks.time(0, 2_000_000_000, 40 * MS, true), Some(3600));
        assert_eq!(clocks.time(0, 2_000_003_600, 80 * MS, false), Some(7200));
        // a pause of the network with a steady clock is none
        assert_eq!(clocks.time(0, 2_000_007_200, 9000 * MS, false), Some(10_800));
    }
}
