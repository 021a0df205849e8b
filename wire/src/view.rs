//! What `--json`, the console and scripts see. A figure that is not known is `null`, never 0 (law 28). Keys are
//! stable; more may come.

use serde::{Deserialize, Serialize};

/// Figures of one region as its own cluster computes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionFigures {
    pub region: String,
    /// Shared entries applied in this region's cluster.
    pub applied: u64,
    pub data_synced: Option<u64>,
    pub recoverable: Option<u64>,
    pub floor: u64,
    pub blocks_behind: u64,
    pub bytes_behind: u64,
    /// Entry time (microseconds since 1970, primary's clock) of the oldest owed block.
    pub oldest_owed_us: Option<u64>,
    pub blocks_failing: u64,
    pub blocks_damaged: u64,
    pub blocks_unverified: u64,
    pub blocks_written_off: u64,
    pub history_pending: bool,
    pub copied_blocks_total: u64,
    pub copied_bytes_total: u64,
    pub fallback_blocks_total: u64,
    pub workers: u64,
    pub deletions_held: u64,
    pub paused: bool,
    pub full_sync_last_us: Option<u64>,
    pub full_sync_next_in_seconds: Option<u64>,
    pub diverged: bool,
}

/// One region's line of `lag --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionLag {
    pub region: String,
    pub committed: Option<u64>,
    /// `null` in the primary's own region.
    pub mirror_applied: Option<u64>,
    pub data_synced: Option<u64>,
    pub recoverable: Option<u64>,
    pub entries_behind: Option<u64>,
    pub metadata_seconds_behind: Option<f64>,
    pub data_seconds_behind: Option<f64>,
    pub blocks_behind: Option<u64>,
    pub bytes_behind: Option<u64>,
    /// Whether the seconds are a lower bound, since the region was not heard for a while.
    pub at_least: bool,
    /// Seconds since these figures were observed; `null` when never.
    pub age_seconds: Option<f64>,
    pub role: String,
    pub failing_blocks: Option<u64>,
    pub diverged: bool,
}

/// `lag --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LagView {
    pub volume: String,
    /// The region whose cluster answered.
    pub observer: String,
    /// RFC 3339, UTC.
    pub observed_at: String,
    /// Whether the primary was not heard for a while.
    pub stale: bool,
    pub epoch: u64,
    pub primary: String,
    pub leader: Option<String>,
    pub regions: Vec<RegionLag>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: String,
    pub region: String,
    /// leader, follower, mirror-leader, mirror-follower, down; learner: it does not vote yet; no-member: its cluster does
    /// not have it, or not yet.
    pub role: String,
    pub pid: Option<u32>,
    pub address: String,
    pub applied: Option<u64>,
    /// What is wrong with it: of a running node, why it has no vote; of one that is down, why it ended, if this machine knows.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Of the shared state at `applied`: equal on all nodes that stand at the same index.
    #[serde(default)]
    pub digest: Option<String>,
    /// The highest version of the state machine that it knows; of a node that does not say, none.
    #[serde(default)]
    pub machine: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BucketView {
    pub region: String,
    pub url: String,
    pub pid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeView {
    pub name: String,
    pub uuid: String,
    pub epoch: u64,
    pub primary: String,
    pub mirrors: Vec<String>,
    pub replication: serde_json::Value,
    pub block_size: u32,
    pub log_index: u64,
    pub digest: String,
    pub used_bytes: u64,
    pub used_inodes: u64,
    /// The version of the state machine: what every node of every cluster knows. 0 from a node that does not say.
    #[serde(default)]
    pub machine: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionView {
    pub id: String,
    pub host: String,
    pub mount: String,
    pub region: String,
    pub options: String,
    pub kind: String,
}

/// `status --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    pub nodes: Vec<NodeView>,
    pub buckets: Vec<BucketView>,
    pub volumes: Vec<VolumeView>,
    pub sessions: Vec<SessionView>,
}

/// A block that a region still owes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwedBlock {
    pub block: String,
    /// A path of its file; `null` when it has none any more.
    pub path: Option<String>,
    pub added: u64,
    pub bytes: u64,
    pub class: String,
    pub reason: Option<String>,
    pub tries: u32,
}

/// `replication status --json`, one region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicationView {
    pub region: String,
    /// running, paused, history, unknown.
    pub state: String,
    pub figures: RegionFigures,
    /// The oldest owed blocks, at most as many as asked for.
    pub owed: Vec<OwedBlock>,
    /// Whether more are owed than listed.
    pub more: bool,
    pub workers: Vec<WorkerView>,
    pub full_sync: FullSyncView,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    pub id: String,
    pub host: String,
    pub slots: u32,
    pub leases: u32,
    pub done: u64,
    pub rejected: u64,
}

/// State and last report of the full sync of one region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FullSyncView {
    pub region: String,
    pub running: bool,
    /// 0.0 to 1.0 while running, by names listed so far against those expected.
    pub progress: Option<f64>,
    pub last_finished_us: Option<u64>,
    pub next_in_seconds: Option<u64>,
    pub listed: u64,
    pub missing: u64,
    pub repaired: u64,
    pub unknown: u64,
    pub damaged: u64,
    pub unrepairable: u64,
    /// The first findings, each "kind name".
    pub findings: Vec<String>,
    /// Number of full syncs that have finished.
    pub runs: u64,
}
