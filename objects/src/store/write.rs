//! Writing and deleting.

use super::format::{Md5Tag, ObjectInfo};
use super::temporary::{Removed, Temporary};
use super::{DURABLE_DIRECTORIES_MAX, Sharing, Store, StoreError, path};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
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
        self.make_durable(&parent)?;
        Ok((published, info))
    }

    /// Gives the file its name. The directories are made without a flush, which would leave time for a delete to find
    /// them empty and remove them; what is flushed afterwards makes all of it durable.
    fn place(&self, from: &Path, target: &Path, parent: &Path, condition: Condition) -> Result<Published, StoreError> {
        for _ in 0..DIRECTORY_TRIES_MAX {
            let placed = match condition {
                Condition::Absent => fs::hard_link(from, target),
                Condition::Any => fs::rename(from, target),
            };
            match placed {
                Ok(()) => return Ok(Published::Stored),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Published::Existed),
                Err(error) if error.kind() == ErrorKind::NotFound => match fs::create_dir_all(parent) {
                    // Or it was there and has gone before `create_dir_all` saw that it is a directory.
                    Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
                        return Err(StoreError::io("create", parent)(error));
                    }
                    _ => {}
                },
                Err(error) => return Err(StoreError::io("place", target)(error)),
            }
        }
        Err(StoreError::Io { action: "keep the directory", path: parent.to_owned(), source: ErrorKind::NotFound.into() })
    }

    /// Makes the names of `directory` and of those above it durable. Cheap when they are known to be; of a directory
    /// that other processes use nothing is known, since they may have made it anew.
    fn make_durable(&self, directory: &Path) -> Result<(), StoreError> {
        let mut durable = self.directories();
        for next in directory.ancestors().take_while(|d| *d != self.root) {
            if durable.contains(next) {
                break;
            }
            self.flush(next.parent().expect("it lies below the root"))?;
        }
        if self.sharing == Sharing::Alone {
            if durable.len() >= DURABLE_DIRECTORIES_MAX {
                durable.clear();
            }
            durable.extend(directory.ancestors().take_while(|d| *d != self.root).map(Path::to_owned));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Store, key: &str) -> Result<Published, StoreError> {
        let mut writer = store.write()?;
        writer.append(b"data")?;
        Ok(store.publish(key, writer, None, BTreeMap::new(), 1, Condition::Any)?.0)
    }

    #[test]
    fn after_a_failed_flush_nothing_is_written_and_all_is_read() {
        let root = tempfile::TempDir::new().unwrap();
        let store = Store::open(root.path(), Sharing::Alone).unwrap();
        put(&store, "before").unwrap();
        // What cannot be opened as a directory fails as a flush of one would.
        assert!(store.flush(&root.path().join("before=/x")).is_err());
        assert!(store.refuses_writes());
        assert!(matches!(put(&store, "after"), Err(StoreError::WritesRefused { .. })));
        assert!(matches!(store.delete("before"), Err(StoreError::WritesRefused { .. })));
        assert_eq!(store.read("before").unwrap().all().unwrap(), b"data");
    }

    #[test]
    fn directories_come_and_go_with_their_objects() {
        let root = tempfile::TempDir::new().unwrap();
        let store = Store::open(root.path(), Sharing::Alone).unwrap();
        put(&store, "a/b/c/1").unwrap();
        put(&store, "a/2").unwrap();
        store.delete("a/b/c/1").unwrap();
        assert!(root.path().join("a").exists() && !root.path().join("a/b").exists());
        put(&store, "a/b/c/1").unwrap();
        assert_eq!(store.read("a/b/c/1").unwrap().info().size, 4);
        // Another process may remove them too.
        fs::remove_dir_all(root.path().join("a")).unwrap();
        put(&store, "a/b/c/1").unwrap();
        assert_eq!(store.read("a/b/c/1").unwrap().info().size, 4);
    }
}
