//! Ends and starts: what was acknowledged is there afterwards (issue point 2; laws 10, 24).

use farshore_live::{MountSpec, World, WorldOptions, fuse, tree, wait_for};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Copies a file into the volume without FUSE.
fn put(world: &World, name: &str, content: &[u8]) {
    let source = world.scratch("sources").join(name);
    fs::write(&source, content).unwrap();
    world.cli(&["cp", source.to_str().unwrap(), &format!("demo:/{name}")]).done();
}

fn get(world: &World, name: &str) -> Vec<u8> {
    world.cli(&["cat", &format!("demo:/{name}")]).done().stdout
}

#[test]
fn down_and_up_keep_the_data() {
    let world = World::start(WorldOptions::default());
    put(&world, "kept", b"written before");
    world.down();
    assert!(world.pids().is_empty(), "`down` leaves nothing running");
    world.up();
    assert_eq!(get(&world, "kept"), b"written before");
    put(&world, "later", b"written after");
    assert_eq!(get(&world, "later"), b"written after");
}

#[test]
fn up_starts_only_what_is_missing() {
    let world = World::start(WorldOptions::default());
    let before = world.pids();
    let leader = world.wait_leader("us-east");
    world.kill_node(&leader);
    let report = world.up();
    assert_eq!(report["started"], serde_json::json!([leader]));
    let after = world.pids();
    for (name, pid) in before.iter().filter(|(name, _)| **name != leader) {
        assert_eq!(after.get(name), Some(pid), "{name} was started again");
    }
}

#[test]
fn kill_of_everything_and_up_keep_what_was_acknowledged() {
    let world = World::start(WorldOptions::default());
    for at in 0..10 {
        put(&world, &format!("file{at}"), format!("content {at}").as_bytes());
    }
    world.kill_all();
    world.up();
    for at in 0..10 {
        assert_eq!(get(&world, &format!("file{at}")), format!("content {at}").as_bytes());
    }
}

#[test]
fn a_copy_goes_on_when_the_leader_is_killed() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions::default());
    let mount = world.mount(MountSpec { name: "a", ..MountSpec::default() });
    let source = world.scratch("source");
    tree::write(&source, 300, 20_000, 11);
    let target = mount.join("copy");
    fs::create_dir(&target).unwrap();
    let copying = std::thread::spawn({
        let target = target.clone();
        // The same seed makes the same tree.
        move || tree::write(&target, 300, 20_000, 11)
    });
    wait_for("the copy to be under way", SOON, || target.join("d3").exists().then_some(()));
    let killed = world.wait_leader("us-east");
    world.kill_node(&killed);
    copying.join().expect("no write failed");
    assert_ne!(world.wait_leader("us-east"), killed);
    tree::assert_equal(&source, &target);
    mount.unmount();
    // Another client, with caches of its own, sees the same.
    let mount = world.mount(MountSpec { name: "b", ..MountSpec::default() });
    tree::assert_equal(&source, &mount.join("copy"));
}

#[test]
fn a_mount_whose_process_died_is_cleared_by_umount() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 1, ..WorldOptions::default() });
    let mut mount = world.mount(MountSpec { name: "a", ..MountSpec::default() });
    fs::write(mount.join("file"), "committed by close").unwrap();
    mount.kill();
    let error = fs::metadata(mount.path()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    world.cli(&["umount", mount.path().to_str().unwrap()]).done();
    assert_eq!(fuse::mounted_on(mount.path()), None);
    assert_eq!(get(&world, "file"), b"committed by close");
}

#[test]
fn a_mount_with_open_files_ends_in_time_and_loses_nothing_that_was_written() {
    use std::io::Write;
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 1, ..WorldOptions::default() });
    let mount = world.mount(MountSpec { name: "a", ..MountSpec::default() });
    let mut open = fs::File::create(mount.join("open")).unwrap();
    open.write_all(b"written and never closed").unwrap();
    mount.unmount();
    assert!(open.write_all(b"more").is_err(), "the mount is gone");
    assert_eq!(get(&world, "open"), b"written and never closed");
}
