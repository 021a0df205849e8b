//! The digest of the shared state (law 2): the sum modulo 2^128 of a keyed hash of each row, so that a change costs two
//! hashes and the order of changes does not matter. The row that keeps the digest is not part of it.

use crate::key;
use crate::kv::{KvRead, Space, StorageError};
use farshore_types::Digest;

/// Keeps these hashes apart from all others of the system.
const CONTEXT: &[u8; 32] = b"farshore shared state digest v1\0";

/// A digest that follows rows which appear and go. Keeps a buffer, since most rows are smaller than the hasher's state.
pub(crate) struct RowHasher {
    sum: u128,
    row: Vec<u8>,
}

impl RowHasher {
    pub fn new(digest: Digest) -> RowHasher {
        RowHasher { sum: digest.0, row: Vec::with_capacity(256) }
    }

    pub fn digest(&self) -> Digest {
        Digest(self.sum)
    }

    /// A row appeared.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.sum = self.sum.wrapping_add(self.hash(key, value));
    }

    /// A row went.
    pub fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.sum = self.sum.wrapping_sub(self.hash(key, value));
    }

    fn hash(&mut self, key: &[u8], value: &[u8]) -> u128 {
        self.row.clear();
        self.row.extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.row.extend_from_slice(key);
        self.row.extend_from_slice(value);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::keyed_hash(CONTEXT, &self.row).as_bytes()[..16]);
        u128::from_be_bytes(bytes)
    }
}

/// The digest computed afresh from every shared row.
pub fn digest_of(kv: &dyn KvRead) -> Result<Digest, StorageError> {
    let mut hasher = RowHasher::new(Digest::default());
    for row in kv.scan(Space::Shared, &[], None)? {
        let (key, value) = row?;
        if key != key::DIGEST {
            hasher.add(key, value);
        }
    }
    Ok(hasher.digest())
}
