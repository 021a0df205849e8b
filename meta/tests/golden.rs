//! Law 26: the bytes of every row kind, of before-images and of canonical entries are these, and change only with a
//! version. To accept a change on purpose, take the new text from the message of the failed test.
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::encode_entry;
use farshore_meta::kv::{Memory, Space, Store};
use farshore_types::*;
use support::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(rows: &[(Vec<u8>, Vec<u8>)]) -> String {
    rows.iter().map(|(key, value)| format!("{} {} {}\n", char::from(*key.first().unwrap()), hex(&key[1..]), hex(value))).collect()
}

/// A history that leaves a row of every kind.
fn every_row() -> History<Memory> {
    let mut h = History::in_memory();
    let dir = h.make(Ino::ROOT, "dir", NewNode::Directory);
    let file = h.make(dir, "file", NewNode::File);
    h.make(dir, "gone", NewNode::Symlink(b"target".to_vec()));
    h.make(dir, "null", NewNode::CharDevice(259));
    let id = h.alloc(ALICE, 5);
    h.op(commit(file, vec![slice(id, 0, 3, BLOCK + 1)])).unwrap();
    h.op(link(file, Ino::ROOT, "second")).unwrap();
    h.op(Op::Truncate { ino: file, size: 100 }).unwrap();
    h.op(unlink(dir, "gone")).unwrap();
    h.op(unlink(dir, "none")).unwrap_err();
    let at = TimeChange::At(Timestamp { secs: -1, nanos: 1 });
    h.op(Op::SetAttr { ino: dir, mode: None, uid: None, gid: None, atime: Some(at), mtime: None }).unwrap();
    h.make(dir, "empty", NewNode::File);
    let whole = h.make(dir, "whole", NewNode::File);
    h.op(commit(whole, vec![slice(SliceId(id.0 + 1), 0, 0, 100)])).unwrap();
    let unusual = h.make(dir, "unusual", NewNode::File);
    h.op(commit(unusual, vec![slice(SliceId(id.0 + 2), 0, 0, 7)])).unwrap();
    h.op(Op::Truncate { ino: unusual, size: 100 }).unwrap();
    h.op(Op::SetAttr { ino: unusual, mode: Some(0o4711), uid: Some(77), gid: Some(77), atime: None, mtime: Some(at) }).unwrap();
    h.control(Control::RosterAdd { cluster: EU }).unwrap();
    h.know_leases();
    h.op(make_as(dir, "held", NewNode::Directory, None, true)).unwrap();
    h.op(make_as(dir, "recalled", NewNode::Directory, None, true)).unwrap();
    h.op(Op::AllocInos { count: 300 }).unwrap();
    h.open(BOB);
    h.apply_op(BOB, recall(dir, "recalled")).outcomes.remove(0).unwrap();
    h
}

#[test]
fn law_26_rows_have_golden_bytes() {
    let shared = every_row().rows(Space::Shared);
    let tags: String = shared.iter().map(|(key, _)| char::from(key[0])).collect();
    for tag in "hLduvrielocsSWINR".chars() {
        assert!(tags.contains(tag), "no row of kind {tag}");
    }
    let text = text(&shared);
    assert!(text == include_str!("golden/rows.txt"), "rows changed:\n{text}");
}

#[test]
fn law_26_before_images_have_golden_bytes() {
    let mut h = every_row();
    h.control(Control::RosterNeedsSnapshot { cluster: EU, needs: true }).unwrap();
    let kv = h.store.read().unwrap();
    let index = h.header().index.0.to_be_bytes();
    let row = hex(kv.get(Space::Undo, &index).unwrap().unwrap());
    assert_eq!(row, include_str!("golden/undo.txt").trim(), "before-images changed");
}

#[test]
fn law_1_entries_have_golden_bytes() {
    let epoch = EpochId { number: 2, cluster: EU };
    let time = LogTime(1_790_000_000_000_000);
    let request = |sequence, op| SessionRequest { session: ALICE, sequence: Sequence(sequence), acknowledged: Sequence(3), op };
    let batch = SharedBody::Batch(vec![
        request(4, make(Ino::ROOT, "file", NewNode::File)),
        request(5, commit(Ino(2), vec![slice(SliceId(300), 1, 5, BLOCK + 1)])),
    ]);
    let start = Epoch { id: epoch, parent: EpochId { number: 1, cluster: US }, start: LogIndex(77), chain: Chain([5; 32]) };
    let bodies = [
        batch,
        SharedBody::Control(Control::Start { epoch: start, slot: Slot(17) }),
        SharedBody::Batch(vec![
            request(4, make_as(Ino(2), "file", NewNode::File, Some(Ino(300)), false)),
            request(5, Op::AllocInos { count: 256 }),
            request(6, Op::GiveBack { dirs: vec![Ino(2), Ino(300)] }),
            request(7, recall(Ino(2), "file")),
        ]),
        SharedBody::Control(Control::OpenSession { session: BOB, info: info() }),
        SharedBody::Control(Control::Freeze),
    ];
    let text: String = bodies.into_iter().map(|body| hex(&encode_entry(&SharedEntry { epoch, time, body })) + "\n").collect();
    assert!(text == include_str!("golden/entries.txt"), "entries changed:\n{text}");
}
