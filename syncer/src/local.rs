//! Cluster-local entries: what workers proved, what was promised, what operators decided. Applied by every node of one
//! cluster in the order of its Raft log, never mirrored (law 2).

use crate::floors::{self, Floor};
use crate::fullsync::state::{self as fullsync, Finding};
use crate::ledger::counters::Class;
use crate::ledger::damage::{DamageKind, damage};
use crate::ledger::owed::{OwedRow, owed, owed_since};
use crate::ledger::writeoff::{self, WriteOffState, WrittenOff};
use crate::ledger::{Ledger, deletions};
use crate::plant::{self, Plant};
use crate::reason::Reason;
use crate::rows::{self, prefix};
use crate::slices;
use crate::txn::LocalTxn;
use crate::watermarks;
use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::{BlockKey, ClusterId, ControlTime, Incarnation, Lineage, LogIndex, SliceId, TaskId};
use serde::{Deserialize, Serialize};

/// A worker's word that a block is in this region's bucket, with what only the bytes can tell (law 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    pub task: TaskId,
    pub block: BlockKey,
    pub length: u32,
    pub crc32c: u32,
    /// The bucket's incarnation that was written: a copy in a replaced bucket proves nothing of the new one (law 12).
    pub incarnation: Incarnation,
}

/// A cluster-local entry. The order of the variants is part of the persisted format: append, never reorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalOp {
    Completions(Vec<Completion>),
    /// HEAD said no: still owed, no longer unverified (law 20).
    Absent {
        blocks: Vec<BlockKey>,
        incarnation: Incarnation,
    },
    /// These objects of dropped blocks are gone from the bucket.
    Deleted {
        blocks: Vec<BlockKey>,
        incarnation: Incarnation,
    },
    /// Promises `floor`; refused unless the state then is complete (law 14).
    CommitFloor {
        floor: LogIndex,
    },
    /// What other clusters promised.
    KnownFloors(Vec<(ClusterId, LogIndex, Lineage)>),
    Failing {
        block: BlockKey,
        reason: Reason,
        tries: u32,
    },
    WriteOff {
        block: BlockKey,
        reason: String,
        by: String,
    },
    UndoWriteOff {
        block: BlockKey,
        by: String,
    },
    /// Nothing is leased until this local control time.
    Pause {
        until: ControlTime,
        reason: String,
        by: String,
    },
    Resume,
    /// Advances local control time (law 6).
    Tick {
        delta: ControlTime,
    },
    /// Owes a page of the history, if its cursor is still at `cursor`.
    OweHistory {
        cursor: Option<SliceId>,
        limit: u32,
    },
    FullSyncSchedule {
        interval: ControlTime,
    },
    FullSyncStart {
        begin: LogIndex,
    },
    FullSyncGroup {
        run: u64,
        findings: Vec<Finding>,
    },
    FullSyncFinish {
        run: u64,
        listed: u64,
        partial: bool,
    },
    /// Blocks that a reader or checker found rotten or gone.
    Damage {
        blocks: Vec<(BlockKey, DamageKind)>,
    },
}

/// Most items (completions, blocks, floors) that one local entry may carry; [`LocalOp::is_within_bounds`] tells.
pub const LOCAL_ITEMS_MAX: usize = 4096;

impl LocalOp {
    /// The entry's canonical bytes: a format byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        rows::encode(self)
    }

    /// The inverse of [`LocalOp::encode`].
    pub fn decode(bytes: &[u8]) -> Result<LocalOp, StorageError> {
        rows::decode(b"local entry", bytes)
    }

    /// Whether it may be proposed: a larger one is to be split.
    pub fn is_within_bounds(&self) -> bool {
        match self {
            LocalOp::Completions(items) => items.len() <= LOCAL_ITEMS_MAX,
            LocalOp::Absent { blocks, .. } | LocalOp::Deleted { blocks, .. } => blocks.len() <= LOCAL_ITEMS_MAX,
            LocalOp::KnownFloors(floors) => floors.len() <= LOCAL_ITEMS_MAX,
            LocalOp::FullSyncGroup { findings, .. } => findings.len() <= fullsync::GROUP_FINDINGS_MAX,
            LocalOp::Damage { blocks } => blocks.len() <= LOCAL_ITEMS_MAX,
            _ => true,
        }
    }
}

