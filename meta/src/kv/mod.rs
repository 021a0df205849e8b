//! The ordered key-value store under the state: a small trait with two implementations, LMDB ([`Lmdb`]) for nodes and
//! [`Memory`] for the simulator and the models.
//!
//! One store has three spaces (law 2): `Shared`, a function of shared entries alone; `Undo`, before-images of shared
//! keys by LogIndex; `Local`, this cluster's own. One write transaction spans all three and there is at most one at a
//! time. Read transactions are snapshots and never wait for the writer. Neither syncs: the log and the checkpoints are
//! the truth. Keys have 1 to [`MAX_KEY_LENGTH`] bytes; the store refuses to put others, and finds none.

mod ahead;
mod background;
mod front;
mod held;
mod lmdb;
mod memory;
mod steady;
mod tables;
mod view;
mod writer;

pub(crate) use held::over;
pub use lmdb::{Lmdb, Pages};
pub use memory::Memory;

use std::fmt;
use std::ops::Bound;

/// Longest key in bytes, inclusive: what LMDB takes.
pub const MAX_KEY_LENGTH: usize = 511;

/// Part of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    Shared,
    Undo,
    Local,
}

impl Space {
    /// All spaces, in the order in which checkpoints list them.
    pub const ALL: [Space; 3] = [Space::Shared, Space::Undo, Space::Local];
}

/// The store failed or holds bytes that cannot be right. The node stops; it is never answered to a client (law 5).
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("the state's store failed: {0}")]
    Backend(String),
    #[error("the state holds damaged bytes at {space:?} {key}: {what}")]
    Damaged { space: Space, key: String, what: &'static str },
}

impl StorageError {
    /// Damaged bytes at a key.
    pub fn damaged(space: Space, key: &[u8], what: &'static str) -> Self {
        StorageError::Damaged { space, key: format!("{}", Hex(key)), what }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A key and its value, as a scan yields them.
pub type Row<'a> = Result<(&'a [u8], &'a [u8]), StorageError>;

/// Reads of one consistent state.
pub trait KvRead {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError>;

    /// Rows with `from <= key`, and `key < to` where `to` is given, in byte order of keys.
    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError>;

    /// The same rows, last first.
    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError>;
}

/// A write transaction: sees its own writes; nothing is visible to others before `commit`, and nothing at all when
/// it is dropped without it.
pub trait KvWrite: KvRead {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError>;
    /// Puts a row unless there is one of that key, and says whether it did. A store that can do so searches once.
    fn put_absent(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<bool, StorageError> {
        let absent = self.get(space, key)?.is_none();
        if absent {
            self.put(space, key, value)?;
        }
        Ok(absent)
    }
    /// Deleting an absent key is no error.
    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError>;
    /// Deletes every row of a space, cheaper than one by one: a snapshot replaces a space as a whole.
    fn clear(&mut self, space: Space) -> Result<(), StorageError>;
    fn commit(self: Box<Self>) -> Result<(), StorageError>;
}

/// A store. Clones of one share the same state.
pub trait Store: Clone + Send + Sync + 'static {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, StorageError>;
    /// For whoever scans all of a state, which is not in memory perhaps.
    fn read_through(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        self.read()
    }
    fn write(&self) -> Result<Box<dyn KvWrite + '_>, StorageError>;
    /// The same for few rows whose commit somebody waits for: a store may keep them in memory for a while, and show them.
    fn write_light(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        self.write()
    }
    /// A write transaction that begins with nothing and, at its commit, takes the place of everything. The memory that it takes
    /// does not grow with what is put into it; on a disk there is room for both states for that time.
    /// What others commit meanwhile is replaced as well.
    fn replace(&self) -> Result<Box<dyn KvWrite + '_>, StorageError>;
    /// Refuses once something that was committed is lost; every write does so too.
    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

fn check_key(key: &[u8]) -> Result<(), StorageError> {
    if (1..=MAX_KEY_LENGTH).contains(&key.len()) {
        return Ok(());
    }
    Err(StorageError::Backend(format!("a key has 1 to {MAX_KEY_LENGTH} bytes, not {}", key.len())))
}

/// A range of keys as the maps of both stores want it.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The range of keys from `from` (inclusive) to `to` (exclusive); `None` when no key can be in it.
fn bounds<'a>(from: &'a [u8], to: Option<&'a [u8]>) -> Option<Bounds<'a>> {
    match to {
        Some(to) if to <= from => None,
        Some(to) => Some((Bound::Included(from), Bound::Excluded(to))),
        None => Some((Bound::Included(from), Bound::Unbounded)),
    }
}
