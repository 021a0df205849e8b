//! The store of a node: one LMDB environment with a named database for each space.
//!
//! It runs unsynced (`NO_SYNC`): the log and the checkpoints are the truth, and whoever opens the directory decides by
//! boot id and chain whether to believe it. Without `WRITE_MAP`, so that a stray pointer cannot write into the state.
//! LMDB must not open one environment twice in a process; heed refuses a second [`Lmdb::open`] of a path.

use super::{Bounds, KvRead, KvWrite, Row, Space, StorageError, Store, bounds, check_key};
use heed::types::Bytes;
use heed::{AnyTls, CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use std::ops::Bound;
use std::path::Path;

/// Address space for the state; a limit, not an allocation.
const MAP_SIZE: usize = 1 << 40;
/// Concurrent read transactions; one more is a storage error.
const MAX_READERS: u32 = 1024;
/// One database a space.
const NAMES: [&str; 3] = ["shared", "undo", "local"];

type Table = Database<'static, Bytes, Bytes>;

/// The store on disk.
#[derive(Clone)]
pub struct Lmdb {
    env: Env<WithoutTls>,
    tables: [Table; 3],
}

fn backend(error: heed::Error) -> StorageError {
    StorageError::Backend(error.to_string())
}

impl Lmdb {
    /// Opens or creates the store in an existing directory. Fails if this process has it open already.
    pub fn open(directory: &Path) -> Result<Lmdb, StorageError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_SIZE).max_readers(MAX_READERS).max_dbs(NAMES.len() as u32);
        // SAFETY: NO_SYNC is meant, see above; the directory belongs to this node alone, and heed guards against a
        // second environment on it in this process.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC).open(directory) }.map_err(backend)?;
        // Readers of a process that was killed would pin their pages for ever.
        env.clear_stale_readers().map_err(backend)?;
        let txn = env.write_txn().map_err(backend)?;
        let tables = env
            .create_databases_and_commit(txn, |opener, txn| {
                let shared = opener.create_database::<Bytes, Bytes>(txn, Some(NAMES[0]))?;
                let undo = opener.create_database::<Bytes, Bytes>(txn, Some(NAMES[1]))?;
                let local = opener.create_database::<Bytes, Bytes>(txn, Some(NAMES[2]))?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((shared, undo, local)))
            })
            .map_err(backend)?;
        let Some((shared, undo, local)) = tables.commit() else {
            unreachable!("the closure above never aborts");
        };
        Ok(Lmdb { env, tables: [shared, undo, local] })
    }

    /// Writes a compact copy of the state, as of now, into a new file: the body of a checkpoint. The caller syncs it.
    pub fn copy_to(&self, path: &Path) -> Result<(), StorageError> {
        self.env.copy_to_path(path, heed::CompactionOption::Enabled).map(drop).map_err(backend)
    }

    /// Flushes the state to disk: only so that a clean stop need not replay, never as a promise.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.env.force_sync().map_err(backend)
    }
}

impl Store for Lmdb {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        let txn = self.env.read_txn().map_err(backend)?;
        Ok(Box::new(Reader { txn, tables: &self.tables }))
    }

    fn write(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        let txn = self.env.write_txn().map_err(backend)?;
        Ok(Box::new(Writer { txn, tables: &self.tables }))
    }
}

fn get<'a>(table: &Table, txn: &'a RoTxn<'_, AnyTls>, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
    // LMDB calls a key of a wrong length an error; here it is one that no row has.
    if check_key(key).is_err() { Ok(None) } else { table.get(txn, key).map_err(backend) }
}

fn scan<'a>(
    table: &Table,
    txn: &'a RoTxn<'_, AnyTls>,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
    match bounds(from, to) {
        None => Ok(Box::new(std::iter::empty())),
        Some(range) => Ok(Box::new(table.range(txn, &unbound_empty(range)).map_err(backend)?.map(|row| row.map_err(backend)))),
    }
}

fn scan_back<'a>(
    table: &Table,
    txn: &'a RoTxn<'_, AnyTls>,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
    match bounds(from, to) {
        None => Ok(Box::new(std::iter::empty())),
        Some(range) => {
            Ok(Box::new(table.rev_range(txn, &unbound_empty(range)).map_err(backend)?.map(|row| row.map_err(backend))))
        }
    }
}

/// LMDB refuses to seek to an empty key: from the empty key means from the first.
fn unbound_empty(range: Bounds<'_>) -> Bounds<'_> {
    match range {
        (Bound::Included([]), to) => (Bound::Unbounded, to),
        range => range,
    }
}

struct Reader<'s> {
    txn: RoTxn<'s, WithoutTls>,
    tables: &'s [Table; 3],
}

impl KvRead for Reader<'_> {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        get(&self.tables[space as usize], &self.txn, key)
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        scan(&self.tables[space as usize], &self.txn, from, to)
    }

    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        scan_back(&self.tables[space as usize], &self.txn, from, to)
    }
}

struct Writer<'s> {
    txn: RwTxn<'s>,
    tables: &'s [Table; 3],
}

impl KvRead for Writer<'_> {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        get(&self.tables[space as usize], &self.txn, key)
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        scan(&self.tables[space as usize], &self.txn, from, to)
    }

    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        scan_back(&self.tables[space as usize], &self.txn, from, to)
    }
}

impl KvWrite for Writer<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check_key(key)?;
        self.tables[space as usize].put(&mut self.txn, key, value).map_err(backend)
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        if check_key(key).is_err() {
            return Ok(());
        }
        self.tables[space as usize].delete(&mut self.txn, key).map(drop).map_err(backend)
    }

    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        self.tables[space as usize].clear(&mut self.txn).map_err(backend)
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        self.txn.commit().map_err(backend)
    }
}
