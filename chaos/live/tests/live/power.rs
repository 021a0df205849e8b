//! Power cuts of a whole node (issue point 2; laws 5, 24, 25): the real program's writes are traced, and after each of them
//! a disk that forgets what was not flushed is made, on which the real program starts again.
//!
//! `FARSHORE_CUTS=2` cuts the power after every step, twice; without it after every step that is not one of the log's ordinary
//! ones, and after some of those.

use crate::disks::{Alone, directory, forget_boot};
use farshore_live::trace::{ForgetfulDisk, Step, What, read};
use farshore_live::{Caller, Random, World, WorldOptions, wait_for};
use farshore_types::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NODE: &str = "use-a";
const REGION: &str = "us-east";
const SOON: Duration = Duration::from_secs(60);
/// A node on a disk that was cut off serves within.
const SERVES: Duration = Duration::from_secs(20);
/// The same where it is not expected to.
const GIVEN_UP: Duration = Duration::from_secs(4);
/// Two checkpoints are taken and the log is cut meanwhile.
const SHORT: &str = "[log]\ncheckpoint_entries = 100\nretention = \"1MiB\"\n";
/// Of the log's ordinary steps, about one in so many is followed by a cut.
const THINNED: u64 = 30;
const OPERATIONS: u64 = 320;
/// The node is killed before this operation, and before that one with its state no longer believed.
const KILLED_AT: u64 = 120;
const FORGETS_AT: u64 = 240;

/// How far the node's life had come: which of its processes it was, and how long that one's trace.
type Moment = (usize, u64);

/// What was known at some time: when that was, and what the volume's tree was.
struct Known {
    at: Moment,
    tree: Vec<DirEntry>,
}

/// The next operation on a volume in which the earlier ones were carried out: all but a few change what a listing shows.
fn operation(at: u64, made: &[Ino]) -> Op {
    let name = |at: u64| format!("name-{at}").into_bytes();
    let one = made.last().copied().unwrap_or(Ino::ROOT);
    match at % 5 {
        0 | 1 => Op::Make { parent: Ino::ROOT, name: name(at), node: NewNode::File, mode: 0o644, uid: 0, gid: 0 },
        2 => Op::SetAttr { ino: one, mode: Some(at as u16 & 0o777), uid: None, gid: None, atime: None, mtime: None },
        3 => Op::Rename {
            parent: Ino::ROOT,
            name: name(at - 3),
            new_parent: Ino::ROOT,
            new_name: name(at),
            mode: RenameMode::NoReplace,
        },
        _ => Op::Unlink { parent: Ino::ROOT, name: name(at - 3) },
    }
}

/// What a node tells that starts on `directory`'s files after the loss; `None` when it does not serve.
fn tree_after(
    world: &World,
    address: &str,
    disk: &ForgetfulDisk,
    random: &mut Random,
    within: Duration,
) -> Option<Vec<DirEntry>> {
    let to = directory(world, NODE);
    fs::remove_dir_all(&to).unwrap();
    fs::create_dir(&to).unwrap();
    disk.lose_power(random, &to, &to);
    // The machine has booted again, and what it finds of the state is nothing that was ever meant.
    if to.join("state.mark").exists() {
        forget_boot(world, NODE);
    }
    fs::create_dir_all(to.join("state")).unwrap();
    fs::write(to.join("state/data.mdb"), random.bytes(4096)).unwrap();
    let mut session = [0; 16];
    session.copy_from_slice(&random.bytes(16));
    let _node = Alone::start(world, NODE);
    Some(Caller::open_within(world, address, session, within)?.tree())
}

/// An append or a flush of the log.
fn is_ordinary(step: &Step) -> bool {
    let of_segment = step.path.extension().is_some_and(|end| end == "seg");
    of_segment && matches!(&step.what, What::Write { .. } | What::Sync)
}

/// What was known after each operation, and the traces of the node's processes.
fn live(world: &World) -> (Vec<Known>, Vec<PathBuf>) {
    let mut traces = vec![world.trace(NODE)];
    let now = |traces: &[PathBuf]| (traces.len() - 1, fs::metadata(&traces[traces.len() - 1]).unwrap().len());
    let mut known: Vec<Known> = vec![];
    let mut made: Vec<Ino> = vec![];
    let mut caller: Option<Caller> = None;
    let (mut sequence, mut sessions) = (1, 0u8);
    for at in 0..OPERATIONS {
        if at == KILLED_AT || at == FORGETS_AT {
            caller = None;
            world.kill_node(NODE);
            if at == FORGETS_AT {
                forget_boot(world, NODE);
            }
            world.up();
            traces.push(world.trace(NODE));
        }
        let caller = caller.get_or_insert_with(|| {
            (sequence, sessions) = (1, sessions + 1);
            Caller::open(world, REGION, [sessions; 16])
        });
        if known.is_empty() {
            known.push(Known { at: now(&traces), tree: caller.tree() });
        }
        let outcome = &caller.ask(sequence - 1, sequence, &[operation(at, &made)])[0];
        match outcome {
            Ok(Reply::Attr(attr)) => made.push(attr.ino),
            Ok(_) => {}
            Err(kind) => panic!("operation {at}: {kind:?}"),
        }
        // What is in the trace now happened before the answer was heard, or beside it.
        let at = now(&traces);
        known.push(Known { at, tree: caller.tree() });
        sequence += 1;
    }
    wait_for("the log to be cut", SOON, || directory(world, NODE).join("log/purged").exists().then_some(()));
    (known, traces)
}

