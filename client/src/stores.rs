//! The volume's buckets as a client uses them: which comes first, what their names are, which are down.
//!
//! A bucket that could not be reached is left alone for [`BREAKER_OPEN`], so that not every read waits for it; after that
//! one request is let through to look. Law 12: a bucket is believed only by its identity object.

use crate::config::{ClientConfig, RegionBucket};
use crate::counters::Counters;
use crate::error::ConnectError;
use crate::layout::BlockRef;
use bytes::Bytes;
use farshore_objects::{Bucket, BucketError, BucketUrl, Credentials};
use farshore_types::{BlockKey, BucketId, BucketIdentity, Incarnation, VolumeRecord};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a bucket that could not be reached is left alone.
const BREAKER_OPEN: Duration = Duration::from_secs(5);

/// The object's name of a block inside its bucket.
pub(crate) fn object_name(volume: &str, key: &BlockKey) -> String {
    format!("{volume}/{}", key.object_name())
}

/// Remembers that a bucket is down.
#[derive(Debug, Default)]
struct Breaker(Mutex<Option<Instant>>);

impl Breaker {
    /// Whether a request may be sent. When the time is over, the one that asks first looks for all.
    fn allows(&self) -> bool {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *until {
            None => true,
            Some(instant) if Instant::now() < instant => false,
            Some(_) => {
                *until = Some(Instant::now() + BREAKER_OPEN);
                true
            }
        }
    }

    fn saw<T>(&self, result: &Result<T, BucketError>) {
        let down = matches!(result, Err(BucketError::Unreachable { .. }));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = down.then(|| Instant::now() + BREAKER_OPEN);
    }
}

/// One region's bucket.
#[derive(Debug)]
pub(crate) struct Site {
    pub region: String,
    pub bucket: Arc<dyn Bucket>,
    volume: String,
    breaker: Breaker,
    counters: Arc<Counters>,
}

/// Why a site gave no block.
#[derive(Clone, Debug)]
pub(crate) enum SiteError {
    Absent,
    /// Not asked: it was unreachable shortly before.
    Skipped,
    /// The bytes are not those that metadata names (law 16).
    Damaged(String),
    Failed(String),
}

impl Site {
    pub fn new(region: &str, bucket: Arc<dyn Bucket>, volume: &str, counters: Arc<Counters>) -> Site {
        Site { region: region.to_owned(), bucket, volume: volume.to_owned(), breaker: Breaker::default(), counters }
    }

    /// The block's bytes, verified against metadata (law 16).
    pub async fn get(&self, block: &BlockRef) -> Result<Bytes, SiteError> {
        if !self.breaker.allows() {
            self.counters.breaker_skip();
            return Err(SiteError::Skipped);
        }
        let name = object_name(&self.volume, &block.key);
        self.counters.bucket_get();
        let started = Instant::now();
        let result = self.bucket.get(&name).await;
        self.breaker.saw(&result);
        self.counted("get", started, &result);
        match result {
            Ok((data, _)) if is_block(&data, block) => Ok(data),
            Ok((data, _)) => Err(SiteError::Damaged(format!("{} bytes of crc32c {:#010x}", data.len(), crc32c::crc32c(&data)))),
            Err(BucketError::NotFound { .. }) => Err(SiteError::Absent),
            Err(error @ BucketError::Corrupt { .. }) => Err(SiteError::Damaged(error.to_string())),
            Err(error) => Err(SiteError::Failed(error.to_string())),
        }
    }

    /// Stores a block if it is not there; a block that is there must be the same (law 16).
    pub async fn put(&self, key: &BlockKey, data: Bytes, crc32c: u32) -> Result<(), BucketError> {
        self.counters.bucket_put();
        let started = Instant::now();
        let result = self.bucket.put_new(&object_name(&self.volume, key), data, crc32c).await;
        self.breaker.saw(&result);
        self.counted("put", started, &result);
        result.map(drop)
    }

