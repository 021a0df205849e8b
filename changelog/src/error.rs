//! What an operation on the log can answer.
//!
//! One failed group answers many callers, so the error is `Clone`: the operating system's error is kept as text.

use farshore_types::{GroupId, RaftIndex};
use std::io;
use std::path::{Path, PathBuf};

/// Why the log refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Nothing of the request is visible, and what was flushed before is intact. More space and a restart mend it.
    #[error("no space left on the disk for the log at {path}: free space or add disk, then restart the node")]
    NoSpace { path: PathBuf },
    /// An input or output error before anything was at stake: opening, listing, reading.
    #[error("cannot {action} {path}: {cause}")]
    Io { action: &'static str, path: PathBuf, cause: String },
    /// A write or flush failed: bytes since the last flush are unknown, and no retry can tell (law 24).
    #[error("the log is poisoned: {cause}; everything after the last flushed entry must be fetched again")]
    Poisoned { cause: String },
    /// Damage inside the log, found at open or by a read (law 24).
    #[error("the log is damaged in {segment} at byte {offset}: entries from {index} on are not trusted")]
    Damaged { segment: PathBuf, offset: u64, index: RaftIndex },
    /// An append that does not continue the log.
    #[error("append at {got}, but the log continues at {expected}")]
    NotNext { expected: RaftIndex, got: RaftIndex },
    /// A truncation below what was purged.
    #[error("cannot cut the log at {from}: it is purged below {first}")]
    BelowPurged { from: RaftIndex, first: RaftIndex },
    /// An entry or a batch larger than its bound (law 27).
    #[error("{bytes} bytes are more than the bound of {max}")]
    TooLarge { bytes: u64, max: u64 },
    /// A file of another group.
    #[error("{path} belongs to group {found}, not to {expected}")]
    OtherGroup { path: PathBuf, found: GroupId, expected: GroupId },
    /// A file of a format that this program does not know.
    #[error("{path} has format version {found}; this program reads version {known}")]
    UnknownVersion { path: PathBuf, found: u16, known: u16 },
    /// An option out of its range.
    #[error("option {name} is {value}: it must be {rule}")]
    BadOption { name: &'static str, value: u64, rule: &'static str },
    /// The record of an earlier failure cannot be read or written.
    #[error("the log's failure mark: {cause}")]
    Mark { cause: String },
    /// The writer has stopped.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// An error of the operating system, with "disk full" told apart.
    pub(crate) fn io(action: &'static str, path: &Path, error: &io::Error) -> LogError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::NoSpace { path: path.to_owned() },
            _ => LogError::Io { action, path: path.to_owned(), cause: error.to_string() },
        }
    }
}
