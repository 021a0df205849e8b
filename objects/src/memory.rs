//! A bucket in memory, for tests and simulations. Nothing survives it.

use crate::bucket::{check_data, judge_existing};
use crate::{Bucket, BucketError, ListPage, ObjectMeta, PutOutcome};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A bucket in memory.
#[derive(Debug)]
pub struct MemoryBucket {
    url: String,
    /// Content and the checksum that it was stored with.
    objects: Mutex<BTreeMap<String, (Bytes, u32)>>,
}

impl MemoryBucket {
    /// An empty bucket, called `memory://NAME` in messages.
    pub fn new(name: &str) -> MemoryBucket {
        MemoryBucket { url: format!("memory://{name}"), objects: Mutex::default() }
    }

    /// Replaces an object's bytes and keeps its checksum, as rot does.
    pub fn rot(&self, name: &str, data: Bytes) {
        if let Some(object) = self.objects().get_mut(name) {
            object.0 = data;
        }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, (Bytes, u32)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<(Bytes, ObjectMeta), BucketError> {
        let objects = self.objects();
        let (data, crc32c) = objects.get(name).ok_or_else(|| self.absent(name))?;
        Ok((data.clone(), meta(name, data, *crc32c)))
    }

    fn absent(&self, name: &str) -> BucketError {
        BucketError::NotFound { bucket: self.url.clone(), object: name.to_owned() }
    }
}

#[async_trait]
impl Bucket for MemoryBucket {
    async fn get(&self, name: &str) -> Result<(Bytes, ObjectMeta), BucketError> {
        let (data, meta) = self.find(name)?;
        check_data(&self.url, name, &data, meta.crc32c.expect("objects in memory always have a checksum"))?;
        Ok((data, meta))
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (data, meta) = self.find(name)?;
        if range.start >= meta.size {
            let detail = format!("the range starts at byte {}, the object has {}", range.start, meta.size);
            return Err(BucketError::Other { bucket: self.url.clone(), object: name.to_owned(), detail });
        }
        Ok(data.slice(range.start as usize..range.end.min(meta.size) as usize))
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, BucketError> {
        self.find(name).map(|(_, meta)| meta)
    }

    async fn put_new(&self, name: &str, data: Bytes, crc32c: u32) -> Result<PutOutcome, BucketError> {
        check_data(&self.url, name, &data, crc32c)?;
        match self.objects().entry(name.to_owned()) {
            Entry::Vacant(vacant) => {
                vacant.insert((data, crc32c));
                Ok(PutOutcome::Created)
            }
            Entry::Occupied(occupied) => {
                let (existing, existing_crc32c) = occupied.get();
                judge_existing(&self.url, &meta(name, existing, *existing_crc32c), *existing_crc32c, &data, crc32c)
            }
        }
    }

    async fn put_replace(&self, name: &str, data: Bytes) -> Result<(), BucketError> {
        let crc32c = crc32c::crc32c(&data);
        self.objects().insert(name.to_owned(), (data, crc32c));
        Ok(())
    }

    async fn delete(&self, name: &str) -> Result<(), BucketError> {
        self.objects().remove(name);
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, BucketError> {
        let objects = self.objects();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut wanted = objects.range::<str, _>((start, Bound::Unbounded)).take_while(|(name, _)| name.starts_with(prefix));
        let page: Vec<ObjectMeta> = wanted.by_ref().take(limit).map(|(name, (data, crc32c))| meta(name, data, *crc32c)).collect();
        Ok(ListPage { more: limit > 0 && wanted.next().is_some(), objects: page })
    }

    fn url(&self) -> &str {
        &self.url
    }
}

fn meta(name: &str, data: &Bytes, crc32c: u32) -> ObjectMeta {
    ObjectMeta { name: name.to_owned(), size: data.len() as u64, crc32c: Some(crc32c), modified_unix_seconds: None }
}
