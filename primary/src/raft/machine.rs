//! openraft's state machine: applies entries in groups, one transaction a group, and only what this node's own log has
//! flushed (law 5). A storage error stops the node; it never becomes a reply.

use super::log::RaftLog;
use super::log_store::stored;
use super::snapshot::{Checkpoints, Meta, SnapshotBody, restore};
use super::types::{Entry, EntryPayload, LogId, Response, StoredMembership, Types};
use crate::apply::{ApplyError, apply};
use crate::host::SharedHost;
use crate::local::{self, RaftApplied};
use crate::proposal::Proposal;
use farshore_meta::Applied;
use farshore_meta::kv::Store;
use farshore_types::{ClusterId, RaftIndex};
use futures::{FutureExt, Stream, StreamExt};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{AsyncRuntime, OptionalSend, RaftSnapshotBuilder, Snapshot};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Most entries that share one transaction (law 27).
const GROUP: usize = 256;
/// Longest wait between two looks at the log's flushed index.
const FLUSH_LOOK: Duration = Duration::from_millis(100);

/// Hears of every applied shared entry, in order, after its transaction has committed.
pub trait Observer: Send + Sync + 'static {
    fn applied(&self, applied: &Applied);
    /// Local rows changed: figures, leases and floors may have moved.
    fn local_changed(&self);
    /// The node cannot go on.
    fn stopped(&self, why: &str);
}

/// The state machine of one node.
pub struct Machine<R, S> {
    own: ClusterId,
    store: S,
    log: Arc<dyn RaftLog>,
    flushed: Arc<Notify>,
    checkpoints: Arc<Checkpoints>,
    observer: Arc<dyn Observer>,
    host: SharedHost,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime, S: Store> Machine<R, S> {
    pub fn new(
        own: ClusterId,
        store: S,
        (log, flushed): (Arc<dyn RaftLog>, Arc<Notify>),
        checkpoints: Arc<Checkpoints>,
        observer: Arc<dyn Observer>,
        host: SharedHost,
    ) -> Self {
        Machine { own, store, log, flushed, checkpoints, observer, host, runtime: PhantomData }
    }

    fn apply_group(&self, entries: &[Entry]) -> Result<(Vec<Response>, Vec<Applied>, bool), ApplyError> {
        let old = if stands_alone(entries.first()) { Some(self.store.read()?) } else { None };
        let mut kv = self.store.write()?;
        let mut position = local::applied(&*kv)?;
        let (mut responses, mut applied, mut local_changed) = (Vec::with_capacity(entries.len()), vec![], false);
        for entry in entries {
            let response = match &entry.payload {
                EntryPayload::Blank => Response::Nothing,
                EntryPayload::Membership(membership) => {
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
        Ok((responses, applied, local_changed))
    }

    /// Applies entries in order; one that stands alone has a transaction of its own.
    fn apply_groups(&self, entries: &[Entry]) -> Result<(Vec<Response>, Vec<Applied>, bool), ApplyError> {
        let alone = entries.iter().rposition(|entry| stands_alone(Some(entry)));
        let Some(at) = alone.filter(|_| entries.len() > 1) else { return self.apply_group(entries) };
        assert_eq!(at + 1, entries.len(), "a group ends with the entry that stands alone");
        let (mut responses, mut applied, mut local_changed) = self.apply_group(&entries[..at])?;
        let last = self.apply_group(&entries[at..])?;
        responses.extend(last.0);
        applied.extend(last.1);
        local_changed |= last.2;
        Ok((responses, applied, local_changed))
    }

    async fn until_flushed(&self, index: RaftIndex) {
        while self.log.flushed() < index {
            let mut notified = std::pin::pin!(self.flushed.notified());
            notified.as_mut().enable();
            if self.log.flushed() < index {
                drop(R::timeout(FLUSH_LOOK, notified).await);
            }
        }
    }

    fn position(&self) -> io::Result<RaftApplied> {
        let kv = self.store.read().map_err(io::Error::other)?;
        local::applied(&*kv).map_err(io::Error::other)
    }
}

impl<R: AsyncRuntime, S: Store> RaftStateMachine<Types<R>> for Machine<R, S> {
    type SnapshotData = SnapshotBody;
    type SnapshotBuilder = Builder<R, S>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let position = self.position()?;
        Ok((position.log_id, position.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types<R>>>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut group = vec![];
            let mut responders = vec![];
            let (entry, responder) = first?;
            group.push(entry);
            responders.push(responder);
            while group.len() < GROUP && !stands_alone(group.last()) {
                let Some(Some(next)) = entries.next().now_or_never() else { break };
                let (entry, responder) = next?;
                group.push(entry);
                responders.push(responder);
            }
            let last = group.last().expect("a group has at least its first entry").log_id.index;
            self.until_flushed(stored(last)).await;
            let (responses, applied, local_changed) = self.apply_groups(&group).map_err(|error| {
                self.observer.stopped(&error.to_string());
                io::Error::other(error)
            })?;
            for applied in &applied {
                self.observer.applied(applied);
            }
            if local_changed {
                self.observer.local_changed();
            }
            for (responder, response) in responders.into_iter().zip(responses) {
                if let Some(responder) = responder {
                    responder.send(response);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<R, S> {
        Builder {
            store: self.store.clone(),
            checkpoints: self.checkpoints.clone(),
            host: self.host.clone(),
            runtime: PhantomData,
        }
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: SnapshotBody) -> io::Result<()> {
        // The body is already one of this node's own checkpoints: durable and verified before it is used (hazard 7.2).
        let restored = restore(&self.store, &snapshot).map_err(io::Error::other)?;
        assert_eq!(restored.last_log_id, meta.last_log_id, "a snapshot is at the position that its sender named");
        self.observer.local_changed();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types<R>, SnapshotBody>>> {
        Ok(self.checkpoints.newest().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Whether an entry needs to see the state from before its own transaction.
fn stands_alone(entry: Option<&Entry>) -> bool {
    matches!(entry.map(|entry| &entry.payload), Some(EntryPayload::Normal(payload)) if Proposal::is_reset_commit(&payload.0))
}

/// Takes a checkpoint for openraft.
pub struct Builder<R, S> {
    store: S,
    checkpoints: Arc<Checkpoints>,
    host: SharedHost,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime, S: Store> RaftSnapshotBuilder<Types<R>> for Builder<R, S> {
    type SnapshotData = SnapshotBody;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types<R>, SnapshotBody>> {
        let (done, taken) = tokio::sync::oneshot::channel();
        let (store, checkpoints) = (self.store.clone(), self.checkpoints.clone());
        self.host.run(Box::new(move || drop(done.send(checkpoints.take(&store)))));
        let (meta, snapshot) =
            taken.await.map_err(|_| io::Error::other("the thread that takes checkpoints died"))?.map_err(io::Error::other)?;
        Ok(Snapshot { meta, snapshot })
    }
}
