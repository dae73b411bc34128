//! Points in time, as arguments. Nothing here may ask a clock.

use std::time::Duration;

/// The time by two clocks: tokens expire by the wall clock, which can be set; waits end by one that
/// cannot.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the Unix epoch.
    pub wall: Timestamp,
    /// Since some moment of its own; it never goes back.
    pub steady: Timestamp,
}

/// A time in whole milliseconds since an epoch: Unix's, or a steady clock's own. Sums saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The time `seconds` seconds after the epoch: the unit of a JWT's `exp` (RFC 7519, section 2,
    /// NumericDate).
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This time, moved `by` into the past.
    pub fn minus(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// This time, moved `by` into the future.
    pub fn plus(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long it is from here until `later`; zero if that is past.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_instead_of_wrapping() {
        let end = Timestamp::from_millis(u64::MAX);
        assert_eq!(end.plus(Duration::MAX), end);
        assert_eq!(Timestamp::from_seconds(u64::MAX), end);
    }

    #[test]
    fn a_past_time_is_zero_away() {
        let (early, late) = (Timestamp::from_seconds(1), Timestamp::from_seconds(3));
        assert_eq!(early.until(late), Duration::from_secs(2));
        assert_eq!(late.until(early), Duration::ZERO);
    }
}
