//! Law 20: a rewind is equal, byte by byte, to a fresh replay; and it says what it changed.
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::{Memory, Space, Store};
use farshore_meta::{
    Changes, Event, RewindError, SliceRecord, digest, digest_of, live_slices, lowest_reachable, rewind, trim_undo,
};
use farshore_types::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::random::{Play, Step, step};
use support::{ALICE, BOB, EU, Either, History, Rows, commit, on_both, slice, unlink};

/// Shared and undo rows, the digest among them.
fn state(store: &impl Store) -> [Rows; 2] {
    let kv = store.read().unwrap();
    [support::rows(&*kv, Space::Shared), support::rows(&*kv, Space::Undo)]
}

fn live(store: &impl Store) -> BTreeMap<SliceId, SliceRecord> {
    live_slices(&*store.read().unwrap(), SliceId(0), None).unwrap().map(|row| row.unwrap()).collect()
}

fn rewind_to(store: &impl Store, to: u64) -> Result<Changes, RewindError> {
    let mut kv = store.write().unwrap();
    let changes = rewind(&mut *kv, LogIndex(to))?;
    assert_eq!(digest(&*kv).unwrap(), digest_of(&*kv).unwrap(), "law 2");
    kv.commit().unwrap();
    Ok(changes)
}

fn check_changes(changes: &Changes, before: &BTreeMap<SliceId, SliceRecord>, after: &BTreeMap<SliceId, SliceRecord>) {
    let ids = |list: &[farshore_meta::SliceAdded]| list.iter().map(|added| (added.id, added.added)).collect::<Vec<_>>();
    let only = |a: &BTreeMap<SliceId, SliceRecord>, b: &BTreeMap<SliceId, SliceRecord>| {
        a.iter().filter(|(id, _)| !b.contains_key(id)).map(|(id, record)| (*id, record.added)).collect::<Vec<_>>()
    };
    assert_eq!(ids(&changes.added), only(after, before));
    assert_eq!(ids(&changes.removed), only(before, after));
    assert!(changes.dropped.is_empty());
}

