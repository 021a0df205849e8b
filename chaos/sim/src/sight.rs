//! What an invariant sees: every node's disk at one instant, the reference, the buckets, and what clients were told.
//! Plain values, so that each invariant has a test in which it fires.

use crate::board::Answered;
use crate::bucket::Bucket;
use crate::model::Model;
use farshore_types::{Chain, ClusterId, Digest, LogIndex, RaftIndex};
use std::collections::BTreeMap;

/// One node's state, running or not.
#[derive(Clone, Debug, Default)]
pub struct NodeSight {
    pub name: String,
    pub cluster: ClusterId,
    pub running: bool,
    pub index: LogIndex,
    pub chain: Chain,
    pub digest: Digest,
    /// Shared entries that appeared since the last look: index, and the chain recorded there (`None`: no record).
    pub fresh: Vec<(LogIndex, Option<Chain>)>,
    pub data_synced: Option<LogIndex>,
    pub floor: LogIndex,
    /// What other clusters' floors are known to be: cluster and index.
    pub known_floors: Vec<(ClusterId, LogIndex)>,
    /// The lowest index that before-images reach.
    pub trimmed: LogIndex,
    /// The last applied entry of its own Raft log, and the last that is durable there.
    pub applied: RaftIndex,
    pub durable: RaftIndex,
    /// Blocks owed, unverified or damaged.
    pub blocks_behind: u64,
    /// Dropped blocks whose objects wait to be deleted.
    pub deletions_held: u64,
    pub diverged: bool,
    /// It came here without the entries between.
    pub skipped: bool,
}

/// The world at one instant.
pub struct Sight<'a> {
    pub primary: ClusterId,
    pub nodes: Vec<NodeSight>,
    pub model: &'a Model,
    pub buckets: &'a BTreeMap<ClusterId, Bucket>,
    pub answers: Vec<Answered>,
    /// The highest floor of each cluster that any look has seen: a promise stays, also where the node that had applied it is gone
    /// and its followers have still to apply it.
    pub promised: BTreeMap<ClusterId, LogIndex>,
}

impl Sight<'_> {
    /// The highest floor that any node of a cluster has committed.
    pub fn floor(&self, cluster: ClusterId) -> LogIndex {
        self.nodes.iter().filter(|node| node.cluster == cluster).map(|node| node.floor).max().unwrap_or_default()
    }

    pub fn mirrors(&self) -> impl Iterator<Item = &NodeSight> {
        self.nodes.iter().filter(|node| node.cluster != self.primary)
    }

    pub fn primaries(&self) -> impl Iterator<Item = &NodeSight> {
        self.nodes.iter().filter(|node| node.cluster == self.primary)
    }
}
