//! Names and attributes.

use super::Volume;
use super::attributes::SetAttr;
use crate::backoff;
use crate::config::Durable;
use crate::error::{FsError, FsErrorKind};
use crate::session::{Done, OpError};
use farshore_types::{Attr, DirEntry, ErrorKind, Ino, LogIndex, NewNode, Op, Query, QueryReply, RenameMode, Reply};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How long ago the cluster was heard, at most, for what is known here to be told. The kernel keeps it for up to 0.9 s then, which
/// together are the second that names and attributes may be old.
pub(super) const KNOWN_MAX: Duration = Duration::from_millis(100);

/// The wait between asking for a lease and trying again: first, and at most.
const RECALL_FIRST: Duration = Duration::from_millis(2);
const RECALL_MAX: Duration = Duration::from_millis(200);
/// Time to give a lease back, from when the recall was done.
const HOLDER_HAS: Duration = Duration::from_secs(1);

/// Figures of the whole volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    pub used_bytes: u64,
    pub used_inodes: u64,
    pub block_size: u32,
}

/// What was made.
pub(super) struct Made {
    pub attr: Attr,
    /// Of the entry that made it.
    pub index: LogIndex,
    /// The session that holds it open.
    pub opened: Option<u64>,
}

/// A name in a message to people.
struct Named<'a>(&'a [u8]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", String::from_utf8_lossy(self.0))
    }
}

