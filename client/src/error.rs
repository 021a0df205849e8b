//! Errors as the caller of the file system sees them. The only place that knows errno.

use crate::session::OpError;
use farshore_types::ErrorKind;
use std::fmt;

/// What went wrong, as the one who asked must understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsErrorKind {
    /// Refused by the metadata, or by the client for the same reason.
    Refused(ErrorKind),
    /// No answer in time, or the session ended first: done or not, nobody knows (law 10).
    Unknown,
    /// The handle was not opened for this.
    BadHandle,
    /// The client was shut down.
    Closed,
}

/// A failed operation of the file system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{context}: {}", Reason(.kind))]
pub struct FsError {
    pub kind: FsErrorKind,
    /// What was being done, for people.
    pub context: String,
}

struct Reason<'a>(&'a FsErrorKind);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FsErrorKind::Refused(kind) => kind.fmt(f),
            FsErrorKind::Unknown => f.write_str("no answer in time; whether it was done is unknown"),
            FsErrorKind::BadHandle => f.write_str("the handle was not opened for this"),
            FsErrorKind::Closed => f.write_str("the client was shut down"),
        }
    }
}

impl FsError {
    pub fn new(kind: FsErrorKind, context: impl Into<String>) -> FsError {
        FsError { kind, context: context.into() }
    }

    pub fn refused(kind: ErrorKind, context: impl Into<String>) -> FsError {
        FsError::new(FsErrorKind::Refused(kind), context)
    }

    pub(crate) fn io(context: impl Into<String>) -> FsError {
        FsError::refused(ErrorKind::Io, context)
    }

    pub(crate) fn of_op(error: OpError, context: impl Into<String>) -> FsError {
        let kind = match error {
            OpError::Refused(kind) => FsErrorKind::Refused(kind),
            OpError::Unknown => FsErrorKind::Unknown,
            OpError::SessionLost => FsErrorKind::Refused(ErrorKind::SessionLost),
            OpError::Closed => FsErrorKind::Closed,
        };
        FsError::new(kind, context)
    }

    /// Whether this is the metadata's refusal of this kind.
    pub fn is(&self, kind: ErrorKind) -> bool {
        self.kind == FsErrorKind::Refused(kind)
    }

    /// The number that the kernel understands.
    pub fn errno(&self) -> i32 {
        match self.kind {
            FsErrorKind::Refused(kind) => errno_of(kind),
            FsErrorKind::Unknown => libc::EIO,
            FsErrorKind::BadHandle => libc::EBADF,
            FsErrorKind::Closed => libc::ESHUTDOWN,
        }
    }
}

fn errno_of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::Exists => libc::EEXIST,
        ErrorKind::NotDirectory => libc::ENOTDIR,
        ErrorKind::IsDirectory => libc::EISDIR,
        ErrorKind::NotEmpty => libc::ENOTEMPTY,
        ErrorKind::InvalidArgument => libc::EINVAL,
        ErrorKind::NameTooLong => libc::ENAMETOOLONG,
        ErrorKind::TooManyLinks => libc::EMLINK,
        ErrorKind::NotPermitted => libc::EPERM,
        ErrorKind::FileTooLarge => libc::EFBIG,
        ErrorKind::ReadOnly => libc::EROFS,
        ErrorKind::Stale => libc::ESTALE,
        ErrorKind::NoSpace => libc::ENOSPC,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        // What was recalled to the caller's deadline.
        ErrorKind::Busy | ErrorKind::Leased => libc::EBUSY,
        // What the session retried to its deadline: to a program that is an error of the device.
        ErrorKind::Unavailable | ErrorKind::NotLeader => libc::EIO,
        // In doubt or broken: the caller can only look (hazard 3.3).
        ErrorKind::SliceConflict
        | ErrorKind::SliceOfOlderEpoch
        | ErrorKind::SessionLost
        | ErrorKind::SequenceGap
        | ErrorKind::Fenced
        | ErrorKind::Io => libc::EIO,
    }
}

/// Why a client could not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the configuration names no metadata node for {what}; add one to the topology")]
    NoNodes { what: String },
    #[error("no bucket is declared for region `{region}`; declared are {known}")]
    NoBucket { region: String, known: String },
    #[error("{volume}: no metadata leader answered within {seconds} s; the last node said: {last}")]
    NoLeader { volume: String, seconds: u64, last: String },
    #[error("{volume}: the cluster refused this client: {text}")]
    Refused { volume: String, text: String },
    #[error("the bucket {url} could not be opened: {source}")]
    Bucket { url: String, source: farshore_objects::BucketError },
    #[error("the bucket {url} carries no identity of volume `{volume}` ({detail}); format the volume, or check the URL")]
    NoIdentity { url: String, volume: String, detail: String },
    #[error("the bucket {url} belongs to another volume: its identity says {theirs}, this is {ours}; check the URL")]
    WrongVolume { url: String, theirs: String, ours: String },
    #[error(
        "the bucket {url} is not the present one of region `{region}`: {detail}; check the URL, or replace the region's bucket"
    )]
    WrongIncarnation { url: String, region: String, detail: String },
    #[error("the cache directory {path} cannot be used: {source}")]
    Cache { path: String, source: std::io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_done_and_why_it_failed() {
        let error = FsError::refused(ErrorKind::ReadOnly, "make `a`");
        assert_eq!(error.errno(), libc::EROFS);
        assert_eq!(error.to_string(), "make `a`: the volume is read-only here");
        let lost = FsError::of_op(OpError::SessionLost, "rename");
        assert_eq!(lost.errno(), libc::EIO, "in doubt is EIO, never success and never a retry");
    }
}
