//! The namespace as POSIX has it, case by case.
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::Memory;
use farshore_meta::{Event, MAX_FILE_SIZE, Touched, orphans};
use farshore_types::*;
use support::*;

fn names(history: &History<Memory>, ino: Ino) -> Vec<String> {
    match history.query(Query::ReadDir { ino, after: None, limit: 100 }).unwrap() {
        QueryReply::Entries { entries, more: false } => {
            entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn path(history: &History<Memory>, ino: Ino) -> Option<String> {
    match history.query(Query::PathOf { ino }).unwrap() {
        QueryReply::Path(path) => path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn make_refuses_what_a_directory_cannot_hold() {
    let mut h = History::in_memory();
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    let long = "n".repeat(MAX_NAME);
    h.make(Ino::ROOT, &long, NewNode::File);
    for (op, kind) in [
        (make(Ino::ROOT, "f", NewNode::Directory), ErrorKind::Exists),
        (make(file, "x", NewNode::File), ErrorKind::NotDirectory),
        (make(Ino(999), "x", NewNode::File), ErrorKind::Stale),
        (make(Ino::ROOT, &format!("{long}n"), NewNode::File), ErrorKind::NameTooLong),
        (make(Ino::ROOT, "a/b", NewNode::File), ErrorKind::InvalidArgument),
        (make(Ino::ROOT, "", NewNode::File), ErrorKind::InvalidArgument),
        (make(Ino::ROOT, "..", NewNode::File), ErrorKind::InvalidArgument),
        (make(Ino::ROOT, "s", NewNode::Symlink(vec![b'x'; MAX_SYMLINK + 1])), ErrorKind::NameTooLong),
    ] {
        assert_eq!(h.op(op), Err(kind));
    }
}

#[test]
fn a_new_inode_takes_kind_owner_and_times_and_a_set_gid_directory_hands_down_its_group() {
    let mut h = History::in_memory();
    let dir = h.make(Ino::ROOT, "d", NewNode::Directory);
    let change = Op::SetAttr { ino: dir, mode: Some(0o2755), uid: None, gid: Some(77), atime: None, mtime: None };
    h.op(change).unwrap();
    let [sub, file] = [("sub", NewNode::Directory), ("file", NewNode::File)].map(|(name, node)| {
        let ino = h.make(dir, name, node);
        h.attr(ino)
    });
    assert_eq!((sub.gid, sub.mode, sub.nlink), (77, 0o2644, 2));
    assert_eq!((file.gid, file.mode, file.uid, file.nlink), (77, 0o644, 10, 1));
    assert_eq!(h.attr(dir).nlink, 3);
    assert!(file.atime == file.ctime && file.mtime == file.ctime && file.version == h.header().index);
    assert_eq!(h.attr(dir).mtime, file.mtime, "a directory is modified when its names change");
    let target = b"over there".to_vec();
    let link = h.make(dir, "link", NewNode::Symlink(target.clone()));
    assert_eq!((h.attr(link).size, h.attr(link).mode), (10, 0o777));
    assert_eq!(h.query(Query::ReadLink { ino: link }), Ok(QueryReply::Target(target)));
    assert_eq!(h.query(Query::ReadLink { ino: dir }), Err(ErrorKind::InvalidArgument));
    let null = h.make(dir, "null", NewNode::CharDevice(0x103));
    assert_eq!((h.attr(null).kind, h.attr(null).rdev), (NodeKind::CharDevice, 0x103));
}

#[test]
fn an_unlinked_inode_waits_for_its_purge() {
    let mut h = History::in_memory();
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    let id = h.alloc(ALICE, 1);
    h.op(commit(file, vec![slice(id, 0, 0, 100)])).unwrap();
    let applied = h.apply_op(ALICE, unlink(Ino::ROOT, "f"));
    assert!(applied.changes.events.contains(&Event::Orphaned(file)) && applied.changes.dropped.is_empty());
    assert_eq!(h.attr(file).nlink, 0);
    assert_eq!(orphans(&*farshore_meta::kv::Store::read(&h.store).unwrap(), 9).unwrap(), [file]);
    assert_eq!(h.op(link(file, Ino::ROOT, "back")), Err(ErrorKind::NotFound));
    let open = h.make(Ino::ROOT, "other", NewNode::File);
    let purge = SharedBody::Control(Control::Purge { inos: vec![file, open, Ino(12345), file] });
    let applied = h.apply(purge);
    assert_eq!(applied.changes.dropped.iter().map(|dropped| dropped.id).collect::<Vec<_>>(), [id]);
    assert_eq!(h.query(Query::GetAttr { ino: file }), Err(ErrorKind::Stale));
    assert_eq!(h.attr(open).nlink, 1, "a purge of what has a name does nothing");
    assert_eq!(h.query(Query::StatFs), Ok(QueryReply::StatFs { used_bytes: 0, used_inodes: 2, block_size: BLOCK }));
}

#[test]
fn unlink_and_rmdir_each_take_their_own_kind() {
    let mut h = History::in_memory();
    let dir = h.make(Ino::ROOT, "d", NewNode::Directory);
    h.make(dir, "f", NewNode::File);
    assert_eq!(h.op(unlink(Ino::ROOT, "d")), Err(ErrorKind::IsDirectory));
    assert_eq!(h.op(rmdir(dir, "f")), Err(ErrorKind::NotDirectory));
    assert_eq!(h.op(rmdir(Ino::ROOT, "d")), Err(ErrorKind::NotEmpty));
    assert_eq!(h.op(rmdir(Ino::ROOT, "none")), Err(ErrorKind::NotFound));
    h.op(unlink(dir, "f")).unwrap();
    h.op(rmdir(Ino::ROOT, "d")).unwrap();
    assert_eq!((h.attr(Ino::ROOT).nlink, h.attr(dir).nlink), (2, 0));
    assert_eq!(h.op(make(dir, "late", NewNode::File)), Err(ErrorKind::NotFound), "a removed directory takes no names");
}

#[test]
fn hard_links_count_and_know_their_directories() {
    let mut h = History::in_memory();
    let [a, b] = ["a", "b"].map(|name| h.make(Ino::ROOT, name, NewNode::Directory));
    let file = h.make(a, "one", NewNode::File);
    h.op(link(file, a, "two")).unwrap();
    h.op(link(file, b, "three")).unwrap();
    assert_eq!(h.attr(file).nlink, 3);
    assert_eq!(h.op(link(a, b, "dir")), Err(ErrorKind::NotPermitted));
    assert_eq!(h.op(link(file, b, "three")), Err(ErrorKind::Exists));
    h.op(unlink(a, "one")).unwrap();
    assert_eq!(path(&h, file).unwrap(), "/a/two");
    h.op(rename(a, "two", b, "four", RenameMode::Replace)).unwrap();
    h.op(unlink(b, "three")).unwrap();
    assert_eq!((h.attr(file).nlink, path(&h, file).unwrap().as_str()), (1, "/b/four"));
    h.op(rename(b, "four", a, "five", RenameMode::Replace)).unwrap();
    assert_eq!(path(&h, file).unwrap(), "/a/five");
    h.op(unlink(a, "five")).unwrap();
    assert_eq!(path(&h, file), None);
}

#[test]
fn rename_follows_posix() {
    let mut h = History::in_memory();
    let [a, b] = ["a", "b"].map(|name| h.make(Ino::ROOT, name, NewNode::Directory));
    let sub = h.make(a, "sub", NewNode::Directory);
    let [f, g] = ["f", "g"].map(|name| h.make(a, name, NewNode::File));
    h.op(link(f, a, "f2")).unwrap();
    use RenameMode::{Exchange, NoReplace, Replace};
    for (op, kind) in [
        (rename(a, "none", b, "x", Replace), ErrorKind::NotFound),
        (rename(a, "f", a, "g", NoReplace), ErrorKind::Exists),
        (rename(a, "f", a, "none", Exchange), ErrorKind::NotFound),
        (rename(a, "sub", a, "f", Replace), ErrorKind::NotDirectory),
        (rename(a, "f", a, "sub", Replace), ErrorKind::IsDirectory),
        (rename(Ino::ROOT, "b", Ino::ROOT, "a", Replace), ErrorKind::NotEmpty),
        (rename(Ino::ROOT, "a", sub, "x", Replace), ErrorKind::InvalidArgument),
        (rename(Ino::ROOT, "a", a, "x", Replace), ErrorKind::InvalidArgument),
        (rename(a, "sub", Ino::ROOT, "a", Exchange), ErrorKind::InvalidArgument),
        (rename(a, "f", f, "x", Replace), ErrorKind::NotDirectory),
    ] {
        assert_eq!(h.op(op.clone()), Err(kind), "{op:?}");
    }
    let version = h.attr(f).version;
    h.op(rename(a, "f", a, "f2", Replace)).unwrap();
    assert_eq!((names(&h, a).len(), h.attr(f).version), (4, version), "two names of one inode: nothing happens");
    h.op(rename(a, "f", a, "g", Replace)).unwrap();
    assert_eq!((h.attr(g).nlink, names(&h, a).join(" ").as_str()), (0, "f2 g sub"));
    h.op(rename(a, "sub", b, "sub", Replace)).unwrap();
    assert_eq!((h.attr(a).nlink, h.attr(b).nlink), (2, 3));
    assert_eq!(h.query(Query::Parent { ino: sub }), Ok(QueryReply::Parent(b)));
    h.op(rename(b, "sub", a, "g", Exchange)).unwrap();
    assert_eq!((h.attr(a).nlink, h.attr(b).nlink, path(&h, sub).unwrap().as_str()), (3, 2, "/a/g"));
    let empty = h.make(b, "empty", NewNode::Directory);
    h.op(rename(a, "g", b, "empty", Replace)).unwrap();
    assert_eq!((h.attr(a).nlink, h.attr(b).nlink, h.attr(empty).nlink), (2, 3, 0));
}

#[test]
fn attributes_change_as_asked() {
    let mut h = History::in_memory();
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    let at = Timestamp { secs: -5, nanos: 999_999_999 };
    let change = |mtime| Op::SetAttr {
        ino: file,
        mode: Some(0o17755),
        uid: Some(1),
        gid: None,
        atime: Some(TimeChange::Now),
        mtime: Some(mtime),
    };
    let Reply::Attr(attr) = h.op(change(TimeChange::At(at))).unwrap() else { panic!() };
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.mtime, attr.atime), (0o7755, 1, 20, at, attr.ctime));
    assert_eq!(attr, h.attr(file));
    let wrong = Timestamp { secs: 0, nanos: 1_000_000_000 };
    assert_eq!(h.op(change(TimeChange::At(wrong))), Err(ErrorKind::InvalidArgument));
    let id = h.alloc(ALICE, 1);
    h.op(Op::CommitSlices { ino: file, slices: vec![slice(id, 0, 0, 1)], clear_set_id: true }).unwrap();
    assert_eq!(h.attr(file).mode, 0o1755, "a write takes the set-id bits");
}

#[test]
fn readdir_pages_by_name() {
    let mut h = History::in_memory();
    for name in ["b", "a", "c", "aa"] {
        h.make(Ino::ROOT, name, NewNode::File);
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let QueryReply::Entries { entries, more } =
            h.query(Query::ReadDir { ino: Ino::ROOT, after: after.take(), limit: 2 }).unwrap()
        else {
            panic!()
        };
        assert!(entries.len() <= 2);
        after = entries.last().map(|entry| entry.name.clone());
        seen.extend(entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()));
        if !more {
            break;
        }
    }
    assert_eq!(seen.join(" "), "a aa b c");
}

#[test]
fn a_file_reaches_to_the_largest_size_and_not_beyond() {
    let mut h = History::in_memory();
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    h.op(Op::Truncate { ino: file, size: MAX_FILE_SIZE }).unwrap();
    assert_eq!(h.attr(file).size, MAX_FILE_SIZE);
    assert_eq!(h.op(Op::Truncate { ino: file, size: MAX_FILE_SIZE + 1 }), Err(ErrorKind::FileTooLarge));
    let id = h.alloc(ALICE, 1);
    let beyond = slice(id, (MAX_FILE_SIZE / CHUNK_SIZE) as u32, 0, 1);
    assert_eq!(h.op(commit(file, vec![beyond])), Err(ErrorKind::FileTooLarge));
    assert_eq!(h.op(Op::Truncate { ino: Ino::ROOT, size: 0 }), Err(ErrorKind::IsDirectory));
}

#[test]
fn law_29_what_changed_is_told_with_who_changed_it() {
    let mut h = History::in_memory();
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    let changes = h.apply_op(ALICE, rename(Ino::ROOT, "f", Ino::ROOT, "g", RenameMode::Replace)).changes;
    assert!(changes.touched.iter().all(|(who, _)| *who == Some(ALICE)));
    let touched: std::collections::BTreeSet<_> = changes.touched.into_iter().map(|(_, what)| what).collect();
    let entry = |name: &str| Touched::Entry { parent: Ino::ROOT, name: name.into() };
    assert_eq!(touched, [Touched::Inode(Ino::ROOT), Touched::Inode(file), entry("f"), entry("g")].into());
}
