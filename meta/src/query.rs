//! Queries: one consistent state in, one answer out.

use crate::apply::{Fail, issued_range, outcome};
use crate::header::volume;
use crate::inode::{Body, Ground, Inode};
use crate::key;
use crate::kv::{KvRead, Space, StorageError};
use crate::row::{Dentry, Held, Piece, Usage, Window, decode, key_id};
use crate::txn::SharedRead;
use farshore_types::{
    Attr, COUNTER_BITS, DirEntry, ErrorKind, Ino, MAX_NAME, Query, QueryReply, Sequence, SessionId, SessionInfo, Slice, SliceId,
    SliceView,
};

/// Entries of one [`Query::ReadDir`] reply; a larger `limit` is cut to this.
pub const MAX_READ_DIR: u32 = 4096;
/// Directories that a path may have for [`Query::PathOf`]; a deeper inode has no path to show.
pub const MAX_PATH_DEPTH: usize = 4096;

/// Answers from one state. `Open` and `Close` are `GetAttr` and `Done` here: who holds what open is the leader's memory.
pub fn query(kv: &dyn KvRead, query: &Query) -> Result<Result<QueryReply, ErrorKind>, StorageError> {
    outcome(answer(kv, query))
}

fn answer(kv: &dyn KvRead, query: &Query) -> Result<QueryReply, Fail> {
    match query {
        Query::Lookup { parent, name } => lookup(kv, *parent, name).map(QueryReply::Attr),
        Query::GetAttr { ino } | Query::Open { ino } => Ok(QueryReply::Attr(inode(kv, *ino)?.attr(*ino))),
        Query::Close { .. } => Ok(QueryReply::Done),
        Query::ReadLink { ino } => match inode(kv, *ino)?.body {
            Body::Symlink { target } => Ok(QueryReply::Target(target)),
            _ => Err(ErrorKind::InvalidArgument.into()),
        },
        Query::ReadDir { ino, after, limit } => read_dir(kv, *ino, after.as_deref(), *limit),
        Query::Slices { ino, chunk } => slices(kv, *ino, *chunk),
        Query::StatFs => {
            let volume = volume(kv)?.ok_or(ErrorKind::NotFound)?;
            let usage: Usage = kv.row(key::USAGE)?.unwrap_or_default();
            Ok(QueryReply::StatFs { used_bytes: usage.bytes, used_inodes: usage.inodes, block_size: volume.block_size })
        }
        Query::Parent { ino } => Ok(QueryReply::Parent(directory(kv, *ino)?.parent)),
        Query::PathOf { ino } => Ok(QueryReply::Path(path_of(kv, *ino)?)),
    }
}

fn inode(kv: &dyn KvRead, ino: Ino) -> Result<Inode, Fail> {
    Ok(kv.row(&key::inode(ino))?.ok_or(ErrorKind::Stale)?)
}

fn directory(kv: &dyn KvRead, ino: Ino) -> Result<Inode, Fail> {
    let inode = inode(kv, ino)?;
    if inode.is_directory() { Ok(inode) } else { Err(ErrorKind::NotDirectory.into()) }
}

fn named(kv: &dyn KvRead, dentry: &Dentry) -> Result<Attr, StorageError> {
    let key = key::inode(dentry.ino);
    let inode: Option<Inode> = kv.row(&key)?;
    let inode = inode.ok_or_else(|| StorageError::damaged(Space::Shared, &key, "a name leads to no inode"))?;
    Ok(inode.attr(dentry.ino))
}

fn lookup(kv: &dyn KvRead, parent: Ino, name: &[u8]) -> Result<Attr, Fail> {
    directory(kv, parent)?;
    if name.len() > MAX_NAME {
        return Err(ErrorKind::NameTooLong.into());
    }
    let dentry: Dentry = kv.row(&key::entry(parent, name))?.ok_or(ErrorKind::NotFound)?;
    Ok(named(kv, &dentry)?)
}

fn read_dir(kv: &dyn KvRead, ino: Ino, after: Option<&[u8]>, limit: u32) -> Result<QueryReply, Fail> {
    directory(kv, ino)?;
    let all = key::entries(ino);
    let from = match after {
        Some(name) if name.len() > MAX_NAME => return Err(ErrorKind::NameTooLong.into()),
        Some(name) => key::entry(ino, name),
        None => all,
    };
    let after = after.map(|_| &*from);
    let mut rows =
        SharedRead::rows(&kv, &from, &all.end())?.filter(|row| row.as_ref().map_or(true, |(key, _)| Some(*key) != after));
    let mut entries = Vec::new();
    while entries.len() < limit.min(MAX_READ_DIR) as usize {
        let Some(row) = rows.next() else {
            return Ok(QueryReply::Entries { entries, more: false });
        };
        let (key, value) = row?;
        let dentry: Dentry = decode(key, value)?;
        entries.push(DirEntry { name: key[all.len()..].to_vec(), attr: named(kv, &dentry)? });
    }
    Ok(QueryReply::Entries { entries, more: rows.next().transpose()?.is_some() })
}

