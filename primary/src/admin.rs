//! What operators' tools ask a node, and the answers. Every call can be repeated.

use crate::dispatch;
use crate::local;
use crate::members::MemberError;
use crate::node::{Node, ProposeError};
use crate::proposal::Proposal;
use crate::raft::types::Response;
use farshore_meta::kv::{KvRead, StorageError, Store};
use farshore_syncer::LocalOp;
use farshore_types::{
    BucketIdentity, ClusterId, Control, ControlTime, Epoch, EpochId, LogIndex, NodeId, Query, QueryReply, SharedBody,
    SharedEntry, SliceId, Slot, VolumeRecord,
};
use farshore_wire::admin::{AdminAnswer, AdminCall, ClusterStatus, Health, MemberView};
use farshore_wire::v1::hello::Kind;
use farshore_wire::view::{NodeView, OwedBlock, ReplicationView, SessionView, VolumeView, WorkerView};
use openraft::AsyncRuntime;
use std::sync::Arc;

/// Longest pause that can be asked for, in seconds: a pause always ends by itself.
const PAUSE_MAX_SECONDS: u64 = 7 * 86_400;
/// Pause when none was said.
const PAUSE_SECONDS: u64 = 3600;
/// Most owed blocks in one answer.
const OWED_MAX: usize = 10_000;

/// A call that was not carried out.
enum Failure {
    NotLeader(Option<String>),
    NotYet(String),
    Message(String),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Failure::Message(error.to_string())
    }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Failure::NotLeader(leader),
            ProposeError::Unknown(why) => Failure::Message(format!("the outcome is unknown, the call can be repeated: {why}")),
        }
    }
}

