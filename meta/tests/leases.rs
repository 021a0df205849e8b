//! Leases on directories: who may change names, how a lease ends, and the numbers that go with it.
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::{Memory, Space};
use farshore_meta::{Event, RECALL_US, rewind};
use farshore_types::*;
use support::*;

/// A volume with the sessions of Alice and Bob, and a directory that Alice holds.
fn held() -> (History<Memory>, Ino) {
    let mut h = History::in_memory();
    h.know_leases();
    h.open(BOB);
    let dir = made(h.op(make_as(Ino::ROOT, "dir", NewNode::Directory, None, true)));
    (h, dir)
}

fn made(outcome: Outcome) -> Ino {
    match outcome {
        Ok(Reply::Attr(attr)) => attr.ino,
        other => panic!("{other:?}"),
    }
}

fn bob(h: &mut History<Memory>, op: Op) -> Outcome {
    h.apply_op(BOB, op).outcomes.remove(0)
}

/// Bob's next operation, in an entry that is so much later than entries are by themselves.
fn bob_later(h: &mut History<Memory>, op: Op, later_us: u64) -> Outcome {
    let request = h.request(BOB, op);
    let mut entry = h.entry(SharedBody::Batch(vec![request]));
    entry.time.0 += later_us;
    h.apply_entry(entry).outcomes.remove(0)
}

#[test]
fn nobody_else_changes_names_in_a_leased_directory() {
    let (mut h, dir) = held();
    let file = h.make(dir, "file", NewNode::File);
    h.make(dir, "sub", NewNode::Directory);
    h.make(Ino::ROOT, "theirs", NewNode::File);
    let before = h.rows(Space::Shared);
    let refused = [
        make(dir, "new", NewNode::File),
        make(dir, "file", NewNode::File),
        make_as(dir, "new", NewNode::Directory, None, true),
        unlink(dir, "file"),
        rmdir(dir, "sub"),
        link(file, dir, "second"),
        rename(dir, "file", Ino::ROOT, "out", RenameMode::Replace),
        rename(Ino::ROOT, "theirs", dir, "in", RenameMode::Replace),
        rename(Ino::ROOT, "theirs", dir, "file", RenameMode::Exchange),
    ];
    for op in refused {
        let text = format!("{op:?}");
        assert_eq!(bob(&mut h, op), Err(ErrorKind::Leased), "{text}");
    }
    let talk = |key: &[u8]| matches!(key[0], b'h' | b'd' | b'W' | b'R');
    let rows = |rows: Rows| rows.into_iter().filter(|(key, _)| !talk(key)).collect::<Vec<_>>();
    assert!(rows(before) == rows(h.rows(Space::Shared)), "what was refused changed nothing");
    // What changes no name in it goes on, and the holder's own too.
    let mode = Op::SetAttr { ino: dir, mode: Some(0o700), uid: None, gid: None, atime: None, mtime: None };
    bob(&mut h, mode).unwrap();
    bob(&mut h, link(file, Ino::ROOT, "link")).unwrap();
    bob(&mut h, rename(Ino::ROOT, "dir", Ino::ROOT, "moved", RenameMode::Replace)).unwrap();
    bob(&mut h, Op::Truncate { ino: file, size: 5 }).unwrap();
    h.op(unlink(dir, "file")).unwrap();
    assert_eq!(bob(&mut h, make(dir, "new", NewNode::File)), Err(ErrorKind::Leased), "the lease outlives what its holder does");
}

#[test]
fn a_directory_that_another_holds_does_not_lose_its_name() {
    let (mut h, dir) = held();
    assert_eq!(bob(&mut h, rmdir(Ino::ROOT, "dir")), Err(ErrorKind::Leased));
    bob(&mut h, make(Ino::ROOT, "empty", NewNode::Directory)).unwrap();
    assert_eq!(bob(&mut h, rename(Ino::ROOT, "empty", Ino::ROOT, "dir", RenameMode::Replace)), Err(ErrorKind::Leased));
    made(h.op(make(dir, "late", NewNode::File)));
    assert_eq!(h.op(rmdir(Ino::ROOT, "dir")), Err(ErrorKind::NotEmpty));
    h.op(unlink(dir, "late")).unwrap();
    h.op(rmdir(Ino::ROOT, "dir")).unwrap();
}

