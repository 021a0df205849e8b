//! The trait that every bucket has, and what its methods answer.

use crate::BucketError;
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::Range;

/// How a conditional write ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object was not there and now is.
    Created,
    /// The object was there already, with the same length and checksum (law 16).
    Existed,
}

/// What a bucket tells about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The name below the bucket's URL.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// CRC-32C of the content; `None` when the bucket does not tell, as in listings of S3.
    pub crc32c: Option<u32>,
    /// When it was written, in seconds since 1970 by the bucket's clock; `None` when it does not tell.
    pub modified_unix_seconds: Option<u64>,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    pub objects: Vec<ObjectMeta>,
    /// Whether more follow behind the last object.
    pub more: bool,
}

/// A place for objects. Names are relative to the bucket's URL.
///
/// Whatever is answered with success is durable. An error with [`BucketError::is_transient`] says nothing about whether
/// the operation took place; all operations can be repeated.
#[async_trait]
pub trait Bucket: Send + Sync + 'static + Debug {
    /// The whole object, its checksum verified if one is stored with it.
    async fn get(&self, name: &str) -> Result<(Bytes, ObjectMeta), BucketError>;

    /// The bytes of `range`, cut at the object's end. A range without bytes answers none, without asking; a range that
    /// starts at or behind the end is an error. A part of an object cannot be verified.
    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BucketError>;

    /// What is known of the object.
    async fn head(&self, name: &str) -> Result<ObjectMeta, BucketError>;

    /// Stores the object if none has the name. `crc32c` must be the checksum of `data`; it is stored with it.
    async fn put_new(&self, name: &str, data: Bytes, crc32c: u32) -> Result<PutOutcome, BucketError>;

    /// Stores the object whatever was there: for identity objects and tests, never for blocks.
    async fn put_replace(&self, name: &str, data: Bytes) -> Result<(), BucketError>;

    /// Removes the object; an absent one is no error.
    async fn delete(&self, name: &str) -> Result<(), BucketError>;

    /// Objects whose names start with `prefix` and lie behind `after`, in byte order, at most `limit`.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, BucketError>;

    /// The bucket's URL, safe to print (law 31).
    fn url(&self) -> &str;
}

/// Refuses data that is not what its checksum says, before it is stored under that checksum.
pub(crate) fn check_data(bucket: &str, name: &str, data: &[u8], crc32c: u32) -> Result<(), BucketError> {
    let found = crc32c::crc32c(data);
    if found == crc32c {
        return Ok(());
    }
    Err(BucketError::Corrupt { bucket: bucket.to_owned(), object: name.to_owned(), expected: crc32c, found })
}

/// Decides what "exists" means (law 16): success only if length and checksum agree.
pub(crate) fn judge_existing(
    bucket: &str,
    existing: &ObjectMeta,
    existing_crc32c: u32,
    data: &[u8],
    crc32c: u32,
) -> Result<PutOutcome, BucketError> {
    if existing.size == data.len() as u64 && existing_crc32c == crc32c {
        return Ok(PutOutcome::Existed);
    }
    Err(BucketError::Conflict {
        bucket: bucket.to_owned(),
        object: existing.name.clone(),
        existing_size: existing.size,
        existing_crc32c,
        size: data.len() as u64,
        crc32c,
    })
}