impl Volume {
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        if self.caches.names.has_not(parent, name) && self.session.silent_for() < KNOWN_MAX {
            return Err(FsError::refused(ErrorKind::NotFound, format!("look up {} in {parent}", Named(name))));
        }
        let query = Query::Lookup { parent, name: name.to_vec() };
        let attr = self.ask_attr(query, || format!("look up {} in {parent}", Named(name))).await?;
        Ok(self.with_local(attr))
    }

    pub async fn getattr(&self, ino: Ino) -> Result<Attr, FsError> {
        if let Some(attr) = self.known_attr(ino) {
            return Ok(self.with_local(attr));
        }
        let mark = self.caches.names.changes(ino);
        let attr = self.ask_attr(Query::GetAttr { ino }, || format!("attributes of {ino}")).await?;
        self.caches.names.learned(&attr, mark);
        Ok(self.with_local(attr))
    }

    /// Attributes of what is open here, and of directories that are this client's own, if the cluster was heard just now.
    fn known_attr(&self, ino: Ino) -> Option<Attr> {
        if self.session.silent_for() >= KNOWN_MAX {
            return None;
        }
        match self.open.get(ino) {
            Some(inode) => {
                let (attr, seen) = inode.attr_within(KNOWN_MAX)?;
                self.caches.names.counts(seen).then_some(attr)
            }
            None => self.caches.names.attr(ino).filter(|attr| self.caches.names.counts(attr.version)),
        }
    }

    /// Changes attributes. Written data goes first, so that it cannot undo the new times and mode later.
    pub async fn setattr(&self, ino: Ino, change: SetAttr) -> Result<Attr, FsError> {
        self.writable(|| format!("set attributes of {ino}"))?;
        let mut attr = None;
        if let Some(size) = change.size {
            attr = Some(self.truncate(ino, size).await?);
        }
        let rest = SetAttr { size: None, ..change };
        if rest != SetAttr::default() {
            attr = Some(self.change_attributes(ino, rest).await?);
        }
        match attr {
            Some(attr) => Ok(attr),
            None => self.getattr(ino).await,
        }
    }

    /// Creates a name; `mode` without the umask's bits.
    pub async fn make(&self, parent: Ino, name: &[u8], node: NewNode, mode: u16, uid: u32, gid: u32) -> Result<Attr, FsError> {
        self.make_to(parent, name, (node, mode, uid, gid), false).await.map(|made| made.attr)
    }

    /// As [`Volume::make`], with what else the answer says, and `open` as in [`Session::call_to`]. Keeps what is known of the directory
    /// right.
    ///
    /// [`Session::call_to`]: crate::session::Session::call_to
    pub(super) async fn make_to(
        &self,
        parent: Ino,
        name: &[u8],
        (node, mode, uid, gid): (NewNode, u16, u32, u32),
        open: bool,
    ) -> Result<Made, FsError> {
        let context = || format!("make {} in {parent}", Named(name));
        self.writable(context)?;
        let names = &self.caches.names;
        let before = names.moment();
        let directory = node == NewNode::Directory;
        names.may_exist(parent, name);
        if directory {
            names.changing(parent);
        } else {
            names.making(parent);
        }
        let op = |lease| match (name.to_vec(), node.clone(), lease) {
            (name, node, true) => Op::MakeAs { parent, name, node, mode, uid, gid, ino: None, lease },
            (name, node, false) => Op::Make { parent, name, node, mode, uid, gid },
        };
        let mut lease = directory && self.config.durable == Durable::AtClose && self.session.knows_leases();
        let mut done = self.call(op(lease), open).await;
        if lease && matches!(done, Err(OpError::Refused(ErrorKind::Unsupported))) {
            // A history that does not know leases any more, after a rewind.
            lease = false;
            done = self.call(op(lease), open).await;
        }
        let made = done.map_err(|error| FsError::of_op(error, context())).and_then(|done| match done.reply {
            Reply::Attr(attr) => Ok(Made { attr, index: done.index, opened: done.opened }),
            other => Err(unexpected(&other, context())),
        });
        if directory {
            names.changing(parent);
        }
        match &made {
            Ok(made) if directory => {
                names.made(&made.attr, before);
                if lease {
                    self.caches.leases.granted(&made.attr, parent, name);
                }
            }
            Ok(made) => names.made_file(parent, &made.attr),
            // It exists after all, or may come to exist later.
            Err(_) => names.forget(parent),
        }
        made
    }

    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        let context = || format!("unlink {} in {parent}", Named(name));
        self.writable(context)?;
        self.changing([parent], self.change(Op::Unlink { parent, name: name.to_vec() }, context)).await.map(drop)
    }

    pub async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        let context = || format!("remove the directory {} in {parent}", Named(name));
        self.writable(context)?;
        self.changing([parent], self.change(Op::Rmdir { parent, name: name.to_vec() }, context)).await?;
        self.caches.leases.removed(parent, name);
        Ok(())
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
        self.caches.names.may_exist(new_parent, new_name);
        if mode == RenameMode::Exchange {
            self.caches.names.may_exist(parent, name);
        }
        let op = Op::Rename { parent, name: name.to_vec(), new_parent, new_name: new_name.to_vec(), mode };
        self.caches.leases.moved(parent, name);
        self.caches.leases.moved(new_parent, new_name);
        self.changing([parent, new_parent], self.change(op, context)).await.map(drop)
    }

    pub async fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> Result<Attr, FsError> {
        let context = || format!("link {ino} as {} in {new_parent}", Named(new_name));
        self.writable(context)?;
        self.caches.names.may_exist(new_parent, new_name);
        let op = Op::Link { ino, new_parent, new_name: new_name.to_vec() };
        self.changing([new_parent], self.change_attr(op, context)).await
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
                    entry.attr = self.with_local(entry.attr.clone());
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

    /// An operation after which these directories have other attributes; without a good answer it may come to that later.
    pub(super) async fn changing<T>(
        &self,
        dirs: impl IntoIterator<Item = Ino> + Copy,
        work: impl Future<Output = Result<T, FsError>>,
    ) -> Result<T, FsError> {
        let names = &self.caches.names;
        dirs.into_iter().for_each(|dir| names.changing(dir));
        let under_way = names.begin();
        let done = work.await;
        dirs.into_iter().for_each(|dir| if done.is_ok() { names.changing(dir) } else { names.forget(dir) });
        if !matches!(done, Err(FsError { kind: FsErrorKind::Unknown, .. })) {
            under_way.end(self.session.highest_index());
        }
        done
    }

    pub(super) async fn ask(&self, query: Query, context: impl Fn() -> String) -> Result<QueryReply, FsError> {
        self.creations.settle_for(&query).await;
        self.session.query(query).await.map_err(|error| FsError::of_op(error, context()))
    }

    pub(super) async fn ask_attr(&self, query: Query, context: impl Fn() -> String) -> Result<Attr, FsError> {
        self.ask_attr_at(query, context).await.map(|(attr, _)| attr)
    }

    /// Attributes, and the index of the state that they are of.
    pub(super) async fn ask_attr_at(&self, query: Query, context: impl Fn() -> String) -> Result<(Attr, LogIndex), FsError> {
        self.creations.settle_for(&query).await;
        match self.session.query_at(query).await.map_err(|error| FsError::of_op(error, context()))? {
            (QueryReply::Attr(attr), index) => Ok((attr, index)),
            (other, _) => Err(unexpected(&other, context())),
        }
    }

    pub(super) async fn change(&self, op: Op, context: impl Fn() -> String) -> Result<Reply, FsError> {
        self.creations.settle_names(&op).await?;
        self.call(op, false).await.map(|done| done.reply).map_err(|error| FsError::of_op(error, context()))
    }

    /// As [`Session::call_to`], behind all that was made here first; where another client holds a directory, that is recalled.
    ///
    /// [`Session::call_to`]: crate::session::Session::call_to
    async fn call(&self, op: Op, open: bool) -> Result<Done, OpError> {
        let began = Instant::now();
        let mut recalled: Option<Instant> = None;
        for failures in 0.. {
            self.creations.begin_all().await?;
            match self.session.call_to(op.clone(), open).await {
                Err(OpError::Refused(ErrorKind::Leased)) if began.elapsed() < self.config.call_timeout => {}
                done => return done,
            }
            // The holder's second begins when the recall is known to be done.
            let take = recalled.is_some_and(|since| since.elapsed() >= HOLDER_HAS);
            for (dir, name) in names_of(&op) {
                match self.session.call(Op::Recall { dir, name: name.to_vec(), take }).await {
                    Ok(_) | Err(OpError::Refused(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            recalled.get_or_insert_with(Instant::now);
            tokio::time::sleep(backoff::delay(RECALL_FIRST, RECALL_MAX, failures)).await;
        }
        unreachable!("it ends at the time of a call at the latest")
    }

    pub(super) async fn change_attr(&self, op: Op, context: impl Fn() -> String) -> Result<Attr, FsError> {
        match self.change(op, &context).await? {
            Reply::Attr(attr) => Ok(self.with_local(attr)),
            other => Err(unexpected(&other, context())),
        }
    }
}

/// The names that an operation changes.
pub(super) fn names_of(op: &Op) -> Vec<(Ino, &[u8])> {
    match op {
        Op::Make { parent, name, .. }
        | Op::MakeAs { parent, name, .. }
        | Op::Unlink { parent, name }
        | Op::Rmdir { parent, name } => vec![(*parent, name)],
        Op::Rename { parent, name, new_parent, new_name, .. } => vec![(*parent, name), (*new_parent, new_name)],
        Op::Link { new_parent, new_name, .. } => vec![(*new_parent, new_name)],
        _ => vec![],
    }
}

/// A peer that answers another question than was asked is broken; the caller gets EIO and the sentence.
pub(super) fn unexpected(answer: &impl fmt::Debug, context: String) -> FsError {
    FsError::refused(ErrorKind::Io, format!("{context}: unexpected answer {answer:?}"))
}