/// What a local entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalOutcome {
    /// Blocks proven here now.
    pub copied: u64,
    /// Completions whose evidence contradicted metadata: nothing was applied, a worker is to be looked at (law 16).
    pub rejected: Vec<TaskId>,
    /// Completions of blocks that were here already, are dropped, or went to a replaced bucket.
    pub stale: u64,
    /// Blocks that became owed, and their lowest add index, for [`crate::Dispatcher::owed_again`].
    pub owed: u64,
    pub lowest_owed: Option<LogIndex>,
    /// The committed floor after a [`LocalOp::CommitFloor`] that was taken.
    pub floor: Option<LogIndex>,
    /// The run that a [`LocalOp::FullSyncStart`] started.
    pub run: Option<u64>,
    pub damaged: u64,
    /// Whether the entry did what it says; `false`: it came too late or twice.
    pub done: bool,
}

/// Who paused, why, until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub until: ControlTime,
    pub reason: String,
    pub by: String,
    pub since: ControlTime,
}

/// Local control time: the sum of this cluster's ticks (law 6).
pub fn control_time(kv: &dyn KvRead) -> Result<ControlTime, StorageError> {
    Ok(rows::get(kv, prefix::CONTROL)?.unwrap_or_default())
}

/// The pause in force; `None` once its end has passed, without anybody's doing.
pub fn pause(kv: &dyn KvRead) -> Result<Option<Pause>, StorageError> {
    let now = control_time(kv)?;
    Ok(rows::get::<Pause>(kv, prefix::PAUSE)?.filter(|pause| pause.until > now))
}

/// Applies a cluster-local entry. `applied` and `lineage` are those of shared state at this moment.
pub fn apply_local(
    txn: &mut LocalTxn<'_>,
    op: &LocalOp,
    applied: LogIndex,
    lineage: &Lineage,
) -> Result<LocalOutcome, StorageError> {
    let now = control_time(txn.read())?;
    let mut outcome = match op {
        LocalOp::CommitFloor { floor } => commit_floor(txn, *floor, applied, lineage)?,
        LocalOp::KnownFloors(floors) => {
            for (cluster, floor, lineage) in floors {
                floors::learn(txn, *cluster, &Floor { floor: *floor, lineage: lineage.clone() })?;
            }
            LocalOutcome { done: true, ..LocalOutcome::default() }
        }
        LocalOp::Pause { until, reason, by } => {
            let row = Pause { until: *until, reason: writeoff::audit_text(reason), by: writeoff::audit_text(by), since: now };
            rows::put(txn, prefix::PAUSE, &row)?;
            LocalOutcome { done: true, ..LocalOutcome::default() }
        }
        LocalOp::Resume => {
            let done = pause(txn.read())?.is_some();
            txn.delete(prefix::PAUSE)?;
            LocalOutcome { done, ..LocalOutcome::default() }
        }
        LocalOp::Tick { delta } => {
            rows::put(txn, prefix::CONTROL, &ControlTime(now.0.saturating_add(delta.0)))?;
            LocalOutcome { done: true, ..LocalOutcome::default() }
        }
        LocalOp::FullSyncSchedule { interval } => {
            fullsync::schedule(txn, *interval, now)?;
            LocalOutcome { done: true, ..LocalOutcome::default() }
        }
        LocalOp::FullSyncStart { begin } => {
            let run = fullsync::start(txn, *begin, applied, now)?;
            LocalOutcome { done: run.is_some(), run, ..LocalOutcome::default() }
        }
        LocalOp::FullSyncFinish { run, listed, partial } => {
            let done = fullsync::finish(txn, *run, *listed, *partial, now)?;
            LocalOutcome { done, ..LocalOutcome::default() }
        }
        _ => LocalOutcome::default(),
    };
    on_blocks(txn, op, applied, now, &mut outcome)?;
    forget(txn, applied, lineage)?;
    Ok(outcome)
}

