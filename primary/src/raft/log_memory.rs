//! A log in memory, for the simulator: durable after a delay that the caller steers, or at once.

use super::log::{Flushed, LogFailure, RaftLog, Record};
use farshore_types::RaftIndex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Inner {
    records: BTreeMap<u64, Arc<[u8]>>,
    last: u64,
    flushed: u64,
    small: BTreeMap<String, Vec<u8>>,
    waiting: VecDeque<(u64, Flushed)>,
    delayed: bool,
    failure: Option<LogFailure>,
}

/// The log. Clones share it; a clone that outlives a node is its disk.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Inner>>);

impl MemoryLog {
    /// A log whose appends wait for [`MemoryLog::flush`].
    pub fn delayed() -> Self {
        MemoryLog(Arc::new(Mutex::new(Inner { delayed: true, ..Inner::default() })))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("no one panics while holding the log")
    }

    /// Makes everything appended so far durable and says so; returns whether there was anything.
    pub fn flush(&self) -> bool {
        let done: Vec<Flushed> = {
            let mut inner = self.inner();
            inner.flushed = inner.last;
            inner.waiting.drain(..).map(|(_, done)| done).collect()
        };
        let any = !done.is_empty();
        done.into_iter().for_each(|done| done(Ok(())));
        any
    }

    /// A flush failed: nothing that waits for it will ever be durable, and everybody hears so.
    pub fn fail(&self, why: &str) {
        let failure = LogFailure(why.to_owned());
        let done: Vec<Flushed> = {
            let mut inner = self.inner();
            inner.failure = Some(failure.clone());
            let flushed = inner.flushed;
            inner.records.retain(|&index, _| index <= flushed);
            inner.last = flushed;
            inner.waiting.drain(..).map(|(_, done)| done).collect()
        };
        done.into_iter().for_each(|done| done(Err(failure.clone())));
    }

    /// What a kill leaves: everything that was not flushed is gone.
    pub fn crash(&self) {
        let mut inner = self.inner();
        inner.waiting.clear();
        let flushed = inner.flushed;
        inner.records.retain(|&index, _| index <= flushed);
        inner.last = flushed;
    }

    /// The same as a log of its own: tasks of the dead process, which do not know yet that it is dead, change it no more.
    pub fn survivor(&self) -> MemoryLog {
        let inner = self.inner();
        let records = inner.records.iter().filter(|(index, _)| **index <= inner.flushed);
        MemoryLog(Arc::new(Mutex::new(Inner {
            records: records.map(|(index, record)| (*index, record.clone())).collect(),
            last: inner.flushed,
            flushed: inner.flushed,
            small: inner.small.clone(),
            waiting: VecDeque::new(),
            delayed: inner.delayed,
            failure: None,
        })))
    }
}

impl RaftLog for MemoryLog {
    fn append(&self, records: Vec<Record>, done: Flushed) {
        let mut inner = self.inner();
        for (index, bytes) in records {
            inner.last = index.0;
            inner.records.insert(index.0, bytes);
        }
        let last = inner.last;
        if inner.delayed {
            inner.waiting.push_back((last, done));
        } else {
            inner.flushed = last;
            drop(inner);
            done(Ok(()));
        }
    }

    fn read(&self, from: RaftIndex, to: RaftIndex, max_bytes: usize) -> Result<Vec<Record>, LogFailure> {
        if to < from {
            return Ok(vec![]);
        }
        let inner = self.inner();
        let mut bytes = 0;
        let mut records: Vec<Record> = vec![];
        for (&index, record) in inner.records.range(from.0..=to.0) {
            if !records.is_empty() && bytes + record.len() > max_bytes {
                break;
            }
            bytes += record.len();
            records.push((RaftIndex(index), record.clone()));
        }
        Ok(records)
    }

    fn truncate_after(&self, index: RaftIndex) -> Result<(), LogFailure> {
        let mut inner = self.inner();
        inner.records.retain(|&at, _| at <= index.0);
        inner.last = inner.last.min(index.0);
        inner.flushed = inner.flushed.min(index.0);
        Ok(())
    }

    fn purge(&self, upto: RaftIndex) -> Result<(), LogFailure> {
        let mut inner = self.inner();
        inner.records.retain(|&at, _| at > upto.0);
        inner.last = inner.last.max(upto.0);
        inner.flushed = inner.flushed.max(upto.0);
        Ok(())
    }

    fn last(&self) -> RaftIndex {
        let inner = self.inner();
        RaftIndex(inner.records.last_key_value().map_or(0, |(&index, _)| index))
    }

    fn flushed(&self) -> RaftIndex {
        RaftIndex(self.inner().flushed)
    }

    fn bytes_above(&self, index: RaftIndex) -> u64 {
        self.inner().records.range(index.0 + 1..).map(|(_, record)| record.len() as u64).sum()
    }

    fn retained_bytes(&self) -> u64 {
        self.inner().records.values().map(|record| record.len() as u64).sum()
    }

    fn load_small(&self, name: &str) -> Result<Option<Vec<u8>>, LogFailure> {
        Ok(self.inner().small.get(name).cloned())
    }

    fn store_small(&self, name: &str, bytes: &[u8]) -> Result<(), LogFailure> {
        self.inner().small.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn failure(&self) -> Option<LogFailure> {
        self.inner().failure.clone()
    }

    fn forget_failure(&self) -> Result<(), LogFailure> {
        Ok(())
    }
}
