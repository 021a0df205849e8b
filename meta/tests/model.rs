//! The namespace and file content against a reference model that is too simple to be wrong: names are maps, link counts are
//! counted, content is a map of bytes.
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::{Memory, Space, Store};
use farshore_meta::live_slices;
use farshore_types::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::collections::{BTreeMap, BTreeSet};
use support::random::{RandomOp, random_op, to_op};
use support::{ALICE, BLOCK, History, Rows};

type Names = BTreeMap<Vec<u8>, Ino>;

#[derive(Clone, Debug)]
enum Node {
    Directory(Names),
    /// Length and content.
    File(u64, Bytes),
    Other(NodeKind),
}

#[derive(Clone, Debug, Default)]
struct Model {
    nodes: BTreeMap<Ino, Node>,
}

/// For each byte that was written, by position: the slice and the place in it.
type Bytes = BTreeMap<u64, (SliceId, u64)>;

type Verdict = Result<(), ErrorKind>;

impl Model {
    fn new() -> Model {
        Model { nodes: [(Ino::ROOT, Node::Directory(Names::new()))].into() }
    }

    fn parents_of(&self, ino: Ino) -> Vec<Ino> {
        let names =
            |node: &Node| if let Node::Directory(names) = node { names.values().filter(|to| **to == ino).count() } else { 0 };
        self.nodes.iter().flat_map(|(parent, node)| std::iter::repeat_n(*parent, names(node))).collect()
    }

    fn nlink(&self, ino: Ino) -> u32 {
        let names = self.parents_of(ino).len() as u32;
        match &self.nodes[&ino] {
            Node::Directory(_) if names == 0 && ino != Ino::ROOT => 0,
            Node::Directory(names) => 2 + names.values().filter(|child| self.is_directory(**child)).count() as u32,
            _ => names,
        }
    }

    fn is_directory(&self, ino: Ino) -> bool {
        matches!(self.nodes[&ino], Node::Directory(_))
    }

    /// The names of a directory that may be changed.
    fn names(&self, ino: Ino) -> Result<&Names, ErrorKind> {
        match self.nodes.get(&ino).ok_or(ErrorKind::Stale)? {
            Node::Directory(_) if self.nlink(ino) == 0 => Err(ErrorKind::NotFound),
            Node::Directory(names) => Ok(names),
            _ => Err(ErrorKind::NotDirectory),
        }
    }

    fn set(&mut self, parent: Ino, name: &[u8], to: Option<Ino>) {
        let Some(Node::Directory(names)) = self.nodes.get_mut(&parent) else { panic!("not a directory") };
        match to {
            Some(ino) => names.insert(name.to_vec(), ino),
            None => names.remove(name),
        };
    }

    fn is_empty(&self, ino: Ino) -> Verdict {
        match &self.nodes[&ino] {
            Node::Directory(names) if !names.is_empty() => Err(ErrorKind::NotEmpty),
            _ => Ok(()),
        }
    }

    fn below(&self, ino: Ino, top: Ino) -> bool {
        ino == top || self.parents_of(ino).iter().any(|parent| self.below(*parent, top))
    }

