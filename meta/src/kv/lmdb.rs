//! The store of a node: one LMDB environment with a named database for each space, and one more for each kind of shared row
//! that grows with the files, entries, inodes and shelves: their keys mostly grow. What is put behind the last key of a database is appended: LMDB
//! then fills its pages, where an insertion would leave them half empty (decision 0032).
//!
//! The kernel reads single pages and not their neighbours: of a state that is larger than the memory they would only push out
//! what is needed. Whoever reads all of it has them read ahead. It runs unsynced (`NO_SYNC`): the log and the checkpoints are the truth, and whoever opens the directory decides by
//! boot id and chain whether to believe it. What somebody waits for is kept in [the front](super::front) first. Changed pages go to the disk [steadily](super::steady). Without `WRITE_MAP`, so that a stray pointer cannot write into the state.
//! There are two sets of these databases, and a row that says which one is the state: another state is put into the spare one, in
//! many transactions, and becomes the state in the last.
//!
//! LMDB must not open one environment twice in a process; heed refuses a second [`Lmdb::open`] of a path.

use super::front::{Front, Light, Rows, Settler};
use super::held::newest;
use super::steady::Steady;
use super::tables::{TABLES, space_of};
use super::view::Reader;
use super::writer::{Replacement, Writer};
use super::{KvRead, KvWrite, Space, StorageError, Store};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithoutTls};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Address space for the state; a limit, not an allocation.
pub(super) const MAP_SIZE: usize = 1 << 40;
/// Concurrent read transactions; one more is a storage error.
const MAX_READERS: u32 = 1024;
/// The databases; the first three are the spaces.
const NAMES: [&str; TABLES] = ["shared", "undo", "local", "entries", "inodes", "slices"];
/// The names of the second set.
const SPARE_NAMES: [&str; TABLES] = ["shared.1", "undo.1", "local.1", "entries.1", "inodes.1", "slices.1"];
/// The database whose one row says which set is the state; without the row it is the first.
const CHOICE: &str = "choice";
const CHOSEN: &[u8] = b"chosen";

type Table = Database<'static, Bytes, Bytes>;
pub(super) type Tables = [Table; TABLES];

/// Pages of a database that hold rows; freed ones lie in the file besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    pub bytes: u64,
    /// Of the tree.
    pub depth: u32,
}

/// The store on disk.
#[derive(Clone)]
pub struct Lmdb {
    /// Before the environment, which its thread uses.
    settler: Arc<Settler>,
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub env: Env<WithoutTls>,
    sets: [Tables; 2],
    choice: Table,
    /// Held while a read transaction begins: what is stored and what is not are of one moment.
    seen: RwLock<Seen>,
    /// One transaction of a node's writes at a time. Whoever has it may take the two locks below, and whoever has one of those
    /// takes those behind it alone.
    writing: Mutex<()>,
    /// The front is stored by one at a time.
    pub settling: Mutex<()>,
    pub steady: Steady,
}

/// What readers see.
pub(super) struct Seen {
    /// The set that is the state.
    chosen: usize,
    /// What is committed and not stored in it.
    pub front: Front,
}

/// LMDB's file in its directory.
const FILE: &str = "data.mdb";

pub(super) fn backend(error: heed::Error) -> StorageError {
    StorageError::Backend(error.to_string())
}

impl Lmdb {
    /// Opens or creates the store in an existing directory. Fails if this process has it open already.
    pub fn open(directory: &Path) -> Result<Lmdb, StorageError> {
        let steady = |file: &Path| Steady::over(file).map_err(|error| StorageError::Backend(error.to_string()));
        Lmdb::open_with(directory, MAP_SIZE, steady)
    }

    pub(super) fn open_with(
        directory: &Path,
        map_size: usize,
        steady: impl FnOnce(&Path) -> Result<Steady, StorageError>,
    ) -> Result<Lmdb, StorageError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_size).max_readers(MAX_READERS).max_dbs(2 * TABLES as u32 + 1);
        // SAFETY: NO_SYNC is meant, see above; the directory belongs to this node alone, and heed guards against a
        // second environment on it in this process.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_READ_AHEAD).open(directory) }.map_err(backend)?;
        // Readers of a process that was killed would pin their pages for ever.
        env.clear_stale_readers().map_err(backend)?;
        let txn = env.write_txn().map_err(backend)?;
        let opened = env
            .create_databases_and_commit(txn, |opener, txn| {
                let mut set = |names: [&str; TABLES]| {
                    let [shared, undo, local, entries, inodes, slices] =
                        names.map(|name| opener.create_database::<Bytes, Bytes>(txn, Some(name)));
                    Ok::<_, heed::Error>([shared?, undo?, local?, entries?, inodes?, slices?])
                };
                let sets = [set(NAMES)?, set(SPARE_NAMES)?];
                let choice = opener.create_database(txn, Some(CHOICE))?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((sets, choice)))
            })
            .map_err(backend)?;
        let Some((sets, choice)) = opened.commit() else {
            unreachable!("the closure above never aborts");
        };
        let mut txn = env.write_txn().map_err(backend)?;
        let chosen = usize::from(choice.get(&txn, CHOSEN).map_err(backend)? == Some([1].as_slice()));
        // What a replacement that never ended has left.
        clear(&sets[1 - chosen], &mut txn)?;
        txn.commit().map_err(backend)?;
        let inner = Arc::new(Inner {
            env,
            sets,
            choice,
            seen: RwLock::new(Seen { chosen, front: Front::default() }),
            writing: Mutex::default(),
            settling: Mutex::default(),
            steady: steady(&directory.join(FILE))?,
        });
        let settler = Settler::of(inner.clone()).map_err(|error| StorageError::Backend(error.to_string()))?;
        Ok(Lmdb { settler: Arc::new(settler), inner })
    }

    /// What each database takes, by its name and space.
    pub fn pages(&self) -> Result<Vec<(&'static str, Space, Pages)>, StorageError> {
        let Reader { txn, tables, .. } = self.inner.reader()?;
        let all = NAMES.into_iter().zip(tables).enumerate();
        all.map(|(at, (name, table))| {
            let stat = table.stat(&txn).map_err(backend)?;
            let count = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
            Ok((name, space_of(at), Pages { bytes: count as u64 * u64::from(stat.page_size), depth: stat.depth }))
        })
        .collect()
    }
}

