//! The load of mdtest: a tree of directories, in each of which every thread makes, stats and removes directories, then
//! creates, stats, reads and removes files.

use super::crew::{Crew, Hand};
use super::ground::Ground;
use super::place::Workload;
use crate::error::CliError;
use serde::Serialize;
use std::sync::Mutex;
use std::time::Duration;

/// Directories of the tree at most, and names in all: what is held in memory and what a slip of the pen may ask for.
const TREE_MAX: u64 = 1_000_000;
const NAMES_MAX: u64 = 1_000_000_000;

#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Shape {
    /// Subdirectories of each directory of the tree
    #[arg(long, default_value_t = 3)]
    pub dirs: u64,
    /// Levels of the tree below its root
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=64))]
    pub depth: u32,
    /// Directories, then files, that each thread makes in each directory of the tree
    #[arg(long, default_value_t = 10)]
    pub files: u64,
    /// Bytes written to each file
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1 << 30))]
    pub write: u64,
    /// How often everything is done
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub iterations: u32,
    /// Drop the kernel's caches, those of the whole machine, before what was made is looked at; only root can
    #[arg(long)]
    pub drop_caches: bool,
}

impl Shape {
    /// Directories of the tree, its root counted; `None` when they are more than anyone means.
    pub fn tree(&self) -> Option<u64> {
        let (mut all, mut level) = (1_u64, 1_u64);
        for _ in 0..self.depth {
            level = level.checked_mul(self.dirs)?;
            all = all.checked_add(level)?;
            if all > TREE_MAX {
                return None;
            }
        }
        Some(all)
    }

    /// Refuses what is too large before anything is made.
    pub fn check(&self, threads: u64) -> Result<(), CliError> {
        let names = self.tree().and_then(|tree| tree.checked_mul(self.files)?.checked_mul(threads));
        match names {
            Some(names) if names <= NAMES_MAX => Ok(()),
            _ => {
                let what = format!("--dirs {} --depth {} --files {} is too much", self.dirs, self.depth, self.files);
                let mend = format!("at most {TREE_MAX} directories in the tree, and {NAMES_MAX} names in it");
                Err(CliError::usage(what, mend))
            }
        }
    }
}

/// Operations in the order in which mdtest prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    DirectoryCreation,
    DirectoryStat,
    DirectoryRemoval,
    FileCreation,
    FileStat,
    FileRead,
    FileRemoval,
    TreeCreation,
    TreeRemoval,
}

impl Operation {
    pub const ALL: [Operation; 9] = [
        Operation::DirectoryCreation,
        Operation::DirectoryStat,
        Operation::DirectoryRemoval,
        Operation::FileCreation,
        Operation::FileStat,
        Operation::FileRead,
        Operation::FileRemoval,
        Operation::TreeCreation,
        Operation::TreeRemoval,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::DirectoryCreation => "Directory creation",
            Operation::DirectoryStat => "Directory stat",
            Operation::DirectoryRemoval => "Directory removal",
            Operation::FileCreation => "File creation",
            Operation::FileStat => "File stat",
            Operation::FileRead => "File read",
            Operation::FileRemoval => "File removal",
            Operation::TreeCreation => "Tree creation",
            Operation::TreeRemoval => "Tree removal",
        }
    }
}

/// Operations per second, one for each iteration.
#[derive(Debug, Default)]
pub struct Rates {
    of: Vec<(Operation, f64)>,
}

impl Rates {
    pub fn of(&self, operation: Operation) -> Vec<f64> {
        self.of.iter().filter(|(other, _)| *other == operation).map(|(_, rate)| *rate).collect()
    }

    pub fn add(&mut self, operation: Operation, count: u64, took: Duration) {
        self.of.push((operation, count as f64 / took.as_secs_f64()));
    }
}

pub struct Tree(pub Shape);

/// A directory of the tree: where it is, under which name in which parent.
struct Node<D> {
    dir: D,
    parent: D,
    name: String,
}

impl Workload for Tree {
    type Report = Rates;

    const DIRECTORY: &'static str = "farshore-mdtest";

    fn run<G: Ground>(&self, crew: &Crew<G>, work: &G::Dir) -> Result<Rates, CliError> {
        let mut rates = Rates::default();
        for _ in 0..self.0.iterations {
            let tree = self.plant(crew, work, &mut rates)?;
            self.directories(crew, &tree, &mut rates)?;
            self.files(crew, &tree, &mut rates)?;
            self.fell(crew, &tree, &mut rates)?;
        }
        Ok(rates)
    }
}

