//! [`Home`]: whose ledger this is. Stored once when the node joins its volume; the incarnation moves with the bucket.

use crate::rows::{self, prefix};
use crate::txn::LocalTxn;
use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::{BucketId, ClusterId, Incarnation, RegionId};
use serde::{Deserialize, Serialize};

/// The cluster, its region and that region's present bucket (laws 12, 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    pub cluster: ClusterId,
    pub region: RegionId,
    /// Local, so that no rewind takes it back: it says which physical bucket stands there now.
    pub incarnation: Incarnation,
    /// Bytes in a full block of this volume.
    pub block_size: u32,
}

impl Home {
    /// The bucket that this ledger is about.
    pub fn bucket(&self) -> BucketId {
        BucketId { region: self.region, incarnation: self.incarnation }
    }
}

/// Says whose ledger this is. A changed incarnation belongs to [`crate::replace_bucket`], which owes the history.
pub fn set_home(txn: &mut LocalTxn<'_>, home: &Home) -> Result<(), StorageError> {
    assert!(home.block_size > 0, "a volume's block size is never 0");
    rows::put(txn, prefix::HOME, home)
}

/// Whose ledger this is; `None` before [`set_home`].
pub fn home(kv: &dyn KvRead) -> Result<Option<Home>, StorageError> {
    rows::get(kv, prefix::HOME)
}

pub(crate) fn require(kv: &dyn KvRead) -> Result<Home, StorageError> {
    home(kv)?.ok_or_else(|| StorageError::damaged(farshore_meta::kv::Space::Local, prefix::HOME, "the ledger has no home row"))
}
