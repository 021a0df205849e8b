//! What a client counts: for `/metrics` by the names of the operator's surface, and for tests by value.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one client.
#[derive(Debug, Default)]
pub struct Counters {
    region: String,
    fallback_blocks: AtomicU64,
    absent_blocks: AtomicU64,
    readonly_rejections: AtomicU64,
    bucket_gets: AtomicU64,
    bucket_puts: AtomicU64,
    damaged_cache_blocks: AtomicU64,
    damaged_bucket_blocks: AtomicU64,
    disk_cache_hits: AtomicU64,
    breaker_skips: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(crate) fn new(region: &str) -> Counters {
        Counters { region: region.to_owned(), ..Counters::default() }
    }

    pub(crate) fn fallback(&self, from: &str, bytes: u64) {
        Counters::crossed(from, &self.region, "fallback", bytes);
        add(&self.fallback_blocks);
        metrics::counter!("farshore_read_fallback_blocks_total", "region" => self.region.clone(), "from" => from.to_owned())
            .increment(1);
    }

    /// Bytes of a block that crossed from one region to another.
    pub(crate) fn crossed(from: &str, to: &str, purpose: &'static str, bytes: u64) {
        let (from, to) = (from.to_owned(), to.to_owned());
        metrics::counter!("farshore_link_bytes_total", "from" => from, "to" => to, "purpose" => purpose).increment(bytes);
    }

    pub(crate) fn absent(&self) {
        add(&self.absent_blocks);
        metrics::counter!("farshore_read_absent_blocks_total", "region" => self.region.clone()).increment(1);
    }

    pub(crate) fn readonly_rejection(&self) {
        add(&self.readonly_rejections);
        metrics::counter!("farshore_readonly_rejections_total", "region" => self.region.clone()).increment(1);
    }

    pub(crate) fn damaged_in_cache(&self) {
        add(&self.damaged_cache_blocks);
    }

    pub(crate) fn damaged_in_bucket(&self) {
        add(&self.damaged_bucket_blocks);
    }

    pub(crate) fn disk_hit(&self) {
        add(&self.disk_cache_hits);
    }

    pub(crate) fn breaker_skip(&self) {
        add(&self.breaker_skips);
    }

    pub(crate) fn bucket_get(&self) {
        add(&self.bucket_gets);
    }

    pub(crate) fn bucket_put(&self) {
        add(&self.bucket_puts);
    }

    /// Blocks that were fetched from another region than the first.
    pub fn fallback_blocks(&self) -> u64 {
        value(&self.fallback_blocks)
    }

    /// Blocks that no bucket had: each was an EIO.
    pub fn absent_blocks(&self) -> u64 {
        value(&self.absent_blocks)
    }

    /// Changes that were refused because the volume is read-only here.
    pub fn readonly_rejections(&self) -> u64 {
        value(&self.readonly_rejections)
    }

    /// GETs of blocks sent to buckets.
    pub fn bucket_gets(&self) -> u64 {
        value(&self.bucket_gets)
    }

    /// PUTs of blocks sent to buckets.
    pub fn bucket_puts(&self) -> u64 {
        value(&self.bucket_puts)
    }

    /// Blocks of the disk cache that were damaged, dropped and fetched again (law 16).
    pub fn damaged_cache_blocks(&self) -> u64 {
        value(&self.damaged_cache_blocks)
    }

    /// Blocks that came from a bucket with another checksum than metadata names (law 16).
    pub fn damaged_bucket_blocks(&self) -> u64 {
        value(&self.damaged_bucket_blocks)
    }

    /// Blocks that were read from the disk cache.
    pub fn disk_cache_hits(&self) -> u64 {
        value(&self.disk_cache_hits)
    }

    /// Requests that were not sent since their bucket was unreachable shortly before.
    pub fn breaker_skips(&self) -> u64 {
        value(&self.breaker_skips)
    }
}
