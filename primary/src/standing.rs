//! What nodes of a cluster ask each other beside Raft: how they stand, and entries that one log no longer has.
//!
//! The leader asks all members now and then: their versions are what it announces for them (law 4). A node that hears
//! no leader for a while asks the others whether it still belongs: one that was taken out while it was away learns it so.

use crate::local;
use crate::node::Node;
use crate::raft::{PeerCall, PeerError, stored};
use farshore_meta::kv::Store;
use farshore_types::{LocalTime, NodeId, RaftIndex};
use farshore_wire::v1::{self, standing::Member as Belongs};
use openraft::AsyncRuntime;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a peer may take to answer.
const ASK: Duration = Duration::from_millis(500);
/// Pause between two rounds of questions.
const ASK_EVERY_US: u64 = 1_000_000;
/// Without a word from a leader for so long, a node asks whether it still belongs.
const ORPHANED_US: u64 = 3_000_000;
/// What a member said counts for so long.
const SAID_US: u64 = 10_000_000;
/// Largest answer with entries, in bytes (law 27).
const ENTRIES_BYTES: usize = 1 << 20;
/// The small durable value of a node that was taken out.
pub const REMOVED: &str = "removed";

/// What a node knows of its peers, beside what Raft knows.
pub(crate) struct Peers {
    /// When a leader was heard last, on this node's boot clock.
    heard_us: AtomicU64,
    asked_us: AtomicU64,
    /// The version that each member knows, and when it said so.
    said: Mutex<BTreeMap<u64, (u32, LocalTime)>>,
    stopping: AtomicBool,
    removed: AtomicBool,
}

impl Peers {
    pub fn new(now: LocalTime) -> Peers {
        Peers {
            heard_us: AtomicU64::new(now),
            asked_us: AtomicU64::new(0),
            said: Mutex::default(),
            stopping: AtomicBool::new(false),
            removed: AtomicBool::new(false),
        }
    }

