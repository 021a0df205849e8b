//! Open files: opening, writing, lengths, closing. Reading is in `content`.

use super::Volume;
use super::attributes::{commit, learn};
use super::namespace::Made;
use super::table::OpenInode;
use crate::config::Durable;
use crate::error::{FsError, FsErrorKind};
use crate::read::Readahead;
use crate::write::{Committed, Place};
use bytes::Bytes;
use farshore_types::{Attr, ErrorKind, Ino, NewNode, NodeKind, Op, Query};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

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

impl OpenFlags {
    /// For reading and writing, and nothing else.
    pub const READ_WRITE: OpenFlags = OpenFlags { read: true, write: true, append: false, truncate: false, keep_set_id: false };
}

/// An open file. Clones are the same handle; [`Volume::release`] ends it.
#[derive(Clone, Debug)]
pub struct FileHandle(Arc<HandleInner>);

#[derive(Debug)]
struct HandleInner {
    inode: Arc<OpenInode>,
    flags: OpenFlags,
    /// The session that it was opened in (law 9).
    generation: u64,
    ahead: Mutex<Readahead>,
    released: AtomicBool,
}

impl FileHandle {
    fn new(inode: Arc<OpenInode>, flags: OpenFlags, generation: u64) -> FileHandle {
        let (ahead, released) = Default::default();
        if flags.write {
            inode.writable_more();
        }
        FileHandle(Arc::new(HandleInner { inode, flags, generation, ahead, released }))
    }

    pub fn ino(&self) -> Ino {
        self.0.inode.ino
    }

    pub fn flags(&self) -> OpenFlags {
        self.0.flags
    }

    pub(super) fn inode(&self) -> &Arc<OpenInode> {
        &self.0.inode
    }

    pub(super) fn ahead(&self) -> &Mutex<Readahead> {
        &self.0.ahead
    }
}

impl Volume {
    /// Opens a file; asks the leader for its version (law 29).
    pub async fn open(&self, ino: Ino, flags: OpenFlags) -> Result<(FileHandle, Attr), FsError> {
        if flags.write || flags.truncate {
            self.writable(|| format!("open {ino} for writing"))?;
        }
        let inode = self.open.enter(ino);
        match self.open_inode(&inode).await {
            Ok((generation, mut attr)) => {
                let handle = FileHandle::new(inode, flags, generation);
                if flags.truncate && attr.size > 0 {
                    match self.truncate(ino, 0).await {
                        Ok(truncated) => attr = truncated,
                        Err(error) => {
                            let _ = self.release(handle).await;
                            return Err(error);
                        }
                    }
                }
                Ok((handle, self.with_local(attr)))
            }
            Err(error) => {
                self.open.leave(ino);
                Err(error)
            }
        }
    }

    async fn open_inode(&self, inode: &OpenInode) -> Result<(u64, Attr), FsError> {
        let ino = inode.ino;
        let _turn = inode.opening.lock().await;
        let generation = self.session.count_open(ino);
        let changes = inode.changes();
        let attr = self.ask_attr_at(Query::Open { ino }, || format!("open {ino}")).await;
        let refusal = match &attr {
            Ok((attr, _)) if attr.kind == NodeKind::Directory => Some(ErrorKind::IsDirectory),
            Ok((attr, _)) if attr.kind != NodeKind::File => Some(ErrorKind::InvalidArgument),
            _ => None,
        };
        let attr = match refusal {
            Some(kind) => Err(FsError::refused(kind, format!("open {ino}"))),
            None => attr,
        };
        match attr {
            Ok(answer) => {
                inode.learned(answer.clone(), changes);
                Ok((generation, answer.0))
            }
            Err(error) => {
                if self.session.count_close(ino, generation) && refusal.is_some() {
                    self.session.close_soon(ino);
                }
                Err(error)
            }
        }
    }

