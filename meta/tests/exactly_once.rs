//! Law 10: each request of a session is done once, whatever it is and however often it comes.
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::{Memory, Space, Store};
use farshore_meta::{MAX_ISSUED_RANGES, MAX_UNACKNOWLEDGED};
use farshore_types::*;
use std::collections::BTreeSet;
use support::*;

/// Shared rows without the header and what depends on it: a repeated request may change nothing else.
fn effects(h: &History<Memory>) -> Rows {
    h.rows(Space::Shared).into_iter().filter(|(key, _)| !matches!(key.as_slice(), b"h" | b"d")).collect()
}

fn send(h: &mut History<Memory>, request: &SessionRequest) -> (Outcome, farshore_meta::Changes) {
    let mut applied = h.apply(SharedBody::Batch(vec![request.clone()]));
    (applied.outcomes.remove(0), applied.changes)
}

/// One operation of every kind, in an order in which each succeeds.
fn every_verb(h: &mut History<Memory>) -> Vec<Op> {
    let dir = h.make(Ino::ROOT, "dir", NewNode::Directory);
    h.make(dir, "gone", NewNode::File);
    h.make(Ino::ROOT, "empty", NewNode::Directory);
    let file = h.make(Ino::ROOT, "file", NewNode::File);
    let id = h.alloc(ALICE, 8);
    h.know_leases();
    h.open(BOB);
    let make_theirs = make_as(Ino::ROOT, "theirs", NewNode::Directory, None, true);
    h.apply_op(BOB, make_theirs).outcomes.remove(0).unwrap();
    let Reply::Attr(mine) = h.op(make_as(Ino::ROOT, "mine", NewNode::Directory, None, true)).unwrap() else { panic!() };
    vec![
        make(Ino::ROOT, "new", NewNode::Symlink(b"t".to_vec())),
        unlink(dir, "gone"),
        rmdir(Ino::ROOT, "empty"),
        rename(Ino::ROOT, "file", dir, "moved", RenameMode::NoReplace),
        link(file, Ino::ROOT, "second"),
        Op::SetAttr { ino: file, mode: Some(0o600), uid: None, gid: None, atime: Some(TimeChange::Now), mtime: None },
        commit(file, vec![slice(id, 0, 0, 70_000)]),
        Op::Truncate { ino: file, size: 10 },
        Op::AllocSlices { count: 3 },
        Op::CloseSlices { below: SliceId(id.0 + 4) },
        make_as(Ino::ROOT, "held", NewNode::Directory, None, true),
        Op::AllocInos { count: 5 },
        Op::GiveBack { dirs: vec![mine.ino] },
        recall(Ino::ROOT, "theirs"),
    ]
}

#[test]
fn law_10_a_repeated_request_gets_its_reply_and_does_nothing_for_every_verb() {
    let mut h = History::in_memory();
    let ops = every_verb(&mut h);
    let verbs: BTreeSet<usize> = ops.iter().map(Op::verb).collect();
    assert_eq!((verbs.len(), ops.len()), (Op::VERBS, Op::VERBS), "each verb once");
    let mut sent = Vec::new();
    for op in ops {
        let before = effects(&h);
        let request = h.request(ALICE, op);
        let (first, _) = send(&mut h, &request);
        assert!(first.is_ok(), "{request:?}: {first:?}");
        let after = effects(&h);
        assert!(before != after, "{request:?} does nothing");
        let (second, changes) = send(&mut h, &request);
        assert_eq!((&second, &changes), (&first, &Default::default()), "{request:?}");
        assert!(effects(&h) == after, "{request:?} was done twice");
        sent.push((request, first));
    }
    // Late repetitions too, one entry for all of them.
    let before = effects(&h);
    let applied = h.apply(SharedBody::Batch(sent.iter().map(|(request, _)| request.clone()).collect()));
    assert!(applied.outcomes.iter().eq(sent.iter().map(|(_, outcome)| outcome)) && effects(&h) == before);
}

#[test]
fn law_10_a_request_that_failed_keeps_its_failure() {
    let mut h = History::in_memory();
    let request = h.request(ALICE, unlink(Ino::ROOT, "f"));
    assert_eq!(send(&mut h, &request).0, Err(ErrorKind::NotFound));
    h.make(Ino::ROOT, "f", NewNode::File);
    assert_eq!(send(&mut h, &request).0, Err(ErrorKind::NotFound));
    assert_eq!(h.attr(Ino(h.header().next_ino - 1)).nlink, 1);
}

