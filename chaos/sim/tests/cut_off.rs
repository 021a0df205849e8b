//! Worlds in which the mirror is cut off while the primary's log goes. `FARSHORE_SEEDS=500` runs more of them,
//! `FARSHORE_SEED=7` only that one, with its whole trace.

mod worlds;

use farshore_sim::Scenario;

/// Seeds of an ordinary run, and at most: it goes on until a mirror needed a snapshot, as it does in about every third world.
const SEEDS: u64 = 4;
const SEEDS_MAX: u64 = 40;

#[test]
fn a_mirror_whose_log_is_gone_takes_a_snapshot_and_settles() {
    let mut snapshots = 0;
    worlds::go_on((0, 1), SEEDS, SEEDS_MAX, |seed| {
        let told = worlds::world(seed, &Scenario::cut_off());
        snapshots += told.trace.iter().filter(|line| line.ends_with("has taken a snapshot")).count();
        snapshots > 0
    });
    assert!(snapshots > 0, "no mirror ever needed a snapshot: the scenario tests nothing");
}

#[test]
fn replay() {
    worlds::replay(&Scenario::cut_off());
}
