//! Open files: open, create, read, write, flush, fsync, release.
//!
//! Close-to-open on the kernel's side: an open that finds the file at a version other than the one its pages are of drops
//! them (no `FOPEN_KEEP_CACHE`), and one that finds attributes newer than those the kernel was told drops those before
//! it answers. A name that the kernel still held may lead to an inode that is gone: ESTALE makes the kernel look the
//! name up again and repeat the call.

use super::attr::{GENERATION, MODE_BITS, file_attr};
use super::shared::{Shared, TTL, errno};
use bytes::Bytes;
use farshore_types::{Attr, ErrorKind, Ino};
use fuser::{
    Errno, FileHandle, FopenFlags, OpenAccMode, OpenFlags, ReplyCreate, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Longest time that the end of a mount waits for what is still open to be written.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Who may write without clearing set-id bits.
const ROOT: u32 = 0;

/// A file that is open through this mount.
#[derive(Debug)]
pub(super) struct OpenFile {
    handle: crate::FileHandle,
    /// Open for appending and for reading: such a file may be mapped, and the pages of a mapping must be written where
    /// they belong, so here the adapter and not the volume finds the end.
    appends_here: bool,
}

/// The volume's form of the flags of an open, and whether the adapter finds the end for writes.
fn open_flags(flags: OpenFlags, uid: u32) -> (crate::OpenFlags, bool) {
    let mode = flags.acc_mode();
    let append = flags.0 & libc::O_APPEND != 0;
    let appends_here = append && mode == OpenAccMode::O_RDWR;
    let ours = crate::OpenFlags {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        append: append && !appends_here,
        truncate: false,
        keep_set_id: uid == ROOT,
    };
    (ours, appends_here)
}

/// What an operation on an inode itself answers when the inode is gone: ESTALE, upon which the kernel asks for its name again.
pub(super) fn gone(error: crate::FsError) -> Errno {
    if error.is(ErrorKind::NotFound) { Errno::ESTALE } else { errno(error) }
}

impl Shared {
    fn file(&self, handle: FileHandle) -> Result<Arc<OpenFile>, Errno> {
        self.files.get(handle.0).ok_or(Errno::EBADF)
    }

    /// Numbers an open file; at the bound it is released again.
    async fn number(&self, file: OpenFile) -> Result<FileHandle, Errno> {
        let ino = file.handle.ino();
        match self.files.insert(file) {
            Ok(number) => Ok(FileHandle(number)),
            Err(file) => {
                self.versions.close(ino);
                if let Err(error) = self.volume.release(file.handle).await {
                    tracing::warn!("releasing a file that could not be opened: {error}");
                }
                Err(Errno::ENFILE)
            }
        }
    }

    pub(super) fn open(self: &Arc<Self>, request: &Request, ino: Ino, flags: OpenFlags, reply: ReplyOpen) {
        let shared = self.clone();
        let (wanted, appends_here) = open_flags(flags, request.uid());
        let work = async move {
            let (handle, attr) = shared.volume.open(ino, wanted).await.map_err(gone)?;
            if attr.nlink == 0 && !shared.versions.is_open(ino) {
                // Somebody replaced or removed the file under a name that the kernel still held.
                let _ = shared.volume.release(handle).await;
                return Err(Errno::ESTALE);
            }
            let mut answer = FopenFlags::empty();
            if shared.versions.open(ino, attr.version) {
                answer |= FopenFlags::FOPEN_KEEP_CACHE;
            }
            if !wanted.write {
                answer |= FopenFlags::FOPEN_NOFLUSH;
            }
            let number = shared.number(OpenFile { handle, appends_here }).await?;
            if !shared.told.is_current(ino, attr.version)
                && let Some(attributes) = shared.attributes.get()
            {
                attributes.forget(ino).await;
            }
            Ok((number, answer))
        };
        self.answer(reply, work, |reply, (number, flags)| reply.opened(number, flags));
    }

    pub(super) fn create(
        self: &Arc<Self>,
        request: &Request,
        parent: Ino,
        name: Vec<u8>,
        mode: u32,
        flags: OpenFlags,
        reply: ReplyCreate,
    ) {
        let shared = self.clone();
        let (uid, gid) = (request.uid(), request.gid());
        let (wanted, appends_here) = open_flags(flags, uid);
        let work = async move {
            let mode = (mode & MODE_BITS) as u16;
            let made = shared.volume.create(parent, &name, mode, (uid, gid), wanted).await;
            let (handle, attr) = made.map_err(|error| {
                // The kernel saw no such name; somebody was faster. Without O_EXCL it must look again and open what is
                // there, with the checks of permission that an existing file needs.
                if error.is(ErrorKind::Exists) && flags.0 & libc::O_EXCL == 0 { Errno::ESTALE } else { errno(error) }
            })?;
            shared.versions.open(attr.ino, attr.version);
            let number = shared.number(OpenFile { handle, appends_here }).await?;
            Ok((shared, number, attr))
        };
        self.answer(reply, work, |reply, (shared, number, attr): (Arc<Shared>, FileHandle, Attr)| {
            shared.told.tell(attr.ino, attr.version);
            reply.created(&TTL, &file_attr(&attr), GENERATION, number, FopenFlags::empty());
        });
    }

    pub(super) fn read(self: &Arc<Self>, handle: FileHandle, offset: u64, size: u32, reply: ReplyData) {
        let shared = self.clone();
        let work = async move {
            let file = shared.file(handle)?;
            shared.volume.read(&file.handle, offset, size).await.map_err(errno)
        };
        self.answer(reply, work, |reply, data: Bytes| reply.data(&data));
    }

    pub(super) fn write(self: &Arc<Self>, handle: FileHandle, offset: u64, data: Bytes, flags: WriteFlags, reply: ReplyWrite) {
        let shared = self.clone();
        let work = async move {
            let file = shared.file(handle)?;
            let mut offset = offset;
            if file.appends_here && !flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
                // The kernel's idea of the end may be a second old. It holds the inode's lock meanwhile.
                offset = shared.volume.getattr(file.handle.ino()).await.map_err(gone)?.size;
            }
            shared.volume.write(&file.handle, offset, data).await.map_err(errno)
        };
        self.answer(reply, work, |reply, written: usize| {
            reply.written(u32::try_from(written).expect("a write request has at most 1 MiB"));
        });
    }

    /// A change of a name was durable before it was answered (law 24), unless the mount keeps new files back.
    pub(super) fn fsyncdir(self: &Arc<Self>, dir: Ino, reply: ReplyEmpty) {
        let shared = self.clone();
        self.answer(reply, async move { shared.volume.fsync_names(dir).await.map_err(errno) }, |reply, ()| reply.ok());
    }

    pub(super) fn flush(self: &Arc<Self>, handle: FileHandle, reply: ReplyEmpty) {
        let shared = self.clone();
        let work = async move {
            let file = shared.file(handle)?;
            shared.volume.flush(&file.handle).await.map_err(errno)
        };
        self.answer(reply, work, |reply, ()| reply.ok());
    }

    pub(super) fn fsync(self: &Arc<Self>, handle: FileHandle, reply: ReplyEmpty) {
        let shared = self.clone();
        let work = async move {
            let file = shared.file(handle)?;
            shared.volume.fsync(&file.handle).await.map_err(errno)
        };
        self.answer(reply, work, |reply, ()| reply.ok());
    }

    pub(super) fn release(self: &Arc<Self>, handle: FileHandle, reply: ReplyEmpty) {
        let shared = self.clone();
        let work = async move {
            let file = shared.files.remove(handle.0).ok_or(Errno::EBADF)?;
            shared.versions.close(file.handle.ino());
            // close(2) had its answer from flush; nobody hears this one but the log.
            shared.volume.release(file.handle.clone()).await.map_err(errno)
        };
        self.answer(reply, work, |reply, ()| reply.ok());
    }

    /// Commits what was written through all open files.
    pub(super) async fn flush_all(&self) {
        for file in self.files.all() {
            if let Err(error) = self.volume.flush(&file.handle).await {
                tracing::warn!("flushing at the end of the mount: {error}");
            }
        }
    }

    /// Releases whatever the kernel did not. Called once, when no request can come any more, on a thread of the mount.
    pub(super) fn end_all_files(self: &Arc<Self>) {
        let files = self.files.drain();
        if files.is_empty() {
            return;
        }
        let (done, wait) = mpsc::channel::<()>();
        let volume = self.volume.clone();
        self.runtime.spawn(async move {
            for file in files {
                if let Err(error) = volume.release(file.handle.clone()).await {
                    tracing::warn!("releasing at the end of the mount: {error}");
                }
            }
            // Dropped at the end or with the runtime: either ends the wait.
            drop(done);
        });
        if wait.recv_timeout(END_WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("files that were open when the mount ended were not all written within {} s", END_WITHIN.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FsError;

    #[test]
    fn flags_of_an_open_are_taken_apart() {
        let (read, here) = open_flags(OpenFlags(libc::O_RDONLY), 1000);
        assert!(read.read && !read.write && !read.append && !read.keep_set_id && !here);
        let (write, here) = open_flags(OpenFlags(libc::O_WRONLY | libc::O_APPEND), 0);
        assert!(!write.read && write.write && write.append && write.keep_set_id && !here);
        let (both, here) = open_flags(OpenFlags(libc::O_RDWR | libc::O_APPEND), 1000);
        assert!(both.read && both.write && here, "a file that may be mapped appends in the adapter");
        assert!(!both.append && !both.truncate);
    }

    #[test]
    fn an_inode_that_is_gone_is_stale_and_a_name_that_is_gone_is_not() {
        let missing = || FsError::refused(ErrorKind::NotFound, "test");
        assert_eq!(i32::from(gone(missing())), libc::ESTALE);
        assert_eq!(i32::from(errno(missing())), libc::ENOENT);
        assert_eq!(i32::from(gone(FsError::refused(ErrorKind::IsDirectory, "test"))), libc::EISDIR);
    }
}