/// Plays the steps, then rewinds one by one, and again in one leap from the end to each index.
fn every_index(new: &dyn Fn() -> Either, steps: &[Step]) {
    let mut play = Play::new(new());
    let mut states = Vec::new();
    for step in steps {
        states.push((state(&play.history.store), live(&play.history.store)));
        play.play(step);
    }
    let store = &play.history.store;
    let first = play.history.log.len() - steps.len();
    for (at, (expected, slices)) in states.iter().enumerate().rev() {
        let before = live(store);
        let changes = rewind_to(store, (first + at) as u64).unwrap();
        assert_eq!(changes.rewound, Some(LogIndex((first + at) as u64)));
        check_changes(&changes, &before, slices);
        assert!(state(store) == *expected, "law 20: at {} the state is not the one that was", first + at);
    }
    for at in [0, 1, first / 2, first, play.history.log.len() * 2 / 3] {
        let mut whole = History::empty(new());
        let mut part = History::empty(Memory::new());
        for (number, entry) in play.history.log.iter().enumerate() {
            whole.apply_entry(entry.clone());
            if number < at {
                part.apply_entry(entry.clone());
            }
        }
        let before = live(&whole.store);
        let changes = rewind_to(&whole.store, at as u64).unwrap();
        check_changes(&changes, &before, &live(&part.store));
        assert!(state(&whole.store) == state(&part.store), "law 20: a rewind to {at} is not a replay to {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn law_20_a_rewind_to_every_index_is_a_fresh_replay(steps in prop::collection::vec(step(), 1..40)) {
        on_both(|new| every_index(&new, &steps));
    }
}

#[test]
fn law_20_what_a_rewind_brings_back_is_told() {
    let mut h = History::in_memory();
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    let id = h.alloc(ALICE, 2);
    h.op(commit(file, vec![slice(id, 0, 0, 10)])).unwrap();
    h.control(Control::RosterAdd { cluster: EU }).unwrap();
    let to = h.header().index;
    let added = live(&h.store)[&id].added;
    h.op(commit(file, vec![slice(SliceId(id.0 + 1), 0, 0, 10)])).unwrap();
    h.op(unlink(Ino::ROOT, "f")).unwrap();
    h.control(Control::RosterRemove { cluster: EU }).unwrap();
    h.control(Control::Expire { session: ALICE }).unwrap();
    h.start(EU, 0);
    let changes = rewind_to(&h.store, to.0).unwrap();
    assert_eq!(
        changes.added.iter().map(|a| (a.id, a.added)).collect::<Vec<_>>(),
        [(id, added)],
        "with the index of its first add"
    );
    assert_eq!(changes.removed.iter().map(|a| a.id.0).collect::<Vec<_>>(), [id.0 + 1]);
    for event in [Event::SessionOpened(ALICE), Event::Roster { cluster: EU, on: true }, Event::Lineage(h.header().lineage)] {
        assert!(changes.events.contains(&event), "{event:?}");
    }
    assert_eq!(h.header().lineage.0.len(), 1);
    // The history goes on from there under another slot (law 7).
    h.start(EU, 1);
    assert_eq!(h.op(unlink(Ino::ROOT, "f")), Err(ErrorKind::SequenceGap), "hazard 3.1: Alice is ahead of this history");
    h.open(BOB);
    let fresh = h.alloc(BOB, 1);
    assert_eq!(fresh.slot(), Slot::of(EU, 1).unwrap());
}

#[test]
fn law_20_orphans_that_are_back_and_buckets_that_changed_are_told() {
    let mut h = History::in_memory();
    let [purged, kept] = ["a", "b"].map(|name| h.make(Ino::ROOT, name, NewNode::File));
    h.op(unlink(Ino::ROOT, "a")).unwrap();
    let to = h.header().index;
    h.op(unlink(Ino::ROOT, "b")).unwrap();
    h.control(Control::Purge { inos: vec![purged] }).unwrap();
    h.control(Control::ReplaceBucket { region: RegionId(1), incarnation: Incarnation(1), bucket: Uuid([8; 16]) }).unwrap();
    let events = rewind_to(&h.store, to.0).unwrap().events;
    let lineage = Event::Lineage(h.header().lineage);
    assert_eq!(events, [Event::Orphaned(purged), Event::BucketReplaced(RegionId(1)), lineage]);
    assert_eq!((h.attr(purged).nlink, h.attr(kept).nlink), (0, 1));
}

#[test]
fn law_20_before_images_end_where_they_were_trimmed() {
    on_both(|new| {
        let mut h = History::started(new());
        for name in ["a", "b", "c"] {
            h.make(Ino::ROOT, name, NewNode::File);
        }
        let last = h.header().index.0;
        let mut kv = h.store.write().unwrap();
        assert_eq!(lowest_reachable(&*kv).unwrap(), LogIndex(0));
        assert_eq!(trim_undo(&mut *kv, LogIndex(last - 2)).unwrap(), last as usize - 2);
        assert_eq!(trim_undo(&mut *kv, LogIndex(last - 2)).unwrap(), 0);
        assert_eq!(lowest_reachable(&*kv).unwrap(), LogIndex(last - 2));
        kv.commit().unwrap();
        let before = state(&h.store);
        let mut kv = h.store.write().unwrap();
        let refused = rewind(&mut *kv, LogIndex(last - 3));
        assert!(matches!(refused, Err(RewindError::TooLow { lowest, .. }) if lowest == LogIndex(last - 2)), "{refused:?}");
        let refused = rewind(&mut *kv, LogIndex(last + 1));
        assert!(matches!(refused, Err(RewindError::Ahead { applied, .. }) if applied == LogIndex(last)));
        kv.commit().unwrap();
        assert!(state(&h.store) == before, "a refused rewind changes nothing");
        rewind_to(&h.store, last - 2).unwrap();
        assert_eq!(h.header().index, LogIndex(last - 2));
    });
}
