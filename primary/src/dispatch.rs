//! Leases of copies, deletions and listings to the clients that offered capacity: the leader's memory around the pure
//! plan of `farshore-syncer`. A lost lease costs one duplicate copy, nothing else.

use crate::listing::Listings;
use crate::node::Node;
use crate::proposal::Proposal;
use crate::raft::types::Response;
use crate::telemetry::Component;
use farshore_meta::kv::{KvRead, StorageError, Store};
use farshore_syncer::{Class, Completion, DeletionWindow, Dispatcher, Lease, LocalOp, Reason, TaskKind};
use farshore_types::{BlockKey, ControlTime, Incarnation, LocalTime, RegionId, SessionId, SliceId, TaskId, VolumeRecord};
use farshore_wire::v1::{self, completion::Result as Done, lease::Kind, server_frame::Frame};
use openraft::AsyncRuntime;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

/// How long a worker has for one task.
const LEASE: Duration = Duration::from_secs(30);
/// Longest pause between two looks for work.
const LOOK: Duration = Duration::from_millis(100);

/// What a worker has done, for views.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerTally {
    pub slots: u32,
    pub done: u64,
    pub rejected: u64,
}

pub(crate) struct Inner {
    pub plan: Dispatcher,
    tasks: BTreeMap<TaskId, Lease>,
    workers: BTreeMap<SessionId, WorkerTally>,
    pub listings: Listings,
    pub copied_blocks: u64,
    pub copied_bytes: u64,
    pub fallback_blocks: u64,
}

/// The dispatcher of one node.
pub struct Dispatch(Mutex<Inner>);

impl Dispatch {
    pub fn new() -> Self {
        Dispatch(Mutex::new(Inner::empty()))
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no one panics while holding the dispatcher")
    }

    /// Forgets everything but the offers of those who are connected: this node begins to lead, or ceases to. A client may come
    /// before this node has noticed that it leads, and offers its slots only once.
    pub fn reset(&self) {
        let mut inner = self.inner();
        let offers: Vec<(SessionId, u32)> = inner.workers.iter().map(|(worker, at)| (*worker, at.slots)).collect();
        let (copied_blocks, copied_bytes, fallback_blocks) = (inner.copied_blocks, inner.copied_bytes, inner.fallback_blocks);
        *inner = Inner { copied_blocks, copied_bytes, fallback_blocks, ..Inner::empty() };
        offers.into_iter().for_each(|(worker, slots)| inner.offer(worker, slots));
    }

    /// A client offers so many slots.
    pub fn offer(&self, worker: SessionId, slots: u32) {
        self.inner().offer(worker, slots);
    }

    /// A client is gone.
    pub fn forget(&self, worker: SessionId) {
        let mut inner = self.inner();
        inner.plan.withdraw(worker);
        inner.workers.remove(&worker);
    }

    /// Blocks that a reader had to fetch from afar go first.
    pub fn front(&self, blocks: &[v1::Block]) {
        let mut inner = self.inner();
        inner.fallback_blocks += blocks.len() as u64;
        blocks.iter().for_each(|block| inner.plan.move_to_front(key_of(block)));
    }

    /// Blocks became owed from this index on.
    pub fn owed_again(&self, lowest: farshore_types::LogIndex) {
        self.inner().plan.owed_again(lowest);
    }

    pub fn allow_deletions(&self, window: DeletionWindow) {
        self.inner().plan.allow_deletions(window);
    }

    /// All workers, for views: tally and leases held.
    pub fn workers(&self) -> Vec<(SessionId, WorkerTally, u32)> {
        let inner = self.inner();
        inner.workers.iter().map(|(&worker, &tally)| (worker, tally, inner.plan.held_by(worker))).collect()
    }

    /// Totals since this node started: blocks and bytes copied, blocks read from afar.
    pub fn totals(&self) -> (u64, u64, u64) {
        let inner = self.inner();
        (inner.copied_blocks, inner.copied_bytes, inner.fallback_blocks)
    }
}

impl Inner {
    fn offer(&mut self, worker: SessionId, slots: u32) {
        self.plan.offer(worker, slots);
        self.workers.entry(worker).or_default().slots = slots;
    }

    fn empty() -> Inner {
        Inner {
            plan: Dispatcher::new(LEASE.as_micros() as u64),
            tasks: BTreeMap::new(),
            workers: BTreeMap::new(),
            listings: Listings::default(),
            copied_blocks: 0,
            copied_bytes: 0,
            fallback_blocks: 0,
        }
    }
}

fn key_of(block: &v1::Block) -> BlockKey {
    BlockKey { slice: SliceId(block.slice), index: block.index, size: block.size }
}