    /// Does it, when it can be done. `made` is the number that the state machine gave to a new inode.
    fn apply(&mut self, op: &Op, made: Option<Ino>) -> Verdict {
        match op {
            Op::Make { parent, name, node, .. } | Op::MakeAs { parent, name, node, .. } => {
                if self.names(*parent)?.contains_key(name) {
                    return Err(ErrorKind::Exists);
                }
                let made = made.expect("a make that is done has a number");
                let node = match node.kind() {
                    NodeKind::Directory => Node::Directory(Names::new()),
                    NodeKind::File => Node::File(0, BTreeMap::new()),
                    kind => Node::Other(kind),
                };
                assert!(self.nodes.insert(made, node).is_none(), "law 7: an inode number is used once");
                self.set(*parent, name, Some(made));
            }
            Op::Unlink { parent, name } => {
                let ino = *self.names(*parent)?.get(name).ok_or(ErrorKind::NotFound)?;
                if self.is_directory(ino) {
                    return Err(ErrorKind::IsDirectory);
                }
                self.set(*parent, name, None);
            }
            Op::Rmdir { parent, name } => {
                let ino = *self.names(*parent)?.get(name).ok_or(ErrorKind::NotFound)?;
                if !self.is_directory(ino) {
                    return Err(ErrorKind::NotDirectory);
                }
                self.is_empty(ino)?;
                self.set(*parent, name, None);
            }
            Op::Rename { parent, name, new_parent, new_name, mode } => {
                return self.rename((*parent, name), (*new_parent, new_name), *mode);
            }
            Op::Link { ino, new_parent, new_name } => {
                if matches!(self.nodes.get(ino).ok_or(ErrorKind::Stale)?, Node::Directory(_)) {
                    return Err(ErrorKind::NotPermitted);
                }
                if self.names(*new_parent)?.contains_key(new_name) {
                    return Err(ErrorKind::Exists);
                }
                if self.nlink(*ino) == 0 {
                    return Err(ErrorKind::NotFound);
                }
                self.set(*new_parent, new_name, Some(*ino));
            }
            Op::SetAttr { ino, .. } => drop(self.nodes.get(ino).ok_or(ErrorKind::Stale)?),
            Op::Truncate { ino, size } => {
                let (length, bytes) = self.file(*ino)?;
                bytes.retain(|at, _| at < size);
                *length = *size;
            }
            Op::CommitSlices { ino, slices, .. } => {
                let (length, bytes) = self.file(*ino)?;
                for slice in slices {
                    let start = u64::from(slice.chunk) * CHUNK_SIZE + u64::from(slice.position);
                    bytes.extend((0..u64::from(slice.size)).map(|at| (start + at, (slice.id, at))));
                    *length = (*length).max(start + u64::from(slice.size));
                }
            }
            Op::AllocSlices { .. } | Op::CloseSlices { .. } | Op::AllocInos { .. } | Op::GiveBack { .. } | Op::Recall { .. } => {}
        }
        Ok(())
    }

    fn file(&mut self, ino: Ino) -> Result<(&mut u64, &mut Bytes), ErrorKind> {
        match self.nodes.get_mut(&ino).ok_or(ErrorKind::Stale)? {
            Node::File(length, bytes) => Ok((length, bytes)),
            Node::Directory(_) => Err(ErrorKind::IsDirectory),
            Node::Other(_) => Err(ErrorKind::InvalidArgument),
        }
    }

    fn rename(&mut self, old: (Ino, &[u8]), new: (Ino, &[u8]), mode: RenameMode) -> Verdict {
        self.names(old.0)?;
        let target = self.names(new.0)?.get(new.1).copied();
        let source = *self.names(old.0)?.get(old.1).ok_or(ErrorKind::NotFound)?;
        if self.is_directory(source) && self.below(new.0, source) {
            return Err(ErrorKind::InvalidArgument);
        }
        let Some(target) = target else {
            if mode == RenameMode::Exchange {
                return Err(ErrorKind::NotFound);
            }
            self.set(old.0, old.1, None);
            self.set(new.0, new.1, Some(source));
            return Ok(());
        };
        match mode {
            RenameMode::NoReplace => return Err(ErrorKind::Exists),
            _ if source == target => return Ok(()),
            RenameMode::Exchange if self.is_directory(target) && self.below(old.0, target) => {
                return Err(ErrorKind::InvalidArgument);
            }
            RenameMode::Exchange => self.set(old.0, old.1, Some(target)),
            RenameMode::Replace => {
                match (self.is_directory(source), self.is_directory(target)) {
                    (true, false) => return Err(ErrorKind::NotDirectory),
                    (false, true) => return Err(ErrorKind::IsDirectory),
                    _ => self.is_empty(target)?,
                }
                self.set(old.0, old.1, None);
            }
        }
        self.set(new.0, new.1, Some(source));
        Ok(())
    }

    fn purge(&mut self) -> Vec<Ino> {
        let gone: Vec<Ino> = self.nodes.keys().copied().filter(|ino| self.nlink(*ino) == 0).collect();
        self.nodes.retain(|ino, _| !gone.contains(ino));
        gone
    }
}

