//! Numbers for what is open, and what the kernel may still hold of a file; no requests here.

use farshore_types::{Ino, LogIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most files, and most directories, open at a time through one mount; at the bound open answers ENFILE.
const OPEN_MAX: usize = 1 << 20;
/// Inodes whose last seen version is remembered; at the bound those not open are forgotten, and their pages are dropped
/// at their next open.
const VERSIONS_MAX: usize = 1 << 16;
/// Slots for "the version that the kernel was told last"; two inodes that share a slot only cost a needless refresh.
const TOLD_SLOTS: usize = 1 << 16;

/// A lock that outlives a panic elsewhere: what it guards is valid between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything of one kind that is open, by the number that the kernel has for it.
#[derive(Debug)]
pub(super) struct Table<T> {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { next: AtomicU64::new(1), open: Mutex::new(BTreeMap::new()) }
    }
}

impl<T> Table<T> {
    /// Gives a number that was never given before; `Err` with the thing when too much is open.
    pub fn insert(&self, thing: T) -> Result<u64, T> {
        let mut open = lock(&self.open);
        if open.len() >= OPEN_MAX {
            return Err(thing);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let before = open.insert(number, Arc::new(thing));
        assert!(before.is_none(), "a handle's number is never given twice");
        Ok(number)
    }

    pub fn get(&self, number: u64) -> Option<Arc<T>> {
        lock(&self.open).get(&number).cloned()
    }

    pub fn remove(&self, number: u64) -> Option<Arc<T>> {
        lock(&self.open).remove(&number)
    }

    /// Everything that is open now.
    pub fn all(&self) -> Vec<Arc<T>> {
        lock(&self.open).values().cloned().collect()
    }

    /// Takes everything out.
    pub fn drain(&self) -> Vec<Arc<T>> {
        std::mem::take(&mut *lock(&self.open)).into_values().collect()
    }
}

#[derive(Debug)]
struct Known {
    version: LogIndex,
    opens: u32,
}

/// Which version of each file the kernel's pages may be of.
#[derive(Debug, Default)]
pub(super) struct Versions {
    known: Mutex<BTreeMap<Ino, Known>>,
}

impl Versions {
    /// A file is opened at this version. `true`: the kernel may keep its pages, since they are of the same version.
    pub fn open(&self, ino: Ino, version: LogIndex) -> bool {
        let mut known = lock(&self.known);
        if known.len() >= VERSIONS_MAX && !known.contains_key(&ino) {
            known.retain(|_, entry| entry.opens > 0);
        }
        let entry = known.entry(ino).or_insert(Known { version: LogIndex(0), opens: 0 });
        let same = entry.version == version;
        entry.version = version;
        entry.opens += 1;
        same
    }

    /// One handle of a file ended.
    pub fn close(&self, ino: Ino) {
        if let Some(entry) = lock(&self.known).get_mut(&ino) {
            assert!(entry.opens > 0, "a file is closed as often as it was opened");
            entry.opens -= 1;
        }
    }

    /// Whether this mount has the file open.
    pub fn is_open(&self, ino: Ino) -> bool {
        lock(&self.known).get(&ino).is_some_and(|entry| entry.opens > 0)
    }

    /// Forgets all versions, so that no page outlives its next open; returns the inodes the kernel may have pages of.
    pub fn reset(&self) -> BTreeSet<Ino> {
        let mut known = lock(&self.known);
        let inodes = known.keys().copied().collect();
        known.retain(|_, entry| {
            entry.version = LogIndex(0);
            entry.opens > 0
        });
        inodes
    }
}

/// Which version of an inode's attributes the kernel was told last; forgets freely.
#[derive(Debug)]
pub(super) struct Told {
    slots: Mutex<Vec<(Ino, LogIndex)>>,
}

impl Default for Told {
    fn default() -> Self {
        Told { slots: Mutex::new(vec![(Ino(0), LogIndex(0)); TOLD_SLOTS]) }
    }
}

impl Told {
    fn slot(ino: Ino) -> usize {
        // Inode numbers are dense within a slot of the id space: the low bits spread well.
        ino.0 as usize % TOLD_SLOTS
    }

    pub fn tell(&self, ino: Ino, version: LogIndex) {
        lock(&self.slots)[Self::slot(ino)] = (ino, version);
    }

    /// Whether the kernel's attributes of an inode, if it has any, are surely of this version.
    pub fn is_current(&self, ino: Ino, version: LogIndex) -> bool {
        lock(&self.slots)[Self::slot(ino)] == (ino, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_only_while_the_version_stands_still() {
        let versions = Versions::default();
        assert!(!versions.open(Ino(5), LogIndex(3)), "nothing is known of a first open");
        assert!(versions.open(Ino(5), LogIndex(3)));
        assert!(!versions.open(Ino(5), LogIndex(4)), "another client wrote");
        for _ in 0..3 {
            assert!(versions.is_open(Ino(5)));
            versions.close(Ino(5));
        }
        assert!(!versions.is_open(Ino(5)));
        assert!(versions.open(Ino(5), LogIndex(4)), "a closed file is remembered");
    }

    #[test]
    fn a_reset_names_what_the_kernel_may_hold_and_trusts_none_of_it_again() {
        let versions = Versions::default();
        versions.open(Ino(1), LogIndex(3));
        versions.open(Ino(2), LogIndex(3));
        versions.close(Ino(2));
        assert_eq!(versions.reset(), BTreeSet::from([Ino(1), Ino(2)]));
        assert!(!versions.open(Ino(1), LogIndex(3)));
        assert!(!versions.open(Ino(2), LogIndex(3)));
        assert!(versions.is_open(Ino(1)));
    }

    #[test]
    fn law_27_at_the_bound_closed_files_are_forgotten_and_open_ones_are_not() {
        let versions = Versions::default();
        versions.open(Ino(1), LogIndex(3));
        for ino in 2..VERSIONS_MAX as u64 + 2 {
            versions.open(Ino(ino), LogIndex(3));
            versions.close(Ino(ino));
        }
        assert!(lock(&versions.known).len() <= VERSIONS_MAX);
        assert!(versions.is_open(Ino(1)));
        assert!(!versions.open(Ino(2), LogIndex(3)));
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let table = Table::default();
        let first = table.insert("a").unwrap();
        assert_eq!(table.remove(first).as_deref(), Some(&"a"));
        let second = table.insert("b").unwrap();
        assert_ne!(first, second);
        assert_eq!(table.get(first), None);
        assert_eq!(table.drain().len(), 1);
        assert!(table.all().is_empty());
    }

    #[test]
    fn what_was_told_is_current_until_another_version_or_inode_takes_the_slot() {
        let told = Told::default();
        assert!(!told.is_current(Ino(7), LogIndex(1)));
        told.tell(Ino(7), LogIndex(1));
        assert!(told.is_current(Ino(7), LogIndex(1)));
        assert!(!told.is_current(Ino(7), LogIndex(2)));
        told.tell(Ino(7 + TOLD_SLOTS as u64), LogIndex(1));
        assert!(!told.is_current(Ino(7), LogIndex(1)));
    }
}