/// Hands out leases while this node leads, until it is dropped.
pub async fn run<R: AsyncRuntime, S: Store>(node: Weak<Node<R, S>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        if strong.hub.stop_reason().is_some() {
            return;
        }
        strong.alive(Component::Dispatcher);
        if strong.is_leader()
            && let Err(error) = strong.hand_out()
        {
            crate::raft::Observer::stopped(&*strong.hub, &error.to_string());
            return;
        }
        let hub = strong.hub.clone();
        drop(strong);
        // Woken by new work, or by the clock for what rests and what has run out.
        drop(R::timeout(LOOK, hub.work.notified()).await);
    }
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    fn hand_out(&self) -> Result<(), StorageError> {
        let kv = self.read()?;
        let Some(volume) = farshore_meta::volume(&*kv)? else { return Ok(()) };
        let now = self.host.boot_us();
        let granted = {
            let mut inner = self.dispatch.inner();
            let leases = inner.plan.next_leases(&*kv, now, &mut || TaskId(self.host.random()))?;
            for (_, lease) in &leases {
                inner.tasks.insert(lease.task, lease.clone());
            }
            // Tasks whose lease has ended are answered by nobody any more.
            if inner.tasks.len() > 2 * inner.plan.leases() + 1024 {
                let Inner { plan, tasks, .. } = &mut *inner;
                tasks.retain(|task, _| plan.holder(*task).is_some());
            }
            leases
        };
        let mut by_worker: BTreeMap<SessionId, Vec<v1::Lease>> = BTreeMap::new();
        for (worker, lease) in granted {
            by_worker.entry(worker).or_default().push(message(&*kv, &volume, &lease)?);
        }
        for (worker, leases) in by_worker {
            self.hub.send(worker, Frame::Leases(v1::Leases { leases }));
        }
        Ok(())
    }

    /// What a worker says about its tasks becomes one local entry.
    pub async fn complete(self: &Arc<Self>, worker: SessionId, completions: Vec<v1::Completion>) -> Result<(), StorageError> {
        let now = self.host.boot_us();
        let mut answered = Answered::default();
        {
            let mut inner = self.dispatch.inner();
            for completion in completions {
                let Some(task) = task_id(&completion.task) else { continue };
                let Some(lease) = inner.tasks.remove(&task) else { continue };
                let Some(done) = completion.result else { continue };
                answered.note(&mut inner.plan, &lease, done, now);
            }
            inner.workers.entry(worker).or_default().done += answered.blocks.len() as u64;
        }
        for op in answered.ops() {
            let node = self.clone();
            drop(R::spawn(async move { node.settle(worker, op).await }));
        }
        Ok(())
    }

    async fn settle(self: Arc<Self>, worker: SessionId, op: LocalOp) {
        let blocks = blocks_of(&op);
        let bytes: u64 = blocks.iter().map(|block| u64::from(block.size)).sum();
        let result = self.propose(&Proposal::Local(op)).await;
        let mut inner = self.dispatch.inner();
        blocks.iter().for_each(|block| inner.plan.settled(*block));
        match result {
            Ok(Response::Local(answer)) => {
                inner.copied_blocks += answer.copied;
                inner.copied_bytes += if answer.copied as usize == blocks.len() { bytes } else { 0 };
                if !answer.rejected.is_empty() {
                    tracing::error!(%worker, count = answer.rejected.len(), "a worker's evidence contradicts the metadata");
                    inner.workers.entry(worker).or_default().rejected += answer.rejected.len() as u64;
                }
                if let Some(lowest) = answer.lowest_owed {
                    inner.plan.owed_again(lowest);
                }
            }
            Ok(other) => tracing::debug!(?other, "a completion was not applied"),
            Err(error) => tracing::debug!(%error, "a completion was not applied; its block is leased again"),
        }
        drop(inner);
        self.hub.work.notify_one();
    }
}

fn task_id(bytes: &[u8]) -> Option<TaskId> {
    bytes.try_into().ok().map(TaskId)
}

fn blocks_of(op: &LocalOp) -> Vec<BlockKey> {
    match op {
        LocalOp::Completions(items) => items.iter().map(|item| item.block).collect(),
        LocalOp::Absent { blocks, .. } | LocalOp::Deleted { blocks, .. } => blocks.clone(),
        _ => vec![],
    }
}

/// The answers of one frame, sorted by what they become.
#[derive(Default)]
struct Answered {
    incarnation: Incarnation,
    copied: Vec<Completion>,
    absent: Vec<BlockKey>,
    deleted: Vec<BlockKey>,
    failing: Vec<LocalOp>,
    blocks: Vec<BlockKey>,
}

