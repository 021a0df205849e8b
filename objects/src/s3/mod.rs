//! S3 and what speaks its protocol, by Amazon's own SDK.
//!
//! The checksum lies in the object's metadata `farshore-crc32c`, and goes as `x-amz-checksum-crc32c` too, so that the
//! service checks what it receives. Payloads are not signed by their hash: that header is, which binds them at a
//! fraction of the cost.
//!
//! Every request has a bound in time, and the SDK's own retries are off: [`attempt`] retries what is worth it, at once
//! and a few times, by `backon`. A refused connection is reported within a second, a silent endpoint within some
//! seconds, and whoever called decides what to do then.

mod attempt;
mod client;

use crate::bucket::{check_data, judge_existing};
use crate::{Bucket, BucketError, BucketUrl, Credentials, ListPage, ObjectMeta, PutOutcome, percent};
use async_trait::async_trait;
use attempt::{Failure, Target};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::EncodingType;
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

/// The checksum's name in an object's metadata.
const CRC_NAME: &str = "farshore-crc32c";
/// Most keys that S3 lists in one answer.
const LIST_KEYS_MAX: usize = 1000;
/// Until the answer to a request without a body begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Until one page of a listing is answered, which costs a service more than the rest.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the last byte of an answer; and the most that an upload may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);
/// The slowest upload that is waited for beyond [`ANSWER_TIMEOUT`], up to [`TRANSFER_TIMEOUT`].
const UPLOAD_BYTES_PER_SECOND_MIN: u64 = 256 << 10;
/// Times a conditional write starts over because the object vanished between the write and the look at it.
const PUT_TRIES_MAX: u32 = 3;

/// A bucket of a service that speaks S3.
#[derive(Clone)]
pub struct S3Bucket {
    client: Client,
    bucket: String,
    prefix: String,
    url: String,
}

impl std::fmt::Debug for S3Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3Bucket({})", self.url)
    }
}

