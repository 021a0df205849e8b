//! What can go wrong in a directory store.

use std::io;
use std::path::{Path, PathBuf};

/// A failed operation on a directory store; the caller adds which bucket it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no object `{key}`")]
    NotFound { key: String },
    #[error("the key `{key}` cannot be stored: {rule}; choose another")]
    BadKey { key: String, rule: &'static str },
    #[error("the object `{key}` is damaged: its crc32c should be {expected:#010x}, its bytes have {found:#010x}")]
    Corrupt { key: String, expected: u32, found: u32 },
    #[error("the file of object `{key}` is damaged: {why}")]
    Damaged { key: String, why: super::format::FormatError },
    #[error("the object `{key}` cannot be stored: {why}")]
    Headers { key: String, why: super::format::FormatError },
    #[error("the range starts at byte {start}, the object `{key}` has {size}")]
    BeyondEnd { key: String, start: u64, size: u64 },
    #[error("no space is left in {}: nothing was stored; free some, then try again", .directory.display())]
    Full { directory: PathBuf },
    #[error("nothing is written to {} since a flush to its disk failed: check the disk, then start again", .directory.display())]
    WritesRefused { directory: PathBuf },
    #[error("{} holds other files: name an empty directory or one that was a bucket before", .directory.display())]
    Foreign { directory: PathBuf },
    #[error("{} is in use by another process: a bucket's server needs the directory for itself", .directory.display())]
    InUse { directory: PathBuf },
    #[error("cannot {action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl StoreError {
    /// Wraps an I/O error; a full disk becomes its own kind, since the one who can help must be told.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::Full { directory: path.parent().unwrap_or(&path).to_owned() }
            }
            _ => StoreError::Io { action, path, source },
        }
    }
}
