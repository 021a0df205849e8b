//! Disks that lose, fill up, turn read-only or are replaced: the node says so, the cluster goes on, and what was lost
//! comes back from the others (issue points 2 and 3; laws 24, 25, 28).

use farshore_live::world::stand;
use farshore_live::{LoopDisk, Random, World, WorldOptions, require_loop_disks, wait_for};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(90);
const NODES: [&str; 3] = ["use-a", "use-b", "use-c"];
/// Checkpoints come soon, and the log goes behind them.
const SHORT: &str = "[log]\ncheckpoint_entries = 150\nretention = \"1MiB\"\n";
/// Room for two segments of the log and little more.
const SMALL_DISK_MIB: u64 = 260;

fn put(world: &World, name: &str, content: &[u8]) {
    let source = world.scratch("sources").join(name);
    fs::write(&source, content).unwrap();
    world.cli(&["cp", source.to_str().unwrap(), &format!("demo:/{name}")]).done();
}

fn get(world: &World, name: &str) -> Vec<u8> {
    world.cli(&["cat", &format!("demo:/{name}")]).done().stdout
}

pub fn directory(world: &World, node: &str) -> PathBuf {
    world.dir().join("nodes").join(node)
}

fn log_of(world: &World, node: &str) -> String {
    fs::read_to_string(world.dir().join("logs").join(format!("{node}.log"))).unwrap_or_default()
}

fn view_of(world: &World, node: &str) -> Value {
    world.node(node).unwrap()
}

/// A node that was started without the rest of its world, and with nothing in front of libc.
pub struct Alone(Child);

impl Alone {
    pub fn start(world: &World, node: &str) -> Alone {
        let log = fs::File::options().append(true).open(world.dir().join("logs").join(format!("{node}.log"))).unwrap();
        let mut command = world.command(&["node", node]);
        command.env_remove("LD_PRELOAD").stdout(Stdio::null()).stderr(log);
        Alone(command.spawn().unwrap())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that does not lead.
fn follower(world: &World) -> &'static str {
    let leader = world.wait_leader("us-east");
    NODES.into_iter().find(|name| *name != leader).unwrap()
}

/// Waits until all nodes of the primary stand at one index with one digest and have their votes.
pub fn wait_equal(world: &World) {
    wait_for("all nodes to be whole and equal", SOON, || {
        let status = world.status();
        let nodes: Vec<&Value> = status["nodes"].as_array()?.iter().filter(|view| view["region"] == "us-east").collect();
        let whole = nodes.iter().all(|view| view["role"] != "down" && view["trouble"].is_null());
        (whole && stand(&status, "us-east", 3).is_some()).then_some(())
    });
}

/// The newest segment of a node's log.
fn segment(world: &World, node: &str) -> PathBuf {
    let entries = fs::read_dir(directory(world, node).join("log/segments")).unwrap();
    let segments = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|ext| ext == "seg"));
    segments.max().unwrap()
}

/// Flips one bit.
fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// As after a reboot: what was not flushed cannot be believed.
pub fn forget_boot(world: &World, node: &str) {
    fs::write(directory(world, node).join("state.mark"), "another boot\n").unwrap();
}