fn slices(kv: &dyn KvRead, ino: Ino, chunk: u32) -> Result<QueryReply, Fail> {
    let ground = match inode(kv, ino)?.body {
        Body::File { ground, .. } => ground.filter(|_| chunk == 0),
        Body::Directory { .. } => return Err(ErrorKind::IsDirectory.into()),
        _ => return Err(ErrorKind::InvalidArgument.into()),
    };
    let all = key::chunk(ino, chunk);
    let mut views = Vec::new();
    if let Some(Ground { length, slice, .. }) = ground {
        views.push(view(Piece { position: 0, length, slice: Some(slice) }));
    }
    for row in SharedRead::rows(&kv, &all, &all.end())? {
        let (key, value) = row?;
        views.push(view(decode(key, value)?));
    }
    Ok(QueryReply::Slices(views))
}

fn view(Piece { position, length, slice }: Piece) -> SliceView {
    let (id, origin, checksums) = match slice {
        Some(Held { id, origin, checksums, .. }) => (id, origin, checksums),
        None => (SliceId::HOLE, None, Vec::new()),
    };
    SliceView { position, length, offset: 0, slice: Slice { id, size: length, checksums }, origin }
}

/// One path: the names of each step are found by a scan of its directory, since only people ask for it.
fn path_of(kv: &dyn KvRead, ino: Ino) -> Result<Option<String>, StorageError> {
    let mut names = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT {
        let Some(inode) = kv.row::<Inode>(&key::inode(at))? else { return Ok(None) };
        if inode.nlink == 0 || names.len() >= MAX_PATH_DEPTH {
            return Ok(None);
        }
        let parent = a_parent(kv, at, &inode)?;
        let Some(name) = name_in(kv, parent, at)? else {
            return Err(StorageError::damaged(Space::Shared, &key::inode(at), "its directory does not name it"));
        };
        names.push(name);
        at = parent;
    }
    let root_is_there = kv.bytes(&key::inode(Ino::ROOT))?.is_some();
    let path = names.iter().rev().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join("/");
    Ok(root_is_there.then(|| format!("/{path}")))
}

/// A directory that names the inode: of several links the lowest.
fn a_parent(kv: &dyn KvRead, ino: Ino, inode: &Inode) -> Result<Ino, StorageError> {
    if inode.is_directory() || inode.nlink == 1 {
        return Ok(inode.parent);
    }
    let all = key::links(ino);
    match SharedRead::rows(&kv, &all, &all.end())?.next() {
        Some(row) => Ok(Ino(key_id(row?.0, all.len())?)),
        None => Err(StorageError::damaged(Space::Shared, &all, "an inode of several links has no link rows")),
    }
}

fn name_in(kv: &dyn KvRead, parent: Ino, ino: Ino) -> Result<Option<Vec<u8>>, StorageError> {
    let all = key::entries(parent);
    for row in SharedRead::rows(&kv, &all, &all.end())? {
        let (key, value) = row?;
        if decode::<Dentry>(key, value)?.ino == ino {
            return Ok(Some(key[all.len()..].to_vec()));
        }
    }
    Ok(None)
}

/// A session with what it said of itself and how far it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    pub id: SessionId,
    pub info: SessionInfo,
    /// Replies up to this one (inclusive) are dropped.
    pub acknowledged: Sequence,
    /// The last request that was done.
    pub high: Sequence,
}

/// All open sessions in order of ids.
pub fn sessions(kv: &dyn KvRead) -> Result<Vec<SessionRecord>, StorageError> {
    let all = key::Key::tag(key::SESSION_TAG);
    let mut sessions = Vec::new();
    for row in kv.scan(Space::Shared, &all, Some(&all.end()))? {
        let (key, value) = row?;
        let id = session_id(key)?;
        let window_key = key::window(id);
        let window: Option<Window> = kv.row(&window_key)?;
        let Window { acknowledged, high, .. } =
            window.ok_or_else(|| StorageError::damaged(Space::Shared, &window_key, "a session lacks its window"))?;
        sessions.push(SessionRecord { id, info: decode(key, value)?, acknowledged, high });
    }
    Ok(sessions)
}

fn session_id(key: &[u8]) -> Result<SessionId, StorageError> {
    let id = key.get(1..17).and_then(|id| id.try_into().ok()).map(SessionId);
    id.ok_or_else(|| StorageError::damaged(Space::Shared, key, "the key is no session's"))
}

/// Unlinked inodes that wait for a purge, at most `limit`, in order of numbers.
pub fn orphans(kv: &dyn KvRead, limit: usize) -> Result<Vec<Ino>, StorageError> {
    let all = key::Key::tag(key::ORPHAN_TAG);
    let rows = kv.scan(Space::Shared, &all, Some(&all.end()))?;
    rows.take(limit).map(|row| Ok(Ino(key_id(row?.0, 1)?))).collect()
}

/// Whether a slice id was issued by this history to a session that has ended, has closed it, or has named it already
/// (law 17): then no commit will name it any more. Ids that a rewind took back, and those of another history, were not
/// issued by this one: they are unknown, and unknown is not orphan.
///
/// An object with such an id is an orphan only if no live slice has the id ([`crate::slice_record`]), and if the ledger does not
/// hold it either: a dropped slice keeps its blocks until the floors have passed its drop (law 14).
pub fn issued_to_ended(kv: &dyn KvRead, id: SliceId) -> Result<bool, StorageError> {
    let counter = id.0 & ((1 << COUNTER_BITS) - 1);
    if id == SliceId::HOLE || !crate::header(kv)?.has_issued(id.slot(), counter) {
        return Ok(false);
    }
    let all = key::Key::tag(key::SESSION_TAG);
    for row in kv.scan(Space::Shared, &all, Some(&all.end()))? {
        if issued_range(&kv, session_id(row?.0)?, id)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
