//! The ledger follows shared state: what an applied entry, a rewind or a reset changed, in the same transaction.
//!
//! Deterministic like apply itself (law 4): a function of the rows, the changes and the arguments.

use crate::fullsync::state as fullsync;
use crate::home;
use crate::ledger::counters::Class;
use crate::ledger::history::{self, replace_bucket};
use crate::ledger::owed::{self, OwedRow};
use crate::ledger::{Ledger, writeoff};
use crate::plant::{self, Plant};
use crate::slices;
use crate::txn::LocalTxn;
use farshore_meta::kv::{KvRead, StorageError};
use farshore_meta::{Changes, Event, SliceAdded, SliceDropped};
use farshore_types::{BlockKey, BucketId, ControlTime, LogIndex, SliceId, blocks_of};

/// What the leader's memory must hear after the transaction is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerEffects {
    /// Blocks that became owed.
    pub owed: u64,
    /// Blocks that went to the deletion queue.
    pub queued: u64,
    /// The lowest add index among what became owed: hand it to [`crate::Dispatcher::owed_again`].
    pub lowest_owed: Option<LogIndex>,
    /// The history starts again: propose [`crate::LocalOp::OweHistory`] until it is done.
    pub history_restarted: bool,
    pub rewound: bool,
}

/// Applies what one shared entry, or a rewind, changed. `applied` is the index after it; `control` must be of the clock
/// that [`crate::deletable`] is asked with.
pub fn apply_changes(
    txn: &mut LocalTxn<'_>,
    changes: &Changes,
    applied: LogIndex,
    control: ControlTime,
) -> Result<LedgerEffects, StorageError> {
    let mut effects = LedgerEffects::default();
    let blocks_changed =
        !(changes.added.is_empty() && changes.dropped.is_empty() && changes.removed.is_empty()) || changes.rewound.is_some();
    if blocks_changed {
        let mut ledger = Ledger::open(txn)?;
        match changes.rewound {
            Some(to) => {
                assert!(to == applied, "a rewind's index is the applied one");
                effects.rewound = true;
                effects.owed = rewind(&mut ledger, changes, to)?;
            }
            None => {
                assert!(changes.removed.is_empty(), "only a rewind removes slices");
                for slice in &changes.added {
                    effects.owed += add(&mut ledger, slice)?;
                }
                for slice in &changes.dropped {
                    effects.queued += drop_slice(&mut ledger, slice, control)?;
                }
            }
        }
        effects.lowest_owed = ledger.close()?;
    }
    effects.history_restarted = follow_bucket(txn, changes, applied)?;
    Ok(effects)
}

/// Whether this region's present bucket held the block first (law 12). `None` is owed by everyone.
fn is_own(origin: Option<BucketId>, own: BucketId) -> bool {
    origin == Some(own) || (plant::is(Plant::OriginIsARegion) && origin.is_some_and(|origin| origin.region == own.region))
}

fn blocks(ledger: &Ledger<'_, '_>, id: SliceId, size: u32) -> impl Iterator<Item = BlockKey> + use<> {
    blocks_of(id, size, ledger.home.block_size)
}

fn add(ledger: &mut Ledger<'_, '_>, slice: &SliceAdded) -> Result<u64, StorageError> {
    if is_own(slice.origin, ledger.home.bucket()) {
        return Ok(0);
    }
    let mut owed = 0;
    for block in blocks(ledger, slice.id, slice.size) {
        // Dropped once and live again: its object may still be here, and must not be deleted any more.
        let unverified = ledger.unqueue_deletion(block)?;
        let row = OwedRow { time: slice.time, unverified, class: Class::Live, tries: 0, reason: None };
        owed += u64::from(ledger.owe(block, slice.added, row)?);
    }
    Ok(owed)
}

/// A block that was not here leaves its interval (law 13); in any case its object, should there be one, waits for the
/// floors (law 14). A written-off one leaves none: an operator decided that it does not hold the watermark.
fn drop_slice(ledger: &mut Ledger<'_, '_>, slice: &SliceDropped, control: ControlTime) -> Result<u64, StorageError> {
    let history = history::history(ledger.txn.read())?;
    let hidden = history.hides(slice.id, slice.added) && !is_own(slice.origin, ledger.home.bucket());
    let mut queued = 0;
    for block in blocks(ledger, slice.id, slice.size) {
        let was_owed = ledger.settle(block)?.is_some();
        ledger.unlist_damage(block)?;
        let absent = was_owed || (hidden && !writeoff::is_written_off(ledger.txn.read(), block)?);
        if absent {
            ledger.leave_ghost(slice.added, slice.dropped)?;
        }
        ledger.queue_deletion(block, slice.dropped, control)?;
        queued += 1;
    }
    Ok(queued)
}

/// Law 20: what was never made is forgotten, what is live again is owed unverified, and the intervals whose drop is
/// taken back go whole.
fn rewind(ledger: &mut Ledger<'_, '_>, changes: &Changes, to: LogIndex) -> Result<u64, StorageError> {
    for slice in &changes.removed {
        for block in blocks(ledger, slice.id, slice.size) {
            ledger.settle(block)?;
            ledger.unlist_damage(block)?;
        }
    }
    ledger.unqueue_beyond(to)?;
    ledger.rewind_ghosts(to)?;
    let mut history = history::history(ledger.txn.read())?;
    if history.until > to {
        history.until = to;
        history::save(ledger.txn, &history)?;
    }
    fullsync::cancel(ledger.txn)?;
    let mut owed = 0;
    for slice in &changes.added {
        assert!(slice.added <= to, "a rewind revives only what was added before its index");
        if !plant::is(Plant::RewindWithoutReowing) {
            owed += revive(ledger, slice)?;
        }
    }
    forbid_owed_beyond(ledger, to)?;
    Ok(owed)
}

