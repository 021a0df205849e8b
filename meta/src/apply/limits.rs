//! Tests of limits that no history of a test could reach by itself.

#![allow(clippy::unwrap_used)]

use super::op::MAX_LINKS;
use super::{Apply, Stamped, outcome};
use crate::header::Header;
use crate::inode::{Body, Inode};
use crate::kv::{KvWrite, Memory, Store};
use crate::row::{Dentry, Window};
use farshore_types::*;

const FULL: Ino = Ino(50);
const FILE: Ino = Ino(51);
const SESSION: SessionId = SessionId([1; 16]);

fn inode(body: Body, nlink: u32) -> Inode {
    let ctime = Timestamp::default();
    Inode { body, mode: 0, uid: 0, gid: 0, nlink, parent: Ino::ROOT, version: LogIndex(1), ctime, mtime: None, atime: None }
}

/// An entry under way on a tree with a directory and a file that have as many links as there can be.
fn with_full_inodes(kv: &mut dyn KvWrite, test: impl FnOnce(&mut Apply)) {
    let body = SharedBody::Control(Control::Freeze);
    let entry = SharedEntry { epoch: EpochId::default(), time: LogTime(1), body };
    let stamped = Stamped { index: LogIndex(1), chain: Chain::default(), entry: &entry };
    let mut apply = Apply::new(kv, Header::default(), &stamped).unwrap();
    for (ino, inode) in [
        (Ino::ROOT, inode(Body::Directory { lease: None }, 4)),
        (Ino(49), inode(Body::Directory { lease: None }, 2)),
        (FULL, inode(Body::Directory { lease: None }, MAX_LINKS)),
        (FILE, inode(Body::File { size: 0, ground: None }, MAX_LINKS)),
    ] {
        apply.put_inode(ino, &inode).unwrap();
    }
    for (name, ino, kind) in
        [("dir", Ino(49), NodeKind::Directory), ("full", FULL, NodeKind::Directory), ("file", FILE, NodeKind::File)]
    {
        apply.put_entry(Ino::ROOT, name.as_bytes(), Dentry { ino, kind }).unwrap();
    }
    apply.put_entry(FULL, b"inside", Dentry { ino: FILE, kind: NodeKind::File }).unwrap();
    test(&mut apply);
}

fn fails(apply: &mut Apply, op: Op) -> Option<ErrorKind> {
    outcome(apply.op(SESSION, &op, &mut Window::default())).unwrap().err()
}

fn rename(name: &str, new_name: &str, mode: RenameMode) -> Op {
    Op::Rename { parent: Ino::ROOT, name: name.into(), new_parent: FULL, new_name: new_name.into(), mode }
}

fn make(parent: Ino, node: NewNode) -> Op {
    Op::Make { parent, name: b"new".to_vec(), node, mode: 0, uid: 0, gid: 0 }
}

#[test]
fn links_to_one_inode_are_bounded() {
    with_full_inodes(&mut *Memory::new().write().unwrap(), |apply| {
        let link = Op::Link { ino: FILE, new_parent: Ino::ROOT, new_name: b"more".to_vec() };
        let full = Some(ErrorKind::TooManyLinks);
        assert_eq!(fails(apply, link), full);
        assert_eq!(fails(apply, make(FULL, NewNode::Directory)), full);
        assert_eq!(fails(apply, rename("dir", "new", RenameMode::Replace)), full);
        assert_eq!(fails(apply, rename("dir", "inside", RenameMode::Exchange)), full);
        assert_eq!(fails(apply, make(FULL, NewNode::File)), None, "a file in it is no link to it");
    });
}

#[test]
fn law_7_a_slot_that_is_used_up_gives_no_more_ids() {
    with_full_inodes(&mut *Memory::new().write().unwrap(), |apply| {
        let last = (1 << COUNTER_BITS) - 1;
        apply.header.next_ino = last;
        apply.header.next_slice = last;
        assert_eq!(fails(apply, Op::AllocSlices { count: 2 }), Some(ErrorKind::NoSpace));
        assert_eq!(fails(apply, Op::AllocSlices { count: 1 }), None);
        assert_eq!(fails(apply, Op::AllocSlices { count: 1 }), Some(ErrorKind::NoSpace));
        assert_eq!(fails(apply, make(Ino::ROOT, NewNode::File)), None);
        assert_eq!(fails(apply, make(Ino(49), NewNode::File)), Some(ErrorKind::NoSpace));
    });
}
