//! Open directories: the kernel's requests on top of [`Cursor`].

use super::attr::{GENERATION, file_attr, file_type};
use super::cursor::{At, Cursor, DOTS, PAGE_ENTRIES, Wanted};
use super::shared::{Answer, Shared, TTL, errno};
use crate::Volume;
use farshore_types::{Attr, DirEntry, Ino, NodeKind};
use fuser::{Errno, FileHandle, FopenFlags, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyOpen};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A reply that takes entries until it is full.
pub(super) trait Listing: Answer {
    /// `next`: the position after this entry. `true`: it had no room for the entry.
    fn add(&mut self, shared: &Shared, entry: &DirEntry, next: u64) -> bool;
    fn send(self);
}

impl Listing for ReplyDirectory {
    fn add(&mut self, _: &Shared, entry: &DirEntry, next: u64) -> bool {
        ReplyDirectory::add(self, INodeNo(entry.attr.ino.0), next, file_type(entry.attr.kind), OsStr::from_bytes(&entry.name))
    }

    fn send(self) {
        self.ok();
    }
}

impl Listing for ReplyDirectoryPlus {
    fn add(&mut self, shared: &Shared, entry: &DirEntry, next: u64) -> bool {
        let attr = &entry.attr;
        shared.told.tell(attr.ino, attr.version);
        ReplyDirectoryPlus::add(
            self,
            INodeNo(attr.ino.0),
            next,
            OsStr::from_bytes(&entry.name),
            &TTL,
            &file_attr(attr),
            GENERATION,
        )
    }

    fn send(self) {
        self.ok();
    }
}

/// `.` or `..`. The kernel takes only the number and the kind from these two, so the rest is left at zero.
fn dot(name: &[u8], ino: Ino) -> DirEntry {
    DirEntry { name: name.to_vec(), attr: Attr::zero(ino, NodeKind::Directory) }
}

/// Reads one page for a cursor.
async fn read_page(volume: &Volume, ino: Ino, cursor: &mut Cursor, wanted: Wanted) -> Result<(), Errno> {
    let (entries, more) = volume.readdir(ino, wanted.after.clone(), PAGE_ENTRIES).await.map_err(errno)?;
    cursor.take(wanted, entries, more).map_err(|_| Errno::EOVERFLOW)
}

impl Shared {
    pub(super) fn opendir(self: &Arc<Self>, reply: ReplyOpen) {
        match self.dirs.insert(Mutex::new(Cursor::default())) {
            Ok(number) => reply.opened(FileHandle(number), FopenFlags::empty()),
            Err(_) => reply.error(Errno::ENFILE),
        }
    }

    pub(super) fn readdir<R: Listing>(self: &Arc<Self>, ino: Ino, handle: FileHandle, offset: u64, reply: R) {
        self.admit(reply, move |shared, mut reply| async move {
            match shared.within_bounds(shared.fill(ino, handle, offset, &mut reply)).await {
                Ok(()) => reply.send(),
                Err(errno) => reply.fail(errno),
            }
        });
    }

    /// Fills a reply from a position on, until it is full or the listing ends.
    async fn fill<R: Listing>(&self, ino: Ino, handle: FileHandle, offset: u64, reply: &mut R) -> Result<(), Errno> {
        let directory = self.dirs.get(handle.0).ok_or(Errno::EBADF)?;
        let mut cursor = directory.lock().await;
        if offset == 0 {
            cursor.rewind();
        }
        if offset < DOTS {
            // The first page and `..` in one round trip.
            let first = Wanted::first();
            let (parent, ()) = tokio::try_join!(
                async { self.volume.parent(ino).await.map_err(errno) },
                read_page(&self.volume, ino, &mut cursor, first)
            )?;
            if offset == 0 && reply.add(self, &dot(b".", ino), 1) {
                return Ok(());
            }
            if reply.add(self, &dot(b"..", parent), DOTS) {
                return Ok(());
            }
        }
        let mut position = offset.max(DOTS);
        loop {
            let wanted = match cursor.at(position) {
                At::End => return Ok(()),
                At::Entry(entry) => {
                    if reply.add(self, entry, position + 1) {
                        return Ok(());
                    }
                    position += 1;
                    continue;
                }
                At::Skip(next) => {
                    assert!(next > position, "a listing goes forward");
                    position = next;
                    continue;
                }
                At::Read(wanted) => wanted,
            };
            read_page(&self.volume, ino, &mut cursor, wanted).await?;
        }
    }
}
