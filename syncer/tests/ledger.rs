//! The ledger's laws, one at a time, over real shared state.

#[cfg(test)]
mod fixture;

use farshore_meta::kv::Store;
use farshore_syncer::*;
use farshore_types::*;
use fixture::*;

const ONE: u32 = 1000;

fn below(index: LogIndex) -> Option<LogIndex> {
    Some(LogIndex(index.0 - 1))
}

#[test]
fn law_12_a_block_is_owed_unless_the_present_bucket_held_it_first() {
    let mut shore = Shore::new();
    shore.add(HERE, ONE);
    assert_eq!((shore.owed().len(), shore.marks().data_synced), (0, Some(shore.applied())));
    let there = shore.add(THERE, 2 * BLOCK + 1);
    assert_eq!(shore.owed(), there, "all three blocks of the slice, in order");
    assert_eq!(shore.marks().bytes_behind, ByteCount(2 * u64::from(BLOCK) + 1));
}

#[test]
fn law_12_a_replaced_bucket_owes_its_history_again_by_pages() {
    let mut shore = Shore::new();
    let old: Vec<_> = (0..3).map(|_| shore.add(HERE, ONE)[0]).collect();
    shore.copy(&old);
    let effects = shore.control(Control::ReplaceBucket { region: HERE, incarnation: Incarnation(1), bucket: Uuid([5; 16]) });
    assert!(effects.history_restarted);
    assert_eq!(shore.read(|kv| home(kv).unwrap().unwrap().incarnation), Incarnation(1));
    assert_eq!((shore.marks().data_synced, shore.marks().history_pending), (None, true));
    // Dropped before the cursor has reached it: absent from the new bucket, so it leaves its interval.
    let dropped = shore.drop_slice(&[old[2]]);
    let page = |shore: &mut Shore| {
        let history = shore.read(|kv| history(kv).unwrap());
        shore.local(LocalOp::OweHistory { cursor: history.cursor, limit: 1 })
    };
    assert!(!page(&mut shore).done);
    assert!(!shore.local(LocalOp::OweHistory { cursor: None, limit: 9 }).done, "a page that was owed already is a no-op");
    assert_eq!(shore.owed(), old[..1]);
    assert!(!page(&mut shore).done && page(&mut shore).done);
    assert_eq!(shore.owed(), old[..2]);
    assert_eq!(shore.copy(&old[..2]).stale, 2, "a copy into the replaced bucket proves nothing of the new one");
    let again = |block: BlockKey| Completion { incarnation: Incarnation(1), ..proof(block) };
    let outcome = shore.local(LocalOp::Completions(old[..2].iter().map(|block| again(*block)).collect()));
    assert_eq!(outcome.copied, 2);
    assert_eq!(shore.marks().data_synced, Some(dropped));
}

#[test]
fn law_13_a_block_that_was_dropped_before_it_was_copied_leaves_its_interval() {
    let mut shore = Shore::new();
    let third = shore.add(THERE, ONE);
    let added = shore.applied();
    let second = shore.add(THERE, ONE);
    shore.drop_slice(&third);
    assert_eq!(shore.marks().data_synced, below(added), "not the smallest pending minus one");
    shore.copy(&second);
    assert_eq!(shore.marks().data_synced, Some(shore.applied()), "beyond the interval");
}

#[test]
fn law_13_intervals_are_forgotten_at_the_committed_floor_and_not_before() {
    let mut shore = Shore::new();
    let gone = shore.add(THERE, ONE);
    let dropped = shore.drop_slice(&gone);
    shore.local(LocalOp::Tick { delta: ControlTime(1) });
    let ghosts = |shore: &Shore| shore.read(|kv| counters(kv).unwrap().ghosts);
    assert_eq!((shore.marks().data_synced, ghosts(&shore)), (Some(dropped), 1));
    assert_eq!(shore.local(LocalOp::CommitFloor { floor: dropped }).floor, Some(dropped));
    assert_eq!(ghosts(&shore), 0);
}

