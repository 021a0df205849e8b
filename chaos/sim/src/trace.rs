//! Every event of a world as a line of text. Two runs of one seed must yield equal lines; a failure prints the last ones.

use openraft_rt_sim::SimInstant;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines kept; a world that says more than this is told from its first lines (bound of memory).
const LINES: usize = 400_000;

/// The trace of one world, and what it found to be wrong.
#[derive(Default)]
pub struct Trace {
    lines: Mutex<Vec<String>>,
    broken: Mutex<Option<String>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Virtual microseconds since the world began.
pub fn now_us() -> u64 {
    SimInstant::try_now().map_or(0, |now| now.elapsed_since_start().as_micros() as u64)
}

impl Trace {
    /// Adds a line with the virtual time.
    pub fn say(&self, line: impl AsRef<str>) {
        let mut lines = lock(&self.lines);
        if lines.len() < LINES {
            lines.push(format!("{:>10} {}", now_us(), line.as_ref()));
        }
    }

    /// Something is wrong; the first such finding counts.
    pub fn broken(&self, what: impl Into<String>) {
        let what = what.into();
        self.say(format!("BROKEN {what}"));
        lock(&self.broken).get_or_insert(what);
    }

    /// What was found to be wrong, if anything.
    pub fn verdict(&self) -> Option<String> {
        lock(&self.broken).clone()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }
}
