//! Worlds in which one node is one version of the state machine older than the others (law 4): it works beside them, nothing
//! is raised that it does not know, and once it is upgraded the volume is. `FARSHORE_SEEDS=500` runs more of them,
//! `FARSHORE_SEED=7` only that one, with its whole trace.

use farshore_sim::{Scenario, run};

/// Seeds of an ordinary run: the older node is another one each time, now in the primary, now in the mirror.
const SEEDS: u64 = 3;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

#[test]
fn law_4_an_older_node_works_beside_newer_ones_until_it_is_upgraded() {
    for seed in 0..from_env("FARSHORE_SEEDS").unwrap_or(SEEDS) {
        let told = run(seed, &Scenario::upgrade()).unwrap_or_else(|broken| panic!("{broken}"));
        let upgraded = told.trace.iter().position(|line| line.ends_with("is upgraded"));
        let raised = told.trace.iter().position(|line| line.ends_with("the version is raised"));
        assert!(upgraded.is_some() && upgraded < raised, "seed {seed}");
    }
}

/// The world of `FARSHORE_SEED`, told from its beginning.
#[test]
fn replay() {
    let Some(seed) = from_env("FARSHORE_SEED") else { return };
    match run(seed, &Scenario::upgrade()) {
        Ok(told) => told.trace.iter().for_each(|line| println!("{line}")),
        Err(broken) => {
            broken.trace.iter().for_each(|line| println!("{line}"));
            panic!("{broken}");
        }
    }
}
