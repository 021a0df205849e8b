//! Blocks on the local disk, below a size limit.
//!
//! One file a block, written aside and renamed. Nothing in it is trusted: each read verifies magic, version, key and the
//! checksum that metadata names (laws 16, 26); what does not agree is removed and fetched again. Nothing is flushed: a
//! block lost in a crash is fetched again.
//!
//! File: magic `FSBC`, version u32, slice u64, index u32, size u32, crc32c u32, 4 bytes of zeros (all little endian), then
//! the block.

use crate::counters::Counters;
use crate::layout::BlockRef;
use crate::stores::is_block;
use bytes::Bytes;
use farshore_types::{BlockKey, SliceId};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

const MAGIC: &[u8; 4] = b"FSBC";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
/// Files being written at once; beyond it a block is not cached.
const WRITES_MAX: usize = 8;
/// Directories that blocks are spread over.
const FAN_OUT: u64 = 256;

/// A cached block, as eviction sees it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: BlockKey,
    used: u64,
}

/// Which blocks are on disk. A block's place in `entries` is in `places`.
#[derive(Debug, Default)]
struct Index {
    entries: Vec<Entry>,
    places: HashMap<BlockKey, usize>,
    bytes: u64,
    clock: u64,
    random: u64,
}

impl Index {
    fn touch(&mut self, key: &BlockKey) {
        self.clock += 1;
        if let Some(&at) = self.places.get(key) {
            self.entries[at].used = self.clock;
        }
    }

    fn insert(&mut self, key: BlockKey) {
        self.clock += 1;
        if !self.places.contains_key(&key) {
            self.places.insert(key, self.entries.len());
            self.entries.push(Entry { key, used: self.clock });
            self.bytes += on_disk(&key);
        }
    }

    fn remove(&mut self, key: &BlockKey) {
        let Some(at) = self.places.remove(key) else { return };
        self.bytes -= on_disk(key);
        self.entries.swap_remove(at);
        if let Some(moved) = self.entries.get(at) {
            self.places.insert(moved.key, at);
        }
        assert_eq!(self.entries.len(), self.places.len(), "each entry has one place");
    }

    /// Two at random; the one that was used longer ago goes.
    fn victim(&mut self) -> Option<BlockKey> {
        let count = self.entries.len() as u64;
        if count == 0 {
            return None;
        }
        let mut pick = || {
            // xorshift64: any spread will do, and a seed makes it repeatable.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.entries[(self.random % count) as usize]
        };
        let (one, two) = (pick(), pick());
        Some(if one.used <= two.used { one.key } else { two.key })
    }
}

fn on_disk(key: &BlockKey) -> u64 {
    u64::from(key.size) + HEADER_BYTES as u64
}

/// The disk cache of one volume.
#[derive(Debug)]
pub(crate) struct DiskCache {
    root: PathBuf,
    limit: u64,
    index: Mutex<Index>,
    writes: Arc<Semaphore>,
    temporary: AtomicU64,
    counters: Arc<Counters>,
}

impl DiskCache {
    /// Opens the cache below `root`, and finds what earlier runs left. `seed` steers eviction.
    pub fn open(root: &Path, limit: u64, seed: u64, counters: Arc<Counters>) -> io::Result<Arc<DiskCache>> {
        fs::create_dir_all(root)?;
        let mut index = Index { random: seed | 1, ..Index::default() };
        for directory in fs::read_dir(root)? {
            let directory = directory?;
            if directory.file_type()?.is_dir() {
                for file in fs::read_dir(directory.path())? {
                    let file = file?;
                    match parse_name(&file.file_name().to_string_lossy()) {
                        Some(key) => index.insert(key),
                        // Written aside by a run that ended; nothing else is ours to remove.
                        None if file.file_name().to_string_lossy().starts_with(".new-") => fs::remove_file(file.path())?,
                        None => {}
                    }
                }
            }
        }
        let cache = DiskCache {
            root: root.to_owned(),
            limit,
            index: Mutex::new(index),
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
            temporary: AtomicU64::new(rand::random()),
            counters,
        };
        cache.evict();
        Ok(Arc::new(cache))
    }

    /// The block, if it is there and is what metadata says.
    pub async fn load(self: &Arc<Self>, block: BlockRef) -> Option<Bytes> {
        if !self.lock().places.contains_key(&block.key) {
            return None;
        }
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.load_now(&block)).await.ok().flatten()
    }

    fn load_now(&self, block: &BlockRef) -> Option<Bytes> {
        match read_file(&self.path(&block.key), &block.key) {
            Ok(data) if is_block(&data, block) => {
                self.lock().touch(&block.key);
                Some(data)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lock().remove(&block.key);
                None
            }
            damaged => {
                let reason = damaged.err().map_or("another checksum".to_owned(), |error| error.to_string());
                tracing::warn!(block = %block.key, "damaged in the disk cache, fetched again: {reason}");
                self.counters.damaged_in_cache();
                self.discard(&block.key);
                None
            }
        }
    }

    /// Keeps a block, in the background; dropped when too many wait or the disk refuses.
    pub fn store_later(self: &Arc<Self>, block: BlockRef, data: Bytes) {
        let Ok(permit) = self.writes.clone().try_acquire_owned() else { return };
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = this.store_now(&block, &data) {
                tracing::debug!(block = %block.key, "not cached: {error}");
            }
            drop(permit);
        });
    }

    fn store_now(&self, block: &BlockRef, data: &[u8]) -> io::Result<()> {
        assert!(is_block(data, block), "only verified blocks are cached");
        if on_disk(&block.key) > self.limit || self.lock().places.contains_key(&block.key) {
            return Ok(());
        }
        let path = self.path(&block.key);
        let directory = path.parent().expect("a block's path has a directory");
        fs::create_dir_all(directory)?;
        let aside = directory.join(format!(".new-{:016x}", self.temporary.fetch_add(1, Ordering::Relaxed)));
        let written = fs::File::create_new(&aside).and_then(|mut file| {
            file.write_all(&header(&block.key, block.crc32c))?;
            file.write_all(data)
        });
        if let Err(error) = written.and_then(|()| fs::rename(&aside, &path)) {
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        self.lock().insert(block.key);
        self.evict();
        Ok(())
    }

    fn evict(&self) {
        loop {
            let victim = {
                let mut index = self.lock();
                if index.bytes <= self.limit {
                    return;
                }
                index.victim()
            };
            let Some(key) = victim else { return };
            self.discard(&key);
        }
    }

    fn discard(&self, key: &BlockKey) {
        self.lock().remove(key);
        let _ = fs::remove_file(self.path(key));
    }

    fn path(&self, key: &BlockKey) -> PathBuf {
        let directory = format!("{:02x}", (key.slice.0 ^ u64::from(key.index)) % FAN_OUT);
        self.root.join(directory).join(format!("{}_{}_{}", key.slice, key.index, key.size))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.lock().bytes
    }
}

