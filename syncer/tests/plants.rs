//! Each broken law is found: the same world, with one fault planted in the real code (or, where the law is kept outside
//! of this room, in the world's wiring), must break within a bounded number of seeds.
//!
//! `cargo test -p farshore-syncer --features plant --test plants`

#[cfg(test)]
#[path = "laws/mod.rs"]
mod laws;

use farshore_syncer::plant::{self, Plant};

/// Worlds in which a plant must be found, from its own first seed on. Some faults need a rare story (the model of the
/// laws takes up to 10,000 worlds for them); their search starts shortly before a world that tells it. When the world
/// changes, `FARSHORE_SEEDS=40000` searches all of them from seed 0 and prints where each is found.
const SEEDS: u64 = 200;
const STEPS: usize = 240;

/// The first seed that breaks, and how.
fn first_broken(plant: Plant, from: u64) -> Option<(u64, String)> {
    let wide = std::env::var("FARSHORE_SEEDS").ok().map(|text| 0..text.parse().expect("FARSHORE_SEEDS is a number"));
    plant::set(Some(plant));
    let found = wide.unwrap_or(from..from + SEEDS).find_map(|seed| {
        let broken = laws::run(seed, laws::Pace::Restless, STEPS, false).err();
        broken.map(|(step, law)| (seed, format!("step {step}: {law}")))
    });
    plant::set(None);
    found
}

macro_rules! found {
    ($($name:ident: $plant:ident from $from:literal,)*) => {
        $(#[test]
        fn $name() {
            let (seed, law) = first_broken(Plant::$plant, $from).unwrap_or_else(|| panic!("{:?} was not found in {SEEDS} worlds", Plant::$plant));
            println!("{:?}: seed {seed}, {law}", Plant::$plant);
        })*

        #[test]
        fn every_plant_has_a_test() {
            let tested = [$(Plant::$plant),*];
            assert!(Plant::ALL.iter().all(|plant| tested.contains(plant)), "a plant without a test");
        }
    };
}

found! {
    law_13_smallest_pending_minus_one_is_found: SmallestPendingMinusOne from 0,
    law_14_delete_at_ack_is_found: DeleteAtAck from 0,
    law_7_no_slots_is_found: NoSlots from 0,
    law_13_forget_interval_early_is_found: ForgetIntervalEarly from 0,
    law_20_rewind_without_reowing_is_found: RewindWithoutReowing from 0,
    law_14_live_instead_of_roster_is_found: LiveInsteadOfRoster from 1150,
    law_14_floor_not_committed_is_found: FloorNotCommitted from 100,
    law_3_judge_outside_apply_is_found: JudgeOutsideApply from 0,
    law_14_bare_floor_is_found: BareFloor from 0,
    law_13_forget_at_data_synced_is_found: ForgetAtDataSynced from 0,
    law_13_merge_intervals_is_found: MergeIntervals from 2500,
    law_20_no_null_after_rewind_is_found: NoNullAfterRewind from 800,
    law_7_slot_in_shared_state_is_found: SlotInSharedState from 150,
    law_12_origin_is_a_region_is_found: OriginIsARegion from 50,
}

/// Without a plant the same worlds are clean: what the tests above find is the fault and not the feature.
#[test]
fn without_a_plant_nothing_breaks() {
    plant::set(None);
    assert_eq!(laws::fingerprint(7, STEPS), laws::fingerprint(7, STEPS), "a seed is a world");
    for seed in 0..60 {
        assert_eq!(laws::run(seed, laws::Pace::Restless, STEPS, false), Ok(()), "seed {seed}");
    }
}
