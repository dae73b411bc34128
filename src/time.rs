//! Points in time, passed as arguments. No clock.

use std::time::Duration;

/// The current time of two clocks: the wall clock, which can be set, for token expiry, and a steady
/// clock for waiting.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the Unix epoch.
    pub wall: Timestamp,
    /// Since an arbitrary moment; it never goes back.
    pub steady: Timestamp,
}

/// Clocks that are asked only when a time is needed: in a Wasm VM, each question is a host call.
pub trait Clocks {
    /// The wall clock; `None` if it cannot be read.
    fn wall(&self) -> Option<Timestamp>;
    /// The steady clock; `None` if it cannot be read.
    fn steady(&self) -> Option<Timestamp>;
}

impl Clocks for Now {
    fn wall(&self) -> Option<Timestamp> {
        Some(self.wall)
    }

    fn steady(&self) -> Option<Timestamp> {
        Some(self.steady)
    }
}

/// Whole milliseconds since an epoch: Unix's, or the steady clock's. Sums saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The time `seconds` after the epoch, the unit of a JWT's `exp` (RFC 7519, section 2,
    /// NumericDate).
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This time minus `by`.
    pub fn minus(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// This time plus `by`.
    pub fn plus(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// The duration from this time until `later`; zero if `later` is in the past.
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
    fn duration_until_a_past_time_is_zero() {
        let (early, late) = (Timestamp::from_seconds(1), Timestamp::from_seconds(3));
        assert_eq!(early.until(late), Duration::from_secs(2));
        assert_eq!(late.until(early), Duration::ZERO);
    }
}
