//! Worlds in which everything fails now and then. `FARSHORE_SEEDS=500` runs more of them, `FARSHORE_SEED=7` only that one,
//! with its whole trace.

mod worlds;

use farshore_sim::Scenario;

/// Seeds of an ordinary run.
const SEEDS: u64 = 12;

/// Seeds `part`, `part + 2`, ...: two tests run beside each other.
fn seeds(part: u64) {
    let count = worlds::seeds(SEEDS);
    for seed in (part..count).step_by(2) {
        let told = worlds::world(seed, &Scenario::mixed());
        assert!(told.entries > 20, "seed {seed}: a world in which something happens");
    }
}

#[test]
fn even_seeds_hold() {
    seeds(0);
}

#[test]
fn odd_seeds_hold() {
    seeds(1);
}

#[test]
fn replay() {
    worlds::replay(&Scenario::mixed());
}
