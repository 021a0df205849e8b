//! Who was away while the log was cut takes a snapshot, and goes on from there (laws 24, 25; issue point 5).

use farshore_live::{World, WorldOptions, process, tree, wait_for};
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// Until two checkpoints must have let the log go.
const PURGED: Duration = Duration::from_secs(150);
/// A log that is cut soon, whoever still needs it.
const SHORT: &str = "[log]\ncheckpoint_entries = 150\nretention = \"1MiB\"\n";
const FILES: usize = 120;

fn log_of(world: &World, node: &str) -> String {
    std::fs::read_to_string(world.dir().join("logs").join(format!("{node}.log"))).unwrap_or_default()
}

/// `farshore node restart` ends before it, where few entries are missing.
fn wait_received(world: &World, node: &str) {
    wait_for("the node to have received a snapshot", SOON, || {
        log_of(world, node).contains("receiving a snapshot from the leader").then_some(())
    });
}

/// Copies small trees into the volume until `node` has cut its log; returns how many.
fn write_until_purged(world: &World, source: &Path, node: &str) -> usize {
    let purged = world.dir().join("nodes").join(node).join("log/purged");
    let end = Instant::now() + PURGED;
    for round in 1.. {
        world.cli(&["cp", "-r", &source.to_string_lossy(), &format!("demo:/round-{round}")]).done();
        if purged.exists() {
            return round;
        }
        assert!(Instant::now() < end, "the log of {node} was not cut in {PURGED:?}, after {round} rounds");
    }
    unreachable!("the loop ends by itself")
}

fn assert_rounds(world: &World, source: &Path, rounds: usize, region: &str) {
    let out = world.scratch(&format!("out-{region}"));
    for round in 1..=rounds {
        let to = out.join(format!("round-{round}"));
        world.cli(&["cp", "-r", &format!("demo:/round-{round}"), &to.to_string_lossy(), "--region", region]).done();
        tree::assert_equal(source, &to);
    }
}

#[test]
fn a_mirror_that_was_away_for_too_long_takes_a_snapshot_and_is_equal() {
    let world = World::start_with(WorldOptions { nodes: 1, block_size: "64KiB" }, SHORT);
    let source = world.scratch("source");
    tree::write(&source, FILES, 20_000, 11);
    world.cli(&["cp", "-r", &source.to_string_lossy(), "demo:/round-0"]).done();
    wait_for("the mirror to have caught up", SOON, || (world.lag_of("eu-west")["entries_behind"] == 0).then_some(()));
    world.kill_node("euw-a");
    let rounds = write_until_purged(&world, &source, "use-a");
    world.cli(&["rm", "-r", "demo:/round-0"]).done();
    world.up();
    world.worker("eu-west");
    world.wait_recoverable();
    assert!(log_of(&world, "euw-a").contains("taking a snapshot of the primary"), "the log was there all the time");
    assert_rounds(&world, &source, rounds, "eu-west");
    let gone = world.cli(&["ls", "demo:/round-0", "--region", "eu-west"]);
    assert!(!gone.status.success(), "what was removed meanwhile is not there");
    assert_eq!(world.lag_of("eu-west")["diverged"], false);
}

#[test]
fn a_follower_that_was_away_for_too_long_takes_a_snapshot_and_can_carry_the_cluster() {
    let world = World::start_with(WorldOptions { nodes: 3, block_size: "64KiB" }, SHORT);
    let source = world.scratch("source");
    tree::write(&source, FILES, 20_000, 12);
    let leader = world.wait_leader("us-east");
    let away = ["use-a", "use-b", "use-c"].into_iter().find(|name| *name != leader).unwrap();
    world.kill_node(away);
    let rounds = write_until_purged(&world, &source, &leader);
    world.up();
    wait_received(&world, away);
    // Without the leader, the two that are left need each other: the one that was away among them.
    world.kill_node(&leader);
    world.cli(&["cp", "-r", &source.to_string_lossy(), "demo:/after"]).done();
    assert_rounds(&world, &source, rounds, "us-east");
}

/// A log that is cut soon, but never before the mirror has what is in it.
const KEPT: &str = "[log]\ncheckpoint_entries = 150\n";
/// The leader is asked to stop while the third node is silent: there is nobody else to hand over to.
fn make_lead(world: &World, wanted: &str) {
    let leader = world.wait_leader("us-east");
    if leader == wanted {
        return;
    }
    let third = ["use-a", "use-b", "use-c"].into_iter().find(|name| *name != leader && *name != wanted).unwrap();
    world.pause(third);
    let pid = world.pids()[leader.as_str()];
    assert!(process::signal(pid, libc::SIGTERM));
    process::wait_gone(pid, SOON);
    world.resume(third);
    // Not by `up`, which would wait for a mirror that is paused.
    world.cli(&["node", "restart", &leader]).done();
    assert_eq!(world.wait_leader("us-east"), wanted, "{leader} handed over to the only one that answered");
}

#[test]
fn law_25_a_leader_that_began_with_a_snapshot_serves_a_mirror_that_has_less() {
    let world = World::start_with(WorldOptions { nodes: 3, block_size: "64KiB" }, KEPT);
    let source = world.scratch("source");
    tree::write(&source, FILES, 2_000, 13);
    world.worker("eu-west");
    let leader = world.wait_leader("us-east");
    let away = ["use-a", "use-b", "use-c"].into_iter().find(|name| *name != leader).unwrap();
    world.kill_node(away);
    let rounds = write_until_purged(&world, &source, &leader);
    // The mirror stops here; the log is kept for it from now on, where it is.
    let mirrors = ["euw-a", "euw-b", "euw-c"];
    mirrors.iter().for_each(|node| world.pause(node));
    let checkpoints = world.dir().join("nodes").join(&leader).join("checkpoints");
    let newest = || std::fs::read_dir(&checkpoints).unwrap().flatten().map(|entry| entry.file_name()).max();
    let before = newest();
    let mut last = rounds;
    let end = Instant::now() + PURGED;
    while newest() == before {
        last += 1;
        world.cli(&["cp", "-r", &source.to_string_lossy(), &format!("demo:/round-{last}")]).done();
        assert!(Instant::now() < end, "{leader} took no checkpoint in {PURGED:?}");
    }
    // It is fed while the leader goes on for its writers.
    std::thread::scope(|scope| {
        let during = scope.spawn(|| world.cli(&["cp", "-r", &source.to_string_lossy(), "demo:/during"]).done());
        world.cli(&["node", "restart", away]).done();
        during.join().expect("no call failed");
    });
    wait_received(&world, away);
    make_lead(&world, away);
    world.cli(&["cp", "-r", &source.to_string_lossy(), "demo:/after"]).done();
    mirrors.iter().for_each(|node| world.resume(node));
    wait_for("the mirror to have caught up", 2 * SOON, || (world.lag_of("eu-west")["entries_behind"] == 0).then_some(()));
    assert_eq!(world.leader("us-east").as_deref(), Some(away), "the others' logs served through it");
    let took = mirrors.iter().any(|node| log_of(&world, node).contains("taking a snapshot of the primary"));
    assert!(!took, "the mirror was forced into a full snapshot");
    assert_eq!(world.lag_of("eu-west")["diverged"], false);
    let out = world.scratch("out");
    world.cli(&["cp", "-r", "demo:/after", &out.to_string_lossy(), "--region", "eu-west"]).done();
    tree::assert_equal(&source, &out.join("after"));
}
