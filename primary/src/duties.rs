//! What a leader does by itself, and what every node does for its own disk. Each duty looks at the state, and proposes
//! an entry only when there is something to do: an idle cluster writes nothing but its clock.

use crate::dispatch;
use crate::ingress::not_leader;
use crate::local;
use crate::node::{Node, ProposeError};
use crate::proposal::Proposal;
use crate::raft::types::Response;
use crate::raft::{Observer, stored};
use crate::telemetry::{self, Component};
use farshore_meta::kv::{StorageError, Store};
use farshore_syncer::{HISTORY_PAGE_MAX, LocalOp};
use farshore_types::{Control, ControlTime, LocalTime, LogIndex, SessionId, SharedBody};
use farshore_wire::v1::{self, server_frame::Frame};
use openraft::AsyncRuntime;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Pause between two rounds of duties.
const ROUND: Duration = Duration::from_millis(100);
/// Control time advances about this often (law 6).
const TICK_US: u64 = 5_000_000;
/// Unlinked inodes freed by one entry.
const PURGE: usize = 256;
/// A new leader waits this long before it frees unlinked inodes: clients bring along what they hold open.
const PURGE_GRACE_US: u64 = 10_000_000;
/// Even without a hint, unlinked inodes are looked for this often.
const PURGE_LOOK_US: u64 = 5_000_000;
/// A checkpoint is also due after so many bytes of log since the last one.
const CHECKPOINT_BYTES: u64 = 256 << 20;
/// Pause between two checkpoints of one node, at least.
const CHECKPOINT_PAUSE_US: u64 = 5_000_000;
/// Pause between two looks at the figures for `/metrics`.
const TELL_US: u64 = 1_000_000;
/// Whoever changes the members finishes it; after so long somebody else does.
const HALF_CHANGED_US: u64 = 2_000_000;
/// Entries trimmed by one entry.
const TRIM: u64 = 4096;

/// What a leader remembers between rounds.
#[derive(Default)]
struct Memory {
    leads_since: Option<LocalTime>,
    ticked_us: LocalTime,
    purged_us: LocalTime,
    checkpoint_us: LocalTime,
    told_us: LocalTime,
    heard: BTreeMap<SessionId, LocalTime>,
    /// Addresses of the members, and the volume's version, as the clients were told.
    told: (Vec<String>, u32),
    half_changed: Option<LocalTime>,
}

/// Why a round ended early.
enum Broken {
    /// The node stops.
    Storage(StorageError),
    /// The leadership is lost or in doubt: the next round sees.
    Lead,
}

impl From<StorageError> for Broken {
    fn from(error: StorageError) -> Self {
        Broken::Storage(error)
    }
}

impl From<ProposeError> for Broken {
    fn from(_: ProposeError) -> Self {
        Broken::Lead
    }
}

/// Starts the duties and the dispatcher.
pub fn spawn<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>) {
    drop(R::spawn(run(Arc::downgrade(node))));
    drop(R::spawn(dispatch::run(Arc::downgrade(node))));
}

async fn run<R: AsyncRuntime, S: Store>(node: Weak<Node<R, S>>) {
    let mut memory = Memory::default();
    loop {
        let Some(node) = node.upgrade() else { return };
        if node.hub.stop_reason().is_some() {
            return;
        }
        if let Err(Broken::Storage(error)) = round(&node, &mut memory).await {
            node.hub.stopped(&error.to_string());
            return;
        }
        drop(node);
        R::sleep(ROUND).await;
    }
}

