//! Timestamps of the peer's clock enter, times of the own clock leave: when a packet is to be delivered. Learns how
//! the two clocks drift apart.

use super::Nanos;

/// Timestamp-based packet delivery (draft-sharabayko-srt-01, 4.5).
#[derive(Debug, Clone)]
pub(super) struct Tsbpd {
    /// When the peer's timestamp was 0, on the own clock; before that clock's own 0, perhaps.
    base: i64,
    latency: i64,
    /// The first round-trip time: what `base` contains a half of.
    first_rtt: Option<i64>,
    drift: i64,
    drift_sum: i64,
    drift_samples: i64,
}

impl Tsbpd {
    /// A packet with `timestamp` (microseconds) arrived at `arrival`: the clocks are tied together here.
    pub(super) fn new(arrival: Nanos, timestamp: u32, latency: Nanos) -> Self {
        Self {
            base: signed(arrival) - i64::from(timestamp) * 1000,
            latency: signed(latency.min(LONGEST)),
            first_rtt: None,
            drift: 0,
            drift_sum: 0,
            drift_samples: 0,
        }
    }

    /// Nanoseconds of the connection that a timestamp means when it arrives at `arrival`: the nearest of those
    /// that wrap to it, so that neither the wrap at 2^32 µs nor a long silence across it can mislead (4.5.1.1).
    pub(super) fn unwrap(&self, timestamp: u32, arrival: Nanos) -> i64 {
        let expected = (signed(arrival) - self.base) / 1000;
        let ahead = timestamp.wrapping_sub(expected as u32) as i32;
        (expected + i64::from(ahead)) * 1000
    }

    /// When a packet of that time of the connection is to be delivered.
    #[inline]
    pub(super) fn deliver_at(&self, time: i64) -> Nanos {
        (self.base + time + self.latency + self.drift).max(0) as Nanos
    }

    /// Takes a timestamp that was written just before it was sent, its arrival, and the round-trip time that the
    /// same packet closed. The mean of 1000 is the drift; what of it exceeds 5 ms moves the base (4.7).
    pub(super) fn sample(&mut self, timestamp: u32, arrival: Nanos, rtt: Nanos) {
        let rtt = signed(rtt);
        // Half of what the round trip has changed by is the way here: it is no drift.
        let way = (rtt - *self.first_rtt.get_or_insert(rtt)) / 2;
        let ideal = self.base + self.unwrap(timestamp, arrival);
        self.drift_sum = self.drift_sum.saturating_add(signed(arrival) - ideal - way);
        self.drift_samples += 1;
        if self.drift_samples < DRIFT_SAMPLES {
            return;
        }
        self.drift = self.drift_sum / self.drift_samples;
        (self.drift_sum, self.drift_samples) = (0, 0);
        if self.drift.abs() > DRIFT_MOST {
            let excess = DRIFT_MOST * self.drift.signum();
            self.base += excess;
            self.drift -= excess;
        }
    }

    /// Nanoseconds that the peer's clock has fallen behind, beyond what the base was moved by.
    pub(super) fn drift(&self) -> i64 {
        self.drift
    }
}

fn signed(time: Nanos) -> i64 {
    // The half of the range is 146 years; sums of three stay within it.
    time.min(i64::MAX as u64 / 4) as i64
}

const DRIFT_SAMPLES: i64 = 1000;
const DRIFT_MOST: i64 = 5_000_000;
/// No latency is longer: 16 bits of milliseconds.
const LONGEST: Nanos = 65_536_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;
    const SECOND: Nanos = 1_000 * MS;

    #[test]
    fn a_packet_is_delivered_a_latency_after_its_time() {
        let tsbpd = Tsbpd::new(10 * SECOND, 500_000, 120 * MS);
        let time = tsbpd.unwrap(700_000, 10 * SECOND + 215 * MS);
        assert_eq!(tsbpd.deliver_at(time), 10 * SECOND + 320 * MS);
    }

    #[test]
    fn timestamps_wrap_even_while_nothing_comes() {
        let start = 100 * SECOND;
        let tsbpd = Tsbpd::new(start, u32::MAX - 999, 0);
        for later in [0, 1, 500, 2_000_000, 3 * (1 << 32) + 77] {
            let arrival = start + later * 1000;
            let timestamp = (u64::from(u32::MAX - 999) + later) as u32;
            let time = tsbpd.unwrap(timestamp, arrival + 40 * MS);
            assert_eq!(tsbpd.deliver_at(time), arrival, "{later} µs later");
        }
    }

    #[test]
    fn drift_is_followed_in_both_directions() {
        for ppm in [-200i64, -20, 20, 200] {
            let mut tsbpd = Tsbpd::new(SECOND, 0, 100 * MS);
            let mut worst = 0;
            for step in 0..3_600_000 / 10 {
                let arrival = SECOND + step * 10 * MS;
                let peer = (arrival - SECOND) as i64;
                let timestamp = ((peer + peer * ppm / 1_000_000) / 1000) as u32;
                let error =
                    tsbpd.deliver_at(tsbpd.unwrap(timestamp, arrival)) as i64 - (arrival + 100 * MS) as i64;
                worst = worst.max(error.abs());
                tsbpd.sample(timestamp, arrival, 20 * MS);
            }
            // A mean over 10 s that is used for the next 10 s is at most 20 s old.
            let most = 20_000_000_000 * ppm.abs() / 1_000_000 + 1_000_000;
            assert!(worst <= most, "{ppm} ppm: {worst} ns off");
        }
    }

    #[test]
    fn a_longer_way_is_no_drift() {
        let mut tsbpd = Tsbpd::new(SECOND, 0, 0);
        for step in 0..2000 {
            let sent = SECOND + step * 10 * MS;
            let way = if step < 500 { 0 } else { 30 * MS };
            tsbpd.sample((step * 10_000) as u32, sent + way, 40 * MS + 2 * way);
        }
        assert_eq!(tsbpd.drift(), 0);
    }
}
