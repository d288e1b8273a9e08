//! The one place where time is read: the monotonic clock that shards run on, and the wall clock.

#![allow(clippy::disallowed_methods, reason = "the home of the clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds of `CLOCK_MONOTONIC`, the same in every thread and process of this host.
pub fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of `CLOCK_REALTIME` since the Unix epoch; kernel receive stamps are in this clock.
pub fn realtime() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// The wall clock.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since the Unix epoch.
pub fn wall_ms() -> u64 {
    realtime() / 1_000_000
}

/// The wall-clock time of that many milliseconds since the Unix epoch.
pub fn from_wall_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the whole call.
    unsafe { libc::clock_gettime(clock, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}
