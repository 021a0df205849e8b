//! The deletion queue: objects of dropped blocks, by (dropped, block), until the floor of every cluster on the roster
//! has passed the drop and the longest session lease has passed (law 14).
//!
//! Blocks that were never copied are queued too: a copy may have been under way, and deleting an absent object is no
//! error.

use super::Ledger;
use crate::rows::{self, Key, KeyReader, end_of, prefix};
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_types::{BlockKey, ControlTime, LogIndex};
use serde::{Deserialize, Serialize};

/// One object that waits to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeletionRow {
    /// Control time when the drop was applied.
    pub control: ControlTime,
}

/// Largest page that [`deletable`] returns, whatever is asked for; the rest comes with the next call.
pub const DELETABLE_MAX: usize = 10_000;

fn queue_key(dropped: LogIndex, block: BlockKey) -> Vec<u8> {
    Key::new(prefix::DELETION).number(dropped.0).block(block).done()
}

fn index_key(block: BlockKey) -> Vec<u8> {
    Key::new(prefix::DELETION_BY_BLOCK).block(block).done()
}

/// The entry that dropped a block whose object waits to be deleted.
pub fn pending_deletion(kv: &dyn KvRead, block: BlockKey) -> Result<Option<LogIndex>, StorageError> {
    rows::get(kv, &index_key(block))
}

/// At most `limit` blocks whose objects may be deleted now, oldest drop first: dropped at or below `gate`
/// ([`crate::gate`]), and longer ago than the longest session lease. `control` must be of the clock that
/// [`crate::apply_changes`] was given.
pub fn deletable(
    kv: &dyn KvRead,
    gate: LogIndex,
    control: ControlTime,
    longest_lease: ControlTime,
    limit: usize,
) -> Result<Vec<BlockKey>, StorageError> {
    let end = Key::new(prefix::DELETION).number(gate.0.saturating_add(1)).done();
    let mut found = Vec::new();
    for row in kv.scan(Space::Local, prefix::DELETION, Some(&end))?.take(limit.min(DELETABLE_MAX)) {
        let (key, bytes) = row?;
        let queued: DeletionRow = rows::decode(key, bytes)?;
        // Control time never goes back and drops are in order, so that nothing behind this one is due either.
        if queued.control.0.saturating_add(longest_lease.0) > control.0 {
            break;
        }
        let mut reader = KeyReader::new(key, prefix::DELETION)?;
        reader.index()?;
        found.push(reader.block()?);
    }
    Ok(found)
}

impl Ledger<'_, '_> {
    pub fn queue_deletion(&mut self, block: BlockKey, dropped: LogIndex, control: ControlTime) -> Result<(), StorageError> {
        self.unqueue_deletion(block)?;
        rows::put(self.txn, &queue_key(dropped, block), &DeletionRow { control })?;
        rows::put(self.txn, &index_key(block), &dropped)?;
        self.counters.deletions.add(block.size);
        Ok(())
    }

    /// Takes a block off the queue; `false` when it was not there.
    pub fn unqueue_deletion(&mut self, block: BlockKey) -> Result<bool, StorageError> {
        let Some(dropped) = pending_deletion(self.txn.read(), block)? else { return Ok(false) };
        self.txn.delete(&queue_key(dropped, block))?;
        self.txn.delete(&index_key(block))?;
        self.counters.deletions.sub(block.size);
        Ok(true)
    }

    /// Takes everything that was dropped beyond `to` off the queue: a rewind took the drops back.
    pub fn unqueue_beyond(&mut self, to: LogIndex) -> Result<(), StorageError> {
        self.unqueue_from(&Key::new(prefix::DELETION).number(to.0.saturating_add(1)).done())
    }

    /// Empties the queue: the bucket that held the objects is gone.
    pub fn unqueue_all(&mut self) -> Result<(), StorageError> {
        self.unqueue_from(prefix::DELETION)
    }

    fn unqueue_from(&mut self, from: &[u8]) -> Result<(), StorageError> {
        const PAGE: usize = 4096;
        loop {
            let page = self.txn.keys(from, &end_of(prefix::DELETION), PAGE)?;
            for key in &page {
                let mut reader = KeyReader::new(key, prefix::DELETION)?;
                reader.index()?;
                let block = reader.block()?;
                self.unqueue_deletion(block)?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }
}
