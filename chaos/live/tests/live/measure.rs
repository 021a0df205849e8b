//! `mdtest` and `bench` on a volume, by a mount and by sessions; what they leave behind is nothing.

use farshore_live::{MountSpec, World, WorldOptions, fuse};
use std::fs;

const SMALL: [&str; 8] = ["--threads", "3", "--dirs", "2", "--depth", "1", "--files", "4"];

fn rates(world: &World, place: &str, more: &[&str]) {
    let report = world.cli(&[&["mdtest", place, "--json", "--write", "100"], SMALL.as_slice(), more].concat()).done().json();
    let operations = report["operations"].as_object().unwrap();
    assert_eq!(operations.len(), 9);
    for (name, rate) in operations {
        assert!(rate["mean"].as_f64().is_some_and(|rate| rate > 0.0), "{place}: {name}: {rate}");
    }
}

fn sizes(world: &World, place: &str) {
    let sizes = ["--big-file-size", "3MiB", "--small-file-count", "5", "--threads", "2", "--keep-caches", "--json"];
    let report = world.cli(&[&["bench", place], sizes.as_slice()].concat()).done().json();
    for item in ["write_big_file", "read_big_file"] {
        assert!(report["items"][item]["mib_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{item}: {report}");
    }
    assert_eq!(report["items"]["stat_file"]["files"], 10);
}

#[test]
fn by_sessions_and_by_a_mount_every_operation_is_measured_and_nothing_is_left() {
    let world = World::start(WorldOptions { nodes: 1, block_size: "64KiB" });
    rates(&world, "demo:/", &["--sessions", "2", "--iterations", "2"]);
    sizes(&world, "demo:/");
    assert_eq!(world.cli(&["ls", "demo:/"]).done().text(), "");
    if !fuse::require_fuse() {
        return;
    }
    let mount = world.mount(MountSpec { name: "a", flags: &["--no-bgjob"], ..MountSpec::default() });
    let place = mount.path().to_str().unwrap().to_owned();
    rates(&world, &place, &[]);
    sizes(&world, &place);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
    // A work directory that is there may be somebody's.
    fs::create_dir(mount.join("farshore-mdtest")).unwrap();
    for place in [place.as_str(), "demo:/"] {
        let refused = world.cli(&["mdtest", place]);
        assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains("farshore-mdtest exists"), "{}", refused.stderr);
    }
    assert!(mount.join("farshore-mdtest").exists());
}
