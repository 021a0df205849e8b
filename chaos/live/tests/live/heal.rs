//! The full sync (issue point 8; laws 15, 17).

use farshore_live::{MountSpec, World, WorldOptions, fuse, tree, wait_for};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Whether a file is in a bucket's directory, as the one that was taken out.
fn same(path: &Path, content: &[u8]) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == content.len() as u64)
}

#[test]
fn heal_brings_back_what_ought_to_exist_and_nothing_else() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 1, block_size: "64KiB" });
    // It works for both ledgers while the full sync runs.
    let mount = world.mount(MountSpec { name: "a", ..MountSpec::default() });
    tree::write(&mount.join("kept"), 10, 200_000, 14);
    world.wait_recoverable();
    let kept = world.blocks("us-east");
    fs::write(mount.join("removed"), vec![3u8; 100_000]).unwrap();
    world.wait_recoverable();
    let removed: Vec<_> = world.blocks("us-east").into_keys().filter(|name| !kept.contains_key(name)).collect();
    assert!(!removed.is_empty(), "the file has blocks");
    // A file that is removed takes its blocks along, in both regions.
    fs::remove_file(mount.join("removed")).unwrap();
    wait_for("every block of the removed file to be deleted", 2 * SOON, || {
        let has = |region: &str| removed.iter().any(|name| world.blocks(region).contains_key(name));
        (!has("us-east") && !has("eu-west")).then_some(())
    });
    world.wait_recoverable();
    // One object vanishes in each region, and one appears that nothing names.
    let victim = |region: &str, at: usize| {
        let (name, path) = world.blocks(region).into_iter().nth(at).expect("there are blocks");
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        (name, path, content)
    };
    let (lost_here, path_here, content_here) = victim("us-east", 0);
    let (lost_there, path_there, content_there) = victim("eu-west", 3);
    assert_ne!(lost_here, lost_there, "each is still in the other region");
    let unknown = path_here.with_file_name("281474976700001_0_65536=");
    fs::write(&unknown, &content_here).unwrap();
    let dry = world.cli(&["heal", "demo", "--dry-run", "--json"]).done().json();
    let found = |report: &serde_json::Value, region: &str, key: &str| {
        let regions = report["regions"].as_array().unwrap().clone();
        regions.iter().find(|entry| entry["region"] == region).unwrap()[key].as_u64().unwrap()
    };
    assert_eq!((found(&dry, "us-east", "missing"), found(&dry, "eu-west", "missing")), (1, 1));
    assert!(!path_here.exists() && !path_there.exists(), "a dry run mends nothing");
    let report = world.cli(&["heal", "demo", "--json"]).done().json();
    assert_eq!((found(&report, "us-east", "missing"), found(&report, "eu-west", "missing")), (1, 1));
    assert_eq!(found(&report, "us-east", "unknown"), 1, "law 17: reported");
    wait_for("the objects to be back", SOON, || {
        (same(&path_here, &content_here) && same(&path_there, &content_there)).then_some(())
    });
    assert!(unknown.exists(), "law 17: and left alone");
    for region in ["us-east", "eu-west"] {
        let now = world.blocks(region);
        for name in &removed {
            assert!(!now.contains_key(name), "law 17: {name} of a removed file is back in {region}");
        }
    }
    let source = world.scratch("source");
    tree::write(&source, 10, 200_000, 14);
    tree::assert_equal(&source, &mount.join("kept"));
}

#[test]
fn a_full_sync_runs_by_itself_and_repairs_also_after_a_restart() {
    // The section of the volume is the last one.
    let world = World::start_with(WorldOptions { nodes: 1, block_size: "64KiB" }, "full_sync = { every = \"15s\" }\n");
    let source = world.scratch("source");
    tree::write(&source, 10, 200_000, 31);
    world.cli(&["cp", "-r", &source.to_string_lossy(), "demo:/tree"]).done();
    world.worker("eu-west");
    world.wait_recoverable();
    world.kill_all();
    world.up();
    let next = wait_for("the next run to be known from state", SOON, || {
        world.replication_of("eu-west")["full_sync"]["next_in_seconds"].as_u64()
    });
    assert!(next <= 15, "{next} s until the next run");
    let (name, path) = world.blocks("eu-west").into_iter().next().expect("the bucket has blocks");
    let content = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    wait_for(&format!("{name} to come back by itself"), 2 * SOON, || same(&path, &content).then_some(()));
    let report = world.replication_of("eu-west")["full_sync"].clone();
    assert!(report["runs"].as_u64() >= Some(1), "{report}");
}
