//! The syncer: which blocks each region still owes, who copies them, what may be deleted, and the full sync.
//!
//! Pure: values in, effects out; no async, no clock, no randomness: all are arguments. It moves no byte of data. The
//! ledger lives in the Local space of the metadata store, under keys that start with `L` (ledger), `F` (floors) and `W`
//! (full sync), and every cluster keeps that of its own region, also as primary (law 15).
//!
//! - [`apply_changes`] runs in the transaction of each shared entry, [`apply_local`] of each cluster-local one.
//! - [`watermarks`], [`gate`], [`deletable`] read the rows.
//! - [`Dispatcher`] is the leader's memory: leases. Losing it costs a duplicate copy, nothing else.
//! - [`fullsync`] compares a listing with metadata.

mod apply;
mod floors;
pub mod fullsync;
#[cfg(test)]
mod golden;
mod home;
mod leases;
mod ledger;
mod local;
mod plan;
pub mod plant;
mod reason;
mod resting;
mod rows;
mod slices;
mod txn;
mod watermarks;

pub use apply::{LedgerEffects, after_reset, apply_changes};
pub use floors::{Floor, floor, gate, known_floor, lowest_floor, promises};
pub use home::{Home, home, set_home};
pub use leases::{Lease, TaskKind};
pub use ledger::counters::{Class, Counters, Tally, counters};
pub use ledger::damage::{DamageKind, DamageRow, damage, damage_after};
pub use ledger::deletions::{DELETABLE_MAX, deletable, pending_deletion};
pub use ledger::history::{HISTORY_PAGE_MAX, History, history, replace_bucket};
pub use ledger::owed::{OwedRow, first_owed, owed, owed_from, owed_since};
pub use ledger::writeoff::{AUDIT_TEXT_MAX, WriteOffState, WrittenOff, is_written_off, written_off, written_off_after};
pub use local::{
    Completion, LOCAL_ITEMS_MAX, LocalOp, LocalOutcome, Pause, apply_local, control_time, is_pending_deletion, pause,
};
pub use plan::{DeletionWindow, Dispatcher, FRONT_MAX, LEASES_MAX, SLOTS_MAX, WORKERS_MAX};
pub use reason::Reason;
pub use resting::{REST_MAX_US, REST_MIN_US, RESTING_MAX};
pub use txn::{LocalTxn, PREFIXES};
pub use watermarks::{Watermarks, data_synced, watermarks};
