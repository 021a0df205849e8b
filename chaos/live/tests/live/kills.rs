//! `kill -9` at random moments, again and again, under writers: every create that was acknowledged is there afterwards,
//! and the nodes are equal (issue point 2; laws 10, 24). `FARSHORE_KILLS=200` does more rounds.

use crate::disks::wait_equal;
use farshore_live::{MountSpec, Random, World, WorldOptions, fuse, wait_for};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Rounds of an ordinary run.
const ROUNDS: u64 = 12;
const WRITERS: u64 = 4;
/// A kill comes so many milliseconds after the world was whole, at most: while nodes replay, elect and refill.
const MOMENT_MS: u64 = 1500;
const SOON: Duration = Duration::from_secs(90);
const NODES: [&str; 3] = ["use-a", "use-b", "use-c"];
/// Checkpoints and purges happen under the kills as well.
const SHORT: &str = "[log]\ncheckpoint_entries = 400\nretention = \"1MiB\"\n";

fn from_env(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Creates files until told to stop; returns how many were acknowledged: those are numbered without a gap.
fn write(directory: &Path, stop: &AtomicBool, acknowledged: &AtomicU64) -> u64 {
    fs::create_dir(directory).unwrap();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return number;
        }
        let mut file = File::create_new(directory.join(format!("f{number}"))).unwrap();
        file.write_all(number.to_string().as_bytes()).unwrap();
        // The close answers for the file: an error of it is one of this call.
        file.sync_all().unwrap();
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("the loop ends by itself")
}

#[test]
fn law_24_nothing_acknowledged_is_missing_after_kills_at_random_moments() {
    if !fuse::require_fuse() {
        return;
    }
    let (rounds, seed) = (from_env("FARSHORE_KILLS", ROUNDS), from_env("FARSHORE_SEED", 1));
    let world = World::start_with(WorldOptions::default(), SHORT);
    let mount = world.mount(MountSpec { name: "writer", ..MountSpec::default() });
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (directory, stop, acknowledged) = (mount.join(&format!("w{writer}")), &stop, &acknowledged);
                scope.spawn(move || write(&directory, stop, acknowledged))
            })
            .collect();
        // Writers that wait for ever must not keep a failed test from ending.
        let guard = StopOnDrop(&stop);
        kill_rounds(&world, rounds, seed, &acknowledged);
        drop(guard);
        writers.into_iter().map(|writer| writer.join().expect("no call failed")).collect()
    });
    mount.unmount();
    wait_equal(&world);
    println!("{rounds} rounds (seed {seed}), {} creates acknowledged", counts.iter().sum::<u64>());
    let reader = world.mount(MountSpec { name: "reader", ..MountSpec::default() });
    for (writer, count) in counts.iter().enumerate() {
        let directory = reader.join(&format!("w{writer}"));
        let names: BTreeSet<String> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let expected: BTreeSet<String> = (0..*count).map(|number| format!("f{number}")).collect();
        assert_eq!(names, expected, "writer {writer}");
        for number in [0, count / 2, count - 1] {
            assert_eq!(fs::read_to_string(directory.join(format!("f{number}"))).unwrap(), number.to_string());
        }
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn kill_rounds(world: &World, rounds: u64, seed: u64, acknowledged: &AtomicU64) {
    let mut random = Random::new(seed);
    for round in 0..rounds {
        let before = acknowledged.load(Ordering::Relaxed);
        // The moment itself is what is drawn: nothing is waited for.
        std::thread::sleep(Duration::from_millis(random.below(MOMENT_MS)));
        match random.below(4) {
            0 => NODES.into_iter().for_each(|node| world.kill_node(node)),
            1 => world.kill_node(&world.wait_leader("us-east")),
            _ => world.kill_node(NODES[random.below(3) as usize]),
        }
        world.up();
        wait_for(&format!("a create to be acknowledged after round {round}"), SOON, || {
            (acknowledged.load(Ordering::Relaxed) > before).then_some(())
        });
    }
}
