//! Writing and deleting.

use super::format::{Md5Tag, ObjectInfo};
use super::temporary::{Removed, Temporary};
use super::{DURABLE_DIRECTORIES_MAX, Store, StoreError, path};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Times a directory is made anew when deletes keep removing it as empty.
const DIRECTORY_TRIES_MAX: u32 = 64;
/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// When a write may take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Only if no object has the key.
    Absent,
    /// Always; an older object is replaced.
    Any,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    Stored,
    /// Condition [`Condition::Absent`] did not hold; the object that is there is durable.
    Existed,
}

/// An object being written, not visible yet.
#[derive(Debug)]
pub struct Writer {
    temporary: Temporary,
    size: u64,
    crc32c: u32,
}

impl Writer {
    /// Adds data at the end.
    pub fn append(&mut self, data: &[u8]) -> Result<(), StoreError> {
        self.temporary.file.write_all(data).map_err(StoreError::io("write", &self.temporary.path))?;
        self.size += data.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, data);
        Ok(())
    }

    /// Closes the file and keeps it for later. Only in a store that is used [`Sharing::Alone`](super::Sharing): another
    /// process would take it for abandoned.
    pub fn park(self) -> Parked {
        Parked { path: self.temporary.path, size: self.size, crc32c: self.crc32c }
    }

    /// Bytes appended so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Checksum of the bytes appended so far.
    pub fn crc32c(&self) -> u32 {
        self.crc32c
    }
}

/// Data set aside without an open file, such as a part of a multipart upload; removed when dropped.
#[derive(Debug)]
pub struct Parked {
    path: Removed,
    size: u64,
    crc32c: u32,
}

impl Parked {
    /// Bytes of data.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends the data to an object being written, verified.
    pub fn append_to(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let mut file = File::open(&*self.path).map_err(StoreError::io("open", &self.path))?;
        let mut piece = vec![0; COPY_BYTES];
        let mut found = 0;
        loop {
            let length = file.read(&mut piece).map_err(StoreError::io("read", &self.path))?;
            if length == 0 {
                break;
            }
            found = crc32c::crc32c_append(found, &piece[..length]);
            writer.append(&piece[..length])?;
        }
        if found != self.crc32c {
            let key = self.path.display().to_string();
            return Err(StoreError::Corrupt { key, expected: self.crc32c, found });
        }
        Ok(())
    }
}

impl Store {
    /// Starts an object; it needs no key before [`Store::publish`].
    pub fn write(&self) -> Result<Writer, StoreError> {
        self.check_writable()?;
        Ok(Writer { temporary: Temporary::create(self)?, size: 0, crc32c: 0 })
    }

    /// Makes the object visible under `key`, durable on return.
    pub fn publish(
        &self,
        key: &str,
        mut writer: Writer,
        md5: Option<Md5Tag>,
        headers: BTreeMap<String, String>,
        now_unix_ms: u64,
        condition: Condition,
    ) -> Result<(Published, ObjectInfo), StoreError> {
        let target = path::of_key(&self.root, key)?;
        let info = ObjectInfo { size: writer.size, crc32c: writer.crc32c, md5, modified_unix_ms: now_unix_ms, headers };
        let tail = info.encode_tail().map_err(|why| StoreError::Headers { key: key.to_owned(), why })?;
        let temporary = &mut writer.temporary;
        temporary.file.write_all(&tail).map_err(StoreError::io("write", &temporary.path))?;
        temporary.file.sync_all().map_err(StoreError::io("flush", &temporary.path))?;

        let parent = target.parent().expect("the path of a key lies below the root").to_owned();
        let _key = self.key_lock(&target).write().unwrap_or_else(PoisonError::into_inner);
        self.check_writable()?;
        let published = self.place(&temporary.path, &target, &parent, condition)?;
        // Also when it existed: the process that made it may not have come to its own flush.
        self.flush(&parent)?;
        self.make_directory(&parent)?;
        Ok((published, info))
    }

    fn place(&self, from: &Path, target: &Path, parent: &Path, condition: Condition) -> Result<Published, StoreError> {
        for _ in 0..DIRECTORY_TRIES_MAX {
            match self.make_directory(parent) {
                // Another process removed a directory above it.
                Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    self.forget_missing(parent);
                    continue;
                }
                other => other?,
            }
            let placed = match condition {
                Condition::Absent => fs::hard_link(from, target),
                Condition::Any => fs::rename(from, target),
            };
            match placed {
                Ok(()) => return Ok(Published::Stored),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Published::Existed),
                // A delete removed the directory, empty for a moment: it is made again.
                Err(error) if error.kind() == ErrorKind::NotFound => self.forget_missing(parent),
                Err(error) => return Err(StoreError::io("place", target)(error)),
            }
        }
        Err(StoreError::Io { action: "keep the directory", path: parent.to_owned(), source: ErrorKind::NotFound.into() })
    }

    /// Makes `directory` and what is above it, durable on return. Cheap when it is known to be durable.
    fn make_directory(&self, directory: &Path) -> Result<(), StoreError> {
        let mut durable = self.directories();
        let mut missing: Vec<PathBuf> = directory.ancestors().take_while(|d| !durable.contains(*d)).map(Path::to_owned).collect();
        while let Some(next) = missing.pop() {
            match fs::create_dir(&next) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(StoreError::io("create", &next)(error));
                }
                _ => {}
            }
            // Flushed also when it existed: who made it may not have come to that.
            self.flush(next.parent().expect("the root is always known to be durable"))?;
            if durable.len() >= DURABLE_DIRECTORIES_MAX {
                durable.clear();
                durable.insert(self.root.clone());
            }
            durable.insert(next);
        }
        Ok(())
    }

    /// Forgets directories on the way to `directory` that are gone, removed by another process for instance.
    fn forget_missing(&self, directory: &Path) {
        let mut durable = self.directories();
        for gone in directory.ancestors().take_while(|d| *d != self.root && !d.exists()) {
            durable.remove(gone);
        }
    }

    /// Removes an object, durably; an absent one is no error.
    pub fn delete(&self, key: &str) -> Result<(), StoreError> {
        let target = path::of_key(&self.root, key)?;
        let parent = target.parent().expect("the path of a key lies below the root").to_owned();
        let _key = self.key_lock(&target).write().unwrap_or_else(PoisonError::into_inner);
        self.check_writable()?;
        match fs::remove_file(&target) {
            Ok(()) => self.flush(&parent)?,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(StoreError::io("remove", &target)(error)),
        }
        self.remove_empty(&parent);
        Ok(())
    }

    /// Removes directories that hold nothing any more, upwards, so that listings stay fast. Losing this in a crash does
    /// no harm, so it is not flushed.
    fn remove_empty(&self, directory: &Path) {
        let mut durable = self.directories();
        for empty in directory.ancestors().take_while(|d| *d != self.root) {
            if fs::remove_dir(empty).is_err() {
                break;
            }
            durable.remove(empty);
        }
    }

    /// Whether an earlier failed flush ended all writing.
    pub fn refuses_writes(&self) -> bool {
        self.writes_refused.load(Ordering::Acquire)
    }
}

/// Whether the error says that no such object is there; a file in the place of a directory says so too.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
