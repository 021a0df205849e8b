//! The only way in which apply touches state. [`SharedTxn`] reaches the shared space alone: shared apply has no handle
//! on the local part, by type (law 2).
//!
//! It keeps what an entry wrote in memory until the entry is done: each key is read once for its before-image (law 20)
//! and written once, in key order, however many of the entry's requests change it. At the end it writes the rows, the
//! undo row and the digest, in the transaction of the change itself (law 2).

use crate::digest::RowHasher;
use crate::header::put_digest;
use crate::key;
use crate::kv::{KvRead, KvWrite, Row, Space, StorageError};
use crate::row::{Value, decode};
use crate::undo::{BeforeImage, encode_undo, undo_key};
use farshore_types::LogIndex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::iter::Peekable;
use std::ops::Bound;

/// A key and its value.
type KeyValue<'a> = (&'a [u8], &'a [u8]);

/// Reads of the shared space, by apply and by queries alike.
pub(crate) trait SharedRead {
    fn bytes(&self, key: &[u8]) -> Result<Option<&[u8]>, StorageError>;

    fn rows<'a>(&'a self, from: &[u8], to: &[u8]) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError>;

    fn row<T: Value>(&self, key: &[u8]) -> Result<Option<T>, StorageError> {
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

/// A key that the entry has written: its value before the entry, and the one now; `None`: absent.
struct Slot {
    before: Option<Vec<u8>>,
    now: Option<Vec<u8>>,
}

/// What an entry has written, in key order.
type Slots = BTreeMap<Vec<u8>, Slot>;

/// One entry's changes to the shared space.
pub(crate) struct SharedTxn<'a> {
    kv: &'a mut dyn KvWrite,
    slots: Slots,
    /// The stored row that was read last: what is changed was mostly read just before, and needs no second look for its
    /// before-image. Nothing is stored before the entry is done.
    read: RefCell<(Vec<u8>, Vec<u8>)>,
}

impl SharedRead for SharedTxn<'_> {
    fn bytes(&self, key: &[u8]) -> Result<Option<&[u8]>, StorageError> {
        match self.slots.get(key) {
            Some(slot) => Ok(slot.now.as_deref()),
            None => {
                let found = self.kv.get(Space::Shared, key)?;
                if let Some(value) = found {
                    let (last, row) = &mut *self.read.borrow_mut();
                    last.clear();
                    last.extend_from_slice(key);
                    row.clear();
                    row.extend_from_slice(value);
                }
                Ok(found)
            }
        }
    }

    fn rows<'a>(&'a self, from: &[u8], to: &[u8]) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        let stored = self.kv.scan(Space::Shared, from, Some(to))?;
        let mut written = written(&self.slots, from, to).peekable();
        if written.peek().is_none() {
            return Ok(stored);
        }
        Ok(Box::new(Merged { stored: stored.peekable(), written }))
    }
}

/// The written keys from `from` (inclusive) to `to` (exclusive).
fn written<'a>(slots: &'a Slots, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a Slot)> + use<'a> {
    // A range that ends before it starts holds nothing.
    let to = to.max(from);
    slots.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).map(|(key, slot)| (key.as_slice(), slot))
}

/// Stored rows with what the entry has written over them, in key order.
struct Merged<'a, S: Iterator<Item = Row<'a>>, W: Iterator<Item = (&'a [u8], &'a Slot)>> {
    stored: Peekable<S>,
    written: Peekable<W>,
}

impl<'a, S: Iterator<Item = Row<'a>>, W: Iterator<Item = (&'a [u8], &'a Slot)>> Iterator for Merged<'a, S, W> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        loop {
            let Some((key, _)) = self.written.peek() else { return self.stored.next() };
            match self.stored.peek() {
                Some(Ok((stored, _))) if stored < key => return self.stored.next(),
                Some(Ok((stored, _))) if stored == key => drop(self.stored.next()),
                Some(Err(_)) => return self.stored.next(),
                _ => {}
            }
            let (key, slot) = self.written.next().expect("it was peeked");
            if let Some(now) = &slot.now {
                return Some(Ok((key, now)));
            }
        }
    }
}

impl<'a> SharedTxn<'a> {
    pub fn new(kv: &'a mut dyn KvWrite) -> Self {
        SharedTxn { kv, slots: Slots::new(), read: RefCell::default() }
    }

    pub fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StorageError> {
        self.set(key, Some(value))
    }

    /// Puts a row whose key the caller knows to be absent, having looked or having made the id: spares a look.
    pub fn put_new(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StorageError> {
        debug_assert!(matches!(self.bytes(key), Ok(None)), "the key is new");
        match self.slots.entry(key.to_vec()) {
            Entry::Occupied(mut slot) => slot.get_mut().now = Some(value),
            Entry::Vacant(slot) => drop(slot.insert(Slot { before: None, now: Some(value) })),
        }
        Ok(())
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<(), StorageError> {
        self.set(key, None)
    }

    /// All keys from `from` (inclusive) to `to` (exclusive): what is deleted cannot be scanned at the same time.
    pub fn keys(&self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>, StorageError> {
        self.rows(from, to)?.map(|row| row.map(|(key, _)| key.to_vec())).collect()
    }

    /// The last row from `from` (inclusive) to `to` (exclusive).
    pub fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<KeyValue<'_>>, StorageError> {
        let written = written(&self.slots, from, to).rev().find_map(|(key, slot)| Some((key, slot.now.as_deref()?)));
        for row in self.kv.scan_back(Space::Shared, from, Some(to))? {
            let stored = row?;
            if !self.slots.contains_key(stored.0) {
                return Ok(written.max(Some(stored)));
            }
        }
        Ok(written)
    }

    fn set(&mut self, key: &[u8], now: Option<Vec<u8>>) -> Result<(), StorageError> {
        assert!(key != key::DIGEST, "the digest is kept by the transaction itself");
        match self.slots.get_mut(key) {
            Some(slot) => slot.now = now,
            None => {
                let (last, row) = self.read.get_mut();
                let before = match last == key {
                    true => Some(row.clone()),
                    false => self.kv.get(Space::Shared, key)?.map(<[u8]>::to_vec),
                };
                self.slots.insert(key.to_vec(), Slot { before, now });
            }
        }
        Ok(())
    }

    /// Writes the rows, the undo row of `index` and the new digest.
    pub fn finish(mut self, index: LogIndex) -> Result<(), StorageError> {
        // Keys that ended as they began are neither written nor undone nor hashed.
        self.slots.retain(|_, slot| slot.before != slot.now);
        let mut hasher = RowHasher::new(crate::header::digest(self.kv)?);
        let mut images = Vec::with_capacity(self.slots.len());
        for (key, Slot { before, now }) in &self.slots {
            if let Some(before) = before {
                hasher.subtract(key, before);
            }
            match now {
                Some(now) => {
                    hasher.add(key, now);
                    self.kv.put(Space::Shared, key, now)?;
                }
                None => self.kv.delete(Space::Shared, key)?,
            }
            images.push(BeforeImage { key, value: before.as_deref() });
        }
        put_before_images(self.kv, index, &images)?;
        put_digest(self.kv, hasher.digest())
    }
}

/// Not inlined: profiles show by its name what before-images cost.
#[inline(never)]
fn put_before_images(kv: &mut dyn KvWrite, index: LogIndex, images: &[BeforeImage]) -> Result<(), StorageError> {
    kv.put(Space::Undo, &undo_key(index), &encode_undo(images))
}