#[test]
fn law_24_a_damaged_log_takes_the_vote_and_is_refilled() {
    let world = World::start(WorldOptions { nodes: 3, ..WorldOptions::default() });
    for at in 0..10 {
        put(&world, &format!("file{at}"), b"acknowledged");
    }
    let node = follower(&world);
    wait_equal(&world);
    for name in NODES {
        world.kill_node(name);
    }
    // The fifth batch of the log: long flushed, with much behind it.
    let path = segment(&world, node);
    let bytes = fs::read(&path).unwrap();
    let batches: Vec<usize> = (512..bytes.len()).step_by(512).filter(|at| bytes[*at..].starts_with(b"FBAT")).collect();
    flip(&path, batches[4] + 60);
    // Alone it cannot be refilled: it runs, says why it has no vote, and does not lead.
    let alone = Alone::start(&world, node);
    let trouble =
        wait_for("the node to say what is wrong", SOON, || view_of(&world, node)["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("the log was damaged in") && trouble.contains("no vote"), "{trouble}");
    drop(alone);
    world.up();
    wait_equal(&world);
    assert!(log_of(&world, node).contains("the log was damaged in"));
    assert!(log_of(&world, node).contains("has its vote again"));
    // The others need it now.
    let other = NODES.into_iter().find(|name| *name != node).unwrap();
    world.kill_node(other);
    for at in 0..10 {
        assert_eq!(get(&world, &format!("file{at}")), b"acknowledged");
    }
    put(&world, "after", b"by two");
}

#[test]
fn law_24_a_replaced_disk_is_refilled_before_its_node_votes() {
    let world = World::start_with(WorldOptions { nodes: 3, ..WorldOptions::default() }, SHORT);
    put(&world, "kept", b"acknowledged");
    let node = follower(&world);
    world.kill_node(node);
    fs::remove_dir_all(directory(&world, node)).unwrap();
    // With another node down it must wait: that one may know of a vote that this one had given.
    let leader = world.wait_leader("us-east");
    let third = NODES.into_iter().find(|name| *name != node && *name != leader).unwrap();
    world.pause(third);
    let alone = Alone::start(&world, node);
    let trouble =
        wait_for("the node to say what is wrong", SOON, || view_of(&world, node)["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("its directory was empty"), "{trouble}");
    world.resume(third);
    wait_equal(&world);
    drop(alone);
    world.up();
    wait_equal(&world);
    assert_eq!(get(&world, "kept"), b"acknowledged");
}

#[test]
fn another_boot_starts_from_the_checkpoint_and_ends_equal_also_when_that_is_damaged() {
    let world = World::start_with(WorldOptions { nodes: 3, ..WorldOptions::default() }, SHORT);
    let node = follower(&world);
    let checkpoints = directory(&world, node).join("checkpoints");
    let finished = || {
        let entries = fs::read_dir(&checkpoints).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|ext| ext == "checkpoint")).collect();
        found.sort();
        found
    };
    let end = Instant::now() + 2 * SOON;
    for round in 0.. {
        put(&world, &format!("file{round}"), b"acknowledged");
        if finished().len() == 2 && directory(&world, node).join("log/purged").exists() {
            break;
        }
        assert!(Instant::now() < end, "no two checkpoints after {round} files");
    }
    let restart = |what: &str| {
        world.kill_node(node);
        forget_boot(&world, node);
        let before = log_of(&world, node).len();
        match what {
            "newest" => flip(finished().last().unwrap(), 100),
            // Which a start reads when it needs them, and else while the node serves.
            "rows of the newest" => {
                let path = finished().pop().unwrap();
                flip(&path, fs::metadata(&path).unwrap().len() as usize / 2);
            }
            "both" => finished().iter().for_each(|path| flip(path, 100)),
            _ => {}
        }
        world.up();
        wait_equal(&world);
        log_of(&world, node)[before..].to_owned()
    };
    assert!(restart("none").contains("the state was rebuilt from a checkpoint"));
    for damaged in ["newest", "rows of the newest"] {
        let told = restart(damaged);
        assert!(
            told.contains("a checkpoint is damaged and is removed") && told.contains("the state was rebuilt from a checkpoint"),
            "{damaged}: {told}"
        );
        wait_for("another checkpoint in its place", SOON, || (finished().len() == 2).then_some(()));
    }
    // This boot's state is trusted, and the checkpoint is found while the node serves.
    world.kill_node(node);
    let before = log_of(&world, node).len();
    let path = finished().pop().unwrap();
    flip(&path, fs::metadata(&path).unwrap().len() as usize / 2);
    world.up();
    wait_for("the damage to be found", SOON, || {
        log_of(&world, node)[before..].contains("another one takes its place").then_some(())
    });
    wait_for("another checkpoint in its place", SOON, || (finished().len() == 2).then_some(()));
    wait_equal(&world);
    let told = restart("both");
    assert!(told.contains("no checkpoint can be used") && told.contains("has its vote again"), "{told}");
    assert_eq!(get(&world, "file0"), b"acknowledged");
}

/// A world whose follower has a small disk of its own. The node is refilled onto it first.
fn on_small_disk(world: &World) -> (&'static str, LoopDisk) {
    on_disk(world, |point| LoopDisk::new(&world.scratch("disks").join("image"), SMALL_DISK_MIB, point))
}

fn on_disk(world: &World, disk: impl FnOnce(&Path) -> LoopDisk) -> (&'static str, LoopDisk) {
    let node = follower(world);
    world.kill_node(node);
    fs::remove_dir_all(directory(world, node)).unwrap();
    fs::create_dir(directory(world, node)).unwrap();
    let disk = disk(&directory(world, node));
    world.up();
    wait_equal(world);
    (node, disk)
}

/// Writes until the node has stopped by itself; returns what `status` says of it.
fn write_until_stopped(world: &World, node: &str) -> String {
    let end = Instant::now() + SOON;
    for round in 0.. {
        put(world, &format!("round{round}"), b"acknowledged by the others");
        let view = view_of(world, node);
        if view["role"] == "down" {
            return view["trouble"].as_str().unwrap_or_default().to_owned();
        }
        assert!(Instant::now() < end, "{node} goes on after {round} files");
    }
    unreachable!("the loop ends by itself")
}

/// The others go on without the node; with its disk mended it comes back, and has what they wrote.
fn comes_back(world: &World, mend: impl FnOnce()) {
    put(world, "meanwhile", b"the others go on");
    mend();
    world.up();
    wait_equal(world);
    assert_eq!(get(world, "meanwhile"), b"the others go on");
}

#[test]
fn law_24_a_full_disk_stops_its_node_alone_and_says_so() {
    if !require_loop_disks() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 3, ..WorldOptions::default() });
    let (node, disk) = on_small_disk(&world);
    disk.fill();
    let trouble = write_until_stopped(&world, node);
    assert!(trouble.contains("No space left") || trouble.contains("no space left"), "{trouble}");
    assert!(trouble.contains(directory(&world, node).to_str().unwrap()), "the place is named: {trouble}");
    comes_back(&world, || disk.empty());
    assert_eq!(get(&world, "round0"), b"acknowledged by the others");
}

