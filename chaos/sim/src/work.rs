//! What a writer does in its directory: deeds whose outcome it knows beforehand, since the names that a deed touches are
//! touched by nothing else until it is answered.

use crate::board::{Directory, FileKnown};
use crate::common::Common;
use crate::dice::Dice;
use crate::model::BLOCK_SIZE;
use farshore_types::{
    ClusterId, ErrorKind, Ino, LEASES_VERSION, NewNode, NewSlice, Op, Outcome, RenameMode, Reply, SliceId, blocks_of,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Slice ids asked for at once.
const SLICES: u32 = 32;
/// Longest file, in bytes.
const LONGEST: u64 = 3 * BLOCK_SIZE as u64;
/// Names in a directory.
const NAMES: u64 = 12;
/// Inode numbers asked for at once.
const INOS: u32 = 6;

/// One request and what it means.
#[derive(Clone, Debug)]
pub struct Deed {
    pub op: Op,
    pub effect: Effect,
}

/// What a deed does to the directory once it is answered.
#[derive(Clone, Debug)]
pub enum Effect {
    Directory,
    Slices,
    Numbers,
    /// Somebody's directory is recalled.
    Recall,
    Make {
        name: String,
    },
    Commit {
        name: String,
        slice: SliceId,
        size: u32,
    },
    Unlink {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Exchange {
        a: String,
        b: String,
    },
    Truncate {
        name: String,
        size: u64,
    },
}

impl Effect {
    fn names(&self) -> Vec<String> {
        match self {
            Effect::Directory | Effect::Slices | Effect::Numbers | Effect::Recall => vec![],
            Effect::Make { name } | Effect::Commit { name, .. } | Effect::Unlink { name } | Effect::Truncate { name, .. } => {
                vec![name.clone()]
            }
            Effect::Rename { from, to } => vec![from.clone(), to.clone()],
            Effect::Exchange { a, b } => vec![a.clone(), b.clone()],
        }
    }
}

/// A writer's directory and what it holds for the next deeds.
pub struct Work {
    directory: Directory,
    bucket: ClusterId,
    common: Arc<Common>,
    slices: Vec<SliceId>,
    busy: BTreeSet<String>,
    asked_directory: bool,
    asked_slices: bool,
    /// Inode numbers, the lowest last, and whether more are asked for.
    numbers: Vec<Ino>,
    asked_numbers: bool,
    /// Creations with numbers of its own that are not answered.
    numbered: usize,
    /// The volume's version of the state machine, as the last welcome said.
    machine: u32,
}

impl Work {
    pub fn new(directory: Directory, bucket: ClusterId, common: Arc<Common>) -> Self {
        let (slices, busy, asked_directory, asked_slices) = Default::default();
        let (numbers, asked_numbers, numbered, machine) = Default::default();
        Work { directory, bucket, common, slices, busy, asked_directory, asked_slices, numbers, asked_numbers, numbered, machine }
    }

    /// What a welcome said.
    pub fn welcomed(&mut self, machine: u32) {
        self.machine = machine;
    }

    /// Something to do now; `None`: everything that could be done waits for an answer.
    pub fn next_deed(&mut self, dice: &Dice) -> Option<Deed> {
        let Some(parent) = self.directory.ino else {
            if std::mem::replace(&mut self.asked_directory, true) {
                return None;
            }
            let name = self.directory.name.clone().into_bytes();
            let (parent, node, mode, uid, gid) = (Ino::ROOT, NewNode::Directory, 0o755, 0, 0);
            let op = match self.knows_leases() && dice.chance(500) {
                true => Op::MakeAs { parent, name, node, mode, uid, gid, ino: None, lease: true },
                false => Op::Make { parent, name, node, mode, uid, gid },
            };
            return Some(Deed { op, effect: Effect::Directory });
        };
        if self.slices.len() < 4 && !self.asked_slices {
            self.asked_slices = true;
            return Some(Deed { op: Op::AllocSlices { count: SLICES }, effect: Effect::Slices });
        }
        if self.knows_leases()
            && let Some(deed) = self.deed_of_leases(dice)
        {
            return Some(deed);
        }
        let name = format!("f{}", dice.below(NAMES));
        let other = format!("f{}", dice.below(NAMES));
        if self.busy.contains(&name) || self.busy.contains(&other) || name == other {
            return None;
        }
        let deed = self.deed(dice, parent, name, other)?;
        self.busy.extend(deed.effect.names());
        Some(deed)
    }

    fn knows_leases(&self) -> bool {
        self.machine >= LEASES_VERSION
    }

    fn deed_of_leases(&mut self, dice: &Dice) -> Option<Deed> {
        // New numbers make void what is under way with the old ones.
        if self.numbers.is_empty() && self.numbered == 0 && !self.asked_numbers && dice.chance(300) {
            self.asked_numbers = true;
            return Some(Deed { op: Op::AllocInos { count: INOS }, effect: Effect::Numbers });
        }
        if !dice.chance(20) {
            return None;
        }
        let directories = self.common.board.directories();
        let name = dice.pick(&directories)?.name.clone().into_bytes();
        Some(Deed { op: Op::Recall { dir: Ino::ROOT, name, take: dice.chance(500) }, effect: Effect::Recall })
    }

    fn deed(&mut self, dice: &Dice, parent: Ino, name: String, other: String) -> Option<Deed> {
        let bytes = |name: &str| name.as_bytes().to_vec();
        let Some(file) = self.directory.files.get(&name).cloned() else {
            let (of, node, mode, uid, gid) = (bytes(&name), NewNode::File, 0o644, 0, 0);
            let op = match self.numbers.pop() {
                Some(ino) => {
                    self.numbered += 1;
                    Op::MakeAs { parent, name: of, node, mode, uid, gid, ino: Some(ino), lease: false }
                }
                None => Op::Make { parent, name: of, node, mode, uid, gid },
            };
            return Some(Deed { op, effect: Effect::Make { name } });
        };
        let there = self.directory.files.contains_key(&other);
        let rename = |mode| Op::Rename { parent, name: bytes(&name), new_parent: parent, new_name: bytes(&other), mode };
        match dice.below(100) {
            0..50 => {
                let id = self.slices.pop()?;
                let size = dice.between(1, LONGEST) as u32;
                let checksums: Vec<u32> = blocks_of(id, size, BLOCK_SIZE).map(|_| dice.next() as u32).collect();
                let slice = NewSlice { chunk: 0, position: 0, id, size, checksums };
                let op = Op::CommitSlices { ino: file.ino, slices: vec![slice], clear_set_id: false };
                Some(Deed { op, effect: Effect::Commit { name, slice: id, size } })
            }
            50..70 => Some(Deed { op: Op::Unlink { parent, name: bytes(&name) }, effect: Effect::Unlink { name } }),
            70..80 => Some(Deed { op: rename(RenameMode::Replace), effect: Effect::Rename { from: name, to: other } }),
            80..88 if there => Some(Deed { op: rename(RenameMode::Exchange), effect: Effect::Exchange { a: name, b: other } }),
            _ => {
                let size = if dice.chance(400) { 0 } else { dice.below(LONGEST) };
                Some(Deed { op: Op::Truncate { ino: file.ino, size }, effect: Effect::Truncate { name, size } })
            }
        }
    }

    /// Blocks first, metadata after.
    pub fn upload(&self, deed: &Deed) {
        if let Op::CommitSlices { slices, .. } = &deed.op {
            for slice in slices {
                for (block, crc) in blocks_of(slice.id, slice.size, BLOCK_SIZE).zip(&slice.checksums) {
                    self.common.buckets.put(self.bucket, block, *crc);
                }
            }
        }
    }

    /// A deed was answered: it must have been done, exactly once.
    pub fn done(&mut self, deed: Deed, outcome: Outcome) {
        let number = if let Op::MakeAs { ino, .. } = &deed.op { *ino } else { None };
        // One that another session left in doubt (hazard 3.3) was not counted by this one.
        self.numbered = self.numbered.saturating_sub(usize::from(number.is_some()));
        let reply = match outcome {
            Ok(reply) => reply,
            // An epoch has begun since the numbers were issued: the file was not made.
            Err(ErrorKind::Stale) if number.is_some() => {
                self.numbers.clear();
                self.busy.retain(|name| !deed.effect.names().contains(name));
                return;
            }
            Err(kind) => {
                let what = format!("law 10: {:?} in {} was answered {kind:?}", deed.op, self.directory.name);
                return self.common.trace.broken(what);
            }
        };
        for name in deed.effect.names() {
            self.busy.remove(&name);
        }
        let files = &mut self.directory.files;
        match (deed.effect, reply) {
            (Effect::Directory, Reply::Attr(attr)) => self.directory.ino = Some(attr.ino),
            (Effect::Slices, Reply::Slices { first, count }) => {
                self.asked_slices = false;
                self.slices.extend((0..u64::from(count)).rev().map(|at| SliceId(first.0 + at)));
            }
            (Effect::Numbers, Reply::Inos { first, count }) => {
                self.asked_numbers = false;
                self.numbers = (0..u64::from(count)).rev().map(|at| Ino(first.0 + at)).collect();
            }
            (Effect::Recall, Reply::Done) => {}
            (Effect::Make { name }, Reply::Attr(attr)) if number.is_none_or(|number| number == attr.ino) => {
                files.insert(name, FileKnown { ino: attr.ino, size: 0, slice: None });
            }
            (Effect::Commit { name, slice, size }, Reply::Attr(_)) => {
                if let Some(file) = files.get_mut(&name) {
                    file.size = file.size.max(u64::from(size));
                    file.slice = Some(slice);
                }
            }
            (Effect::Unlink { name }, _) => drop(files.remove(&name)),
            (Effect::Rename { from, to }, _) => {
                if let Some(file) = files.remove(&from) {
                    files.insert(to, file);
                }
            }
            (Effect::Exchange { a, b }, _) => {
                let (first, second) = (files.remove(&a), files.remove(&b));
                files.extend(first.map(|file| (b, file)));
                files.extend(second.map(|file| (a, file)));
            }
            (Effect::Truncate { name, size }, Reply::Attr(_)) => {
                if let Some(file) = files.get_mut(&name) {
                    file.size = size;
                    file.slice = file.slice.filter(|_| size > 0);
                }
            }
            (effect, reply) => self.common.trace.broken(format!("law 10: {effect:?} was answered {reply:?}")),
        }
    }

    /// The session is over; what was in doubt stays so.
    pub fn lost(&mut self, doubts: &[Deed]) {
        for deed in doubts {
            self.directory.unknown.extend(deed.effect.names());
        }
        self.publish();
    }

    /// Tells the board how the directory must look.
    pub fn publish(&self) {
        if self.directory.ino.is_some() {
            self.common.board.publish(&self.directory);
        }
    }
}
