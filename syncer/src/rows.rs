//! Keys and values of the ledger's rows.
//!
//! A key is a prefix of two bytes and big-endian numbers, so that byte order is numeric order. A value is one format
//! byte and postcard. Golden bytes below fix both (law 26): a change of a row's shape takes the next format byte.

use crate::txn::LocalTxn;
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_types::{BlockKey, LogIndex, SliceId};
use serde::{Serialize, de::DeserializeOwned};

/// Format of all rows of this crate.
pub(crate) const FORMAT: u8 = 1;

/// Two-byte prefixes, one a kind of row.
pub(crate) mod prefix {
    pub const HOME: &[u8] = b"Lz";
    pub const COUNTERS: &[u8] = b"Lc";
    pub const HISTORY: &[u8] = b"Lh";
    pub const PAUSE: &[u8] = b"Lp";
    pub const CONTROL: &[u8] = b"Lt";
    /// Owed blocks by (added, block).
    pub const OWED: &[u8; 2] = b"Lo";
    /// Block -> added, of owed blocks.
    pub const OWED_BY_BLOCK: &[u8; 2] = b"Lb";
    /// Ghosts by (dropped, added).
    pub const GHOST: &[u8; 2] = b"Lg";
    /// The union of all ghosts as disjoint intervals, added -> dropped.
    pub const GHOST_UNION: &[u8; 2] = b"Lu";
    /// Deletion queue by (dropped, block).
    pub const DELETION: &[u8; 2] = b"Ld";
    /// Block -> dropped, of the deletion queue.
    pub const DELETION_BY_BLOCK: &[u8; 2] = b"Le";
    pub const DAMAGE: &[u8; 2] = b"Lm";
    pub const WRITTEN_OFF: &[u8; 2] = b"Lw";
    /// Own promises by the head of their lineage.
    pub const PROMISE: &[u8; 2] = b"Fp";
    /// Floors that others reported, by (cluster, head of lineage).
    pub const KNOWN: &[u8; 2] = b"Fk";
    pub const FULL_SYNC: &[u8] = b"Ws";
    /// Findings by (run, number).
    pub const FINDING: &[u8; 2] = b"Wf";
}

/// Builds keys.
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub fn new(prefix: &[u8]) -> Key {
        let mut key = Vec::with_capacity(2 + 8 + 16);
        key.extend_from_slice(prefix);
        Key(key)
    }

    pub fn byte(mut self, value: u8) -> Key {
        self.0.push(value);
        self
    }

    pub fn number(mut self, value: u64) -> Key {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn block(mut self, block: BlockKey) -> Key {
        self.0.extend_from_slice(&block.slice.0.to_be_bytes());
        self.0.extend_from_slice(&block.index.to_be_bytes());
        self.0.extend_from_slice(&block.size.to_be_bytes());
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// The first key after all keys with this prefix.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    let last = end.last_mut().expect("prefixes are never empty");
    *last = last.checked_add(1).expect("prefixes end in letters");
    end
}

/// Reads the numbers of a key back.
pub(crate) struct KeyReader<'a> {
    key: &'a [u8],
    rest: &'a [u8],
}

impl<'a> KeyReader<'a> {
    pub fn new(key: &'a [u8], prefix: &[u8]) -> Result<Self, StorageError> {
        let rest = key.strip_prefix(prefix).ok_or_else(|| StorageError::damaged(Space::Local, key, "a key of another kind"))?;
        Ok(KeyReader { key, rest })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StorageError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| StorageError::damaged(Space::Local, self.key, "a short key"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn index(&mut self) -> Result<LogIndex, StorageError> {
        Ok(LogIndex(u64::from_be_bytes(self.take()?)))
    }

    pub fn block(&mut self) -> Result<BlockKey, StorageError> {
        Ok(BlockKey {
            slice: SliceId(u64::from_be_bytes(self.take()?)),
            index: u32::from_be_bytes(self.take()?),
            size: u32::from_be_bytes(self.take()?),
        })
    }
}

/// A row's value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("rows are plain data, and memory is the only writer")
}

/// Reads a row's value; an unknown format is never guessed.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, StorageError> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            _ => Err(StorageError::damaged(Space::Local, key, "a ledger row that does not decode")),
        },
        _ => Err(StorageError::damaged(Space::Local, key, "a ledger row of an unknown format")),
    }
}

pub(crate) fn get<T: DeserializeOwned>(kv: &dyn KvRead, key: &[u8]) -> Result<Option<T>, StorageError> {
    kv.get(Space::Local, key)?.map(|bytes| decode(key, bytes)).transpose()
}

pub(crate) fn put<T: Serialize>(txn: &mut LocalTxn<'_>, key: &[u8], value: &T) -> Result<(), StorageError> {
    txn.put(key, &encode(value))
}
