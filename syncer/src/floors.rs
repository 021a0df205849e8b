//! Floors: what this cluster promised, and what others reported (law 14).
//!
//! A promise says: on this lineage this cluster starts no epoch below the floor. It stays with the lineage on which it
//! was made; of a floor from another lineage only the part up to where the two divide counts. Rows: one a lineage, and
//! one that says less than another on every lineage is dropped, so that there are at most as many rows as epochs that
//! were abandoned, and in most volumes one.

use crate::home;
use crate::plant::{self, Plant};
use crate::rows::{self, Key, end_of, prefix};
use crate::txn::LocalTxn;
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_types::{ClusterId, Epoch, Lineage, LogIndex};
use serde::{Deserialize, Serialize};

/// A floor as it is committed, reported and remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    pub floor: LogIndex,
    pub lineage: Lineage,
}

impl Floor {
    /// How much of it counts on `lineage`.
    fn reach(&self, lineage: &Lineage) -> LogIndex {
        if plant::is(Plant::BareFloor) { self.floor } else { lineage.reach(self.floor, &self.lineage) }
    }

    /// Whether `other` says at least as much on every lineage that will ever be.
    fn is_covered_by(&self, other: &Floor) -> bool {
        let (mine, theirs) = (&self.lineage.0, &other.lineage.0);
        match theirs.strip_prefix(mine.as_slice()) {
            Some([]) => self.floor <= other.floor,
            // Where they divide the other counts up to the next epoch's start.
            Some([next, ..]) => self.floor <= other.floor && self.floor <= next.start,
            None => false,
        }
    }
}

/// Names a lineage: its newest epoch, whose chain fixes all that came before (law 8).
fn lineage_key(key: Key, head: Option<&Epoch>) -> Vec<u8> {
    match head {
        None => key.number(0).done(),
        Some(epoch) => epoch
            .chain
            .0
            .iter()
            .fold(key.number(epoch.id.number).byte(epoch.id.cluster.0).number(epoch.start.0), |key, byte| key.byte(*byte))
            .done(),
    }
}

fn floors_under(kv: &dyn KvRead, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Floor)>, StorageError> {
    kv.scan(Space::Local, prefix, Some(&end_of(prefix)))?
        .map(|row| {
            let (key, bytes) = row?;
            Ok((key.to_vec(), rows::decode(key, bytes)?))
        })
        .collect()
}

fn best(kv: &dyn KvRead, prefix: &[u8], lineage: &Lineage) -> Result<LogIndex, StorageError> {
    let rows = floors_under(kv, prefix)?;
    Ok(rows.iter().map(|(_, floor)| floor.reach(lineage)).max().unwrap_or_default())
}

fn known_prefix(cluster: ClusterId) -> Vec<u8> {
    Key::new(prefix::KNOWN).byte(cluster.0).done()
}

/// Adds a floor under a prefix, drops the rows that it covers, and is nothing when another covers it.
fn remember(txn: &mut LocalTxn<'_>, under: &[u8], floor: &Floor) -> Result<(), StorageError> {
    let rows = floors_under(txn.read(), under)?;
    if rows.iter().any(|(_, other)| floor.is_covered_by(other)) {
        return Ok(());
    }
    for (key, _) in rows.iter().filter(|(_, other)| other.is_covered_by(floor)) {
        txn.delete(key)?;
    }
    let mut key = Key::new(&[]);
    for byte in under {
        key = key.byte(*byte);
    }
    rows::put(txn, &lineage_key(key, floor.lineage.head()), floor)
}

/// Keeps a promise of this cluster. The caller has checked that the index is complete.
pub(crate) fn promise(txn: &mut LocalTxn<'_>, floor: LogIndex, lineage: &Lineage) -> Result<(), StorageError> {
    remember(txn, prefix::PROMISE, &Floor { floor, lineage: lineage.clone() })
}

/// Keeps what another cluster reported.
pub(crate) fn learn(txn: &mut LocalTxn<'_>, cluster: ClusterId, floor: &Floor) -> Result<(), StorageError> {
    remember(txn, &known_prefix(cluster), floor)
}

/// The committed floor of this cluster, as far as it speaks of `lineage`.
pub fn floor(kv: &dyn KvRead, lineage: &Lineage) -> Result<LogIndex, StorageError> {
    best(kv, prefix::PROMISE, lineage)
}

/// All promises of this cluster: what it must tell others, also after its lineage has moved on.
pub fn promises(kv: &dyn KvRead) -> Result<Vec<Floor>, StorageError> {
    Ok(floors_under(kv, prefix::PROMISE)?.into_iter().map(|(_, floor)| floor).collect())
}

/// What is known of another cluster's floor, as far as it speaks of `lineage`; 0 when it never reported.
pub fn known_floor(kv: &dyn KvRead, cluster: ClusterId, lineage: &Lineage) -> Result<LogIndex, StorageError> {
    best(kv, &known_prefix(cluster), lineage)
}

/// The lowest floor of the roster and of this cluster, as far as they speak of `lineage`: no cluster comes back below
/// it, so that before-images may end there (law 20) and the log may be trimmed to there.
pub fn lowest_floor(kv: &dyn KvRead, lineage: &Lineage, roster: &[ClusterId]) -> Result<LogIndex, StorageError> {
    let own = home::require(kv)?.cluster;
    let mut lowest = floor(kv, lineage)?;
    for cluster in roster.iter().filter(|cluster| **cluster != own) {
        lowest = lowest.min(known_floor(kv, *cluster, lineage)?);
    }
    Ok(lowest)
}

/// Up to which drop objects may be deleted: every cluster on the roster, not only those alive, has promised to stay
/// above (law 14).
pub fn gate(kv: &dyn KvRead, lineage: &Lineage, roster: &[ClusterId]) -> Result<LogIndex, StorageError> {
    if plant::is(Plant::DeleteAtAck) || plant::is(Plant::FloorNotCommitted) {
        let own = home::require(kv)?.cluster;
        let mut gate = LogIndex(u64::MAX);
        for cluster in roster.iter().filter(|cluster| **cluster != own) {
            gate = gate.min(known_floor(kv, *cluster, lineage)?);
        }
        return Ok(gate);
    }
    lowest_floor(kv, lineage, roster)
}