fn revive(ledger: &mut Ledger<'_, '_>, slice: &SliceAdded) -> Result<u64, StorageError> {
    let mut owed = 0;
    for block in blocks(ledger, slice.id, slice.size) {
        if writeoff::is_written_off(ledger.txn.read(), block)? {
            continue;
        }
        let row = OwedRow { time: slice.time, unverified: true, class: Class::Live, tries: 0, reason: None };
        owed += u64::from(ledger.owe(block, slice.added, row)?);
    }
    Ok(owed)
}

/// Nothing may be owed that was added after the rewind's index: it was never made.
fn forbid_owed_beyond(ledger: &Ledger<'_, '_>, to: LogIndex) -> Result<(), StorageError> {
    match owed::owed_from(ledger.txn.read(), (to.next(), None), 1)?.pop() {
        None => Ok(()),
        Some((added, block, _)) => {
            let key = owed::owed_key(added, block);
            Err(StorageError::damaged(farshore_meta::kv::Space::Local, &key, "a block is owed that a rewind has unmade"))
        }
    }
}

/// An entry replaced this region's bucket: the ledger starts its history again for the new one (law 12).
fn follow_bucket(txn: &mut LocalTxn<'_>, changes: &Changes, applied: LogIndex) -> Result<bool, StorageError> {
    let Some(home) = home::home(txn.read())? else { return Ok(false) };
    if changes.rewound.is_some() || !changes.events.contains(&Event::BucketReplaced(home.region)) {
        return Ok(false);
    }
    match slices::incarnation_of(txn.read(), home.region)? {
        Some(incarnation) => replace_bucket(txn, incarnation, applied),
        None => Ok(false),
    }
}

/// A snapshot of another cluster has replaced shared state (law 25). With the old state the ledger becomes the
/// difference: new slices are owed, vanished ones are dropped at `applied`. Without it everything is owed unverified,
/// by [`crate::LocalOp::OweHistory`]. In both cases data_synced is null until all of it is in. `old` is a snapshot read
/// before the reset. The work is proportional to the live slices, the memory is not: it goes by pages.
pub fn after_reset(
    txn: &mut LocalTxn<'_>,
    old: Option<&dyn KvRead>,
    applied: LogIndex,
    control: ControlTime,
) -> Result<LedgerEffects, StorageError> {
    fullsync::cancel(txn)?;
    let mut ledger = Ledger::open(txn)?;
    let mut effects = LedgerEffects { rewound: true, ..LedgerEffects::default() };
    match old {
        None => {
            ledger.restart_history(applied, true)?;
            effects.history_restarted = true;
        }
        Some(old) => {
            ledger.clear_ghosts()?;
            let before = history::history(ledger.txn.read())?;
            history::save(ledger.txn, &history::History { until: applied, ..before })?;
            difference(&mut ledger, old, applied, control, &mut effects)?;
            effects.history_restarted = before.pending;
        }
    }
    effects.lowest_owed = ledger.close()?;
    Ok(effects)
}

/// Walks old and new live slices side by side, in order of ids.
fn difference(
    ledger: &mut Ledger<'_, '_>,
    old: &dyn KvRead,
    applied: LogIndex,
    control: ControlTime,
    effects: &mut LedgerEffects,
) -> Result<(), StorageError> {
    let mut was = slices::Pages::new();
    let mut is = slices::Pages::new();
    loop {
        let (a, b) = (was.peek(old)?.cloned(), is.peek(ledger.txn.read())?.cloned());
        let Some(id) = [&a, &b].into_iter().flatten().map(|slice| slice.id).min() else { return Ok(()) };
        let a = a.filter(|slice| slice.id == id);
        let b = b.filter(|slice| slice.id == id);
        was.skip(id);
        is.skip(id);
        match (a, b) {
            (Some(old), None) => {
                for block in old.blocks(ledger.home.block_size) {
                    ledger.settle(block)?;
                    ledger.unlist_damage(block)?;
                    ledger.queue_deletion(block, applied, control)?;
                    effects.queued += 1;
                }
            }
            (None, Some(new)) => effects.owed += appear(ledger, &new)?,
            (Some(old), Some(new)) if old.added != new.added => {
                for block in new.blocks(ledger.home.block_size) {
                    if let Some((_, row)) = ledger.settle(block)? {
                        ledger.owe(block, new.added, row)?;
                    }
                }
            }
            _ => {}
        }
    }
}

/// A slice that the new state has and the old one had not.
fn appear(ledger: &mut Ledger<'_, '_>, slice: &slices::LiveSlice) -> Result<u64, StorageError> {
    let mut waited = false;
    for block in slice.blocks(ledger.home.block_size) {
        waited |= ledger.unqueue_deletion(block)?;
    }
    // What the history's cursor has still to reach is owed by it, once.
    if history::history(ledger.txn.read())?.hides(slice.id, slice.added) {
        return Ok(0);
    }
    ledger.owe_slice(slice, Class::History, waited)
}