    /// Creates a file and opens it, in one step. An existing name is [`ErrorKind::Exists`].
    pub async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u16,
        (uid, gid): (u32, u32),
        flags: OpenFlags,
    ) -> Result<(FileHandle, Attr), FsError> {
        if self.config.durable == Durable::AtClose
            && !self.is_read_only()
            && let Some(held) = self.creations.hold(parent, name, (mode, uid, gid), |ino| self.open.enter(ino)).await
        {
            return Ok((FileHandle::new(held.inode, flags, held.generation), held.attr));
        }
        let Made { attr, index, opened } = self.make_to(parent, name, (NewNode::File, mode, uid, gid), true).await?;
        let Some(generation) = opened else { return self.open(attr.ino, flags).await };
        let inode = self.open.enter(attr.ino);
        inode.learned_before(&attr, index);
        Ok((FileHandle::new(inode, flags, generation), attr))
    }

    /// Writes all of `data`; returns its length. Buffered until flush, fsync, release or a few seconds.
    pub async fn write(&self, handle: &FileHandle, offset: u64, data: Bytes) -> Result<usize, FsError> {
        let context = || format!("write to {}", handle.ino());
        self.writable(context)?;
        self.valid(handle)?;
        if !handle.flags().write {
            return Err(FsError::new(FsErrorKind::BadHandle, context()));
        }
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(FsError::refused(ErrorKind::FileTooLarge, context()));
        }
        let inode = handle.inode();
        let mut place = Place::At(offset);
        if handle.flags().append {
            self.attr_of(inode).await?;
            place = Place::End;
        }
        inode.writer.write(place, data, !handle.flags().keep_set_id, inode.as_ref()).await
    }

    /// Sets a file's length. What was written before is committed first.
    pub async fn truncate(&self, ino: Ino, size: u64) -> Result<Attr, FsError> {
        let context = || format!("truncate {ino} to {size}");
        self.writable(context)?;
        let Some(inode) = self.open.get(ino) else {
            return self.changing([], self.change_attr(Op::Truncate { ino, size }, context)).await;
        };
        let cut = async {
            inode.begin().await?;
            let answer = self.session.call(Op::Truncate { ino, size }).await;
            learn(&inode, answer.map_err(|error| FsError::of_op(error, context()))?, context)
        };
        let attr = inode.writer.flush_then(inode.as_ref(), cut).await?;
        Ok(self.with_local(attr))
    }

    /// Uploads and commits what was written; reports errors of earlier writes. For close(2).
    pub async fn flush(&self, handle: &FileHandle) -> Result<(), FsError> {
        commit(handle.inode(), &self.session).await
    }

    /// As [`Volume::flush`]: what is committed is durable.
    pub async fn fsync(&self, handle: &FileHandle) -> Result<(), FsError> {
        self.flush(handle).await
    }

    /// Waits until the names are durable that this client has made in a directory. For fsync(2) of it.
    pub async fn fsync_names(&self, dir: Ino) -> Result<(), FsError> {
        self.creations.settle_in(dir).await
    }

    /// Ends a handle. Flushes; the last one of an inode lets the cluster know, and gives up what cannot be committed.
    pub async fn release(&self, handle: FileHandle) -> Result<(), FsError> {
        if handle.0.released.swap(true, Ordering::AcqRel) {
            return Err(FsError::new(FsErrorKind::BadHandle, format!("release {} twice", handle.ino())));
        }
        let inode = handle.inode().clone();
        let ino = inode.ino;
        let mut flushed = commit(&inode, &self.session).await;
        if handle.0.flags.write {
            inode.writable_less();
            // Held since the commit began.
            if flushed.is_ok() && !inode.is_writable() && inode.held().is_some() {
                flushed = commit(&inode, &self.session).await;
            }
        }
        let turn = inode.opening.lock().await;
        if flushed.is_err() && self.open.users(ino) == 1 {
            let lost = inode.writer.abandon();
            let held = inode.held();
            if lost > 0 || held.is_some() {
                let path = self.path_for_log(ino).await;
                tracing::error!(%ino, path, lost, attributes = ?held, "closed with changes that could not be committed; they are lost");
            }
        }
        let creation = inode.creation();
        self.session.closed(ino, handle.0.generation);
        drop(turn);
        if self.open.leave(ino)
            && let Some(creation) = creation
        {
            creation.give_up();
        }
        flushed
    }

    /// Commits everything, gives the session back, stops the background tasks.
    pub async fn shutdown(&self) -> Result<(), FsError> {
        let mut result = Ok(());
        for inode in self.open.dirty() {
            result = result.and(commit(&inode, &self.session).await);
        }
        result = result.and(self.creations.settle_all().await);
        self.background.stop().await;
        self.session.shutdown().await;
        result
    }

    /// What is committed, with what was set and written here already.
    pub(super) fn with_local(&self, mut attr: Attr) -> Attr {
        if attr.kind == NodeKind::Directory {
            self.caches.names.over(&mut attr);
        }
        if let Some(inode) = self.open.get(attr.ino) {
            if let Some((held, _)) = inode.held() {
                held.over(&mut attr);
            }
            attr.size = attr.size.max(inode.writer.dirty_end());
        }
        attr
    }

    /// Law 9: a handle of a session that ended is stale.
    pub(super) fn valid(&self, handle: &FileHandle) -> Result<(), FsError> {
        if handle.0.generation == self.session.generation() {
            return Ok(());
        }
        Err(FsError::refused(ErrorKind::Stale, format!("inode {} was opened in a session that ended", handle.ino())))
    }

    /// Attributes as the leader last told, asked for again if others changed the inode.
    pub(super) async fn attr_of(&self, inode: &OpenInode) -> Result<Attr, FsError> {
        if let Some(attr) = inode.fresh_attr() {
            return Ok(attr);
        }
        let changes = inode.changes();
        let query = Query::GetAttr { ino: inode.ino };
        let answer = self.ask_attr_at(query, || format!("attributes of {}", inode.ino)).await?;
        inode.learned(answer.clone(), changes);
        Ok(answer.0)
    }

    /// A path for people; the number when there is none.
    pub(super) async fn path_for_log(&self, ino: Ino) -> String {
        self.path_of(ino).await.ok().flatten().unwrap_or_else(|| format!("inode {ino}"))
    }
}
