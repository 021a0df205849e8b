//! Reading from a mirror (issue point 5; law 28).

use farshore_live::{MountSpec, World, WorldOptions, fuse, tree, wait_for};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn read_only(name: &'static str) -> MountSpec<'static> {
    MountSpec { name, region: Some("eu-west"), flags: &["--read-only"], ..MountSpec::default() }
}

/// Every kind of change, on an existing file `file` and directory `dir`.
fn changes(root: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let (file, dir, new) = (root.join("file"), root.join("dir"), root.join("new"));
    let past = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    vec![
        ("create", File::create_new(&new).map(drop)),
        ("open for writing", OpenOptions::new().write(true).open(&file).map(drop)),
        ("append", OpenOptions::new().append(true).open(&file).map(drop)),
        ("truncate", OpenOptions::new().write(true).truncate(true).open(&file).map(drop)),
        ("mkdir", fs::create_dir(&new)),
        ("rmdir", fs::remove_dir(&dir)),
        ("unlink", fs::remove_file(&file)),
        ("rename", fs::rename(&file, &new)),
        ("link", fs::hard_link(&file, &new)),
        ("symlink", symlink("file", &new)),
        ("chmod", fs::set_permissions(&file, Permissions::from_mode(0o600))),
        ("chown", chown(&file, Some(1), Some(1))),
        ("utimens", File::open(&file).and_then(|file| file.set_times(past))),
    ]
}

#[test]
fn a_mirror_serves_reads_and_refuses_every_change_at_once() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 3, block_size: "64KiB" });
    let primary = world.mount(MountSpec { name: "primary", ..MountSpec::default() });
    fs::write(primary.join("file"), "content").unwrap();
    fs::create_dir(primary.join("dir")).unwrap();
    tree::write(&primary.join("tree"), 60, 200_000, 5);
    let mirror = world.mount(read_only("mirror"));
    // Blocks that were not copied yet come from the other region.
    wait_for("the mirror to have everything", SOON, || (world.lag_of("eu-west")["entries_behind"] == 0).then_some(()));
    wait_for("the mount to show it", SOON, || mirror.join("tree/d6").exists().then_some(()));
    tree::assert_equal(&primary.join("tree"), &mirror.join("tree"));
    for (what, outcome) in changes(mirror.path()) {
        let error = outcome.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
    }
    tree::assert_equal(primary.path(), mirror.path());
}

#[test]
fn a_mirror_goes_on_after_it_and_its_primary_were_killed() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions::default());
    let primary = world.mount(MountSpec { name: "primary", ..MountSpec::default() });
    fs::write(primary.join("first"), "1").unwrap();
    world.kill_node(&world.wait_leader("eu-west"));
    fs::write(primary.join("second"), "2").unwrap();
    world.kill_node(&world.wait_leader("us-east"));
    fs::write(primary.join("third"), "3").unwrap();
    world.up();
    let mirror = world.mount(read_only("mirror"));
    for (name, content) in [("first", "1"), ("second", "2"), ("third", "3")] {
        let found = wait_for(&format!("the mirror to show {name}"), SOON, || fs::read_to_string(mirror.join(name)).ok());
        assert_eq!(found, content);
    }
    assert_eq!(world.lag_of("eu-west")["diverged"], false);
}

#[test]
fn what_is_changed_is_seen_through_the_mirror_without_remounting() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 1, block_size: "64KiB" });
    let primary = world.mount(MountSpec { name: "primary", ..MountSpec::default() });
    let mirror = world.mount(read_only("mirror"));
    for round in 0..5 {
        let content = format!("round {round}");
        fs::write(primary.join("file"), &content).unwrap();
        wait_for(&format!("{content} on the mirror"), SOON, || {
            (fs::read_to_string(mirror.join("file")).ok()? == content).then_some(())
        });
    }
}
