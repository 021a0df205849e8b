//! The table of requests: each is handed to its family with what it borrowed copied, and runs on tokio.

use super::attr::{Changes, ino};
use super::shared::Shared;
use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, Request, TimeOrNow, WriteFlags,
};
use fuser::{
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Largest write request in bytes.
const MAX_WRITE: u32 = 1 << 20;
/// Background requests (readahead, release) that the kernel has out at a time.
const MAX_BACKGROUND: u16 = 64;
/// What is asked of the kernel where it has it; each is an improvement only.
const WISHES: [InitFlags; 4] = [
    InitFlags::FUSE_DO_READDIRPLUS.union(InitFlags::FUSE_READDIRPLUS_AUTO),
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Pages go when size or mtime is found changed: what lets a long-open reader see others' writes.
    InitFlags::FUSE_AUTO_INVAL_DATA,
    // A link's target never changes and its inode number is never issued again (law 7).
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// What fuser calls.
pub(super) struct Adapter {
    pub shared: Arc<Shared>,
}

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wish in WISHES {
            if config.add_capabilities(wish).is_err() {
                tracing::debug!("the kernel has not all of {wish:?}");
            }
        }
        config.set_max_write(MAX_WRITE).expect("1 MiB lies within fuser's bound");
        config.set_max_background(MAX_BACKGROUND).expect("the bound is not 0");
        Ok(())
    }

    fn destroy(&mut self) {
        self.shared.end_all_files();
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.shared.lookup(ino(parent), bytes(name), reply);
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {
        // Inode numbers are the volume's own: nothing is kept for the kernel's sake.
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.shared.getattr(ino(number), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.shared.setattr(ino(number), size, Changes::from_kernel(mode, uid, gid, atime, mtime), reply);
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        self.shared.readlink(ino(number), reply);
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, rdev: u32, reply: ReplyEntry) {
        self.shared.mknod(request, ino(parent), bytes(name), mode, rdev, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.shared.mkdir(request, ino(parent), bytes(name), mode, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.shared.unlink(ino(parent), bytes(name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.shared.rmdir(ino(parent), bytes(name), reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.shared.symlink(request, ino(parent), bytes(name), bytes(target.as_os_str()), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.shared.rename((ino(parent), bytes(name)), (ino(new_parent), bytes(new_name)), flags, reply);
    }

    fn link(&self, _: &Request, number: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        self.shared.link(ino(number), ino(new_parent), bytes(new_name), reply);
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.shared.open(request, ino(number), flags, reply);
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, flags: i32, reply: ReplyCreate) {
        self.shared.create(request, ino(parent), bytes(name), mode, OpenFlags(flags), reply);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.shared.read(handle, offset, size, reply);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.shared.write(handle, offset, Bytes::copy_from_slice(data), write_flags, reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        self.shared.flush(handle, reply);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.release(handle, reply);
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.shared.fsync(handle, reply);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.shared.opendir(reply);
    }

    fn readdir(&self, _: &Request, number: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.shared.readdir(ino(number), handle, offset, reply);
    }

    fn readdirplus(&self, _: &Request, number: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.shared.readdir(ino(number), handle, offset, reply);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.shared.dirs.remove(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, dir: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.shared.fsyncdir(ino(dir), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.shared.statfs(reply);
    }

    // ENOSYS, once: the kernel then does these itself (seek, copy) or refuses them (attributes, preallocation).

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _flags: i32, _position: u32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _offset: u64, _len: u64, _mode: i32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _offset: i64, _whence: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _offset_in: u64,
        _: INodeNo,
        _: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
