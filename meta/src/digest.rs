//! The digest of the shared state (law 2): the sum modulo 2^128 of a hash of each row, so that a change costs two hashes and
//! the order of changes does not matter. The row that keeps the digest is not part of it.
//!
//! The hash is XXH3 with 128 bits (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>), which finds what accidents
//! and bugs do to a state. A sum of hashes would not keep out whoever chooses rows to collide, of whatever hash (decision 0040).

use crate::key;
use crate::kv::{KvRead, Space, StorageError};
use farshore_types::Digest;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Keeps these hashes apart from all others.
const SEED: u64 = u64::from_be_bytes(*b"farshore");

/// A digest that follows rows which appear and go.
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
        xxh3_128_with_seed(&self.row, SEED)
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
