//! Owed blocks: rows by (added, block), so that the first row names the watermark (law 13), and an index by block.

use super::Ledger;
use super::counters::Class;
use crate::reason::Reason;
use crate::rows::{self, Key, KeyReader, end_of, prefix};
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_types::{BlockKey, LogIndex, LogTime};
use serde::{Deserialize, Serialize};

/// What the ledger knows of one owed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedRow {
    /// When the entry that added it was proposed.
    pub time: LogTime,
    /// Believed to be here already: HEAD first (law 20).
    pub unverified: bool,
    pub class: Class,
    pub tries: u32,
    /// Why the last try failed.
    pub reason: Option<Reason>,
}

pub(crate) fn owed_key(added: LogIndex, block: BlockKey) -> Vec<u8> {
    Key::new(prefix::OWED).number(added.0).block(block).done()
}

fn index_key(block: BlockKey) -> Vec<u8> {
    Key::new(prefix::OWED_BY_BLOCK).block(block).done()
}

/// The entry that added an owed block; `None`: it is not owed.
pub fn owed_since(kv: &dyn KvRead, block: BlockKey) -> Result<Option<LogIndex>, StorageError> {
    rows::get(kv, &index_key(block))
}

/// An owed block's row.
pub fn owed(kv: &dyn KvRead, block: BlockKey) -> Result<Option<(LogIndex, OwedRow)>, StorageError> {
    let Some(added) = owed_since(kv, block)? else { return Ok(None) };
    let key = owed_key(added, block);
    match rows::get(kv, &key)? {
        Some(row) => Ok(Some((added, row))),
        None => Err(StorageError::damaged(Space::Local, &key, "the index names an owed row that is not there")),
    }
}

/// At most `limit` owed blocks from `from` (inclusive) on, oldest add first; pages through the whole list.
pub fn owed_from(
    kv: &dyn KvRead,
    from: (LogIndex, Option<BlockKey>),
    limit: usize,
) -> Result<Vec<(LogIndex, BlockKey, OwedRow)>, StorageError> {
    let start = match from.1 {
        Some(block) => owed_key(from.0, block),
        None => Key::new(prefix::OWED).number(from.0.0).done(),
    };
    let mut found = Vec::new();
    for row in kv.scan(Space::Local, &start, Some(&end_of(prefix::OWED)))?.take(limit) {
        let (key, bytes) = row?;
        let mut reader = KeyReader::new(key, prefix::OWED)?;
        found.push((reader.index()?, reader.block()?, rows::decode(key, bytes)?));
    }
    Ok(found)
}

/// The owed block with the lowest add index.
pub fn first_owed(kv: &dyn KvRead) -> Result<Option<(LogIndex, BlockKey, OwedRow)>, StorageError> {
    Ok(owed_from(kv, (LogIndex(0), None), 1)?.pop())
}

impl Ledger<'_, '_> {
    /// Owes a block. One that is owed already keeps its row; its add index follows the caller's.
    pub fn owe(&mut self, block: BlockKey, added: LogIndex, row: OwedRow) -> Result<bool, StorageError> {
        match owed_since(self.txn.read(), block)? {
            Some(since) if since == added => return Ok(false),
            Some(_) => drop(self.settle(block)?),
            None => {}
        }
        rows::put(self.txn, &owed_key(added, block), &row)?;
        rows::put(self.txn, &index_key(block), &added)?;
        self.counters.owed.entry(row.class).or_default().add(block.size);
        self.counters.owed_ever.add(block.size);
        self.counters.unverified += u64::from(row.unverified);
        self.counters.fail(row.reason);
        self.lowest_owed = Some(self.lowest_owed.map_or(added, |lowest| lowest.min(added)));
        Ok(true)
    }

    /// Takes a block off the owed list, for whatever cause; says what was there.
    pub fn settle(&mut self, block: BlockKey) -> Result<Option<(LogIndex, OwedRow)>, StorageError> {
        let Some((added, row)) = owed(self.txn.read(), block)? else { return Ok(None) };
        self.txn.delete(&owed_key(added, block))?;
        self.txn.delete(&index_key(block))?;
        self.counters.owed.get_mut(&row.class).expect("an owed row's class is counted").sub(block.size);
        self.counters.unverified -= u64::from(row.unverified);
        self.counters.unfail(row.reason);
        Ok(Some((added, row)))
    }

    /// Changes the row of an owed block in place; `false` when it is not owed.
    pub fn amend(&mut self, block: BlockKey, change: impl FnOnce(&mut OwedRow)) -> Result<bool, StorageError> {
        let Some((added, before)) = owed(self.txn.read(), block)? else { return Ok(false) };
        let mut after = before;
        change(&mut after);
        assert!(after.class == before.class && after.time == before.time, "class and time of an owed block never change");
        rows::put(self.txn, &owed_key(added, block), &after)?;
        self.counters.unverified = self.counters.unverified + u64::from(after.unverified) - u64::from(before.unverified);
        self.counters.unfail(before.reason);
        self.counters.fail(after.reason);
        Ok(true)
    }
}

impl Ledger<'_, '_> {
    /// Forgets all owed blocks: the bucket that lacked them is gone.
    pub fn clear_owed(&mut self) -> Result<(), StorageError> {
        self.txn.delete_range(prefix::OWED, &end_of(prefix::OWED))?;
        self.txn.delete_range(prefix::OWED_BY_BLOCK, &end_of(prefix::OWED_BY_BLOCK))?;
        self.counters.owed.clear();
        self.counters.unverified = 0;
        self.counters.failing.clear();
        Ok(())
    }
}
