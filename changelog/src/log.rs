//! The log for its users: appends answered by callbacks, reads that see what is queued, one writer thread behind.
//!
//! An append is visible to reads at once, and durable when its callback says so. Only what is durable counts as
//! [`Log::flushed`] (law 5). All operations take effect in the order in which they were called.

use crate::Entry;
use crate::catalogue::Catalogue;
use crate::disk::Disk;
use crate::error::LogError;
use crate::files::{LogFiles, Options, lock};
use crate::recover::Recovered;
use crate::view::View;
use crate::writer::{Action, Shared, State, run, run_spares};
use farshore_types::RaftIndex;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Called once, when the operation is durable or has failed; on the writer's thread, or on the caller's for a refusal.
/// It must be short, and must not append: the queue's bound would wait for itself.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// A log with its writer thread. Dropping it does what is queued and ends the thread.
pub struct Log {
    shared: Arc<Shared>,
    catalogue: Arc<Mutex<Catalogue>>,
    entry_bytes_max: usize,
    threads: Vec<JoinHandle<()>>,
}

/// Nothing that changes the log is let in after a failure.
fn admit(state: &State) -> Result<(), LogError> {
    state.failure.clone().map_or(Ok(()), Err)
}

impl Log {
    /// Opens the log in `dir`, making it if there is none.
    pub fn open(dir: &Path, options: Options, disk: Arc<dyn Disk>) -> Result<(Log, Recovered), LogError> {
        let (files, recovered) = LogFiles::open(dir, options, disk)?;
        Ok((Log::start(files, options.cache_bytes)?, recovered))
    }

    /// Puts a writer thread around files that are open.
    pub fn start(files: LogFiles, cache_bytes: usize) -> Result<Log, LogError> {
        let first = files.purged().map_or(0, |purged| purged.0 + 1);
        let view = View::new(first, files.next().0, cache_bytes);
        let shared = Arc::new(Shared::new(view, files.failure()));
        let mut log = Log {
            shared: shared.clone(),
            catalogue: files.catalogue(),
            entry_bytes_max: files.entry_bytes_max(),
            threads: Vec::with_capacity(2),
        };
        let kit = files.spare_kit();
        log.spawn("farshore-log", {
            let shared = shared.clone();
            move || run(shared, files)
        })?;
        log.spawn("farshore-spare", move || run_spares(shared, kit))?;
        Ok(log)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.push(thread.map_err(|error| LogError::io("start a thread for", Path::new("the log"), &error))?);
        Ok(())
    }

    /// Appends entries behind the log's end. Waits while the queue is full.
    pub fn append(&self, entries: Vec<Entry>, done: Done) {
        self.shared.submit(Action::Append(entries), done, |state, ticket, action| {
            admit(state)?;
            let Action::Append(entries) = action else { unreachable!("an append was submitted") };
            for (expected, (index, payload)) in (state.view.next()..).zip(entries) {
                if index.0 != expected {
                    return Err(LogError::NotNext { expected: RaftIndex(expected), got: *index });
                }
                if payload.len() > self.entry_bytes_max {
                    let max = self.entry_bytes_max as u64;
                    return Err(LogError::TooLarge { bytes: payload.len() as u64, max });
                }
            }
            state.view.append(entries, ticket);
            Ok(())
        });
    }

    /// Makes all entries after `last` void (all of them for `None`).
    pub fn truncate_after(&self, last: Option<RaftIndex>, done: Done) {
        let from = RaftIndex(last.map_or(0, |last| last.0 + 1));
        self.shared.submit(Action::Truncate(from), done, |state, _, _| {
            admit(state)?;
            let first = RaftIndex(state.view.first());
            if from < first {
                return Err(LogError::BelowPurged { from, first });
            }
            state.view.truncate(from.0);
            Ok(())
        });
    }

    /// Purges the entries up to `upto` (inclusive); beyond the end, the log continues after it.
    pub fn purge(&self, upto: RaftIndex, done: Done) {
        self.shared.submit(Action::Purge(upto), done, |state, _, _| {
            admit(state)?;
            state.view.purge(upto.0 + 1);
            Ok(())
        });
    }

    /// Gives up what was not trusted at open, so that the log can be refilled (law 24). See [`LogFiles::discard_untrusted`].
    pub fn discard_untrusted(&self, done: Done) {
        self.shared.submit(Action::DiscardUntrusted, done, |state, _, _| match &state.failure {
            None | Some(LogError::Damaged { .. }) => Ok(()),
            Some(failure) => Err(failure.clone()),
        });
    }

    /// Forgets the recorded failure of an earlier run, once the log is refilled (law 24).
    pub fn clear_failure(&self, done: Done) {
        self.shared.submit(Action::ClearFailure, done, |state, _, _| admit(state));
    }

    /// Reads entries of `range` (end exclusive), as many as there are and fit into `max_bytes`; at least one if there is one.
    pub fn read(&self, range: Range<RaftIndex>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        let (from, start, cached) = {
            let state = lock(&self.shared.state);
            let from = range.start.0.max(state.view.first());
            let to = range.end.0.min(state.view.next());
            if from >= to {
                return Ok(Vec::new());
            }
            let (start, cached) = state.view.cached(from, to, max_bytes);
            (from, start, cached)
        };
        if from == start {
            return Ok(cached);
        }
        let mut entries = crate::reader::read(&self.catalogue, from, start, max_bytes)?;
        let complete = entries.last().is_some_and(|(index, _)| index.0 + 1 == start);
        let cost = |entries: &[Entry]| entries.iter().map(|(_, payload)| crate::batch::record_bytes(payload.len())).sum();
        let mut left = max_bytes.saturating_sub(cost(&entries));
        if complete {
            for entry in cached {
                let bytes = cost(std::slice::from_ref(&entry));
                if bytes > left {
                    break;
                }
                left -= bytes;
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// The first kept entry.
    pub fn first(&self) -> Option<RaftIndex> {
        let state = lock(&self.shared.state);
        (state.view.first() < state.view.next()).then(|| RaftIndex(state.view.first()))
    }

    /// The last entry, durable or not.
    pub fn last(&self) -> Option<RaftIndex> {
        let state = lock(&self.shared.state);
        (state.view.first() < state.view.next()).then(|| RaftIndex(state.view.next() - 1))
    }

    /// The index at which the log continues.
    pub fn next(&self) -> RaftIndex {
        RaftIndex(lock(&self.shared.state).view.next())
    }

    /// The last entry purged.
    pub fn purged(&self) -> Option<RaftIndex> {
        lock(&self.shared.state).view.first().checked_sub(1).map(RaftIndex)
    }

    /// The last entry that is durable (law 5).
    pub fn flushed(&self) -> Option<RaftIndex> {
        lock(&self.shared.state).view.flushed().checked_sub(1).map(RaftIndex)
    }

    /// The bytes that the entries from `from` on take, to 64 KiB.
    pub fn bytes_from(&self, from: RaftIndex) -> u64 {
        lock(&self.catalogue).bytes_from(from.0)
    }

    /// The bytes that the segments take on the disk.
    pub fn retained_bytes(&self) -> u64 {
        lock(&self.catalogue).bytes()
    }

    /// Why the log refuses appends, if it does (law 28).
    pub fn failure(&self) -> Option<LogError> {
        lock(&self.shared.state).failure.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A writer that panicked has told its users already; there is nobody left to tell here.
            let _ = thread.join();
        }
    }
}
