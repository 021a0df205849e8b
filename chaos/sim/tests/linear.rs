//! Worlds whose callers' history must be linearizable while their leader is killed, paused and cut off. `FARSHORE_SEEDS=500`
//! runs more of them, `FARSHORE_SEED=7` only that one, with its whole trace.

mod worlds;

use farshore_sim::Scenario;

/// Seeds of an ordinary run.
const SEEDS: u64 = 4;

/// Seeds `part`, `part + 2`, ...: two tests run beside each other.
fn seeds(part: u64) {
    let count = worlds::seeds(SEEDS);
    let (mut operations, mut unanswered, mut groups) = (0, 0, 0);
    for seed in (part..count).step_by(2) {
        let told = worlds::world(seed, &Scenario::linear());
        assert!(told.checked.operations > 500, "seed {seed}: a world in which something happens, not {:?}", told.checked);
        operations += told.checked.operations;
        unanswered += told.checked.unanswered;
        groups += told.checked.groups;
    }
    println!("{operations} operations in {groups} groups are linearizable, {unanswered} of them without an answer");
    assert!(unanswered > 0, "no operation was ever in doubt: the scenario tests too little");
}

#[test]
fn even_seeds_are_linearizable() {
    seeds(0);
}

#[test]
fn odd_seeds_are_linearizable() {
    seeds(1);
}

#[test]
fn replay() {
    worlds::replay(&Scenario::linear());
}
