//! The log on disk: segments, group commit, chain, recovery, purge; and the judge of mirrored entries.
//!
//! The log stores opaque entries by [`RaftIndex`](farshore_types::RaftIndex) and knows nothing of consensus. Its
//! promises: what was reported as flushed is found again after any crash (law 24); damage is never taken for a torn tail
//! (law 24); every persisted byte is covered by a magic, a version and a checksum (law 26); every buffer has a named
//! bound (law 27).
//!
//! Two ways to use it: [`LogFiles`] is synchronous and has no thread, which is what a simulator needs; [`Log`] puts a
//! writer thread around it, so that all appends that wait share one write and one fdatasync.

mod batch;
mod catalogue;
mod chain;
mod classify;
mod disk;
mod error;
mod files;
mod format;
mod hard_state;
mod judge;
mod log;
mod mark;
mod reader;
mod recover;
mod retention;
mod segment;
mod view;
mod writer;

#[cfg(test)]
mod tests;

pub use chain::extend;
pub use disk::{Disk, DiskFile, OsDisk};
pub use error::LogError;
pub use files::{LogFiles, Options};
pub use format::{DEFAULT_SEGMENT_BYTES, MAX_BATCH_BYTES, MAX_ENTRY_BYTES, MIN_SEGMENT_BYTES};
pub use hard_state::{MAX_SMALL_BYTES, SmallFile, SmallFileError};
pub use judge::{Offer, Verdict, judge};
pub use log::{Done, Log};
pub use mark::{FAILURE_MARK, FailureMark};
pub use recover::{Damage, Recovered, TornTail};
pub use retention::{Holder, Retention, retention};
pub use view::CACHE_BYTES;
pub use writer::{QUEUE_BYTES, QUEUE_OPERATIONS};

/// One entry: its index and its bytes, shared with whoever else holds them.
pub type Entry = (farshore_types::RaftIndex, std::sync::Arc<[u8]>);
