//! The one place where the ledger reads shared state: live slices, and the region's bucket.

use farshore_meta::SliceRecord;
use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::{BlockKey, BucketId, Incarnation, LogIndex, LogTime, RegionId, SliceId, blocks_of};

/// A live slice, as shared state has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveSlice {
    pub id: SliceId,
    pub size: u32,
    /// CRC-32C of each block, in order.
    pub checksums: Vec<u32>,
    pub added: LogIndex,
    pub time: LogTime,
    pub origin: Option<BucketId>,
}

impl LiveSlice {
    pub fn blocks(&self, block_size: u32) -> impl Iterator<Item = BlockKey> + use<> {
        blocks_of(self.id, self.size, block_size)
    }

    /// Whether `block` is one of this slice's blocks.
    pub fn has(&self, block: BlockKey, block_size: u32) -> bool {
        block.slice == self.id && self.blocks(block_size).nth(block.index as usize) == Some(block)
    }
}

fn with_id(id: SliceId, record: SliceRecord) -> LiveSlice {
    let SliceRecord { added, time, size, origin, checksums, .. } = record;
    LiveSlice { id, size, checksums, added, time, origin }
}

/// A live slice; `None`: no file names it.
pub(crate) fn live_slice(kv: &dyn KvRead, id: SliceId) -> Result<Option<LiveSlice>, StorageError> {
    Ok(farshore_meta::slice_record(kv, id)?.map(|record| with_id(id, record)))
}

/// At most `limit` live slices with ids above `after`, in order of ids.
pub(crate) fn live_slices_after(kv: &dyn KvRead, after: Option<SliceId>, limit: usize) -> Result<Vec<LiveSlice>, StorageError> {
    let from = match after.map(|id| id.0.checked_add(1)) {
        None => SliceId(0),
        Some(Some(next)) => SliceId(next),
        Some(None) => return Ok(Vec::new()),
    };
    live_slices_in(kv, from, None, limit)
}

/// At most `limit` live slices from `from` (inclusive) to `to` (exclusive), in order of ids.
pub(crate) fn live_slices_in(
    kv: &dyn KvRead,
    from: SliceId,
    to: Option<SliceId>,
    limit: usize,
) -> Result<Vec<LiveSlice>, StorageError> {
    farshore_meta::live_slices(kv, from, to)?.take(limit).map(|row| row.map(|(id, record)| with_id(id, record))).collect()
}

/// The present incarnation of a region's bucket, as shared state has it.
pub(crate) fn incarnation_of(kv: &dyn KvRead, region: RegionId) -> Result<Option<Incarnation>, StorageError> {
    Ok(farshore_meta::volume(kv)?.and_then(|volume| volume.region_by_id(region).map(|record| record.incarnation)))
}

/// Walks all live slices of one state, a page in memory.
pub(crate) struct Pages {
    page: std::collections::VecDeque<LiveSlice>,
    after: Option<SliceId>,
    end: bool,
}

impl Pages {
    const PAGE: usize = 1024;

    pub fn new() -> Pages {
        Pages { page: Default::default(), after: None, end: false }
    }

    /// The next slice; `kv` must be the same state at each call, as far as slices go.
    pub fn peek(&mut self, kv: &dyn KvRead) -> Result<Option<&LiveSlice>, StorageError> {
        if self.page.is_empty() && !self.end {
            self.page = live_slices_after(kv, self.after, Self::PAGE)?.into();
            self.end = self.page.len() < Self::PAGE;
            self.after = self.page.back().map(|slice| slice.id).or(self.after);
        }
        Ok(self.page.front())
    }

    /// Takes the next slice off if it has this id.
    pub fn skip(&mut self, id: SliceId) {
        if self.page.front().is_some_and(|slice| slice.id == id) {
            self.page.pop_front();
        }
    }
}