async fn round<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, memory: &mut Memory) -> Result<(), Broken> {
    node.store.check()?;
    keep_disk(node, memory).await?;
    let now = node.host.boot_us();
    node.alive(Component::Duties);
    if now.saturating_sub(memory.told_us) > TELL_US {
        memory.told_us = now;
        node.tell_metrics();
    }
    node.ask_around(now).await;
    if !node.is_leader() {
        if memory.leads_since.take().is_some() {
            let refusal = not_leader(node.leader_address().await);
            node.hub.refuse_all(&refusal);
            node.dispatch.reset();
        }
        return Ok(());
    }
    if memory.leads_since.is_none() {
        node.dispatch.reset();
        node.confirm_lead().await?;
        telemetry::began_to_lead();
        *memory = Memory { leads_since: Some(now), ticked_us: now, checkpoint_us: memory.checkpoint_us, ..Memory::default() };
    }
    finish_change(node, memory, now).await;
    tell_members(node, memory)?;
    if !has_home(node)? {
        return Ok(());
    }
    tick(node, memory, now).await?;
    owe_history(node).await?;
    commit_floor(node).await?;
    allow_deletions(node)?;
    trim(node).await?;
    if node.hub.take_rewound() {
        // Blocks became owed behind the place that the plan had reached.
        node.dispatch.owed_again(LogIndex(0));
    }
    node.drive_full_sync().await?;
    node.alive(Component::FullSync);
    let header = node.header()?;
    if node.is_primary(&header) {
        raise_version(node, now).await?;
        mark_roster(node).await?;
        expire_sessions(node, memory, now).await?;
        purge_orphans(node, memory, now).await?;
    }
    Ok(())
}

fn has_home<R: AsyncRuntime, S: Store>(node: &Node<R, S>) -> Result<bool, StorageError> {
    Ok(farshore_syncer::home(&*node.read()?)?.is_some())
}

/// A change of the voters whose caller is gone is finished by whoever leads.
async fn finish_change<R: AsyncRuntime, S: Store>(node: &Node<R, S>, memory: &mut Memory, now: LocalTime) {
    if !node.is_half_changed() {
        memory.half_changed = None;
        return;
    }
    let since = *memory.half_changed.get_or_insert(now);
    if now.saturating_sub(since) > HALF_CHANGED_US
        && let Err(error) = node.settle_membership().await
    {
        tracing::debug!(%error, "a change of the members is not finished yet");
    }
}

/// Clients that stay connected hear of new nodes, so that they find the cluster after all others were replaced, and of a new
/// version, so that they use what came with it.
fn tell_members<R: AsyncRuntime, S: Store>(node: &Node<R, S>, memory: &mut Memory) -> Result<(), Broken> {
    let now = (node.member_addresses(), node.header()?.version);
    if now == memory.told {
        return Ok(());
    }
    let (addresses, machine) = &now;
    let mut sessions = vec![];
    node.hub.each(|session, _| sessions.push(session));
    for session in sessions {
        node.hub.send(session, Frame::Nodes(v1::Nodes { addresses: addresses.clone(), machine: *machine }));
    }
    memory.told = now;
    Ok(())
}

/// Law 4: the version is raised once every node of every cluster on the roster has announced it.
async fn raise_version<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, now: LocalTime) -> Result<(), Broken> {
    let Some(mut known) = node.machine_of_all(now) else { return Ok(()) };
    let (version, roster) = {
        let kv = node.read()?;
        (farshore_meta::header(&*kv)?.version, dispatch::roster(&*kv)?)
    };
    if known <= version {
        return Ok(());
    }
    for mirror in roster.into_iter().filter(|cluster| *cluster != node.config.cluster) {
        let seen = node.observations.mirrors().get(&mirror).map_or(0, |seen| seen.machine);
        known = known.min(seen);
    }
    if known > version {
        tracing::info!(version = known, "every node knows this version of the state machine: the volume is raised to it");
        node.propose_shared(SharedBody::Control(Control::Version(known))).await?;
    }
    Ok(())
}

/// Law 6: no longer than this leader measured on its own clock.
async fn tick<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, memory: &mut Memory, now: LocalTime) -> Result<(), Broken> {
    let passed = now.saturating_sub(memory.ticked_us);
    if passed < TICK_US {
        return Ok(());
    }
    memory.ticked_us = now;
    let delta = ControlTime(passed);
    node.propose(&Proposal::Local(LocalOp::Tick { delta })).await?;
    Ok(())
}

