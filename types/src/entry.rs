//! The shared entry: the unit of the changelog (law 1), and the only input of the shared state machine (law 4).
//!
//! The order of the variants is part of the persisted and wire formats: append, never reorder.

use crate::{BucketId, ClusterId, ControlTime, Epoch, EpochId, Ino, LogTime, Op, Sequence, SessionId, Slot, VolumeRecord};
use serde::{Deserialize, Serialize};

/// One request of a session inside a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    pub session: SessionId,
    pub sequence: Sequence,
    /// The session has the answers to all sequences up to this one (inclusive); their replies are dropped (law 10).
    pub acknowledged: Sequence,
    pub op: Op,
}

/// What a session says of itself when it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    pub host: String,
    /// Where it is mounted; empty for a client without a mount.
    pub mount: String,
    /// Mount options, for people.
    pub options: String,
    /// The bucket that it writes first, as its identity object names it (law 12); `None`: it writes none.
    pub bucket: Option<BucketId>,
}

/// Time on a leader's own clock in microseconds (CLOCK_BOOTTIME); compared only on the machine that took it (law 6).
pub type LocalTime = u64;

/// Rare entries that steer the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// The first entry of a volume.
    Format(VolumeRecord),
    /// Starts an epoch; the first entry that carries its id. `slot` is fresh (law 7).
    Start {
        epoch: Epoch,
        slot: Slot,
    },
    /// Raises the version of the state machine (law 4).
    Version(u32),
    /// Advances control time by so many microseconds (law 6).
    Tick(ControlTime),
    OpenSession {
        session: SessionId,
        info: SessionInfo,
    },
    /// Ends a session at its own wish.
    CloseSession {
        session: SessionId,
    },
    /// Ends a session that was silent for a full lease (law 11).
    Expire {
        session: SessionId,
    },
    /// Frees unlinked inodes that no session holds open.
    Purge {
        inos: Vec<Ino>,
    },
    /// Replaces a region's bucket: its incarnation and identity (law 12).
    ReplaceBucket {
        region: crate::RegionId,
        incarnation: crate::Incarnation,
        bucket: crate::Uuid,
    },
    /// Adds a cluster to the roster: it tails the changelog and holds deletions from now on (law 14).
    RosterAdd {
        cluster: ClusterId,
    },
    /// Takes a cluster off the roster.
    RosterRemove {
        cluster: ClusterId,
    },
    /// Marks a roster cluster `needs snapshot`: it no longer holds the log, it still holds deletions (law 25).
    RosterNeedsSnapshot {
        cluster: ClusterId,
        needs: bool,
    },
    /// Forbids every shared mutation until the next start (law 21).
    Freeze,
}

/// What a shared entry does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharedBody {
    /// 1..=256 requests of sessions, in order.
    Batch(Vec<SessionRequest>),
    Control(Control),
}

/// A shared entry. Its canonical bytes are [postcard](https://postcard.jamesmunns.com) of this struct; the chain and
/// the changelog carry exactly those bytes, in every cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedEntry {
    /// The epoch in which it was proposed.
    pub epoch: EpochId,
    pub time: LogTime,
    pub body: SharedBody,
}
