//! What operators' tools ask a node. JSON on the wire, so that an older tool understands a newer node.

use crate::view::{FullSyncView, NodeView, RegionFigures, ReplicationView, SessionView, VolumeView};
use farshore_types::{BucketIdentity, VolumeRecord};
use serde::{Deserialize, Serialize};

/// A call to one node. Calls that change something answer `NotLeader` with the leader's address on a follower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum AdminCall {
    /// Any node answers for itself.
    Health,
    /// Makes the cluster out of the topology's nodes; repeating it is no error.
    Initialize,
    /// The first entry of a volume, at its initial primary; repeating it with the same uuid is no error.
    Format {
        volume: VolumeRecord,
    },
    /// Tells a mirror's cluster which volume it follows; repeating it is no error.
    Follow {
        volume: VolumeRecord,
    },
    /// Adds a mirror's cluster to the roster; repeating it is no error.
    RosterAdd {
        cluster: u8,
    },
    Status,
    Lag,
    ReplicationStatus {
        limit: u32,
    },
    ReplicationPause {
        seconds: Option<u64>,
        reason: String,
        by: String,
    },
    ReplicationResume,
    /// Starts a full sync of this region's bucket now; `dry_run` only reports.
    FullSyncStart {
        dry_run: bool,
    },
    FullSyncStatus,
    /// Paths of files of which `region`'s own ledger owes blocks are in ReplicationStatus; this names one block's file.
    Locate {
        slice: u64,
    },
    /// Drains leadership to another node (before a planned stop).
    StepDown,
    /// The identity that the region's bucket must carry (law 12).
    Identity {
        region: String,
    },
}

/// Answer of [`AdminCall::Health`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub name: String,
    pub region: String,
    pub cluster: u8,
    pub node: u64,
    pub pid: u32,
    pub initialized: bool,
    pub formatted: bool,
    pub leader: Option<u64>,
    pub leader_address: Option<String>,
    pub is_leader: bool,
    /// This node can serve what its role asks for.
    pub ready: bool,
    pub volume: Option<String>,
    pub applied: u64,
    pub epoch: u64,
    /// Whether the cluster follows another one.
    pub mirror: bool,
    /// What is wrong with this node, though it runs: a sentence.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Of the shared state at `applied`.
    #[serde(default)]
    pub digest: Option<String>,
}

/// Answer of [`AdminCall::Status`], by the leader.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub nodes: Vec<NodeView>,
    pub volume: Option<VolumeView>,
    pub sessions: Vec<SessionView>,
    pub figures: Option<RegionFigures>,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum AdminAnswer {
    Done,
    Health(Health),
    Status(ClusterStatus),
    Lag(crate::view::LagView),
    Replication(ReplicationView),
    FullSync(FullSyncView),
    Path {
        path: Option<String>,
    },
    Identity {
        identity: BucketIdentity,
    },
    NotLeader {
        leader: Option<String>,
    },
    /// Not done; the sentence says what and how to mend it.
    Failed {
        message: String,
    },
}
