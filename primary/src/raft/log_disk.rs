//! The Raft log on disk: segments of `farshore-changelog`, and small durable files for vote and purge point.

use super::log::{Flushed, LogFailure, RaftLog, Record};
use super::log_store::stored;
use super::types::LogId;
use crate::wholeness::{PURGED, VOTE, WHOLENESS, Wholeness};
use farshore_changelog::{Disk, FAILURE_MARK, Log, LogError, Options, Recovered, SmallFile, SmallFileError};
use farshore_types::{GroupId, RaftIndex};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

const SEGMENTS: &str = "segments";

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskLogError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Small(#[from] SmallFileError),
    #[error("cannot {action} {path}: {error}")]
    Io { action: &'static str, path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Failed(#[from] LogFailure),
}

/// What lies in a log's directory.
#[derive(Debug, Default)]
pub struct Found {
    pub vote: Option<Vec<u8>>,
    pub wholeness: Option<Vec<u8>>,
    /// There is a log.
    pub segments: bool,
    /// Small files of which no copy can be read.
    pub damaged: Vec<PathBuf>,
}

fn listed(directory: &Path, disk: &Arc<dyn Disk>) -> Result<Vec<String>, DiskLogError> {
    match disk.list(directory) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(DiskLogError::Io { action: "list", path: directory.to_owned(), error }),
    }
}

/// A node's log on disk.
pub struct DiskLog {
    log: Log,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    small: Mutex<BTreeMap<String, SmallFile>>,
}

/// The segments count from 0, the trait from 1.
fn below(index: RaftIndex) -> RaftIndex {
    RaftIndex(index.0.saturating_sub(1))
}

fn failed(error: impl std::fmt::Display) -> LogFailure {
    LogFailure(error.to_string())
}

impl DiskLog {
    /// Opens the log of a directory, which is created; says what recovery found.
    pub fn open(directory: &Path, group: GroupId, disk: Arc<dyn Disk>) -> Result<(DiskLog, Recovered), DiskLogError> {
        let (log, recovered) = Log::open(&directory.join(SEGMENTS), Options::new(group), disk.clone())?;
        let opened = DiskLog { log, disk, directory: directory.to_owned(), small: Mutex::default() };
        if opened.log.failure().is_none() {
            opened.finish_purge()?;
        }
        Ok((opened, recovered))
    }

    /// What a directory holds before its log is opened: nothing of it is changed.
    pub fn look(directory: &Path, disk: &Arc<dyn Disk>) -> Result<Found, DiskLogError> {
        let mut found = Found::default();
        let mark = Path::new(SEGMENTS).join(FAILURE_MARK);
        for (name, value) in [
            (Path::new(VOTE), &mut found.vote),
            (Path::new(PURGED), &mut None),
            (Path::new(WHOLENESS), &mut found.wholeness),
            (&mark, &mut None),
        ] {
            match SmallFile::open(disk.clone(), &directory.join(name)) {
                Ok(file) => *value = file.load().map(<[u8]>::to_vec),
                Err(SmallFileError::Damaged { path }) => found.damaged.push(path),
                Err(error) => return Err(error.into()),
            }
        }
        found.segments = !listed(&directory.join(SEGMENTS), disk)?.is_empty();
        Ok(found)
    }