#[test]
fn a_recall_is_heard_by_the_holder_who_gives_the_directory_back() {
    let (mut h, dir) = held();
    let told = |applied: farshore_meta::Applied| applied.changes.events == [Event::Recalled { holder: ALICE, directory: dir }];
    assert!(told(h.apply_op(BOB, recall(dir, "new"))));
    assert!(told(h.apply_op(BOB, recall(dir, "new"))), "told again: the holder may have lost its connection meanwhile");
    assert_eq!(bob(&mut h, make(dir, "new", NewNode::File)), Err(ErrorKind::Leased), "the holder has a second");
    // What the holder had on its way comes first.
    made(h.op(make(dir, "new", NewNode::File)));
    h.op(Op::GiveBack { dirs: vec![dir] }).unwrap();
    assert_eq!(bob(&mut h, make(dir, "new", NewNode::File)), Err(ErrorKind::Exists));
    bob(&mut h, unlink(dir, "new")).unwrap();
    let index = h.attr(dir).version;
    assert!(!told(h.apply_op(BOB, recall(dir, "new"))), "nobody holds it");
    assert_eq!(h.attr(dir).version, index);
}

#[test]
fn giving_back_and_recalling_change_only_a_lease_of_the_right_session() {
    let (mut h, dir) = held();
    let attr = h.attr(dir);
    bob(&mut h, Op::GiveBack { dirs: vec![dir] }).unwrap();
    h.op(recall(Ino::ROOT, "dir")).unwrap();
    bob_later(&mut h, recall(Ino::ROOT, "none"), 0).unwrap();
    assert_eq!(bob_later(&mut h, make(dir, "new", NewNode::File), RECALL_US), Err(ErrorKind::Leased));
    for ino in [Ino(12345), made(h.op(make(dir, "file", NewNode::File)))] {
        h.op(Op::GiveBack { dirs: vec![ino] }).unwrap();
        bob(&mut h, recall(ino, "x")).unwrap();
    }
    assert_eq!(bob(&mut h, make(dir, "new", NewNode::File)), Err(ErrorKind::Leased));
    assert_eq!(attr.ctime, Attr { ctime: attr.ctime, ..h.attr(dir) }.ctime);
}

#[test]
fn a_holder_that_does_not_answer_a_recall_is_none_after_a_second() {
    let (mut h, dir) = held();
    const SECOND: u64 = RECALL_US;
    bob(&mut h, take(Ino::ROOT, "dir")).unwrap();
    assert_eq!(bob(&mut h, rmdir(Ino::ROOT, "dir")), Err(ErrorKind::Leased), "it was not recalled before");
    bob_later(&mut h, take(Ino::ROOT, "dir"), SECOND - 5000).unwrap();
    assert_eq!(bob_later(&mut h, rmdir(Ino::ROOT, "dir"), SECOND - 5000), Err(ErrorKind::Leased), "its second is not over");
    bob_later(&mut h, recall(Ino::ROOT, "dir"), SECOND).unwrap();
    assert_eq!(bob_later(&mut h, rmdir(Ino::ROOT, "dir"), SECOND), Err(ErrorKind::Leased), "nobody has waited for it");
    bob_later(&mut h, take(Ino::ROOT, "dir"), SECOND).unwrap();
    made(bob(&mut h, make(dir, "new", NewNode::File)));
    // The former holder is like anyone else.
    assert_eq!(h.op(make(dir, "new", NewNode::File)), Err(ErrorKind::Exists));
    made(h.op(make(dir, "other", NewNode::File)));
}

#[test]
fn a_lease_ends_with_its_holders_session() {
    let (mut h, dir) = held();
    h.op(Op::AllocInos { count: 3 }).unwrap();
    let numbers = |h: &History<Memory>| h.rows(Space::Shared).iter().filter(|(key, _)| key[0] == b'N').count();
    assert_eq!(numbers(&h), 1);
    h.control(Control::Expire { session: ALICE }).unwrap();
    assert_eq!(numbers(&h), 0);
    made(bob(&mut h, make(dir, "new", NewNode::File)));
    bob(&mut h, unlink(dir, "new")).unwrap();
    bob(&mut h, rmdir(Ino::ROOT, "dir")).unwrap();
}

