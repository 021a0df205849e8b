//! Epochs and lineages (law 8), and the hash chain over shared entries (law 1).

use crate::{ClusterId, LogIndex};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Hash over all shared entries up to an index; all zeros for the empty history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Chain(pub [u8; 32]);

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({:02x}{:02x}{:02x}{:02x})", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// Names an epoch: the same number of another cluster is another epoch (law 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpochId {
    /// From 1; 0 stands for "before the first epoch".
    pub number: u64,
    pub cluster: ClusterId,
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.number, self.cluster)
    }
}

/// One epoch of a volume: a time in which one cluster may write (law 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    pub id: EpochId,
    pub parent: EpochId,
    /// The last index before this epoch: its first entry, which is its start record, is `start + 1`.
    pub start: LogIndex,
    /// The chain at `start`.
    pub chain: Chain,
}

/// All epochs of a history, oldest first. Each one's parent is the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage(pub Vec<Epoch>);

impl Lineage {
    /// The newest epoch; `None` before the first start.
    pub fn head(&self) -> Option<&Epoch> {
        self.0.last()
    }

    /// The newest epoch's id, or `0@0` before the first start.
    pub fn head_id(&self) -> EpochId {
        self.head().map(|epoch| epoch.id).unwrap_or_default()
    }

    /// The epoch to which the entry at `index` belongs.
    pub fn at(&self, index: LogIndex) -> Option<&Epoch> {
        self.0.iter().rev().find(|epoch| epoch.start < index)
    }

    /// Up to which index (inclusive) two lineages tell one history; `None` when they never divide.
    pub fn fork_index(&self, other: &Lineage) -> Option<LogIndex> {
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            if mine != theirs {
                return Some(mine.start.min(theirs.start));
            }
        }
        let shared = self.0.len().min(other.0.len());
        self.0[shared..].first().or(other.0[shared..].first()).map(|epoch| epoch.start)
    }

    /// How much of a figure that was reported on lineage `of` counts on this one (law 14).
    pub fn reach(&self, figure: LogIndex, of: &Lineage) -> LogIndex {
        self.fork_index(of).map_or(figure, |fork| figure.min(fork))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64, cluster: u8, start: u64) -> Epoch {
        Epoch {
            id: EpochId { number, cluster: ClusterId(cluster) },
            parent: EpochId::default(),
            start: LogIndex(start),
            chain: Chain::default(),
        }
    }

    #[test]
    fn law_8_the_same_number_of_another_cluster_is_a_fork() {
        let first = epoch(1, 0, 0);
        let us = Lineage(vec![first]);
        let eu = Lineage(vec![first, epoch(2, 1, 24)]);
        let ap = Lineage(vec![first, epoch(2, 2, 30)]);
        assert_eq!(us.fork_index(&us), None);
        assert_eq!(us.fork_index(&eu), Some(LogIndex(24)));
        assert_eq!(eu.fork_index(&ap), Some(LogIndex(24)));
        assert_eq!(ap.reach(LogIndex(50), &eu), LogIndex(24));
        assert_eq!(us.at(LogIndex(1)), Some(&first));
        assert_eq!(eu.at(LogIndex(24)), Some(&first));
        assert_eq!(eu.at(LogIndex(25)).map(|e| e.id.number), Some(2));
    }
}
