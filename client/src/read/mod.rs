//! Blocks on their way to a reader: memory, disk cache, the first bucket, other regions' buckets.
//!
//! Whole blocks only: what a reader gets has the checksum that metadata names (law 16), and only a whole block can be
//! verified. Concurrent readers of one missing block cost one remote GET: the fetch is a task of its own, and all wait for it.

mod ahead;
mod disk;

pub(crate) use ahead::Readahead;
pub(crate) use disk::DiskCache;

use crate::counters::Counters;
use crate::layout::BlockRef;
use crate::session::Session;
use crate::stores::{SiteError, Stores};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Bytes of blocks kept in memory.
const MEMORY_BYTES: u64 = 128 << 20;
/// About how many blocks that is, for the cache's tables.
const MEMORY_BLOCKS: usize = 256;
/// Fetches ahead of readers at once; beyond it nothing is read ahead.
const AHEAD_MAX: usize = 16;

/// Why a block cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    /// Every bucket answered, and none has it.
    #[error("no bucket has it")]
    Absent,
    /// Some could not be asked, or gave something else.
    #[error("{0}")]
    Failed(String),
}

type Fetch = Shared<BoxFuture<'static, Result<Bytes, BlockError>>>;

#[derive(Clone)]
struct ByLength;

impl quick_cache::Weighter<BlockRef, Bytes> for ByLength {
    fn weight(&self, _: &BlockRef, data: &Bytes) -> u64 {
        data.len() as u64 + 1
    }
}

/// The way to blocks.
pub(crate) struct Blocks {
    stores: Arc<Stores>,
    memory: quick_cache::sync::Cache<BlockRef, Bytes, ByLength>,
    disk: Option<Arc<DiskCache>>,
    running: Mutex<HashMap<BlockRef, Fetch>>,
    ahead: Arc<Semaphore>,
    session: Arc<Session>,
    counters: Arc<Counters>,
}

impl Blocks {
    pub fn new(stores: Arc<Stores>, disk: Option<Arc<DiskCache>>, session: Arc<Session>, counters: Arc<Counters>) -> Arc<Blocks> {
        let memory = quick_cache::sync::Cache::with_weighter(MEMORY_BLOCKS, MEMORY_BYTES, ByLength);
        let ahead = Arc::new(Semaphore::new(AHEAD_MAX));
        Arc::new(Blocks { stores, memory, disk, running: Mutex::default(), ahead, session, counters })
    }

    /// The whole block.
    pub async fn get(self: &Arc<Self>, block: BlockRef) -> Result<Bytes, BlockError> {
        match self.memory.get(&block) {
            Some(data) => Ok(data),
            None => self.join_fetch(block).await,
        }
    }

    /// Fetches a block that a reader will want; nothing happens when too many are under way.
    pub fn read_ahead(self: &Arc<Self>, block: BlockRef) {
        if self.memory.get(&block).is_some() {
            return;
        }
        let Ok(permit) = self.ahead.clone().try_acquire_owned() else { return };
        let fetch = self.join_fetch(block);
        tokio::spawn(async move {
            // Whoever reads the block meets the error again.
            let _ = fetch.await;
            drop(permit);
        });
    }

    /// What was just uploaded will often be read next.
    pub fn remember(self: &Arc<Self>, block: BlockRef, data: &Bytes) {
        if let Some(disk) = &self.disk {
            disk.store_later(block, data.clone());
        }
    }

