//! The Raft log as a cluster sees it, over the segments of `farshore-changelog` or, in the simulator, over memory.

use farshore_types::RaftIndex;
use std::sync::Arc;

/// An entry's bytes and where it stands.
pub type Record = (RaftIndex, Arc<[u8]>);
/// Called once, when the entries are durable or can never be.
pub type Flushed = Box<dyn FnOnce(Result<(), LogFailure>) + Send>;

/// The log's disk failed. The node stops: a failed fsync is never retried as if it had not failed (law 24).
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log failed: {0}")]
pub struct LogFailure(pub String);

/// One node's log. Entries are visible to `read` as soon as `append` returns, durable when its callback says so.
pub trait RaftLog: Send + Sync + 'static {
    fn append(&self, records: Vec<Record>, done: Flushed);
    /// Entries with `from <= index <= to`, at least one if there is any, at most about `max_bytes`.
    fn read(&self, from: RaftIndex, to: RaftIndex, max_bytes: usize) -> Result<Vec<Record>, LogFailure>;
    /// Removes everything above `index`; durable when it returns.
    fn truncate_after(&self, index: RaftIndex) -> Result<(), LogFailure>;
    /// Allows removal of everything up to `upto`, inclusive.
    fn purge(&self, upto: RaftIndex) -> Result<(), LogFailure>;
    /// The last entry, 0 when there was none.
    fn last(&self) -> RaftIndex;
    /// The last durable entry (law 5).
    fn flushed(&self) -> RaftIndex;
    /// Bytes of the entries above `index`, to 64 KiB.
    fn bytes_above(&self, index: RaftIndex) -> u64;
    /// Bytes kept.
    fn retained_bytes(&self) -> u64;
    /// A small durable value: the vote, the purge point.
    fn load_small(&self, name: &str) -> Result<Option<Vec<u8>>, LogFailure>;
    /// Durable when it returns.
    fn store_small(&self, name: &str, bytes: &[u8]) -> Result<(), LogFailure>;
    /// What failed, once something has: since then the log shows nothing that was not flushed.
    fn failure(&self) -> Option<LogFailure>;
    /// Forgets the record of an earlier failed flush: what followed it is refilled (law 24).
    fn forget_failure(&self) -> Result<(), LogFailure>;
}
