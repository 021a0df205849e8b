//! The store of a node: one LMDB environment with a named database for each space, and one more for each kind of shared row
//! that grows with the files, entries, inodes and shelves: their keys mostly grow. What is put behind the last key of a database is appended: LMDB
//! then fills its pages, where an insertion would leave them half empty (decision 0032).
//!
//! The kernel reads single pages and not their neighbours: of a state that is larger than the memory they would only push out
//! what is needed. Whoever reads all of it has them read ahead. It runs unsynced (`NO_SYNC`): the log and the checkpoints are the truth, and whoever opens the directory decides by
//! boot id and chain whether to believe it. Changed pages go to the disk [steadily](super::steady). Without `WRITE_MAP`, so that a stray pointer cannot write into the state.
//! There are two sets of these databases, and a row that says which one is the state: another state is put into the spare one, in
//! many transactions, and becomes the state in the last.
//!
//! LMDB must not open one environment twice in a process; heed refuses a second [`Lmdb::open`] of a path.

use super::ahead::{Ahead, will_need};
use super::held::{Held, Written, over};
use super::steady::Steady;
use super::tables::{INODES, TABLES, parts, space_of, table_of};
use super::{Bounds, KvRead, KvWrite, Row, Space, StorageError, Store, bounds, check_key};
use heed::types::Bytes;
use heed::{AnyTls, CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithoutTls};
use std::cmp::Ordering;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// Address space for the state; a limit, not an allocation.
const MAP_SIZE: usize = 1 << 40;
/// Concurrent read transactions; one more is a storage error.
const MAX_READERS: u32 = 1024;
/// The databases; the first three are the spaces.
const NAMES: [&str; TABLES] = ["shared", "undo", "local", "entries", "inodes", "slices"];
/// The names of the second set.
const SPARE_NAMES: [&str; TABLES] = ["shared.1", "undo.1", "local.1", "entries.1", "inodes.1", "slices.1"];
/// The database whose one row says which set is the state; without the row it is the first.
const CHOICE: &str = "choice";
const CHOSEN: &[u8] = b"chosen";
/// Bytes of rows in one transaction of a state that replaces another, about.
const PART: usize = 16 << 20;
/// Inodes that a transaction holds back at most.
const MAX_HELD: usize = 8192;

type Table = Database<'static, Bytes, Bytes>;
type Tables = [Table; TABLES];

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
    env: Env<WithoutTls>,
    sets: [Tables; 2],
    choice: Table,
    /// The set that is the state. Held while a read transaction begins, and while the last one of a replacement is committed.
    chosen: Arc<RwLock<usize>>,
    pub(super) steady: Arc<Steady>,
}

/// LMDB's file in its directory.
const FILE: &str = "data.mdb";

fn backend(error: heed::Error) -> StorageError {
    StorageError::Backend(error.to_string())
}

impl Lmdb {
    /// Opens or creates the store in an existing directory. Fails if this process has it open already.
    pub fn open(directory: &Path) -> Result<Lmdb, StorageError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_SIZE).max_readers(MAX_READERS).max_dbs(2 * TABLES as u32 + 1);
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
        let steady = Steady::over(&directory.join(FILE)).map_err(|error| StorageError::Backend(error.to_string()))?;
        Ok(Lmdb { env, sets, choice, chosen: Arc::new(RwLock::new(chosen)), steady: Arc::new(steady) })
    }

    fn chosen(&self) -> RwLockReadGuard<'_, usize> {
        self.chosen.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> Result<Reader<'_>, StorageError> {
        let chosen = self.chosen();
        let txn = self.env.read_txn().map_err(backend)?;
        Ok(Reader { txn, tables: &self.sets[*chosen], ahead: false })
    }

    /// What each database takes, by its name and space.
    pub fn pages(&self) -> Result<Vec<(&'static str, Space, Pages)>, StorageError> {
        let chosen = self.chosen();
        let txn = self.env.read_txn().map_err(backend)?;
        let all = NAMES.into_iter().zip(&self.sets[*chosen]).enumerate();
        all.map(|(at, (name, table))| {
            let stat = table.stat(&txn).map_err(backend)?;
            let count = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
            Ok((name, space_of(at), Pages { bytes: count as u64 * u64::from(stat.page_size), depth: stat.depth }))
        })
        .collect()
    }
}

/// Removes all rows of a set.
fn clear(tables: &Tables, txn: &mut RwTxn<'_>) -> Result<(), StorageError> {
    tables.iter().try_for_each(|table| table.clear(txn).map_err(backend))
}

impl Store for Lmdb {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        Ok(Box::new(self.reader()?))
    }

    fn read_through(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        Ok(Box::new(Reader { ahead: true, ..self.reader()? }))
    }

    fn write(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        self.steady.check()?;
        let txn = self.env.write_txn().map_err(backend)?;
        let tables = &self.sets[*self.chosen()];
        Ok(Box::new(Writer { txn, tables, steady: &self.steady, last: Default::default(), held: Held::default() }))
    }

    fn replace(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        self.steady.check()?;
        let mut txn = self.env.write_txn().map_err(backend)?;
        let spare = 1 - *self.chosen();
        let tables = &self.sets[spare];
        clear(tables, &mut txn)?;
        Ok(Box::new(Replacement {
            store: self,
            spare,
            writer: Some(Writer { txn, tables, steady: &self.steady, last: Default::default(), held: Held::default() }),
            bytes: 0,
        }))
    }
}

