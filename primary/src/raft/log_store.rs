//! openraft's log storage over a [`RaftLog`].
//!
//! openraft counts from 0, our log from 1, so that 0 can stand for "nothing yet" everywhere: [`stored`] is the mapping.

use super::applier::Committed;
use super::log::{LogFailure, RaftLog};
use super::types::{Entry, LogId, Types};
use crate::wholeness::{PURGED, VOTE};
use farshore_types::RaftIndex;
use futures::Stream;
use openraft::alias::VoteOf;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{AsyncRuntime, LogState, OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use tokio::sync::Notify;

/// Largest answer to one read of entries, in bytes (law 27).
const READ_BYTES: usize = 4 << 20;

/// The adapter. Clones share one log.
pub struct LogStore<R> {
    log: Arc<dyn RaftLog>,
    flushed: Arc<Notify>,
    committed: Committed,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Clone for LogStore<R> {
    fn clone(&self) -> Self {
        LogStore::new(self.log.clone(), self.flushed.clone(), self.committed.clone())
    }
}

impl<R> LogStore<R> {
    /// `flushed` is notified whenever entries became durable; `committed` hears what is committed.
    pub fn new(log: Arc<dyn RaftLog>, flushed: Arc<Notify>, committed: Committed) -> Self {
        LogStore { log, flushed, committed, runtime: PhantomData }
    }

    fn small<T: serde::de::DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let bytes = self.log.load_small(name).map_err(failed)?;
        bytes.map(|bytes| postcard::from_bytes(&bytes).map_err(|error| damaged(name, error))).transpose()
    }
}

/// Where an entry of openraft stands in our log.
pub fn stored(raft_index: u64) -> RaftIndex {
    RaftIndex(raft_index + 1)
}

fn failed(error: LogFailure) -> io::Error {
    io::Error::other(error)
}

fn damaged(what: &str, error: postcard::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} in the log cannot be read: {error}"))
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("Raft's types always serialise into memory")
}

/// Both ends of a range, inclusive; it does not end before 0.
fn inclusive(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index - 1,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl<R: AsyncRuntime> LogStore<R> {
    fn entries(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let records = self.log.read(stored(from), RaftIndex(to.saturating_add(1)), max_bytes).map_err(failed)?;
        records.iter().map(|(_, bytes)| postcard::from_bytes(bytes).map_err(|error| damaged("an entry", error))).collect()
    }

    /// Whoever applies may hear of a failed flush before whoever appended: the error is the same, and names the disk's own.
    fn lacking(&self, from: u64, to: u64) -> io::Error {
        let lacking = || io::Error::other(format!("the log lacks committed entries of {from} to {to}"));
        self.log.failure().map_or_else(lacking, failed)
    }
}

impl<R: AsyncRuntime> RaftLogReader<Types<R>> for LogStore<R> {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: B,
    ) -> io::Result<Vec<Entry>> {
        if matches!(range.end_bound(), Bound::Excluded(&0)) {
            return Ok(vec![]);
        }
        let (from, to) = inclusive(&range);
        if to < from {
            return Ok(vec![]);
        }
        self.entries(from, to, usize::MAX)
    }

    /// What is to be applied is all there, or the log has failed: it shows no entry any more that was not flushed.
    async fn entries_stream<B>(&mut self, range: B) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = inclusive(&range);
        let read = self.entries(from, to, usize::MAX);
        let read = read.and_then(|entries| match entries.last() {
            Some(last) if last.log_id.index == to && entries.len() as u64 == to + 1 - from => Ok(entries),
            _ => Err(self.lacking(from, to)),
        });
        let items: Vec<io::Result<Entry>> = match read {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        futures::stream::iter(items)
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types<R>>>> {
        self.small(VOTE)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if end <= start {
            return Ok(vec![]);
        }
        self.entries(start, end - 1, READ_BYTES)
    }
}

impl<R: AsyncRuntime> RaftLogStorage<Types<R>> for LogStore<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<R>>> {
        let purged: Option<LogId> = self.small(PURGED)?;
        let last = self.log.last();
        let last_entry = if last.0 > 0 { self.entries(last.0 - 1, last.0 - 1, READ_BYTES)?.pop() } else { None };
        let last_log_id = last_entry.map(|entry| entry.log_id).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types<R>>) -> io::Result<()> {
        self.log.store_small(VOTE, &encode(vote)).map_err(failed)
    }

    /// Not kept on the disk: it only says how far the state machine may read ahead.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.committed.raise(stored(committed.index));
        }
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| (stored(entry.log_id.index), encode(&entry).into())).collect();
        let flushed = self.flushed.clone();
        let done = move |result: Result<(), LogFailure>| {
            flushed.notify_waiters();
            callback.io_completed(result.map_err(failed));
        };
        self.log.append(records, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last.map_or(RaftIndex(0), |id| stored(id.index))).map_err(failed)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        // The purge point first: a log that starts above its recorded purge point could not say what lies below.
        self.log.store_small(PURGED, &encode(&log_id)).map_err(failed)?;
        self.log.purge(stored(log_id.index)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::log_memory::MemoryLog;
    use super::*;
    use futures::TryStreamExt;
    use openraft::TokioRuntime;

    #[tokio::test]
    async fn an_applier_that_hears_first_of_a_failed_flush_is_told_its_cause() {
        let log = MemoryLog::delayed();
        let mut store: LogStore<TokioRuntime> = LogStore::new(Arc::new(log.clone()), Arc::default(), Committed::default());
        log.append(vec![(stored(0), Arc::from([]))], Box::new(drop));
        log.fail("no such sector");
        let read: io::Result<Vec<Entry>> = store.entries_stream(0..=0).await.try_collect().await;
        assert!(read.unwrap_err().to_string().contains("no such sector"));
    }
}
