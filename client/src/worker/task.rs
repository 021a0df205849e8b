//! One task: what is done in the buckets, and what is said of it.

use super::throttle::Throttle;
use crate::counters::Counters;
use crate::stores::{Site, Stores, object_name};
use bytes::Bytes;
use farshore_objects::BucketError;
use farshore_types::{BlockKey, RegionId, SliceId, VolumeRecord};
use farshore_wire::v1;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Objects of one listing's page.
const LIST_PAGE: usize = 1000;

/// Why a task failed. The closed list of reasons that leaves this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    SourceUnreachable,
    SourceMissing,
    TargetUnreachable,
    Denied,
    ChecksumMismatch,
    Other,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::SourceUnreachable => "source_unreachable",
            Reason::SourceMissing => "no_source",
            Reason::TargetUnreachable => "target_unreachable",
            Reason::Denied => "denied",
            Reason::ChecksumMismatch => "checksum",
            Reason::Other => "other",
        }
    }
}

/// A failed task, with a sentence for people.
#[derive(Debug)]
pub(super) struct Failed(pub Reason, pub String);

impl Failed {
    pub fn message(self) -> v1::Failure {
        v1::Failure { reason: self.0.name().to_owned(), text: self.1 }
    }

    fn at_source(error: &BucketError) -> Failed {
        let reason = match error {
            BucketError::NotFound { .. } => Reason::SourceMissing,
            BucketError::Unreachable { .. } | BucketError::Throttled { .. } => Reason::SourceUnreachable,
            BucketError::Denied { .. } => Reason::Denied,
            BucketError::Corrupt { .. } => Reason::ChecksumMismatch,
            _ => Reason::Other,
        };
        Failed(reason, error.to_string())
    }

    fn at_target(error: &BucketError) -> Failed {
        let reason = match error {
            BucketError::Unreachable { .. } | BucketError::Throttled { .. } => Reason::TargetUnreachable,
            BucketError::Denied { .. } => Reason::Denied,
            BucketError::Conflict { .. } | BucketError::Corrupt { .. } => Reason::ChecksumMismatch,
            _ => Reason::Other,
        };
        Failed(reason, error.to_string())
    }
}

/// What a task needs.
pub(super) struct Tasks {
    pub volume: String,
    pub record: VolumeRecord,
    pub stores: Arc<Stores>,
    pub throttle: Arc<Throttle>,
}

impl Tasks {
    /// Executes a copy or a deletion.
    pub async fn execute(&self, lease: &v1::Lease) -> v1::completion::Result {
        use v1::completion::Result as Done;
        let done = match lease.kind() {
            v1::lease::Kind::Copy => self.copy(lease).await,
            v1::lease::Kind::Delete => self.delete(lease).await.map(|()| Done::Deleted(true)),
            v1::lease::Kind::List => Err(Failed(Reason::Other, "a listing is not completed but listed".to_owned())),
        };
        done.unwrap_or_else(|failed| Done::Failed(failed.message()))
    }

    fn site(&self, region: u32) -> Result<&Site, Failed> {
        let record = u8::try_from(region).ok().and_then(|id| self.record.region_by_id(RegionId(id)));
        let name = record.map_or_else(|| format!("region {region}"), |record| record.name.clone());
        let site = self.stores.of_region(&name);
        site.ok_or_else(|| Failed(Reason::Other, format!("this worker has no bucket of {name} in its configuration")))
    }

    async fn copy(&self, lease: &v1::Lease) -> Result<v1::completion::Result, Failed> {
        use v1::completion::Result as Done;
        let key = key_of(lease)?;
        let target = self.site(lease.target_region)?;
        let name = object_name(&self.volume, &key);
        let _room = self.throttle.admit(key.size).await;
        if lease.head_first
            && let Some(crc32c) = self.evidence(target, &name, &key).await?
        {
            return Ok(Done::Copied(v1::Copied { length: key.size, crc32c, from_region: lease.target_region }));
        }
        let (data, crc32c, from_region) = match self.fetch(lease, &name, &key).await {
            Ok(fetched) => fetched,
            // That it is not there is known now, and worth more to the ledger than why it cannot be copied (law 20).
            Err(failed) if lease.head_first => {
                tracing::warn!(block = %name, why = %failed.1, "a block is not in its bucket and cannot be copied now");
                return Ok(Done::Absent(true));
            }
            Err(failed) => return Err(failed),
        };
        target.bucket.put_new(&name, data, crc32c).await.map_err(|error| Failed::at_target(&error))?;
        let stored = self.evidence(target, &name, &key).await?;
        if stored != Some(crc32c) {
            let text = format!("{name} was written with crc32c {crc32c:#010x}, the target has {stored:?}");
            return Err(Failed(Reason::ChecksumMismatch, text));
        }
        Ok(Done::Copied(v1::Copied { length: key.size, crc32c, from_region }))
    }