impl From<MemberError> for Failure {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::NotLeader { leader } => Failure::NotLeader(leader),
            error @ (MemberError::Behind { .. } | MemberError::NotSeen { .. } | MemberError::Unsettled(_)) => {
                Failure::NotYet(error.to_string())
            }
            error => Failure::Message(error.to_string()),
        }
    }
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// Answers one call.
    pub async fn admin(self: &Arc<Self>, call: AdminCall) -> AdminAnswer {
        match self.carry_out(call).await {
            Ok(answer) => answer,
            Err(Failure::NotLeader(leader)) => AdminAnswer::NotLeader { leader },
            Err(Failure::NotYet(message)) => AdminAnswer::NotYet { message },
            Err(Failure::Message(message)) => AdminAnswer::Failed { message },
        }
    }

    async fn carry_out(self: &Arc<Self>, call: AdminCall) -> Result<AdminAnswer, Failure> {
        match call {
            AdminCall::Health => Ok(AdminAnswer::Health(self.health().await?)),
            AdminCall::Initialize { members } => {
                self.initialize(&members).await.map_err(Failure::Message)?;
                Ok(AdminAnswer::Done)
            }
            call => self.lead(call).await,
        }
    }

    /// Calls that the leader alone carries out.
    async fn lead(self: &Arc<Self>, call: AdminCall) -> Result<AdminAnswer, Failure> {
        self.confirm_lead().await?;
        match call {
            AdminCall::Health | AdminCall::Initialize { .. } => Ok(AdminAnswer::Done),
            AdminCall::Members => Ok(AdminAnswer::Members(self.members_view()?)),
            AdminCall::MemberAdd { member, instead_of } => {
                self.add_member(&member, instead_of).await?;
                Ok(AdminAnswer::Done)
            }
            AdminCall::MemberChange { add, remove } => {
                self.change_members(add, remove).await?;
                Ok(AdminAnswer::Done)
            }
            AdminCall::Format { volume } => self.format(volume).await,
            AdminCall::Follow { volume } => self.follow(volume).await,
            AdminCall::RosterAdd { cluster } => self.roster_add(ClusterId(cluster)).await,
            AdminCall::Status => Ok(AdminAnswer::Status(self.status().await?)),
            AdminCall::Lag => Ok(AdminAnswer::Lag(self.lag().await?)),
            AdminCall::ReplicationStatus { limit } => Ok(AdminAnswer::Replication(self.replication(limit as usize)?)),
            AdminCall::ReplicationPause { seconds, reason, by } => self.pause(seconds, reason, by).await,
            AdminCall::ReplicationResume => self.local(LocalOp::Resume).await,
            AdminCall::FullSyncStart { dry_run } => self.start_full_sync(dry_run).await.map_err(Failure::Message),
            AdminCall::FullSyncStatus => Ok(AdminAnswer::FullSync(self.full_sync_view()?)),
            AdminCall::Locate { slice } => Ok(AdminAnswer::Path { path: self.path_of(SliceId(slice))? }),
            AdminCall::StepDown => {
                self.hand_over().await.map_err(Failure::Message)?;
                Ok(AdminAnswer::Done)
            }
            AdminCall::Identity { region } => self.identity(&region),
            AdminCall::Rewind { to } => self.rewind(LogIndex(to)).await,
        }
    }

    /// Law 20. A primary's history is what others follow: it goes back only as a part of a failback.
    async fn rewind(self: &Arc<Self>, to: LogIndex) -> Result<AdminAnswer, Failure> {
        let (header, lowest, home) = {
            let kv = self.read()?;
            (farshore_meta::header(&*kv)?, farshore_meta::lowest_reachable(&*kv)?, local::home_volume(&*kv)?.is_some())
        };
        if !home || self.is_primary(&header) {
            return Err(Failure::Message("only a mirror goes back and follows again; this cluster writes the volume".to_owned()));
        }
        if !(lowest..=header.index).contains(&to) {
            return Err(Failure::Message(format!("it can go back to an index from {lowest} to {}, not to {to}", header.index)));
        }
        accepted(self.propose(&Proposal::Rewind { to, lineage: header.lineage }).await?)
    }

    async fn local(self: &Arc<Self>, op: LocalOp) -> Result<AdminAnswer, Failure> {
        self.propose(&Proposal::Local(op)).await?;
        Ok(AdminAnswer::Done)
    }

    async fn health(&self) -> Result<Health, Failure> {
        let leader = self.leader().await;
        let kv = self.read()?;
        let header = farshore_meta::header(&*kv)?;
        let formatted = farshore_meta::volume(&*kv)?.is_some();
        let home = local::home_volume(&*kv)?.is_some();
        let digest = farshore_meta::digest(&*kv)?;
        drop(kv);
        Ok(Health {
            name: self.config.name.clone(),
            region: self.config.region.clone(),
            cluster: self.config.cluster.0,
            node: self.config.id.0,
            pid: std::process::id(),
            initialized: self.is_initialized().await,
            formatted,
            leader: leader.map(|id| id.0),
            leader_address: self.leader_address().await,
            is_leader: self.is_leader(),
            ready: leader.is_some() && (formatted || home),
            volume: (formatted || home).then(|| self.config.volume.clone()),
            applied: header.index.0,
            epoch: header.lineage.head_id().number,
            mirror: home && !self.is_primary(&header),
            trouble: self.trouble(),
            digest: Some(digest.to_string()),
            members: self.members(),
            machine: self.config.machine,
        })
    }

    /// The first entries of a volume: the start of epoch 1, then its record.
    async fn format(self: &Arc<Self>, volume: VolumeRecord) -> Result<AdminAnswer, Failure> {
        check_volume(&volume, &self.config.volume, self.config.cluster)?;
        let header = self.header()?;
        if let Some(existing) = farshore_meta::volume(&*self.read()?)? {
            return same_volume(&existing, &volume);
        }
        if header.index == LogIndex(0) {
            self.start_epoch().await?;
        }
        let formatted = self.propose_shared(SharedBody::Control(Control::Format(volume))).await?;
        accepted(formatted)
    }

    /// Starts an epoch of this cluster on top of its present history (laws 7, 8, 19).
    pub async fn start_epoch(self: &Arc<Self>) -> Result<Response, ProposeError> {
        let unknown = |error: StorageError| ProposeError::Unknown(error.to_string());
        let (header, counters) = {
            let kv = self.read().map_err(unknown)?;
            (farshore_meta::header(&*kv).map_err(unknown)?, local::counters(&*kv).map_err(unknown)?)
        };
        let number = counters.heard.max(header.lineage.head_id().number) + 1;
        let id = EpochId { number, cluster: self.config.cluster };
        let epoch = Epoch { id, parent: header.lineage.head_id(), start: header.index, chain: header.chain };
        let slot = Slot::of(self.config.cluster, counters.starts)
            .ok_or_else(|| ProposeError::Unknown("this cluster has used up its stripe of id slots".to_owned()))?;
        let stamped = self.entry(&header, SharedBody::Control(Control::Start { epoch, slot }));
        let entry = SharedEntry { epoch: id, ..stamped };
        self.propose(&Proposal::Shared(farshore_meta::encode_entry(&entry))).await
    }

    async fn follow(self: &Arc<Self>, volume: VolumeRecord) -> Result<AdminAnswer, Failure> {
        check_volume(&volume, &self.config.volume, self.config.cluster)?;
        if let Some(existing) = local::home_volume(&*self.read()?)? {
            return same_volume(&existing, &volume);
        }
        accepted(self.propose(&Proposal::Home { volume }).await?)
    }

    async fn roster_add(self: &Arc<Self>, cluster: ClusterId) -> Result<AdminAnswer, Failure> {
        if dispatch::roster(&*self.read()?)?.contains(&cluster) {
            return Ok(AdminAnswer::Done);
        }
        accepted(self.propose_shared(SharedBody::Control(Control::RosterAdd { cluster })).await?)
    }

    async fn pause(self: &Arc<Self>, seconds: Option<u64>, reason: String, by: String) -> Result<AdminAnswer, Failure> {
        let seconds = seconds.unwrap_or(PAUSE_SECONDS);
        if seconds == 0 || seconds > PAUSE_MAX_SECONDS {
            return Err(Failure::Message(format!("a pause lasts 1 to {PAUSE_MAX_SECONDS} seconds, not {seconds}")));
        }
        let now = farshore_syncer::control_time(&*self.read()?)?;
        let until = ControlTime(now.0 + seconds * 1_000_000);
        self.local(LocalOp::Pause { until, reason, by }).await
    }

    async fn status(&self) -> Result<ClusterStatus, Failure> {
        let leader = self.leader().await;
        let kv = self.read()?;
        let header = farshore_meta::header(&*kv)?;
        let primary = self.is_primary(&header);
        let mut status = ClusterStatus { figures: Some(self.figures()?), ..ClusterStatus::default() };
        for MemberView { id, name, address, voter, .. } in self.members() {
            let role = match (primary, leader == Some(NodeId(id))) {
                _ if !voter => "learner",
                (true, true) => "leader",
                (true, false) => "follower",
                (false, true) => "mirror-leader",
                (false, false) => "mirror-follower",
            };
            let applied = (id == self.config.id.0).then_some(header.index.0);
            status.nodes.push(NodeView {
                name,
                region: self.config.region.clone(),
                role: role.to_owned(),
                pid: None,
                address,
                applied,
                trouble: self.trouble().filter(|_| id == self.config.id.0),
                digest: None,
                machine: None,
            });
        }
        status.volume = self.volume_view(&*kv)?;
        self.hub.each(|id, client| {
            let kind = match client.kind {
                Kind::Writer => "writer",
                Kind::Reader => "reader",
                Kind::Worker => "worker",
            };
            status.sessions.push(SessionView {
                id: id.to_string(),
                host: client.info.host.clone(),
                mount: client.info.mount.clone(),
                region: client.region.clone(),
                options: client.info.options.clone(),
                kind: kind.to_owned(),
            });
        });
        Ok(status)
    }

    fn volume_view(&self, kv: &dyn KvRead) -> Result<Option<VolumeView>, Failure> {
        let Some(volume) = farshore_meta::volume(kv)? else { return Ok(None) };
        let header = farshore_meta::header(kv)?;
        let name = |cluster: ClusterId| self.config.regions.get(&cluster).cloned().unwrap_or_default();
        let (used_bytes, used_inodes) = match farshore_meta::query(kv, &Query::StatFs)? {
            Ok(QueryReply::StatFs { used_bytes, used_inodes, .. }) => (used_bytes, used_inodes),
            _ => (0, 0),
        };
        let head = header.lineage.head_id();
        let mirrors = dispatch::roster(kv)?.into_iter().filter(|cluster| *cluster != head.cluster).map(name).collect();
        Ok(Some(VolumeView {
            name: volume.name.clone(),
            uuid: volume.uuid.to_string(),
            epoch: head.number,
            primary: name(head.cluster),
            mirrors,
            replication: serde_json::json!({ "paused": farshore_syncer::pause(kv)?.is_some() }),
            block_size: volume.block_size,
            log_index: header.index.0,
            digest: format!("{:032x}", farshore_meta::digest(kv)?.0),
            used_bytes,
            used_inodes,
            machine: header.version,
        }))
    }

    fn replication(&self, limit: usize) -> Result<ReplicationView, Failure> {
        let kv = self.read()?;
        let figures = self.figures()?;
        let limit = limit.min(OWED_MAX);
        let mut owed = vec![];
        let rows = farshore_syncer::owed_from(&*kv, (LogIndex(0), None), limit + 1)?;
        let more = rows.len() > limit;
        for (added, block, row) in rows.into_iter().take(limit) {
            owed.push(OwedBlock {
                block: block.object_name(),
                path: path_of(&*kv, block.slice)?,
                added: added.0,
                bytes: u64::from(block.size),
                class: format!("{:?}", row.class).to_lowercase(),
                reason: row.reason.map(|reason| reason.label().to_owned()),
                tries: row.tries,
            });
        }
        for (block, _) in farshore_syncer::damage_after(&*kv, None, limit.saturating_sub(owed.len()))? {
            owed.push(OwedBlock {
                block: block.object_name(),
                path: path_of(&*kv, block.slice)?,
                added: 0,
                bytes: u64::from(block.size),
                class: "repair".to_owned(),
                reason: Some("damaged".to_owned()),
                tries: 0,
            });
        }
        let mut hosts = std::collections::BTreeMap::new();
        self.hub.each(|id, client| drop(hosts.insert(id, client.info.host.clone())));
        let workers = self.dispatch.workers().into_iter().map(|(id, tally, leases)| WorkerView {
            id: id.to_string(),
            host: hosts.get(&id).cloned().unwrap_or_default(),
            slots: tally.slots,
            leases,
            done: tally.done,
            rejected: tally.rejected,
        });
        let state = match (figures.paused, figures.history_pending) {
            (true, _) => "paused",
            (_, true) => "history",
            _ => "running",
        };
        Ok(ReplicationView {
            region: self.config.region.clone(),
            state: state.to_owned(),
            owed,
            more,
            workers: workers.collect(),
            full_sync: self.full_sync_view()?,
            figures,
        })
    }

    fn path_of(&self, slice: SliceId) -> Result<Option<String>, Failure> {
        Ok(path_of(&*self.read()?, slice)?)
    }

    fn identity(&self, region: &str) -> Result<AdminAnswer, Failure> {
        let kv = self.read()?;
        let volume = match farshore_meta::volume(&*kv)? {
            Some(volume) => Some(volume),
            None => local::home_volume(&*kv)?,
        };
        let volume = volume.ok_or_else(|| Failure::Message("the volume is not formatted yet".to_owned()))?;
        let found = volume
            .region(region)
            .ok_or_else(|| Failure::Message(format!("the volume has no region `{region}`; its regions are fixed at format")))?;
        let identity = BucketIdentity {
            volume: volume.uuid,
            region: found.name.clone(),
            incarnation: found.incarnation.0,
            bucket: found.bucket,
        };
        Ok(AdminAnswer::Identity { identity })
    }
}

