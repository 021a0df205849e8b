//! Damage: blocks that were here and are lost or rotten (law 15).
//!
//! Damage is not debt: it is listed and counted as damage, it is repaired by leases of its own, and it does not move
//! data_synced, since one rotten block of a billion must not take a region's watermark back.

use super::Ledger;
use crate::reason::Reason;
use crate::rows::{self, Key, KeyReader, end_of, prefix};
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_types::{BlockKey, ControlTime, LogIndex};
use serde::{Deserialize, Serialize};

/// How a block is damaged. The order of the variants is part of the persisted format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DamageKind {
    /// The listing lacks it, or it was deleted.
    Missing,
    /// The object has another length.
    WrongSize,
    /// A reader's checksum failed.
    Rotten,
}

/// What is known of one damaged block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageRow {
    pub kind: DamageKind,
    pub added: LogIndex,
    /// Local control time when it was found.
    pub found: ControlTime,
    pub tries: u32,
    pub reason: Option<Reason>,
}

fn damage_key(block: BlockKey) -> Vec<u8> {
    Key::new(prefix::DAMAGE).block(block).done()
}

/// What is known of a damaged block; `None`: it is not damaged.
pub fn damage(kv: &dyn KvRead, block: BlockKey) -> Result<Option<DamageRow>, StorageError> {
    rows::get(kv, &damage_key(block))
}

/// At most `limit` damaged blocks after `after` (exclusive), by block.
pub fn damage_after(kv: &dyn KvRead, after: Option<BlockKey>, limit: usize) -> Result<Vec<(BlockKey, DamageRow)>, StorageError> {
    let from = after.map_or_else(|| prefix::DAMAGE.to_vec(), |block| Key::new(prefix::DAMAGE).block(block).byte(0).done());
    kv.scan(Space::Local, &from, Some(&end_of(prefix::DAMAGE)))?
        .take(limit)
        .map(|row| {
            let (key, bytes) = row?;
            Ok((KeyReader::new(key, prefix::DAMAGE)?.block()?, rows::decode(key, bytes)?))
        })
        .collect()
}

impl Ledger<'_, '_> {
    /// Lists a block as damaged; what is listed already keeps its row.
    pub fn list_damage(&mut self, block: BlockKey, row: DamageRow) -> Result<bool, StorageError> {
        if damage(self.txn.read(), block)?.is_some() {
            return Ok(false);
        }
        rows::put(self.txn, &damage_key(block), &row)?;
        self.counters.damaged.add(block.size);
        self.counters.fail(row.reason);
        Ok(true)
    }

    /// Takes a block off the damage list: repaired, dropped or written off.
    pub fn unlist_damage(&mut self, block: BlockKey) -> Result<Option<DamageRow>, StorageError> {
        let Some(row) = damage(self.txn.read(), block)? else { return Ok(None) };
        self.txn.delete(&damage_key(block))?;
        self.counters.damaged.sub(block.size);
        self.counters.unfail(row.reason);
        Ok(Some(row))
    }

    /// Notes a failed repair.
    pub fn amend_damage(&mut self, block: BlockKey, tries: u32, reason: Reason) -> Result<bool, StorageError> {
        let Some(mut row) = damage(self.txn.read(), block)? else { return Ok(false) };
        self.counters.unfail(row.reason);
        row.tries = tries;
        row.reason = Some(reason);
        self.counters.fail(row.reason);
        rows::put(self.txn, &damage_key(block), &row)?;
        Ok(true)
    }

    /// The bucket that the list spoke of is gone.
    pub fn clear_damage(&mut self) -> Result<(), StorageError> {
        const PAGE: usize = 4096;
        loop {
            let page = damage_after(self.txn.read(), None, PAGE)?;
            for (block, _) in &page {
                self.unlist_damage(*block)?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }
}