    fn join_fetch(self: &Arc<Self>, block: BlockRef) -> Fetch {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetch) = running.get(&block) {
            return fetch.clone();
        }
        // A fetch that ended since the caller looked has left its block there.
        if let Some(data) = self.memory.get(&block) {
            return futures::future::ready(Ok(data)).boxed().shared();
        }
        let this = self.clone();
        let task = tokio::spawn(async move {
            let result = this.fetch(&block).await;
            if let Ok(data) = &result {
                this.memory.insert(block, data.clone());
            }
            this.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&block);
            result
        });
        let fetch = task
            .map(|joined| joined.unwrap_or_else(|error| Err(BlockError::Failed(format!("the fetch was stopped: {error}")))))
            .boxed()
            .shared();
        running.insert(block, fetch.clone());
        fetch
    }

    async fn fetch(&self, block: &BlockRef) -> Result<Bytes, BlockError> {
        if let Some(disk) = &self.disk
            && let Some(data) = disk.load(*block).await
        {
            self.counters.disk_hit();
            return Ok(data);
        }
        let data = self.fetch_remote(block).await?;
        if let Some(disk) = &self.disk {
            disk.store_later(*block, data.clone());
        }
        Ok(data)
    }

    async fn fetch_remote(&self, block: &BlockRef) -> Result<Bytes, BlockError> {
        let mut failures = Vec::new();
        let mut first_lacks_it = false;
        for (order, site) in self.stores.in_order().iter().enumerate() {
            match site.get(block).await {
                Ok(data) => {
                    if order > 0 {
                        self.counters.fallback(&site.region, data.len() as u64);
                        if first_lacks_it {
                            self.session.report_fallback(block.key);
                        }
                    }
                    return Ok(data);
                }
                Err(SiteError::Absent) => first_lacks_it |= order == 0,
                Err(SiteError::Skipped) => failures.push(format!("{}: unreachable shortly before", site.region)),
                Err(SiteError::Damaged(text)) => {
                    self.counters.damaged_in_bucket();
                    tracing::warn!(block = %block.key, region = site.region, "damaged in the bucket, trying others: {text}");
                    failures.push(format!("{}: damaged: {text}", site.region));
                }
                Err(SiteError::Failed(text)) => failures.push(format!("{}: {text}", site.region)),
            }
        }
        if failures.is_empty() { Err(BlockError::Absent) } else { Err(BlockError::Failed(failures.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Observer, SessionConfig};
    use crate::stores::{Site, object_name};
    use farshore_objects::{Bucket, BucketError, ListPage, MemoryBucket, ObjectMeta, PutOutcome};
    use farshore_types::{BlockKey, SessionInfo, SliceId};
    use std::ops::Range;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// A bucket behind a dead endpoint.
    #[derive(Debug, Default)]
    struct Dead(AtomicU64);

    impl Dead {
        fn asked<T>(&self, name: &str) -> Result<T, BucketError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(BucketError::Unreachable { bucket: "dead".into(), object: name.into(), detail: "refused".into() })
        }
    }

    #[async_trait::async_trait]
    impl Bucket for Dead {
        async fn get(&self, name: &str) -> Result<(Bytes, ObjectMeta), BucketError> {
            self.asked(name)
        }
        async fn get_range(&self, name: &str, _: Range<u64>) -> Result<Bytes, BucketError> {
            self.asked(name)
        }
        async fn head(&self, name: &str) -> Result<ObjectMeta, BucketError> {
            self.asked(name)
        }
        async fn put_new(&self, name: &str, _: Bytes, _: u32) -> Result<PutOutcome, BucketError> {
            self.asked(name)
        }
        async fn put_replace(&self, name: &str, _: Bytes) -> Result<(), BucketError> {
            self.asked(name)
        }
        async fn delete(&self, name: &str) -> Result<(), BucketError> {
            self.asked(name)
        }
        async fn list(&self, prefix: &str, _: Option<&str>, _: usize) -> Result<ListPage, BucketError> {
            self.asked(prefix)
        }
        fn url(&self) -> &str {
            "dead"
        }
    }

    struct Nobody;

    impl Observer for Nobody {
        fn invalidated(&self, _: Vec<crate::Invalidation>) {}
        fn reset(&self) {}
        fn session_lost(&self) {}
    }

    fn blocks(first: Arc<dyn Bucket>, second: Arc<MemoryBucket>) -> (Arc<Blocks>, Arc<Counters>) {
        let counters = Arc::new(Counters::new("one"));
        let site = |region: &str, bucket| Site::new(region, bucket, "demo", counters.clone());
        let stores = Arc::new(Stores::new(vec![site("one", first), site("two", second)]));
        let info = SessionInfo { host: String::new(), mount: String::new(), options: String::new(), bucket: None };
        let kind = farshore_wire::v1::hello::Kind::Reader;
        // Nobody listens there: reports of fallbacks wait and are dropped with the session.
        let nodes = vec!["127.0.0.1:1".to_owned()];
        let config = SessionConfig { volume: "demo".to_owned(), group: 0, kind, info, nodes, mirror: false };
        let session = Arc::new(Session::start(config, Arc::new(Nobody), Duration::from_secs(1)));
        (Blocks::new(stores, None, session, counters.clone()), counters)
    }

    async fn store(bucket: &MemoryBucket, slice: u64, data: &'static [u8]) -> BlockRef {
        let key = BlockKey { slice: SliceId(slice), index: 0, size: data.len() as u32 };
        let crc32c = crc32c::crc32c(data);
        bucket.put_new(&object_name("demo", &key), Bytes::from_static(data), crc32c).await.unwrap();
        BlockRef { key, crc32c }
    }

    #[tokio::test]
    async fn law_27_a_dead_first_bucket_is_asked_once_and_reads_go_on() {
        let (dead, alive) = (Arc::new(Dead::default()), Arc::new(MemoryBucket::new("two")));
        let (blocks, counters) = blocks(dead.clone(), alive.clone());
        for slice in 1..=10 {
            let block = store(&alive, slice, b"content").await;
            assert_eq!(blocks.get(block).await.as_deref(), Ok(&b"content"[..]));
        }
        assert_eq!(dead.0.load(Ordering::Relaxed), 1, "left alone after its first silence");
        assert_eq!((counters.fallback_blocks(), counters.breaker_skips()), (10, 9));
        let nowhere = BlockRef { key: BlockKey { slice: SliceId(99), index: 0, size: 7 }, crc32c: 0 };
        assert!(matches!(blocks.get(nowhere).await, Err(BlockError::Failed(_))), "unknown is not absent");
    }

    #[tokio::test]
    async fn law_16_damage_in_a_bucket_is_never_given_to_a_reader() {
        let (one, two) = (Arc::new(MemoryBucket::new("one")), Arc::new(MemoryBucket::new("two")));
        let (blocks, counters) = blocks(one.clone(), two.clone());
        let block = store(&one, 1, b"content").await;
        store(&two, 1, b"content").await;
        one.rot(&object_name("demo", &block.key), Bytes::from_static(b"c0ntent"));
        assert_eq!(blocks.get(block).await.as_deref(), Ok(&b"content"[..]));
        assert_eq!((counters.damaged_bucket_blocks(), counters.fallback_blocks()), (1, 1));
        // A bucket that says that all is well, about other bytes than metadata names.
        let lying = BlockRef { crc32c: block.crc32c ^ 1, ..block };
        assert!(matches!(blocks.get(lying).await, Err(BlockError::Failed(_))));
    }
}
