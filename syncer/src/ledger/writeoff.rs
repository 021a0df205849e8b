//! Written-off blocks: what an operator has declared lost for this region, with who and why, shown for ever (law 15).
//!
//! A written-off block is no longer owed and does not hold data_synced. Its row never goes away: undoing it, or a copy
//! that turns up after all, only changes its state.

use super::Ledger;
use crate::rows::{self, Key, KeyReader, end_of, prefix};
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_types::{BlockKey, ControlTime, LogIndex, LogTime};
use serde::{Deserialize, Serialize};

/// What became of a write-off. The order of the variants is part of the persisted format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WriteOffState {
    Standing,
    /// An operator took it back; the block is owed or damaged again.
    Undone,
    /// The block was proven here after all.
    Found,
}

/// One write-off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenOff {
    pub state: WriteOffState,
    pub added: LogIndex,
    pub time: LogTime,
    pub reason: String,
    pub by: String,
    /// Local control time of the last change, and the index applied then.
    pub at: ControlTime,
    pub applied: LogIndex,
}

/// Longest reason and name that are kept, in bytes; what is longer is cut.
pub const AUDIT_TEXT_MAX: usize = 1024;

/// The first [`AUDIT_TEXT_MAX`] bytes of a text, cut at a character.
pub(crate) fn audit_text(text: &str) -> String {
    text[..text.floor_char_boundary(AUDIT_TEXT_MAX)].to_owned()
}

fn key_of(block: BlockKey) -> Vec<u8> {
    Key::new(prefix::WRITTEN_OFF).block(block).done()
}

/// A block's write-off, standing or not.
pub fn written_off(kv: &dyn KvRead, block: BlockKey) -> Result<Option<WrittenOff>, StorageError> {
    rows::get(kv, &key_of(block))
}

/// Whether a block is written off now.
pub fn is_written_off(kv: &dyn KvRead, block: BlockKey) -> Result<bool, StorageError> {
    Ok(written_off(kv, block)?.is_some_and(|row| row.state == WriteOffState::Standing))
}

/// At most `limit` write-offs after `after` (exclusive), by block.
pub fn written_off_after(
    kv: &dyn KvRead,
    after: Option<BlockKey>,
    limit: usize,
) -> Result<Vec<(BlockKey, WrittenOff)>, StorageError> {
    let from =
        after.map_or_else(|| prefix::WRITTEN_OFF.to_vec(), |block| Key::new(prefix::WRITTEN_OFF).block(block).byte(0).done());
    kv.scan(Space::Local, &from, Some(&end_of(prefix::WRITTEN_OFF)))?
        .take(limit)
        .map(|row| {
            let (key, bytes) = row?;
            Ok((KeyReader::new(key, prefix::WRITTEN_OFF)?.block()?, rows::decode(key, bytes)?))
        })
        .collect()
}

impl Ledger<'_, '_> {
    pub fn write_off(&mut self, block: BlockKey, row: &WrittenOff) -> Result<(), StorageError> {
        let stood = is_written_off(self.txn.read(), block)?;
        rows::put(self.txn, &key_of(block), row)?;
        match (stood, row.state == WriteOffState::Standing) {
            (false, true) => self.counters.written_off.add(block.size),
            (true, false) => self.counters.written_off.sub(block.size),
            _ => {}
        }
        Ok(())
    }

    /// Ends a standing write-off, if there is one; the row stays.
    pub fn end_write_off(
        &mut self,
        block: BlockKey,
        state: WriteOffState,
        at: ControlTime,
        applied: LogIndex,
    ) -> Result<Option<WrittenOff>, StorageError> {
        assert!(state != WriteOffState::Standing, "a write-off ends in another state");
        match written_off(self.txn.read(), block)? {
            Some(row) if row.state == WriteOffState::Standing => {
                let ended = WrittenOff { state, at, applied, ..row.clone() };
                self.write_off(block, &ended)?;
                Ok(Some(row))
            }
            _ => Ok(None),
        }
    }
}
