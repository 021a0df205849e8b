//! The ledger: what one region's bucket still lacks, in rows (laws 13 to 16, 20).
//!
//! [`Ledger`] is an open transaction on it: rows change through it alone, so that the counters always agree with the
//! rows; [`Ledger::close`] writes the counters. A block of the region is in exactly one of these states: here (no row),
//! owed, damaged, written off; beside that a dropped one may wait in the deletion queue. While history is pending a
//! live block that the cursor has not reached has no row and is not here.

pub(crate) mod counters;
pub(crate) mod damage;
pub(crate) mod deletions;
pub(crate) mod ghosts;
pub(crate) mod history;
pub(crate) mod owed;
pub(crate) mod writeoff;

use crate::home::{self, Home};
use crate::txn::LocalTxn;
use counters::Counters;
use farshore_meta::kv::StorageError;
use farshore_types::LogIndex;

pub(crate) struct Ledger<'t, 'a> {
    pub txn: &'t mut LocalTxn<'a>,
    pub home: Home,
    pub counters: Counters,
    before: Counters,
    /// The lowest add index that became owed: the dispatcher's cursor must not be beyond it.
    pub lowest_owed: Option<LogIndex>,
}

impl<'t, 'a> Ledger<'t, 'a> {
    pub fn open(txn: &'t mut LocalTxn<'a>) -> Result<Self, StorageError> {
        let home = home::require(txn.read())?;
        let counters = counters::counters(txn.read())?;
        Ok(Ledger { txn, home, before: counters.clone(), counters, lowest_owed: None })
    }

    /// Writes the counters where they changed.
    pub fn close(self) -> Result<Option<LogIndex>, StorageError> {
        if self.counters != self.before {
            counters::save(self.txn, &self.counters)?;
        }
        Ok(self.lowest_owed)
    }
}