#[test]
fn law_24_a_disk_that_turns_read_only_stops_its_node_alone() {
    if !require_loop_disks() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 3, ..WorldOptions::default() });
    let (node, disk) = on_small_disk(&world);
    disk.turn_read_only();
    let trouble = write_until_stopped(&world, node);
    assert!(trouble.contains("Read-only file system"), "{trouble}");
    comes_back(&world, || disk.mend());
}

#[test]
fn law_24_a_page_of_the_state_that_the_disk_does_not_take_stops_its_node_alone() {
    if !require_loop_disks() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 3, ..WorldOptions::default() });
    let (node, disk) = on_disk(&world, |point| LoopDisk::thin(&world.scratch("thin"), 2 * SMALL_DISK_MIB, point));
    disk.fill_device();
    // The log's blocks are written already. What the state is longer by goes into the kernel's cache, and from there nowhere.
    let trouble = write_until_stopped(&world, node);
    assert!(trouble.contains("could not be written to the disk"), "{trouble}");
    comes_back(&world, || disk.empty_device());
}

#[test]
fn law_24_a_power_cut_under_the_real_binary_loses_nothing_acknowledged() {
    if !require_loop_disks() {
        return;
    }
    let world = World::start_with(WorldOptions { nodes: 3, ..WorldOptions::default() }, SHORT);
    let (node, disk) = on_small_disk(&world);
    // The two that have it must be these: then what this disk flushed is needed.
    let leader = world.wait_leader("us-east");
    let third = NODES.into_iter().find(|name| *name != node && *name != leader).unwrap();
    world.kill_node(third);
    for at in 0..12 {
        put(&world, &format!("file{at}"), b"acknowledged");
    }
    disk.cut_power();
    world.kill_all();
    disk.mend();
    // Of the two that acknowledged, only the one whose power was cut comes back, with the one that was away.
    let away = directory(&world, &leader);
    fs::rename(&away, away.with_extension("away")).unwrap();
    fs::write(&away, "no directory").unwrap();
    world.cli(&["up"]);
    for at in 0..12 {
        assert_eq!(get(&world, &format!("file{at}")), b"acknowledged");
    }
    fs::remove_file(&away).unwrap();
    fs::rename(away.with_extension("away"), &away).unwrap();
    world.up();
    wait_equal(&world);
}

#[test]
fn law_25_a_node_killed_while_it_takes_a_snapshot_comes_back_whole() {
    let world = World::start_with(WorldOptions { nodes: 3, ..WorldOptions::default() }, SHORT);
    let node = follower(&world);
    let leader = world.wait_leader("us-east");
    let end = Instant::now() + 2 * SOON;
    for round in 0.. {
        put(&world, &format!("file{round}"), b"acknowledged");
        if directory(&world, &leader).join("log/purged").exists() {
            break;
        }
        assert!(Instant::now() < end, "{leader} does not cut its log");
    }
    let mut random = Random::new(7);
    for round in 0..4 {
        if world.pids().contains_key(node) {
            world.kill_node(node);
        }
        // An empty directory makes it need a snapshot again.
        fs::remove_dir_all(directory(&world, node)).unwrap();
        let asked = |world: &World| log_of(world, node).matches("receiving a snapshot from the leader").count();
        let before = asked(&world);
        let alone = Alone::start(&world, node);
        wait_for("a snapshot to be on its way", SOON, || (asked(&world) > before).then_some(()));
        // The moment itself is what is drawn.
        std::thread::sleep(Duration::from_millis(random.below(30)));
        drop(alone);
        if round % 2 == 1 {
            forget_boot(&world, node);
        }
        world.up();
        wait_equal(&world);
    }
    assert_eq!(get(&world, "file0"), b"acknowledged");
}

/// A flush of this node's log fails once; the node stops, is started again, and is whole.
fn survives_a_failed_flush(world: &World, node: &str) {
    let before = log_of(world, node).len();
    let pid = world.pids()[node];
    world.fail_flush(node);
    let trouble = write_until_stopped(world, node);
    assert!(world.flush_has_failed(pid), "{node} stopped for another reason: {trouble}");
    assert!(trouble.contains("Input/output error"), "{trouble}");
    assert!(trouble.contains(directory(world, node).to_str().unwrap()), "the place is named: {trouble}");
    put(world, "meanwhile", b"the others go on");
    assert_eq!(world.up()["started"], serde_json::json!([node]));
    wait_equal(world);
    let told = log_of(world, node)[before..].to_owned();
    assert!(told.contains("an earlier flush had failed") && told.contains("has its vote again"), "{told}");
    assert_eq!(get(world, "kept"), b"acknowledged");
    assert_eq!(get(world, "round0"), b"acknowledged by the others");
}

#[test]
fn law_24_a_failed_flush_stops_its_node_which_is_refilled_from_the_others() {
    let world = World::start_with_faults(WorldOptions::default());
    put(&world, "kept", b"acknowledged");
    survives_a_failed_flush(&world, &world.wait_leader("us-east"));
    survives_a_failed_flush(&world, follower(&world));
}
