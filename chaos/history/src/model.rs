//! The sequential file system: the names of one group and the inodes behind them.
//!
//! It knows what an answer must be, and where two answers are right it follows the one that was given: an inode without a
//! name may be freed at any time, and the inode of a file whose maker got no answer is any number, until it is seen.

use crate::{Answer, Call, Name, Seen};
use farshore_types::{ErrorKind, RenameMode};
use std::collections::BTreeMap;

/// The mode that [`Call::Make`] asks for.
pub const MADE_MODE: u16 = 0o644;

/// A file of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum FileId {
    Ino(u64),
    /// Its maker, an operation of the history, got no answer, and nobody has seen its number.
    MadeBy(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct File {
    mode: u16,
    uid: u32,
    size: u64,
    /// It had no name, and was freed.
    freed: bool,
}

/// What the group holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    names: BTreeMap<Name, FileId>,
    /// Also those that are freed: their numbers come never again.
    files: BTreeMap<FileId, File>,
}

type Result<T> = std::result::Result<T, ErrorKind>;

impl State {
    /// All states in which the group may be after the operation with this number has taken effect and was answered so, or was
    /// not answered (`None`). Empty: here this answer cannot be.
    pub fn after(&self, number: u32, call: &Call, answer: Option<&Answer>) -> Vec<State> {
        match call.ino() {
            Some(ino) if !self.files.contains_key(&FileId::Ino(ino)) => {
                let unseen = self.files.keys().copied().filter(|id| matches!(id, FileId::MadeBy(_)));
                let bound = unseen.filter_map(|id| {
                    let mut next = self.clone();
                    next.is(id, ino).then_some(next)
                });
                bound.filter_map(|state| state.stepped(number, call, answer)).collect()
            }
            _ => self.clone().stepped(number, call, answer).into_iter().collect(),
        }
    }

    fn stepped(mut self, number: u32, call: &Call, answer: Option<&Answer>) -> Option<State> {
        if let (Some(ino), Some(Answer::Refused(ErrorKind::Stale))) = (call.ino(), answer) {
            return self.free(FileId::Ino(ino)).then_some(self);
        }
        let right = match call {
            Call::Make { name, uid } => self.make(number, *name, *uid, answer),
            Call::Lookup { name } => self.lookup(*name, answer),
            Call::List => self.list(answer),
            Call::GetAttr { ino } => {
                let found = self.live(*ino).map(|_| ());
                self.answers(*ino, found, answer)
            }
            Call::Unlink { name } => done(self.names.remove(name).map(|_| ()).ok_or(ErrorKind::NotFound), answer),
            Call::Rename { from, to, mode } => done(self.rename(*from, *to, *mode), answer),
            Call::Link { ino, name } => {
                let linked = self.link(*ino, *name);
                self.answers(*ino, linked, answer)
            }
            Call::SetAttr { ino, mode, uid } => {
                let set = self.live(*ino).map(|file| (file.mode, file.uid) = (*mode, *uid));
                self.answers(*ino, set, answer)
            }
            Call::Truncate { ino, size } => {
                let cut = self.live(*ino).map(|file| file.size = *size);
                self.answers(*ino, cut, answer)
            }
            Call::Commit { ino, size } => {
                let grown = self.live(*ino).map(|file| file.size = file.size.max(u64::from(*size)));
                self.answers(*ino, grown, answer)
            }
        };
        right.then_some(self)
    }

    /// An unseen file turns out to have this number.
    fn is(&mut self, id: FileId, ino: u64) -> bool {
        if id == FileId::Ino(ino) {
            return true;
        }
        let known = FileId::Ino(ino);
        if matches!(id, FileId::Ino(_)) || self.files.contains_key(&known) {
            return false;
        }
        let Some(file) = self.files.remove(&id) else { return false };
        self.files.insert(known, file);
        self.names.values_mut().filter(|named| **named == id).for_each(|named| *named = known);
        true
    }

    fn links(&self, id: FileId) -> u32 {
        self.names.values().filter(|named| **named == id).count() as u32
    }

    fn seen(&self, ino: u64) -> Option<Seen> {
        let id = FileId::Ino(ino);
        let File { mode, uid, size, freed } = *self.files.get(&id)?;
        (!freed).then(|| Seen { ino, nlink: self.links(id), mode, uid, size })
    }