impl Answered {
    fn note(&mut self, plan: &mut Dispatcher, lease: &Lease, done: Done, now: LocalTime) {
        self.incarnation = lease.bucket.incarnation;
        match (&lease.kind, done) {
            (_, Done::Failed(failure)) => self.failing.extend(plan.failed(lease.task, reason_of(&failure.reason), now)),
            (TaskKind::Copy { block, .. }, Done::Copied(copied)) => {
                plan.done(lease.task);
                self.blocks.push(*block);
                self.copied.push(Completion {
                    task: lease.task,
                    block: *block,
                    length: copied.length,
                    crc32c: copied.crc32c,
                    incarnation: lease.bucket.incarnation,
                });
            }
            // Of a damaged block absence was known; that no source has it is the news.
            (TaskKind::Copy { class: Class::Repair, .. }, Done::Absent(_)) => {
                self.failing.extend(plan.failed(lease.task, Reason::NoSource, now));
            }
            (TaskKind::Copy { block, .. }, Done::Absent(_)) => {
                plan.done(lease.task);
                self.absent.push(*block);
            }
            (TaskKind::Delete { block }, Done::Deleted(_)) => {
                plan.done(lease.task);
                self.deleted.push(*block);
            }
            (kind, done) => tracing::warn!(?kind, ?done, "a worker's answer does not fit its task"),
        }
    }

    fn ops(self) -> Vec<LocalOp> {
        let Answered { incarnation, copied, absent, deleted, failing, .. } = self;
        let mut ops = failing;
        if !copied.is_empty() {
            ops.push(LocalOp::Completions(copied));
        }
        if !absent.is_empty() {
            ops.push(LocalOp::Absent { blocks: absent, incarnation });
        }
        if !deleted.is_empty() {
            ops.push(LocalOp::Deleted { blocks: deleted, incarnation });
        }
        ops
    }
}

/// A worker's reason; one that this node does not know counts as `Other`.
fn reason_of(label: &str) -> Reason {
    Reason::ALL.iter().copied().find(|reason| reason.label() == label).unwrap_or(Reason::Other)
}

/// A lease as the worker sees it: sources are tried in order, the origin first (hazard 8.4).
fn message(kv: &dyn KvRead, volume: &VolumeRecord, lease: &Lease) -> Result<v1::Lease, StorageError> {
    let mut message = v1::Lease {
        task: lease.task.0.to_vec().into(),
        target_region: u32::from(lease.bucket.region.0),
        valid_ms: LEASE.as_millis() as u32,
        ..Default::default()
    };
    let block = match &lease.kind {
        TaskKind::Copy { block, head_first, .. } => {
            message.kind = Kind::Copy.into();
            message.head_first = *head_first;
            message.source_regions = sources(kv, volume, *block, lease.bucket.region)?;
            *block
        }
        TaskKind::Delete { block } => {
            message.kind = Kind::Delete.into();
            *block
        }
        TaskKind::List { after, .. } => {
            message.kind = Kind::List.into();
            message.list_after = after.clone().unwrap_or_default();
            return Ok(message);
        }
    };
    message.block = Some(v1::Block { slice: block.slice.0, index: block.index, size: block.size });
    Ok(message)
}

fn sources(kv: &dyn KvRead, volume: &VolumeRecord, block: BlockKey, target: RegionId) -> Result<Vec<u32>, StorageError> {
    let origin = farshore_meta::slice_record(kv, block.slice)?.and_then(|record| record.origin).map(|bucket| bucket.region);
    let mut regions: Vec<RegionId> = volume.regions.iter().map(|region| region.id).filter(|id| *id != target).collect();
    regions.sort_by_key(|id| Some(*id) != origin);
    Ok(regions.into_iter().map(|id| u32::from(id.0)).collect())
}

/// What may be deleted now (law 14).
pub fn window(kv: &dyn KvRead, lease: Duration) -> Result<DeletionWindow, StorageError> {
    let header = farshore_meta::header(kv)?;
    let roster = roster(kv)?;
    Ok(DeletionWindow {
        gate: farshore_syncer::gate(kv, &header.lineage, &roster)?,
        control: farshore_syncer::control_time(kv)?,
        longest_lease: ControlTime(lease.as_micros() as u64),
    })
}

/// All clusters on the roster. The one that writes is always on it, though no entry adds it: a mirror deletes nothing
/// that the primary has not promised to stay above (law 14).
pub fn roster(kv: &dyn KvRead) -> Result<Vec<farshore_types::ClusterId>, StorageError> {
    let mut roster: Vec<_> = farshore_meta::roster(kv)?.into_iter().map(|member| member.cluster).collect();
    let writes = farshore_meta::header(kv)?.lineage.head().map(|epoch| epoch.id.cluster);
    roster.extend(writes.filter(|cluster| !roster.contains(cluster)));
    Ok(roster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_came_before_its_leader_noticed_that_it_leads_still_works() {
        let dispatch = Dispatch::new();
        let (here, gone) = (SessionId([1; 16]), SessionId([2; 16]));
        dispatch.offer(here, 4);
        dispatch.offer(gone, 4);
        dispatch.forget(gone);
        dispatch.reset();
        let workers: Vec<SessionId> = dispatch.workers().into_iter().map(|(worker, ..)| worker).collect();
        assert_eq!(workers, [here]);
    }
}
