//! Nodes that join, leave, take each other's place and are restarted, while clients write (issue point 5; laws 7, 10, 25).

use farshore_live::load::Load;
use farshore_live::{MountSpec, World, WorldOptions, fuse, process, wait_for};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const WRITERS: usize = 4;
/// Files that must have been written before the next thing happens.
const SOME: u64 = 200;

fn names(world: &World, region: &str) -> Vec<(String, String)> {
    let status = world.status();
    let of_region = status["nodes"].as_array().unwrap().iter().filter(|node| node["region"] == region);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    of_region.map(|node| (text(&node["name"]), text(&node["role"]))).collect()
}

fn log_of(world: &World, node: &str) -> String {
    fs::read_to_string(world.dir().join("logs").join(format!("{node}.log"))).unwrap_or_default()
}

fn mirror_took_a_snapshot(world: &World) -> bool {
    ["euw-a", "euw-b", "euw-c"].iter().any(|node| log_of(world, node).contains("taking a snapshot of the primary"))
}

fn wait_mirror_equal(world: &World) {
    wait_for("the mirror to have everything", SOON, || (world.lag_of("eu-west")["entries_behind"] == 0).then_some(()));
    assert_eq!(world.lag_of("eu-west")["diverged"], false);
}

/// Declares `new` where the topology has `old`, on ports of its own.
fn declare_instead(world: &World, old: &str, new: &str) {
    let line = format!("{{ name = \"{new}\", listen = \"127.0.0.1:{}\" }},", world.free_port());
    world.edit_topology(|text| {
        let lines = text.lines().map(|have| if have.contains(&format!("name = \"{old}\"")) { &line } else { have });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    });
}

#[test]
fn all_nodes_of_a_cluster_are_replaced_under_load_and_nobody_notices() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions::default());
    let mount = world.mount(MountSpec { name: "a", ..MountSpec::default() });
    let load = Load::start(mount.path(), WRITERS);
    for (old, new) in [("use-a", "use-d"), ("use-b", "use-e"), ("use-c", "use-f")] {
        load.wait_for_more(SOME, SOON);
        let pid = world.pids()[old];
        declare_instead(&world, old, new);
        let report = world.cli(&["node", "replace", old, "--with", new, "--json"]).done().json();
        assert_eq!((&report["added"], &report["removed"]), (&new.into(), &old.into()));
        // Repeating it is no error.
        world.cli(&["node", "replace", old, "--with", new]).done();
        process::wait_gone(pid, SOON);
    }
    load.wait_for_more(SOME, SOON);
    let nodes = names(&world, "us-east");
    let follow = nodes.iter().filter(|(_, role)| role == "follower").count();
    let all: Vec<&str> = nodes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((all, follow), (vec!["use-d", "use-e", "use-f"], 2), "{nodes:?}");
    // The mount was told of none of these when it began; it must find whoever leads next.
    let leader = world.wait_leader("us-east");
    world.kill_node(&leader);
    load.wait_for_more(SOME, SOON);
    let written = load.finish();
    eprintln!("{} files; the longest call took {:?}", written.files.len(), written.longest);
    mount.unmount();
    world.up();
    let mount = world.mount(MountSpec { name: "b", ..MountSpec::default() });
    written.assert_in(mount.path());
    wait_mirror_equal(&world);
    assert!(!mirror_took_a_snapshot(&world), "the mirror goes on by its cursor");
}

#[test]
fn a_replacement_that_is_cut_off_at_every_step_and_whose_leader_is_killed_still_gets_there() {
    let world = World::start(WorldOptions::default());
    let leader = world.wait_leader("us-east");
    let old = ["use-a", "use-b", "use-c"].into_iter().find(|name| *name != leader).unwrap();
    declare_instead(&world, old, "use-d");
    let mut cut_off = 0;
    wait_for("the replacement to be done", 3 * SOON, || {
        // One look, one step, and it gives up.
        let tried = world.cli(&["node", "replace", old, "--with", "use-d", "--timeout", "0"]);
        if tried.status.success() {
            return Some(());
        }
        assert!(tried.stderr.contains("repeat the command"), "{}", tried.stderr);
        cut_off += 1;
        if cut_off == 1 {
            world.kill_node(&leader);
            world.up();
        }
        None
    });
    assert!(cut_off >= 2, "taking in and changing who votes are two steps: {cut_off}");
    let mut nodes: Vec<String> = names(&world, "us-east").into_iter().map(|(name, _)| name).collect();
    nodes.sort();
    let mut expected: Vec<&str> = ["use-a", "use-b", "use-c", "use-d"].into_iter().filter(|name| *name != old).collect();
    expected.sort_unstable();
    assert_eq!(nodes, expected);
    assert!(names(&world, "us-east").iter().all(|(_, role)| role == "leader" || role == "follower"));
}

