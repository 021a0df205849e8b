//! One directory used by several at once.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::Bytes;
use farshore_objects::store::{Condition, Published, Sharing, Store, StoreError};
use farshore_objects::{Bucket, BucketError, BucketUrl, PutOutcome, open};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::task::JoinSet;

async fn bucket(directory: &Path) -> Result<Arc<dyn Bucket>, BucketError> {
    open(&BucketUrl::parse(&format!("file://{}", directory.display())).unwrap(), None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_buckets_of_one_directory_agree_on_who_creates() {
    let directory = TempDir::new().unwrap();
    let both = [bucket(directory.path()).await.unwrap(), bucket(directory.path()).await.unwrap()];
    for round in 0..20 {
        let mut racers = JoinSet::new();
        for racer in 0..8_u8 {
            let (bucket, name) = (both[usize::from(racer) % 2].clone(), format!("d/{round}/x"));
            racers.spawn(async move {
                let data = Bytes::from(vec![racer; 1000]);
                let crc32c = crc32c::crc32c(&data);
                bucket.put_new(&name, data, crc32c).await
            });
        }
        let ends = racers.join_all().await;
        assert_eq!(ends.iter().filter(|end| **end == Ok(PutOutcome::Created)).count(), 1, "{ends:?}");
        assert!(ends.iter().flat_map(|end| end.as_ref().err()).all(|error| matches!(error, BucketError::Conflict { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_goes_on_while_directories_are_removed_as_empty() {
    let directory = TempDir::new().unwrap();
    let both = [bucket(directory.path()).await.unwrap(), bucket(directory.path()).await.unwrap()];
    let mut workers = JoinSet::new();
    for worker in 0..8_usize {
        let bucket = both[worker % 2].clone();
        workers.spawn(async move {
            for round in 0..50 {
                let name = format!("same/deep/{worker}-{round}");
                bucket.put_replace(&name, Bytes::from(name.clone())).await.unwrap();
                assert_eq!(bucket.get(&name).await.unwrap().0, name.as_bytes());
                bucket.delete(&name).await.unwrap();
            }
        });
    }
    workers.join_all().await;
    assert!(both[0].list("", None, 10).await.unwrap().objects.is_empty());
    assert!(!directory.path().join("same").exists(), "empty directories are removed");
}

#[test]
fn opening_removes_what_the_dead_left_and_nothing_of_the_living() {
    let directory = TempDir::new().unwrap();
    let living = Store::open(directory.path(), Sharing::Shared).unwrap();
    let mut writer = living.write().unwrap();
    writer.append(b"data").unwrap();
    std::fs::write(directory.path().join(".tmp/1-0"), "half an obj").unwrap();
    let other = Store::open(directory.path(), Sharing::Shared).unwrap();
    assert!(!directory.path().join(".tmp/1-0").exists(), "nobody writes this one");
    let end = living.publish("k", writer, None, BTreeMap::new(), 1, Condition::Absent).unwrap();
    assert_eq!(end.0, Published::Stored);
    assert_eq!(other.read("k").unwrap().all().unwrap(), b"data");
}

#[test]
fn a_server_shares_with_nobody() {
    let directory = TempDir::new().unwrap();
    for (first, second) in [(Sharing::Alone, Sharing::Shared), (Sharing::Shared, Sharing::Alone)] {
        let _held = Store::open(directory.path(), first).unwrap();
        assert!(matches!(Store::open(directory.path(), second), Err(StoreError::InUse { .. })));
    }
}