#[test]
fn law_10_acknowledged_replies_are_dropped_and_gaps_refused() {
    let mut h = History::in_memory();
    let requests: Vec<_> = ["a", "b", "c"].map(|name| h.request(ALICE, make(Ino::ROOT, name, NewNode::File))).into();
    let before = effects(&h);
    assert_eq!(send(&mut h, &requests[1]).0, Err(ErrorKind::SequenceGap));
    assert!(effects(&h) == before);
    for entry in [&requests[..2], &requests[2..]] {
        assert!(h.apply(SharedBody::Batch(entry.to_vec())).outcomes.iter().all(Result::is_ok));
    }
    let rows = |h: &History<Memory>| h.rows(Space::Shared).iter().filter(|(key, _)| key[0] == b'R').count();
    assert_eq!(rows(&h), 2, "the replies of one entry share a row");
    h.acknowledged = 1;
    h.op(unlink(Ino::ROOT, "a")).unwrap();
    assert_eq!(rows(&h), 3, "the first row holds a reply that is not acknowledged");
    assert_eq!(send(&mut h, &requests[0]).0, Err(ErrorKind::InvalidArgument), "acknowledged");
    assert!(send(&mut h, &requests[1]).0.is_ok());
    h.acknowledged = 2;
    h.op(unlink(Ino::ROOT, "a")).unwrap_err();
    assert_eq!(rows(&h), 3, "the first row went, another came");
    assert_eq!(send(&mut h, &requests[1]).0, Err(ErrorKind::InvalidArgument), "acknowledged and dropped");
    assert!(send(&mut h, &requests[2]).0.is_ok());
    let ahead = SessionRequest { acknowledged: Sequence(6), ..h.request(ALICE, unlink(Ino::ROOT, "b")) };
    assert_eq!(ahead.sequence, Sequence(6));
    let before = effects(&h);
    assert_eq!(send(&mut h, &ahead).0, Err(ErrorKind::InvalidArgument));
    assert!(effects(&h) == before);
}

#[test]
fn law_27_the_window_of_kept_replies_is_bounded() {
    let mut h = History::in_memory();
    let op = || Op::CloseSlices { below: SliceId(1) };
    for _ in 0..MAX_UNACKNOWLEDGED / 128 {
        let batch = (0..128).map(|_| h.request(ALICE, op())).collect();
        assert!(h.apply(SharedBody::Batch(batch)).outcomes.iter().all(Result::is_ok));
    }
    let one_more = h.request(ALICE, op());
    let before = effects(&h);
    assert_eq!(send(&mut h, &one_more).0, Err(ErrorKind::Busy));
    assert!(effects(&h) == before, "the one too many is not done and not kept");
    let acknowledging = SessionRequest { acknowledged: Sequence(1), ..one_more };
    assert!(send(&mut h, &acknowledging).0.is_ok());
}

#[test]
fn law_11_only_an_entry_ends_a_session_and_nothing_of_it_stays() {
    let mut h = History::in_memory();
    let empty = h.rows(Space::Shared).len();
    let request = h.request(BOB, make(Ino::ROOT, "x", NewNode::File));
    assert_eq!(send(&mut h, &request).0, Err(ErrorKind::SessionLost));
    h.open(BOB);
    assert_eq!(h.control(Control::OpenSession { session: BOB, info: info() }), Ok(Reply::Done), "a repeated proposal");
    let other = SessionInfo { host: "other".to_owned(), ..info() };
    assert_eq!(h.control(Control::OpenSession { session: BOB, info: other }), Err(ErrorKind::Exists));
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    h.op(unlink(Ino::ROOT, "f")).unwrap();
    h.control(Control::Purge { inos: vec![file] }).unwrap();
    for count in [1, 2] {
        h.alloc(BOB, count);
        h.alloc(ALICE, 1);
    }
    let known = farshore_meta::sessions(&*h.store.read().unwrap()).unwrap();
    assert_eq!(
        known.iter().map(|session| (session.id, session.high)).collect::<Vec<_>>(),
        [(ALICE, Sequence(4)), (BOB, Sequence(2))]
    );
    h.control(Control::Expire { session: BOB }).unwrap();
    assert_eq!(h.control(Control::CloseSession { session: BOB }), Err(ErrorKind::SessionLost));
    // Alice keeps four replies and two ranges.
    assert_eq!(h.rows(Space::Shared).len(), empty + 6);
    h.control(Control::CloseSession { session: ALICE }).unwrap();
    assert_eq!((h.header().sessions, h.rows(Space::Shared).iter().filter(|(key, _)| b"SWIR".contains(&key[0])).count()), (0, 0));
}

#[test]
fn law_27_the_ranges_of_slice_ids_of_a_session_are_bounded() {
    let mut h = History::in_memory();
    h.open(BOB);
    // Two sessions in turn, so that no range adjoins the one before it.
    for round in 0..MAX_ISSUED_RANGES / 128 {
        h.acknowledged = u64::from(round) * 128;
        let sessions = [ALICE, BOB].into_iter().cycle().take(256);
        let batch = sessions.map(|session| h.request(session, Op::AllocSlices { count: 1 })).collect();
        assert!(h.apply(SharedBody::Batch(batch)).outcomes.iter().all(Result::is_ok));
    }
    assert_eq!(h.op(Op::AllocSlices { count: 1 }), Err(ErrorKind::InvalidArgument));
    h.alloc(BOB, 1);
    h.op(Op::CloseSlices { below: SliceId(3) }).unwrap();
    h.alloc(ALICE, 1);
}
