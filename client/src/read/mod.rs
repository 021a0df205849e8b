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
                        self.counters.fallback(&site.region);
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
