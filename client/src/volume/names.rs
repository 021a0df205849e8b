//! Directories that this client made, whose names it therefore knows: a name that is not among them need not be asked for.
//!
//! Programs that unpack or copy a tree look up every name before they create it. An entry of a directory that others have
//! not touched since this client made it can only be one of its own; the cluster tells at once when others do. The answer
//! "no such name" may so be as old as the last word of the cluster, and counts only while that is younger than what the
//! kernel may believe of a name anyway. Creating still asks the cluster, which alone decides whether a name is free.
//!
//! The same holds for the attributes of such a directory, which the kernel asks for after every creation in it: a file that
//! this client made in it set its times to the file's own. Whatever else this client does in it makes them unknown.

use crate::invalidation::Invalidation;
use farshore_types::{Attr, Ino, LogIndex};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names that are kept, in all directories; at the bound all are forgotten (law 27).
const NAMES_MAX: usize = 1 << 18;
/// Directories of which the last change by others is remembered.
const TOUCHED_MAX: usize = 1024;

/// The directories, and what others touched lately.
#[derive(Debug, Default)]
pub(super) struct OwnNames {
    inner: Mutex<Inner>,
    /// Changes of this client's own under way that may change inodes without an answer that says which. One whose outcome is
    /// unknown stays among them.
    under_way: AtomicUsize,
    /// The index up to which such changes reach.
    changed: AtomicU64,
}

/// A change that is under way.
pub(super) struct UnderWay<'a>(&'a OwnNames);

impl UnderWay<'_> {
    /// It was done, or refused, in a state of this index at most.
    pub fn end(self, index: LogIndex) {
        self.0.changed.fetch_max(index.0, Ordering::AcqRel);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Ino, Known>,
    names: usize,
    /// Directories that others touched, newest last, and how many there were before the first.
    touched: VecDeque<Ino>,
    forgotten: u64,
}

#[derive(Debug)]
struct Known {
    /// Names that may exist. One that was removed may stay: it is asked for.
    names: HashSet<Vec<u8>>,
    /// Empty while something that changes them is under way or was done.
    attr: Option<Attr>,
    /// Files that are being made.
    making: usize,
    /// Counts what changed the attributes.
    changes: u64,
}

/// A moment, for [`OwnNames::made`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u64);

