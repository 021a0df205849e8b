//! Many times, and what share of them was below what.

use serde::Serialize;
use std::time::Duration;

/// Times of one measurement; bounded by its length and by the callers, who each wait for an answer.
#[derive(Debug, Default)]
pub struct Times(Vec<f64>);

/// What a closed loop of callers reached.
#[derive(Debug, Serialize)]
pub struct LoadFigures {
    pub callers: usize,
    pub seconds: f64,
    pub ops: usize,
    pub ops_per_second: f64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

impl Times {
    pub fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    pub fn add_seconds(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    pub fn extend(&mut self, other: Times) {
        self.0.extend(other.0);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time in milliseconds that `share` (0 to 1) did not exceed; `None` when there was none at all.
    pub fn quantile_ms(&mut self, share: f64) -> Option<f64> {
        self.0.sort_unstable_by(f64::total_cmp);
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).map(|seconds| seconds * 1e3)
    }

    pub fn load(mut self, callers: usize, ran: Duration) -> LoadFigures {
        let (ops, seconds) = (self.count(), ran.as_secs_f64());
        let (p50_ms, p99_ms) = (self.quantile_ms(0.5), self.quantile_ms(0.99));
        LoadFigures { callers, seconds, ops, ops_per_second: ops as f64 / seconds, p50_ms, p99_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times_and_none_of_nothing() {
        let mut times = Times::default();
        assert_eq!(times.quantile_ms(0.5), None);
        (1..=1000).rev().for_each(|second| times.add_seconds(f64::from(second)));
        assert_eq!(times.quantile_ms(0.5), Some(501_000.0));
        assert_eq!(times.quantile_ms(0.99), Some(991_000.0));
        let figures = times.load(4, Duration::from_secs(500));
        assert_eq!((figures.ops, figures.ops_per_second), (1000, 2.0));
    }
}
