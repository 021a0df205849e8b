//! A node's disk: its log becomes durable after a virtual delay, and a kill takes what was not durable yet. The state that it
//! was given survives a killed process as LMDB's pages do; after a loss of power it is built anew from a checkpoint.

use crate::dice::Dice;
use crate::plant::{self, Hazard};
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_primary::raft::MemoryLog;
use farshore_primary::raft::log::{Flushed, LogFailure, RaftLog, Record};
use farshore_primary::raft::snapshot::{CheckpointError, Checkpoints};
use farshore_primary::wholeness::Wholeness;
use farshore_types::RaftIndex;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Microseconds of an ordinary flush, and of one that the disk is slow at.
const FLUSH_US: (u64, u64) = (100, 3_000);
const SLOW_FLUSH_US: (u64, u64) = (20_000, 400_000);
const SLOW_PERMILLE: u64 = 15;

const NO_FLUSH: &str = "planted flush error";

/// The log on a simulated disk.
#[derive(Clone)]
pub struct SimDisk {
    log: MemoryLog,
    dice: Arc<Dice>,
    /// The next flush fails, and each after it: a failed flush is never retried (law 24).
    failing: Arc<AtomicBool>,
}

impl SimDisk {
    pub fn new(dice: Arc<Dice>) -> Self {
        SimDisk { log: MemoryLog::delayed(), dice, failing: Arc::default() }
    }

    /// What a kill leaves: a log of its own, so that tasks of the dead process change it no more.
    pub fn survivor(&self) -> Self {
        SimDisk { log: self.log.survivor(), dice: self.dice.clone(), failing: Arc::default() }
    }

    /// From now on no flush succeeds.
    pub fn break_flushes(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// What must be durable when it returns ends like an append whose flush fails.
    fn flushes(&self) -> Result<(), LogFailure> {
        if !self.failing.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.log.fail(NO_FLUSH);
        Err(LogFailure(NO_FLUSH.to_owned()))
    }

    /// Whether the node on this disk has all that it ever acknowledged.
    pub fn is_whole(&self) -> bool {
        Wholeness::load(&self.log).is_ok_and(|wholeness| wholeness == Wholeness::Member)
    }

    /// What the opening of a node's directory does after a flush that failed.
    pub fn distrust(&self) -> Result<(), LogFailure> {
        Wholeness::healing("an earlier flush had failed").store(&self.log)
    }

    /// What the opening of a node's directory does with damage: the log ends before it, and the node has no vote.
    pub fn lose_from(&self, from: RaftIndex, wholeness: &Wholeness) -> Result<(), LogFailure> {
        wholeness.store(&self.log)?;
        self.log.truncate_after(RaftIndex(from.0.saturating_sub(1)))
    }

    /// The last entry that a loss of power would leave, whatever the node is told.
    pub fn durable(&self) -> RaftIndex {
        self.log.flushed()
    }
}

impl RaftLog for SimDisk {
    fn append(&self, records: Vec<Record>, done: Flushed) {
        self.log.append(records, done);
        let (low, high) = if self.dice.chance(SLOW_PERMILLE) { SLOW_FLUSH_US } else { FLUSH_US };
        let (log, delay) = (self.log.clone(), Duration::from_micros(self.dice.between(low, high)));
        let failing = self.failing.clone();
        drop(SimRuntime::spawn(async move {
            SimRuntime::sleep(delay).await;
            if failing.load(Ordering::Relaxed) {
                log.fail(NO_FLUSH);
            } else {
                log.flush();
            }
        }));
    }

    fn read(&self, from: RaftIndex, to: RaftIndex, max_bytes: usize) -> Result<Vec<Record>, LogFailure> {
        self.log.read(from, to, max_bytes)
    }

    fn truncate_after(&self, index: RaftIndex) -> Result<(), LogFailure> {
        self.flushes()?;
        self.log.truncate_after(index)
    }

    fn purge(&self, upto: RaftIndex) -> Result<(), LogFailure> {
        self.flushes()?;
        self.log.purge(upto)
    }

    fn last(&self) -> RaftIndex {
        self.log.last()
    }

    fn flushed(&self) -> RaftIndex {
        if plant::is(Hazard::ApplyAheadOfLog) { self.log.last().max(self.log.flushed()) } else { self.log.flushed() }
    }

    fn bytes_above(&self, index: RaftIndex) -> u64 {
        self.log.bytes_above(index)
    }

    fn retained_bytes(&self) -> u64 {
        self.log.retained_bytes()
    }

    fn load_small(&self, name: &str) -> Result<Option<Vec<u8>>, LogFailure> {
        self.log.load_small(name)
    }

    fn store_small(&self, name: &str, bytes: &[u8]) -> Result<(), LogFailure> {
        self.log.store_small(name, bytes)
    }

    fn failure(&self) -> Option<LogFailure> {
        self.log.failure()
    }

    fn forget_failure(&self) -> Result<(), LogFailure> {
        self.log.forget_failure()
    }
}

/// A copy of the checkpoints, which are durable.
pub fn copy_checkpoints(of: &Checkpoints) -> Result<Checkpoints, CheckpointError> {
    let copy = Checkpoints::in_memory();
    for (meta, body) in of.all().into_iter().rev() {
        copy.receive(&meta, &mut *body.open()?)?;
    }
    Ok(copy)
}

/// Keys and values.
pub type Rows = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// All rows of a space, for comparisons.
pub fn rows(kv: &dyn KvRead, space: Space) -> Result<Rows, StorageError> {
    kv.scan(space, &[], None)?.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}