/// What a reader of the file sees, from its pieces.
fn content(h: &History<Memory>, ino: Ino, size: u64) -> Bytes {
    let mut bytes = BTreeMap::new();
    for chunk in 0..3 {
        for view in h.slices(ino, chunk) {
            for at in 0..u64::from(view.length) {
                let place = u64::from(chunk) * CHUNK_SIZE + u64::from(view.position) + at;
                match view.slice.id {
                    SliceId::HOLE => bytes.remove(&place),
                    id => bytes.insert(place, (id, u64::from(view.offset) + at)),
                };
            }
        }
    }
    bytes.retain(|at, _| *at < size);
    bytes
}

fn compare_node(h: &History<Memory>, model: &Model, ino: Ino, node: &Node) {
    let attr = h.attr(ino);
    assert_eq!(attr.nlink, model.nlink(ino), "links of {ino}");
    match node {
        Node::Directory(names) => {
            let QueryReply::Entries { entries, more: false } = h.query(Query::ReadDir { ino, after: None, limit: 99 }).unwrap()
            else {
                panic!()
            };
            assert!(
                names.iter().map(|(name, ino)| (name, *ino)).eq(entries.iter().map(|entry| (&entry.name, entry.attr.ino))),
                "names of {ino}"
            );
            let parent = model.parents_of(ino).first().copied();
            if let Some(parent) = parent.or((ino == Ino::ROOT).then_some(ino)) {
                assert_eq!(h.query(Query::Parent { ino }), Ok(QueryReply::Parent(parent)));
            }
            assert_eq!(attr.kind, NodeKind::Directory);
        }
        Node::File(size, bytes) => {
            assert_eq!((attr.kind, attr.size), (NodeKind::File, *size), "file {ino}");
            assert!(content(h, ino, *size) == *bytes, "content of {ino}");
        }
        Node::Other(kind) => assert_eq!(attr.kind, *kind),
    }
    let QueryReply::Path(path) = h.query(Query::PathOf { ino }).unwrap() else { panic!() };
    assert_eq!(path.is_some(), model.nlink(ino) > 0, "{ino} has a path as long as it has a name");
    if let Some(path) = path {
        let found =
            path.split('/').filter(|name| !name.is_empty()).fold(Ino::ROOT, |at, name| model.names(at).unwrap()[name.as_bytes()]);
        assert_eq!(found, ino, "{path}");
    }
}

/// Usage, live slices and pieces agree with each other and with what the changes said.
fn compare_slices(h: &History<Memory>, model: &Model, live: &BTreeSet<SliceId>) {
    let kv = h.store.read().unwrap();
    let records: Vec<_> = live_slices(&*kv, SliceId(0), None).unwrap().map(|row| row.unwrap()).collect();
    assert!(records.iter().map(|(id, _)| *id).eq(live.iter().copied()), "law 13: added and dropped tell what lives");
    let used_bytes = records.iter().map(|(_, record)| u64::from(record.size)).sum();
    let used_inodes = model.nodes.len() as u64;
    assert_eq!(h.query(Query::StatFs), Ok(QueryReply::StatFs { used_bytes, used_inodes, block_size: BLOCK }));
    let mut pieces = Vec::new();
    for (ino, node) in &model.nodes {
        if matches!(node, Node::File(..)) {
            pieces.extend(
                (0..3).flat_map(|chunk| h.slices(*ino, chunk)).map(|view| view.slice.id).filter(|id| *id != SliceId::HOLE),
            );
        }
    }
    pieces.sort_unstable();
    assert!(pieces.iter().eq(live), "a live slice has exactly one piece");
}

/// The packed id of a slot below 31, and the rest.
fn packed(bytes: &[u8]) -> (Ino, &[u8]) {
    let (slot, length) = (bytes[0] >> 3, usize::from(bytes[0] & 7));
    assert!(slot < 31);
    let counter = bytes[1..=length].iter().fold(0, |counter, byte| counter << 8 | u64::from(*byte));
    (Ino(Slot(slot.into()).id(counter)), &bytes[1 + length..])
}