#[test]
fn a_cluster_grows_from_one_node_and_shrinks_again() {
    let world = World::start(WorldOptions { nodes: 1, ..WorldOptions::default() });
    let refused = world.cli(&["node", "add", "use-b"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("declares no node") && refused.stderr.contains("listen ="), "{}", refused.stderr);
    let line = |name: &str| format!("  {{ name = \"{name}\", listen = \"127.0.0.1:{}\" }},\n", world.free_port());
    let lines = line("use-b") + &line("use-c");
    world.edit_topology(|text| text.replacen("nodes = [\n", &format!("nodes = [\n{lines}"), 1));
    for name in ["use-b", "use-c"] {
        world.cli(&["node", "add", name]).done();
    }
    // The one that began, and leads, goes: it hands over first.
    world.cli(&["node", "remove", "use-a"]).done();
    wait_for("use-a to end", SOON, || (!world.pids().contains_key("use-a")).then_some(()));
    let refused = world.cli(&["up"]);
    assert!(!refused.status.success() && refused.stderr.contains("was taken out of its cluster"), "{}", refused.stderr);
    let refused = world.cli(&["node", "remove", "use-a"]);
    assert!(refused.stderr.contains("has no node \"use-a\""), "{}", refused.stderr);
    world.cli(&["node", "remove", "use-b"]).done();
    let refused = world.cli(&["node", "remove", "use-c"]);
    assert!(refused.stderr.contains("the only node that votes"), "{}", refused.stderr);
    let source = world.scratch("sources").join("file");
    fs::write(&source, "still there").unwrap();
    world.cli(&["cp", source.to_str().unwrap(), "demo:/file"]).done();
    wait_mirror_equal(&world);
}

#[test]
fn law_7_a_node_that_nobody_knew_any_more_is_another_one_and_takes_its_own_place() {
    let world = World::start(WorldOptions::default());
    let leader = world.wait_leader("us-east");
    let others: Vec<&str> = ["use-a", "use-b", "use-c"].into_iter().filter(|name| *name != leader).collect();
    let (lost, third) = (others[0], others[1]);
    world.kill_node(lost);
    let directory = world.dir().join("nodes").join(lost);
    fs::remove_dir_all(&directory).unwrap();
    // While nobody can say who it was, it begins as a new node.
    [leader.as_str(), third].iter().for_each(|node| world.pause(node));
    let mut alone = world.command(&["node", "run", lost]).spawn().unwrap();
    wait_for("the node to have a directory", SOON, || directory.join("node.json").exists().then_some(()));
    alone.kill().unwrap();
    alone.wait().unwrap();
    [leader.as_str(), third].iter().for_each(|node| world.resume(node));
    world.wait_leader("us-east");
    world.up();
    let role = |name: &str| names(&world, "us-east").into_iter().find(|(node, _)| node == name).map(|(_, role)| role);
    assert_eq!(role(lost).as_deref(), Some("no-member"), "it has forgotten whom it voted for, and does not vote");
    let refused = world.cli(&["node", "add", lost]);
    assert!(refused.stderr.contains(&format!("node replace {lost} --with {lost}")), "{}", refused.stderr);
    world.cli(&["node", "replace", lost, "--with", lost]).done();
    assert_eq!(role(lost).as_deref(), Some("follower"));
    // Without one of the others, the two that are left need each other.
    world.kill_node(&world.wait_leader("us-east"));
    let source = world.scratch("sources").join("file");
    fs::write(&source, "by the new one").unwrap();
    world.cli(&["cp", source.to_str().unwrap(), "demo:/file"]).done();
}

#[test]
fn a_removal_that_would_leave_no_quorum_is_refused() {
    let world = World::start(WorldOptions::default());
    let leader = world.wait_leader("us-east");
    let others: Vec<&str> = ["use-a", "use-b", "use-c"].into_iter().filter(|name| *name != leader).collect();
    world.kill_node(others[0]);
    let refused = world.cli(&["node", "remove", others[1]]);
    assert!(!refused.status.success(), "it was taken out, and nobody can decide any more");
    assert!(refused.stderr.contains("2 nodes would vote") && refused.stderr.contains("only 1 answer"), "{}", refused.stderr);
    // The one that is down can go.
    world.cli(&["node", "remove", others[0]]).done();
    world.cli(&["ls", "demo:/"]).done();
}

#[test]
fn all_six_nodes_are_restarted_in_turn_under_load_and_no_call_fails() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions::default());
    let mount = world.mount(MountSpec { name: "a", ..MountSpec::default() });
    let load = Load::start(mount.path(), WRITERS);
    load.wait_for_more(SOME, SOON);
    let before = world.pids();
    let report = world.cli(&["node", "restart", "--all", "--json"]).done().json();
    assert_eq!(report["restarted"].as_array().unwrap().len(), 6);
    load.wait_for_more(SOME, SOON);
    let written = load.finish();
    eprintln!("{} files during the restart of six nodes; the longest call took {:?}", written.files.len(), written.longest);
    let after = world.pids();
    for name in ["use-a", "use-b", "use-c", "euw-a", "euw-b", "euw-c"] {
        assert_ne!(before[name], after[name], "{name} was restarted");
    }
    let handed = ["use-a", "use-b", "use-c"].iter().filter(|node| log_of(&world, node).contains("is handed over")).count();
    assert!(handed > 0, "the leader handed over before it stopped");
    mount.unmount();
    let mount = world.mount(MountSpec { name: "b", ..MountSpec::default() });
    written.assert_in(mount.path());
    wait_mirror_equal(&world);
    assert!(!mirror_took_a_snapshot(&world));
}
