//! Names and attributes.

use super::Volume;
use crate::error::FsError;
use farshore_types::{Attr, DirEntry, ErrorKind, Ino, NewNode, Op, Query, QueryReply, RenameMode, Reply, TimeChange};
use std::fmt;

/// What [`Volume::setattr`] changes; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeChange>,
    pub mtime: Option<TimeChange>,
}

/// Figures of the whole volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    pub used_bytes: u64,
    pub used_inodes: u64,
    pub block_size: u32,
}

/// A name in a message to people.
pub(super) struct Named<'a>(pub &'a [u8]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", String::from_utf8_lossy(self.0))
    }
}

impl Volume {
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let query = Query::Lookup { parent, name: name.to_vec() };
        let attr = self.ask_attr(query, || format!("look up {} in {parent}", Named(name))).await?;
        Ok(self.with_local_size(attr))
    }

    pub async fn getattr(&self, ino: Ino) -> Result<Attr, FsError> {
        let attr = self.ask_attr(Query::GetAttr { ino }, || format!("attributes of {ino}")).await?;
        Ok(self.with_local_size(attr))
    }

    /// Changes attributes. Written data is committed first, so that it cannot undo the new times and mode later.
    pub async fn setattr(&self, ino: Ino, change: SetAttr) -> Result<Attr, FsError> {
        let context = || format!("set attributes of {ino}");
        self.writable(context)?;
        self.flush_inode(ino).await?;
        let mut attr = None;
        if let Some(size) = change.size {
            attr = Some(self.truncate(ino, size).await?);
        }
        let SetAttr { mode, uid, gid, atime, mtime, .. } = change;
        if mode.is_some() || uid.is_some() || gid.is_some() || atime.is_some() || mtime.is_some() {
            attr = Some(self.change_attr(Op::SetAttr { ino, mode, uid, gid, atime, mtime }, context).await?);
        }
        match attr {
            Some(attr) => Ok(attr),
            None => self.getattr(ino).await,
        }
    }

    /// Creates a name; `mode` without the umask's bits.
    pub async fn make(&self, parent: Ino, name: &[u8], node: NewNode, mode: u16, uid: u32, gid: u32) -> Result<Attr, FsError> {
        let context = || format!("make {} in {parent}", Named(name));
        self.writable(context)?;
        self.change_attr(Op::Make { parent, name: name.to_vec(), node, mode, uid, gid }, context).await
    }

    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        let context = || format!("unlink {} in {parent}", Named(name));
        self.writable(context)?;
        self.change(Op::Unlink { parent, name: name.to_vec() }, context).await.map(drop)
    }

    pub async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        let context = || format!("remove the directory {} in {parent}", Named(name));
        self.writable(context)?;
        self.change(Op::Rmdir { parent, name: name.to_vec() }, context).await.map(drop)
    }

    pub async fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let context = || format!("rename {} in {parent} to {} in {new_parent}", Named(name), Named(new_name));
        self.writable(context)?;
        let op = Op::Rename { parent, name: name.to_vec(), new_parent, new_name: new_name.to_vec(), mode };
        self.change(op, context).await.map(drop)
    }

    pub async fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> Result<Attr, FsError> {
        let context = || format!("link {ino} as {} in {new_parent}", Named(new_name));
        self.writable(context)?;
        self.change_attr(Op::Link { ino, new_parent, new_name: new_name.to_vec() }, context).await
    }

    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let context = || format!("read the link {ino}");
        match self.ask(Query::ReadLink { ino }, context).await? {
            QueryReply::Target(target) => Ok(target),
            other => Err(unexpected(&other, context())),
        }
    }

    /// Entries after the name `after` (exclusive), at most `limit`, in byte order of names, and whether more follow.
    /// `.` and `..` are not among them.
    pub async fn readdir(&self, ino: Ino, after: Option<Vec<u8>>, limit: u32) -> Result<(Vec<DirEntry>, bool), FsError> {
        let context = || format!("list the directory {ino}");
        match self.ask(Query::ReadDir { ino, after, limit }, context).await? {
            QueryReply::Entries { mut entries, more } => {
                for entry in &mut entries {
                    entry.attr = self.with_local_size(entry.attr.clone());
                }
                Ok((entries, more))
            }
            other => Err(unexpected(&other, context())),
        }
    }

    pub async fn statfs(&self) -> Result<StatFs, FsError> {
        match self.ask(Query::StatFs, || "figures of the volume".to_owned()).await? {
            QueryReply::StatFs { used_bytes, used_inodes, block_size } => Ok(StatFs { used_bytes, used_inodes, block_size }),
            other => Err(unexpected(&other, "figures of the volume".to_owned())),
        }
    }

    /// `..` of a directory.
    pub async fn parent(&self, ino: Ino) -> Result<Ino, FsError> {
        let context = || format!("parent of {ino}");
        match self.ask(Query::Parent { ino }, context).await? {
            QueryReply::Parent(parent) => Ok(parent),
            other => Err(unexpected(&other, context())),
        }
    }

    /// One path of an inode, for messages to people.
    pub async fn path_of(&self, ino: Ino) -> Result<Option<String>, FsError> {
        let context = || format!("path of {ino}");
        match self.ask(Query::PathOf { ino }, context).await? {
            QueryReply::Path(path) => Ok(path),
            other => Err(unexpected(&other, context())),
        }
    }

    pub(super) async fn ask(&self, query: Query, context: impl Fn() -> String) -> Result<QueryReply, FsError> {
        self.session.query(query).await.map_err(|error| FsError::of_op(error, context()))
    }

    pub(super) async fn ask_attr(&self, query: Query, context: impl Fn() -> String) -> Result<Attr, FsError> {
        match self.ask(query, &context).await? {
            QueryReply::Attr(attr) => Ok(attr),
            other => Err(unexpected(&other, context())),
        }
    }

    pub(super) async fn change(&self, op: Op, context: impl Fn() -> String) -> Result<Reply, FsError> {
        self.session.call(op).await.map(|(reply, _)| reply).map_err(|error| FsError::of_op(error, context()))
    }

    pub(super) async fn change_attr(&self, op: Op, context: impl Fn() -> String) -> Result<Attr, FsError> {
        match self.change(op, &context).await? {
            Reply::Attr(attr) => Ok(self.with_local_size(attr)),
            other => Err(unexpected(&other, context())),
        }
    }
}

/// A peer that answers another question than was asked is broken; the caller gets EIO and the sentence.
pub(super) fn unexpected(answer: &impl fmt::Debug, context: String) -> FsError {
    FsError::refused(ErrorKind::Io, format!("{context}: unexpected answer {answer:?}"))
}
