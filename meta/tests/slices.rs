//! Content: pieces, slices that live and die, ids that are issued and used up.
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::{Memory, Space, Store};
use farshore_meta::{MAX_COMMIT_SLICES, issued_to_ended, live_slices, slice_record};
use farshore_types::*;
use support::*;

fn with_file() -> (History<Memory>, Ino) {
    let mut h = History::in_memory();
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    (h, file)
}

fn shape(h: &History<Memory>, file: Ino, chunk: u32) -> Vec<(u64, u32, u32)> {
    h.slices(file, chunk).iter().map(|view| (view.slice.id.0, view.position, view.length)).collect()
}

#[test]
fn law_12_a_slice_comes_with_the_bucket_of_its_session() {
    let (mut h, file) = with_file();
    let id = h.alloc(ALICE, 2);
    let applied = h.apply_op(ALICE, commit(file, vec![slice(id, 0, 0, BLOCK + 1)]));
    let index = h.header().index;
    let [added] = applied.changes.added.as_slice() else { panic!() };
    assert_eq!((added.id, added.size, added.added, added.origin), (id, BLOCK + 1, index, Some(US_BUCKET)));
    let kv = h.store.read().unwrap();
    let record = slice_record(&*kv, id).unwrap().unwrap();
    assert_eq!((record.added, record.ino, record.checksums.len()), (index, file, 2));
    let live: Vec<_> = live_slices(&*kv, SliceId(1), None).unwrap().map(|row| row.unwrap()).collect();
    assert_eq!(live, [(id, record)]);
    assert_eq!(live_slices(&*kv, SliceId(1), Some(id)).unwrap().count(), 0);
}

#[test]
fn a_replaced_bucket_is_a_later_incarnation_and_sessions_of_the_old_one_keep_their_origin() {
    let (mut h, file) = with_file();
    let replace = |incarnation| Control::ReplaceBucket {
        region: RegionId(0),
        incarnation: Incarnation(incarnation),
        bucket: Uuid([9; 16]),
    };
    h.control(replace(1)).unwrap();
    h.control(replace(1)).unwrap();
    assert_eq!(h.control(replace(0)), Err(ErrorKind::InvalidArgument));
    let id = h.alloc(ALICE, 1);
    let applied = h.apply_op(ALICE, commit(file, vec![slice(id, 0, 0, 1)]));
    assert_eq!(applied.changes.added[0].origin.map(|origin| origin.incarnation), Some(Incarnation(0)));
    let ahead = SessionInfo { bucket: Some(BucketId { region: RegionId(0), incarnation: Incarnation(2) }), ..info() };
    assert_eq!(h.control(Control::OpenSession { session: BOB, info: ahead }), Err(ErrorKind::InvalidArgument));
}

#[test]
fn a_slice_goes_when_a_later_one_hides_it_whole() {
    let (mut h, file) = with_file();
    let first = h.alloc(ALICE, 9).0;
    let id = |n| SliceId(first + n);
    h.op(commit(file, vec![slice(id(0), 0, 0, 100), slice(id(1), 0, 100, 50)])).unwrap();
    let applied = h.apply_op(ALICE, commit(file, vec![slice(id(2), 0, 90, 60)]));
    let dropped: Vec<_> = applied.changes.dropped.iter().map(|d| (d.id, d.added.next(), d.dropped)).collect();
    let now = h.header().index;
    assert_eq!(dropped, [(id(1), now, now)]);
    assert_eq!(shape(&h, file, 0), [(first, 0, 100), (first + 2, 90, 60)]);
    assert_eq!(h.attr(file).size, 150);
    let both = h.apply_op(ALICE, commit(file, vec![slice(id(3), 0, 0, 150)]));
    assert_eq!(both.changes.dropped.len(), 2);
    assert_eq!(h.query(Query::StatFs), Ok(QueryReply::StatFs { used_bytes: 150, used_inodes: 2, block_size: BLOCK }));
}

/// Bytes of keys and values, and rows, of what the step added.
fn added(h: &mut History<Memory>, step: impl FnOnce(&mut History<Memory>)) -> (usize, usize) {
    const OF_FILES: &[u8] = b"ielocs";
    let rows = |h: &History<Memory>| {
        let rows = h.rows(Space::Shared).into_iter().filter(|(key, _)| OF_FILES.contains(&key[0]));
        rows.map(|(key, value)| key.len() + value.len()).collect::<Vec<_>>()
    };
    let before = rows(h);
    step(h);
    let after = rows(h);
    (after.iter().sum::<usize>() - before.iter().sum::<usize>(), after.len() - before.len())
}