impl Tree {
    /// The tree itself, by one thread as mdtest does it; parents come before their children.
    fn plant<G: Ground>(&self, crew: &Crew<G>, work: &G::Dir, rates: &mut Rates) -> Result<Vec<Node<G::Dir>>, CliError> {
        let count = self.0.tree().unwrap_or(TREE_MAX);
        let planted = Mutex::new(Vec::new());
        let took = crew.alone(Operation::TreeCreation.name(), count, |hand| {
            let mut nodes: Vec<Node<G::Dir>> = vec![];
            let make = |parent: &G::Dir, name: String, nodes: &mut Vec<Node<G::Dir>>| {
                let dir = hand.ground.make_dir(parent, &name)?;
                nodes.push(Node { dir, parent: parent.clone(), name });
                hand.step()
            };
            make(work, "mdtest_tree.0".to_owned(), &mut nodes)?;
            let mut level = 0..1;
            for _ in 0..self.0.depth {
                let next = nodes.len();
                for at in level {
                    for _ in 0..self.0.dirs {
                        let parent = nodes[at].dir.clone();
                        let name = format!("mdtest_tree.{}", nodes.len());
                        make(&parent, name, &mut nodes)?;
                    }
                }
                level = next..nodes.len();
            }
            *planted.lock().expect("one thread plants") = nodes;
            Ok(())
        })?;
        rates.add(Operation::TreeCreation, count, took);
        Ok(planted.into_inner().expect("one thread plants"))
    }

    fn fell<G: Ground>(&self, crew: &Crew<G>, tree: &[Node<G::Dir>], rates: &mut Rates) -> Result<(), CliError> {
        let count = tree.len() as u64;
        let took = crew.alone(Operation::TreeRemoval.name(), count, |hand| {
            tree.iter().rev().try_for_each(|node| {
                hand.ground.remove_dir(&node.parent, &node.name)?;
                hand.step()
            })
        })?;
        rates.add(Operation::TreeRemoval, count, took);
        Ok(())
    }

    fn directories<G: Ground>(&self, crew: &Crew<G>, tree: &[Node<G::Dir>], rates: &mut Rates) -> Result<(), CliError> {
        let mut phase = |operation, work: Each<'_, G>| self.phase(crew, tree, rates, "dir", operation, work);
        phase(Operation::DirectoryCreation, &|hand, dir, name| hand.ground.make_dir(dir, name).map(drop))?;
        phase(Operation::DirectoryStat, &|hand, dir, name| hand.ground.stat(dir, name))?;
        phase(Operation::DirectoryRemoval, &|hand, dir, name| hand.ground.remove_dir(dir, name))
    }

    fn files<G: Ground>(&self, crew: &Crew<G>, tree: &[Node<G::Dir>], rates: &mut Rates) -> Result<(), CliError> {
        let data = content(self.0.write as usize);
        let piece = data.len().max(4096);
        let count = u64::from(!data.is_empty());
        let mut phase = |operation, work: Each<'_, G>| self.phase(crew, tree, rates, "file", operation, work);
        phase(Operation::FileCreation, &|hand, dir, name| hand.ground.create(dir, name, &data, count, &|| Ok(())))?;
        phase(Operation::FileStat, &|hand, dir, name| hand.ground.stat(dir, name))?;
        phase(Operation::FileRead, &|hand, dir, name| match hand.ground.read(dir, name, piece, &|| Ok(()))? {
            length if length == data.len() as u64 => Ok(()),
            length => Err(CliError::failed(format!("{name} has {length} bytes, {} were written", data.len()), "")),
        })?;
        phase(Operation::FileRemoval, &|hand, dir, name| hand.ground.remove_file(dir, name))
    }

    /// Each thread goes through the tree and does `work` to its own names in every directory.
    fn phase<G: Ground>(
        &self,
        crew: &Crew<G>,
        tree: &[Node<G::Dir>],
        rates: &mut Rates,
        kind: &str,
        operation: Operation,
        work: Each<'_, G>,
    ) -> Result<(), CliError> {
        let count = tree.len() as u64 * self.0.files * crew.threads() as u64;
        let makes = matches!(operation, Operation::DirectoryCreation | Operation::FileCreation);
        if self.0.drop_caches && !makes && !crew.ground().drop_caches() {
            return Err(CliError::failed(
                "the kernel's caches cannot be dropped",
                "be root and name a directory, or leave --drop-caches out",
            ));
        }
        let took = crew.phase(operation.name(), count, |hand| {
            tree.iter().try_for_each(|node| {
                (0..self.0.files).try_for_each(|item| {
                    work(hand, &node.dir, &format!("{kind}.mdtest.{}.{item}", hand.thread))?;
                    hand.step()
                })
            })
        })?;
        rates.add(operation, count, took);
        Ok(())
    }
}

/// One operation on one name.
type Each<'a, G> = &'a (dyn Fn(&Hand<'_, G>, &<G as Ground>::Dir, &str) -> Result<(), CliError> + Sync);

/// Bytes that no store compresses away, the same in each run.
pub fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| byte()).collect()
}
