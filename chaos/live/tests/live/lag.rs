//! The figures against the truth, counted by ourselves (issue point 9; laws 13, 28).

use farshore_live::{MountSpec, World, WorldOptions, blocks, fuse, tree, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Blocks and bytes that the first bucket has and the second has not.
fn missing(world: &World) -> (u64, u64) {
    let there: BTreeSet<_> = world.blocks("eu-west").into_keys().collect();
    let absent: Vec<_> = world.blocks("us-east").into_keys().filter(|name| !there.contains(name)).collect();
    (absent.len() as u64, absent.iter().filter_map(|name| blocks::size_of(name)).sum())
}

fn figures(lag: &Value) -> (u64, u64) {
    (lag["blocks_behind"].as_u64().expect("a known figure"), lag["bytes_behind"].as_u64().expect("a known figure"))
}

/// The console's answer to a path.
fn console(world: &World, path: &str) -> String {
    let topology = std::fs::read_to_string(world.dir().join("topology.toml")).unwrap();
    let address = topology.split("[console]").nth(1).unwrap().split('"').nth(1).unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The figures of `lag` stand on `/metrics` and in the page's API as well.
fn assert_shown_alike(world: &World, lag: &Value) {
    let labels = "volume=\"demo\",region=\"eu-west\",observer=\"us-east\"";
    let expected: Vec<String> = [
        ("farshore_replication_pending_blocks", "blocks_behind"),
        ("farshore_replication_pending_bytes", "bytes_behind"),
        ("farshore_mirror_applied_index", "mirror_applied"),
        ("farshore_data_synced_index", "data_synced"),
        ("farshore_recoverable_index", "recoverable"),
    ]
    .iter()
    .map(|(metric, key)| format!("{metric}{{{labels}}} {}", lag[key]))
    .collect();
    wait_for("/metrics to show the same figures", SOON, || {
        let metrics = console(world, "/metrics");
        expected.iter().all(|line| metrics.lines().any(|shown| shown == line)).then_some(())
    });
    let page = console(world, "/api/v1/lag");
    for key in ["blocks_behind", "bytes_behind", "mirror_applied", "data_synced", "recoverable"] {
        let shown = format!("\"{key}\":{}", lag[key]);
        assert!(page.replace(": ", ":").contains(&shown), "the console does not say {shown}: {page}");
    }
}

#[test]
fn blocks_and_bytes_behind_are_what_is_missing_in_the_bucket() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 1, block_size: "64KiB" });
    let mount = world.mount(MountSpec { name: "a", ..MountSpec::default() });
    tree::write(&mount.join("before"), 10, 300_000, 15);
    world.wait_recoverable();
    assert_eq!(missing(&world), (0, 0));
    assert_eq!(figures(&world.lag_of("eu-west")), (0, 0));
    let synced = world.lag_of("eu-west")["data_synced"].as_u64().unwrap();

    world.cli(&["replication", "pause", "demo", "--for", "1h", "--reason", "test"]).done();
    tree::write(&mount.join("after"), 10, 300_000, 16);
    let lag = wait_for("the figures to show what is missing", SOON, || {
        let lag = world.lag_of("eu-west");
        (lag["entries_behind"] == 0 && lag["blocks_behind"].as_u64()? > 0 && figures(&lag) == missing(&world)).then_some(lag)
    });
    let (committed, applied) = (lag["committed"].as_u64().unwrap(), lag["mirror_applied"].as_u64().unwrap());
    assert!(lag["data_synced"].as_u64().unwrap() >= synced, "what is synced stays synced");
    assert!(lag["data_synced"].as_u64().unwrap() < applied, "data_synced lies before the first absent block");
    assert!(applied <= committed);
    assert!(lag["data_seconds_behind"].as_f64().unwrap() > 0.0);
    assert_eq!(world.replication_of("eu-west")["state"], "paused", "law 28: what is off says so");
    assert_shown_alike(&world, &lag);
    let check = world.cli(&["lag", "demo", "--check"]);
    assert!(matches!(check.status.code(), Some(0 | 3)), "without objectives nothing can be late for ever: {}", check.status);

    world.cli(&["replication", "resume", "demo"]).done();
    world.wait_recoverable();
    assert_eq!(missing(&world), (0, 0));
    let lag = world.lag_of("eu-west");
    assert_eq!(figures(&lag), (0, 0));
    assert_eq!(lag["recoverable"], lag["committed"]);
}

#[test]
fn with_the_primary_silent_figures_are_stale_and_never_zero() {
    let world = World::start(WorldOptions { nodes: 1, ..WorldOptions::default() });
    wait_for("the mirror to have caught up", SOON, || (world.lag_of("eu-west")["entries_behind"] == 0).then_some(()));
    world.pause("use-a");
    let lag = wait_for("the silence to be noticed", SOON, || {
        let lag = world.lag();
        (lag["stale"] == true).then_some(lag)
    });
    let mirror = lag["regions"].as_array().unwrap().iter().find(|region| region["region"] == "eu-west").unwrap().clone();
    let seconds = &mirror["metadata_seconds_behind"];
    assert!(seconds.is_null() || (mirror["at_least"] == true && seconds.as_f64().unwrap() > 0.0), "{mirror}");
    assert_eq!(world.cli(&["lag", "demo", "--check"]).status.code(), Some(4), "not known");
    world.resume("use-a");
    wait_for("the primary to be heard again", SOON, || (world.lag()["stale"] == false).then_some(()));
}
