//! Files written aside. Each is locked by its writer as long as it is open, so one that can be locked by another was
//! left behind by a process that is gone.

use super::{Store, StoreError, TEMPORARY_NAME};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Names tried before giving up; no two stores choose the same, so one is enough but for a cleaner.
const NAMES_TRIED_MAX: u32 = 1000;

/// A file without a key yet; removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) file: File,
    pub(super) path: Removed,
}

/// A path at which no file is wanted any more once this is dropped.
#[derive(Debug)]
pub(super) struct Removed(PathBuf);

impl Deref for Removed {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Temporary {
    pub(super) fn create(store: &Store) -> Result<Temporary, StoreError> {
        let directory = store.root.join(TEMPORARY_NAME);
        for _ in 0..NAMES_TRIED_MAX {
            let sequence = store.temporary_sequence.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{:016x}-{sequence}", store.temporary_origin));
            let file = match File::options().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(StoreError::io("create", &path)(error)),
            };
            // Another process that cleans up may have been quicker than the lock.
            let ours = file.try_lock().is_ok() && file.metadata().is_ok_and(|metadata| metadata.nlink() == 1);
            if ours {
                return Ok(Temporary { file, path: Removed(path) });
            }
        }
        Err(StoreError::Io { action: "find a free name in", path: directory, source: ErrorKind::AlreadyExists.into() })
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; what stays is removed at the next opening.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes the files of writers that are gone.
pub(super) fn remove_abandoned(directory: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(directory).map_err(StoreError::io("read", directory))? {
        let path = entry.map_err(StoreError::io("read", directory))?.path();
        let Ok(file) = File::options().write(true).open(&path) else { continue };
        if file.try_lock().is_ok() && fs::remove_file(&path).is_ok() {
            tracing::info!(path = %path.display(), "removed an unfinished object");
        }
    }
    Ok(())
}