fn cuts() -> Option<u64> {
    std::env::var("FARSHORE_CUTS")
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("FARSHORE_CUTS is a number, not `{text}`")))
}

#[test]
fn law_24_a_power_cut_after_any_write_of_a_node_loses_nothing_that_was_acknowledged() {
    let world = World::start_traced(WorldOptions { nodes: 1, block_size: "64KiB" }, SHORT, NODE);
    let (known, traces) = live(&world);
    let address = world.address(NODE).unwrap();
    world.kill_all();
    // A node that is alone need not wait long for others; it reads the copy that `up` made.
    let copy = world.dir().join("topology.toml");
    let text = fs::read_to_string(&copy).unwrap();
    let hasty = [("\"200ms\"", "\"20ms\""), ("\"1000ms\"", "\"60ms\""), ("\"2000ms\"", "\"120ms\"")];
    fs::write(&copy, hasty.iter().fold(text, |text, (from, to)| text.replace(from, to))).unwrap();
    let steps = traces.iter().enumerate().flat_map(|(process, trace)| read(trace).into_iter().map(move |step| (process, step)));
    let steps: Vec<(usize, Step)> = steps.collect();
    let below = directory(&world, NODE);
    let mut random = Random::new(2);
    let (mut disk, mut lying) = (ForgetfulDisk::new(), ForgetfulDisk::that_lies());
    let (mut cut, mut kinds) = (0, std::collections::BTreeSet::new());
    for (number, (process, step)) in steps.iter().enumerate() {
        disk.take(step);
        lying.take(step);
        // Those that had been answered when this step was done; before the first there is no volume to ask for.
        let Some(answered) = known.iter().rposition(|known| known.at <= (*process, step.end)) else { continue };
        let times = cuts().unwrap_or(u64::from(!is_ordinary(step) || random.below(THINNED) == 0));
        for _ in 0..times {
            let tree = tree_after(&world, &address, &disk, &mut random, SERVES);
            let at = format!("step {number}, {} of {}", kind_of(&step.what), step.path.display());
            let tree = tree.unwrap_or_else(|| panic!("{at}: the node does not serve"));
            // One more may have been under way.
            let allowed = &known[answered..known.len().min(answered + 2)];
            assert!(allowed.iter().any(|known| known.tree == tree), "{at}: after {answered} operations the node tells {tree:?}");
            cut += 1;
            kinds.insert((name_of(step, &below), kind_of(&step.what)));
        }
    }
    println!("the power was cut {cut} times in {} steps, after {kinds:?}", steps.len());
    for name in ["log/segments/*.seg", "checkpoints/*.checkpoint", "log/vote", "log/purged", "state.mark"] {
        assert!(kinds.iter().any(|(cut, _)| cut.starts_with(name)), "no cut after a write of {name}: {kinds:?}");
    }
    // The check fires: on a disk that only says that it had flushed, something is missing.
    let tree = tree_after(&world, &address, &lying, &mut random, GIVEN_UP);
    assert_ne!(tree.as_ref(), known.last().map(|known| &known.tree), "a disk that forgets everything lost nothing");
}

fn kind_of(what: &What) -> &'static str {
    match what {
        What::Write { .. } => "write",
        What::Length(_) => "length",
        What::Create => "create",
        What::Rename(_) => "rename",
        What::Unlink => "unlink",
        What::Sync => "sync",
        What::MakeDirectory => "mkdir",
    }
}

/// Of a step's file: its place in the node's directory, without what is numbered.
fn name_of(step: &Step, below: &Path) -> String {
    let path = match &step.what {
        What::Rename(other) => other,
        _ => &step.path,
    };
    let place = path.strip_prefix(below).unwrap_or(path);
    match (place.parent(), place.extension()) {
        (Some(parent), Some(end)) if parent.ends_with("segments") || parent.ends_with("checkpoints") => {
            format!("{}/*.{}", parent.display(), end.display())
        }
        _ => place.display().to_string(),
    }
}