/// The entries that change rows of blocks.
fn on_blocks(
    txn: &mut LocalTxn<'_>,
    op: &LocalOp,
    applied: LogIndex,
    now: ControlTime,
    outcome: &mut LocalOutcome,
) -> Result<(), StorageError> {
    if crate::home::home(txn.read())?.is_none() {
        return Ok(());
    }
    let mut ledger = Ledger::open(txn)?;
    match op {
        LocalOp::Completions(completions) => {
            for completion in completions {
                complete(&mut ledger, completion, now, applied, outcome)?;
            }
            outcome.done = outcome.copied > 0;
        }
        LocalOp::Absent { blocks, incarnation } => {
            for block in blocks.iter().filter(|_| *incarnation == ledger.home.incarnation).copied().collect::<Vec<_>>() {
                outcome.done |= ledger.amend(block, |row| row.unverified = false)?;
            }
        }
        LocalOp::Deleted { blocks, incarnation } if *incarnation == ledger.home.incarnation => {
            for block in blocks {
                outcome.done |= deleted(&mut ledger, *block, now, outcome)?;
            }
        }
        LocalOp::Failing { block, reason, tries } => {
            outcome.done = ledger.amend(*block, |row| {
                row.reason = Some(*reason);
                row.tries = *tries;
            })? || ledger.amend_damage(*block, *tries, *reason)?;
        }
        LocalOp::WriteOff { block, reason, by } => outcome.done = write_off(&mut ledger, *block, (reason, by), now, applied)?,
        LocalOp::UndoWriteOff { block, by } => outcome.done = undo_write_off(&mut ledger, *block, by, now, applied)?,
        LocalOp::OweHistory { cursor, limit } => {
            outcome.owed = ledger.owe_history(*cursor, *limit)?;
            outcome.done = !crate::ledger::history::history(ledger.txn.read())?.pending;
        }
        LocalOp::FullSyncGroup { run, findings } => {
            outcome.damaged = fullsync::group(&mut ledger, *run, findings, now)?;
            outcome.done = true;
        }
        LocalOp::Damage { blocks } => {
            for (block, kind) in blocks {
                outcome.damaged += u64::from(fullsync::damage_found(&mut ledger, *block, *kind, None, now)?);
            }
            outcome.done = outcome.damaged > 0;
        }
        _ => {}
    }
    outcome.lowest_owed = ledger.close()?;
    Ok(())
}

/// Law 16: evidence is compared with metadata here, where both are of one state. A copy that is proven is a fact in
/// any epoch, so nothing else is asked.
fn complete(
    ledger: &mut Ledger<'_, '_>,
    completion: &Completion,
    now: ControlTime,
    applied: LogIndex,
    outcome: &mut LocalOutcome,
) -> Result<(), StorageError> {
    let block = completion.block;
    let kv = ledger.txn.read();
    let awaited = owed_since(kv, block)?.is_some() || damage(kv, block)?.is_some() || writeoff::is_written_off(kv, block)?;
    let slice = slices::live_slice(kv, block.slice)?;
    let Some(slice) = slice.filter(|_| awaited && completion.incarnation == ledger.home.incarnation) else {
        outcome.stale += 1;
        return Ok(());
    };
    let expected = slice.checksums.get(block.index as usize).copied();
    let proven =
        slice.has(block, ledger.home.block_size) && completion.length == block.size && expected == Some(completion.crc32c);
    if !proven {
        ledger.counters.rejected += 1;
        outcome.rejected.push(completion.task);
        if let Some((_, row)) = owed(ledger.txn.read(), block)? {
            ledger.amend(block, |changed| {
                changed.reason = Some(Reason::Evidence);
                changed.tries = row.tries.saturating_add(1);
            })?;
        }
        return Ok(());
    }
    ledger.settle(block)?;
    ledger.unlist_damage(block)?;
    ledger.end_write_off(block, WriteOffState::Found, now, applied)?;
    ledger.counters.copied.add(block.size);
    outcome.copied += 1;
    Ok(())
}

