//! From a URL to a bucket.

use crate::{Bucket, BucketError, BucketUrl, Credentials, LocalBucket, Scheme};
use std::sync::Arc;

/// Opens the bucket that `url` names. No request is made: a bucket whose service is down opens, and its operations say
/// that it is unreachable, so that one region's outage keeps nobody from starting.
///
/// Without credentials the cloud's own chain is used.
pub async fn open(url: &BucketUrl, credentials: Option<Credentials>) -> Result<Arc<dyn Bucket>, BucketError> {
    match url.scheme() {
        Scheme::File => Ok(Arc::new(LocalBucket::open(url).await?)),
        Scheme::S3 => open_s3(url, credentials.unwrap_or_else(Credentials::chain)).await,
        Scheme::Gcs => Err(BucketError::NotAvailableYet { scheme: "gs".to_owned() }),
        Scheme::Azure => Err(BucketError::NotAvailableYet { scheme: "az".to_owned() }),
    }
}

#[cfg(feature = "s3")]
async fn open_s3(url: &BucketUrl, credentials: Credentials) -> Result<Arc<dyn Bucket>, BucketError> {
    Ok(Arc::new(crate::S3Bucket::open(url, credentials).await))
}

#[cfg(not(feature = "s3"))]
async fn open_s3(_url: &BucketUrl, _credentials: Credentials) -> Result<Arc<dyn Bucket>, BucketError> {
    Err(BucketError::NotAvailableYet { scheme: "s3".to_owned() })
}
