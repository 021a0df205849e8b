//! Errors as kinds on the wire: small, stable, and mapped to errno in `client` only.

use serde::{Deserialize, Serialize};

/// What went wrong with one request, as the one who asked must understand it.
///
/// The order of the variants is part of the wire format: append, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum ErrorKind {
    #[error("no such file or directory")]
    NotFound,
    #[error("the name exists already")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("invalid argument")]
    InvalidArgument,
    #[error("the name or the link's target is too long")]
    NameTooLong,
    #[error("too many links to one inode")]
    TooManyLinks,
    #[error("operation not permitted on this kind of inode")]
    NotPermitted,
    #[error("the file would be larger than the volume allows")]
    FileTooLarge,
    #[error("the volume is read-only here")]
    ReadOnly,
    #[error("the handle or inode is from a history that was rewound, or was removed")]
    Stale,
    #[error("no space left on the volume")]
    NoSpace,
    #[error("the slice is named by the commit already with other content")]
    SliceConflict,
    #[error("the slice was issued in an older epoch; upload again under a new id")]
    SliceOfOlderEpoch,
    #[error("the session ended; what was not answered is unknown")]
    SessionLost,
    #[error("the sequence skips a request; send again from the lowest unanswered one")]
    SequenceGap,
    #[error("this node does not lead; ask the leader")]
    NotLeader,
    #[error("the cluster was fenced by a newer epoch")]
    Fenced,
    #[error("the operation needs a newer version of the cluster")]
    Unsupported,
    #[error("not available now; try again")]
    Unavailable,
    #[error("too much at once: a bound was reached")]
    Busy,
    #[error("input or output error")]
    Io,
    #[error("another client holds the directory; it was asked to give it back")]
    Leased,
}

impl ErrorKind {
    /// Whether the same request may succeed if it is sent again unchanged.
    pub fn is_retryable(self) -> bool {
        matches!(self, ErrorKind::NotLeader | ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::SequenceGap)
    }
}
