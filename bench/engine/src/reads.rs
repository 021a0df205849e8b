//! Lookups and stats of one thread on a filled state, at random places: what a node's readers do for each question.

use crate::clock::time;
use crate::error::{Doing, EngineError};
use crate::load::LoadArgs;
use farshore_meta::kv::{Lmdb, Store};
use farshore_types::{Ino, Query, QueryReply};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Questions of each kind, unless another number is asked for.
pub const QUESTIONS: u64 = 200_000;
/// Questions in one read transaction, as a session's batch has them.
const TOGETHER: u64 = 64;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of a state
    #[arg(long)]
    state: PathBuf,
    #[arg(long)]
    files: u64,
    #[arg(long, default_value_t = QUESTIONS)]
    questions: u64,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Serialize)]
pub struct Reads {
    pub questions: u64,
    pub lookups_per_second: f64,
    pub stats_per_second: f64,
    pub lookup_cpu_us: f64,
    pub stat_cpu_us: f64,
}

pub fn measure(args: &Args) -> Result<Reads, EngineError> {
    run(&args.state, &args.load, args.files, args.questions)
}

pub fn run(state: &Path, load: &LoadArgs, files: u64, questions: u64) -> Result<Reads, EngineError> {
    let store = Lmdb::open(state).doing("open the state")?;
    let mut dice = Dice(0x5EED);
    let mut places = || (0..questions).map(|_| dice.below(files)).collect::<Vec<_>>();
    let (wanted, looked) = (places(), places());
    // The directories first: a client has them in its cache.
    let mut parents = std::collections::BTreeMap::new();
    for file in wanted.iter().chain(&looked) {
        let name = load.directory_of(*file);
        if let std::collections::btree_map::Entry::Vacant(vacant) = parents.entry(name) {
            let question = Query::Lookup { parent: Ino::ROOT, name: vacant.key().clone().into_bytes() };
            vacant.insert(ask(&store, &[question])?[0]);
        }
    }
    let lookups: Vec<Query> = wanted
        .iter()
        .map(|file| Query::Lookup { parent: parents[&load.directory_of(*file)], name: load.file_name(*file).into_bytes() })
        .collect();
    let (found, lookup) = time(|| ask(&store, &lookups));
    let found = found?;
    let stats: Vec<Query> = found.into_iter().map(|ino| Query::GetAttr { ino }).collect();
    let (done, stat) = time(|| ask(&store, &stats));
    done?;
    let count = questions as f64;
    Ok(Reads {
        questions,
        lookups_per_second: count / lookup.seconds,
        stats_per_second: count / stat.seconds,
        lookup_cpu_us: lookup.cpu_seconds * 1e6 / count,
        stat_cpu_us: stat.cpu_seconds * 1e6 / count,
    })
}

fn ask(store: &Lmdb, questions: &[Query]) -> Result<Vec<Ino>, EngineError> {
    let mut found = Vec::with_capacity(questions.len());
    for together in questions.chunks(TOGETHER as usize) {
        let kv = store.read().doing("read the state")?;
        for question in together {
            match farshore_meta::query(&*kv, question).doing("read the state")? {
                Ok(QueryReply::Attr(attr)) => found.push(attr.ino),
                other => return Err(EngineError::new("look a file up", format!("{question:?}: {other:?}"))),
            }
        }
    }
    Ok(found)
}

/// The same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 16) % bound
    }
}
