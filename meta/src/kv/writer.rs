//! Writes of LMDB's databases: a transaction's, and those of another state that takes the place of all.

use super::front::Rows;
use super::held::{Written, newest};
use super::lmdb::{Inner, Tables, backend};
use super::steady::Steady;
use super::tables::{INODES, TABLES, space_of, table_of};
use super::view::View;
use super::{KvRead, KvWrite, Space, StorageError, check_key};
use heed::{AnyTls, PutFlags, RoTxn, RwTxn};
use std::sync::MutexGuard;

/// Bytes of rows in one transaction of a state that replaces another, about.
const PART: usize = 16 << 20;
/// Inodes that a transaction holds back at most.
const MAX_HELD: usize = 8192;

pub(super) struct Writer<'s> {
    txn: RwTxn<'s>,
    tables: &'s Tables,
    steady: &'s Steady,
    /// No key of a database lies behind this one; `None`: not looked at yet. Empty: it has no keys.
    last: [Option<Vec<u8>>; TABLES],
    /// What is to be written, of inodes alone: a directory changes with each of its names.
    held: Rows,
    /// No other transaction of a node's writes. The one that stores the front has none.
    _writing: Option<MutexGuard<'s, ()>>,
}

impl View for Writer<'_> {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError> {
        Ok((self.tables, &self.txn))
    }

    fn own(&self) -> Option<&Rows> {
        Some(&self.held)
    }
}

impl<'s> Writer<'s> {
    pub fn new(txn: RwTxn<'s>, tables: &'s Tables, steady: &'s Steady, writing: Option<MutexGuard<'s, ()>>) -> Writer<'s> {
        Writer { txn, tables, steady, last: Default::default(), held: Rows::default(), _writing: writing }
    }

    /// Stores rows of a database, which are in order of keys.
    pub fn store(&mut self, table: usize, rows: Vec<Written<'_>>) -> Result<(), StorageError> {
        for (key, value) in rows {
            match value {
                Some(value) => self.put_into(table, key, value)?,
                None => self.tables[table].delete(&mut self.txn, key).map(drop).map_err(backend)?,
            }
        }
        Ok(())
    }

    /// Stores what is held back.
    fn settle(&mut self) -> Result<(), StorageError> {
        let held = std::mem::take(&mut self.held[INODES]);
        self.store(INODES, newest(held.rows().collect()))
    }

    fn hold(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StorageError> {
        if self.held[INODES].len() >= MAX_HELD {
            self.settle()?;
        }
        self.held[INODES].set(key, value);
        Ok(())
    }

    fn put_into(&mut self, table: usize, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        if self.is_last(table, key)? {
            return self.append(table, key, value);
        }
        self.tables[table].put(&mut self.txn, key, value).map_err(backend)
    }

    /// Puts a key that is the last one.
    fn append(&mut self, table: usize, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.tables[table].put_with_flags(&mut self.txn, PutFlags::APPEND, key, value).map_err(backend)
    }

    /// Whether the key lies behind all others of its database; it is taken for put from now on.
    fn is_last(&mut self, table: usize, key: &[u8]) -> Result<bool, StorageError> {
        if self.last[table].is_none() {
            let last = self.tables[table].last(&self.txn).map_err(backend)?;
            self.last[table] = Some(last.map_or(Vec::new(), |(key, _)| key.to_vec()));
        }
        let last = self.last[table].get_or_insert_default();
        let is_last = key > last.as_slice();
        if is_last {
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(is_last)
    }
}

/// Another state in the making, in the spare set.
pub(super) struct Replacement<'s> {
    store: &'s Inner,
    spare: usize,
    /// `None` only while one part's transaction follows the other, and after a failure of that.
    writer: Option<Writer<'s>>,
    /// Of rows in this part.
    bytes: usize,
}

impl View for Replacement<'_> {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError> {
        self.writer.as_ref().ok_or_else(broken)?.view()
    }

    fn own(&self) -> Option<&Rows> {
        self.writer.as_ref().map(|writer| &writer.held)
    }
}

impl<'s> Replacement<'s> {
    /// The first part is to be put into the set `spare`, which is empty.
    pub fn new(store: &'s Inner, spare: usize, writer: Writer<'s>) -> Replacement<'s> {
        Replacement { store, spare, writer: Some(writer), bytes: 0 }
    }

    fn writer(&mut self) -> Result<&mut Writer<'s>, StorageError> {
        self.writer.as_mut().ok_or_else(broken)
    }

    /// The writer of this part, with everything put; none of the next one is there yet.
    fn end_part(&mut self) -> Result<Writer<'s>, StorageError> {
        let mut part = self.writer.take().ok_or_else(broken)?;
        part.settle()?;
        Ok(part)
    }
}

fn broken() -> StorageError {
    StorageError::Backend("an earlier part of the new state was not committed".to_owned())
}

impl KvWrite for Replacement<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.bytes += key.len() + value.len();
        if self.bytes > PART {
            self.bytes = 0;
            let Writer { txn, tables, steady, last, held, _writing } = self.end_part()?;
            txn.commit().map_err(backend)?;
            steady.changed();
            let txn = self.store.env.write_txn().map_err(backend)?;
            self.writer = Some(Writer { txn, tables, steady, last, held, _writing });
        }
        self.writer()?.put(space, key, value)
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        self.writer()?.delete(space, key)
    }

    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        self.writer()?.clear(space)
    }

    fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        // Nobody else writes before the other set is seen.
        let Writer { txn, _writing, .. } = self.end_part()?;
        self.store.choose(self.spare, txn)
    }
}

impl KvWrite for Writer<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check_key(key)?;
        match table_of(space, key) {
            INODES => self.hold(key, Some(value)),
            table => self.put_into(table, key, value),
        }
    }

    fn put_absent(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<bool, StorageError> {
        check_key(key)?;
        let table = table_of(space, key);
        if table == INODES {
            let absent = self.get(space, key)?.is_none();
            return if absent { self.hold(key, Some(value)).and(Ok(true)) } else { Ok(false) };
        }
        if self.is_last(table, key)? {
            return self.append(table, key, value).and(Ok(true));
        }
        let there = self.tables[table].get_or_put(&mut self.txn, key, value).map_err(backend)?;
        Ok(there.is_none())
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        if check_key(key).is_err() {
            return Ok(());
        }
        match table_of(space, key) {
            INODES => self.hold(key, None),
            table => self.tables[table].delete(&mut self.txn, key).map(drop).map_err(backend),
        }
    }

    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        for table in (0..TABLES).filter(|table| space_of(*table) == space) {
            self.tables[table].clear(&mut self.txn).map_err(backend)?;
            self.last[table] = Some(Vec::new());
        }
        if space == Space::Shared {
            self.held[INODES].clear();
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        self.settle()?;
        self.txn.commit().map_err(backend)?;
        self.steady.changed();
        Ok(())
    }
}
