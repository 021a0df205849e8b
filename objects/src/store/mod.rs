//! Objects in a directory, on one machine: what a `file://` bucket and the embedded S3 server are made of.
//!
//! Owns the directory: paths of keys, bytes of files, what is durable when. Knows no network and no async: callers run
//! it on threads that may block.
//!
//! An object's file appears whole or not at all: it is written aside under `.tmp`, flushed, linked or renamed to its
//! name, and the directory flushed, before anyone hears of success (law 24). A conditional write is a `link(2)`, which
//! fails when the name exists, also against another process. A failed flush is never retried: from then on the store
//! refuses writes.
//!
//! Several processes may share a directory ([`Sharing::Shared`]); a server takes it for itself, because only then do
//! readers never see an object before its name is durable.

mod error;
pub mod format;
mod list;
mod path;
mod read;
mod temporary;
mod write;

pub use error::StoreError;
pub use format::{FormatError, Md5Tag, ObjectInfo};
pub use list::{ListRequest, Listed, Page};
pub use path::{KEY_BYTES_MAX, PART_BYTES_MAX};
pub use read::Reader;
pub use write::{Condition, Parked, Published, Writer};

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

/// Locks that keys are spread over; two keys of one lock wait for each other for one flush of a directory.
const KEY_LOCKS: usize = 256;
/// Directories remembered as durable. When full, all are forgotten, which costs a flush each and no more.
const DURABLE_DIRECTORIES_MAX: usize = 65_536;
/// Says that a directory is a store, and of which version.
const MARKER_NAME: &str = ".farshore-bucket";
const MARKER: &[u8] = b"farshore bucket directory, version 1\n";
const LOCK_NAME: &str = ".lock";
const TEMPORARY_NAME: &str = ".tmp";

/// Who else may use the directory at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody.
    Alone,
    /// Other processes that say the same.
    Shared,
}

/// A directory of objects.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    sharing: Sharing,
    /// Set by the first flush that failed, never cleared.
    writes_refused: AtomicBool,
    key_locks: Vec<RwLock<()>>,
    /// Directories below the root whose names are durable; empty when others use the root too.
    durable_directories: Mutex<HashSet<PathBuf>>,
    /// Drawn at random: names of temporary files never meet those of another store, not even one in another container
    /// whose processes have the same ids.
    temporary_origin: u64,
    temporary_sequence: AtomicU64,
    /// Held as long as the store lives.
    _directory_lock: File,
}

impl Store {
    /// Opens the store in `root`, made when it is missing or empty. Removes what an interrupted process left.
    pub fn open(root: &Path, sharing: Sharing) -> Result<Store, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io("create", root))?;
        let root = root.canonicalize().map_err(StoreError::io("resolve", root))?;
        mark(&root)?;
        let lock = lock(&root, sharing)?;
        let temporary = root.join(TEMPORARY_NAME);
        fs::create_dir_all(&temporary).map_err(StoreError::io("create", &temporary))?;
        temporary::remove_abandoned(&temporary)?;
        for directory in [Some(root.as_path()), root.parent()].into_iter().flatten() {
            flush_directory(directory).map_err(StoreError::io("flush", directory))?;
        }
        Ok(Store {
            durable_directories: Mutex::default(),
            root,
            sharing,
            writes_refused: AtomicBool::new(false),
            key_locks: (0..KEY_LOCKS).map(|_| RwLock::new(())).collect(),
            temporary_origin: RandomState::new().hash_one(std::process::id()),
            temporary_sequence: AtomicU64::new(0),
            _directory_lock: lock,
        })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn key_lock(&self, path: &Path) -> &RwLock<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(path);
        &self.key_locks[(hash % KEY_LOCKS as u64) as usize]
    }

    /// Locks the set of durable directories; also the lock under which directories come and go.
    fn directories(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable_directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.writes_refused.load(Ordering::Acquire) {
            return Err(StoreError::WritesRefused { directory: self.root.clone() });
        }
        Ok(())
    }

    /// Flushes a directory; a failure ends all writing (law 24). One that was removed as empty meanwhile is flushed in
    /// what is above it, which makes its absence durable.
    fn flush(&self, directory: &Path) -> Result<(), StoreError> {
        let mut existing = directory;
        let flushed = loop {
            match flush_directory(existing) {
                Err(error) if error.kind() == ErrorKind::NotFound && existing != self.root => {
                    existing = existing.parent().expect("it lies below the root");
                }
                flushed => break flushed,
            }
        };
        flushed.map_err(|source| {
            self.writes_refused.store(true, Ordering::Release);
            StoreError::Io { action: "flush", path: existing.to_owned(), source }
        })
    }
}

fn flush_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes sure that `root` is a store's, and refuses to move in with other files.
fn mark(root: &Path) -> Result<(), StoreError> {
    let marker = root.join(MARKER_NAME);
    match fs::read(&marker) {
        Ok(found) if found == MARKER => return Ok(()),
        Ok(_) => return Err(StoreError::Foreign { directory: root.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("read", &marker)(error)),
    }
    let entries = fs::read_dir(root).map_err(StoreError::io("read", root))?;
    for entry in entries {
        let entry = entry.map_err(StoreError::io("read", root))?;
        // Names with a dot may be another process's that opens the same new directory now.
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.file_name() != "lost+found" {
            return Err(StoreError::Foreign { directory: root.to_owned() });
        }
    }
    let aside = root.join(format!("{MARKER_NAME}.{}", std::process::id()));
    fs::write(&aside, MARKER).map_err(StoreError::io("write", &aside))?;
    File::open(&aside).and_then(|file| file.sync_all()).map_err(StoreError::io("flush", &aside))?;
    match fs::rename(&aside, &marker) {
        // Another thread of this process did the same in the same moment.
        Err(error) if error.kind() == ErrorKind::NotFound && marker.exists() => Ok(()),
        renamed => renamed.map_err(StoreError::io("rename", &aside)),
    }
}

fn lock(root: &Path, sharing: Sharing) -> Result<File, StoreError> {
    let path = root.join(LOCK_NAME);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(StoreError::io("open", &path))?;
    let locked = match sharing {
        Sharing::Alone => file.try_lock(),
        Sharing::Shared => file.try_lock_shared(),
    };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { directory: root.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
    }
}
