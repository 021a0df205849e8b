//! The openraft types of a cluster, generic over the runtime so that the simulator runs the real thing.

use super::member::Member;
use farshore_types::{LogIndex, Outcome, TaskId};
use openraft::{AsyncRuntime, RaftTypeConfig, impls};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// openraft's type configuration over the runtime `R`.
pub struct Types<R>(PhantomData<fn() -> R>);

impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Types<R> {}
impl<R> Default for Types<R> {
    fn default() -> Self {
        Types(PhantomData)
    }
}
impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<R> Eq for Types<R> {}
impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// Several leaders a term are possible: (term, node) is what names a leadership.
pub type LeaderId = impls::leader_id_adv::LeaderId<u64, u64>;
/// Position of an entry in the Raft log.
pub type LogId = openraft::LogId<LeaderId>;
/// Who belongs to the cluster, and who votes.
pub type Membership = openraft::Membership<u64, Member>;
/// A membership and where it was set.
pub type StoredMembership = openraft::StoredMembership<LeaderId, u64, Member>;
/// What a Raft entry carries.
pub type EntryPayload = openraft::EntryPayload<Payload, u64, Member>;
/// A Raft entry.
pub type Entry = openraft::Entry<LeaderId, EntryPayload>;

impl<R: AsyncRuntime> RaftTypeConfig for Types<R> {
    type D = Payload;
    type R = Response;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = impls::Vote<LeaderId>;
    type Payload = EntryPayload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = impls::ProgressResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = impls::BoxedErrorSource;
}

/// Encoded bytes of a [`crate::proposal::Proposal`]; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Arc<[u8]>);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Payload;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Payload, E> {
                Ok(Payload(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// What applying an entry answers to the one who proposed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Blank and membership entries.
    Nothing,
    /// A shared entry took this index; one outcome for each request.
    Shared { index: LogIndex, outcomes: Vec<Outcome> },
    /// The judge let a mirrored entry pass as a no-op, or apply refused a shared one; nothing changed.
    Refused { why: Refusal, applied: LogIndex },
    /// A local entry was applied.
    Local(LocalAnswer),
}

/// Why an entry changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    Duplicate,
    Gap,
    Fork,
    Fenced,
    Frozen,
    /// The entry is of an epoch that is not the head of this lineage, or this cluster is not its primary.
    WrongEpoch,
    /// A start whose slot or parent is no longer the next one.
    StaleStart,
    /// A rewind below what before-images reach.
    CannotRewind,
}

/// What a local entry did; the fields are those of [`farshore_syncer::LocalOutcome`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAnswer {
    pub done: bool,
    pub copied: u64,
    pub rejected: Vec<TaskId>,
    pub owed: u64,
    pub lowest_owed: Option<LogIndex>,
    pub run: Option<u64>,
    pub damaged: u64,
}
