//! Worlds in which one node is one version of the state machine older than the others (law 4): it works beside them, nothing
//! is raised that it does not know, and once it is upgraded the volume is. `FARSHORE_SEEDS=500` runs more of them,
//! `FARSHORE_SEED=7` only that one, with its whole trace.

mod worlds;

use farshore_sim::Scenario;

/// Seeds of an ordinary run: the older node is another one each time, now in the primary, now in the mirror.
const SEEDS: u64 = 3;

#[test]
fn law_4_an_older_node_works_beside_newer_ones_until_it_is_upgraded() {
    for seed in 0..worlds::seeds(SEEDS) {
        let told = worlds::world(seed, &Scenario::upgrade());
        let upgraded = told.trace.iter().position(|line| line.ends_with("is upgraded"));
        let raised = told.trace.iter().position(|line| line.ends_with("the version is raised"));
        assert!(upgraded.is_some() && upgraded < raised, "seed {seed}");
    }
}

#[test]
fn replay() {
    worlds::replay(&Scenario::upgrade());
}