    pub fn heard(&self, now: LocalTime) {
        self.heard_us.store(now, Ordering::Relaxed);
    }
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// From now on this node takes no leadership that is handed over: it is about to stop.
    pub fn begin_stop(&self) {
        self.peers.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the cluster has taken this node out.
    pub fn is_removed(&self) -> bool {
        self.peers.removed.load(Ordering::Relaxed)
    }

    /// Answers what only nodes of this cluster ask.
    pub(crate) fn answer_peer(&self, call: PeerCall, body: &[u8]) -> Result<Vec<u8>, PeerError> {
        let malformed = |error: prost::DecodeError| PeerError(format!("a question cannot be decoded: {error}"));
        match call {
            PeerCall::Entries => self.entries_for(v1::EntriesAsk::decode(body).map_err(malformed)?),
            _ => self.standing_for(v1::StandingAsk::decode(body).map_err(malformed)?),
        }
    }

    fn standing_for(&self, ask: v1::StandingAsk) -> Result<Vec<u8>, PeerError> {
        let kv = self.read().map_err(|error| PeerError(error.to_string()))?;
        let removed = local::removed(&*kv, NodeId(ask.node)).map_err(|error| PeerError(error.to_string()))?.is_some();
        let member = match removed {
            true => Belongs::Removed,
            false if self.members().iter().any(|member| member.id == ask.node) => Belongs::Member,
            false => Belongs::Unknown,
        };
        let stopping = self.peers.stopping.load(Ordering::Relaxed);
        Ok(v1::Standing { member: member.into(), stopping, machine: self.config.machine }.encode_to_vec())
    }

    /// Entries of this node's log, as far as they are applied here: nothing that might still be taken back.
    fn entries_for(&self, ask: v1::EntriesAsk) -> Result<Vec<u8>, PeerError> {
        // By the state itself: openraft's metrics come later.
        let applied = self.read().and_then(|kv| local::applied(&*kv)).map_err(|error| PeerError(error.to_string()))?;
        let to = RaftIndex(ask.to.min(applied.log_id.map_or(0, |id| stored(id.index).0)));
        let records = self.log.read(RaftIndex(ask.from), to, ENTRIES_BYTES).map_err(|error| PeerError(error.to_string()))?;
        let entries = records.into_iter().map(|(index, bytes)| v1::LogEntry { index: index.0, bytes: bytes.to_vec().into() });
        Ok(v1::Entries { entries: entries.collect() }.encode_to_vec())
    }

    /// How the node of this id at this address stands, and how it says that this one does.
    pub(crate) async fn standing_at(&self, id: u64, address: &str) -> Result<v1::Standing, PeerError> {
        let body = v1::StandingAsk { node: self.config.id.0 }.encode_to_vec();
        let answer = self.ask_peer((id, address), PeerCall::Standing, body, ASK).await?;
        v1::Standing::decode(&answer[..]).map_err(|error| PeerError(format!("the answer cannot be decoded: {error}")))
    }

    /// Entries at these positions out of another member's log; empty when none has the first of them.
    pub(crate) async fn entries_of_peers(&self, from: RaftIndex, to: RaftIndex) -> Vec<(RaftIndex, Vec<u8>)> {
        let body = v1::EntriesAsk { from: from.0, to: to.0 }.encode_to_vec();
        for other in self.other_members() {
            let answer = self.ask_peer((other.id, &other.address), PeerCall::Entries, body.clone(), ASK * 4).await;
            let Ok(answer) = answer.and_then(|bytes| v1::Entries::decode(&bytes[..]).map_err(|e| PeerError(e.to_string())))
            else {
                continue;
            };
            if answer.entries.first().is_some_and(|entry| entry.index == from.0) {
                return answer.entries.into_iter().map(|entry| (RaftIndex(entry.index), entry.bytes.to_vec())).collect();
            }
        }
        vec![]
    }

    /// The round of questions: a leader asks how all stand, and who has lost its leader, whether it still belongs.
    pub(crate) async fn ask_around(&self, now: LocalTime) {
        let leads = self.is_leader();
        if leads {
            self.peers.heard(now);
        }
        let orphaned = now.saturating_sub(self.peers.heard_us.load(Ordering::Relaxed)) > ORPHANED_US;
        let due = now.saturating_sub(self.peers.asked_us.load(Ordering::Relaxed)) > ASK_EVERY_US;
        if !due || !(leads || orphaned) {
            return;
        }
        self.peers.asked_us.store(now, Ordering::Relaxed);
        let others = self.other_members();
        let asked = others.iter().map(|other| async { (other.id, self.standing_at(other.id, &other.address).await) });
        for (id, standing) in futures::future::join_all(asked).await {
            let Ok(standing) = standing else { continue };
            let mut said = self.peers.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.insert(id, (standing.machine, now));
            drop(said);
            if standing.member() == Belongs::Removed && !leads {
                return self.end_as_removed();
            }
        }
    }

    /// This node was taken out: it says so, now and at every later start, and ends.
    fn end_as_removed(&self) {
        if let Err(error) = self.log.store_small(REMOVED, b"1") {
            tracing::warn!(%error, "that this node was taken out could not be recorded; it will ask again");
        }
        self.peers.removed.store(true, Ordering::Relaxed);
        crate::raft::Observer::stopped(&*self.hub, "the cluster has taken this node out");
    }

    /// The highest version of the state machine that every member knows; `None` while some have not said it lately.
    pub fn machine_of_all(&self, now: LocalTime) -> Option<u32> {
        let mut others = self.other_members();
        let said = self.peers.said.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = |id: u64| said.get(&id).filter(|(_, at)| now.saturating_sub(*at) < SAID_US).map(|(machine, _)| *machine);
        let all: Option<Vec<u32>> = others.drain(..).map(|other| heard(other.id)).collect();
        all.map(|all| all.into_iter().chain([self.config.machine]).min().unwrap_or(self.config.machine))
    }
}