fn get<'a>(tables: &Tables, txn: &'a RoTxn<'_, AnyTls>, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
    // LMDB calls a key of a wrong length an error; here it is one that no row has.
    if check_key(key).is_err() { Ok(None) } else { tables[table_of(space, key)].get(txn, key).map_err(backend) }
}

type Rows<'a> = Box<dyn Iterator<Item = Row<'a>> + 'a>;

fn scan<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_, AnyTls>,
    space: Space,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Rows<'a>, StorageError> {
    let mut rows: Option<Rows> = None;
    for (table, from, to) in parts(space, from, to) {
        let Some(range) = bounds(from, to) else { continue };
        let more = tables[table].range(txn, &unbound_empty(range)).map_err(backend)?.map(|row| row.map_err(backend));
        rows = Some(behind(rows, more));
    }
    Ok(rows.unwrap_or_else(|| Box::new(std::iter::empty())))
}

fn scan_back<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_, AnyTls>,
    space: Space,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Rows<'a>, StorageError> {
    let mut rows: Option<Rows> = None;
    for (table, from, to) in parts(space, from, to).rev() {
        let Some(range) = bounds(from, to) else { continue };
        let more = tables[table].rev_range(txn, &unbound_empty(range)).map_err(backend)?.map(|row| row.map_err(backend));
        rows = Some(behind(rows, more));
    }
    Ok(rows.unwrap_or_else(|| Box::new(std::iter::empty())))
}

/// One database's rows, or behind those of another.
fn behind<'a>(rows: Option<Rows<'a>>, more: impl Iterator<Item = Row<'a>> + 'a) -> Rows<'a> {
    match rows {
        Some(rows) => Box::new(rows.chain(more)),
        None => Box::new(more),
    }
}

/// LMDB refuses to seek to an empty key: from the empty key means from the first.
fn unbound_empty(range: Bounds<'_>) -> Bounds<'_> {
    match range {
        (Bound::Included([]), to) => (Bound::Unbounded, to),
        range => range,
    }
}

/// A transaction of any kind, as its reads need it.
trait View {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError>;

    /// What it holds back, of inodes.
    fn held(&self) -> Option<&Held> {
        None
    }

    /// Whether what lies around the rows of a scan is read as well.
    fn reads_ahead(&self) -> bool {
        false
    }
}

impl<T: View> KvRead for T {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        let (tables, txn) = self.view()?;
        match self.held().filter(|_| table_of(space, key) == INODES).and_then(|held| held.get(key)) {
            Some(held) => Ok(held),
            None => get(tables, txn, space, key),
        }
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        let (tables, txn) = self.view()?;
        let rows = over(scan(tables, txn, space, from, to)?, held_rows(self, space, from, to), Ordering::Less);
        if !self.reads_ahead() {
            return Ok(rows);
        }
        let mut ahead = Ahead::new(will_need);
        Ok(Box::new(rows.inspect(move |row| row.iter().for_each(|(key, _)| ahead.at(key.as_ptr().expose_provenance())))))
    }

    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        let (tables, txn) = self.view()?;
        let mut held = held_rows(self, space, from, to);
        held.reverse();
        Ok(over(scan_back(tables, txn, space, from, to)?, held, Ordering::Greater))
    }
}

/// What is held back of a range, in order of keys.
fn held_rows<'a>(view: &'a impl View, space: Space, from: &[u8], to: Option<&[u8]>) -> Vec<Written<'a>> {
    let Some(held) = view.held().filter(|held| held.len() > 0) else { return vec![] };
    match parts(space, from, to).find(|(table, ..)| *table == INODES) {
        Some((_, from, to)) if bounds(from, to).is_some() => held.rows(|key| from <= key && to.is_none_or(|to| key < to)),
        _ => vec![],
    }
}

struct Reader<'s> {
    txn: RoTxn<'s, WithoutTls>,
    tables: &'s Tables,
    ahead: bool,
}

impl View for Reader<'_> {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError> {
        Ok((self.tables, &self.txn))
    }

    fn reads_ahead(&self) -> bool {
        self.ahead
    }
}

struct Writer<'s> {
    txn: RwTxn<'s>,
    tables: &'s Tables,
    steady: &'s Steady,
    /// No key of a database lies behind this one; `None`: not looked at yet. Empty: it has no keys.
    last: [Option<Vec<u8>>; TABLES],
    /// Inodes to be written: a directory's changes with each of its names.
    held: Held,
}

impl View for Writer<'_> {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError> {
        Ok((self.tables, &self.txn))
    }

    fn held(&self) -> Option<&Held> {
        Some(&self.held)
    }
}

