//! The only way in which apply touches state. [`SharedTxn`] reaches the shared space alone: shared apply has no handle
//! on the local part, by type (law 2). It remembers the before-image of every key at its first touch (law 20), and at
//! the end writes them as one undo row and carries the digest over, in the transaction of the change itself (law 2).

use crate::digest::{add, subtract};
use crate::header::put_digest;
use crate::key;
use crate::kv::{KvRead, KvWrite, Row, Space, StorageError};
use crate::row::decode;
use crate::undo::{BeforeImages, encode_undo, undo_key};
use farshore_types::LogIndex;
use serde::de::DeserializeOwned;

/// A key and its value.
type KeyValue<'a> = (&'a [u8], &'a [u8]);

/// Reads of the shared space, by apply and by queries alike.
pub(crate) trait SharedRead {
    fn bytes(&self, key: &[u8]) -> Result<Option<&[u8]>, StorageError>;

    fn rows<'a>(&'a self, from: &[u8], to: &[u8]) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError>;

    fn row<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StorageError> {
        self.bytes(key)?.map(|bytes| decode(key, bytes)).transpose()
    }
}

impl SharedRead for &dyn KvRead {
    fn bytes(&self, key: &[u8]) -> Result<Option<&[u8]>, StorageError> {
        self.get(Space::Shared, key)
    }

    fn rows<'a>(&'a self, from: &[u8], to: &[u8]) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        self.scan(Space::Shared, from, Some(to))
    }
}

/// One entry's changes to the shared space.
pub(crate) struct SharedTxn<'a> {
    kv: &'a mut dyn KvWrite,
    before: BeforeImages,
}

impl SharedRead for SharedTxn<'_> {
    fn bytes(&self, key: &[u8]) -> Result<Option<&[u8]>, StorageError> {
        self.kv.get(Space::Shared, key)
    }

    fn rows<'a>(&'a self, from: &[u8], to: &[u8]) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        self.kv.scan(Space::Shared, from, Some(to))
    }
}

impl<'a> SharedTxn<'a> {
    pub fn new(kv: &'a mut dyn KvWrite) -> Self {
        SharedTxn { kv, before: BeforeImages::new() }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.touch(key)?;
        self.kv.put(Space::Shared, key, value)
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<(), StorageError> {
        self.touch(key)?;
        self.kv.delete(Space::Shared, key)
    }

    /// All keys from `from` (inclusive) to `to` (exclusive): what is deleted cannot be scanned at the same time.
    pub fn keys(&self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>, StorageError> {
        self.rows(from, to)?.map(|row| row.map(|(key, _)| key.to_vec())).collect()
    }

    /// The last row from `from` (inclusive) to `to` (exclusive).
    pub fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<KeyValue<'_>>, StorageError> {
        self.kv.scan_back(Space::Shared, from, Some(to))?.next().transpose()
    }

    fn touch(&mut self, key: &[u8]) -> Result<(), StorageError> {
        assert!(key != key::DIGEST, "the digest is kept by the transaction itself");
        if !self.before.contains_key(key) {
            let old = self.kv.get(Space::Shared, key)?.map(<[u8]>::to_vec);
            self.before.insert(key.to_vec(), old);
        }
        Ok(())
    }

    /// Writes the undo row of `index` and the new digest.
    pub fn finish(mut self, index: LogIndex) -> Result<(), StorageError> {
        let mut digest = crate::header::digest(self.kv)?;
        let kv = &self.kv;
        let mut failed = None;
        // Keys that ended as they began are neither undone nor hashed.
        self.before.retain(|key, old| match kv.get(Space::Shared, key) {
            Ok(new) if new == old.as_deref() => false,
            Ok(new) => {
                digest = old.as_ref().map_or(digest, |old| subtract(digest, key, old));
                digest = new.map_or(digest, |new| add(digest, key, new));
                true
            }
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        self.kv.put(Space::Undo, &undo_key(index), &encode_undo(&self.before))?;
        put_digest(self.kv, digest)
    }
}
