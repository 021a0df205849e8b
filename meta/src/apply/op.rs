//! Which operation goes where, and what all of them check.

use super::tree::Wanted;
use super::{Apply, Fail};
use crate::inode::Inode;
use crate::key;
use crate::kv::StorageError;
use crate::row::{Dentry, Window};
use crate::txn::SharedRead;
use farshore_types::{ErrorKind, Ino, MAX_NAME, Op, Reply, SessionId};

/// Links to one inode, inclusive; of a directory, 2 and its subdirectories.
pub const MAX_LINKS: u32 = i32::MAX as u32;

impl Apply<'_> {
    pub(super) fn op(&mut self, session: SessionId, op: &Op, window: &mut Window) -> Result<Reply, Fail> {
        match op {
            Op::Make { parent, name, node, mode, uid, gid } => {
                let (mode, uid, gid) = (*mode, *uid, *gid);
                self.make(*parent, name, &Wanted { node, mode, uid, gid, number: None, holder: None })
            }
            Op::MakeAs { parent, name, node, mode, uid, gid, ino, lease } => {
                self.check_leases()?;
                let (mode, uid, gid, number) = (*mode, *uid, *gid, ino.map(|ino| (session, ino)));
                self.make(*parent, name, &Wanted { node, mode, uid, gid, number, holder: lease.then_some(session) })
            }
            Op::Unlink { parent, name } => self.unlink(*parent, name),
            Op::Rmdir { parent, name } => self.rmdir(*parent, name),
            Op::Rename { parent, name, new_parent, new_name, mode } => {
                self.rename((*parent, name), (*new_parent, new_name), *mode)
            }
            Op::Link { ino, new_parent, new_name } => self.link(*ino, *new_parent, new_name),
            Op::SetAttr { ino, mode, uid, gid, atime, mtime } => self.set_attr(*ino, *mode, (*uid, *gid), (*atime, *mtime)),
            Op::Truncate { ino, size } => self.truncate(*ino, *size),
            Op::CommitSlices { ino, slices, clear_set_id } => self.commit_slices(session, window, *ino, slices, *clear_set_id),
            Op::AllocSlices { count } => self.alloc_slices(session, window, *count),
            Op::CloseSlices { below } => self.close_slices(session, window, *below),
            Op::AllocInos { count } => self.alloc_inos(session, *count),
            Op::GiveBack { dirs } => self.give_back(session, dirs),
            Op::Recall { dir, name, take } => self.recall(*dir, name, *take),
        }
    }

    /// A directory in which this session may change names. One that was removed and is still open has no names any more.
    pub(super) fn directory(&self, ino: Ino) -> Result<Inode, Fail> {
        let mut inode = self.inode(ino)?;
        if !inode.is_directory() {
            return Err(ErrorKind::NotDirectory.into());
        }
        if inode.nlink == 0 {
            return Err(ErrorKind::NotFound.into());
        }
        self.check_holder(&mut inode)?;
        Ok(inode)
    }

    pub(super) fn dentry(&self, parent: Ino, name: &[u8]) -> Result<Option<Dentry>, StorageError> {
        self.txn.row(&key::entry(parent, name))
    }
}

/// Names that a directory can hold; the kernel resolves `.` and `..` itself.
pub(super) fn check_name(name: &[u8]) -> Result<(), Fail> {
    if name.len() > MAX_NAME {
        return Err(ErrorKind::NameTooLong.into());
    }
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(ErrorKind::InvalidArgument.into());
    }
    Ok(())
}