#[test]
fn law_13_a_rewind_takes_the_intervals_of_later_drops_back_and_only_those() {
    let mut shore = Shore::new();
    let (one, two) = (shore.add(THERE, ONE), shore.add(THERE, ONE));
    let first_drop = shore.drop_slice(&one);
    shore.drop_slice(&two);
    shore.rewind(first_drop);
    assert_eq!(shore.owed(), two);
    assert_eq!(shore.read(|kv| counters(kv).unwrap().ghosts), 1, "that of the first drop");
    assert_eq!(shore.marks().data_synced, None, "unverified");
    shore.copy(&two);
    assert_eq!(shore.marks().data_synced, Some(first_drop));
}

#[test]
fn law_14_only_a_complete_index_is_promised() {
    let mut shore = Shore::new();
    let owed = shore.add(THERE, ONE);
    let added = shore.applied();
    assert_eq!(shore.local(LocalOp::CommitFloor { floor: added }).floor, None, "a block of it is owed");
    assert_eq!(shore.local(LocalOp::CommitFloor { floor: added.next() }).floor, None, "not applied");
    assert_eq!(shore.local(LocalOp::CommitFloor { floor: LogIndex(added.0 - 1) }).floor, below(added));
    shore.copy(&owed);
    assert!(shore.local(LocalOp::CommitFloor { floor: added }).done);
    assert_eq!(shore.local(LocalOp::CommitFloor { floor: LogIndex(added.0 - 1) }).floor, None, "a promise never sinks");
    assert_eq!(shore.marks().floor, added);
}

#[test]
fn law_14_a_floor_of_another_lineage_counts_up_to_where_the_two_divide() {
    let mut shore = Shore::new();
    shore.add(HERE, ONE);
    let mine = shore.header().lineage;
    let mut theirs = mine.clone();
    theirs.0.push(Epoch {
        id: EpochId { number: 2, cluster: ClusterId(1) },
        parent: mine.head_id(),
        start: LogIndex(3),
        chain: Chain([1; 32]),
    });
    let other = ClusterId(1);
    shore.local(LocalOp::KnownFloors(vec![(other, LogIndex(50), theirs.clone())]));
    shore.read(|kv| {
        assert_eq!(known_floor(kv, other, &mine).unwrap(), LogIndex(3));
        assert_eq!(known_floor(kv, other, &theirs).unwrap(), LogIndex(50));
        assert_eq!(known_floor(kv, ClusterId(2), &mine).unwrap(), LogIndex(0), "who never reported holds everything");
    });
}

#[test]
fn law_14_deletion_waits_for_every_floor_of_the_roster_and_for_the_longest_lease() {
    let mut shore = Shore::new();
    let roster = [ClusterId(0), ClusterId(1)];
    let blocks = shore.add(HERE, ONE);
    shore.time = 100;
    let dropped = shore.drop_slice(&blocks);
    let lineage = shore.header().lineage;
    let due = |shore: &Shore, control: u64| {
        shore.read(|kv| deletable(kv, gate(kv, &lineage, &roster).unwrap(), ControlTime(control), ControlTime(10), 9).unwrap())
    };
    assert!(due(&shore, 1000).is_empty());
    shore.local(LocalOp::CommitFloor { floor: dropped });
    assert!(due(&shore, 1000).is_empty(), "the other has not promised");
    shore.local(LocalOp::KnownFloors(vec![(ClusterId(1), LogIndex(dropped.0 - 1), lineage.clone())]));
    assert!(due(&shore, 1000).is_empty(), "the other's floor is one too low");
    shore.local(LocalOp::KnownFloors(vec![(ClusterId(1), dropped, lineage.clone())]));
    assert!(due(&shore, 110).is_empty(), "a session may still read it");
    assert_eq!(due(&shore, 111), blocks);
    assert_eq!(shore.marks().deletion_held.blocks, 1);
    shore.local(LocalOp::Deleted { blocks: blocks.clone(), incarnation: Incarnation(0) });
    assert!(due(&shore, 1000).is_empty());
    assert_eq!(shore.marks().deletion_held, Tally::default());
}

