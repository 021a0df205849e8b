//! Which worlds a test runs, and how one is told again.
#![allow(dead_code)]

use farshore_sim::{Scenario, Told, run};

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

/// How many worlds a run has: `FARSHORE_SEEDS`, or as many as usual.
pub fn seeds(usual: u64) -> u64 {
    from_env("FARSHORE_SEEDS").unwrap_or(usual)
}

/// The world of a seed, which must hold.
pub fn world(seed: u64, scenario: &Scenario) -> Told {
    run(seed, scenario).unwrap_or_else(|broken| panic!("{broken}"))
}

/// Goes through every `step`th seed from `first` on: as many as a run has, and on from there, below `most`, until `test` says that
/// it saw what it is about. What happens in which world changes with every message that is sent less.
pub fn go_on((first, step): (u64, usize), usual: u64, most: u64, mut test: impl FnMut(u64) -> bool) {
    let wanted = seeds(usual);
    let mut saw = false;
    for seed in (first..wanted.max(most)).step_by(step) {
        if seed >= wanted && saw {
            return;
        }
        saw = test(seed);
    }
}

/// The world of `FARSHORE_SEED`, told from its beginning; without it, of seed 0, which must hold.
pub fn replay(scenario: &Scenario) {
    let asked = from_env("FARSHORE_SEED");
    match run(asked.unwrap_or(0), scenario) {
        Ok(told) if asked.is_some() => told.trace.iter().for_each(|line| println!("{line}")),
        Ok(_) => {}
        Err(broken) => {
            broken.trace.iter().for_each(|line| println!("{line}"));
            panic!("{broken}");
        }
    }
}
