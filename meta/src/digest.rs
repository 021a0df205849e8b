//! The digest of the shared state (law 2): the sum modulo 2^128 of a keyed hash of each row, so that a change costs two
//! hashes and the order of changes does not matter. The row that keeps the digest is not part of it.

use crate::key;
use crate::kv::{KvRead, Space, StorageError};
use farshore_types::Digest;

/// Keeps these hashes apart from all others of the system.
const CONTEXT: &[u8; 32] = b"farshore shared state digest v1\0";

/// The hash of one row.
fn row_hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new_keyed(CONTEXT);
    hasher.update(&(key.len() as u32).to_be_bytes()).update(key).update(value);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(bytes)
}

/// `digest` after a row appeared.
pub(crate) fn add(digest: Digest, key: &[u8], value: &[u8]) -> Digest {
    Digest(digest.0.wrapping_add(row_hash(key, value)))
}

/// `digest` after a row went.
pub(crate) fn subtract(digest: Digest, key: &[u8], value: &[u8]) -> Digest {
    Digest(digest.0.wrapping_sub(row_hash(key, value)))
}

/// The digest computed afresh from every shared row.
pub fn digest_of(kv: &dyn KvRead) -> Result<Digest, StorageError> {
    let mut digest = Digest::default();
    for row in kv.scan(Space::Shared, &[], None)? {
        let (key, value) = row?;
        if key != key::DIGEST {
            digest = add(digest, key, value);
        }
    }
    Ok(digest)
}