    fn counted<T>(&self, operation: &'static str, started: Instant, result: &Result<T, BucketError>) {
        let outcome = match result {
            Ok(_) => "ok",
            Err(BucketError::NotFound { .. }) => "absent",
            Err(BucketError::Throttled { .. }) => "throttled",
            Err(BucketError::Unreachable { .. }) => "unreachable",
            Err(_) => "error",
        };
        let bucket = self.region.clone();
        metrics::histogram!("farshore_bucket_request_duration_seconds", "bucket" => bucket.clone(), "operation" => operation)
            .record(started.elapsed());
        metrics::counter!("farshore_bucket_requests_total", "bucket" => bucket, "operation" => operation, "outcome" => outcome)
            .increment(1);
    }
}

/// Whether bytes are the block that metadata names.
pub(crate) fn is_block(data: &[u8], block: &BlockRef) -> bool {
    data.len() == block.key.size as usize && crc32c::crc32c(data) == block.crc32c
}

/// All buckets, the one that is written and read first at the front.
#[derive(Debug)]
pub(crate) struct Stores {
    sites: Vec<Site>,
}

impl Stores {
    pub fn new(sites: Vec<Site>) -> Stores {
        assert!(!sites.is_empty(), "a client has a first bucket");
        Stores { sites }
    }

    /// Opens every bucket; none is asked anything yet.
    pub async fn open(config: &ClientConfig, counters: &Arc<Counters>) -> Result<Stores, ConnectError> {
        let own = config.buckets.iter().find(|bucket| bucket.region == config.region);
        let (first_url, first_credentials) = match (&config.first_bucket, own) {
            (Some((url, credentials)), _) => (url.clone(), credentials.clone()),
            (None, Some(own)) => (own.url.clone(), own.credentials.clone()),
            (None, None) => {
                let known: Vec<&str> = config.buckets.iter().map(|bucket| bucket.region.as_str()).collect();
                return Err(ConnectError::NoBucket { region: config.region.clone(), known: known.join(", ") });
            }
        };
        let first_bucket = open_bucket(&first_url, first_credentials).await?;
        // The same bucket under its region's name: that is the name in messages and metrics.
        let same = config.buckets.iter().find(|bucket| bucket.url.to_string() == first_url.to_string());
        let region = same.map_or(config.region.as_str(), |bucket| bucket.region.as_str());
        let mut sites = vec![Site::new(region, first_bucket, &config.volume, counters.clone())];
        for RegionBucket { region, url, credentials } in &config.buckets {
            if url.to_string() == first_url.to_string() {
                continue;
            }
            let bucket = open_bucket(url, credentials.clone()).await?;
            sites.push(Site::new(region, bucket, &config.volume, counters.clone()));
        }
        Ok(Stores::new(sites))
    }

    pub fn first(&self) -> &Site {
        &self.sites[0]
    }

    /// In the order in which a reader tries them.
    pub fn in_order(&self) -> &[Site] {
        &self.sites
    }

    /// The site of a region by its name.
    pub fn of_region(&self, region: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.region == region)
    }

    /// Which bucket of the volume the first one is, by its identity (law 12).
    pub async fn first_identity(&self, record: &VolumeRecord) -> Result<BucketId, ConnectError> {
        let site = self.first();
        let identity = read_identity(site.bucket.as_ref(), &record.name).await?;
        check_identity(site.bucket.url(), &identity, record)
    }
}

pub(crate) async fn open_bucket(url: &BucketUrl, credentials: Option<Credentials>) -> Result<Arc<dyn Bucket>, ConnectError> {
    let open = farshore_objects::open(url, credentials).await;
    open.map_err(|source| ConnectError::Bucket { url: url.to_string(), source })
}

