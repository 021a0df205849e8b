//! Each planted hazard is found within a bounded number of worlds, and without a plant the same worlds hold.
//!
//! `cargo test -p farshore-sim --features plant --test plants -- --nocapture` prints the seed that finds each of them;
//! `FARSHORE_SEEDS=100` searches further.

mod worlds;

use farshore_sim::plant::{self, Hazard};
use farshore_sim::{Scenario, run};

/// Worlds in which a hazard must be found.
const SEEDS: u64 = 12;

/// The first world that breaks in a way that counts. What a hazard breaks first depends on who did what when; a world
/// that breaks in another way is shown, and the next one is looked at.
fn find(hazard: Hazard, scenario: &Scenario, counts: impl Fn(&str) -> bool) -> Option<u64> {
    plant::set(Some(hazard));
    let found = (0..worlds::seeds(SEEDS)).find_map(|seed| {
        let what = run(seed, scenario).err()?.what;
        println!("{hazard:?}: seed {seed}: {what}");
        counts(&what).then_some(seed)
    });
    plant::set(None);
    found
}

fn is_found(hazard: Hazard, by: &[&str]) {
    is_found_in(&Scenario::mixed(), hazard, by);
}

/// By the callers' history alone: the judge, which sees every disk, is blind.
fn is_found_by_history(hazard: Hazard) {
    is_found_in(&Scenario { judged: false, writers: 0, ..Scenario::linear() }, hazard, &["history: not linearizable"]);
}

fn is_found_in(scenario: &Scenario, hazard: Hazard, by: &[&str]) {
    let found = find(hazard, scenario, |what| by.iter().any(|by| what.starts_with(by)));
    assert!(found.is_some(), "{hazard:?} was not found by {by:?} in {SEEDS} worlds");
}

#[test]
fn hazard_1_1_smallest_pending_is_found() {
    is_found(Hazard::SmallestPending, &["synced", "promised"]);
}

#[test]
fn hazard_1_1_an_interval_that_is_forgotten_early_is_found() {
    is_found(Hazard::ForgetIntervalEarly, &["synced", "promised"]);
}

#[test]
fn hazard_2_1_deletion_at_acknowledgement_is_found() {
    is_found(Hazard::DeleteAtAck, &["deletion", "promised"]);
}

#[test]
fn hazard_3_3_a_retry_under_a_new_session_is_found() {
    is_found(Hazard::RetryUnderNewSession, &["law 10"]);
}

#[test]
fn hazard_3_a_reply_table_that_is_ignored_is_found() {
    is_found(Hazard::ReplyTableIgnored, &["answered_once", "law 10", "digest"]);
}

#[test]
fn hazard_3_a_retry_that_is_applied_again_is_found_by_the_history() {
    is_found_by_history(Hazard::ReplyTableIgnored);
}

#[test]
fn hazard_3_a_stale_read_is_found_by_the_history() {
    is_found_by_history(Hazard::StaleRead);
}

#[test]
fn hazard_5_1_a_mirror_that_applies_twice_is_found() {
    is_found(Hazard::JudgeOutsideApply, &["chained", "prefix", "mirror_order"]);
}

#[test]
fn hazard_6_4_a_rewind_that_owes_nothing_is_found() {
    is_found(Hazard::RewindWithoutReowing, &["synced", "promised"]);
}

#[test]
fn hazard_7_1_applying_ahead_of_the_log_is_found() {
    is_found(Hazard::ApplyAheadOfLog, &["flushed", "chained"]);
}

#[test]
fn hazard_7_1_a_state_that_is_stored_with_gaps_is_found() {
    is_found(Hazard::StoredWithGaps, &["digest", "chained", "synced", "promised", "flushed"]);
}

#[test]
fn hazard_7_6_a_vote_after_a_loss_is_found() {
    // Or nobody can go on: what the others were promised is in no log any more. The same worlds settle without the plant (`rotting`).
    let by = ["chained", "prefix", "digest", "law 10", "a task panicked", "liveness"];
    is_found_in(&Scenario::rotting(), Hazard::VoteAfterLoss, &by);
}

#[test]
fn a_flipped_bit_that_is_believed_is_found() {
    let scenario = Scenario { flips: 20, ..Scenario::mixed() };
    assert!(find(Hazard::FlippedBitsBelieved, &scenario, |_| true).is_some(), "flipped bits that are believed do harm");
}

#[test]
fn law_16_evidence_about_nothing_is_found() {
    is_found(Hazard::FalseEvidence, &["synced", "promised"]);
}

#[test]
fn without_a_plant_the_same_world_holds() {
    plant::set(None);
    run(0, &Scenario::mixed()).unwrap_or_else(|broken| panic!("{broken}"));
    run(0, &Scenario { judged: false, writers: 0, ..Scenario::linear() }).unwrap_or_else(|broken| panic!("{broken}"));
}