impl Inner {
    pub fn seen(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen_mut(&self) -> RwLockWriteGuard<'_, Seen> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reader(&self) -> Result<Reader<'_>, StorageError> {
        let seen = self.seen();
        let txn = self.env.read_txn().map_err(backend)?;
        Ok(Reader { txn, tables: &self.sets[seen.chosen], front: seen.front.clone(), ahead: false })
    }

    /// Lays one more transaction's rows over the others; whether they are worth storing now.
    pub fn lay(&self, rows: Rows) -> bool {
        let mut seen = self.seen_mut();
        seen.front.lay(rows);
        seen.front.has_gathered()
    }

    /// Stores the front, as far as it goes when this begins. Readers see the same before and after.
    pub fn settle(&self) -> Result<(), StorageError> {
        let _settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if self.seen().front.is_empty() {
            return Ok(());
        }
        // The set is another one if a replacement was committed before this transaction began.
        let txn = self.env.write_txn().map_err(backend)?;
        let (tables, front) = {
            let seen = self.seen();
            (&self.sets[seen.chosen], seen.front.clone())
        };
        let mut writer = Writer::new(txn, tables, &self.steady, None);
        for table in 0..TABLES {
            writer.store(table, newest(front.newest_first().flat_map(|rows| rows[table].rows()).collect()))?;
        }
        Box::new(writer).commit()?;
        let forgotten = self.seen_mut().front.forget(&front);
        drop(forgotten);
        Ok(())
    }

    /// The other set, which `txn` has filled, becomes the state; what was one has no rows from now on.
    pub fn choose(&self, other: usize, mut txn: RwTxn<'_>) -> Result<(), StorageError> {
        clear(&self.sets[1 - other], &mut txn)?;
        self.choice.put(&mut txn, CHOSEN, &[other as u8]).map_err(backend)?;
        let mut seen = self.seen_mut();
        txn.commit().map_err(backend)?;
        *seen = Seen { chosen: other, front: Front::default() };
        self.steady.changed();
        Ok(())
    }
}

/// Removes all rows of a set.
pub(super) fn clear(tables: &Tables, txn: &mut RwTxn<'_>) -> Result<(), StorageError> {
    tables.iter().try_for_each(|table| table.clear(txn).map_err(backend))
}

impl Lmdb {
    /// The only one who writes, from now on.
    fn writing(&self) -> Result<MutexGuard<'_, ()>, StorageError> {
        let writing = self.inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        Ok(writing)
    }
}

impl Store for Lmdb {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        Ok(Box::new(self.inner.reader()?))
    }

    /// Sees what is stored alone: a checkpoint, behind which the log may go, is never ahead of the file.
    fn read_through(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        self.inner.settle()?;
        Ok(Box::new(Reader { ahead: true, front: Front::default(), ..self.inner.reader()? }))
    }

    fn write(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        let (inner, writing) = (&*self.inner, self.writing()?);
        inner.settle()?;
        let txn = inner.env.write_txn().map_err(backend)?;
        let tables = &inner.sets[inner.seen().chosen];
        Ok(Box::new(Writer::new(txn, tables, &inner.steady, Some(writing))))
    }

    fn write_light(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        let writing = self.writing()?;
        if self.inner.seen().front.is_full() {
            self.inner.settle()?;
        }
        Ok(Box::new(Light::new(&self.inner, &self.settler, writing)?))
    }

    fn replace(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        let (inner, writing) = (&*self.inner, self.writing()?);
        inner.settle()?;
        let mut txn = inner.env.write_txn().map_err(backend)?;
        let spare = 1 - inner.seen().chosen;
        let tables = &inner.sets[spare];
        clear(tables, &mut txn)?;
        Ok(Box::new(Replacement::new(inner, spare, Writer::new(txn, tables, &inner.steady, Some(writing)))))
    }

    fn check(&self) -> Result<(), StorageError> {
        self.inner.steady.check()?;
        self.settler.check()
    }
}
