//! The judge of a world: reads every node's disk, extends the reference by what the primary has applied, and asks the
//! invariants. It changes nothing.

use crate::board::Answered;
use crate::bucket::Buckets;
use crate::disk::SimDisk;
use crate::invariants;
use crate::model::Model;
use crate::nodes::{EU, US};
use crate::sight::{NodeSight, Sight};
use crate::store::SimStore;
use crate::trace::Trace;
use farshore_meta::kv::Store;
use farshore_primary::Proposal;
use farshore_primary::local;
use farshore_primary::raft::log::RaftLog;
use farshore_primary::raft::snapshot::Checkpoints;
use farshore_primary::raft::stored;
use farshore_primary::raft::types::{Entry, EntryPayload};
use farshore_types::{BlockKey, ClusterId, LogIndex, RaftIndex};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Answers that wait until their entries are seen in the history (law 27).
const ANSWERS: usize = 4096;

/// One node's durable things, and how far they were looked at.
pub struct Stage {
    pub name: String,
    pub cluster: ClusterId,
    pub running: bool,
    pub store: SimStore,
    pub disk: SimDisk,
    pub checkpoints: Arc<Checkpoints>,
    pub looked: LogIndex,
}

/// The judge.
pub struct Judge {
    primary: ClusterId,
    buckets: Arc<Buckets>,
    trace: Arc<Trace>,
    stages: Mutex<Vec<Stage>>,
    model: Mutex<Model>,
    answers: Mutex<VecDeque<Answered>>,
    promised: Mutex<BTreeMap<ClusterId, LogIndex>>,
    blind: bool,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

type Read<T> = Result<T, String>;

fn told<T, E: std::fmt::Display>(result: Result<T, E>) -> Read<T> {
    result.map_err(|error| format!("a node's state cannot be read: {error}"))
}

impl Judge {
    /// A `blind` one sees nothing: whether clients alone would notice what is wrong.
    pub fn new(primary: ClusterId, buckets: Arc<Buckets>, trace: Arc<Trace>, stages: Vec<Stage>, blind: bool) -> Arc<Self> {
        let (model, answers, promised) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Judge { primary, buckets, trace, stages: Mutex::new(stages), model, answers, promised, blind })
    }

    pub fn stages(&self) -> MutexGuard<'_, Vec<Stage>> {
        lock(&self.stages)
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    /// Whether any node of a region's cluster owes a block.
    pub fn is_owed(&self, region: ClusterId, block: BlockKey) -> bool {
        self.stages().iter().filter(|stage| stage.cluster == region).any(|stage| {
            let owed = stage.store.read().and_then(|kv| farshore_syncer::owed(&*kv, block));
            owed.map_or(true, |owed| owed.is_some())
        })
    }

    /// The checksum that metadata has for a block.
    pub fn checksum(&self, block: BlockKey) -> Option<u32> {
        self.model().blocks.get(&block).map(|interval| interval.crc32c)
    }

    /// Looks at everything, and says what it sees in the trace. What is wrong goes there as well.
    pub fn look(&self, answers: Vec<Answered>) {
        if self.blind {
            return;
        }
        lock(&self.answers).extend(answers);
        if let Err(what) = self.observe() {
            self.trace.broken(what);
        }
    }

    fn observe(&self) -> Read<()> {
        self.extend_history()?;
        let answers: Vec<Answered> = lock(&self.answers).drain(..).take(ANSWERS).collect();
        self.with_sight(answers, |sight| {
            for node in &sight.nodes {
                let synced = node.data_synced.map_or("null".to_owned(), |at| at.to_string());
                let (name, index, floor, applied) = (&node.name, node.index, node.floor, node.applied);
                let digest = node.digest.0 as u64;
                self.trace.say(format!("{name} index {index} digest {digest:016x} synced {synced} floor {floor} raft {applied}"));
                if node.skipped {
                    self.trace.say(format!("{name} has taken a snapshot"));
                }
            }
            invariants::check(sight)
        })?
    }

    /// Why the world is not settled, if it is not.
    pub fn unsettled(&self) -> Option<String> {
        if self.blind {
            return None;
        }
        let settled = self.extend_history().and_then(|()| self.with_sight(vec![], invariants::settled::check)?);
        settled.err()
    }

