//! The same seed twice: equal traces, to the byte, of what happened and of how the runtime scheduled it.

use farshore_sim::{Scenario, run_recorded};

fn twice(seed: u64, scenario: &Scenario) {
    let first = run_recorded(seed, scenario, true).unwrap_or_else(|broken| panic!("{broken}"));
    let second = run_recorded(seed, scenario, true).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(first.entries > 20, "a world in which something happens, not {} entries", first.entries);
    for (line, (a, b)) in first.trace.iter().zip(&second.trace).enumerate() {
        assert_eq!(a, b, "seed {seed} of `{}`: line {line} differs", scenario.name);
    }
    assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}: one trace is longer");
    assert!(first.schedule == second.schedule, "seed {seed}: the runtime scheduled the two runs differently");
}

#[test]
fn the_same_seed_is_the_same_world() {
    twice(1, &Scenario::calm());
}

#[test]
fn the_same_seed_is_the_same_world_under_faults() {
    twice(2, &Scenario { steps: 60, ..Scenario::mixed() });
}

#[test]
fn another_seed_is_another_world() {
    let trace = |seed| run_recorded(seed, &Scenario::calm(), false).unwrap_or_else(|broken| panic!("{broken}")).trace;
    assert_ne!(trace(1), trace(2));
}
