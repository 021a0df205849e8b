//! What the documents say, executed (their formats: `docs/SEMANTICS.md`, `runbooks/README.md`).
//!
//! Each example has a world of its own, on an empty volume; a runbook has one from its drill to its last line.

use farshore_live::document::{self, MountLine, Statement, Step, WorldEvent};
use farshore_live::play::{self, Ground};
use farshore_live::{Mount, MountSpec, World, binary, fuse, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Until the other region must have what it is to have.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);
const PRIMARY: &str = "us-east";
/// Every page of `runbooks` has a test below and its name here.
const RUNBOOKS: [&str; 5] = ["bucket-lost", "heal", "lag-growing", "node-lost", "replication-stuck"];

/// A world of processes, and what examples have mounted of it.
struct WorldGround {
    // Before the world, so that mounts end first.
    mounts: Vec<Mount>,
    world: World,
}

impl WorldGround {
    fn new(nodes: usize) -> WorldGround {
        WorldGround { mounts: Vec::new(), world: World::start_shipped(nodes) }
    }

    /// Waits until every region's line of `farshore lag` is as it should be.
    fn wait_regions(&self, what: &str, is: impl Fn(&Value) -> bool) {
        wait_for(what, CAUGHT_UP_WITHIN, || {
            let lag = self.world.lag();
            let regions = lag["regions"].as_array()?;
            // Two are declared: fewer are no answer.
            (regions.len() == 2 && regions.iter().all(&is)).then_some(())
        });
    }
}

impl Ground for WorldGround {
    fn mount(&mut self, line: &MountLine) -> PathBuf {
        let flags: Vec<&str> = line.flags.iter().map(String::as_str).collect();
        let name = line.name.to_string();
        let region = (line.region != PRIMARY).then_some(line.region.as_str());
        let spec = MountSpec { name: &name, region, ..MountSpec::default() };
        let mount = self.world.mount(MountSpec { flags: &flags, ..spec });
        let path = mount.path().to_owned();
        self.mounts.push(mount);
        path
    }

    fn event(&mut self, event: &WorldEvent) {
        match event {
            WorldEvent::CaughtUp => self.wait_regions("every mirror to have applied everything", |region| {
                region["region"] == PRIMARY || region["entries_behind"] == 0
            }),
            WorldEvent::Copied => self.wait_regions("everything to be recoverable in every region", |region| {
                region["recoverable"].is_u64() && region["recoverable"] == region["committed"]
            }),
            WorldEvent::Pause => drop(self.world.cli(&["replication", "pause", "demo"]).done()),
            WorldEvent::Resume => drop(self.world.cli(&["replication", "resume", "demo"]).done()),
            WorldEvent::KillLeader(region) => self.world.kill_node(&self.world.wait_leader(region)),
            WorldEvent::KillBucket(region) => self.world.kill_bucket(region),
        }
    }

    fn prepare(&self, command: &mut Command) {
        let programs = self.world.scratch("bin");
        let link = programs.join("farshore");
        if !link.exists() {
            std::os::unix::fs::symlink(binary::farshore(), &link).unwrap();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path))).unwrap();
        let world = self.world.command(&[]);
        let known = world.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(known).env("PATH", path).env("MOUNT", self.world.scratch("mount-runbook"));
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}:0: the page cannot be read: {error}"))
}

/// An election needs three nodes; all else is quicker with one.
fn nodes_for(statements: &[Statement]) -> usize {
    let kills = |statement: &Statement| matches!(statement.step, Step::World(WorldEvent::KillLeader(_)));
    if statements.iter().any(kills) { 3 } else { 1 }
}

#[test]
fn the_examples_of_the_semantics_are_true() {
    if !fuse::require_fuse() {
        return;
    }
    let name = "docs/SEMANTICS.md";
    let page = document::examples(Path::new(name), &page(name)).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(!page.examples.is_empty(), "{name}:0: nothing would be checked");
    for example in &page.examples {
        let mut ground = WorldGround::new(nodes_for(example));
        play::play(&mut ground, &page.file, example).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{name}:{}: {} lines hold", example[0].line.number, example.len());
    }
}

/// Rehearses one page, on the whole world that it is written for.
fn rehearse(name: &str) {
    assert!(RUNBOOKS.contains(&name), "{name} is missing in the list of runbooks");
    if !fuse::require_fuse() {
        return;
    }
    let name = format!("runbooks/{name}.md");
    let page = document::runbook(Path::new(&name), &page(&name)).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(!page.lines.is_empty(), "{name}:0: nothing would be checked");
    let mut ground = WorldGround::new(3);
    play::rehearse(&mut ground, &page).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{name}: {} lines hold", page.lines.len());
}

#[test]
fn the_runbook_bucket_lost_works() {
    rehearse("bucket-lost");
}

#[test]
fn the_runbook_heal_works() {
    rehearse("heal");
}

#[test]
fn the_runbook_lag_growing_works() {
    rehearse("lag-growing");
}

#[test]
fn the_runbook_node_lost_works() {
    rehearse("node-lost");
}

#[test]
fn the_runbook_replication_stuck_works() {
    rehearse("replication-stuck");
}

/// The names of the pages in a directory, without `.md`.
fn pages_in(directory: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".md").map(str::to_owned)).collect()
}

#[test]
fn no_document_with_executable_blocks_is_left_out() {
    let mut runbooks = pages_in("runbooks");
    assert!(runbooks.remove("README"), "runbooks/README.md describes the format");
    assert_eq!(runbooks, RUNBOOKS.map(str::to_owned).into());
    let index = page("runbooks/README.md");
    for name in RUNBOOKS {
        assert!(index.contains(&format!("({name}.md)")), "runbooks/README.md does not name {name}");
    }
    for directory in [".", "docs", "docs/decisions"] {
        for name in pages_in(directory) {
            let path = format!("{directory}/{name}.md");
            let has_blocks = page(&path).lines().any(|line| line.trim().starts_with("```farshore"));
            assert_eq!(has_blocks, path == "docs/SEMANTICS.md", "{path}: blocks are executed in SEMANTICS.md and runbooks only");
        }
    }
}