/// One path of the file that names a slice.
pub fn path_of(kv: &dyn KvRead, slice: SliceId) -> Result<Option<String>, StorageError> {
    let Some(record) = farshore_meta::slice_record(kv, slice)? else { return Ok(None) };
    match farshore_meta::query(kv, &Query::PathOf { ino: record.ino })? {
        Ok(QueryReply::Path(path)) => Ok(path),
        _ => Ok(None),
    }
}

fn accepted(response: Response) -> Result<AdminAnswer, Failure> {
    match response {
        Response::Shared { outcomes, .. } => match outcomes.first() {
            Some(Err(error)) => Err(Failure::Message(error.to_string())),
            _ => Ok(AdminAnswer::Done),
        },
        Response::Local(_) => Ok(AdminAnswer::Done),
        other => Err(Failure::Message(format!("the entry was not taken: {other:?}"))),
    }
}

fn same_volume(existing: &VolumeRecord, asked: &VolumeRecord) -> Result<AdminAnswer, Failure> {
    if existing.uuid == asked.uuid {
        return Ok(AdminAnswer::Done);
    }
    let message = format!(
        "volume `{}` exists already with uuid {}, not {}: this directory holds another world's volume",
        existing.name, existing.uuid, asked.uuid
    );
    Err(Failure::Message(message))
}

/// What this version cannot honour is refused, never ignored.
fn check_volume(volume: &VolumeRecord, name: &str, cluster: ClusterId) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::Message(message));
    if volume.name != name {
        return refuse(format!("this node serves volume `{name}`, not `{}`", volume.name));
    }
    if volume.region_of(cluster).is_none() {
        return refuse(format!("volume `{name}` has no region whose cluster is {cluster}"));
    }
    if volume.compression != farshore_types::Compression::None {
        return refuse("compression: not available yet; use `none`".to_owned());
    }
    if volume.encrypted {
        return refuse("encryption: not available yet; leave it out".to_owned());
    }
    if volume.trash_days != 0 {
        return refuse("trash_days: not available yet; use 0".to_owned());
    }
    let sizes = farshore_types::MIN_BLOCK_SIZE..=farshore_types::MAX_BLOCK_SIZE;
    if !volume.block_size.is_power_of_two() || !sizes.contains(&volume.block_size) {
        return refuse(format!("block_size: a power of two from 64 KiB to 16 MiB, not {}", volume.block_size));
    }
    Ok(())
}
