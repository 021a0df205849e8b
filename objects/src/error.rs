//! Errors of buckets. Each names the bucket and the object, and says what the caller should do by its kind.

/// A failed operation on a bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    #[error("{bucket}: there is no object `{object}`")]
    NotFound { bucket: String, object: String },
    #[error(
        "{bucket}: `{object}` exists with other content: {existing_size} bytes of crc32c {existing_crc32c:#010x}, \
         to be written were {size} bytes of {crc32c:#010x}"
    )]
    Conflict { bucket: String, object: String, existing_size: u64, existing_crc32c: u32, size: u64, crc32c: u32 },
    #[error("{bucket}: no answer about `{object}`: {detail}")]
    Unreachable { bucket: String, object: String, detail: String },
    #[error("{bucket}: access to `{object}` was denied: {detail}; check the credentials and the bucket's policy")]
    Denied { bucket: String, object: String, detail: String },
    #[error("{bucket}: asks to slow down, about `{object}`")]
    Throttled { bucket: String, object: String },
    #[error("{bucket}: `{object}` is corrupt: its crc32c should be {expected:#010x}, its bytes have {found:#010x}")]
    Corrupt { bucket: String, object: String, expected: u32, found: u32 },
    #[error("buckets of scheme `{scheme}` are not available yet; use s3, s3+http, s3+https or file")]
    NotAvailableYet { scheme: String },
    #[error(transparent)]
    BadUrl(#[from] crate::BucketUrlError),
    #[error("{bucket}: `{object}`: {detail}")]
    Other { bucket: String, object: String, detail: String },
}

impl BucketError {
    /// Whether the same request may succeed later, unchanged. It may also have taken place.
    pub fn is_transient(&self) -> bool {
        matches!(self, BucketError::Unreachable { .. } | BucketError::Throttled { .. })
    }
}
