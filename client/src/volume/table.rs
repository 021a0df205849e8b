//! The inodes that this client has in use: what it knows of them, and their writers.
//!
//! What is known of an inode counts while its version is unchanged: opening asks the leader (law 29), a pushed
//! invalidation makes the next reader ask, and a commit of our own brings the new attributes with its answer. An answer
//! that was on its way when the inode changed is used, and not kept.

use crate::write::{Committed, Writer};
use farshore_types::{Attr, Ino, LogIndex, SliceView};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Chunks of one inode whose slice lists are kept; at the bound all are forgotten.
const CHUNKS_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Known {
    attr: Option<Attr>,
    /// Whether `attr` need not be asked for again.
    fresh: bool,
    /// Counts what made answers under way too old to keep.
    changes: u64,
    slices: BTreeMap<u32, Arc<[SliceView]>>,
}

/// An inode in use.
pub(crate) struct OpenInode {
    pub ino: Ino,
    pub writer: Writer,
    known: Mutex<Known>,
    /// Held while an open or a close is told to the cluster, so that they cannot overtake each other.
    pub opening: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for OpenInode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenInode({})", self.ino)
    }
}

impl OpenInode {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attributes that need not be asked for again.
    pub fn fresh_attr(&self) -> Option<Attr> {
        let known = self.known();
        known.attr.clone().filter(|_| known.fresh)
    }

    /// A mark to hand back with an answer.
    pub fn changes(&self) -> u64 {
        self.known().changes
    }

    /// The leader's answer to a question asked at `changes`.
    pub fn learned(&self, attr: Attr, changes: u64) {
        let mut known = self.known();
        let before = known.attr.as_ref().map_or(LogIndex(0), |attr| attr.version);
        if attr.version < before {
            return;
        }
        // An invalidation that came while the answer was on its way may be of a newer version still.
        known.fresh = known.changes == changes;
        if attr.version > before {
            known.slices.clear();
            known.changes += 1;
        }
        known.attr = Some(attr);
    }

    pub fn slices(&self, chunk: u32) -> Option<Arc<[SliceView]>> {
        let known = self.known();
        known.slices.get(&chunk).filter(|_| known.fresh).cloned()
    }

    pub fn learned_slices(&self, chunk: u32, slices: Arc<[SliceView]>, changes: u64) {
        let mut known = self.known();
        if known.changes == changes && known.fresh {
            if known.slices.len() >= CHUNKS_MAX {
                known.slices.clear();
            }
            known.slices.insert(chunk, slices);
        }
    }

    /// Others changed it: ask again before the next use.
    pub fn forget(&self) {
        let mut known = self.known();
        known.fresh = false;
        known.changes += 1;
    }

    /// Whatever is known may be of another history.
    pub fn forget_entirely(&self) {
        let mut known = self.known();
        known.changes += 1;
        known.fresh = false;
        known.attr = None;
        known.slices.clear();
    }
}

impl Committed for OpenInode {
    fn committed(&self, attr: Attr) {
        let mut known = self.known();
        if known.attr.as_ref().is_none_or(|before| before.version <= attr.version) {
            known.attr = Some(attr);
            known.fresh = true;
        }
        known.changes += 1;
        known.slices.clear();
    }

    fn size(&self) -> u64 {
        self.known().attr.as_ref().map_or(0, |attr| attr.size)
    }
}

type MakeWriter = Box<dyn Fn(Ino) -> Writer + Send + Sync>;

/// All inodes in use, each with the number of its users.
#[derive(Default)]
pub(crate) struct OpenInodes {
    inodes: Mutex<HashMap<Ino, (Arc<OpenInode>, usize)>>,
    /// Set once, before the first inode is used: writers need a session, which needs this table.
    make_writer: OnceLock<MakeWriter>,
}

impl OpenInodes {
    pub fn set_writers(&self, make: MakeWriter) {
        assert!(self.make_writer.set(make).is_ok(), "writers are set once");
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, (Arc<OpenInode>, usize)>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a use of an inode; [`OpenInodes::leave`] ends it.
    pub fn enter(&self, ino: Ino) -> Arc<OpenInode> {
        let make = self.make_writer.get().expect("connect sets writers before anyone can open");
        let mut inodes = self.lock();
        let (inode, users) = inodes.entry(ino).or_insert_with(|| {
            let (known, opening) = Default::default();
            (Arc::new(OpenInode { ino, writer: make(ino), known, opening }), 0)
        });
        *users += 1;
        inode.clone()
    }

    pub fn leave(&self, ino: Ino) {
        let mut inodes = self.lock();
        let Some((_, users)) = inodes.get_mut(&ino) else { return };
        *users -= 1;
        if *users == 0 {
            inodes.remove(&ino);
        }
    }

    /// How many use an inode.
    pub fn users(&self, ino: Ino) -> usize {
        self.lock().get(&ino).map_or(0, |(_, users)| *users)
    }

    /// The inode, if it is in use.
    pub fn get(&self, ino: Ino) -> Option<Arc<OpenInode>> {
        self.lock().get(&ino).map(|(inode, _)| inode.clone())
    }

    /// Inodes with uncommitted data, the oldest data first.
    pub fn dirty(&self) -> Vec<Arc<OpenInode>> {
        let all: Vec<Arc<OpenInode>> = self.lock().values().map(|(inode, _)| inode.clone()).collect();
        let mut dirty: Vec<_> = all.into_iter().filter_map(|inode| Some((inode.writer.dirty_for()?, inode))).collect();
        dirty.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        dirty.into_iter().map(|(_, inode)| inode).collect()
    }

    pub fn forget(&self, ino: Ino) {
        if let Some(inode) = self.get(ino) {
            inode.forget();
        }
    }

    pub fn forget_all(&self) {
        self.lock().values().for_each(|(inode, _)| inode.forget_entirely());
    }
}
