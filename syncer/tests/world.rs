//! The block laws, as a seeded random world over the real code, judged from outside (laws 1, 2, 3, 7, 13, 14, 16, 20).
//!
//! `FARSHORE_SEEDS=5000 cargo test -p farshore-syncer --test world` looks longer; a failure prints the seed, and
//! `FARSHORE_SEED=<seed> cargo test -p farshore-syncer --test world -- --nocapture replay` tells its story step by step.

#[cfg(test)]
mod laws;

/// Seeds of an ordinary test run, and steps of each.
const SEEDS: u64 = 300;
const STEPS: usize = 120;

/// Two worlds of three are calm.
fn pace_of(seed: u64) -> laws::Pace {
    if seed % 3 == 2 { laws::Pace::Restless } else { laws::Pace::Calm }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

#[test]
fn the_laws_hold_in_every_world() {
    let seeds = from_env("FARSHORE_SEEDS").unwrap_or(SEEDS);
    let mut broken = Vec::new();
    for seed in 0..seeds {
        if let Err((step, law)) = laws::run(seed, pace_of(seed), STEPS, false) {
            broken.push(format!("seed {seed} step {step}: {law}"));
        }
    }
    let replay = "replay one: FARSHORE_SEED=<seed> cargo test -p farshore-syncer --test world -- --nocapture replay";
    assert!(
        broken.is_empty(),
        "{} of {seeds} worlds broke a law\n{}\n{replay}",
        broken.len(),
        broken[..broken.len().min(10)].join("\n")
    );
}

#[test]
fn replay() {
    let seed = from_env("FARSHORE_SEED").unwrap_or(0);
    let outcome = laws::run(seed, pace_of(seed), STEPS, from_env("FARSHORE_SEED").is_some());
    assert_eq!(outcome, Ok(()), "seed {seed}");
}

/// The same seed is the same world.
#[test]
fn a_seed_is_a_world() {
    let first = laws::fingerprint(7, STEPS);
    assert_eq!(first, laws::fingerprint(7, STEPS));
    assert_ne!(first, laws::fingerprint(8, STEPS));
}
