//! A directory as a bucket: `file:///directory`.
//!
//! The checksum lies in the footer of each object's file (see [`crate::store`]). Several processes may use the directory
//! at once; the embedded server takes it for itself. Work on files happens on tokio's threads for blocking work.

use crate::bucket::{check_data, judge_existing};
use crate::store::{Condition, ListRequest, Listed, ObjectInfo, Published, Sharing, Store, StoreError};
use crate::{Bucket, BucketError, BucketUrl, BucketUrlError, ListPage, ObjectMeta, PutOutcome};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Times a conditional write starts over because the object vanished between the write and the look at it.
const PUT_TRIES_MAX: u32 = 3;

/// A bucket in a directory.
#[derive(Clone, Debug)]
pub struct LocalBucket {
    store: Arc<Store>,
    url: String,
}

impl LocalBucket {
    /// Opens the directory that a `file` URL names; it is made when it is missing.
    pub async fn open(url: &BucketUrl) -> Result<LocalBucket, BucketError> {
        let text = url.to_string();
        let directory = url.directory().ok_or_else(|| BucketUrlError {
            url: text.clone(),
            rule: "it names no directory",
            fix: "write file:///DIRECTORY",
        })?;
        let opened = blocking(&text, "", move || Store::open(&directory, Sharing::Shared)).await?;
        Ok(LocalBucket { store: Arc::new(opened), url: text })
    }

    /// Runs `work` on the store where it may block.
    async fn run<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Store, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, BucketError> {
        let (store, key) = (self.store.clone(), name.to_owned());
        blocking(&self.url, name, move || work(&store, &key)).await
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<Published, BucketError> {
        self.run(name, move |store, key| {
            let mut writer = store.write()?;
            writer.append(&data)?;
            Ok(store.publish(key, writer, None, BTreeMap::new(), now_unix_ms(), condition)?.0)
        })
        .await
    }
}

#[async_trait]
impl Bucket for LocalBucket {
    async fn get(&self, name: &str) -> Result<(Bytes, ObjectMeta), BucketError> {
        self.run(name, |store, key| {
            let reader = store.read(key)?;
            let data = reader.all()?;
            Ok((Bytes::from(data), meta(key, reader.info())))
        })
        .await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.run(name, move |store, key| store.read(key)?.range(range).map(Bytes::from)).await
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, BucketError> {
        self.run(name, |store, key| Ok(meta(key, store.read(key)?.info()))).await
    }

    async fn put_new(&self, name: &str, data: Bytes, crc32c: u32) -> Result<PutOutcome, BucketError> {
        check_data(&self.url, name, &data, crc32c)?;
        for _ in 0..PUT_TRIES_MAX {
            if self.put(name, data.clone(), Condition::Absent).await? == Published::Stored {
                return Ok(PutOutcome::Created);
            }
            match self.head(name).await {
                Ok(found) => {
                    let existing_crc32c = found.crc32c.expect("a local object's footer always has its checksum");
                    return judge_existing(&self.url, &found, existing_crc32c, &data, crc32c);
                }
                Err(BucketError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let detail = format!("it was deleted {PUT_TRIES_MAX} times while it was written");
        Err(BucketError::Other { bucket: self.url.clone(), object: name.to_owned(), detail })
    }

    async fn put_replace(&self, name: &str, data: Bytes) -> Result<(), BucketError> {
        self.put(name, data, Condition::Any).await.map(|_| ())
    }

    async fn delete(&self, name: &str) -> Result<(), BucketError> {
        self.run(name, |store, key| store.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, BucketError> {
        let after = after.map(str::to_owned);
        self.run(prefix, move |store, prefix| {
            let page = store.list(&ListRequest { prefix, after: after.as_deref(), fold: false, limit })?;
            let objects = page.entries.into_iter().filter_map(|entry| match entry {
                Listed::Object { key, info: Ok(info) } => Some(meta(&key, &info)),
                Listed::Object { key, info: Err(size) } => {
                    Some(ObjectMeta { name: key, size, crc32c: None, modified_unix_seconds: None })
                }
                Listed::Folded { .. } => None,
            });
            Ok(ListPage { objects: objects.collect(), more: page.more })
        })
        .await
    }

    fn url(&self) -> &str {
        &self.url
    }
}

/// Runs blocking work and names bucket and object in its error.
async fn blocking<T: Send + 'static>(
    bucket: &str,
    name: &str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, BucketError> {
    let other = |detail| BucketError::Other { bucket: bucket.to_owned(), object: name.to_owned(), detail };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| translate(bucket, name, error)),
        Err(stopped) => Err(other(format!("the work was stopped: {stopped}"))),
    }
}

fn translate(bucket: &str, name: &str, error: StoreError) -> BucketError {
    let (bucket, object) = (bucket.to_owned(), name.to_owned());
    match error {
        StoreError::NotFound { .. } => BucketError::NotFound { bucket, object },
        StoreError::Corrupt { expected, found, .. } => BucketError::Corrupt { bucket, object, expected, found },
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            BucketError::Denied { bucket, object, detail: source.to_string() }
        }
        other => BucketError::Other { bucket, object, detail: other.to_string() },
    }
}

fn meta(name: &str, info: &ObjectInfo) -> ObjectMeta {
    ObjectMeta {
        name: name.to_owned(),
        size: info.size,
        crc32c: Some(info.crc32c),
        modified_unix_seconds: Some(info.modified_unix_ms / 1000),
    }
}

/// The wall clock, which stamps objects and decides nothing (law 6).
fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
