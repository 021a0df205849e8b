//! The thread that applies: groups of entries, one transaction a group, and only what this node's own log has flushed
//! (law 5). A storage error stops the node; it never becomes a reply.
//!
//! openraft hands entries over as it hears that they are committed, a few at a time. Each transaction has a price of its own, so
//! the applier reads ahead: what is committed and flushed behind the entries at hand is applied with them, and their
//! responses wait until openraft hands those entries over too. State may so be ahead of what openraft believes to be
//! applied, never of what is committed.

use super::log::{LogFailure, RaftLog};
use super::log_store::stored;
use super::machine::Observer;
use super::types::{Entry, EntryPayload, Membership, Response, StoredMembership, Types};
use crate::apply::{ApplyError, Own, apply};
use crate::local;
use crate::proposal::Proposal;
use farshore_meta::Applied;
use farshore_meta::kv::{KvWrite, StorageError, Store};
use farshore_types::{NodeId, RaftIndex};
use openraft::AsyncRuntime;
use openraft::storage::EntryResponder;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most entries that share one transaction (law 27).
pub const GROUP: usize = 256;
/// Bytes of entries after which a transaction takes no further one: some thousand creates.
pub const GROUP_BYTES: usize = 256 << 10;
/// Bytes of entries that somebody waits for and whose rows the store may keep in memory at first. More of them have the same price
/// either way, and need not be kept twice.
const LIGHT_BYTES: usize = 64 << 10;

/// The highest entry known to be committed, as an index of our log. What openraft is told to apply is at or below it.
#[derive(Clone, Default)]
pub struct Committed(Arc<AtomicU64>);

impl Committed {
    /// Everything up to `index` (inclusive) is committed.
    pub fn raise(&self, index: RaftIndex) {
        self.0.fetch_max(index.0, Ordering::Release);
    }

    pub fn get(&self) -> RaftIndex {
        RaftIndex(self.0.load(Ordering::Acquire))
    }
}

/// Why a group was not applied: the node stops.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Log(#[from] LogFailure),
    #[error("an entry of the log cannot be read: {0}")]
    Entry(#[from] postcard::Error),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Failure::Apply(error.into())
    }
}

/// Who was a member and is none any more is one never again: every node knows it from this entry on.
fn note_removed(kv: &mut dyn KvWrite, before: &StoredMembership, after: &Membership) -> Result<(), StorageError> {
    for (id, member) in before.nodes().filter(|(id, _)| after.get_node(id).is_none()) {
        local::set_removed(kv, NodeId(*id), &member.name)?;
    }
    Ok(())
}

/// Applies for one node; lives on a thread of its own.
pub struct Applier<S> {
    own: Own,
    store: S,
    log: Arc<dyn RaftLog>,
    committed: Committed,
    observer: Arc<dyn Observer>,
    /// Responses of entries that were applied ahead, in order; the first is that of the entry `ahead_first`.
    ahead: VecDeque<Response>,
    ahead_first: RaftIndex,
}

impl<S: Store> Applier<S> {
    pub fn new(own: Own, store: S, log: Arc<dyn RaftLog>, committed: Committed, observer: Arc<dyn Observer>) -> Applier<S> {
        Applier { own, store, log, committed, observer, ahead: VecDeque::new(), ahead_first: RaftIndex(0) }
    }

