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
    /// Makes the cluster out of these nodes; repeating it is no error.
    Initialize {
        members: Vec<NewMember>,
    },
    /// Who belongs to the cluster, by its leader.
    Members,
    /// Takes a node in as a learner, which does not vote yet; repeating it is no error.
    MemberAdd {
        member: NewMember,
        /// The member that it will take the place of: it may have the same name and address.
        instead_of: Option<u64>,
    },
    /// Gives a learner that has caught up its vote, and takes another node out, in one step; repeating it is no error.
    MemberChange {
        add: Option<u64>,
        remove: Option<u64>,
    },
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
    /// Takes a mirror back to an index that its before-images reach; it follows on from there.
    Rewind {
        to: u64,
    },
    /// The identity that the region's bucket must carry (law 12).
    Identity {
        region: String,
    },
}

/// A learner may vote once it lacks no more than so many entries: some are always on their way.
pub const CAUGHT_UP: u64 = 1024;

/// A node, as it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Drawn with its directory, never used again.
    pub id: u64,
    pub name: String,
    /// `host:port` that others dial.
    pub address: String,
}

/// A member of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    pub id: u64,
    pub name: String,
    pub address: String,
    /// Whether it votes; a learner only follows.
    pub voter: bool,
    /// Entries of the cluster's log that the leader has not yet heard to be there; `null` when it does not know.
    pub behind: Option<u64>,
    /// Whether the leader heard it lately; `null` on other nodes.
    pub answers: Option<bool>,
}

/// Answer of [`AdminCall::Members`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersView {
    pub leader: u64,
    /// Whether a change of the voters is under way.
    pub changing: bool,
    pub members: Vec<MemberView>,
    /// Ids of nodes that were taken out, for ever.
    pub removed: Vec<u64>,
}

impl MembersView {
    /// A voter that the leader, whose view this is, has not heard lately, or that has not caught up.
    pub fn lacking(&self) -> Option<&MemberView> {
        let lags = |behind: Option<u64>| behind.is_none_or(|behind| behind > CAUGHT_UP);
        self.members.iter().filter(|member| member.voter).find(|member| member.answers != Some(true) || lags(member.behind))
    }
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
    /// The cluster's nodes, as this one knows them.
    #[serde(default)]
    pub members: Vec<MemberView>,
    /// The highest version of the state machine that this node knows.
    #[serde(default)]
    pub machine: u32,
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
    Members(MembersView),
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
    /// Not done yet: the same call is repeated until it is.
    NotYet {
        message: String,
    },
    /// Not done; the sentence says what and how to mend it.
    Failed {
        message: String,
    },
}
