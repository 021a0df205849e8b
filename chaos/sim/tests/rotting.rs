//! Worlds in which disks lose what was acknowledged: damaged logs, replaced disks, flushes that fail (law 24). `FARSHORE_SEEDS=500` runs more of them,
//! `FARSHORE_SEED=7` only that one, with its whole trace.

mod worlds;

use farshore_sim::Scenario;

/// Seeds of an ordinary run, and at most: it goes on until each kind of loss was among them.
const SEEDS: u64 = 6;
const SEEDS_MAX: u64 = 40;

/// Seeds `part`, `part + 2`, ...: two tests run beside each other.
fn seeds(part: u64) {
    let (mut logs, mut disks, mut flushes) = (0, 0, 0);
    worlds::go_on((part, 2), SEEDS, SEEDS_MAX, |seed| {
        let told = worlds::world(seed, &Scenario::rotting());
        let count = |end: &str| told.trace.iter().filter(|line| line.ends_with(end)).count();
        logs += count("loses Log");
        disks += count("loses Disk");
        flushes += count("has stopped by itself");
        logs > 0 && disks > 0 && flushes > 0
    });
    println!("{logs} logs and {disks} disks were lost, {flushes} nodes stopped at a flush that failed");
    assert!(logs > 0 && disks > 0 && flushes > 0, "the scenario tests nothing: {logs}, {disks}, {flushes}");
}

#[test]
fn law_24_even_worlds_lose_nothing() {
    seeds(0);
}

#[test]
fn law_24_odd_worlds_lose_nothing() {
    seeds(1);
}

#[test]
fn replay() {
    worlds::replay(&Scenario::rotting());
}