impl Writer<'_> {
    /// Writes what is held back.
    fn settle(&mut self) -> Result<(), StorageError> {
        let held = std::mem::take(&mut self.held);
        for (key, value) in held.rows(|_| true) {
            match value {
                Some(value) => self.put_into(INODES, key, value)?,
                None => self.tables[INODES].delete(&mut self.txn, key).map(drop).map_err(backend)?,
            }
        }
        Ok(())
    }

    fn hold(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StorageError> {
        if self.held.len() >= MAX_HELD {
            self.settle()?;
        }
        self.held.set(key, value);
        Ok(())
    }

    fn put_into(&mut self, table: usize, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        if self.is_last(table, key)? {
            return self.append(table, key, value);
        }
        self.tables[table].put(&mut self.txn, key, value).map_err(backend)
    }

    /// Puts a key that is the last one.
    fn append(&mut self, table: usize, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.tables[table].put_with_flags(&mut self.txn, PutFlags::APPEND, key, value).map_err(backend)
    }

    /// Whether the key lies behind all others of its database; it is taken for put from now on.
    fn is_last(&mut self, table: usize, key: &[u8]) -> Result<bool, StorageError> {
        if self.last[table].is_none() {
            let last = self.tables[table].last(&self.txn).map_err(backend)?;
            self.last[table] = Some(last.map_or(Vec::new(), |(key, _)| key.to_vec()));
        }
        let last = self.last[table].get_or_insert_default();
        let is_last = key > last.as_slice();
        if is_last {
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(is_last)
    }
}

/// Another state in the making, in the spare set.
struct Replacement<'s> {
    store: &'s Lmdb,
    spare: usize,
    /// `None` only while one part's transaction follows the other, and after a failure of that.
    writer: Option<Writer<'s>>,
    /// Of rows in this part.
    bytes: usize,
}

impl View for Replacement<'_> {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError> {
        self.writer.as_ref().ok_or_else(broken)?.view()
    }

    fn held(&self) -> Option<&Held> {
        self.writer.as_ref().map(|writer| &writer.held)
    }
}

impl<'s> Replacement<'s> {
    fn writer(&mut self) -> Result<&mut Writer<'s>, StorageError> {
        self.writer.as_mut().ok_or_else(broken)
    }

    /// The writer of this part, with everything put; none of the next one is there yet.
    fn end_part(&mut self) -> Result<Writer<'s>, StorageError> {
        let mut part = self.writer.take().ok_or_else(broken)?;
        part.settle()?;
        Ok(part)
    }
}

fn broken() -> StorageError {
    StorageError::Backend("an earlier part of the new state was not committed".to_owned())
}

impl KvWrite for Replacement<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.bytes += key.len() + value.len();
        if self.bytes > PART {
            self.bytes = 0;
            let Writer { txn, tables, steady, last, held } = self.end_part()?;
            txn.commit().map_err(backend)?;
            steady.changed();
            self.writer = Some(Writer { txn: self.store.env.write_txn().map_err(backend)?, tables, steady, last, held });
        }
        self.writer()?.put(space, key, value)
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        self.writer()?.delete(space, key)
    }

    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        self.writer()?.clear(space)
    }

    fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        let Writer { mut txn, .. } = self.end_part()?;
        clear(&self.store.sets[1 - self.spare], &mut txn)?;
        self.store.choice.put(&mut txn, CHOSEN, &[self.spare as u8]).map_err(backend)?;
        let mut chosen = self.store.chosen.write().unwrap_or_else(PoisonError::into_inner);
        txn.commit().map_err(backend)?;
        *chosen = self.spare;
        self.store.steady.changed();
        Ok(())
    }
}

impl KvWrite for Writer<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check_key(key)?;
        match table_of(space, key) {
            INODES => self.hold(key, Some(value)),
            table => self.put_into(table, key, value),
        }
    }

    fn put_absent(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<bool, StorageError> {
        check_key(key)?;
        let table = table_of(space, key);
        if table == INODES {
            let absent = self.get(space, key)?.is_none();
            return if absent { self.hold(key, Some(value)).and(Ok(true)) } else { Ok(false) };
        }
        if self.is_last(table, key)? {
            return self.append(table, key, value).and(Ok(true));
        }
        let there = self.tables[table].get_or_put(&mut self.txn, key, value).map_err(backend)?;
        Ok(there.is_none())
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        if check_key(key).is_err() {
            return Ok(());
        }
        match table_of(space, key) {
            INODES => self.hold(key, None),
            table => self.tables[table].delete(&mut self.txn, key).map(drop).map_err(backend),
        }
    }

    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        for table in (0..TABLES).filter(|table| space_of(*table) == space) {
            self.tables[table].clear(&mut self.txn).map_err(backend)?;
            self.last[table] = Some(Vec::new());
        }
        if space == Space::Shared {
            self.held.clear();
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        self.settle()?;
        self.txn.commit().map_err(backend)?;
        self.steady.changed();
        Ok(())
    }
}
