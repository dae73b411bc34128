//! A token bucket that limits fetches of unknown keys. No I/O, no clock.

use std::time::Duration;

use crate::time::Timestamp;

/// A token bucket. It starts full.
pub(super) struct TokenBucket {
    capacity: u32,
    /// The time in which one token is added.
    interval: Duration,
    tokens: u32,
    refilled: Timestamp,
}

impl TokenBucket {
    /// A full bucket of `capacity` tokens that gains one each `interval`.
    pub(super) fn new(capacity: u32, interval: Duration) -> Self {
        Self {
            capacity,
            interval,
            tokens: capacity,
            refilled: Timestamp::from_millis(0),
        }
    }

    /// Takes a token; `false` if there is none.
    pub(super) fn take(&mut self, now: Timestamp) -> bool {
        while self.tokens < self.capacity && self.refilled.plus(self.interval) <= now {
            self.tokens = self.tokens.saturating_add(1);
            self.refilled = self.refilled.plus(self.interval);
        }
        // A full bucket gains nothing.
        if self.tokens >= self.capacity {
            self.refilled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(tokens) => {
                self.tokens = tokens;
                true
            }
            None => false,
        }
    }

    /// The time from which [`TokenBucket::take`] succeeds.
    pub(super) fn next_token(&self) -> Timestamp {
        if self.tokens > 0 {
            self.refilled
        } else {
            self.refilled.plus(self.interval)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + millis)
    }

    fn taken(bucket: &mut TokenBucket, millis: u64) -> usize {
        std::iter::from_fn(|| bucket.take(at(millis)).then_some(())).count()
    }

    #[test]
    fn refills_one_token_per_interval_up_to_capacity() {
        let mut bucket = TokenBucket::new(20, INTERVAL);
        assert_eq!(taken(&mut bucket, 0), 20);
        assert_eq!(taken(&mut bucket, 99), 0);
        assert_eq!(taken(&mut bucket, 550), 5);
        assert_eq!(taken(&mut bucket, 100_000), 20);
    }

    #[test]
    fn keeps_the_rate_at_odd_times() {
        let mut bucket = TokenBucket::new(20, INTERVAL);
        taken(&mut bucket, 0);
        let granted = (1..=1000).filter(|step| bucket.take(at(step * 99))).count();
        assert_eq!(granted, 990);
    }

    #[test]
    fn returns_the_time_of_the_next_token() {
        let mut bucket = TokenBucket::new(2, INTERVAL);
        assert!(bucket.next_token() <= at(0));
        bucket.take(at(0));
        assert!(bucket.next_token() <= at(0));
        bucket.take(at(0));
        assert_eq!(bucket.next_token(), at(100));
        assert!(!bucket.take(at(99)));
        assert!(bucket.take(at(100)));
    }
}
