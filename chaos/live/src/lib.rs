//! Real processes, started, killed and watched: the harness of the tests in `tests/live`.
//!
//! It knows the binary's command line, its directory and its wire, and nothing of the crates behind them: what it finds
//! true, a user finds true. Worlds run one at a time, each in a directory and on ports of its own, and leave nothing behind,
//! also when a test fails: processes are killed, mounts are taken away, and the ends of all logs are printed.
//!
//! Everything waits with a bound. A mount has a watchdog that aborts its connection, since a process that waits for a
//! file system which never answers cannot even be killed.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a harness fails by panicking: its callers are tests")]

pub mod binary;
pub mod blocks;
mod caller;
pub mod differential;
pub mod document;
mod faults;
pub mod fuse;
pub mod load;
pub mod loopdisk;
mod mount;
pub mod play;
pub mod process;
mod random;
mod shell;
mod topology;
pub mod trace;
pub mod tree;
pub mod world;

pub use caller::Caller;
pub use loopdisk::{LoopDisk, require_loop_disks};
pub use mount::{Mount, MountSpec};
pub use random::Random;
pub use world::{Output, World, WorldOptions, take_turn};

use std::time::{Duration, Instant};

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` has something, and fails with `what` after `bound`.
pub fn wait_for<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + bound;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {} s in vain for: {what}", bound.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
}