#[test]
fn a_file_of_one_block_has_two_rows_and_a_few_bytes_on_a_shelf() {
    let mut h = History::in_memory();
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    let id = h.alloc(ALICE, 5);
    let block = |h: &mut History<Memory>, name: &str, at: u64| {
        let other = h.make(Ino::ROOT, name, NewNode::File);
        h.op(commit(other, vec![slice(SliceId(id.0 + at), 0, 0, BLOCK)])).unwrap();
    };
    let first = added(&mut h, |h| block(h, "sixteen bytes..1", 0));
    assert!(first.0 < 65 && first.1 == 3, "{first:?}");
    let second = added(&mut h, |h| block(h, "sixteen bytes..2", 1));
    assert!(second.0 < 60 && second.1 == 2, "{second:?}");
    let in_a_row = added(&mut h, |h| {
        h.op(commit(file, vec![slice(SliceId(id.0 + 2), 0, 1, 10)])).unwrap();
        h.op(commit(file, vec![slice(SliceId(id.0 + 3), 0, 0, 5)])).unwrap();
    });
    assert_eq!(in_a_row.1, 2, "a piece that lies above another has a row, also at the first byte");
    assert_eq!(shape(&h, file, 0), [(id.0 + 2, 1, 10), (id.0 + 3, 0, 5)]);
}

