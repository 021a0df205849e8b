//! What the clients of the world say: what was answered to them, and what their directories must hold in the end.

use farshore_types::{Ino, Outcome, Sequence, SessionId, SliceId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file as its only writer knows it from answers alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileKnown {
    pub ino: Ino,
    pub size: u64,
    /// The newest slice that must be visible.
    pub slice: Option<SliceId>,
}

/// A directory that one session made and wrote.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    pub name: String,
    pub ino: Option<Ino>,
    pub files: BTreeMap<String, FileKnown>,
    /// Names of which an operation was in doubt when the session ended.
    pub unknown: BTreeSet<String>,
}

/// An answer that a client got.
#[derive(Clone, Debug)]
pub struct Answered {
    pub session: SessionId,
    pub sequence: Sequence,
    pub outcome: Outcome,
}

/// The board.
#[derive(Default)]
pub struct Board {
    answers: Mutex<Vec<Answered>>,
    directories: Mutex<BTreeMap<String, Directory>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub fn answered(&self, answer: Answered) {
        lock(&self.answers).push(answer);
    }

    /// The answers since the last call.
    pub fn take_answers(&self) -> Vec<Answered> {
        std::mem::take(&mut *lock(&self.answers))
    }

    /// How a directory must look now.
    pub fn publish(&self, directory: &Directory) {
        lock(&self.directories).insert(directory.name.clone(), directory.clone());
    }

    pub fn directories(&self) -> Vec<Directory> {
        lock(&self.directories).values().cloned().collect()
    }
}
