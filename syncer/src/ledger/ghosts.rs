//! Ghosts: intervals `[added, dropped)` of blocks that were dropped before they were copied (law 13).
//!
//! Kept one by one above the committed floor, because a rewind must tell them apart: it forgets those whose drop it
//! takes back, whole. Beside them stands their union as disjoint intervals, from which the watermark is read with one
//! look; it is never cut, only rebuilt from the intervals themselves.

use super::Ledger;
use crate::plant::{self, Plant};
use crate::rows::{self, Key, KeyReader, end_of, prefix};
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_types::LogIndex;

fn ghost_key(added: LogIndex, dropped: LogIndex) -> Vec<u8> {
    Key::new(prefix::GHOST).number(dropped.0).number(added.0).done()
}

fn union_key(added: LogIndex) -> Vec<u8> {
    Key::new(prefix::GHOST_UNION).number(added.0).done()
}

/// The interval of the union that starts at or before `index` and reaches furthest.
fn union_before(kv: &dyn KvRead, index: LogIndex) -> Result<Option<(LogIndex, LogIndex)>, StorageError> {
    let (from, to) = (union_key(LogIndex(0)), union_key(index.next()));
    match kv.scan_back(Space::Local, &from, Some(&to))?.next() {
        None => Ok(None),
        Some(row) => {
            let (key, bytes) = row?;
            Ok(Some((KeyReader::new(key, prefix::GHOST_UNION)?.index()?, rows::decode(key, bytes)?)))
        }
    }
}

/// The start of the hole in which `index` lies; `None`: in no hole. One look, since the union is disjoint and maximal.
pub(crate) fn hole_at(kv: &dyn KvRead, index: LogIndex) -> Result<Option<LogIndex>, StorageError> {
    Ok(union_before(kv, index)?.filter(|(_, dropped)| index < *dropped).map(|(added, _)| added))
}

/// All intervals with `dropped >= from`, in order of their drop.
pub(crate) fn ghosts_from(kv: &dyn KvRead, from: LogIndex) -> Result<Vec<(LogIndex, LogIndex)>, StorageError> {
    let start = Key::new(prefix::GHOST).number(from.0).done();
    kv.scan(Space::Local, &start, Some(&end_of(prefix::GHOST)))?
        .map(|row| {
            let mut reader = KeyReader::new(row?.0, prefix::GHOST)?;
            let dropped = reader.index()?;
            Ok((reader.index()?, dropped))
        })
        .collect()
}

impl Ledger<'_, '_> {
    /// Leaves the interval of a block that is dropped without having been here.
    pub fn leave_ghost(&mut self, added: LogIndex, dropped: LogIndex) -> Result<(), StorageError> {
        assert!(added <= dropped, "no block is dropped before it is added");
        let key = ghost_key(added, dropped);
        if added == dropped || self.txn.get(&key)?.is_some() {
            return Ok(());
        }
        rows::put(self.txn, &key, &())?;
        self.counters.ghosts += 1;
        self.join(added, dropped)
    }

    /// Adds an interval to the union.
    fn join(&mut self, mut added: LogIndex, mut dropped: LogIndex) -> Result<(), StorageError> {
        while let Some((start, end)) = union_before(self.txn.read(), dropped)?.filter(|(_, end)| *end >= added) {
            added = added.min(start);
            dropped = dropped.max(end);
            self.txn.delete(&union_key(start))?;
        }
        rows::put(self.txn, &union_key(added), &dropped)
    }

    /// Forgets the intervals that the committed floor has passed (laws 13, 14).
    pub fn forget_ghosts(&mut self, floor: LogIndex) -> Result<(), StorageError> {
        let forgotten =
            self.txn.delete_range(prefix::GHOST, &Key::new(prefix::GHOST).number(floor.0.saturating_add(1)).done())?;
        self.counters.ghosts = self.counters.ghosts.checked_sub(forgotten).expect("a ghost is counted before it is forgotten");
        if forgotten == 0 {
            return Ok(());
        }
        loop {
            let Some(key) = self.txn.keys(prefix::GHOST_UNION, &end_of(prefix::GHOST_UNION), 1)?.pop() else { return Ok(()) };
            let dropped: LogIndex = rows::get(self.txn.read(), &key)?.unwrap_or_default();
            if dropped > floor {
                return Ok(());
            }
            self.txn.delete(&key)?;
        }
    }

    /// A rewind to `to`: the blocks dropped beyond are live again and owed as such; their intervals go, whole (law 20).
    pub fn rewind_ghosts(&mut self, to: LogIndex) -> Result<(), StorageError> {
        if plant::is(Plant::MergeIntervals) {
            return self.cut_ghosts(to);
        }
        let beyond = self.txn.delete_range(&Key::new(prefix::GHOST).number(to.0 + 1).done(), &end_of(prefix::GHOST))?;
        self.counters.ghosts = self.counters.ghosts.checked_sub(beyond).expect("a ghost is counted before it is forgotten");
        if beyond > 0 { self.rebuild_union() } else { Ok(()) }
    }

    /// The planted misreading: merged intervals cannot be told apart, only cut.
    fn cut_ghosts(&mut self, to: LogIndex) -> Result<(), StorageError> {
        let cut = ghosts_from(self.txn.read(), LogIndex(0))?;
        self.clear_ghosts()?;
        for (added, dropped) in cut.into_iter().filter(|(added, _)| *added <= to) {
            self.leave_ghost(added, dropped.min(to.next()))?;
        }
        Ok(())
    }

    fn rebuild_union(&mut self) -> Result<(), StorageError> {
        self.txn.delete_range(prefix::GHOST_UNION, &end_of(prefix::GHOST_UNION))?;
        for (added, dropped) in ghosts_from(self.txn.read(), LogIndex(0))? {
            self.join(added, dropped)?;
        }
        Ok(())
    }

    /// Forgets all intervals: the bucket or the history that they spoke of is gone.
    pub fn clear_ghosts(&mut self) -> Result<(), StorageError> {
        self.txn.delete_range(prefix::GHOST, &end_of(prefix::GHOST))?;
        self.txn.delete_range(prefix::GHOST_UNION, &end_of(prefix::GHOST_UNION))?;
        self.counters.ghosts = 0;
        Ok(())
    }
}
