//! The buckets of the world: immutable objects by region, each with its length and checksum. Putting is conditional, as
//! law 16 asks; deleting is checked by the world before it happens.

use farshore_types::{BlockKey, ClusterId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    pub length: u32,
    pub crc32c: u32,
}

/// What became of a conditional PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Done,
    /// The same object is there already: success (law 16).
    Same,
    /// Another object has the name.
    Conflict,
}

/// One region's bucket.
#[derive(Default)]
pub struct Bucket {
    pub objects: BTreeMap<BlockKey, Object>,
    /// When (virtual microseconds) an authorised deletion removed a block.
    pub deleted: BTreeMap<BlockKey, u64>,
    /// Removed behind the system's back: damage, which moves no watermark (law 15).
    pub damaged: BTreeSet<BlockKey>,
    /// It answers nothing for now.
    pub down: bool,
}

/// All buckets, by the cluster of their region.
#[derive(Default)]
pub struct Buckets(Mutex<BTreeMap<ClusterId, Bucket>>);

impl Buckets {
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Bucket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_down(&self, region: ClusterId) -> bool {
        self.lock().entry(region).or_default().down
    }

    pub fn set_down(&self, region: ClusterId, down: bool) {
        self.lock().entry(region).or_default().down = down;
    }

    pub fn get(&self, region: ClusterId, block: BlockKey) -> Option<Object> {
        self.lock().entry(region).or_default().objects.get(&block).copied()
    }

    pub fn put(&self, region: ClusterId, block: BlockKey, crc32c: u32) -> Put {
        let object = Object { length: block.size, crc32c };
        let mut buckets = self.lock();
        let bucket = buckets.entry(region).or_default();
        match bucket.objects.get(&block) {
            Some(there) if *there == object => Put::Same,
            Some(_) => Put::Conflict,
            None => {
                bucket.objects.insert(block, object);
                bucket.damaged.remove(&block);
                Put::Done
            }
        }
    }

    pub fn delete(&self, region: ClusterId, block: BlockKey, now_us: u64) {
        let mut buckets = self.lock();
        let bucket = buckets.entry(region).or_default();
        bucket.objects.remove(&block);
        bucket.deleted.insert(block, now_us);
    }

    /// An object vanishes behind everybody's back.
    pub fn damage(&self, region: ClusterId, block: BlockKey) {
        let mut buckets = self.lock();
        let bucket = buckets.entry(region).or_default();
        if bucket.objects.remove(&block).is_some() {
            bucket.damaged.insert(block);
        }
    }

    /// Names and sizes of all objects after a name (exclusive), in byte order of names.
    pub fn list(&self, region: ClusterId, after: &str) -> Vec<(String, u64)> {
        let mut buckets = self.lock();
        let bucket = buckets.entry(region).or_default();
        let names = bucket.objects.iter().map(|(block, object)| (block.object_name(), u64::from(object.length)));
        let mut rest: Vec<(String, u64)> = names.filter(|(name, _)| name.as_str() > after).collect();
        rest.sort();
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::SliceId;

    #[test]
    fn a_put_is_conditional_and_a_listing_goes_on_after_a_name() {
        let (buckets, here) = (Buckets::default(), ClusterId(0));
        let block = |id| BlockKey { slice: SliceId(id), index: 0, size: 10 };
        assert_eq!(buckets.put(here, block(2), 7), Put::Done);
        assert_eq!(buckets.put(here, block(2), 7), Put::Same);
        assert_eq!(buckets.put(here, block(2), 8), Put::Conflict);
        buckets.put(here, block(1), 1);
        let all = buckets.list(here, "");
        assert_eq!(all.len(), 2);
        assert_eq!(buckets.list(here, &all[0].0), [(block(2).object_name(), 10)]);
    }
}
