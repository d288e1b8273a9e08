//! Sizes and times of packets enter; how fast they come, how fast the link is and whether one more may go leave.

use super::{Nanos, Seq};

/// How much a sender may send (data and what is sent again), in bytes per second with all headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bandwidth {
    /// As much as comes.
    #[default]
    Unlimited,
    /// So much and no more (libsrt's `maxbw` above 0).
    Fixed(u64),
    /// What the stream needs and something on top (libsrt's `maxbw=0`).
    Relative {
        /// The stream's rate (`inputbw`); 0 measures it.
        input: u64,
        /// A measured rate below this one counts as this one (`mininputbw`).
        minimum: u64,
        /// Per cent on top of it (`oheadbw`, 25 by default).
        overhead: u32,
    },
}

/// A token bucket over everything that one sender sends.
#[derive(Debug)]
pub(super) struct Cap {
    bandwidth: Bandwidth,
    /// Bytes per second; 0 unlimited.
    rate: u64,
    /// Nanoseconds of full rate that may go at once.
    burst: Nanos,
    tokens: i64,
    filled: Nanos,
    measured: Meter,
}

impl Cap {
    /// A limit that lets `burst` nanoseconds' worth go at once: what a queue would hold longer comes too late.
    pub(super) fn new(bandwidth: Bandwidth, burst: Nanos, now: Nanos) -> Self {
        let rate = match bandwidth {
            Bandwidth::Unlimited => 0,
            Bandwidth::Fixed(rate) => rate.max(1),
            Bandwidth::Relative { input, overhead, .. } => with_overhead(input, overhead),
        };
        let mut cap = Self { bandwidth, rate, burst, tokens: 0, filled: now, measured: Meter::new(now) };
        cap.tokens = cap.depth();
        cap
    }

    /// Whether a new packet may go, and if so, counts it.
    #[inline]
    pub(super) fn take_new(&mut self, payload: usize, now: Nanos) -> bool {
        if self.bandwidth == Bandwidth::Unlimited {
            return true;
        }
        if let Bandwidth::Relative { input: 0, minimum, overhead } = self.bandwidth
            && self.measured.add(payload + HEADERS, now)
        {
            self.rate = with_overhead(self.measured.bytes_per_second().max(minimum), overhead);
        }
        self.take(payload, 0, now)
    }

    /// Whether a packet may be sent again, and if so, counts it. New packets come first: half of the bucket is
    /// theirs.
    #[inline]
    pub(super) fn take_again(&mut self, payload: usize, now: Nanos) -> bool {
        self.bandwidth == Bandwidth::Unlimited || self.take(payload, self.depth() / 2, now)
    }

    fn take(&mut self, payload: usize, reserve: i64, now: Nanos) -> bool {
        if self.rate == 0 {
            return true;
        }
        let passed = now.saturating_sub(self.filled);
        let new = u128::from(passed) * u128::from(self.rate) / 1_000_000_000;
        // Time that has not made a byte yet is kept.
        if new > 0 {
            self.filled = now;
            self.tokens = self.tokens.saturating_add(new.min(1 << 60) as i64).min(self.depth());
        }
        if self.tokens <= reserve {
            return false;
        }
        self.tokens -= (payload + HEADERS) as i64;
        true
    }

    /// At least two packets, or nothing would ever go.
    fn depth(&self) -> i64 {
        let depth = u128::from(self.burst) * u128::from(self.rate) / 1_000_000_000;
        (depth.min(1 << 60) as i64).max(4 * 1500)
    }
}

/// Counts bytes and packets over windows of half a second.
#[derive(Debug)]
pub(super) struct Meter {
    since: Nanos,
    bytes: u64,
    packets: u64,
    bytes_per_second: u64,
    packets_per_second: u64,
}

impl Meter {
    pub(super) fn new(now: Nanos) -> Self {
        Self { since: now, bytes: 0, packets: 0, bytes_per_second: 0, packets_per_second: 0 }
    }

    /// Counts a packet; whether the rates have changed.
    #[inline]
    pub(super) fn add(&mut self, bytes: usize, now: Nanos) -> bool {
        let changed = self.close(now);
        self.bytes += bytes as u64;
        self.packets += 1;
        changed
    }

    /// Ends the window when it is over; whether it was.
    pub(super) fn close(&mut self, now: Nanos) -> bool {
        let passed = now.saturating_sub(self.since);
        if passed < WINDOW {
            return false;
        }
        let per_second = |count: u64| (u128::from(count) * 1_000_000_000 / u128::from(passed)) as u64;
        self.bytes_per_second = per_second(self.bytes);
        self.packets_per_second = per_second(self.packets);
        (self.since, self.bytes, self.packets) = (now, 0, 0);
        true
    }

    pub(super) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    pub(super) fn packets_per_second(&self) -> u64 {
        self.packets_per_second
    }
}

