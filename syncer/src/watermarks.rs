//! The watermarks of a region, from rows, at a constant cost (laws 13 to 15, 20).
//!
//! Bound: the first owed row, one look into the union of ghosts, the counters, and the promises (one row a lineage). No
//! figure walks the backlog, so there is nothing to cut short.

use crate::floors;
use crate::ledger::counters::{self, Tally};
use crate::ledger::history::{self, History};
use crate::ledger::{ghosts, owed};
use crate::plant::{self, Plant};
use crate::reason::Reason;
use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::{ByteCount, Lineage, LogIndex, LogTime};
use std::collections::BTreeMap;

/// Where a region stands, as its own cluster sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermarks {
    pub applied: LogIndex,
    /// The largest index at which every block that was live is in this region's bucket (law 13); `None` while history is
    /// pending, blocks are unverified, or the figure lies below the own floor (law 20).
    pub data_synced: Option<LogIndex>,
    /// To which index this cluster can be promoted with all data: the same figure, computed in the same transaction.
    pub recoverable: Option<LogIndex>,
    /// The committed promise on this lineage (law 14).
    pub floor: LogIndex,
    /// Owed and damaged blocks. While `history_pending`, those that the cursor has not reached are not counted yet.
    pub blocks_behind: u64,
    pub bytes_behind: ByteCount,
    /// When the entry of the oldest owed block was proposed.
    pub oldest_owed_time: Option<LogTime>,
    /// Whether history has still to be owed, or to come in.
    pub history_pending: bool,
    pub unverified: u64,
    pub damaged: u64,
    /// Failing blocks by their last reason.
    pub failing: BTreeMap<Reason, u64>,
    pub written_off: u64,
    /// Dropped blocks whose objects are still held.
    pub deletion_held: Tally,
}

/// The largest index that lies in no hole, without regard to nulls.
fn largest_complete(kv: &dyn KvRead, applied: LogIndex) -> Result<LogIndex, StorageError> {
    let first = owed::first_owed(kv)?;
    let below_owed = first.map_or(applied, |(added, _, _)| applied.min(LogIndex(added.0.saturating_sub(1))));
    if plant::is(Plant::SmallestPendingMinusOne) {
        return Ok(below_owed);
    }
    let hole = ghosts::hole_at(kv, below_owed)?;
    Ok(hole.map_or(below_owed, |added| LogIndex(added.0.saturating_sub(1))))
}

fn is_sure(index: LogIndex, history: &History, unverified: u64, floor: LogIndex) -> bool {
    let sure = (unverified == 0 && index >= floor) || plant::is(Plant::NoNullAfterRewind);
    sure && !history.pending && index >= history.until
}

/// data_synced, by law 13 and the nulls of law 20.
pub fn data_synced(kv: &dyn KvRead, applied: LogIndex, lineage: &Lineage) -> Result<Option<LogIndex>, StorageError> {
    let index = largest_complete(kv, applied)?;
    let floor = floors::floor(kv, lineage)?;
    let unverified = counters::counters(kv)?.unverified;
    Ok(is_sure(index, &history::history(kv)?, unverified, floor).then_some(index))
}

/// Whether `index` may be promised as a floor: every block live there is here, for sure, and it is not below the floor.
pub(crate) fn may_promise(kv: &dyn KvRead, index: LogIndex, applied: LogIndex, lineage: &Lineage) -> Result<bool, StorageError> {
    let complete = index <= applied
        && owed::first_owed(kv)?.is_none_or(|(added, _, _)| added > index)
        && (ghosts::hole_at(kv, index)?.is_none() || plant::is(Plant::SmallestPendingMinusOne));
    let unverified = counters::counters(kv)?.unverified;
    let floor = floors::floor(kv, lineage)?;
    Ok(complete && index >= floor && is_sure(index, &history::history(kv)?, unverified, floor))
}

/// All figures of the region.
pub fn watermarks(kv: &dyn KvRead, applied: LogIndex, lineage: &Lineage) -> Result<Watermarks, StorageError> {
    let counters = counters::counters(kv)?;
    let history = history::history(kv)?;
    let index = largest_complete(kv, applied)?;
    let floor = floors::floor(kv, lineage)?;
    let data_synced = is_sure(index, &history, counters.unverified, floor).then_some(index);
    let owed = counters.owed_total();
    Ok(Watermarks {
        applied,
        data_synced,
        recoverable: data_synced,
        floor,
        blocks_behind: owed.blocks + counters.damaged.blocks,
        bytes_behind: ByteCount(owed.bytes.0 + counters.damaged.bytes.0),
        oldest_owed_time: owed::first_owed(kv)?.map(|(_, _, row)| row.time),
        history_pending: history.pending || index < history.until,
        unverified: counters.unverified,
        damaged: counters.damaged.blocks,
        failing: counters.failing.into_iter().filter(|(_, count)| *count > 0).collect(),
        written_off: counters.written_off.blocks,
        deletion_held: counters.deletions,
    })
}
