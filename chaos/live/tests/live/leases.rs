//! Directories that a mount with `--durable close` holds, among real mounts: a name is made once, whoever holds what, also
//! when the leader or the holder dies (issue point 7).

use farshore_live::{Mount, MountSpec, World, WorldOptions, fuse, wait_for};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const REGION: &str = "us-east";
const ROUNDS: usize = 40;
const NAMES: usize = 6;
const SOON: Duration = Duration::from_secs(60);

fn mount(world: &World, name: &str) -> Mount {
    world.mount(MountSpec { name, flags: &["--durable", "close"], ..MountSpec::default() })
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// Makes directories through `one` until a file in one is open there and not to be seen through `two`: leases are in use.
pub fn wait_for_leases(one: &Mount, two: &Mount) {
    let mut tries = 0;
    let (file, seen) = wait_for("a file that only its mount sees", SOON, || {
        tries += 1;
        let directory = format!("try-{tries}");
        fs::create_dir(one.join(&directory)).unwrap();
        let file = File::create_new(one.join(&directory).join("file")).unwrap();
        let seen = two.join(&directory);
        names(&seen).is_empty().then_some((file, seen))
    });
    wait_for("the others to see it, though it stays open", SOON, || (names(&seen) == ["file"]).then_some(()));
    drop(file);
}

/// Makes a file, as programs do that use one as a lock, and writes into it who did; whether that was this one. Who was told so may
/// lose it only where `cut_off` says that the cluster may not have been there for a while.
fn make(path: &Path, who: &str, cut_off: bool) -> bool {
    let Ok(mut file) = File::create_new(path) else { return false };
    file.write_all(who.as_bytes()).unwrap();
    let kept = file.sync_all();
    assert!(kept.is_ok() || cut_off, "{who} was told that it had made {}: {kept:?}", path.display());
    kept.is_ok()
}

#[test]
fn of_two_mounts_that_make_the_same_names_one_makes_each_also_when_the_leader_dies() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions::default());
    let mounts = [("a", mount(&world, "a")), ("b", mount(&world, "b"))];
    wait_for_leases(&mounts[0].1, &mounts[1].1);
    let mut won = [0, 0];
    for round in 0..ROUNDS {
        let directory = format!("round-{round}");
        fs::create_dir(mounts[round % 2].1.join(&directory)).unwrap();
        let leader = (round == ROUNDS / 2).then(|| world.wait_leader(REGION));
        let cut_off = leader.is_some();
        let [by_a, by_b] = std::thread::scope(|scope| {
            let makers = mounts.each_ref().map(|(who, mount)| {
                let directory = mount.join(&directory);
                scope.spawn(move || {
                    (0..NAMES).map(|name| make(&directory.join(name.to_string()), who, cut_off)).collect::<Vec<_>>()
                })
            });
            if let Some(leader) = &leader {
                world.kill_node(leader);
            }
            makers.map(|maker| maker.join().unwrap())
        });
        for (name, made) in by_a.into_iter().zip(by_b).enumerate() {
            let by = match made {
                (true, false) => 0,
                (false, true) => 1,
                _ => panic!("round {round}, name {name}: a and b have made it: {made:?}"),
            };
            won[by] += 1;
            for (_, mount) in &mounts {
                let found = fs::read_to_string(mount.join(&directory).join(name.to_string())).unwrap();
                assert_eq!(found, mounts[by].0, "round {round}, name {name}");
            }
        }
    }
    assert!(won[0] > 0 && won[1] > 0, "each made some: {won:?}");
    for (_, mount) in mounts {
        mount.unmount();
    }
}

#[test]
fn a_holder_that_is_killed_leaves_its_directory_to_others() {
    if !fuse::require_fuse() {
        return;
    }
    let world = World::start(WorldOptions { nodes: 1, ..WorldOptions::default() });
    let (mut one, two) = (mount(&world, "a"), mount(&world, "b"));
    wait_for_leases(&one, &two);
    fs::create_dir(one.join("dir")).unwrap();
    fs::write(one.join("dir/closed"), "kept").unwrap();
    let open = File::create_new(one.join("dir/open")).unwrap();
    one.kill();
    assert!(make(&two.join("dir/theirs"), "b", false));
    assert_eq!(fs::read_to_string(two.join("dir/closed")).unwrap(), "kept");
    // Whether the open one had been sent is chance; it holds nobody up.
    let names = names(&two.join("dir"));
    assert!(names == ["closed", "open", "theirs"] || names == ["closed", "theirs"], "{names:?}");
    drop(open);
    two.unmount();
}