#[test]
fn law_15_damage_is_listed_counted_and_does_not_move_the_watermark() {
    let mut shore = Shore::new();
    let blocks = shore.add(HERE, ONE);
    let synced = shore.marks().data_synced;
    let damage_op = || LocalOp::Damage { blocks: vec![(blocks[0], DamageKind::Rotten)] };
    assert_eq!(shore.local(damage_op()).damaged, 1);
    shore.local(damage_op());
    let marks = shore.marks();
    assert_eq!((marks.damaged, marks.blocks_behind, marks.data_synced), (1, 1, synced));
    shore.local(LocalOp::Failing { block: blocks[0], reason: Reason::NoSource, tries: 4 });
    assert_eq!(shore.marks().failing.get(&Reason::NoSource), Some(&1));
    assert_eq!(shore.copy(&blocks).copied, 1);
    assert_eq!((shore.marks().damaged, shore.marks().failing.len()), (0, 0));
}

#[test]
fn law_15_a_write_off_is_audited_shown_for_ever_and_can_be_undone() {
    let mut shore = Shore::new();
    let blocks = shore.add(THERE, ONE);
    let added = shore.applied();
    assert!(
        !shore.local(LocalOp::WriteOff { block: BlockKey { index: 5, ..blocks[0] }, reason: "x".into(), by: "y".into() }).done,
        "it is not owed"
    );
    assert!(shore.local(LocalOp::WriteOff { block: blocks[0], reason: "lost with its only disk".into(), by: "ann".into() }).done);
    assert_eq!((shore.marks().data_synced, shore.marks().written_off, shore.owed().len()), (Some(added), 1, 0));
    assert!(shore.local(LocalOp::UndoWriteOff { block: blocks[0], by: "bob".into() }).done);
    assert_eq!((shore.marks().written_off, shore.owed().len()), (0, 1));
    let row = shore.read(|kv| written_off(kv, blocks[0]).unwrap().unwrap());
    assert_eq!((row.state, row.by.as_str(), row.reason.as_str()), (WriteOffState::Undone, "bob", "lost with its only disk"));
}

#[test]
fn law_16_evidence_must_agree_with_metadata() {
    let mut shore = Shore::new();
    let blocks = shore.add(THERE, BLOCK + 5);
    let good = proof(blocks[1]);
    let wrong = [Completion { crc32c: good.crc32c + 1, ..good }, Completion { length: good.length + 1, ..good }];
    for wrong in wrong {
        let outcome = shore.local(LocalOp::Completions(vec![wrong]));
        assert_eq!((outcome.copied, outcome.rejected.len()), (0, 1), "{wrong:?}");
    }
    assert_eq!(shore.read(|kv| counters(kv).unwrap().rejected), 2);
    assert_eq!(shore.marks().failing.get(&Reason::Evidence), Some(&1));
    let unknown = Completion { block: BlockKey { size: 6, ..blocks[1] }, ..good };
    assert_eq!(shore.local(LocalOp::Completions(vec![unknown])).stale, 1);
    assert_eq!(
        shore.local(LocalOp::Completions(vec![good, good])),
        LocalOutcome { copied: 1, stale: 1, done: true, ..LocalOutcome::default() }
    );
    assert_eq!(shore.owed(), blocks[..1]);
}

#[test]
fn law_20_what_a_rewind_revives_is_owed_unverified_and_what_it_unmakes_is_forgotten() {
    let mut shore = Shore::new();
    let old = shore.add(HERE, ONE);
    let to = shore.applied();
    shore.drop_slice(&old);
    shore.add(THERE, ONE);
    let effects = shore.rewind(to);
    assert_eq!((effects.owed, effects.lowest_owed, effects.rewound), (1, Some(to), true));
    assert_eq!(shore.owed(), old, "and not what was added beyond");
    let marks = shore.marks();
    assert_eq!((marks.unverified, marks.data_synced, marks.deletion_held.blocks), (1, None, 0));
    shore.local(LocalOp::Absent { blocks: old.clone(), incarnation: Incarnation(0) });
    assert_eq!((shore.marks().unverified, shore.marks().data_synced), (0, below(to)));
}

