//! Laws 2 and 4: the shared state is a function of shared entries alone, whatever the store and whatever else it holds.

#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::{Lmdb, Memory, Space, Store};
use farshore_types::{ErrorKind, Reply};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use support::History;
use support::random::{Play, step};

fn with_junk(store: impl Store) -> impl Store {
    let mut kv = store.write().unwrap();
    for row in 0..40u8 {
        kv.put(Space::Local, &[b"hLduvrielocsSWINR"[usize::from(row) % 17], row], &[row; 30]).unwrap();
    }
    kv.commit().unwrap();
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn law_4_two_stores_apply_alike_and_law_2_the_local_part_has_no_say(steps in prop::collection::vec(step(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let mut play = Play::new(Memory::new());
        let mut replay = History::empty(with_junk(Lmdb::open(directory.path()).unwrap()));
        for entry in &play.history.log {
            replay.apply_entry(entry.clone());
        }
        let local = replay.rows(Space::Local);
        for step in &steps {
            let applied = play.play(step);
            let again = replay.apply_entry(play.history.log.last().unwrap().clone());
            prop_assert_eq!(applied, again);
        }
        for space in [Space::Shared, Space::Undo] {
            prop_assert!(play.history.rows(space) == replay.rows(space), "{:?} differs", space);
        }
        prop_assert!(replay.rows(Space::Local) == local);
    }
}

#[test]
fn random_histories_are_worth_their_while() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut done, mut refused, mut dropped, mut other) = (0, 0, 0, 0);
    for _ in 0..8 {
        let mut play = Play::new(Memory::new());
        for step in prop::collection::vec(step(), 100).new_tree(&mut runner).unwrap().current() {
            let applied = play.play(&step);
            dropped += applied.changes.dropped.len();
            for outcome in applied.outcomes {
                match outcome {
                    Ok(Reply::Attr(_) | Reply::Slices { .. } | Reply::Inos { .. } | Reply::Done) => done += 1,
                    Err(ErrorKind::SessionLost | ErrorKind::SequenceGap) => other += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(
        done > 300 && refused > 100 && dropped > 10 && other > 0,
        "{done} done, {refused} refused, {dropped} slices dropped, {other} lost"
    );
}