impl OwnNames {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name is removed, moved or added, or attributes are set, of what this client may have open: what it knows of open inodes does
    /// not count until newer answers come.
    pub fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(self)
    }

    /// Whether attributes that came with an answer of this index still count.
    pub fn counts(&self, seen: LogIndex) -> bool {
        self.under_way.load(Ordering::Acquire) == 0 && seen.0 > self.changed.load(Ordering::Acquire)
    }

    /// Taken before a directory is asked to be made.
    pub fn moment(&self) -> Moment {
        let inner = self.inner();
        Moment(inner.forgotten + inner.touched.len() as u64)
    }

    /// This client made the directory after `since`: it is empty, unless others were there already.
    pub fn made(&self, dir: &Attr, since: Moment) {
        let mut inner = self.inner();
        let Some(seen) = since.0.checked_sub(inner.forgotten) else { return };
        if !inner.touched.iter().skip(seen as usize).any(|touched| *touched == dir.ino) {
            let known = Known { names: HashSet::new(), attr: Some(dir.clone()), making: 0, changes: 0 };
            inner.known.insert(dir.ino, known);
            inner.names += 1;
            inner.bound();
        }
    }

    /// This client is about to make the name, or has tried to.
    pub fn may_exist(&self, dir: Ino, name: &[u8]) {
        let mut inner = self.inner();
        if let Some(known) = inner.known.get_mut(&dir)
            && known.names.insert(name.to_vec())
        {
            inner.names += 1;
            inner.bound();
        }
    }

    /// Whether the directory surely has no such name.
    pub fn has_not(&self, dir: Ino, name: &[u8]) -> bool {
        self.inner().known.get(&dir).is_some_and(|known| !known.names.contains(name))
    }

    /// This client begins to make a file in the directory.
    pub fn making(&self, dir: Ino) {
        if let Some(known) = self.inner().known.get_mut(&dir) {
            known.making += 1;
            known.changes += 1;
        }
    }

    /// This client makes the file, and the cluster will hear of it later: as [`OwnNames::making`], with its times. `false`: the name
    /// may exist already, and nothing was done.
    pub fn hold_file(&self, dir: Ino, name: &[u8], made: &Attr) -> bool {
        let mut inner = self.inner();
        let Some(known) = inner.known.get_mut(&dir) else { return false };
        if !known.names.insert(name.to_vec()) {
            return false;
        }
        known.making += 1;
        known.changes += 1;
        if let Some(attr) = &mut known.attr {
            (attr.mtime, attr.ctime) = (made.ctime, made.ctime);
        }
        inner.names += 1;
        inner.bound();
        true
    }

    /// Files are being made in this directory that the cluster may not have said of: what it will say of its times.
    pub fn over(&self, attr: &mut Attr) {
        let inner = self.inner();
        let known = inner.known.get(&attr.ino).filter(|known| known.making > 0).and_then(|known| known.attr.as_ref());
        if let Some(known) = known.filter(|known| known.mtime > attr.mtime) {
            (attr.mtime, attr.ctime) = (known.mtime, known.ctime);
        }
    }

    /// It made the file, which has these attributes.
    pub fn made_file(&self, dir: Ino, made: &Attr) {
        if let Some(known) = self.inner().known.get_mut(&dir) {
            known.making = known.making.saturating_sub(1);
            known.changes += 1;
            if let Some(attr) = known.attr.as_mut().filter(|attr| made.version > attr.version) {
                (attr.mtime, attr.ctime, attr.version) = (made.ctime, made.ctime, made.version);
            }
        }
    }

    /// This client changes the directory's attributes in another way, or has done so.
    pub fn changing(&self, dir: Ino) {
        if let Some(known) = self.inner().known.get_mut(&dir) {
            known.changes += 1;
            known.attr = None;
        }
    }

    /// A mark for [`OwnNames::learned`].
    pub fn changes(&self, dir: Ino) -> Option<u64> {
        self.inner().known.get(&dir).map(|known| known.changes)
    }

    /// The cluster's answer to a question that was asked at this mark.
    pub fn learned(&self, attr: &Attr, mark: Option<u64>) {
        if let Some(known) = self.inner().known.get_mut(&attr.ino)
            && mark == Some(known.changes)
            && known.making == 0
        {
            known.attr = Some(attr.clone());
        }
    }

    /// The directory's attributes.
    pub fn attr(&self, dir: Ino) -> Option<Attr> {
        self.inner().known.get(&dir).and_then(|known| known.attr.clone())
    }

    /// Something of the directory is not as this client thought.
    pub fn forget(&self, dir: Ino) {
        self.inner().forget(dir);
    }

    /// What others changed.
    pub fn invalidated(&self, item: &Invalidation) {
        let mut inner = self.inner();
        match item {
            Invalidation::Inode(ino) | Invalidation::Entry { parent: ino, .. } => {
                inner.forget(*ino);
                inner.touched.push_back(*ino);
                if inner.touched.len() > TOUCHED_MAX {
                    inner.touched.pop_front();
                    inner.forgotten += 1;
                }
            }
            Invalidation::Reset => inner.clear(),
        }
    }
}

impl Inner {
    fn forget(&mut self, dir: Ino) {
        if let Some(known) = self.known.remove(&dir) {
            self.names -= known.names.len() + 1;
        }
    }

    /// Moments that were taken before are of no use.
    fn clear(&mut self) {
        self.known.clear();
        self.names = 0;
        self.forgotten += self.touched.len() as u64 + 1;
        self.touched.clear();
    }