/// Link rows are there for inodes of several names, and tell their directories.
fn compare_links(h: &History<Memory>, model: &Model) {
    let of_several = model.nodes.keys().filter(|ino| !model.is_directory(**ino) && model.nlink(**ino) > 1);
    let pairs: BTreeSet<(Ino, Ino)> =
        of_several.flat_map(|ino| model.parents_of(*ino).into_iter().map(|parent| (*ino, parent))).collect();
    let rows = h.rows(Space::Shared).into_iter().filter(|(key, _)| key[0] == b'l').map(|(key, _)| {
        let (ino, rest) = packed(&key[1..]);
        let (parent, rest) = packed(rest);
        assert!(rest.is_empty());
        (ino, parent)
    });
    assert_eq!(rows.collect::<BTreeSet<_>>(), pairs);
}

/// All that a failed operation must leave alone: everything but the header, the digest and the session's own rows.
fn untouchable(h: &History<Memory>) -> Rows {
    h.rows(Space::Shared).into_iter().filter(|(key, _)| !b"hdRW".contains(&key[0])).collect()
}

/// Plays one operation on both; returns whether it was done.
fn play(h: &mut History<Memory>, model: &mut Model, live: &mut BTreeSet<SliceId>, op: Op) -> bool {
    let before = untouchable(h);
    let applied = h.apply_op(ALICE, op.clone());
    let outcome = &applied.outcomes[0];
    let made = match outcome {
        Ok(Reply::Attr(attr)) => Some(attr.ino),
        _ => None,
    };
    assert_eq!(outcome.as_ref().map(|_| ()).map_err(|kind| *kind), model.apply(&op, made), "{op:?}");
    if outcome.is_err() {
        assert!(untouchable(h) == before && applied.changes == Default::default(), "{op:?} failed and did something");
    }
    follow(live, &applied.changes);
    outcome.is_ok()
}

fn follow(live: &mut BTreeSet<SliceId>, changes: &farshore_meta::Changes) {
    for added in &changes.added {
        assert!(live.insert(added.id), "{} was added twice", added.id);
    }
    for dropped in &changes.dropped {
        assert!(live.remove(&dropped.id) && dropped.added <= dropped.dropped, "{} was dropped and did not live", dropped.id);
    }
}

/// Plays all operations (`None`: purge) and compares after each; returns which verbs succeeded.
fn run(ops: &[Option<RandomOp>]) -> BTreeSet<String> {
    let mut h = History::in_memory();
    h.know_leases();
    let mut ids = h.alloc(ALICE, 2 * ops.len() as u32);
    let (mut model, mut live, mut done) = (Model::new(), BTreeSet::new(), BTreeSet::new());
    for op in ops {
        let Some(random) = op else {
            let gone = model.purge();
            let kept = model.nodes.keys().copied();
            let changes =
                h.apply(SharedBody::Control(Control::Purge { inos: kept.chain(gone.iter().copied()).collect() })).changes;
            follow(&mut live, &changes);
            continue;
        };
        // Only verbs of the file system: ids are handed out above, and numbers not at all.
        let random = RandomOp { verb: random.verb % 22, ..random.clone() };
        let inos: Vec<Ino> = model.nodes.keys().copied().chain([Ino(99_999)]).collect();
        let op = to_op(&random, &inos, &mut ids);
        h.acknowledged = h.used[&ALICE];
        let name = format!("{op:?}").split(' ').next().unwrap_or_default().to_owned();
        if play(&mut h, &mut model, &mut live, op) {
            done.insert(name);
        }
        for (ino, node) in &model.nodes {
            compare_node(&h, &model, *ino, node);
        }
        compare_slices(&h, &model, &live);
        compare_links(&h, &model);
    }
    done
}

fn ops(length: usize) -> impl Strategy<Value = Vec<Option<RandomOp>>> {
    prop::collection::vec(prop::option::weighted(0.95, random_op()), 1..length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_operations_match_the_model(ops in ops(80)) {
        run(&ops);
    }
}

#[test]
fn random_operations_reach_every_verb() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut done = BTreeSet::new();
    for _ in 0..8 {
        done.extend(run(&ops(200).new_tree(&mut runner).unwrap().current()));
    }
    assert_eq!(
        done.into_iter().collect::<Vec<_>>().join(" "),
        "CommitSlices Link Make MakeAs Recall Rename Rmdir SetAttr Truncate Unlink"
    );
}
