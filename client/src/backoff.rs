//! Waiting between attempts: doubling, jittered, bounded.

use rand::Rng;
use std::time::Duration;

/// The wait before attempt `failures + 1`: uniformly between half and the whole of `first * 2^failures`, at most `max`.
pub(crate) fn delay(first: Duration, max: Duration, failures: u32) -> Duration {
    let whole = first.saturating_mul(1u32 << failures.min(20)).min(max);
    whole.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_below_the_bound() {
        let (first, max) = (Duration::from_millis(10), Duration::from_secs(1));
        assert!(delay(first, max, 0) <= first);
        for failures in 0..64 {
            let got = delay(first, max, failures);
            assert!(got <= max && got >= first / 2, "{failures} failures: {got:?}");
        }
        assert!(delay(first, max, 63) >= max / 2);
    }
}
