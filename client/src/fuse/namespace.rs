//! Names and attributes: lookup, getattr, setattr, make, remove, rename, link, readlink, statfs.

use super::attr::{Changes, GENERATION, MODE_BITS, file_attr};
use super::file::gone;
use super::shared::{Shared, TTL, errno};
use crate::SetAttr;
use farshore_types::{Attr, Ino, MAX_NAME, NewNode, RenameMode};
use fuser::{Errno, RenameFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyStatfs, Request};
use std::future::Future;
use std::sync::Arc;

/// Unit of the figures that statfs gives.
const STATFS_BLOCK: u32 = 4096;
/// Object stores have no end; this much is said to be free: 1 PiB, as JuiceFS says.
const FREE_BYTES: u64 = 1 << 50;
/// Inodes said to be free.
const FREE_INODES: u64 = 1 << 30;

/// What mknod makes of a mode and a device number; `None` for a type that mknod cannot make.
fn node_of(mode: u32, rdev: u32) -> Option<NewNode> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(NewNode::File),
        libc::S_IFIFO => Some(NewNode::Fifo),
        libc::S_IFSOCK => Some(NewNode::Socket),
        libc::S_IFCHR => Some(NewNode::CharDevice(rdev)),
        libc::S_IFBLK => Some(NewNode::BlockDevice(rdev)),
        _ => None,
    }
}

