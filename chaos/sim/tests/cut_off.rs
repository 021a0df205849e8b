//! Worlds in which the mirror is cut off while the primary's log goes. `FARSHORE_SEEDS=500` runs more of them,
//! `FARSHORE_SEED=7` only that one, with its whole trace.

use farshore_sim::{Scenario, run};

/// Seeds of an ordinary run, and at most: it goes on until a mirror needed a snapshot, as it does in about every third world.
const SEEDS: u64 = 4;
const SEEDS_MAX: u64 = 40;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

#[test]
fn a_mirror_whose_log_is_gone_takes_a_snapshot_and_settles() {
    let mut snapshots = 0;
    let wanted = from_env("FARSHORE_SEEDS").unwrap_or(SEEDS);
    for seed in 0..wanted.max(SEEDS_MAX) {
        if seed >= wanted && snapshots > 0 {
            break;
        }
        let told = run(seed, &Scenario::cut_off()).unwrap_or_else(|broken| panic!("{broken}"));
        snapshots += told.trace.iter().filter(|line| line.ends_with("has taken a snapshot")).count();
    }
    assert!(snapshots > 0, "no mirror ever needed a snapshot: the scenario tests nothing");
}

/// The world of `FARSHORE_SEED`, told from its beginning; without it, of seed 0, which must hold.
#[test]
fn replay() {
    let asked = from_env("FARSHORE_SEED");
    match run(asked.unwrap_or(0), &Scenario::cut_off()) {
        Ok(told) if asked.is_some() => told.trace.iter().for_each(|line| println!("{line}")),
        Ok(_) => {}
        Err(broken) => {
            broken.trace.iter().for_each(|line| println!("{line}"));
            panic!("{broken}");
        }
    }
}
