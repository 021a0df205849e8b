//! The file system by inode: what the FUSE adapter and the path commands call.
//!
//! Owns the session, the buckets, the inodes held open and their writers. A volume that is read-only answers so at once,
//! without asking anyone. `namespace` holds the operations on names, `attributes` those on attributes, `files` and `content` those on content,
//! `table` the inodes held open, `names` the directories whose names are known here, `leases` those that this client holds, and
//! `creations` the files made in them that the cluster does not know of yet.

mod attributes;
mod connect;
mod content;
mod creations;
mod files;
mod flusher;
mod leases;
mod names;
mod namespace;
mod observer;
mod table;

pub use attributes::SetAttr;
pub use content::READ_MAX;
pub use files::{FileHandle, OpenFlags};
pub use namespace::StatFs;

use crate::config::ClientConfig;
use crate::counters::Counters;
use crate::error::{ConnectError, FsError};
use crate::invalidation::InvalidationStream;
use crate::read::Blocks;
use crate::session::Session;
use crate::write::Uploads;
use creations::Creations;
use farshore_types::{ErrorKind, VolumeRecord};
use observer::CacheObserver;
use std::sync::Arc;
use table::OpenInodes;

/// A volume, connected.
pub struct Volume {
    config: ClientConfig,
    record: VolumeRecord,
    session: Arc<Session>,
    caches: Arc<CacheObserver>,
    open: Arc<OpenInodes>,
    blocks: Arc<Blocks>,
    uploads: Arc<Uploads>,
    creations: Arc<Creations>,
    counters: Arc<Counters>,
    background: connect::Background,
}

impl Volume {
    /// Opens the buckets, checks their identity (law 12) and starts a session with the leader.
    pub async fn connect(config: ClientConfig) -> Result<Arc<Volume>, ConnectError> {
        connect::connect(config).await
    }

    /// What `format` fixed for this volume.
    pub fn record(&self) -> &VolumeRecord {
        &self.record
    }

    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Whether every change is refused here.
    pub fn is_read_only(&self) -> bool {
        self.config.is_read_only()
    }

    /// What others changed, for the kernel's caches. Bounded; an overflow becomes one reset (law 29).
    pub fn subscribe(&self) -> InvalidationStream {
        self.caches.subscribe()
    }

    /// The session, for those who need indices.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Counters of this client's data path.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes written and not yet committed, in all files.
    pub fn buffered_bytes(&self) -> u64 {
        self.uploads.buffered()
    }

    fn writable(&self, context: impl FnOnce() -> String) -> Result<(), FsError> {
        if !self.is_read_only() {
            return Ok(());
        }
        self.counters.readonly_rejection();
        Err(FsError::refused(ErrorKind::ReadOnly, context()))
    }
}

impl Drop for Volume {
    /// A volume that nobody uses any more holds no session: caches and driver know each other, so it is told.
    fn drop(&mut self) {
        self.session.close();
    }
}
