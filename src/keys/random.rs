//! A small random number generator for draws among queued key ids. Not for secrets. No I/O: the
//! seed is an argument.

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    /// A generator with numbers determined by `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `count - 1`; 0 if `count` is 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        let count = u128::try_from(count).unwrap_or_default();
        let scaled = u128::from(self.next()).wrapping_mul(count) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform() {
        let mut random = Random::new(1);
        let mut counts = [0; 7];
        for _ in 0..7000 {
            counts[random.below(7)] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
        assert_eq!(random.below(0), 0);
    }
}