    fn live(&mut self, ino: u64) -> Result<&mut File> {
        self.files.get_mut(&FileId::Ino(ino)).filter(|file| !file.freed).ok_or(ErrorKind::Stale)
    }

    /// Whether it was freed, or may be now.
    fn free(&mut self, id: FileId) -> bool {
        let nameless = self.links(id) == 0;
        let Some(file) = self.files.get_mut(&id).filter(|_| nameless) else { return false };
        // What a freed inode looked like is nothing to tell states apart by.
        *file = File { mode: 0, uid: 0, size: 0, freed: true };
        true
    }

    /// Whether the answer is the inode as it is now, or this failure.
    fn answers(&self, ino: u64, result: Result<()>, answer: Option<&Answer>) -> bool {
        match (answer, result) {
            (None, _) => true,
            (Some(Answer::Inode(seen)), Ok(())) => self.seen(ino) == Some(*seen),
            (Some(Answer::Refused(kind)), Err(why)) => *kind == why,
            _ => false,
        }
    }

    fn make(&mut self, number: u32, name: Name, uid: u32, answer: Option<&Answer>) -> bool {
        let file = File { mode: MADE_MODE, uid, size: 0, freed: false };
        let there = self.names.contains_key(&name);
        let id = match answer {
            None if there => return true,
            None => FileId::MadeBy(number),
            Some(Answer::Inode(seen)) if !there => FileId::Ino(seen.ino),
            Some(answer) => return there && *answer == Answer::Refused(ErrorKind::Exists),
        };
        // No number is issued twice (law 7).
        if self.files.insert(id, file).is_some() {
            return false;
        }
        self.names.insert(name, id);
        match (id, answer) {
            (FileId::Ino(ino), Some(_)) => self.answers(ino, Ok(()), answer),
            _ => true,
        }
    }

    fn shows(&mut self, name: Name, seen: &Seen) -> bool {
        match self.names.get(&name).copied() {
            Some(id) => self.is(id, seen.ino) && self.seen(seen.ino) == Some(*seen),
            None => false,
        }
    }

    fn lookup(&mut self, name: Name, answer: Option<&Answer>) -> bool {
        match answer {
            None => true,
            Some(Answer::Inode(seen)) => self.shows(name, seen),
            Some(answer) => !self.names.contains_key(&name) && *answer == Answer::Refused(ErrorKind::NotFound),
        }
    }

    fn list(&mut self, answer: Option<&Answer>) -> bool {
        match answer {
            None => true,
            Some(Answer::Names(names)) => {
                let same = names.iter().map(|(name, _)| name).eq(self.names.keys());
                same && names.iter().all(|(name, seen)| self.shows(*name, seen))
            }
            Some(_) => false,
        }
    }

    fn rename(&mut self, from: Name, to: Name, mode: RenameMode) -> Result<()> {
        let source = *self.names.get(&from).ok_or(ErrorKind::NotFound)?;
        match (mode, self.names.get(&to).copied()) {
            (RenameMode::NoReplace, Some(_)) => return Err(ErrorKind::Exists),
            (RenameMode::Exchange, None) => return Err(ErrorKind::NotFound),
            // Two names of one inode: POSIX leaves both.
            (_, Some(target)) if target == source => return Ok(()),
            (RenameMode::Exchange, Some(target)) => drop(self.names.insert(from, target)),
            _ => drop(self.names.remove(&from)),
        }
        self.names.insert(to, source);
        Ok(())
    }

    fn link(&mut self, ino: u64, name: Name) -> Result<()> {
        self.live(ino)?;
        if self.names.contains_key(&name) {
            return Err(ErrorKind::Exists);
        }
        if self.links(FileId::Ino(ino)) == 0 {
            return Err(ErrorKind::NotFound);
        }
        self.names.insert(name, FileId::Ino(ino));
        Ok(())
    }
}

