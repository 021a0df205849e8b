//! A reference that plays random histories: a file system of its own, and clients whose operations take effect at one instant
//! between call and return. Planted faults make it answer wrongly, as a broken cluster would.

use farshore_history::{Answer, Arena, Call, Name, Operation, Record, RecordId, Seen};
use farshore_types::{ErrorKind, RenameMode};
use std::collections::BTreeMap;

/// What is wrong with the cluster that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Some questions are answered out of an older state.
    StaleRead,
    /// Some operations are done twice, and the second answer is given.
    DoubleApply,
}

/// How a history is played.
#[derive(Clone, Copy, Debug)]
pub struct Play {
    pub seed: u64,
    pub clients: usize,
    pub operations: usize,
    /// Operations without an answer, of 1000.
    pub lost: u64,
    pub fault: Fault,
}

/// One in so many operations is touched by the fault.
const FAULTY_OF: u64 = 50;
/// States that a stale reader may still have.
const STALE: usize = 40;

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Clone, Default)]
struct Files {
    names: BTreeMap<(u64, Name), u64>,
    inodes: BTreeMap<u64, (u16, u32, u64)>,
    last: u64,
}

impl Files {
    fn show(&self, ino: u64) -> Result<Answer, ErrorKind> {
        Ok(Answer::Inode(self.seen(ino)?))
    }

    fn seen(&self, ino: u64) -> Result<Seen, ErrorKind> {
        let (mode, uid, size) = *self.inodes.get(&ino).ok_or(ErrorKind::Stale)?;
        let nlink = self.names.values().filter(|named| **named == ino).count() as u32;
        Ok(Seen { ino, nlink, mode, uid, size })
    }

    fn find(&self, group: u64, name: Name) -> Result<u64, ErrorKind> {
        self.names.get(&(group, name)).copied().ok_or(ErrorKind::NotFound)
    }

    fn inode(&mut self, ino: u64) -> Result<&mut (u16, u32, u64), ErrorKind> {
        self.inodes.get_mut(&ino).ok_or(ErrorKind::Stale)
    }

    fn perform(&mut self, group: u64, call: &Call) -> Result<Answer, ErrorKind> {
        match *call {
            Call::Make { name, uid } => {
                if self.find(group, name).is_ok() {
                    return Err(ErrorKind::Exists);
                }
                self.last += 1;
                self.names.insert((group, name), self.last);
                self.inodes.insert(self.last, (0o644, uid, 0));
                self.show(self.last)
            }
            Call::Unlink { name } => self.names.remove(&(group, name)).map(|_| Answer::Done).ok_or(ErrorKind::NotFound),
            Call::Rename { from, to, mode } => {
                let source = self.find(group, from)?;
                let target = self.find(group, to);
                match (mode, target) {
                    (RenameMode::NoReplace, Ok(_)) => return Err(ErrorKind::Exists),
                    (RenameMode::Exchange, Err(kind)) => return Err(kind),
                    (_, Ok(target)) if target == source => return Ok(Answer::Done),
                    (RenameMode::Exchange, Ok(target)) => drop(self.names.insert((group, from), target)),
                    _ => drop(self.names.remove(&(group, from))),
                }
                self.names.insert((group, to), source);
                Ok(Answer::Done)
            }
            Call::Link { ino, name } => {
                let links = self.seen(ino)?.nlink;
                match self.find(group, name) {
                    Ok(_) => Err(ErrorKind::Exists),
                    Err(kind) if links == 0 => Err(kind),
                    Err(_) => {
                        self.names.insert((group, name), ino);
                        self.show(ino)
                    }
                }
            }
            Call::SetAttr { ino, mode, uid } => {
                let inode = self.inode(ino)?;
                (inode.0, inode.1) = (mode, uid);
                self.show(ino)
            }
            Call::Truncate { ino, size } => {
                self.inode(ino)?.2 = size;
                self.show(ino)
            }
            Call::Commit { ino, size } => {
                let inode = self.inode(ino)?;
                inode.2 = inode.2.max(u64::from(size));
                self.show(ino)
            }
            Call::Lookup { name } => self.show(self.find(group, name)?),
            Call::GetAttr { ino } => self.show(ino),
            Call::List => {
                let names = self.names.range((group, Name(0))..=(group, Name(u8::MAX)));
                let names = names.map(|((_, name), ino)| Ok((*name, self.seen(*ino)?)));
                Ok(Answer::Names(names.collect::<Result<_, ErrorKind>>()?))
            }
        }
    }

    /// Nameless inodes go when the purger comes by.
    fn purge(&mut self) {
        let names = &self.names;
        self.inodes.retain(|ino, _| names.values().any(|named| named == ino));
    }
}

enum Client {
    Idle,
    Called(RecordId, u64, Call),
    Done(RecordId, u64, Answer),
}

pub fn play(play: Play) -> Vec<Operation> {
    let mut random = Random(play.seed);
    let (mut arena, mut record, mut files) = (Arena::new(0, true), Record::default(), Files::default());
    let mut older: Vec<Files> = vec![];
    let mut clients: Vec<Client> = (0..play.clients).map(|_| Client::Idle).collect();
    let (mut left, mut now) = (play.operations, 0);
    while left > 0 || clients.iter().any(|client| !matches!(client, Client::Idle)) {
        now += 10_000;
        if random.below(100) == 0 {
            files.purge();
        }
        let at = random.below(play.clients as u64) as usize;
        clients[at] = match std::mem::replace(&mut clients[at], Client::Idle) {
            Client::Idle if left == 0 => Client::Idle,
            Client::Idle => {
                left -= 1;
                let (group, call) = arena.next(at == 0, &mut |bound| random.below(bound));
                Client::Called(record.begin(now, at as u32, group, call.clone()), group, call)
            }
            Client::Called(..) if random.below(1000) < play.lost / 2 => Client::Idle,
            Client::Called(id, group, call) => {
                let faulty = random.below(FAULTY_OF) == 0;
                let mut answer = files.perform(group, &call);
                if faulty && play.fault == Fault::StaleRead && call.is_query() && !older.is_empty() {
                    let at = random.below(older.len() as u64) as usize;
                    answer = older[at].perform(group, &call);
                } else if faulty && play.fault == Fault::DoubleApply && !call.is_query() {
                    answer = files.perform(group, &call);
                }
                if !call.is_query() {
                    older.push(files.clone());
                    let over = older.len().saturating_sub(STALE);
                    older.drain(..over);
                }
                Client::Done(id, group, answer.unwrap_or_else(Answer::Refused))
            }
            Client::Done(..) if random.below(1000) < play.lost / 2 => Client::Idle,
            Client::Done(id, group, answer) => {
                arena.learn(group, &answer);
                record.end(now, id, answer, None);
                Client::Idle
            }
        };
    }
    record.operations().to_vec()
}