/// An object is gone. Where metadata still names it (which laws 14 and 20 exclude) it is damage, never silence.
fn deleted(
    ledger: &mut Ledger<'_, '_>,
    block: BlockKey,
    now: ControlTime,
    outcome: &mut LocalOutcome,
) -> Result<bool, StorageError> {
    if ledger.unqueue_deletion(block)? {
        return Ok(true);
    }
    outcome.damaged += u64::from(fullsync::damage_found(ledger, block, DamageKind::Missing, None, now)?);
    Ok(false)
}

fn write_off(
    ledger: &mut Ledger<'_, '_>,
    block: BlockKey,
    audit: (&str, &str),
    now: ControlTime,
    applied: LogIndex,
) -> Result<bool, StorageError> {
    let was_owed = ledger.settle(block)?.map(|(added, row)| (added, row.time));
    let was_damaged = ledger.unlist_damage(block)?;
    let (added, time) = match (was_owed, was_damaged) {
        (Some(found), _) => found,
        (None, Some(row)) => match slices::live_slice(ledger.txn.read(), block.slice)? {
            Some(slice) => (row.added, slice.time),
            None => return Ok(false),
        },
        (None, None) => return Ok(false),
    };
    let row = WrittenOff {
        state: WriteOffState::Standing,
        added,
        time,
        reason: writeoff::audit_text(audit.0),
        by: writeoff::audit_text(audit.1),
        at: now,
        applied,
    };
    ledger.write_off(block, &row)?;
    Ok(true)
}

/// Owed again where it is still live. That may lead below the own floor: then data_synced is null until it is in.
fn undo_write_off(
    ledger: &mut Ledger<'_, '_>,
    block: BlockKey,
    by: &str,
    now: ControlTime,
    applied: LogIndex,
) -> Result<bool, StorageError> {
    let Some(row) = writeoff::written_off(ledger.txn.read(), block)?.filter(|row| row.state == WriteOffState::Standing) else {
        return Ok(false);
    };
    let undone = WrittenOff { state: WriteOffState::Undone, by: writeoff::audit_text(by), at: now, applied, ..row };
    ledger.write_off(block, &undone)?;
    let slice = slices::live_slice(ledger.txn.read(), block.slice)?;
    if let Some(slice) = slice.filter(|slice| slice.has(block, ledger.home.block_size)) {
        let row = OwedRow { time: slice.time, unverified: true, class: Class::Live, tries: 0, reason: None };
        ledger.owe(block, slice.added, row)?;
    }
    Ok(true)
}

fn commit_floor(
    txn: &mut LocalTxn<'_>,
    floor: LogIndex,
    applied: LogIndex,
    lineage: &Lineage,
) -> Result<LocalOutcome, StorageError> {
    if !watermarks::may_promise(txn.read(), floor, applied, lineage)? {
        return Ok(LocalOutcome::default());
    }
    if !plant::is(Plant::FloorNotCommitted) {
        floors::promise(txn, floor, lineage)?;
    }
    Ok(LocalOutcome { floor: Some(floor), done: true, ..LocalOutcome::default() })
}

/// Law 13: an interval goes once the committed floor has passed it; until then a rewind may need it.
fn forget(txn: &mut LocalTxn<'_>, applied: LogIndex, lineage: &Lineage) -> Result<(), StorageError> {
    if crate::home::home(txn.read())?.is_none() {
        return Ok(());
    }
    let mut until = floors::floor(txn.read(), lineage)?;
    if plant::is(Plant::ForgetAtDataSynced) {
        until = watermarks::data_synced(txn.read(), applied, lineage)?.unwrap_or_default();
    }
    if plant::is(Plant::ForgetIntervalEarly) {
        until = LogIndex(applied.0.saturating_sub(1));
    }
    let mut ledger = Ledger::open(txn)?;
    ledger.forget_ghosts(until)?;
    ledger.close()?;
    Ok(())
}

/// Whether an object of a dropped block still waits to be deleted.
pub fn is_pending_deletion(kv: &dyn KvRead, block: BlockKey) -> Result<bool, StorageError> {
    Ok(deletions::pending_deletion(kv, block)?.is_some())
}
