//! Bounds of what a worker moves: bytes in memory, and bytes a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Bytes that may pass at once after a pause, as time at full bandwidth.
const BURST: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Throttle {
    inflight: Semaphore,
    inflight_max: u32,
    bytes_per_second: Option<u64>,
    /// When everything admitted so far has passed, at full bandwidth.
    busy_until: Mutex<Option<Instant>>,
}

impl Throttle {
    pub fn new(inflight: u64, bytes_per_second: Option<u64>) -> Throttle {
        let inflight_max = inflight.clamp(1, u64::from(u32::MAX >> 1)) as u32;
        let inflight = Semaphore::new(inflight_max as usize);
        Throttle { inflight, inflight_max, bytes_per_second, busy_until: Mutex::default() }
    }

    /// Waits until so many bytes may be in memory, and pass.
    pub async fn admit(&self, bytes: u32) -> SemaphorePermit<'_> {
        let permit = self.inflight.acquire_many(bytes.min(self.inflight_max)).await;
        let permit = permit.expect("the semaphore is never closed");
        if let Some(at) = self.turn(u64::from(bytes), Instant::now()) {
            tokio::time::sleep_until(at).await;
        }
        permit
    }

    fn turn(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_second?.max(1);
        let mut busy = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let start = busy.unwrap_or(now).max(now);
        *busy = Some(start + Duration::from_secs_f64(bytes as f64 / rate as f64));
        start.checked_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_27_bandwidth_is_a_bound() {
        let throttle = Throttle::new(1 << 20, Some(1000));
        let now = Instant::now() + BURST;
        let mut last = now;
        for _ in 0..100 {
            last = throttle.turn(500, now).unwrap();
        }
        assert_eq!(last + BURST - now, Duration::from_millis(99 * 500));
        assert_eq!(Throttle::new(1, None).turn(1 << 30, now), None);
    }
}