#[test]
fn law_20_a_figure_below_the_own_floor_is_null() {
    let mut shore = Shore::new();
    let lost = shore.add(THERE, ONE);
    let added = shore.applied();
    shore.local(LocalOp::WriteOff { block: lost[0], reason: "r".into(), by: "b".into() });
    shore.local(LocalOp::CommitFloor { floor: added });
    shore.local(LocalOp::UndoWriteOff { block: lost[0], by: "b".into() });
    shore.local(LocalOp::Absent { blocks: lost.clone(), incarnation: Incarnation(0) });
    assert_eq!((shore.marks().data_synced, shore.marks().floor), (None, added));
    shore.copy(&lost);
    assert_eq!(shore.marks().data_synced, Some(added));
}

#[test]
fn a_reset_without_an_old_state_owes_everything_unverified() {
    let mut shore = Shore::new();
    let blocks = shore.add(THERE, ONE);
    shore.copy(&blocks);
    let applied = shore.applied();
    shore.ledger(|txn| after_reset(txn, None, applied, ControlTime(0)).unwrap());
    assert_eq!(shore.marks().data_synced, None);
    shore.local(LocalOp::OweHistory { cursor: None, limit: 100 });
    assert_eq!((shore.marks().unverified, shore.marks().data_synced), (1, None));
    shore.copy(&blocks);
    assert_eq!(shore.marks().data_synced, Some(applied));
}

#[test]
fn a_reset_makes_the_ledger_the_difference_of_old_and_new() {
    // The old state: one block here, one owed, one dropped beyond what the new state keeps.
    let mut old = Shore::new();
    let (kept, owed, gone) = (old.add(HERE, ONE), old.add(THERE, ONE), old.add(HERE, ONE));
    // The new one has the same beginning, and went on.
    let mut new = Shore::new();
    new.add(HERE, ONE);
    new.add(THERE, ONE);
    let (third, fourth) = (new.add(HERE, ONE), new.add(THERE, ONE));
    assert_eq!(third, gone);
    new.drop_slice(&third);
    let applied = new.applied();
    // What the old cluster's Local rows say goes over to the new shared state.
    let mut kv = new.store.write().unwrap();
    let before = old.store.read().unwrap();
    let rows: Vec<_> = before
        .scan(farshore_meta::kv::Space::Local, &[], None)
        .unwrap()
        .map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
        .collect();
    let stale: Vec<_> = kv.scan(farshore_meta::kv::Space::Local, &[], None).unwrap().map(|row| row.unwrap().0.to_vec()).collect();
    for key in stale {
        kv.delete(farshore_meta::kv::Space::Local, &key).unwrap();
    }
    for (key, value) in rows {
        kv.put(farshore_meta::kv::Space::Local, &key, &value).unwrap();
    }
    let effects = after_reset(&mut LocalTxn::new(&mut *kv), Some(&*before), applied, ControlTime(0)).unwrap();
    kv.commit().unwrap();
    assert_eq!((effects.owed, effects.queued), (1, 1));
    assert_eq!(new.owed(), [owed.clone(), fourth.clone()].concat());
    assert_eq!(new.read(|kv| pending_deletion(kv, gone[0]).unwrap()), Some(applied));
    assert_eq!(new.read(|kv| pending_deletion(kv, kept[0]).unwrap()), None);
    assert_eq!(new.marks().data_synced, None, "until all of it is in");
    new.copy(&owed);
    new.copy(&fourth);
    assert_eq!(new.marks().data_synced, Some(applied));
}

#[test]
fn a_pause_ends_by_itself_in_local_control_time() {
    let mut shore = Shore::new();
    shore.local(LocalOp::Pause { until: ControlTime(50), reason: "quota".into(), by: "ann".into() });
    assert_eq!(shore.read(|kv| pause(kv).unwrap().unwrap().reason), "quota");
    shore.local(LocalOp::Tick { delta: ControlTime(49) });
    assert!(shore.read(|kv| pause(kv).unwrap()).is_some());
    shore.local(LocalOp::Tick { delta: ControlTime(1) });
    assert_eq!(shore.read(|kv| pause(kv).unwrap()), None);
}