/// History is owed by entries with a cursor in state (hazard 1.5).
async fn owe_history<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>) -> Result<(), Broken> {
    let history = farshore_syncer::history(&*node.read()?)?;
    if !history.pending {
        return Ok(());
    }
    let op = LocalOp::OweHistory { cursor: history.cursor, limit: HISTORY_PAGE_MAX };
    if let Response::Local(answer) = node.propose(&Proposal::Local(op)).await?
        && let Some(lowest) = answer.lowest_owed
    {
        node.dispatch.owed_again(lowest);
    }
    Ok(())
}

/// Law 14: the floor is committed before anybody hears of it.
async fn commit_floor<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>) -> Result<(), Broken> {
    let floor = {
        let kv = node.read()?;
        let header = farshore_meta::header(&*kv)?;
        if local::diverged(&*kv)?.is_some() {
            return Ok(());
        }
        let synced = farshore_syncer::data_synced(&*kv, header.index, &header.lineage)?;
        let floor = farshore_syncer::floor(&*kv, &header.lineage)?;
        synced.filter(|synced| *synced > floor)
    };
    if let Some(floor) = floor {
        node.propose(&Proposal::Local(LocalOp::CommitFloor { floor })).await?;
    }
    Ok(())
}

fn allow_deletions<R: AsyncRuntime, S: Store>(node: &Node<R, S>) -> Result<(), StorageError> {
    let window = dispatch::window(&*node.read()?, node.config.session_lease)?;
    node.dispatch.allow_deletions(window);
    Ok(())
}

/// Before-images and log positions go below the lowest floor of the roster (law 20).
async fn trim<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>) -> Result<(), Broken> {
    let below = {
        let kv = node.read()?;
        let header = farshore_meta::header(&*kv)?;
        let lowest = farshore_syncer::lowest_floor(&*kv, &header.lineage, &dispatch::roster(&*kv)?)?;
        let first = local::first_position(&*kv)?.unwrap_or(LogIndex(0));
        LogIndex(lowest.0.min(first.0 + TRIM)).max(first)
    };
    // One entry for many: a trim that frees little waits.
    let first = local::first_position(&*node.read()?)?.unwrap_or(below);
    if below.0 >= first.0 + TRIM {
        node.propose(&Proposal::Trim { below }).await?;
    }
    Ok(())
}

/// Says by an entry which mirrors must take a snapshot: those whose log is gone in every node here (law 25).
async fn mark_roster<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>) -> Result<(), Broken> {
    let mut candidates = vec![];
    let purged = node.raft_metrics().purged.map(|id| stored(id.index));
    {
        let kv = node.read()?;
        let header = farshore_meta::header(&*kv)?;
        for member in farshore_meta::roster(&*kv)?.into_iter().filter(|member| member.cluster != node.config.cluster) {
            let floor = farshore_syncer::known_floor(&*kv, member.cluster, &header.lineage)?;
            let seen = node.observations.mirrors().get(&member.cluster).map_or(LogIndex(0), |seen| seen.applied);
            let has = floor.max(seen);
            let next = if has < header.index { Some(local::position(&*kv, has.next())?.map(|next| next.raft)) } else { None };
            candidates.push((member, next));
        }
    }
    for (member, next) in candidates {
        let needs = match next {
            None => false,
            Some(None) => true,
            Some(Some(at)) if purged.is_none_or(|purged| at > purged) => false,
            // A leader that began with a snapshot holds less than the others.
            Some(Some(at)) => !node.is_held_by_peers(at).await,
        };
        if needs != member.needs_snapshot {
            let mark = Control::RosterNeedsSnapshot { cluster: member.cluster, needs };
            node.propose_shared(SharedBody::Control(mark)).await?;
        }
    }
    Ok(())
}

