//! Two buckets: fallback, `--flip`, `--bucket`, and what is lost with a bucket (issue points 6 and 7).

use farshore_live::{MountSpec, World, WorldOptions, fuse, tree, wait_for};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const SMALL: WorldOptions = WorldOptions { nodes: 1, block_size: "64KiB" };

fn primary() -> MountSpec<'static> {
    MountSpec { name: "primary", ..MountSpec::default() }
}

fn pause(world: &World) {
    world.cli(&["replication", "pause", "demo", "--for", "1h", "--reason", "test"]).done();
}

#[test]
fn a_block_that_is_not_here_yet_is_read_from_the_other_region_and_counted() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(SMALL);
    pause(&world);
    let mount = world.mount(primary());
    tree::write(&mount.join("tree"), 20, 300_000, 8);
    wait_for("the mirror to have everything", SOON, || (world.lag_of("eu-west")["entries_behind"] == 0).then_some(()));
    assert!(world.blocks("eu-west").is_empty(), "copying is paused");
    let mirror =
        world.mount(MountSpec { name: "mirror", region: Some("eu-west"), flags: &["--read-only"], ..MountSpec::default() });
    wait_for("the mount to show it", SOON, || mirror.join("tree/d6").exists().then_some(()));
    tree::assert_equal(&mount.join("tree"), &mirror.join("tree"));
    wait_for("the fallback reads to be counted", SOON, || {
        (world.replication_of("eu-west")["figures"]["fallback_blocks_total"].as_u64()? > 0).then_some(())
    });
}

#[test]
fn workers_copy_every_block_byte_by_byte() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(SMALL);
    let mount = world.mount(MountSpec { flags: &["--no-bgjob"], ..primary() });
    tree::write(&mount.join("tree"), 30, 300_000, 9);
    mount.unmount();
    world.worker("eu-west");
    world.wait_recoverable();
    let names = |region| world.blocks(region).into_keys().collect::<BTreeSet<_>>();
    assert_eq!(names("us-east"), names("eu-west"));
    assert!(!names("us-east").is_empty());
}

#[test]
fn with_flip_the_targets_bucket_is_written_first_and_the_copies_run_the_other_way() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(SMALL);
    pause(&world);
    let mount = world.mount(MountSpec { name: "flip", region: Some("eu-west"), flags: &["--flip"], ..MountSpec::default() });
    tree::write(&mount.join("tree"), 10, 300_000, 10);
    assert!(!world.blocks("eu-west").is_empty(), "the target's bucket is written first");
    assert!(world.blocks("us-east").is_empty(), "copying is paused");
    world.cli(&["replication", "resume", "demo"]).done();
    wait_for("the copies to run the other way", 2 * SOON, || {
        (world.blocks("us-east").keys().eq(world.blocks("eu-west").keys())).then_some(())
    });
}

#[test]
fn with_a_bucket_lost_the_other_serves_and_what_was_not_copied_was_listed_and_gives_eio() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(SMALL);
    let mount = world.mount(primary());
    tree::write(&mount.join("copied"), 20, 200_000, 12);
    world.wait_recoverable();
    pause(&world);
    fs::write(mount.join("not-copied"), vec![9u8; 150_000]).unwrap();
    mount.unmount();
    let listed = wait_for("the file to be listed as owed", SOON, || {
        let owed = world.replication_of("eu-west")["owed"].as_array()?.clone();
        (!owed.is_empty()).then_some(owed)
    });
    let paths: BTreeSet<_> = listed.iter().filter_map(|block| block["path"].as_str()).collect();
    assert_eq!(paths, BTreeSet::from(["/not-copied"]));
    let url = |region: &str| {
        let status = world.status();
        let buckets = status["buckets"].as_array().unwrap().clone();
        buckets.iter().find(|bucket| bucket["region"] == region).unwrap()["url"].as_str().unwrap().to_owned()
    };
    let second = url("eu-west");
    world.kill_bucket("us-east");
    let mount = world.mount(MountSpec { name: "failover", region: None, flags: &["--bucket", &second], ..MountSpec::default() });
    // The tree was made from this seed.
    let source = world.scratch("source");
    tree::write(&source, 20, 200_000, 12);
    tree::assert_equal(&source, &mount.join("copied"));
    let error = fs::read(mount.join("not-copied")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let block = listed[0]["block"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let log = world.client_logs();
    assert!(log.contains("not-copied") && log.contains(block.split('_').next().unwrap()), "the log names path and block:\n{log}");
    fs::write(mount.join("after"), vec![1u8; 100_000]).unwrap();
    assert_eq!(fs::read(mount.join("after")).unwrap(), vec![1u8; 100_000], "writing goes on as well");
}
