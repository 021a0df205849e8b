//! The block laws as one seeded random world: three clusters, each with its bucket, driving the real shared state,
//! ledger, floors, deletions and rewind. A port of the model of the laws, with the same actions and the same judge.
//!
//! Leaves out Raft inside a cluster: what is applied here is committed. After every step the invariants are judged
//! from outside, over what the buckets really hold (judge.rs).

mod actions;
mod cluster;
mod judge;
mod random;
mod writes;

use cluster::Cluster;
use farshore_syncer::Completion;
use farshore_types::*;
use random::Random;
use std::collections::{BTreeMap, BTreeSet};

pub const REGIONS: usize = 3;

/// A broken law, told as a sentence.
pub type Broken = String;
pub type Step = Result<(), Broken>;

pub fn demand(truth: bool, law: u32, text: impl FnOnce() -> String) -> Step {
    if truth { Ok(()) } else { Err(format!("law {law}: {}", text())) }
}

/// How often things go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Calm,
    Restless,
}

/// A floor on its way to another cluster.
pub struct Mail {
    to: usize,
    from: usize,
    floor: LogIndex,
    lineage: Lineage,
}

pub struct World {
    r: Random,
    c: Vec<Cluster>,
    bucket: Vec<BTreeSet<BlockKey>>,
    /// Regions whose bucket is gone until their cluster is back.
    wiped: BTreeSet<usize>,
    /// Blocks whose last copy was wiped.
    lost: BTreeSet<BlockKey>,
    /// Every slice id that was ever issued.
    issued: BTreeSet<u64>,
    /// Every floor that ever left a cluster.
    reported: Vec<Vec<(LogIndex, Lineage)>>,
    mail: Vec<Mail>,
    /// Deletions under way: object stores know no epochs.
    deletions: Vec<(usize, Incarnation, BlockKey)>,
    /// Answers of workers under way: a proven copy is a fact in any epoch (law 16).
    answers: Vec<(usize, Completion)>,
    /// What a proof of each block must say (law 16).
    crc: BTreeMap<BlockKey, u32>,
    primary: usize,
    /// Open sessions of the present start, by the bucket that they write: id and last sequence.
    sessions: BTreeMap<BucketId, (SessionId, u64)>,
    names: u64,
    now: u64,
    weights: Vec<u64>,
    paces: Vec<u64>,
    trace: bool,
}

impl World {
    pub fn new(seed: u64, pace: Pace, trace: bool) -> Result<World, Broken> {
        let mut r = Random::new(seed);
        let weights = actions::WEIGHTS
            .iter()
            .map(|(_, calm, restless)| if pace == Pace::Calm { calm } else { restless })
            .map(|weight| weight * [2, 5, 10][r.below(3)])
            .collect();
        let paces = (0..REGIONS).map(|_| [3, 10, 20][r.below(3)]).collect();
        let mut world = World {
            r,
            c: (0..REGIONS).map(|id| Cluster::new(ClusterId(id as u8))).collect(),
            bucket: vec![BTreeSet::new(); REGIONS],
            wiped: BTreeSet::new(),
            lost: BTreeSet::new(),
            issued: BTreeSet::new(),
            reported: vec![Vec::new(); REGIONS],
            mail: Vec::new(),
            deletions: Vec::new(),
            answers: Vec::new(),
            crc: BTreeMap::new(),
            primary: 0,
            sessions: BTreeMap::new(),
            names: 0,
            now: 0,
            weights,
            paces,
            trace,
        };
        // The start comes first: an entry before every epoch would be fenced by every mirror's judge (law 3).
        world.start_epoch(0)?;
        world.format();
        // The mirrors' first entries: they follow the first primary from the empty history on.
        for k in 1..REGIONS {
            world.c[k].target = world.c[0].target.clone();
        }
        Ok(world)
    }

    pub fn step(&mut self) -> Step {
        self.now += 1;
        let action = self.r.weighted(&self.weights.clone());
        let k = self.r.weighted(&self.paces.clone());
        actions::act(self, action, k)?;
        if self.trace {
            self.print(actions::WEIGHTS[action].0, k);
        }
        self.check()
    }

    fn print(&self, action: &str, k: usize) {
        print!("{:4} {action:8} {k} | primary {}", self.now, self.primary);
        for c in &self.c {
            let state = if c.up { "up" } else { "down" };
            print!(
                " | {} {state} applied {} data_synced {:?} floor {} owed {}",
                c.id,
                c.applied(),
                c.data_synced().map(|i| i.0),
                c.floor(),
                c.owed().len()
            );
        }
        println!();
    }
}

/// Runs one world; says at which step which law broke.
pub fn run(seed: u64, pace: Pace, steps: usize, trace: bool) -> Result<(), (usize, Broken)> {
    let mut world = World::new(seed, pace, trace).map_err(|broken| (0, broken))?;
    for step in 0..steps {
        world.step().map_err(|broken| (step, broken))?;
    }
    world.quiesce().map_err(|broken| (steps, broken))
}

/// What a world came to: the chains, digests and buckets of all clusters.
pub fn fingerprint(seed: u64, steps: usize) -> Vec<(Chain, usize, Option<LogIndex>)> {
    let mut world = World::new(seed, Pace::Calm, false).expect("a first epoch starts");
    for _ in 0..steps {
        world.step().expect("the laws hold in this world");
    }
    (0..REGIONS).map(|k| (world.c[k].chain(), world.bucket[k].len(), world.c[k].data_synced())).collect()
}