    /// Calls `look` with the world as it is.
    pub fn with_sight<T>(&self, answers: Vec<Answered>, look: impl FnOnce(&Sight<'_>) -> T) -> Read<T> {
        let nodes = self.stages().iter_mut().map(sight_of).collect::<Read<Vec<_>>>()?;
        let model = self.model();
        let buckets = self.buckets.lock();
        let mut promised = lock(&self.promised);
        for node in &nodes {
            let highest = promised.entry(node.cluster).or_default();
            *highest = node.floor.max(*highest);
        }
        let promised = promised.clone();
        Ok(look(&Sight { primary: self.primary, nodes, model: &model, buckets: &buckets, answers, promised }))
    }

    /// Before a block is deleted: may it be?
    pub fn deletes(&self, region: ClusterId, block: BlockKey) {
        if self.blind {
            return;
        }
        let checked = self.extend_history().and_then(|()| {
            let floors = [(US, self.floor(US)?), (EU, self.floor(EU)?)];
            invariants::deletion::check(&self.model(), block, &floors)
        });
        if let Err(what) = checked {
            self.trace.broken(format!("deletion in region {region}: {what}"));
        }
    }

    /// The highest floor that any node of a cluster has committed.
    pub fn floor(&self, cluster: ClusterId) -> Read<LogIndex> {
        let mut highest = LogIndex(0);
        for stage in self.stages().iter().filter(|stage| stage.cluster == cluster) {
            let kv = told(stage.store.read())?;
            if told(farshore_syncer::home(&*kv))?.is_some() {
                let lineage = told(farshore_meta::header(&*kv))?.lineage;
                highest = highest.max(told(farshore_syncer::floor(&*kv, &lineage))?);
            }
        }
        Ok(highest)
    }

    /// The reference takes every entry that any node of the primary has applied.
    fn extend_history(&self) -> Read<()> {
        let stages = self.stages();
        let mut model = self.model();
        loop {
            let next = model.last().next();
            let (mut needed, mut found) = (false, None);
            for stage in stages.iter().filter(|stage| stage.cluster == self.primary) {
                let kv = told(stage.store.read())?;
                if told(farshore_meta::header(&*kv))?.index < next {
                    continue;
                }
                needed = true;
                let position = told(local::position(&*kv, next))?;
                found = position.map(|at| canonical_at(&stage.disk, at.raft)).transpose()?.flatten();
                if found.is_some() {
                    break;
                }
            }
            match found {
                Some(canonical) => model.take(canonical)?,
                None if needed => return Err(format!("chained: no node of the primary holds entry {next} any more")),
                None => return Ok(()),
            }
        }
    }
}

/// The shared entry in a node's log; `None`: the log does not hold it any more.
fn canonical_at(disk: &SimDisk, at: RaftIndex) -> Read<Option<Vec<u8>>> {
    let records = told(disk.read(at, at, usize::MAX))?;
    let Some((_, bytes)) = records.first() else { return Ok(None) };
    let entry: Entry = told(postcard::from_bytes(bytes))?;
    let EntryPayload::Normal(payload) = entry.payload else { return Err(format!("chained: {at} is no shared entry")) };
    match told(Proposal::decode(&payload.0))? {
        Proposal::Shared(canonical) | Proposal::Mirrored { canonical, .. } => Ok(Some(canonical)),
        _ => Err(format!("chained: {at} is no shared entry")),
    }
}

fn sight_of(stage: &mut Stage) -> Read<NodeSight> {
    let kv = told(stage.store.read())?;
    let header = told(farshore_meta::header(&*kv))?;
    let applied = told(local::applied(&*kv))?.log_id.map_or(RaftIndex(0), |id| stored(id.index));
    let mut node = NodeSight {
        name: stage.name.clone(),
        cluster: stage.cluster,
        running: stage.running,
        index: header.index,
        chain: header.chain,
        digest: told(farshore_meta::digest(&*kv))?,
        trimmed: told(farshore_meta::lowest_reachable(&*kv))?,
        applied,
        durable: stage.disk.durable(),
        diverged: told(local::diverged(&*kv))?.is_some(),
        ..NodeSight::default()
    };
    let first = told(local::first_position(&*kv))?.unwrap_or(header.index.next());
    for index in stage.looked.next().max(first).0..=header.index.0 {
        let chain = told(local::position(&*kv, LogIndex(index)))?.map(|position| position.chain);
        node.fresh.push((LogIndex(index), chain));
    }
    // Entries that never stood in this cluster's own log: a snapshot of the primary brought them.
    node.skipped =
        first > stage.looked.next() && stage.looked > LogIndex(0) && node.trimmed < first && node.trimmed > stage.looked;
    stage.looked = header.index;
    if told(farshore_syncer::home(&*kv))?.is_some() {
        let marks = told(farshore_syncer::watermarks(&*kv, header.index, &header.lineage))?;
        node.data_synced = marks.data_synced;
        node.floor = marks.floor;
        node.blocks_behind = marks.blocks_behind;
        node.deletions_held = marks.deletion_held.blocks;
        for other in [US, EU].into_iter().filter(|other| *other != stage.cluster) {
            let known = told(farshore_syncer::known_floor(&*kv, other, &header.lineage))?;
            node.known_floors.push((other, known));
        }
    }
    Ok(node)
}