/// The capacity of a link from pairs of packets that were sent back to back: every 16th and the one behind it
/// (draft-sharabayko-srt-01, 3.2.4 and 4.8.1, as UDT measures it).
#[derive(Debug, Default)]
pub(super) struct PairProbe {
    first: Option<(Seq, Nanos)>,
    gaps: [u32; 16],
    next: usize,
}

impl PairProbe {
    /// Takes a packet that is neither reordered nor sent again.
    #[inline]
    pub(super) fn add(&mut self, sequence: Seq, payload: usize, now: Nanos) {
        match sequence.value() % 16 {
            0 => self.first = Some((sequence, now)),
            1 => {
                let Some((first, at)) = self.first.take() else { return };
                // Two that were read at once say nothing about the link.
                let gap = now.saturating_sub(at);
                if first + 1 == sequence && gap > 0 && payload > 0 {
                    // What a packet of full size would have taken.
                    let full = gap.saturating_mul(FULL) / payload as u64;
                    if let Some(place) = self.gaps.get_mut(self.next % 16) {
                        *place = full.clamp(1, u32::MAX.into()) as u32;
                    }
                    self.next += 1;
                }
            }
            _ => {}
        }
    }

    /// Packets of full size per second; 0 while unknown. Gaps far from the median are left out.
    pub(super) fn packets_per_second(&self) -> u32 {
        let mut gaps: Vec<u64> = self.gaps.iter().filter(|&&gap| gap > 0).map(|&gap| gap.into()).collect();
        gaps.sort_unstable();
        let Some(&median) = gaps.get(gaps.len() / 2) else { return 0 };
        gaps.retain(|gap| (median / 8..=median * 8).contains(gap));
        let sum: u64 = gaps.iter().sum();
        (gaps.len() as u64 * 1_000_000_000 / sum.max(1)).min(u32::MAX.into()) as u32
    }
}

fn with_overhead(rate: u64, overhead: u32) -> u64 {
    rate.saturating_add(rate.saturating_mul(overhead.into()) / 100)
}

/// Headers of IPv4, UDP and SRT.
const HEADERS: usize = 20 + 8 + 16;
const FULL: u64 = super::PAYLOAD_MOST as u64;
const WINDOW: Nanos = 500_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn a_cap_lets_its_rate_through_and_prefers_new_packets() {
        // 1 MB/s, bursts of 100 ms: 100 kB.
        let mut cap = Cap::new(Bandwidth::Fixed(1_000_000), 100 * MS, 0);
        let mut again = 0;
        while cap.take_again(956, 0) {
            again += 1;
        }
        assert_eq!(again, 50);
        let mut new = 0;
        while cap.take_new(956, 0) {
            new += 1;
        }
        assert_eq!(new, 50);
        let mut later = 0;
        for ms in 1..=1000 {
            for _ in 0..3 {
                later += u64::from(cap.take_new(956, ms * MS));
            }
        }
        assert!((998..=1001).contains(&later), "{later}");
    }

    #[test]
    fn a_relative_cap_follows_the_stream() {
        let relative = Bandwidth::Relative { input: 0, minimum: 0, overhead: 25 };
        let mut cap = Cap::new(relative, 100 * MS, 0);
        for ms in 0..2000 {
            assert!(cap.take_new(956, ms * MS), "the stream itself is never refused ({ms} ms)");
        }
        let again = (0..2000).filter(|_| cap.take_again(956, 2000 * MS)).count();
        assert!((50..=70).contains(&again), "half of 100 ms at 1.25 MB/s, {again}");
        let given = Bandwidth::Relative { input: 1_000_000, minimum: 0, overhead: 25 };
        assert_eq!(Cap::new(given, 0, 0).rate, 1_250_000);
        assert!((0..100_000).all(|_| Cap::new(Bandwidth::Unlimited, 0, 0).take_new(1316, 0)));
    }

    #[test]
    fn pairs_tell_the_capacity_whatever_strays() {
        let mut probe = PairProbe::default();
        assert_eq!(probe.packets_per_second(), 0);
        for pair in 0u32..16 {
            let gap = if pair == 3 { 500 * MS } else { MS };
            let start = u64::from(pair) * 1000 * MS;
            probe.add(Seq::new(pair * 16), 1456, start);
            probe.add(Seq::new(pair * 16 + 1), 1456, start + gap);
            probe.add(Seq::new(pair * 16 + 2), 1456, start + gap);
        }
        assert_eq!(probe.packets_per_second(), 1000);
    }

    #[test]
    fn a_meter_counts_per_second() {
        let mut meter = Meter::new(0);
        for ms in 0..=500 {
            meter.add(1000, ms * MS);
        }
        assert_eq!((meter.packets_per_second(), meter.bytes_per_second()), (1000, 1_000_000));
    }
}