/// The identity object of a bucket.
pub(crate) async fn read_identity(bucket: &dyn Bucket, volume: &str) -> Result<BucketIdentity, ConnectError> {
    let name = format!("{volume}/{}", BucketIdentity::OBJECT);
    let no_identity =
        |detail: String| ConnectError::NoIdentity { url: bucket.url().to_owned(), volume: volume.to_owned(), detail };
    match bucket.get(&name).await {
        Ok((data, _)) => serde_json::from_slice(&data).map_err(|error| no_identity(format!("`{name}` is damaged: {error}"))),
        Err(BucketError::NotFound { .. }) => Err(no_identity(format!("there is no object `{name}`"))),
        Err(source) => Err(ConnectError::Bucket { url: bucket.url().to_owned(), source }),
    }
}

/// Law 12: the bucket must be this volume's, and the present one of its region.
pub(crate) fn check_identity(url: &str, identity: &BucketIdentity, record: &VolumeRecord) -> Result<BucketId, ConnectError> {
    if identity.volume != record.uuid {
        return Err(ConnectError::WrongVolume {
            url: url.to_owned(),
            theirs: identity.volume.to_string(),
            ours: record.uuid.to_string(),
        });
    }
    let wrong = |detail: String| ConnectError::WrongIncarnation { url: url.to_owned(), region: identity.region.clone(), detail };
    let region = record.region(&identity.region).ok_or_else(|| wrong("the volume has no such region".to_owned()))?;
    if region.incarnation != Incarnation(identity.incarnation) || region.bucket != identity.bucket {
        let detail = format!(
            "its identity says incarnation {} ({}), metadata says {} ({})",
            identity.incarnation, identity.bucket, region.incarnation, region.bucket
        );
        return Err(wrong(detail));
    }
    Ok(BucketId { region: region.id, incarnation: region.incarnation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::{Compression, GroupId, RegionId, RegionRecord, Uuid};

    fn record() -> VolumeRecord {
        let region = RegionRecord {
            id: RegionId(0),
            name: "us-east".into(),
            cluster: None,
            incarnation: Incarnation(2),
            bucket: Uuid([7; 16]),
        };
        VolumeRecord {
            name: "demo".into(),
            uuid: Uuid([1; 16]),
            group: GroupId(9),
            block_size: 64 << 10,
            compression: Compression::None,
            encrypted: false,
            trash_days: 0,
            regions: vec![region],
        }
    }

    #[test]
    fn law_12_a_bucket_is_believed_by_its_identity_only() {
        let good = BucketIdentity { volume: Uuid([1; 16]), region: "us-east".into(), incarnation: 2, bucket: Uuid([7; 16]) };
        let bucket = check_identity("x", &good, &record()).unwrap();
        assert_eq!(bucket, BucketId { region: RegionId(0), incarnation: Incarnation(2) });
        let stranger = BucketIdentity { volume: Uuid([2; 16]), ..good.clone() };
        assert!(matches!(check_identity("x", &stranger, &record()), Err(ConnectError::WrongVolume { .. })));
        let replaced = BucketIdentity { incarnation: 1, ..good.clone() };
        assert!(matches!(check_identity("x", &replaced, &record()), Err(ConnectError::WrongIncarnation { .. })));
        let elsewhere = BucketIdentity { region: "mars".into(), ..good };
        assert!(matches!(check_identity("x", &elsewhere, &record()), Err(ConnectError::WrongIncarnation { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn law_27_a_dead_bucket_is_left_alone_and_looked_at_by_one() {
        let breaker = Breaker::default();
        assert!(breaker.allows());
        let dead = BucketError::Unreachable { bucket: "b".into(), object: "o".into(), detail: "d".into() };
        breaker.saw::<()>(&Err(dead));
        assert!(!breaker.allows());
        tokio::time::advance(BREAKER_OPEN).await;
        assert!(breaker.allows(), "one looks");
        assert!(!breaker.allows(), "the others wait for its word");
        breaker.saw(&Ok(()));
        assert!(breaker.allows());
    }
}
