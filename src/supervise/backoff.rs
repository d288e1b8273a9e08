//! The number of an attempt and a random number enter, the wait before it leaves. Holds no clock.

use std::time::Duration;

/// Waits between attempts: `base`, doubled at every attempt up to `cap`, each spread by ± `jitter` so that
/// outputs that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    jitter: f64,
}

/// Why a [`Backoff`] cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidBackoff {
    /// The longest wait is shorter than the first.
    #[error("the longest delay ({cap:?}) is shorter than the first ({base:?})")]
    CapBelowBase {
        /// The first wait.
        base: Duration,
        /// The longest wait.
        cap: Duration,
    },
    /// The longest wait is not something anybody waits for.
    #[error("the longest delay ({0:?}) is more than a day")]
    CapTooLong(Duration),
    /// Not a share between 0 and 1.
    #[error("the jitter ({0}) is not between 0 and 1")]
    Jitter(f64),
}

impl Backoff {
    /// `base` is the wait before the first retry (0 = never wait), `cap` bounds the doubling (at least `base`,
    /// at most a day), `jitter` is the share, 0 to 1, by which a wait may be shorter or longer.
    pub fn new(base: Duration, cap: Duration, jitter: f64) -> Result<Self, InvalidBackoff> {
        if cap < base {
            return Err(InvalidBackoff::CapBelowBase { base, cap });
        }
        if cap > DAY {
            return Err(InvalidBackoff::CapTooLong(cap));
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(InvalidBackoff::Jitter(jitter));
        }
        Ok(Self { base, cap, jitter })
    }

    /// The wait before retry `attempt`, counted from 0; `random` is uniform in `[0, 1)`. Zero only if the base
    /// is zero, never above `cap` × (1 + `jitter`).
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let factor = 1u32.checked_shl(attempt).unwrap_or(u32::MAX);
        self.spread(self.base.saturating_mul(factor).min(self.cap), random)
    }

    /// `delay`, a day at most, made shorter or longer by up to the jitter.
    pub(super) fn spread(&self, delay: Duration, random: f64) -> Duration {
        let random = if (0.0..1.0).contains(&random) { random } else { 0.5 };
        let delay = delay.min(DAY);
        let spread = delay.mul_f64(1.0 + self.jitter * (2.0 * random - 1.0));
        spread.max(delay.min(SHORTEST))
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// A jitter of 1 may take a whole wait away; a caller must never spin.
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff(base: Duration, cap: Duration, jitter: f64) -> Backoff {
        Backoff::new(base, cap, jitter).unwrap()
    }

    #[test]
    fn doubles_from_base_to_cap() {
        let backoff = backoff(5 * SECOND, 30 * SECOND, 0.2);
        let seconds: Vec<u64> = (0..6).map(|n| backoff.delay(n, 0.5).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 30, 30, 30]);
        assert_eq!(backoff.delay(0, 0.0), 4 * SECOND);
        assert!(backoff.delay(0, 0.999_999) > Duration::from_millis(5_999));
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let cap = Backoff::new(6 * SECOND, 5 * SECOND, 0.2);
        assert_eq!(cap, Err(InvalidBackoff::CapBelowBase { base: 6 * SECOND, cap: 5 * SECOND }));
        let long = DAY + Duration::from_nanos(1);
        assert_eq!(Backoff::new(SECOND, long, 0.2), Err(InvalidBackoff::CapTooLong(long)));
        for jitter in [-0.01, 1.01, f64::INFINITY] {
            assert_eq!(Backoff::new(SECOND, SECOND, jitter), Err(InvalidBackoff::Jitter(jitter)));
        }
        assert!(matches!(Backoff::new(SECOND, SECOND, f64::NAN), Err(InvalidBackoff::Jitter(_))));
    }

    proptest! {
        #[test]
        fn stays_between_its_bounds(
            base in 1u64..=86_400_000_000_000,
            more in 0u64..=86_400_000_000_000,
            jitter in 0.0..=1.0f64,
            attempt in prop_oneof![0u32..70, any::<u32>()],
            random in prop_oneof![0.0..1.0f64, any::<f64>()],
        ) {
            let cap = Duration::from_nanos(base.saturating_add(more)).min(DAY);
            let base = Duration::from_nanos(base);
            let delay = backoff(base, cap, jitter).delay(attempt, random);
            let rounding = Duration::from_nanos(1);
            prop_assert!(delay > Duration::ZERO);
            prop_assert!(delay <= cap.mul_f64(1.0 + jitter) + rounding);
            prop_assert!(delay + rounding >= base.mul_f64(1.0 - jitter));
        }

        #[test]
        fn grows_with_the_attempts(base in 1u64..1 << 40, attempt in 0u32..80, random in 0.0..1.0f64) {
            let backoff = backoff(Duration::from_nanos(base), DAY, 0.2);
            prop_assert!(backoff.delay(attempt, random) <= backoff.delay(attempt + 1, random));
        }

        #[test]
        fn any_other_wait_can_be_spread(seconds: u64, jitter in 0.0..=1.0f64, random: f64) {
            let spread = backoff(SECOND, SECOND, jitter).spread(Duration::from_secs(seconds), random);
            prop_assert!(spread <= 2 * DAY && (seconds == 0 || spread > Duration::ZERO));
        }

        #[test]
        fn zero_stays_zero(attempt: u32, random in 0.0..1.0f64) {
            prop_assert_eq!(backoff(Duration::ZERO, SECOND, 0.2).delay(attempt, random), Duration::ZERO);
        }
    }
}
