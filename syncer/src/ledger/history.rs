//! History: what was live before this bucket, or this ledger, was.
//!
//! It is owed by entries executed inside apply, a page at a time, with the cursor in state; a scan outside apply would
//! owe blocks that are dropped meanwhile. Until the cursor is through, and then until everything that was live at
//! `until` is here, data_synced is null: the states below were never this region's (laws 12, 13).

use super::Ledger;
use super::counters::Class;
use super::owed::OwedRow;
use crate::rows::{self, prefix};
use crate::slices::{self, LiveSlice};
use crate::txn::LocalTxn;
use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::{Incarnation, LogIndex, SliceId};
use serde::{Deserialize, Serialize};

/// Most slices that one entry owes, whatever it asks for.
pub const HISTORY_PAGE_MAX: u32 = 4096;

/// Where the history stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// data_synced is null below this index.
    pub until: LogIndex,
    /// Slices up to this id are owed; the next page starts behind it.
    pub cursor: Option<SliceId>,
    /// Whether pages are still to come.
    pub pending: bool,
    /// Owed as "believed to be here": HEAD first.
    pub unverified: bool,
}

impl History {
    /// Whether a live slice is absent although it has no row: the cursor has still to reach it.
    pub(crate) fn hides(&self, id: SliceId, added: LogIndex) -> bool {
        self.pending && added <= self.until && self.cursor.is_none_or(|cursor| id > cursor)
    }
}

/// Where the history stands; of a ledger that saw everything from index 0: nothing pending.
pub fn history(kv: &dyn KvRead) -> Result<History, StorageError> {
    Ok(rows::get(kv, prefix::HISTORY)?.unwrap_or_default())
}

pub(crate) fn save(txn: &mut LocalTxn<'_>, history: &History) -> Result<(), StorageError> {
    rows::put(txn, prefix::HISTORY, history)
}

impl Ledger<'_, '_> {
    /// Forgets everything and owes all that is live at `applied`, by pages.
    pub fn restart_history(&mut self, applied: LogIndex, unverified: bool) -> Result<(), StorageError> {
        self.clear_owed()?;
        self.clear_ghosts()?;
        self.clear_damage()?;
        self.unqueue_all()?;
        save(self.txn, &History { until: applied, cursor: None, pending: true, unverified })
    }

    /// Owes one live slice of the history, unless its blocks are here by origin (law 12) or have a row already.
    pub fn owe_slice(&mut self, slice: &LiveSlice, class: Class, unverified: bool) -> Result<u64, StorageError> {
        if slice.origin == Some(self.home.bucket()) {
            return Ok(0);
        }
        let mut owed = 0;
        for block in slice.blocks(self.home.block_size) {
            let kv = self.txn.read();
            if super::writeoff::is_written_off(kv, block)? || super::damage::damage(kv, block)?.is_some() {
                continue;
            }
            let row = OwedRow { time: slice.time, unverified, class, tries: 0, reason: None };
            owed += u64::from(self.owe(block, slice.added, row)?);
        }
        Ok(owed)
    }

    /// One page of the history. `cursor` is what the proposer saw: a page that was owed already is a no-op.
    pub fn owe_history(&mut self, cursor: Option<SliceId>, limit: u32) -> Result<u64, StorageError> {
        let mut history = history(self.txn.read())?;
        if !history.pending || history.cursor != cursor {
            return Ok(0);
        }
        let limit = limit.clamp(1, HISTORY_PAGE_MAX) as usize;
        let page = slices::live_slices_after(self.txn.read(), cursor, limit)?;
        let mut owed = 0;
        for slice in page.iter().filter(|slice| slice.added <= history.until) {
            owed += self.owe_slice(slice, Class::History, history.unverified)?;
        }
        history.pending = page.len() == limit;
        history.cursor = page.last().map(|slice| slice.id).or(cursor);
        save(self.txn, &history)?;
        Ok(owed)
    }
}

/// A region's bucket was replaced by another, empty one: its history is owed again (laws 12, 13). An incarnation that
/// is not above the present one is old news and changes nothing.
pub fn replace_bucket(txn: &mut LocalTxn<'_>, incarnation: Incarnation, applied: LogIndex) -> Result<bool, StorageError> {
    let mut ledger = Ledger::open(txn)?;
    if incarnation <= ledger.home.incarnation {
        return Ok(false);
    }
    ledger.home.incarnation = incarnation;
    let home = ledger.home;
    crate::home::set_home(ledger.txn, &home)?;
    ledger.restart_history(applied, false)?;
    ledger.close()?;
    Ok(true)
}
