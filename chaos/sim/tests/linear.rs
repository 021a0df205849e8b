//! Worlds whose callers' history must be linearizable while their leader is killed, paused and cut off. `FARSHORE_SEEDS=500`
//! runs more of them, `FARSHORE_SEED=7` only that one, with its whole trace.

use farshore_sim::{Scenario, run};

/// Seeds of an ordinary run.
const SEEDS: u64 = 4;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

/// Seeds `part`, `part + 2`, ...: two tests run beside each other.
fn seeds(part: u64) {
    let count = from_env("FARSHORE_SEEDS").unwrap_or(SEEDS);
    let (mut operations, mut unanswered, mut groups) = (0, 0, 0);
    for seed in (part..count).step_by(2) {
        let told = run(seed, &Scenario::linear()).unwrap_or_else(|broken| panic!("{broken}"));
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

/// The world of `FARSHORE_SEED`, told from its beginning; without it, of seed 0, which must hold.
#[test]
fn replay() {
    let asked = from_env("FARSHORE_SEED");
    match run(asked.unwrap_or(0), &Scenario::linear()) {
        Ok(told) if asked.is_some() => told.trace.iter().for_each(|line| println!("{line}")),
        Ok(_) => {}
        Err(broken) => {
            broken.trace.iter().for_each(|line| println!("{line}"));
            panic!("{broken}");
        }
    }
}
