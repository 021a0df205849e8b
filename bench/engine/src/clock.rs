//! Elapsed time and this thread's CPU time side by side: on a busy machine only the second is the engine's own.

use serde::Serialize;
use std::time::{Duration, Instant};

/// How long something took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Took {
    pub seconds: f64,
    pub cpu_seconds: f64,
}

impl Took {
    pub fn add(&mut self, other: Took) {
        self.seconds += other.seconds;
        self.cpu_seconds += other.cpu_seconds;
    }
}

/// Runs `work` and times it.
pub fn time<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let (begun, cpu) = (Instant::now(), thread_cpu());
    let result = work();
    (result, Took { seconds: begun.elapsed().as_secs_f64(), cpu_seconds: (thread_cpu() - cpu).as_secs_f64() })
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "every thread has a CPU clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
