//! Open files: reading, writing, lengths.

use super::Volume;
use crate::error::{FsError, FsErrorKind};
use bytes::Bytes;
use farshore_types::{Attr, ErrorKind, Ino};
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    pub read: bool,
    pub write: bool,
    /// Every write goes to the end of the file, whatever its offset says.
    pub append: bool,
    pub truncate: bool,
    /// The opener is privileged: its writes leave the set-id bits alone.
    pub keep_set_id: bool,
}

/// An open file. Clones are the same handle; [`Volume::release`] ends it.
#[derive(Clone, Debug)]
pub struct FileHandle(Arc<HandleInner>);

#[derive(Debug)]
struct HandleInner {
    ino: Ino,
    flags: OpenFlags,
}

impl FileHandle {
    pub fn ino(&self) -> Ino {
        self.0.ino
    }

    pub fn flags(&self) -> OpenFlags {
        self.0.flags
    }
}

fn not_yet(what: &str) -> FsError {
    FsError::new(FsErrorKind::Refused(ErrorKind::Unsupported), format!("{what}: not available yet"))
}

impl Volume {
    /// Opens a file; asks the leader for its version (law 29).
    pub async fn open(&self, ino: Ino, flags: OpenFlags) -> Result<(FileHandle, Attr), FsError> {
        let _ = (ino, flags);
        Err(not_yet("open"))
    }

    /// Creates a file and opens it for reading and writing. An existing name is [`ErrorKind::Exists`].
    pub async fn create(&self, parent: Ino, name: &[u8], mode: u16, uid: u32, gid: u32) -> Result<(FileHandle, Attr), FsError> {
        let _ = (parent, name, mode, uid, gid);
        Err(not_yet("create"))
    }

    /// At most `len` bytes from `offset`; fewer only at the end of the file.
    pub async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes, FsError> {
        let _ = (handle, offset, len);
        Err(not_yet("read"))
    }

    /// Writes all of `data`; returns its length. Buffered until flush, fsync, release or a few seconds.
    pub async fn write(&self, handle: &FileHandle, offset: u64, data: Bytes) -> Result<usize, FsError> {
        let _ = (handle, offset, data);
        Err(not_yet("write"))
    }

    /// Sets a file's length.
    pub async fn truncate(&self, ino: Ino, size: u64) -> Result<Attr, FsError> {
        let _ = (ino, size);
        Err(not_yet("truncate"))
    }

    /// Uploads and commits what was written; reports errors of earlier writes. For close(2).
    pub async fn flush(&self, handle: &FileHandle) -> Result<(), FsError> {
        self.flush_inode(handle.ino()).await
    }

    /// As [`Volume::flush`]: what is committed is durable.
    pub async fn fsync(&self, handle: &FileHandle) -> Result<(), FsError> {
        self.flush_inode(handle.ino()).await
    }

    /// Ends a handle. Flushes; the last one of an inode lets the cluster know.
    pub async fn release(&self, handle: FileHandle) -> Result<(), FsError> {
        self.flush_inode(handle.ino()).await
    }

    /// Commits everything, gives the session back, stops the background tasks.
    pub async fn shutdown(&self) -> Result<(), FsError> {
        Ok(())
    }

    pub(super) async fn flush_inode(&self, _ino: Ino) -> Result<(), FsError> {
        Ok(())
    }

    pub(super) fn with_local_size(&self, attr: Attr) -> Attr {
        attr
    }
}