#[test]
fn truncate_drops_what_lies_beyond_and_hides_what_reaches_beyond() {
    let (mut h, file) = with_file();
    let first = h.alloc(ALICE, 9).0;
    let id = |n| SliceId(first + n);
    h.op(commit(file, vec![slice(id(0), 0, 0, 100), slice(id(1), 0, 60, 40), slice(id(2), 1, 5, 10), slice(id(3), 7, 0, 1)]))
        .unwrap();
    assert_eq!(h.attr(file).size, 7 * CHUNK_SIZE + 1);
    let applied = h.apply_op(ALICE, Op::Truncate { ino: file, size: 50 });
    assert_eq!(applied.changes.dropped.iter().map(|d| d.id.0 - first).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(shape(&h, file, 0), [(first, 0, 100), (0, 50, 50)]);
    h.op(Op::Truncate { ino: file, size: 500 }).unwrap();
    assert_eq!(shape(&h, file, 0), [(first, 0, 100), (0, 50, 50)], "what was cut reads as zeros");
    h.op(Op::Truncate { ino: file, size: 10 }).unwrap();
    assert_eq!(shape(&h, file, 0), [(first, 0, 100), (0, 10, 90)], "one hole replaces the other");
    h.op(Op::Truncate { ino: file, size: 0 }).unwrap();
    assert_eq!(shape(&h, file, 0), []);
}

#[test]
fn law_10_a_commit_is_idempotent_by_slice_id_and_other_content_is_a_conflict() {
    let (mut h, file) = with_file();
    let other = h.make(Ino::ROOT, "g", NewNode::File);
    h.open(BOB);
    let id = h.alloc(ALICE, 4);
    h.op(commit(file, vec![slice(id, 0, 10, 100)])).unwrap();
    let version = h.attr(file).version;
    let again = h.apply_op(BOB, commit(file, vec![slice(id, 0, 10, 100)]));
    assert!(again.outcomes[0].is_ok() && again.changes.added.is_empty() && h.attr(file).version == version);
    let changed = NewSlice { checksums: vec![1], ..slice(id, 0, 10, 100) };
    for (ino, slice) in [
        (file, slice(id, 0, 11, 100)),
        (file, slice(id, 1, 10, 100)),
        (file, slice(id, 0, 10, 99)),
        (file, changed),
        (other, slice(id, 0, 10, 100)),
    ] {
        assert_eq!(h.op(commit(ino, vec![slice])), Err(ErrorKind::SliceConflict));
    }
    let whole = slice(SliceId(id.0 + 2), 0, 0, 100);
    h.op(commit(other, vec![whole.clone()])).unwrap();
    assert!(h.apply_op(BOB, commit(other, vec![whole.clone()])).changes.added.is_empty());
    for slice in [NewSlice { position: 1, ..whole.clone() }, NewSlice { chunk: 1, ..whole }] {
        assert_eq!(h.op(commit(other, vec![slice])), Err(ErrorKind::SliceConflict));
    }
    h.op(commit(file, vec![slice(SliceId(id.0 + 1), 0, 0, 200)])).unwrap();
    assert_eq!(
        h.op(commit(file, vec![slice(id, 0, 10, 100)])),
        Err(ErrorKind::InvalidArgument),
        "a dropped slice does not come back"
    );
}

#[test]
fn only_sound_slices_with_ids_of_the_session_are_taken() {
    let (mut h, file) = with_file();
    h.open(BOB);
    let id = h.alloc(ALICE, 4);
    let bobs = h.alloc(BOB, 1);
    let many = vec![slice(id, 0, 0, 1); MAX_COMMIT_SLICES + 1];
    let unsound = NewSlice { checksums: vec![], ..slice(id, 0, 0, 1) };
    let chunk = CHUNK_SIZE as u32;
    for slices in [
        vec![],
        many,
        vec![unsound],
        vec![slice(id, 0, 0, 0)],
        vec![slice(SliceId::HOLE, 0, 0, 1)],
        vec![slice(id, 0, chunk - 1, 2)],
        vec![slice(id, 0, u32::MAX, 2)],
        vec![slice(bobs, 0, 0, 1)],
        vec![slice(SliceId(bobs.0 + 1), 0, 0, 1)],
        vec![slice(id, 0, 0, 1), slice(id, 0, 0, 1)],
    ] {
        let rows = h.header().next_slice;
        assert_eq!(h.op(commit(file, slices)), Err(ErrorKind::InvalidArgument));
        assert_eq!((h.header().next_slice, h.slices(file, 0).len()), (rows, 0));
    }
    h.op(Op::CloseSlices { below: SliceId(id.0 + 2) }).unwrap();
    assert_eq!(h.op(commit(file, vec![slice(SliceId(id.0 + 1), 0, 0, 1)])), Err(ErrorKind::InvalidArgument));
    h.op(commit(file, vec![slice(SliceId(id.0 + 2), 0, 0, 1)])).unwrap();
    assert_eq!(h.op(commit(Ino::ROOT, vec![slice(SliceId(id.0 + 3), 0, 0, 1)])), Err(ErrorKind::IsDirectory));
    for count in [0, 65_537] {
        assert_eq!(h.op(Op::AllocSlices { count }), Err(ErrorKind::InvalidArgument));
    }
}

#[test]
fn ids_are_used_up_in_any_order_and_each_once() {
    let (mut h, file) = with_file();
    let first = h.alloc(ALICE, 3).0;
    assert_eq!(h.alloc(ALICE, 3).0, first + 3);
    let two = || commit(file, vec![slice(SliceId(first), 9, 0, 1), slice(SliceId(first + 1), 9, 50, 1)]);
    let mut other = History::in_memory();
    other.make(Ino::ROOT, "f", NewNode::File);
    other.alloc(ALICE, 3);
    assert_eq!((other.op(two()).is_ok(), other.op(two()).is_ok()), (true, true), "each is compared with its own piece");
    for (number, n) in [1, 0, 5, 3, 2, 4].into_iter().enumerate() {
        let id = SliceId(first + n);
        h.op(commit(file, vec![slice(id, 0, number as u32, 1)])).unwrap();
        h.op(commit(file, vec![slice(id, 0, number as u32, 1)])).unwrap();
    }
    assert_eq!(h.rows(farshore_meta::kv::Space::Shared).iter().filter(|(key, _)| key[0] == b'I').count(), 0);
    h.op(Op::Truncate { ino: file, size: 0 }).unwrap();
    for n in 0..6 {
        assert_eq!(h.op(commit(file, vec![slice(SliceId(first + n), 0, 0, 1)])), Err(ErrorKind::InvalidArgument));
    }
}

#[test]
fn law_17_an_id_is_orphaned_only_when_its_range_is_closed_or_its_session_has_ended() {
    let (mut h, file) = with_file();
    h.open(BOB);
    let id = h.alloc(ALICE, 10);
    let bobs = h.alloc(BOB, 1);
    let ended = |h: &History<Memory>, id: u64| issued_to_ended(&*h.store.read().unwrap(), SliceId(id)).unwrap();
    h.op(commit(file, vec![slice(SliceId(id.0 + 4), 0, 0, 1)])).unwrap();
    h.op(Op::CloseSlices { below: SliceId(id.0 + 3) }).unwrap();
    let open: Vec<_> = (id.0..id.0 + 10).map(|id| ended(&h, id)).collect();
    assert_eq!(open, [true, true, true, false, true, false, false, false, false, false]);
    assert!(!ended(&h, 0) && !ended(&h, bobs.0) && !ended(&h, bobs.0 + 1) && !ended(&h, u64::MAX), "unknown is not orphan");
    h.control(Control::Expire { session: ALICE }).unwrap();
    assert!(ended(&h, id.0 + 9) && !ended(&h, bobs.0));
    h.start(US, 1);
    assert!(!ended(&h, bobs.0) && !ended(&h, Slot(16).id(1)));
    h.control(Control::CloseSession { session: BOB }).unwrap();
    assert!(ended(&h, bobs.0));
}

#[test]
fn law_10_after_an_unplanned_start_older_slices_are_refused() {
    let (mut h, file) = with_file();
    let id = h.alloc(ALICE, 4);
    h.start(US, 1);
    h.op(commit(file, vec![slice(id, 0, 0, 1)])).unwrap();
    h.start(EU, 0);
    assert_eq!(h.op(commit(file, vec![slice(SliceId(id.0 + 1), 0, 0, 1)])), Err(ErrorKind::SliceOfOlderEpoch));
    h.op(commit(file, vec![slice(id, 0, 0, 1)])).unwrap();
    let fresh = h.alloc(ALICE, 1);
    assert_eq!(fresh.slot(), Slot::of(EU, 0).unwrap());
    h.op(commit(file, vec![slice(fresh, 0, 1, 1)])).unwrap();
    h.start(EU, 1);
    let made = h.make(Ino::ROOT, "in-epoch-4", NewNode::File);
    assert_eq!(made.0 >> COUNTER_BITS, u64::from(Slot::of(EU, 1).unwrap().0), "law 7");
}