    /// Applies a group that openraft hands over, and answers who waits. The last of it is flushed.
    pub fn take<R: AsyncRuntime>(&mut self, group: Vec<EntryResponder<Types<R>>>) -> io::Result<()> {
        let (mut entries, mut responders) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        let awaited = group.iter().any(|(_, responder)| responder.is_some());
        for (entry, responder) in group {
            match self.applied_ahead(&entry) {
                Some(response) => responder.into_iter().for_each(|responder| responder.send(response.clone())),
                None => {
                    entries.push(entry);
                    responders.push(responder);
                }
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let responses = self.apply_with_ahead(entries, awaited).map_err(|error| {
            self.observer.stopped(&error.to_string());
            io::Error::other(error)
        })?;
        for (responder, response) in responders.into_iter().zip(responses) {
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    /// Whether the entry at `index`, which openraft has still to hand over, is applied.
    pub fn is_ahead_of(&self, index: RaftIndex) -> bool {
        index.0 < self.ahead_first.0 + self.ahead.len() as u64
    }

    /// Forgets what was applied ahead: a snapshot has replaced the state.
    pub fn forget(&mut self) {
        self.ahead.clear();
    }

    fn applied_ahead(&mut self, entry: &Entry) -> Option<Response> {
        let response = self.ahead.pop_front()?;
        assert_eq!(stored(entry.log_id.index), self.ahead_first, "entries are handed over in order, each once");
        self.ahead_first.0 += 1;
        Some(response)
    }

    /// The responses of `entries`; those of what was applied with them are kept.
    fn apply_with_ahead(&mut self, mut entries: Vec<Entry>, awaited: bool) -> Result<Vec<Response>, Failure> {
        assert!(self.ahead.is_empty(), "what was applied ahead comes first");
        let asked = entries.len();
        self.read_ahead(&mut entries)?;
        let alone = entries.iter().rposition(|entry| stands_alone(Some(entry)));
        let mut responses = match alone.filter(|_| entries.len() > 1) {
            None => self.apply_group(&entries, awaited)?,
            Some(at) => {
                assert_eq!(at + 1, entries.len(), "a group ends with the entry that stands alone");
                let mut responses = self.apply_group(&entries[..at], awaited)?;
                responses.extend(self.apply_group(&entries[at..], awaited)?);
                responses
            }
        };
        self.ahead = responses.drain(asked..).collect();
        self.ahead_first = stored(entries[asked - 1].log_id.index + 1);
        Ok(responses)
    }

    /// Adds the entries behind `entries` that are committed and flushed, within a group's bounds.
    fn read_ahead(&self, entries: &mut Vec<Entry>) -> Result<(), Failure> {
        let mut bytes: usize = entries.iter().map(payload_bytes).sum();
        let Some(last) = entries.last().filter(|last| !stands_alone(Some(last))) else { return Ok(()) };
        let mut next = RaftIndex(stored(last.log_id.index).0 + 1);
        let upto = self.committed.get().min(self.log.flushed());
        if next > upto || entries.len() >= GROUP || bytes >= GROUP_BYTES {
            return Ok(());
        }
        for (index, record) in self.log.read(next, upto, GROUP_BYTES - bytes)? {
            // A log that was purged meanwhile continues elsewhere; openraft will say what to apply.
            if index != next || entries.len() >= GROUP || bytes >= GROUP_BYTES {
                break;
            }
            let entry: Entry = postcard::from_bytes(&record)?;
            if stands_alone(Some(&entry)) {
                break;
            }
            bytes += record.len();
            next.0 += 1;
            entries.push(entry);
        }
        Ok(())
    }

    fn apply_group(&self, entries: &[Entry], awaited: bool) -> Result<Vec<Response>, Failure> {
        let old = if stands_alone(entries.first()) { Some(self.store.read()?) } else { None };
        let light = awaited && entries.iter().all(is_entry) && entries.iter().map(payload_bytes).sum::<usize>() <= LIGHT_BYTES;
        let mut kv = if light { self.store.write_light()? } else { self.store.write()? };
        let mut position = local::applied(&*kv)?;
        let (mut responses, mut applied, mut local_changed) = (Vec::with_capacity(entries.len()), vec![], false);
        for entry in entries {
            let response = match &entry.payload {
                EntryPayload::Blank => Response::Nothing,
                EntryPayload::Membership(membership) => {
                    note_removed(&mut *kv, &position.membership, membership)?;
                    position.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Response::Nothing
                }
                EntryPayload::Normal(payload) => {
                    let effect = apply(&mut *kv, self.own, stored(entry.log_id.index), &payload.0, old.as_deref())?;
                    local_changed |= effect.applied.is_none();
                    applied.extend(effect.applied);
                    effect.response
                }
            };
            position.log_id = Some(entry.log_id);
            responses.push(response);
        }
        local::set_applied(&mut *kv, &position)?;
        kv.commit()?;
        self.tell(&applied, local_changed);
        Ok(responses)
    }

    fn tell(&self, applied: &[Applied], local_changed: bool) {
        for applied in applied {
            self.observer.applied(applied);
        }
        if local_changed {
            self.observer.local_changed();
        }
    }
}

/// Bytes that count against a group's bound.
pub fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.0.len(),
        _ => 0,
    }
}

/// Whether an entry changes no more than requests do.
fn is_entry(entry: &Entry) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(payload) if Proposal::is_entry(&payload.0))
}

/// Whether an entry needs to see the state from before its own transaction.
pub fn stands_alone(entry: Option<&Entry>) -> bool {
    matches!(entry.map(|entry| &entry.payload), Some(EntryPayload::Normal(payload)) if Proposal::is_reset_commit(&payload.0))
}