/// Law 11: a session ends only by an entry, after a full lease on this leader's own clock.
async fn expire_sessions<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    memory: &mut Memory,
    now: LocalTime,
) -> Result<(), Broken> {
    let lease = node.config.session_lease.as_micros() as u64;
    let since = memory.leads_since.unwrap_or(now);
    let sessions: Vec<SessionId> = farshore_meta::sessions(&*node.read()?)?.into_iter().map(|session| session.id).collect();
    memory.heard.retain(|session, _| sessions.contains(session));
    for session in sessions {
        if let Some(heard) = node.hub.last_heard(session) {
            memory.heard.insert(session, heard);
        }
        let heard = memory.heard.get(&session).copied().unwrap_or(since).max(since);
        if now.saturating_sub(heard) > lease {
            tracing::info!(%session, "the session was silent for a full lease and ends");
            node.propose_shared(SharedBody::Control(Control::Expire { session })).await?;
        }
    }
    Ok(())
}

/// Frees unlinked inodes that nobody holds open. Who might hold them must have had the time to say so.
async fn purge_orphans<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    memory: &mut Memory,
    now: LocalTime,
) -> Result<(), Broken> {
    let hint = node.hub.take_orphan_hint();
    let due = now.saturating_sub(memory.purged_us) > PURGE_LOOK_US;
    let settled = now.saturating_sub(memory.leads_since.unwrap_or(now)) > PURGE_GRACE_US;
    if !settled || !(hint || due) {
        return Ok(());
    }
    memory.purged_us = now;
    let (orphans, absent) = {
        let kv = node.read()?;
        let absent = farshore_meta::sessions(&*kv)?.iter().any(|session| node.hub.last_heard(session.id).is_none());
        (farshore_meta::orphans(&*kv, PURGE)?, absent)
    };
    if absent {
        // A session that exists but is not connected may hold any of them open; it comes back or expires.
        return Ok(());
    }
    let inos = node.hub.not_open(orphans);
    if !inos.is_empty() {
        node.propose_shared(SharedBody::Control(Control::Purge { inos })).await?;
    }
    Ok(())
}

/// Every node, leader or not: checkpoints of its state, and a log no longer than it must be (law 25).
async fn keep_disk<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, memory: &mut Memory) -> Result<(), Broken> {
    let now = node.host.boot_us();
    let metrics = node.raft_metrics();
    let Some(applied) = metrics.last_applied.map(|id| id.index) else { return Ok(()) };
    let newest = node.checkpoints.newest().and_then(|(meta, _)| meta.last_log_id).map_or(0, |id| id.index);
    let bytes = node.log.retained_bytes();
    let due = applied.saturating_sub(newest) >= node.config.checkpoint_entries
        || node.log.bytes_above(stored(newest)) >= CHECKPOINT_BYTES
        || (node.checkpoints.lost_one() && applied > newest);
    if due && now.saturating_sub(memory.checkpoint_us) >= CHECKPOINT_PAUSE_US {
        memory.checkpoint_us = now;
        node.checkpoint().await?;
    }
    let Some(purgeable) = node.checkpoints.purgeable() else { return Ok(()) };
    let needed = if bytes > node.config.log_retention { None } else { needed_by_mirrors(node)? };
    let upto = needed.map_or(purgeable, |needed| purgeable.min(needed));
    if metrics.purged.map_or(0, |id| id.index) + node.config.checkpoint_entries / 2 < upto {
        node.purge_log(upto).await?;
    }
    Ok(())
}

/// The last index of openraft's that no mirror on the roster needs any more; `None` when there is no mirror.
fn needed_by_mirrors<R: AsyncRuntime, S: Store>(node: &Node<R, S>) -> Result<Option<u64>, StorageError> {
    let kv = node.read()?;
    let header = farshore_meta::header(&*kv)?;
    let others: Vec<_> = dispatch::roster(&*kv)?.into_iter().filter(|cluster| *cluster != node.config.cluster).collect();
    let mut lowest: Option<LogIndex> = None;
    for cluster in others {
        let floor = farshore_syncer::known_floor(&*kv, cluster, &header.lineage)?;
        lowest = Some(lowest.map_or(floor, |lowest| lowest.min(floor)));
    }
    let Some(lowest) = lowest.filter(|lowest| *lowest < header.index) else { return Ok(None) };
    let needed = local::position(&*kv, lowest.next())?.map(|position| position.raft);
    Ok(Some(needed.map_or(0, |needed| needed.0.saturating_sub(stored(0).0 + 1))))
}
