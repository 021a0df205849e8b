//! The only way in which apply touches state. [`SharedTxn`] reaches the shared space alone: shared apply has no handle
//! on the local part, by type (law 2).
//!
//! It keeps what an entry wrote in memory until the entry is done: each key is read once for its before-image (law 20)
//! and written once, however many of the entry's requests change it. At the end it writes the rows, the undo row and the digest,
//! in the transaction of the change itself (law 2). Only a row that is put if absent is stored at once.

use crate::digest::RowHasher;
use crate::header::put_digest;
use crate::key;
use crate::kv::{KvRead, KvWrite, Row, Space, StorageError, over};
use crate::row::{Value, decode};
use crate::undo::{BeforeImage, encode_undo, undo_key};
use farshore_types::LogIndex;
use foldhash::fast::FixedState;
use indexmap::IndexMap;
use indexmap::map::Entry;
use std::cell::RefCell;
use std::cmp::Ordering;

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
    stored: Stored,
}

/// What the store has of a key that was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Before,
    Now,
    /// A value that the entry has changed since.
    Between,
}

impl Slot {
    fn write(&mut self, now: Option<Vec<u8>>) {
        self.now = now;
        if self.stored == Stored::Now {
            self.stored = Stored::Between;
        }
    }
}

/// What an entry has written, in the order of its first writes: a slot stays where it is.
type Slots = IndexMap<Vec<u8>, Slot, FixedState>;

/// While no more slots than this are new, they are put in order for a scan.
const FEW: usize = 16;

/// One entry's changes to the shared space.
pub(crate) struct SharedTxn<'a> {
    kv: &'a mut dyn KvWrite,
    slots: Slots,
    /// Places of the first slots, in order of keys: what scans have put in order. Whoever writes much and then scans looks through
    /// the others, which costs less than order.
    order: RefCell<Vec<u32>>,
    /// The stored row that was read last: what is changed was mostly read just before, and needs no second look for its
    /// before-image. What is stored before the entry is done has a slot.
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
        let written = self.written(from, to).into_iter().map(|(key, slot)| (key, slot.now.as_deref()));
        Ok(over(stored, written.collect(), Ordering::Less))
    }
}

impl<'a> SharedTxn<'a> {
    pub fn new(kv: &'a mut dyn KvWrite) -> Self {
        SharedTxn { kv, slots: Slots::default(), order: RefCell::default(), read: RefCell::default() }
    }

    /// Makes room for so many more keys.
    pub fn reserve(&mut self, keys: usize) {
        self.slots.reserve(keys);
    }

    /// The written keys from `from` (inclusive) to `to` (exclusive), in order.
    fn written(&self, from: &[u8], to: &[u8]) -> Vec<(&[u8], &Slot)> {
        let slot = |place: &u32| self.slots.get_index(*place as usize).map(|(key, slot)| (key.as_slice(), slot));
        let key = |place: &u32| slot(place).map(|(key, _)| key);
        let mut order = self.order.borrow_mut();
        if self.slots.len() - order.len() <= FEW {
            for place in order.len() as u32..self.slots.len() as u32 {
                let at = order.partition_point(|before| key(before) < key(&place));
                order.insert(at, place);
            }
        }
        let first = order.partition_point(|place| key(place) < Some(from));
        let mut found: Vec<_> = order[first..].iter().filter_map(slot).take_while(|(key, _)| *key < to).collect();
        let ordered = found.len();
        let others = (order.len() as u32..self.slots.len() as u32).filter_map(|place| slot(&place));
        found.extend(others.filter(|(key, _)| (from..to).contains(key)));
        if found.len() > ordered {
            found.sort_unstable_by_key(|(key, _)| *key);
        }
        found
    }

    pub fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StorageError> {
        self.set(key, Some(value))
    }

    /// Puts a row whose key the caller knows to be absent, having looked or having made the id: spares a look.
    pub fn put_new(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StorageError> {
        debug_assert!(matches!(self.bytes(key), Ok(None)), "the key is new");
        match self.slots.entry(key.to_vec()) {
            Entry::Occupied(mut slot) => slot.get_mut().write(Some(value)),
            Entry::Vacant(slot) => drop(slot.insert(Slot { before: None, now: Some(value), stored: Stored::Before })),
        }
        Ok(())
    }

    /// Puts a row unless there is one of that key, and says whether it did. The row is stored at once: whoever looks and then
    /// puts searches twice.
    pub fn put_absent(&mut self, key: &[u8], value: Vec<u8>) -> Result<bool, StorageError> {
        if let Some(slot) = self.slots.get_mut(key) {
            let absent = slot.now.is_none();
            if absent {
                slot.write(Some(value));
            }
            return Ok(absent);
        }
        let absent = self.kv.put_absent(Space::Shared, key, &value)?;
        if absent {
            self.slots.insert(key.to_vec(), Slot { before: None, now: Some(value), stored: Stored::Now });
        }
        Ok(absent)
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
        let written = self.written(from, to).into_iter().rev().find_map(|(key, slot)| Some((key, slot.now.as_deref()?)));
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
            Some(slot) => slot.write(now),
            None => {
                let (last, row) = self.read.get_mut();
                let before = match last == key {
                    true => Some(row.clone()),
                    false => self.kv.get(Space::Shared, key)?.map(<[u8]>::to_vec),
                };
                self.slots.insert(key.to_vec(), Slot { before, now, stored: Stored::Before });
            }
        }
        Ok(())
    }

    /// Writes the rows, the undo row of `index` and the new digest.
    pub fn finish(self, index: LogIndex) -> Result<(), StorageError> {
        let mut hasher = RowHasher::new(crate::header::digest(self.kv)?);
        let mut images = Vec::with_capacity(self.slots.len());
        for (key, Slot { before, now, stored }) in &self.slots {
            if before == now {
                // It ended as it began: neither undone nor hashed.
                if *stored != Stored::Before {
                    self.kv.delete(Space::Shared, key)?;
                }
                continue;
            }
            if let Some(before) = before {
                hasher.subtract(key, before);
            }
            match now {
                Some(now) => {
                    hasher.add(key, now);
                    if *stored != Stored::Now {
                        self.kv.put(Space::Shared, key, now)?;
                    }
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