    /// Gives up the whole log, and the vote too if the wholeness says that it is lost. The wholeness is durable before
    /// anything goes, so that no crash leaves a log that is short and a node that votes.
    pub fn give_up(directory: &Path, disk: &Arc<dyn Disk>, wholeness: &Wholeness) -> Result<(), DiskLogError> {
        SmallFile::anew(disk.clone(), &directory.join(WHOLENESS)).store(&wholeness.encode())?;
        let vote = matches!(wholeness, Wholeness::Lost { .. }).then_some(VOTE);
        let segments = directory.join(SEGMENTS);
        let mut gone: Vec<PathBuf> = [Some(PURGED), vote].into_iter().flatten().map(|name| directory.join(name)).collect();
        gone.extend(listed(&segments, disk)?.into_iter().map(|name| segments.join(name)));
        for path in gone {
            match disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DiskLogError::Io { action: "remove", path, error });
                }
                _ => {}
            }
        }
        for path in [segments.as_path(), directory] {
            match disk.sync_dir(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DiskLogError::Io { action: "flush", path: path.to_owned(), error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives up what recovery did not trust: the log ends before it, or where it was purged to (law 24).
    pub fn discard_untrusted(&self) -> Result<(), LogFailure> {
        self.wait(|log, done| log.discard_untrusted(done))?;
        self.finish_purge()
    }

    /// A purge that a crash broke off after its point was noted is done now. A log that ends below that point, since a
    /// snapshot took its place or its beginning was damaged, goes on behind it.
    fn finish_purge(&self) -> Result<(), LogFailure> {
        let Some(bytes) = self.load_small(PURGED)? else { return Ok(()) };
        let purged: LogId = postcard::from_bytes(&bytes).map_err(failed)?;
        self.purge(stored(purged.index))
    }

    /// Submits a change of the log and waits until it is durable.
    fn wait(&self, submit: impl FnOnce(&Log, farshore_changelog::Done)) -> Result<(), LogFailure> {
        let (done, waiting) = mpsc::channel();
        submit(&self.log, Box::new(move |result| drop(done.send(result))));
        waiting.recv().map_err(|_| failed("the log's writer is gone"))?.map_err(failed)
    }

    fn with_small<T>(&self, name: &str, act: impl FnOnce(&mut SmallFile) -> Result<T, SmallFileError>) -> Result<T, LogFailure> {
        let mut small = self.small.lock().expect("no one panics while holding the small files");
        if !small.contains_key(name) {
            let file = SmallFile::open(self.disk.clone(), &self.directory.join(name)).map_err(failed)?;
            small.insert(name.to_owned(), file);
        }
        act(small.get_mut(name).expect("it was inserted above")).map_err(failed)
    }
}

impl RaftLog for DiskLog {
    fn append(&self, records: Vec<Record>, done: Flushed) {
        let entries = records.into_iter().map(|(index, bytes)| (below(index), bytes)).collect();
        let began = Instant::now();
        let flushed = move |result: Result<(), LogError>| {
            crate::telemetry::flushed(began.elapsed());
            done(result.map_err(failed));
        };
        self.log.append(entries, Box::new(flushed));
    }

    fn read(&self, from: RaftIndex, to: RaftIndex, max_bytes: usize) -> Result<Vec<Record>, LogFailure> {
        let end = RaftIndex(to.0.min(self.log.next().0));
        if end < from {
            return Ok(vec![]);
        }
        let entries = self.log.read(below(from)..end, max_bytes).map_err(failed)?;
        Ok(entries.into_iter().map(|(index, bytes)| (RaftIndex(index.0 + 1), bytes)).collect())
    }

    fn truncate_after(&self, index: RaftIndex) -> Result<(), LogFailure> {
        let last = index.0.checked_sub(1).map(RaftIndex);
        self.wait(|log, done| log.truncate_after(last, done))
    }

    fn purge(&self, upto: RaftIndex) -> Result<(), LogFailure> {
        self.wait(|log, done| log.purge(below(upto), done))
    }

    fn last(&self) -> RaftIndex {
        self.log.last().map_or(RaftIndex(0), |last| RaftIndex(last.0 + 1))
    }

    fn flushed(&self) -> RaftIndex {
        self.log.flushed().map_or(RaftIndex(0), |flushed| RaftIndex(flushed.0 + 1))
    }

    fn bytes_above(&self, index: RaftIndex) -> u64 {
        // The log on disk counts from 0.
        self.log.bytes_from(index)
    }

    fn retained_bytes(&self) -> u64 {
        self.log.retained_bytes()
    }

    fn load_small(&self, name: &str) -> Result<Option<Vec<u8>>, LogFailure> {
        self.with_small(name, |file| Ok(file.load().map(<[u8]>::to_vec)))
    }

    fn store_small(&self, name: &str, bytes: &[u8]) -> Result<(), LogFailure> {
        self.with_small(name, |file| file.store(bytes))
    }

    fn failure(&self) -> Option<LogFailure> {
        self.log.failure().map(failed)
    }

    fn forget_failure(&self) -> Result<(), LogFailure> {
        self.wait(|log, done| log.clear_failure(done))
    }
}
