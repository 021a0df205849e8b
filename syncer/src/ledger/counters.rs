//! The ledger's figures, kept in one row so that reading them costs one read whatever the backlog.

use crate::reason::Reason;
use crate::rows::{self, prefix};
use crate::txn::LocalTxn;
use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::ByteCount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a block is owed. The order of the variants is part of the persisted format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// A new entry added it, or a rewind revived it.
    Live,
    /// A reader waits for it; only leases carry this, a row keeps its own class.
    Reader,
    /// It was there before this bucket or this ledger was.
    History,
    /// It was lost after it was complete (law 15); listed as damage, never as owed.
    Repair,
}

impl Class {
    pub const ALL: [Class; 4] = [Class::Live, Class::Reader, Class::History, Class::Repair];
}

/// A number of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub blocks: u64,
    pub bytes: ByteCount,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u32) {
        self.blocks += 1;
        self.bytes.0 += u64::from(bytes);
    }

    pub(crate) fn sub(&mut self, bytes: u32) {
        self.blocks = self.blocks.checked_sub(1).expect("a row is counted before it is taken away");
        self.bytes.0 = self.bytes.0.checked_sub(u64::from(bytes)).expect("a row's bytes are counted before they are taken away");
    }
}

/// All figures of one region's ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Owed now, by class; of [`Class::Repair`] and [`Class::Reader`] always nothing.
    pub owed: BTreeMap<Class, Tally>,
    /// Of the owed: believed to be here, HEAD first (law 20).
    pub unverified: u64,
    /// Owed or damaged blocks with a reason, by the last one.
    pub failing: BTreeMap<Reason, u64>,
    /// Distinct intervals of dropped blocks that were never copied, above the floor (law 13).
    pub ghosts: u64,
    /// Dropped blocks whose objects wait for the floor (law 14).
    pub deletions: Tally,
    pub damaged: Tally,
    pub written_off: Tally,
    /// Ever proven here by a completion, and ever owed.
    pub copied: Tally,
    pub owed_ever: Tally,
    /// Completions whose evidence contradicted metadata (law 16); nothing was applied.
    pub rejected: u64,
}

impl Counters {
    /// Everything owed, of all classes.
    pub fn owed_total(&self) -> Tally {
        self.owed.values().fold(Tally::default(), |sum, one| Tally {
            blocks: sum.blocks + one.blocks,
            bytes: ByteCount(sum.bytes.0 + one.bytes.0),
        })
    }

    pub(crate) fn fail(&mut self, reason: Option<Reason>) {
        if let Some(reason) = reason {
            *self.failing.entry(reason).or_default() += 1;
        }
    }

    pub(crate) fn unfail(&mut self, reason: Option<Reason>) {
        if let Some(count) = reason.and_then(|reason| self.failing.get_mut(&reason)) {
            *count = count.checked_sub(1).expect("a failing block is counted before it is taken away");
        }
    }
}

/// The figures as they are.
pub fn counters(kv: &dyn KvRead) -> Result<Counters, StorageError> {
    Ok(rows::get(kv, prefix::COUNTERS)?.unwrap_or_default())
}

pub(crate) fn save(txn: &mut LocalTxn<'_>, counters: &Counters) -> Result<(), StorageError> {
    rows::put(txn, prefix::COUNTERS, counters)
}