/// What renameat2's flags ask; `None` for what is not known or contradicts itself.
fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    match flags.bits() {
        0 => Some(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

/// Figures for the kernel: (blocks, free blocks, inodes, free inodes).
fn statfs_figures(used_bytes: u64, used_inodes: u64) -> (u64, u64, u64, u64) {
    let free = FREE_BYTES / u64::from(STATFS_BLOCK);
    let used = used_bytes.div_ceil(u64::from(STATFS_BLOCK));
    (used.saturating_add(free), free, used_inodes.saturating_add(FREE_INODES), FREE_INODES)
}

impl Shared {
    /// Answers with an entry, which the kernel then keeps for [`TTL`]. An error is not kept.
    fn entry(self: &Arc<Self>, reply: ReplyEntry, work: impl Future<Output = Result<Attr, Errno>> + Send + 'static) {
        let shared = self.clone();
        self.answer(reply, work, move |reply, attr: Attr| {
            shared.told.tell(attr.ino, attr.version);
            reply.entry(&TTL, &file_attr(&attr), GENERATION);
        });
    }

    fn attributes(self: &Arc<Self>, reply: ReplyAttr, work: impl Future<Output = Result<Attr, Errno>> + Send + 'static) {
        let shared = self.clone();
        self.answer(reply, work, move |reply, attr: Attr| {
            shared.told.tell(attr.ino, attr.version);
            reply.attr(&TTL, &file_attr(&attr));
        });
    }

    pub(super) fn lookup(self: &Arc<Self>, parent: Ino, name: Vec<u8>, reply: ReplyEntry) {
        if name.len() > MAX_NAME {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let volume = self.volume.clone();
        self.entry(reply, async move { volume.lookup(parent, &name).await.map_err(errno) });
    }

    pub(super) fn getattr(self: &Arc<Self>, ino: Ino, reply: ReplyAttr) {
        let volume = self.volume.clone();
        self.attributes(reply, async move { volume.getattr(ino).await.map_err(gone) });
    }

    pub(super) fn setattr(self: &Arc<Self>, ino: Ino, size: Option<u64>, changes: Changes, reply: ReplyAttr) {
        let volume = self.volume.clone();
        self.attributes(reply, async move {
            if size.is_none() && changes.is_empty() {
                return volume.getattr(ino).await.map_err(gone);
            }
            let Changes { mode, uid, gid, atime, mtime } = changes;
            volume.setattr(ino, SetAttr { mode, uid, gid, size, atime, mtime }).await.map_err(gone)
        });
    }

    pub(super) fn readlink(self: &Arc<Self>, ino: Ino, reply: ReplyData) {
        let volume = self.volume.clone();
        let work = async move { volume.readlink(ino).await.map_err(gone) };
        self.answer(reply, work, |reply, target: Vec<u8>| reply.data(&target));
    }

    fn make(self: &Arc<Self>, request: &Request, parent: Ino, name: Vec<u8>, node: NewNode, mode: u32, reply: ReplyEntry) {
        let volume = self.volume.clone();
        // The kernel took the umask off already.
        let (mode, uid, gid) = ((mode & MODE_BITS) as u16, request.uid(), request.gid());
        self.entry(reply, async move { volume.make(parent, &name, node, mode, uid, gid).await.map_err(errno) });
    }

    pub(super) fn mknod(
        self: &Arc<Self>,
        request: &Request,
        parent: Ino,
        name: Vec<u8>,
        mode: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        match node_of(mode, rdev) {
            Some(node) => self.make(request, parent, name, node, mode, reply),
            None => reply.error(Errno::EINVAL),
        }
    }

    pub(super) fn mkdir(self: &Arc<Self>, request: &Request, parent: Ino, name: Vec<u8>, mode: u32, reply: ReplyEntry) {
        self.make(request, parent, name, NewNode::Directory, mode, reply);
    }

    pub(super) fn symlink(self: &Arc<Self>, request: &Request, parent: Ino, name: Vec<u8>, target: Vec<u8>, reply: ReplyEntry) {
        const LINK_MODE: u32 = 0o777;
        self.make(request, parent, name, NewNode::Symlink(target), LINK_MODE, reply);
    }

    pub(super) fn unlink(self: &Arc<Self>, parent: Ino, name: Vec<u8>, reply: ReplyEmpty) {
        let volume = self.volume.clone();
        let work = async move { volume.unlink(parent, &name).await.map_err(errno) };
        self.answer(reply, work, |reply, ()| reply.ok());
    }

    pub(super) fn rmdir(self: &Arc<Self>, parent: Ino, name: Vec<u8>, reply: ReplyEmpty) {
        let volume = self.volume.clone();
        let work = async move { volume.rmdir(parent, &name).await.map_err(errno) };
        self.answer(reply, work, |reply, ()| reply.ok());
    }

    pub(super) fn rename(self: &Arc<Self>, from: (Ino, Vec<u8>), to: (Ino, Vec<u8>), flags: RenameFlags, reply: ReplyEmpty) {
        let Some(mode) = rename_mode(flags) else { return reply.error(Errno::EINVAL) };
        let volume = self.volume.clone();
        let work = async move { volume.rename(from.0, &from.1, to.0, &to.1, mode).await.map_err(errno) };
        self.answer(reply, work, |reply, ()| reply.ok());
    }

    pub(super) fn link(self: &Arc<Self>, ino: Ino, new_parent: Ino, new_name: Vec<u8>, reply: ReplyEntry) {
        let volume = self.volume.clone();
        self.entry(reply, async move { volume.link(ino, new_parent, &new_name).await.map_err(errno) });
    }

    pub(super) fn statfs(self: &Arc<Self>, reply: ReplyStatfs) {
        let volume = self.volume.clone();
        let work = async move { volume.statfs().await.map_err(errno) };
        self.answer(reply, work, |reply, figures| {
            let (blocks, free, files, files_free) = statfs_figures(figures.used_bytes, figures.used_inodes);
            reply.statfs(blocks, free, free, files, files_free, STATFS_BLOCK, MAX_NAME as u32, STATFS_BLOCK);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mknod_makes_what_the_type_says_and_nothing_else() {
        assert_eq!(node_of(0o644, 5), Some(NewNode::File));
        assert_eq!(node_of(libc::S_IFREG | 0o644, 0), Some(NewNode::File));
        assert_eq!(node_of(libc::S_IFIFO, 0), Some(NewNode::Fifo));
        assert_eq!(node_of(libc::S_IFSOCK, 0), Some(NewNode::Socket));
        assert_eq!(node_of(libc::S_IFCHR, 0x103), Some(NewNode::CharDevice(0x103)));
        assert_eq!(node_of(libc::S_IFBLK, 0x800), Some(NewNode::BlockDevice(0x800)));
        assert_eq!(node_of(libc::S_IFDIR, 0), None);
        assert_eq!(node_of(libc::S_IFLNK, 0), None);
    }

    #[test]
    fn rename_flags_are_honoured_or_refused() {
        assert_eq!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace));
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE), Some(RenameMode::NoReplace));
        assert_eq!(rename_mode(RenameFlags::RENAME_EXCHANGE), Some(RenameMode::Exchange));
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE), None);
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
    }

    #[test]
    fn statfs_shows_use_and_a_fixed_rest() {
        let (blocks, free, files, files_free) = statfs_figures(4097, 12);
        assert_eq!((blocks - free, files - files_free), (2, 12));
        assert_eq!(free * u64::from(STATFS_BLOCK), FREE_BYTES);
        assert_eq!(statfs_figures(0, u64::MAX).2, u64::MAX);
    }
}
