//! [`LocalTxn`]: the ledger's hand on a write transaction. It writes Local rows under the syncer's own prefixes and
//! reads everything, so that the ledger cannot touch shared state (law 2 by type).

use farshore_meta::kv::{KvRead, KvWrite, Space, StorageError};

/// First bytes of the Local keys that belong to this crate: ledger, floors, full sync.
pub const PREFIXES: [u8; 3] = [b'L', b'F', b'W'];

/// A write transaction, narrowed to what the ledger may do.
pub struct LocalTxn<'a> {
    kv: &'a mut (dyn KvWrite + 'a),
}

impl<'a> LocalTxn<'a> {
    pub fn new(kv: &'a mut (dyn KvWrite + 'a)) -> Self {
        LocalTxn { kv }
    }

    /// The state as this transaction sees it, its own writes included.
    pub fn read(&self) -> &dyn KvRead {
        &*self.kv
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, StorageError> {
        self.kv.get(Space::Local, key)
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        assert!(key.first().is_some_and(|first| PREFIXES.contains(first)), "the ledger writes under its own prefixes only");
        self.kv.put(Space::Local, key, value)
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<(), StorageError> {
        assert!(key.first().is_some_and(|first| PREFIXES.contains(first)), "the ledger deletes under its own prefixes only");
        self.kv.delete(Space::Local, key)
    }

    /// At most `limit` keys with `from <= key < to`, in order: collected, because they are about to be changed.
    pub(crate) fn keys(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StorageError> {
        self.kv.scan(Space::Local, from, Some(to))?.take(limit).map(|row| row.map(|(key, _)| key.to_vec())).collect()
    }

    /// Deletes every key with `from <= key < to`, a page at a time; says how many there were.
    pub(crate) fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<u64, StorageError> {
        const PAGE: usize = 4096;
        let mut deleted = 0;
        loop {
            let page = self.keys(from, to, PAGE)?;
            for key in &page {
                self.delete(key)?;
            }
            deleted += page.len() as u64;
            if page.len() < PAGE {
                return Ok(deleted);
            }
        }
    }
}
