//! 31-bit packet numbers enter, their sums, distances and order leave. Never compares them as plain numbers.

use std::ops::{Add, Sub};

/// The number of a data packet: 31 bits that wrap (draft-sharabayko-srt-01, 3.1). Numbers less than 2^30 apart
/// have an order; there is none over all of them, so this is no `Ord`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(u32);

impl Seq {
    /// How many numbers there are: 2^31.
    pub const COUNT: u32 = 1 << 31;

    /// The number in the low 31 bits of `value`.
    pub const fn new(value: u32) -> Self {
        Self(value % Self::COUNT)
    }

    /// 0 to 2^31 − 1.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// How far this number is ahead of `other`, the short way round: −2^30 to 2^30 − 1, negative when behind.
    pub const fn ahead_of(self, other: Self) -> i32 {
        ((self.0.wrapping_sub(other.0) << 1) as i32) >> 1
    }

    /// Whether this number comes before `other`.
    pub const fn is_before(self, other: Self) -> bool {
        self.ahead_of(other) < 0
    }

    /// Whether this number comes after `other`.
    pub const fn is_after(self, other: Self) -> bool {
        self.ahead_of(other) > 0
    }

    /// The later of two numbers.
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    fn add(self, count: u32) -> Self {
        Self::new(self.0.wrapping_add(count))
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    fn sub(self, count: u32) -> Self {
        Self::new(self.0.wrapping_sub(count))
    }
}

impl std::fmt::Debug for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: Seq = Seq::new(Seq::COUNT - 1);

    #[test]
    fn numbers_wrap_at_31_bits() {
        assert_eq!(LAST + 1, Seq::new(0));
        assert_eq!(Seq::new(0) - 1, LAST);
        assert_eq!(Seq::new(u32::MAX), LAST);
        assert_eq!(LAST + u32::MAX, LAST - 1);
    }

    #[test]
    fn order_goes_the_short_way_round() {
        let first = Seq::new(3);
        assert_eq!(first.ahead_of(LAST), 4);
        assert_eq!(LAST.ahead_of(first), -4);
        assert!(LAST.is_before(first) && first.is_after(LAST));
        assert!(!first.is_before(first) && !first.is_after(first));
        assert_eq!(first.later(LAST), first);
        assert_eq!((first + ((1 << 30) - 1)).ahead_of(first), (1 << 30) - 1);
        assert_eq!((first + (1 << 30)).ahead_of(first), -(1 << 30));
    }
}
