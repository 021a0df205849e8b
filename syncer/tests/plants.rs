//! Each broken law is found: the same world, with one fault planted in the real code (or, where the law is kept outside
//! of this room, in the world's wiring), must break within a bounded number of seeds.
//!
//! `cargo test -p farshore-syncer --features plant --test plants`

#[path = "laws/mod.rs"]
mod laws;

use farshore_syncer::plant::{self, Plant};

/// A plant that survives so many worlds is not found.
const SEEDS: u64 = 1500;
const STEPS: usize = 240;

/// The first seed that breaks, and how; panics count as found too, since an assertion is a law's last door.
fn first_broken(plant: Plant) -> Option<(u64, String)> {
    plant::set(Some(plant));
    let found = (0..SEEDS).find_map(|seed| match std::panic::catch_unwind(|| laws::run(seed, laws::Pace::Restless, STEPS, false)) {
        Ok(Ok(())) => None,
        Ok(Err((step, law))) => Some((seed, format!("step {step}: {law}"))),
        Err(_) => Some((seed, "an assertion stopped the node".to_owned())),
    });
    plant::set(None);
    found
}

macro_rules! found {
    ($($name:ident: $plant:ident,)*) => {
        $(#[test]
        fn $name() {
            let (seed, law) = first_broken(Plant::$plant).unwrap_or_else(|| panic!("{:?} was not found in {SEEDS} worlds", Plant::$plant));
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
    law_13_smallest_pending_minus_one_is_found: SmallestPendingMinusOne,
    law_14_delete_at_ack_is_found: DeleteAtAck,
    law_7_no_slots_is_found: NoSlots,
    law_13_forget_interval_early_is_found: ForgetIntervalEarly,
    law_20_rewind_without_reowing_is_found: RewindWithoutReowing,
    law_14_live_instead_of_roster_is_found: LiveInsteadOfRoster,
    law_14_floor_not_committed_is_found: FloorNotCommitted,
    law_3_judge_outside_apply_is_found: JudgeOutsideApply,
    law_14_bare_floor_is_found: BareFloor,
    law_13_forget_at_data_synced_is_found: ForgetAtDataSynced,
    law_13_merge_intervals_is_found: MergeIntervals,
    law_20_no_null_after_rewind_is_found: NoNullAfterRewind,
    law_7_slot_in_shared_state_is_found: SlotInSharedState,
    law_12_origin_is_a_region_is_found: OriginIsARegion,
}

/// Without a plant the same worlds are clean: what the tests above find is the fault and not the feature.
#[test]
fn without_a_plant_nothing_breaks() {
    plant::set(None);
    for seed in 0..100 {
        assert_eq!(laws::run(seed, laws::Pace::Restless, STEPS, false), Ok(()), "seed {seed}");
    }
}