    /// The checksum of the object in the target, if it is there with the right length.
    async fn evidence(&self, target: &Site, name: &str, key: &BlockKey) -> Result<Option<u32>, Failed> {
        let meta = match target.bucket.head(name).await {
            Err(BucketError::NotFound { .. }) => return Ok(None),
            head => head.map_err(|error| Failed::at_target(&error))?,
        };
        if meta.size != u64::from(key.size) {
            let text = format!("{name} has {} bytes in the target, its name says {}", meta.size, key.size);
            return Err(Failed(Reason::ChecksumMismatch, text));
        }
        if let Some(crc32c) = meta.crc32c {
            return Ok(Some(crc32c));
        }
        let (data, _) = target.bucket.get(name).await.map_err(|error| Failed::at_target(&error))?;
        Ok(Some(crc32c::crc32c(&data)))
    }

    /// The block from the first source that has it; which failure is told, if none has, goes by how much it says.
    async fn fetch(&self, lease: &v1::Lease, name: &str, key: &BlockKey) -> Result<(Bytes, u32, u32), Failed> {
        let mut worst: Option<Failed> = None;
        for &region in &lease.source_regions {
            let site = match self.site(region) {
                Ok(site) => site,
                Err(failed) => {
                    worst = Some(failed);
                    continue;
                }
            };
            let failed = match site.bucket.get(name).await {
                Ok((data, meta)) => {
                    let crc32c = crc32c::crc32c(&data);
                    let right = data.len() == key.size as usize && meta.crc32c.is_none_or(|stored| stored == crc32c);
                    if right {
                        let to = self.site(lease.target_region)?;
                        Counters::crossed(&site.region, &to.region, "copy", data.len() as u64);
                        return Ok((data, crc32c, region));
                    }
                    let text = format!("{name} in {} has other bytes than it was stored with", site.region);
                    Failed(Reason::ChecksumMismatch, text)
                }
                Err(error) => Failed::at_source(&error),
            };
            // A 404 says the least: another source's failure is what keeps the block from being copied.
            if failed.0 != Reason::SourceMissing || worst.is_none() {
                worst = Some(failed);
            }
        }
        Err(worst.unwrap_or_else(|| Failed(Reason::SourceMissing, format!("{name}: the lease names no source"))))
    }

    async fn delete(&self, lease: &v1::Lease) -> Result<(), Failed> {
        let key = key_of(lease)?;
        let target = self.site(lease.target_region)?;
        let deleted = target.bucket.delete(&object_name(&self.volume, &key)).await;
        deleted.map_err(|error| Failed::at_target(&error))
    }

    /// Lists the blocks of a bucket into `out`, page by page; a failure is the last page's text.
    pub async fn list(&self, lease: &v1::Lease, out: &mpsc::Sender<v1::Listing>) {
        let page = |objects, last, failed| v1::Listing { task: lease.task.clone(), objects, last, failed };
        let failed = match self.list_pages(lease, out).await {
            Ok(()) => String::new(),
            Err(Failed(reason, text)) => format!("{}: {text}", reason.name()),
        };
        let _ = out.send(page(Vec::new(), true, failed)).await;
    }

    async fn list_pages(&self, lease: &v1::Lease, out: &mpsc::Sender<v1::Listing>) -> Result<(), Failed> {
        let target = self.site(lease.target_region)?;
        let below = format!("{}/", self.volume);
        let prefix = format!("{below}chunks/");
        let mut after = (!lease.list_after.is_empty()).then(|| format!("{below}{}", lease.list_after));
        loop {
            let listed = target.bucket.list(&prefix, after.as_deref(), LIST_PAGE).await;
            let listed = listed.map_err(|error| Failed::at_target(&error))?;
            after = listed.objects.last().map(|object| object.name.clone());
            let relative = |name: &str| name.strip_prefix(&below).unwrap_or(name).to_owned();
            let objects: Vec<_> = listed
                .objects
                .iter()
                .map(|object| v1::ListedObject { name: relative(&object.name), size: object.size })
                .collect();
            if !objects.is_empty() {
                let listing = v1::Listing { task: lease.task.clone(), objects, last: false, failed: String::new() };
                let gone = |_| Failed(Reason::Other, "the session ended".to_owned());
                out.send(listing).await.map_err(gone)?;
            }
            if !listed.more || after.is_none() {
                return Ok(());
            }
        }
    }
}

fn key_of(lease: &v1::Lease) -> Result<BlockKey, Failed> {
    let block = lease.block.as_ref().filter(|block| block.size > 0);
    let block = block.ok_or_else(|| Failed(Reason::Other, "the lease names no block".to_owned()))?;
    Ok(BlockKey { slice: SliceId(block.slice), index: block.index, size: block.size })
}