    fn bound(&mut self) {
        if self.names > NAMES_MAX {
            self.known.clear();
            self.names = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::{NodeKind, Timestamp};

    const DIR: Ino = Ino(7);

    fn attr_of(ino: Ino, time: i64, version: u64) -> Attr {
        let time = Timestamp { secs: time, nanos: 0 };
        let (mode, uid, gid, nlink, size, rdev) = (0o755, 0, 0, 2, 4096, 0);
        let (atime, mtime, ctime, version) = (time, time, time, LogIndex(version));
        Attr { ino, kind: NodeKind::Directory, mode, uid, gid, nlink, size, rdev, atime, mtime, ctime, version }
    }

    fn dir() -> Attr {
        attr_of(DIR, 1, 1)
    }

    fn entry(parent: Ino) -> Invalidation {
        Invalidation::Entry { parent, name: b"theirs".to_vec() }
    }

    #[test]
    fn only_names_of_own_directories_are_known_not_to_be_there() {
        let own = OwnNames::default();
        assert!(!own.has_not(DIR, b"a"), "nothing is known of a directory of others");
        own.made(&dir(), own.moment());
        assert!(own.has_not(DIR, b"a"));
        own.may_exist(DIR, b"a");
        assert!(!own.has_not(DIR, b"a") && own.has_not(DIR, b"b"));
        own.invalidated(&entry(Ino(8)));
        assert!(own.has_not(DIR, b"b"), "others changed another directory");
        own.invalidated(&entry(DIR));
        assert!(!own.has_not(DIR, b"b"));
        own.may_exist(DIR, b"c");
        assert!(!own.has_not(DIR, b"d"), "what was forgotten stays so");
    }

    #[test]
    fn what_others_did_while_the_directory_was_being_made_counts() {
        let own = OwnNames::default();
        own.invalidated(&entry(DIR));
        let before = own.moment();
        own.invalidated(&entry(DIR));
        own.made(&dir(), before);
        assert!(!own.has_not(DIR, b"a"), "touched between the question and its answer");
        own.made(&dir(), own.moment());
        assert!(own.has_not(DIR, b"a"));
        let before = own.moment();
        (0..=TOUCHED_MAX as u64).for_each(|n| own.invalidated(&entry(Ino(100 + n))));
        own.forget(DIR);
        own.made(&dir(), before);
        assert!(!own.has_not(DIR, b"a"), "too much was touched to remember all of it");
        let before = own.moment();
        own.invalidated(&Invalidation::Reset);
        own.made(&dir(), before);
        assert!(!own.has_not(DIR, b"a"), "messages were lost");
    }

    #[test]
    fn a_file_that_was_made_gives_its_times_to_the_directory_and_all_else_makes_them_unknown() {
        let own = OwnNames::default();
        own.made(&dir(), own.moment());
        let mark = own.changes(DIR);
        own.making(DIR);
        own.made_file(DIR, &attr_of(Ino(9), 5, 3));
        let (attr, time) = (own.attr(DIR).unwrap(), Timestamp { secs: 5, nanos: 0 });
        assert_eq!((attr.mtime, attr.ctime, attr.version, attr.nlink), (time, time, LogIndex(3), 2));
        own.making(DIR);
        own.made_file(DIR, &attr_of(Ino(10), 4, 2));
        assert_eq!(own.attr(DIR).unwrap().version, LogIndex(3), "answers may overtake each other");
        own.learned(&dir(), mark);
        assert_eq!(own.attr(DIR).unwrap().version, LogIndex(3), "asked before the file was made");
        own.changing(DIR);
        assert_eq!(own.attr(DIR), None);
        let mark = own.changes(DIR);
        own.learned(&dir(), mark);
        assert_eq!(own.attr(DIR), Some(dir()));
        own.changing(DIR);
        own.making(DIR);
        let mark = own.changes(DIR);
        own.learned(&dir(), mark);
        assert_eq!(own.attr(DIR), None, "a file is under way that the answer may or may not have seen");
    }

    #[test]
    fn what_is_known_of_open_inodes_does_not_outlive_a_change_of_names() {
        let own = OwnNames::default();
        assert!(own.counts(LogIndex(5)));
        let removal = own.begin();
        assert!(!own.counts(LogIndex(5)), "it may have been done already");
        removal.end(LogIndex(6));
        assert!(!own.counts(LogIndex(6)), "the same entry may hold both, in any order");
        assert!(own.counts(LogIndex(7)));
        let _forgotten = own.begin();
        assert!(!own.counts(LogIndex(8)), "what became of it is unknown: it may be done at any time");
    }

    #[test]
    fn law_27_names_are_bounded() {
        let own = OwnNames::default();
        own.made(&dir(), own.moment());
        (0..=NAMES_MAX).for_each(|n| own.may_exist(DIR, n.to_string().as_bytes()));
        assert!(own.inner().names <= NAMES_MAX);
        assert!(!own.has_not(DIR, b"x"));
    }
}
