//! The inodes that this client has in use: what it knows of them, and their writers.
//!
//! What is known of an inode counts while its version is unchanged: opening asks the leader (law 29), a pushed
//! invalidation makes the next reader ask, and a commit of our own brings the new attributes with its answer. An answer
//! that was on its way when the inode changed is used, and not kept.

use super::attributes::SetAttr;
use super::creations::Creation;
use crate::error::FsError;
use crate::write::{Committed, Writer};
use farshore_types::{Attr, Ino, LogIndex, SliceView};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

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
    /// When `attr` was learned; empty once others changed it.
    at: Option<Instant>,
    /// The index of the answer that brought `attr`.
    seen: LogIndex,
    held: Held,
}

impl Known {
    fn set(&mut self, attr: Attr, seen: LogIndex) {
        (self.attr, self.seen, self.at) = (Some(attr), seen, Some(Instant::now()));
    }
}

/// Attributes that were set through this client and are not sent yet.
#[derive(Debug, Default)]
struct Held {
    change: SetAttr,
    /// Counts what was added.
    count: u64,
    since: Option<Instant>,
}

/// An inode in use.
pub(crate) struct OpenInode {
    pub ino: Ino,
    pub writer: Writer,
    known: Mutex<Known>,
    /// Held while an open or a close is told to the cluster, so that they cannot overtake each other.
    pub opening: tokio::sync::Mutex<()>,
    /// Handles that may write.
    writable: AtomicUsize,
    making: Mutex<Making>,
}

/// Whether the cluster has the inode.
#[derive(Debug, Default)]
enum Making {
    #[default]
    Made,
    Pending(Arc<Creation>),
    Failed(FsError),
}

impl std::fmt::Debug for OpenInode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenInode({})", self.ino)
    }
}

impl OpenInode {
    pub fn writable_more(&self) {
        self.writable.fetch_add(1, Ordering::AcqRel);
    }

    pub fn writable_less(&self) {
        self.writable.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a handle that may write is open: its close commits what is held.
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Acquire) > 0
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This client has made the file, and the cluster does not know of it yet: nobody else can change these attributes.
    pub fn made_here(&self, attr: Attr, creation: Arc<Creation>) {
        let mut known = self.known();
        known.set(attr, LogIndex(u64::MAX));
        known.fresh = true;
        *self.making() = Making::Pending(creation);
    }

    /// The creation's answer, which may come behind that to a commit in the same entry: of the same version, and newer.
    pub fn made_as(&self, attr: Attr, seen: LogIndex) {
        let mut known = self.known();
        if known.attr.as_ref().is_none_or(|before| before.version < attr.version) {
            known.set(attr, seen);
            known.changes += 1;
        }
    }

    /// What came of the creation.
    pub fn was_made(&self, done: Result<(), FsError>) {
        if done.is_err() {
            self.forget_entirely();
        }
        *self.making() = done.map_or_else(Making::Failed, |()| Making::Made);
    }

    /// The creation of this inode that has no answer yet.
    pub fn creation(&self) -> Option<Arc<Creation>> {
        if let Making::Pending(creation) = &*self.making() { Some(creation.clone()) } else { None }
    }

    /// Waits until the cluster has the inode.
    pub async fn made(&self) -> Result<(), FsError> {
        if let Some(creation) = self.creation() {
            return creation.outcome().await;
        }
        if let Making::Failed(error) = &*self.making() { Err(error.clone()) } else { Ok(()) }
    }

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
    pub fn learned(&self, (attr, seen): (Attr, LogIndex), changes: u64) {
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
        known.set(attr, seen);
    }

    /// The answer to what was asked before the inode was in the table: what changed since was not heard here.
    pub fn learned_before(&self, attr: &Attr, seen: LogIndex) {
        let mut known = self.known();
        if known.attr.is_none() {
            known.set(attr.clone(), seen);
        }
    }

    /// Attributes that others have not changed since they came, or that are no older than this; and the index of the answer that
    /// brought them.
    pub fn attr_within(&self, age: Duration) -> Option<(Attr, LogIndex)> {
        let known = self.known();
        let recent = known.fresh || known.at.is_some_and(|at| at.elapsed() <= age);
        known.attr.clone().filter(|_| recent).map(|attr| (attr, known.seen))
    }

    /// Keeps a change until [`OpenInode::sent`]; a later one of the same attribute takes its place.
    pub fn hold(&self, change: SetAttr) {
        let held = &mut self.known().held;
        held.change = held.change.then(change);
        held.count += 1;
        held.since.get_or_insert_with(Instant::now);
    }

    /// What is held, with a mark for [`OpenInode::sent`]; `None` when nothing is.
    pub fn held(&self) -> Option<(SetAttr, u64)> {
        let known = self.known();
        known.held.since.map(|_| (known.held.change, known.held.count))
    }

    /// How long the oldest change has been held.
    pub fn held_for(&self) -> Option<Duration> {
        self.known().held.since.map(|since| since.elapsed())
    }

    /// What was held at this mark has been sent, or was given up.
    pub fn sent(&self, mark: u64) {
        let held = &mut self.known().held;
        if held.count == mark {
            (held.change, held.since) = Default::default();
        }
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
        (known.fresh, known.at) = (false, None);
        known.changes += 1;
    }

    /// Whatever is known may be of another history.
    pub fn forget_entirely(&self) {
        let mut known = self.known();
        known.changes += 1;
        (known.fresh, known.at) = (false, None);
        known.attr = None;
        known.slices.clear();
    }
}

impl Committed for OpenInode {
    fn begin(&self) -> BoxFuture<'_, Result<(), FsError>> {
        let creation = self.creation();
        async move { if let Some(creation) = creation { creation.begin().await } else { Ok(()) } }.boxed()
    }

    fn committed(&self, attr: Attr, index: LogIndex) {
        let mut known = self.known();
        if known.attr.as_ref().is_none_or(|before| before.version <= attr.version) {
            let at = known.at;
            known.set(attr, index);
            if !known.fresh {
                // What others changed may have been heard of before this answer, and be newer.
                known.at = at;
            }
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
            let (known, opening, writable, making) = Default::default();
            (Arc::new(OpenInode { ino, writer: make(ino), known, opening, writable, making }), 0)
        });
        *users += 1;
        inode.clone()
    }

    /// Ends a use; whether it was the last one.
    pub fn leave(&self, ino: Ino) -> bool {
        let mut inodes = self.lock();
        let Some((_, users)) = inodes.get_mut(&ino) else { return false };
        *users -= 1;
        let last = *users == 0;
        if last {
            inodes.remove(&ino);
        }
        last
    }

    /// How many use an inode.
    pub fn users(&self, ino: Ino) -> usize {
        self.lock().get(&ino).map_or(0, |(_, users)| *users)
    }

    /// The inode, if it is in use.
    pub fn get(&self, ino: Ino) -> Option<Arc<OpenInode>> {
        self.lock().get(&ino).map(|(inode, _)| inode.clone())
    }

    /// Inodes with uncommitted data or attributes that are held, the oldest first.
    pub fn dirty(&self) -> Vec<Arc<OpenInode>> {
        let all: Vec<Arc<OpenInode>> = self.lock().values().map(|(inode, _)| inode.clone()).collect();
        let age = |inode: &OpenInode| inode.writer.dirty_for().max(inode.held_for());
        let mut dirty: Vec<_> = all.into_iter().filter_map(|inode| Some((age(&inode)?, inode))).collect();
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