#[test]
fn numbers_are_used_once_in_ascending_order_by_their_session() {
    let (mut h, dir) = held();
    let Ok(Reply::Inos { first, count: 4 }) = h.op(Op::AllocInos { count: 4 }) else { panic!() };
    let number = |n: u64| Some(Ino(first.0 + n));
    assert_eq!(bob(&mut h, make_as(Ino::ROOT, "b", NewNode::File, number(0), false)), Err(ErrorKind::InvalidArgument));
    assert_eq!(made(h.op(make_as(dir, "a", NewNode::File, number(1), false))), number(1).unwrap());
    for used in [0, 1, 4] {
        assert_eq!(h.op(make_as(dir, "b", NewNode::File, number(used), false)), Err(ErrorKind::InvalidArgument), "{used}");
    }
    assert_eq!(h.op(make_as(dir, "a", NewNode::File, number(2), false)), Err(ErrorKind::Exists));
    assert_eq!(made(h.op(make_as(dir, "b", NewNode::File, number(2), false))), number(2).unwrap(), "a failure uses none");
    let after = made(bob(&mut h, make(Ino::ROOT, "theirs", NewNode::File)));
    assert_eq!(after, number(4).unwrap(), "numbers that were issued are nobody else's");
    h.op(Op::AllocInos { count: 1 }).unwrap();
    assert_eq!(h.op(make_as(dir, "c", NewNode::File, number(3), false)), Err(ErrorKind::InvalidArgument), "void since");
    for count in [0, farshore_meta::MAX_GIVE_BACK + 1] {
        assert_eq!(h.op(Op::GiveBack { dirs: vec![dir; count] }), Err(ErrorKind::InvalidArgument));
    }
    for count in [0, farshore_meta::MAX_ALLOC_INOS + 1] {
        assert_eq!(h.op(Op::AllocInos { count }), Err(ErrorKind::InvalidArgument));
    }
}

#[test]
fn law_7_numbers_of_an_older_epoch_are_not_used() {
    let (mut h, dir) = held();
    let Ok(Reply::Inos { first, .. }) = h.op(Op::AllocInos { count: 4 }) else { panic!() };
    h.start(US, 1);
    assert_eq!(h.op(make_as(dir, "a", NewNode::File, Some(first), false)), Err(ErrorKind::Stale));
    let Ok(Reply::Inos { first, .. }) = h.op(Op::AllocInos { count: 4 }) else { panic!() };
    assert_eq!(made(h.op(make_as(dir, "a", NewNode::File, Some(first), false))), first);
}

#[test]
fn law_4_there_are_no_leases_before_their_version() {
    let mut h = History::in_memory();
    let ops = [
        make_as(Ino::ROOT, "a", NewNode::Directory, None, true),
        Op::AllocInos { count: 1 },
        Op::GiveBack { dirs: vec![Ino::ROOT] },
        recall(Ino::ROOT, "a"),
    ];
    for op in ops {
        assert_eq!(h.op(op), Err(ErrorKind::Unsupported));
    }
}

#[test]
fn law_20_a_rewind_brings_leases_back_as_they_were() {
    let (mut h, dir) = held();
    bob(&mut h, recall(Ino::ROOT, "dir")).unwrap();
    let (before, at) = (h.rows(Space::Shared), h.header().index);
    h.op(Op::AllocInos { count: 4 }).unwrap();
    h.op(Op::GiveBack { dirs: vec![dir] }).unwrap();
    bob(&mut h, rmdir(Ino::ROOT, "dir")).unwrap();
    let mut kv = farshore_meta::kv::Store::write(&h.store).unwrap();
    rewind(&mut *kv, at).unwrap();
    kv.commit().unwrap();
    assert!(h.rows(Space::Shared) == before);
}
