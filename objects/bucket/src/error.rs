//! Why a server does not start, and how failures of the store are told to S3 clients.

use farshore_objects::store::StoreError;
use s3s::{S3Error, S3ErrorCode, s3_error};
use std::io;
use std::net::SocketAddr;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source}; stop what uses it or choose another address")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("`{0}` cannot name a bucket: use 3 to 63 lower-case letters, digits and dashes")]
    BucketName(String),
    #[error("a bucket's server needs a key pair of its own: give an access key and a secret key")]
    NoKeys,
    #[error(transparent)]
    Directory(#[from] StoreError),
    #[error("the work of opening the directory was stopped")]
    Stopped,
}

/// The code of an object whose bytes on disk are not what was written. The message carries both checksums.
const CODE_CORRUPT: &str = "ObjectCorrupt";
const CODE_FULL: &str = "InsufficientStorage";

/// Tells an S3 client what happened.
pub(crate) fn told(error: StoreError) -> S3Error {
    let message = error.to_string();
    match error {
        StoreError::NotFound { .. } => s3_error!(NoSuchKey, "{message}"),
        StoreError::BadKey { .. } => s3_error!(KeyTooLongError, "{message}"),
        StoreError::Headers { .. } => s3_error!(MetadataTooLarge, "{message}"),
        StoreError::BeyondEnd { .. } => s3_error!(InvalidRange, "{message}"),
        // No 5xx: nothing gets better by asking again.
        StoreError::Corrupt { .. } | StoreError::Damaged { .. } => custom(CODE_CORRUPT, 422, message),
        StoreError::Full { .. } => custom(CODE_FULL, 507, message),
        StoreError::WritesRefused { .. } | StoreError::Foreign { .. } | StoreError::InUse { .. } | StoreError::Io { .. } => {
            tracing::error!(%message, "an S3 request failed");
            s3_error!(InternalError, "{message}")
        }
    }
}

fn custom(code: &'static str, status: u16, message: String) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status.try_into().expect("both statuses are valid"));
    error
}

/// Runs work on files where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, S3Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(told),
        Err(_) => Err(s3_error!(InternalError, "the work was stopped")),
    }
}
