//! Names: make, unlink, rmdir, link. Permissions are the kernel's business (`default_permissions`), link counts and times
//! are this one's, as POSIX has them.

use super::op::{MAX_LINKS, check_name};
use super::{Apply, Fail};
use crate::change::{Event, Touched};
use crate::inode::{Body, Inode, Lease};
use crate::key;
use crate::kv::{Space, StorageError};
use crate::row::{Dentry, encode, key_id};
use crate::txn::SharedRead;
use farshore_types::{ErrorKind, Ino, MAX_SYMLINK, NewNode, NodeKind, Reply, SET_GID, SessionId};

/// All bits that a mode may have.
pub(super) const MODE_BITS: u16 = 0o7777;
/// A symbolic link's mode means nothing and is shown as this.
const SYMLINK_MODE: u16 = 0o777;

/// An inode that is to be made.
pub(super) struct Wanted<'a> {
    pub node: &'a NewNode,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Its number, of those of a session; `None`: the next one.
    pub number: Option<(SessionId, Ino)>,
    /// Who holds it, if it is a directory.
    pub holder: Option<SessionId>,
}

impl Apply<'_> {
    pub(super) fn make(&mut self, parent: Ino, name: &[u8], wanted: &Wanted) -> Result<Reply, Fail> {
        let Wanted { node, mode, uid, gid, number, holder } = *wanted;
        check_name(name)?;
        let body = new_body(node, holder)?;
        let mut dir = self.directory(parent)?;
        let is_directory = node.kind() == NodeKind::Directory;
        if is_directory && dir.nlink >= MAX_LINKS {
            let taken = self.dentry(parent, name)?.is_some();
            return Err(if taken { ErrorKind::Exists } else { ErrorKind::TooManyLinks }.into());
        }
        let (ino, numbers) = match number {
            Some((session, ino)) => (ino, Some((session, self.numbers_from(session, ino)?))),
            None => (Ino(self.first_id(self.header.next_ino, 1, 1)?), None),
        };
        if !self.put_absent_entry(parent, name, Dentry { ino, kind: node.kind() })? {
            return Err(ErrorKind::Exists.into());
        }
        match numbers {
            Some((session, numbers)) => self.txn.put(&key::numbers(session), encode(&numbers))?,
            None => self.header.next_ino += 1,
        }
        let inherits = dir.mode & SET_GID != 0;
        let mode = match node {
            NewNode::Symlink(_) => SYMLINK_MODE,
            NewNode::Directory if inherits => mode & MODE_BITS | SET_GID,
            _ => mode & MODE_BITS,
        };
        let inode = Inode {
            body,
            mode,
            uid,
            gid: if inherits { dir.gid } else { gid },
            nlink: if is_directory { 2 } else { 1 },
            parent,
            version: self.index,
            ctime: self.now,
            mtime: None,
            atime: None,
        };
        self.put_new_inode(ino, &inode)?;
        dir.nlink += u32::from(is_directory);
        self.put_modified(parent, dir)?;
        self.usage.inodes += 1;
        Ok(Reply::Attr(inode.attr(ino)))
    }

    pub(super) fn unlink(&mut self, parent: Ino, name: &[u8]) -> Result<Reply, Fail> {
        check_name(name)?;
        let dir = self.directory(parent)?;
        let dentry = self.dentry(parent, name)?.ok_or(ErrorKind::NotFound)?;
        if dentry.kind == NodeKind::Directory {
            return Err(ErrorKind::IsDirectory.into());
        }
        self.delete_entry(parent, name)?;
        self.drop_link(dentry.ino, parent)?;
        self.put_modified(parent, dir)?;
        Ok(Reply::Done)
    }

    pub(super) fn rmdir(&mut self, parent: Ino, name: &[u8]) -> Result<Reply, Fail> {
        check_name(name)?;
        let mut dir = self.directory(parent)?;
        let dentry = self.dentry(parent, name)?.ok_or(ErrorKind::NotFound)?;
        if dentry.kind != NodeKind::Directory {
            return Err(ErrorKind::NotDirectory.into());
        }
        self.check_droppable(dentry.ino)?;
        self.delete_entry(parent, name)?;
        self.drop_directory(dentry.ino)?;
        dir.nlink -= 1;
        self.put_modified(parent, dir)?;
        Ok(Reply::Done)
    }

    pub(super) fn link(&mut self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> Result<Reply, Fail> {
        check_name(new_name)?;
        let mut inode = self.inode(ino)?;
        if inode.is_directory() {
            return Err(ErrorKind::NotPermitted.into());
        }
        let dir = self.directory(new_parent)?;
        if self.dentry(new_parent, new_name)?.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        if inode.nlink == 0 {
            // Its purge may be under way; a name must not bring it back.
            return Err(ErrorKind::NotFound.into());
        }
        if inode.nlink >= MAX_LINKS {
            return Err(ErrorKind::TooManyLinks.into());
        }
        if inode.nlink == 1 {
            self.count_link(ino, inode.parent, true)?;
        }
        self.count_link(ino, new_parent, true)?;
        inode.nlink += 1;
        inode.changed(self.now, self.index);
        self.put_inode(ino, &inode)?;
        self.touch(Touched::Inode(ino));
        self.put_new_entry(new_parent, new_name, Dentry { ino, kind: inode.kind() })?;
        self.put_modified(new_parent, dir)?;
        Ok(Reply::Attr(inode.attr(ino)))
    }

    /// Whether a directory may lose its name: it is empty, and nobody else holds it, who might know of names to come.
    pub(super) fn check_droppable(&self, directory: Ino) -> Result<(), Fail> {
        self.check_holder(&mut self.named_inode(directory)?)?;
        if self.has_none(&key::entries(directory))? { Ok(()) } else { Err(ErrorKind::NotEmpty.into()) }
    }

    /// An entry, unless the name is taken; says whether it was put.
    fn put_absent_entry(&mut self, parent: Ino, name: &[u8], dentry: Dentry) -> Result<bool, StorageError> {
        let absent = self.txn.put_absent(&key::entry(parent, name), encode(&dentry))?;
        if absent {
            self.touch(Touched::Entry { parent, name: name.to_vec() });
        }
        Ok(absent)
    }

    /// An entry of a name that was looked for in vain.
    fn put_new_entry(&mut self, parent: Ino, name: &[u8], dentry: Dentry) -> Result<(), StorageError> {
        self.txn.put_new(&key::entry(parent, name), encode(&dentry))?;
        self.touch(Touched::Entry { parent, name: name.to_vec() });
        Ok(())
    }

    pub(super) fn put_entry(&mut self, parent: Ino, name: &[u8], dentry: Dentry) -> Result<(), StorageError> {
        self.txn.put(&key::entry(parent, name), encode(&dentry))?;
        self.touch(Touched::Entry { parent, name: name.to_vec() });
        Ok(())
    }

    pub(super) fn delete_entry(&mut self, parent: Ino, name: &[u8]) -> Result<(), StorageError> {
        self.txn.delete(&key::entry(parent, name))?;
        self.touch(Touched::Entry { parent, name: name.to_vec() });
        Ok(())
    }

    /// Stores a directory whose names changed.
    pub(super) fn put_modified(&mut self, ino: Ino, mut dir: Inode) -> Result<(), StorageError> {
        assert!(dir.nlink >= 2, "a directory that has a name and an own entry has two links");
        dir.modified(self.now, self.index);
        self.put_inode(ino, &dir)?;
        self.touch(Touched::Inode(ino));
        Ok(())
    }

    /// An inode that is no directory lost a name in `parent`.
    pub(super) fn drop_link(&mut self, ino: Ino, parent: Ino) -> Result<(), StorageError> {
        let mut inode = self.named_inode(ino)?;
        assert!(inode.nlink > 0 && !inode.is_directory(), "a name counts as a link");
        if inode.nlink > 1 {
            self.count_link(ino, parent, false)?;
        }
        inode.nlink -= 1;
        inode.changed(self.now, self.index);
        if inode.nlink == 1 {
            inode.parent = self.last_link(ino)?;
        }
        self.put_inode(ino, &inode)?;
        self.touch(Touched::Inode(ino));
        if inode.nlink == 0 { self.orphan(ino) } else { Ok(()) }
    }

    /// An empty directory lost its name.
    pub(super) fn drop_directory(&mut self, ino: Ino) -> Result<(), StorageError> {
        let mut inode = self.named_inode(ino)?;
        assert_eq!(inode.nlink, 2, "an empty directory has its name and its own entry");
        inode.nlink = 0;
        inode.changed(self.now, self.index);
        self.put_inode(ino, &inode)?;
        self.touch(Touched::Inode(ino));
        self.orphan(ino)
    }

    fn orphan(&mut self, ino: Ino) -> Result<(), StorageError> {
        self.txn.put(&key::orphan(ino), encode(&()))?;
        self.event(Event::Orphaned(ino));
        Ok(())
    }

    /// Counts a name more, or one less, of an inode of several links in one directory.
    pub(super) fn count_link(&mut self, ino: Ino, parent: Ino, more: bool) -> Result<(), StorageError> {
        let key = key::link(ino, parent);
        let count: u32 = self.txn.row(&key)?.unwrap_or_default();
        let count = if more { count.checked_add(1) } else { count.checked_sub(1) };
        match count {
            Some(0) => self.txn.delete(&key),
            Some(count) => self.txn.put(&key, encode(&count)),
            None => Err(StorageError::damaged(Space::Shared, &key, "links were miscounted")),
        }
    }

    /// The directory of the only name that is left; its row goes, since the inode itself tells from now on.
    fn last_link(&mut self, ino: Ino) -> Result<Ino, StorageError> {
        let all = key::links(ino);
        let rows = self.txn.keys(&all, &all.end())?;
        let [row] = rows.as_slice() else {
            return Err(StorageError::damaged(Space::Shared, &all, "one link is left, and not one row"));
        };
        self.txn.delete(row)?;
        Ok(Ino(key_id(row, all.len())?))
    }
}

fn new_body(node: &NewNode, holder: Option<SessionId>) -> Result<Body, Fail> {
    Ok(match node {
        NewNode::File => Body::File { size: 0, ground: None },
        NewNode::Directory => Body::Directory { lease: holder.map(|holder| Lease { holder, recalled: None }) },
        NewNode::Symlink(target) if target.len() > MAX_SYMLINK => return Err(ErrorKind::NameTooLong.into()),
        NewNode::Symlink(target) if target.is_empty() || target.contains(&0) => return Err(ErrorKind::InvalidArgument.into()),
        NewNode::Symlink(target) => Body::Symlink { target: target.clone() },
        NewNode::Fifo => Body::Fifo,
        NewNode::Socket => Body::Socket,
        NewNode::CharDevice(rdev) => Body::CharDevice { rdev: *rdev },
        NewNode::BlockDevice(rdev) => Body::BlockDevice { rdev: *rdev },
    })
}
