//! openraft's state machine: hands committed entries to the thread that applies them, once this node's own log has
//! flushed them (law 5), and snapshots to and from the checkpoints.

use super::applier::{Applier, Committed, GROUP, GROUP_BYTES, payload_bytes, stands_alone};
use super::log::RaftLog;
use super::log_store::stored;
use super::snapshot::{Checkpoints, Meta, SnapshotBody, restore};
use super::types::{LogId, StoredMembership, Types};
use crate::apply::Own;
use crate::host::{SharedHost, Worker};
use crate::local::{self, RaftApplied};
use farshore_meta::Applied;
use farshore_meta::kv::Store;
use farshore_types::RaftIndex;
use futures::{FutureExt, Stream, StreamExt};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{AsyncRuntime, OptionalSend, RaftSnapshotBuilder, Snapshot};
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// How long entries that nobody waits for gather before they are applied: a follower's, which share a transaction so. A
/// follower that begins to lead is behind by no more than this.
const GATHER: Duration = Duration::from_millis(50);
/// With more entries behind it than this a follower does not wait: it has enough for a transaction.
const GATHERED: u64 = 64;
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

/// A node's log as the state machine sees it.
pub struct MachineLog {
    pub log: Arc<dyn RaftLog>,
    /// Notified whenever entries became durable.
    pub flushed: Arc<Notify>,
    pub committed: Committed,
}

/// The state machine of one node.
pub struct Machine<R, S> {
    store: S,
    log: Arc<dyn RaftLog>,
    flushed: Arc<Notify>,
    committed: Committed,
    checkpoints: Arc<Checkpoints>,
    observer: Arc<dyn Observer>,
    host: SharedHost,
    /// Used by one job of the worker at a time, which the caller waits for.
    applier: Arc<Mutex<Applier<S>>>,
    worker: Box<dyn Worker>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime, S: Store> Machine<R, S> {
    pub fn new(
        own: Own,
        store: S,
        log: MachineLog,
        checkpoints: Arc<Checkpoints>,
        observer: Arc<dyn Observer>,
        host: SharedHost,
    ) -> Self {
        let MachineLog { log, flushed, committed } = log;
        let applier = Applier::new(own, store.clone(), log.clone(), committed.clone(), observer.clone());
        let worker = host.worker("farshore-apply");
        let applier = Arc::new(Mutex::new(applier));
        Machine { store, log, flushed, committed, checkpoints, observer, host, applier, worker, runtime: PhantomData }
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

    /// Has the worker apply a group, and waits.
    async fn apply_group(&self, group: Vec<EntryResponder<Types<R>>>) -> io::Result<()> {
        let (done, applied) = oneshot::channel();
        let applier = self.applier.clone();
        self.worker.run(Box::new(move || {
            let result = applier.lock().unwrap_or_else(PoisonError::into_inner).take::<R>(group);
            // A node that is being stopped waits no longer.
            let _ = done.send(result);
        }));
        applied.await.map_err(|_| io::Error::other("the thread that applies entries died"))?
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
            let mut group = vec![first?];
            let mut bytes = payload_bytes(&group[0].0);
            while group.len() < GROUP && bytes < GROUP_BYTES && !stands_alone(group.last().map(|(entry, _)| entry)) {
                let Some(Some(next)) = entries.next().now_or_never() else { break };
                let next = next?;
                bytes += payload_bytes(&next.0);
                group.push(next);
            }
            let (last, _) = group.last().expect("a group has at least its first entry");
            let last = stored(last.log_id.index);
            let awaited = group.iter().any(|(_, responder)| responder.is_some());
            // What was applied with an earlier group has gathered already.
            let applied = self.applier.lock().unwrap_or_else(PoisonError::into_inner).is_ahead_of(last);
            if !awaited && !applied && self.committed.get().0 < last.0 + GATHERED {
                R::sleep(GATHER).await;
            }
            self.until_flushed(last).await;
            self.apply_group(group).await?;
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
        self.applier.lock().unwrap_or_else(PoisonError::into_inner).forget();
        self.observer.local_changed();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types<R>, SnapshotBody>>> {
        Ok(self.checkpoints.newest().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
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
