//! Chunks, slices and blocks: the layout of file data, as JuiceFS documents it publicly.
//!
//! A file is cut into chunks of 64 MiB. A slice is one continuous write inside one chunk. A slice is stored as
//! immutable blocks, of which all but the last have the volume's block size.

use crate::SliceId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes in a chunk.
pub const CHUNK_SIZE: u64 = 64 << 20;
/// Smallest block size of a volume, inclusive.
pub const MIN_BLOCK_SIZE: u32 = 64 << 10;
/// Largest block size of a volume, inclusive.
pub const MAX_BLOCK_SIZE: u32 = 16 << 20;

/// A block: one immutable object in a bucket. Ordered by slice, then index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockKey {
    pub slice: SliceId,
    /// Position among the slice's blocks, from 0.
    pub index: u32,
    /// Length in bytes, at least 1.
    pub size: u32,
}

impl BlockKey {
    /// The object's name below the volume's prefix: `chunks/<id/1000/1000>/<id/1000>/<id>_<index>_<size>`.
    pub fn object_name(&self) -> String {
        let id = self.slice.0;
        format!("chunks/{}/{}/{}_{}_{}", id / 1_000_000, id / 1000, id, self.index, self.size)
    }

    /// The inverse of [`BlockKey::object_name`]; refuses every other spelling of the same numbers.
    pub fn parse(name: &str) -> Result<BlockKey, BlockKeyError> {
        let parsed = name.rsplit('/').next().and_then(|last| {
            let mut numbers = last.splitn(3, '_');
            Some(BlockKey {
                slice: SliceId(numbers.next()?.parse().ok()?),
                index: numbers.next()?.parse().ok()?,
                size: numbers.next()?.parse().ok()?,
            })
        });
        match parsed {
            Some(key) if key.object_name() == name && key.size > 0 => Ok(key),
            _ => Err(BlockKeyError(name.to_owned())),
        }
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.object_name())
    }
}

/// An object's name that is not a block's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a block (chunks/A/B/ID_INDEX_SIZE)")]
pub struct BlockKeyError(pub String);

/// A region's name that is not one of the volume's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no region named `{name}`; the volume has {known}")]
pub struct ParseRegion {
    pub name: String,
    pub known: String,
}

/// The blocks of a slice of `size` bytes on a volume with blocks of `block_size` bytes, in order.
pub fn blocks_of(slice: SliceId, size: u32, block_size: u32) -> impl Iterator<Item = BlockKey> {
    assert!(block_size > 0, "a volume's block size is never 0");
    (0..size.div_ceil(block_size)).map(move |index| BlockKey { slice, index, size: block_size.min(size - index * block_size) })
}

/// A committed slice: who it is, and what a copy of each of its blocks must look like (law 16).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    pub id: SliceId,
    /// Length in bytes, 1..=CHUNK_SIZE.
    pub size: u32,
    /// CRC-32C of each block, in order.
    pub checksums: Vec<u32>,
}

/// One visible piece of a chunk; later pieces in a list lie above earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceView {
    /// Where the piece starts inside the chunk, in bytes.
    pub position: u32,
    /// Length of the piece in bytes; [`SliceId::HOLE`] reads as zeros.
    pub length: u32,
    /// Where the piece starts inside its slice, in bytes.
    pub offset: u32,
    /// The slice; of a hole: id 0, no checksums.
    pub slice: Slice,
    /// The bucket that was written first; `None` when no bucket had it at commit.
    pub origin: Option<crate::BucketId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_public_layout_and_parse_back() {
        let key = BlockKey { slice: SliceId(91_042_117), index: 3, size: 4 << 20 };
        assert_eq!(key.object_name(), "chunks/91/91042/91042117_3_4194304");
        assert_eq!(BlockKey::parse(&key.object_name()), Ok(key));
        for wrong in ["", "chunks/0/0/1_0", "chunks/0/0/01_0_5", "chunks/9/0/1_0_5", "chunks/0/0/1_0_0", "x/chunks/0/0/1_0_5"] {
            assert!(BlockKey::parse(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn a_slice_is_cut_into_full_blocks_and_a_rest() {
        let sizes = |size| blocks_of(SliceId(1), size, 100).map(|b| b.size).collect::<Vec<_>>();
        assert_eq!(sizes(250), [100, 100, 50]);
        assert_eq!(sizes(200), [100, 100]);
        assert_eq!(sizes(1), [1]);
    }
}
