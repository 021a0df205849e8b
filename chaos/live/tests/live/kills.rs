//! `kill -9` at random moments, again and again, under writers: every create that was acknowledged is there afterwards,
//! and the nodes are equal (issue point 2; laws 10, 24). `FARSHORE_KILLS=200` does more rounds.

use crate::disks::wait_equal;
use farshore_live::{MountSpec, Random, World, WorldOptions, fuse, wait_for};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Rounds of an ordinary run.
const ROUNDS: u64 = 12;
const WRITERS: u64 = 4;
/// A kill comes so many milliseconds after the world was whole, at most: while nodes replay, elect and refill.
const MOMENT_MS: u64 = 1500;
const SOON: Duration = Duration::from_secs(90);
/// The mount may live for so long, and for so long more a round, before it is taken for hung.
const MOUNTED: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(20));
const NODES: [&str; 3] = ["use-a", "use-b", "use-c"];
/// Checkpoints and purges happen under the kills as well.
const SHORT: &str = "[log]\ncheckpoint_entries = 400\nretention = \"1MiB\"\n";

fn from_env(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Creates files until the file `stop` is there, each flushed, and notes outside the mount how many were acknowledged.
const WRITER: &str = r#"
mkdir "$1" || exit 1
i=0
while [ ! -e "$3" ]; do
  printf %s $i | dd of="$1/f$i" conv=excl,fsync status=none || exit 1
  i=$((i + 1))
  echo $i > "$2"
done
"#;

/// A writer of its own process: whoever has files open in a mount and forks waits for that mount in the child's exec,
/// so that the one who kills and starts nodes must have none.
struct Writer {
    child: Child,
    noted: PathBuf,
}

impl Writer {
    fn start(directory: &Path, noted: PathBuf, stop: &Path) -> Writer {
        let mut command = Command::new("sh");
        command.args(["-c", WRITER, "writer"]).args([directory, &noted, stop]);
        Writer { child: command.spawn().unwrap(), noted }
    }

    /// How many creates were acknowledged so far.
    fn count(&self) -> u64 {
        fs::read_to_string(&self.noted).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn finish(mut self) -> u64 {
        let ended = wait_for("a writer to end", SOON, || self.child.try_wait().unwrap());
        assert!(ended.success(), "a call of a writer failed");
        self.count()
    }
}

#[test]
fn law_24_nothing_acknowledged_is_missing_after_kills_at_random_moments() {
    if !fuse::require_fuse() {
        return;
    }
    let (rounds, seed) = (from_env("FARSHORE_KILLS", ROUNDS), from_env("FARSHORE_SEED", 1));
    let world = World::start_with(WorldOptions::default(), SHORT);
    let within = MOUNTED.0 + MOUNTED.1 * rounds as u32;
    let mount = world.mount(MountSpec { name: "writer", within: Some(within), ..MountSpec::default() });
    let notes = world.scratch("notes");
    let stop = notes.join("stop");
    let start = |writer| Writer::start(&mount.join(format!("w{writer}")), notes.join(format!("w{writer}")), &stop);
    let writers: Vec<Writer> = (0..WRITERS).map(start).collect();
    kill_rounds(&world, rounds, seed, &writers);
    fs::write(&stop, "").unwrap();
    let counts: Vec<u64> = writers.into_iter().map(Writer::finish).collect();
    mount.unmount();
    wait_equal(&world);
    println!("{rounds} rounds (seed {seed}), {} creates acknowledged", counts.iter().sum::<u64>());
    let reader = world.mount(MountSpec { name: "reader", ..MountSpec::default() });
    for (writer, count) in counts.iter().enumerate() {
        let directory = reader.join(format!("w{writer}"));
        let entries = fs::read_dir(&directory).unwrap();
        let names: BTreeSet<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let expected: BTreeSet<String> = (0..*count).map(|number| format!("f{number}")).collect();
        assert_eq!(names, expected, "writer {writer}");
        for number in [0, count / 2, count - 1] {
            assert_eq!(fs::read_to_string(directory.join(format!("f{number}"))).unwrap(), number.to_string());
        }
    }
}

fn kill_rounds(world: &World, rounds: u64, seed: u64, writers: &[Writer]) {
    let acknowledged = || writers.iter().map(Writer::count).sum::<u64>();
    let mut random = Random::new(seed);
    for round in 0..rounds {
        // The moment itself is what is drawn: nothing is waited for.
        std::thread::sleep(Duration::from_millis(random.below(MOMENT_MS)));
        match random.below(4) {
            0 => NODES.into_iter().for_each(|node| world.kill_node(node)),
            1 => world.kill_node(&world.wait_leader("us-east")),
            _ => world.kill_node(NODES[random.below(3) as usize]),
        }
        world.up();
        let before = acknowledged();
        wait_for(&format!("a create to be acknowledged after round {round}"), SOON, || (acknowledged() > before).then_some(()));
    }
}