fn parse_name(name: &str) -> Option<BlockKey> {
    let mut numbers = name.split('_');
    let key = BlockKey {
        slice: SliceId(numbers.next()?.parse().ok()?),
        index: numbers.next()?.parse().ok()?,
        size: numbers.next()?.parse().ok()?,
    };
    numbers.next().is_none().then_some(key)
}

fn header(key: &BlockKey, crc32c: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(MAGIC);
    header[4..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&key.slice.0.to_le_bytes());
    header[16..20].copy_from_slice(&key.index.to_le_bytes());
    header[20..24].copy_from_slice(&key.size.to_le_bytes());
    header[24..28].copy_from_slice(&crc32c.to_le_bytes());
    header
}

/// The block behind a header that names it; the caller compares the checksum with metadata's.
fn read_file(path: &Path, key: &BlockKey) -> io::Result<Bytes> {
    let mut file = fs::File::open(path)?;
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if file.metadata()?.len() != on_disk(key) {
        return Err(wrong("another length"));
    }
    let mut bytes = Vec::with_capacity(on_disk(key) as usize);
    file.read_to_end(&mut bytes)?;
    let crc32c = bytes.get(24..28).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
    let expected = header(key, crc32c.ok_or_else(|| wrong("no header"))?);
    if bytes[..HEADER_BYTES] != expected {
        return Err(wrong("another header"));
    }
    Ok(Bytes::from(bytes).slice(HEADER_BYTES..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(slice: u64, data: &[u8]) -> BlockRef {
        let key = BlockKey { slice: SliceId(slice), index: 0, size: data.len() as u32 };
        BlockRef { key, crc32c: crc32c::crc32c(data) }
    }

    fn open(dir: &Path, limit: u64) -> (Arc<DiskCache>, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        (DiskCache::open(dir, limit, 1, counters.clone()).unwrap(), counters)
    }

    #[test]
    fn law_26_golden_bytes_of_a_header() {
        let key = BlockKey { slice: SliceId(0x0102_0304), index: 5, size: 6 };
        let golden = "46534243 01000000 0403020100000000 05000000 06000000 efbeadde 00000000";
        let hex: String = header(&key, 0xdead_beef).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.replace(' ', ""));
    }

    #[test]
    fn law_16_damage_is_dropped_and_counted_and_a_restart_finds_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, counters) = open(dir.path(), 1 << 20);
        let (good, bad) = (block(1, b"good"), block(2, b"soon damaged"));
        cache.store_now(&good, b"good").unwrap();
        cache.store_now(&bad, b"soon damaged").unwrap();
        let path = cache.path(&bad.key);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let (cache, counters_2) = open(dir.path(), 1 << 20);
        assert_eq!(cache.load_now(&good).as_deref(), Some(&b"good"[..]));
        assert_eq!(cache.load_now(&bad), None);
        assert!(!path.exists(), "a damaged block is removed");
        assert_eq!((counters.damaged_cache_blocks(), counters_2.damaged_cache_blocks()), (0, 1));
        fs::write(cache.path(&good.key), b"short").unwrap();
        assert_eq!(cache.load_now(&good), None);
        let other_content = BlockRef { crc32c: good.crc32c ^ 1, ..good };
        cache.store_now(&good, b"good").unwrap();
        assert_eq!(cache.load_now(&other_content), None, "metadata's checksum decides");
    }

    #[test]
    fn law_27_the_limit_holds_and_what_is_used_tends_to_stay() {
        let dir = tempfile::tempdir().unwrap();
        let data = [7u8; 1000];
        let limit = 20 * (1000 + HEADER_BYTES as u64);
        let (cache, _) = open(dir.path(), limit);
        for slice in 0..200 {
            let cached = block(slice, &data);
            cache.store_now(&cached, &data).unwrap();
            assert!(cache.bytes() <= limit);
        }
        let files: usize = fs::read_dir(dir.path()).unwrap().map(|d| fs::read_dir(d.unwrap().path()).unwrap().count()).sum();
        assert_eq!(files, 20, "what is forgotten is also removed");
        assert!(open(dir.path(), limit / 2).0.bytes() <= limit / 2, "a smaller limit is honoured at the start");
    }
}
