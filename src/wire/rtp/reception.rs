//! Headers of received packets and sender reports enter, the figures of a receiver report leave (RFC 3550, 6.4 and
//! A.3, A.8). Never judges the order of packets.

use super::header::Header;
use super::rtcp::{ReportBlock, SenderReport};

/// What one source delivered so far, as its receiver reports tell it.
#[derive(Debug, Clone)]
pub struct Reception {
    clock_rate: u32,
    source: Option<Source>,
    last_report: Option<(u32, u64)>,
}

#[derive(Debug, Clone)]
struct Source {
    ssrc: u32,
    first: u32,
    /// Extended highest sequence number.
    highest: u32,
    received: u32,
    /// Of the last report: expected and received.
    reported: (u32, u32),
    /// Of the last packet: arrival minus timestamp, in units of the clock rate.
    transit: u32,
    /// Jitter in 1/16 of a unit (A.8).
    jitter: u32,
}

impl Reception {
    /// Nothing was received yet; `clock_rate` in units per second.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, source: None, last_report: None }
    }

    /// A packet arrived at `now` (nanoseconds).
    pub fn arrive(&mut self, header: &Header, now: u64) {
        let units = u128::from(now) * u128::from(self.clock_rate) / 1_000_000_000;
        // Only differences count, modulo 2^32.
        let transit = (units as u32).wrapping_sub(header.timestamp);
        match &mut self.source {
            Some(source) if source.ssrc == header.ssrc => source.arrive(header.sequence, transit),
            source => {
                // One cycle in hand, so that a packet from before the first one is no underflow.
                let first = 1 << 16 | u32::from(header.sequence);
                let (highest, received) = (first, 1);
                *source = Some(Source {
                    ssrc: header.ssrc,
                    first,
                    highest,
                    received,
                    reported: (0, 0),
                    transit,
                    jitter: 0,
                });
                self.last_report = None;
            }
        }
    }

    /// A sender report of the source arrived at `now` (nanoseconds).
    pub fn sender_report(&mut self, report: &SenderReport, now: u64) {
        if self.source.as_ref().is_some_and(|source| source.ssrc == report.ssrc) {
            self.last_report = Some(((report.ntp >> 16) as u32, now));
        }
    }

    /// Interarrival jitter in nanoseconds.
    pub fn jitter(&self) -> u64 {
        let jitter = self.source.as_ref().map_or(0, |source| source.jitter >> 4);
        u64::from(jitter) * 1_000_000_000 / u64::from(self.clock_rate.max(1))
    }

    /// The report block at `now` (nanoseconds), `None` while nothing was received. The share of lost packets counts
    /// from the call before.
    pub fn report(&mut self, now: u64) -> Option<ReportBlock> {
        let source = self.source.as_mut()?;
        let expected = source.highest.wrapping_sub(source.first).wrapping_add(1);
        let lost = i64::from(expected) - i64::from(source.received);
        let (expected_before, received_before) = source.reported;
        let span = expected.wrapping_sub(expected_before);
        let missing = i64::from(span) - i64::from(source.received.wrapping_sub(received_before));
        let fraction = if span == 0 { 0 } else { (missing.max(0) * 256 / i64::from(span)).min(255) };
        source.reported = (expected, source.received);
        let (last_report, delay) = self.last_report.map_or((0, 0), |(middle, at)| {
            let nanos = u128::from(now.saturating_sub(at));
            (middle, (nanos * 65_536 / 1_000_000_000).try_into().unwrap_or(u32::MAX))
        });
        Some(ReportBlock {
            ssrc: source.ssrc,
            fraction: fraction as u8,
            lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            // Without the cycle in hand.
            highest: source.highest.wrapping_sub(1 << 16),
            jitter: source.jitter >> 4,
            last_report,
            delay,
        })
    }
}

impl Source {
    fn arrive(&mut self, sequence: u16, transit: u32) {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead > 0 && ahead < 0x8000 {
            self.highest = self.highest.wrapping_add(ahead.into());
        }
        self.received = self.received.wrapping_add(1);
        let difference = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
        self.transit = transit;
        self.jitter = self.jitter.saturating_add(difference).saturating_sub((self.jitter + 8) >> 4);
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::header;
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn losses_and_jitter_are_reported() {
        let mut reception = Reception::new(90_000);
        assert_eq!(reception.report(0), None);
        // 10 of 20 packets, across the wrap of the sequence, each in its time
        for i in 0..20u16 {
            if i % 2 == 0 {
                let sequence = 65_530u16.wrapping_add(i);
                reception.arrive(&header(sequence, u32::from(i) * 900, false), u64::from(i) * 10 * MS);
            }
        }
        let block = reception.report(200 * MS).unwrap();
        assert_eq!((block.highest, block.lost, block.jitter), (65_530 + 18, 9, 0));
        assert_eq!(block.fraction, (9 * 256 / 19) as u8);
        assert_eq!(reception.report(201 * MS).unwrap().fraction, 0);
        // one 16 ms late moves the jitter by a sixteenth of that
        reception.arrive(&header(13, 20 * 900, false), 216 * MS);
        assert_eq!(reception.jitter() / MS, 1);
    }

    #[test]
    fn the_last_sender_report_is_told_with_its_age() {
        let mut reception = Reception::new(90_000);
        let report = SenderReport { ssrc: 1, ntp: 0x0000_1234_5678_0000, ..SenderReport::default() };
        reception.sender_report(&report, 0);
        reception.arrive(&header(0, 0, false), 0);
        assert_eq!(reception.report(0).unwrap().last_report, 0);
        reception.sender_report(&report, 1000 * MS);
        let block = reception.report(1500 * MS).unwrap();
        assert_eq!((block.last_report, block.delay), (0x1234_5678, 32_768));
    }

    #[test]
    fn another_source_begins_anew() {
        let mut reception = Reception::new(8000);
        reception.arrive(&header(5, 0, false), 0);
        reception.arrive(&Header { ssrc: 2, ..header(900, 0, false) }, 0);
        let block = reception.report(0).unwrap();
        assert_eq!((block.ssrc, block.lost, block.highest), (2, 0, 900));
    }
}