/// Whether an answer without content is the one for this result.
fn done(result: Result<()>, answer: Option<&Answer>) -> bool {
    match (answer, result) {
        (None, _) => true,
        (Some(Answer::Done), Ok(())) => true,
        (Some(Answer::Refused(kind)), Err(why)) => *kind == why,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Name = Name(0);
    const B: Name = Name(1);

    fn seen(ino: u64, nlink: u32, uid: u32) -> Answer {
        Answer::Inode(Seen { ino, nlink, mode: MADE_MODE, uid, size: 0 })
    }

    fn one(state: &State, call: Call, answer: Option<Answer>) -> State {
        let mut states = state.after(9, &call, answer.as_ref());
        assert_eq!(states.len(), 1, "{call} -> {answer:?} at {state:?}");
        states.remove(0)
    }

    fn wrong(state: &State, call: Call, answer: Answer) {
        assert_eq!(state.after(9, &call, Some(&answer)), [], "{call} -> {answer}");
    }

    fn with_a() -> State {
        one(&State::default(), Call::Make { name: A, uid: 1 }, Some(seen(10, 1, 1)))
    }

    #[test]
    fn names_come_and_go_and_answers_follow_them() {
        let made = with_a();
        wrong(&made, Call::Make { name: A, uid: 2 }, seen(11, 1, 2));
        wrong(&made, Call::Make { name: B, uid: 2 }, Answer::Refused(ErrorKind::Exists));
        assert_eq!(one(&made, Call::Make { name: A, uid: 2 }, Some(Answer::Refused(ErrorKind::Exists))), made);
        wrong(&made, Call::Lookup { name: A }, Answer::Refused(ErrorKind::NotFound));
        let linked = one(&made, Call::Link { ino: 10, name: B }, Some(seen(10, 2, 1)));
        let exchange = Call::Rename { from: A, to: B, mode: RenameMode::Replace };
        assert_eq!(one(&linked, exchange, Some(Answer::Done)), linked, "two names of one inode stay");
        let unlinked = one(&linked, Call::Unlink { name: A }, Some(Answer::Done));
        wrong(&unlinked, Call::Unlink { name: A }, Answer::Done);
        one(&unlinked, Call::GetAttr { ino: 10 }, Some(seen(10, 1, 1)));
        wrong(&unlinked, Call::GetAttr { ino: 10 }, Answer::Refused(ErrorKind::Stale));
        wrong(&made, Call::Unlink { name: A }, Answer::Strange("what".to_owned()));
    }

    #[test]
    fn a_nameless_inode_may_be_there_until_it_was_found_freed() {
        let orphaned = one(&with_a(), Call::Unlink { name: A }, None);
        let set = Call::SetAttr { ino: 10, mode: MADE_MODE, uid: 5 };
        one(&orphaned, set.clone(), Some(seen(10, 0, 5)));
        wrong(&orphaned, Call::Link { ino: 10, name: A }, seen(10, 1, 1));
        one(&orphaned, Call::Link { ino: 10, name: A }, Some(Answer::Refused(ErrorKind::NotFound)));
        let freed = one(&orphaned, Call::GetAttr { ino: 10 }, Some(Answer::Refused(ErrorKind::Stale)));
        wrong(&freed, set, seen(10, 0, 5));
        wrong(&freed, Call::Make { name: A, uid: 7 }, seen(10, 1, 7));
    }

    #[test]
    fn an_unanswered_make_has_the_number_under_which_it_is_first_seen() {
        let made = one(&State::default(), Call::Make { name: A, uid: 1 }, None);
        let found = one(&made, Call::Lookup { name: A }, Some(seen(77, 1, 1)));
        wrong(&found, Call::Lookup { name: A }, seen(78, 1, 1));
        let by_number = one(&made, Call::GetAttr { ino: 77 }, Some(seen(77, 1, 1)));
        assert_eq!(by_number, found);
        let listed = Seen { ino: 77, nlink: 1, mode: MADE_MODE, uid: 1, size: 0 };
        assert_eq!(one(&made, Call::List, Some(Answer::Names(vec![(A, listed)]))), found);
        wrong(&made, Call::List, Answer::Names(vec![]));
        let both = one(&made.after(8, &Call::Make { name: B, uid: 1 }, None)[0], Call::List, None);
        assert_eq!(both.after(9, &Call::GetAttr { ino: 77 }, Some(&seen(77, 1, 1))).len(), 2, "it may be either");
    }
}