impl S3Bucket {
    /// Prepares the bucket; sends nothing to it. With [`Credentials::chain`] the SDK's chain is asked at the first request.
    pub async fn open(url: &BucketUrl, credentials: Credentials) -> S3Bucket {
        S3Bucket {
            client: client::build(url, credentials).await,
            bucket: url.bucket().to_owned(),
            prefix: url.prefix().to_owned(),
            url: url.to_string(),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn target<'a>(&'a self, name: &'a str) -> Target<'a> {
        Target { bucket: &self.url, object: name }
    }

    /// A GET of the whole object or of an inclusive range as HTTP writes it.
    async fn fetch(&self, name: &str, range: Option<String>) -> Result<(Bytes, ObjectMeta), BucketError> {
        let target = self.target(name);
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(name)).set_range(range);
        attempt::retried(|| async {
            let request = request.clone().send();
            let answer = target.within(ANSWER_TIMEOUT, request).await?;
            let size = answer.content_length();
            let found = meta(name, size, answer.metadata(), answer.last_modified());
            let body = tokio::time::timeout(TRANSFER_TIMEOUT, answer.body.collect()).await;
            let data =
                body.map_err(|_| target.silent(TRANSFER_TIMEOUT))?.map_err(|error| target.interrupted(&error))?.into_bytes();
            Ok((data, found))
        })
        .await
    }

    /// A PUT; `Ok(false)` when it was conditional and the object exists.
    async fn put(&self, name: &str, data: Bytes, crc32c: u32, only_new: bool) -> Result<bool, BucketError> {
        let target = self.target(name);
        let upload_seconds = data.len() as u64 / UPLOAD_BYTES_PER_SECOND_MIN;
        let limit = TRANSFER_TIMEOUT.min(ANSWER_TIMEOUT + Duration::from_secs(upload_seconds));
        let put = attempt::retried(|| async {
            let request = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(self.key(name))
                .set_if_none_match(only_new.then(|| "*".to_owned()))
                .checksum_crc32_c(base64_of_crc(crc32c))
                .metadata(CRC_NAME, format!("{crc32c:08x}"))
                .body(ByteStream::from(data.clone()));
            match target.within(limit, request.customize().disable_payload_signing().send()).await {
                Err(Failure::Exists(_)) if only_new => Ok(false),
                other => other.map(|_| true),
            }
        });
        put.await
    }

    /// The checksum of an object that was found there: stored with it, or taken of its content.
    async fn existing(&self, name: &str) -> Result<(ObjectMeta, u32), BucketError> {
        let found = self.head(name).await?;
        if let Some(crc32c) = found.crc32c {
            return Ok((found, crc32c));
        }
        let (data, found) = self.fetch(name, None).await?;
        Ok((found, crc32c::crc32c(&data)))
    }

    /// One answer to a listing, at most [`LIST_KEYS_MAX`] keys behind `after`.
    async fn list_once(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, BucketError> {
        let target = self.target(prefix);
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.key(prefix))
            .set_start_after(after.map(|after| self.key(after)))
            .max_keys(limit.min(LIST_KEYS_MAX) as i32)
            .encoding_type(EncodingType::Url);
        let answer = attempt::retried(|| target.within(LIST_TIMEOUT, request.clone().send())).await?;
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let mut objects = Vec::with_capacity(answer.contents().len());
        for object in answer.contents() {
            let key = object.key().unwrap_or_default();
            let key = if encoded { percent::decode_listed(key) } else { Some(key.to_owned()) };
            let Some(name) = key.as_deref().and_then(|key| key.strip_prefix(&self.prefix)) else {
                return Err(target.other("the service lists a key that was not asked for or cannot be read"));
            };
            objects.push(meta(name, object.size(), None, object.last_modified()));
        }
        Ok(ListPage { objects, more: answer.is_truncated().unwrap_or(false) })
    }
}

#[async_trait]
impl Bucket for S3Bucket {
    async fn get(&self, name: &str) -> Result<(Bytes, ObjectMeta), BucketError> {
        let (data, meta) = self.fetch(name, None).await?;
        if let Some(crc32c) = meta.crc32c {
            check_data(&self.url, name, &data, crc32c)?;
        }
        Ok((data, meta))
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let inclusive = format!("bytes={}-{}", range.start, range.end - 1);
        let (data, _) = self.fetch(name, Some(inclusive)).await?;
        if data.len() as u64 > range.end - range.start {
            return Err(self.target(name).other("the service answered more than the range asked for"));
        }
        Ok(data)
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, BucketError> {
        let target = self.target(name);
        let request = self.client.head_object().bucket(&self.bucket).key(self.key(name));
        let answer = attempt::retried(|| target.within(ANSWER_TIMEOUT, request.clone().send())).await?;
        Ok(meta(name, answer.content_length(), answer.metadata(), answer.last_modified()))
    }

    async fn put_new(&self, name: &str, data: Bytes, crc32c: u32) -> Result<PutOutcome, BucketError> {
        check_data(&self.url, name, &data, crc32c)?;
        for _ in 0..PUT_TRIES_MAX {
            if self.put(name, data.clone(), crc32c, true).await? {
                return Ok(PutOutcome::Created);
            }
            match self.existing(name).await {
                Ok((found, existing_crc32c)) => {
                    return judge_existing(&self.url, &found, existing_crc32c, &data, crc32c);
                }
                Err(BucketError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.target(name).other("it was deleted each time while it was written"))
    }

    async fn put_replace(&self, name: &str, data: Bytes) -> Result<(), BucketError> {
        let crc32c = crc32c::crc32c(&data);
        self.put(name, data, crc32c, false).await.map(|_| ())
    }

    async fn delete(&self, name: &str) -> Result<(), BucketError> {
        let target = self.target(name);
        let request = self.client.delete_object().bucket(&self.bucket).key(self.key(name));
        let deleted = attempt::retried(|| target.within(ANSWER_TIMEOUT, request.clone().send())).await;
        match deleted {
            Ok(_) | Err(BucketError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, BucketError> {
        let mut page = ListPage { objects: Vec::new(), more: limit > 0 };
        while page.more && page.objects.len() < limit {
            let last = page.objects.last().map(|object| object.name.clone());
            let next = self.list_once(prefix, last.as_deref().or(after), limit - page.objects.len()).await?;
            // An answer that promises more and brings nothing would keep this going for ever.
            page.more = next.more && !next.objects.is_empty();
            page.objects.extend(next.objects);
        }
        Ok(page)
    }

    fn url(&self) -> &str {
        &self.url
    }
}

fn meta(name: &str, size: Option<i64>, metadata: Option<&HashMap<String, String>>, modified: Option<&DateTime>) -> ObjectMeta {
    let crc32c = metadata.and_then(|map| map.get(CRC_NAME)).and_then(|text| u32::from_str_radix(text, 16).ok());
    ObjectMeta {
        name: name.to_owned(),
        size: size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        crc32c,
        modified_unix_seconds: modified.and_then(|time| u64::try_from(time.secs()).ok()),
    }
}

/// A CRC as the header `x-amz-checksum-crc32c` wants it: its four bytes, big-endian, in base64.
fn base64_of_crc(crc32c: u32) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // 32 bits in six digits of 6 bits, the last filled up with zeros, and two marks for the missing bytes.
    let bits = u64::from(crc32c) << 4;
    let digits = (0..6).rev().map(|digit| char::from(ALPHABET[(bits >> (digit * 6) & 63) as usize]));
    digits.chain("==".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_spelled_as_s3_does() {
        // Of "123456789" (the usual check value) and of nothing.
        assert_eq!(base64_of_crc(0xe306_9283), "4waSgw==");
        assert_eq!(base64_of_crc(0), "AAAAAA==");
    }
}
