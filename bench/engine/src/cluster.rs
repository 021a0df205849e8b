//! A cluster's state machine as its nodes run it, without the consensus above it: encoded proposals in, one transaction a
//! group, LMDB on disk. The position in the Raft log is written as a node writes it, so that a node can go on from here.

use crate::clock::{Took, time};
use crate::error::{Doing, EngineError};
use crate::skip::SkipUndo;
use farshore_meta::kv::{KvWrite, Lmdb, Store};
use farshore_primary::local::{self, RaftApplied};
use farshore_primary::raft::types::{LeaderId, LogId, Response, StoredMembership};
use farshore_primary::raft::{Member, stored};
use farshore_primary::{MACHINE_VERSION, Own, Proposal, apply};
use farshore_types::{
    Chain, ClusterId, Compression, Control, Epoch, EpochId, GroupId, Incarnation, LogIndex, LogTime, RegionId, RegionRecord,
    SharedBody, SharedEntry, Slot, Uuid, VolumeRecord,
};
use openraft::Membership;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const US: ClusterId = ClusterId(0);
pub const EU: ClusterId = ClusterId(1);
/// The only member of a node's cluster.
pub const NODE: u64 = 1;

/// One cluster's state.
pub struct Cluster {
    pub store: Lmdb,
    own: ClusterId,
    position: RaftApplied,
    epoch: EpochId,
    /// The next entry's time in microseconds.
    clock: u64,
    keep_undo: bool,
    /// The canonical bytes of every entry that it made as primary, if a mirror is to have them.
    pub entries: Option<Vec<Vec<u8>>>,
    /// What apply took so far, the commits of its transactions included.
    pub took: Took,
    /// Trims were timed apart: they happen in the background of a node, and are counted with the before-images.
    pub trimming: Took,
}

impl Cluster {
    /// Continues on a store that is empty. `address` is where a node on this state will listen.
    pub fn new(own: ClusterId, store: Lmdb, keep_undo: bool, address: &str) -> Cluster {
        let members = BTreeMap::from([(NODE, Member::new(crate::node::NAME, address))]);
        let membership = Membership::from(members);
        let first = Some(log_id(0));
        let position = RaftApplied { log_id: first, membership: StoredMembership::new(first, membership) };
        let epoch = EpochId { number: 1, cluster: own };
        let clock = 1_700_000_000_000_000;
        let (took, trimming) = (Took::default(), Took::default());
        Cluster { store, own, position, epoch, clock, keep_undo, entries: None, took, trimming }
    }

    /// Starts the first epoch and formats the volume.
    pub fn format(&mut self) -> Result<(), EngineError> {
        let start = Epoch { id: self.epoch, parent: EpochId::default(), start: LogIndex(0), chain: Chain::default() };
        let slot = Slot::of(self.own, 0).ok_or_else(|| EngineError::new("format", "the cluster has no slot"))?;
        for control in [Control::Start { epoch: start, slot }, Control::Format(volume())] {
            self.control(control)?;
        }
        Ok(())
    }

    pub fn control(&mut self, control: Control) -> Result<(), EngineError> {
        let canonical = self.canonical(SharedBody::Control(control));
        match self.apply(&[Proposal::Shared(canonical).encode()])?.pop() {
            Some(Response::Shared { outcomes, .. }) if outcomes.iter().all(Result::is_ok) => Ok(()),
            other => Err(EngineError::new("apply a control entry", format!("{other:?}"))),
        }
    }

    /// The bytes of the next entry of this cluster as primary.
    pub fn canonical(&mut self, body: SharedBody) -> Vec<u8> {
        self.clock += 1000;
        let bytes = farshore_meta::encode_entry(&SharedEntry { epoch: self.epoch, time: LogTime(self.clock), body });
        if let Some(entries) = &mut self.entries {
            entries.push(bytes.clone());
        }
        bytes
    }

    /// Applies a group of entries of the Raft log in one transaction, as a node does, and times it.
    pub fn apply(&mut self, group: &[Arc<[u8]>]) -> Result<Vec<Response>, EngineError> {
        let (responses, took) = time(|| self.apply_group(group));
        self.took.add(took);
        responses
    }

    /// Forgets before-images and positions below an index.
    pub fn trim(&mut self, below: LogIndex) -> Result<(), EngineError> {
        let (done, took) = time(|| self.apply_group(&[Proposal::Trim { below }.encode()]));
        self.trimming.add(took);
        done.map(drop)
    }

    fn apply_group(&mut self, group: &[Arc<[u8]>]) -> Result<Vec<Response>, EngineError> {
        let kv = self.store.write().doing("begin a transaction")?;
        let mut kv: Box<dyn KvWrite + '_> = if self.keep_undo { kv } else { Box::new(SkipUndo(kv)) };
        let mut responses = Vec::with_capacity(group.len());
        let mut at = self.position.log_id.map_or(0, |id| id.index);
        for proposal in group {
            at += 1;
            responses.push(
                apply(&mut *kv, Own { cluster: self.own, machine: MACHINE_VERSION }, stored(at), proposal, None)
                    .doing("apply")?
                    .response,
            );
        }
        self.position.log_id = Some(log_id(at));
        local::set_applied(&mut *kv, &self.position).doing("write the position")?;
        kv.commit().doing("commit")?;
        Ok(responses)
    }
}

fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: NODE }, index)
}

/// The volume of a primary in region 0 and a mirror in region 1.
pub fn volume() -> VolumeRecord {
    let region = |id: u8, name: &str| RegionRecord {
        id: RegionId(id),
        name: name.to_owned(),
        cluster: Some(ClusterId(id)),
        incarnation: Incarnation(0),
        bucket: Uuid([id + 1; 16]),
    };
    VolumeRecord {
        name: VOLUME.to_owned(),
        uuid: Uuid([9; 16]),
        group: GroupId(5),
        block_size: 4 << 20,
        compression: Compression::None,
        encrypted: false,
        trash_days: 0,
        regions: vec![region(0, "us-east"), region(1, "eu-west")],
    }
}

pub const VOLUME: &str = "engine";
