//! One request: its bound in time, what its failure means, and whether it is worth another try.

use crate::BucketError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use backon::{ExponentialBuilder, Retryable};
use std::error::Error;
use std::future::Future;
use std::time::Duration;

/// Tries after the first.
const RETRIES_MAX: usize = 3;
/// Waits between tries: 50, 100 and 200 ms, each up to doubled by chance.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
/// The code by which the embedded server says that an object on its disk is not what was written.
const CODE_CORRUPT: &str = "ObjectCorrupt";

/// What a request is about, for messages.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) bucket: &'a str,
    pub(super) object: &'a str,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another try at once may help.
    Again(BucketError),
    /// It would not, or was waited for long enough.
    Final(BucketError),
    /// The condition of a conditional write did not hold.
    Exists(BucketError),
}

/// Runs `request` until it succeeds, fails for good or was tried enough.
pub(super) async fn retried<T, F, Fut>(request: F) -> Result<T, BucketError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    let waits = ExponentialBuilder::default().with_min_delay(RETRY_WAIT_MIN).with_max_times(RETRIES_MAX).with_jitter();
    let answer = request.retry(waits).when(|failure| matches!(failure, Failure::Again(_))).await;
    answer.map_err(|failure| match failure {
        Failure::Again(error) | Failure::Final(error) | Failure::Exists(error) => error,
    })
}

impl Target<'_> {
    /// Waits for the answer to a request, no longer than `limit`.
    pub(super) async fn within<T, E>(
        self,
        limit: Duration,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(|error| self.failure(&error)),
            Err(_) => Err(self.silent(limit)),
        }
    }

    /// Nothing was heard in time; waiting again at once would only double the time.
    pub(super) fn silent(self, limit: Duration) -> Failure {
        Failure::Final(self.unreachable(format!("it did not answer within {} s", limit.as_secs())))
    }

    /// The answer's body ended too early.
    pub(super) fn interrupted(self, error: &(impl Error + 'static)) -> Failure {
        Failure::Again(self.unreachable(format!("the answer was cut off: {}", causes(error))))
    }

    pub(super) fn other(self, detail: impl Into<String>) -> BucketError {
        BucketError::Other { bucket: self.bucket.to_owned(), object: self.object.to_owned(), detail: detail.into() }
    }

    fn unreachable(self, detail: String) -> BucketError {
        BucketError::Unreachable { bucket: self.bucket.to_owned(), object: self.object.to_owned(), detail }
    }

    fn failure<E>(self, error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::TimeoutError(_) => Failure::Final(self.unreachable("it did not answer in time".to_owned())),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                Failure::Final(self.unreachable("no connection was made in time".to_owned()))
            }
            SdkError::DispatchFailure(failure) if failure.is_io() => Failure::Again(self.unreachable(causes(error))),
            // Mostly credentials that cannot be had, or an address that is none: the message says which.
            SdkError::DispatchFailure(_) => Failure::Final(self.unreachable(causes(error))),
            SdkError::ServiceError(context) => {
                let status = context.raw().status().as_u16();
                self.refused(status, error.code().unwrap_or_default(), error.message().unwrap_or_default())
            }
            SdkError::ResponseError(_) => Failure::Again(self.unreachable(causes(error))),
            _ => Failure::Final(self.other(causes(error))),
        }
    }

    /// What an answer with an error's status means.
    fn refused(self, status: u16, code: &str, message: &str) -> Failure {
        let (bucket, object) = (self.bucket.to_owned(), self.object.to_owned());
        let detail = format!("{status} {code} {message}").trim_end().to_owned();
        match (status, code) {
            (_, "NoSuchBucket") => Failure::Final(self.other("the bucket does not exist: create it or correct the URL")),
            (_, CODE_CORRUPT) => Failure::Final(match checksums_of(message) {
                Some((expected, found)) => BucketError::Corrupt { bucket, object, expected, found },
                None => self.other(detail),
            }),
            (404, _) => Failure::Final(BucketError::NotFound { bucket, object }),
            (412, _) => Failure::Exists(BucketError::Other { bucket, object, detail }),
            (401 | 403, _) => Failure::Final(BucketError::Denied { bucket, object, detail }),
            // 409: S3 saw two conditional writes of one key at a time and decided neither.
            (429 | 503 | 409, _) | (_, "SlowDown" | "RequestTimeout") => {
                Failure::Again(BucketError::Throttled { bucket, object })
            }
            (500 | 502 | 504, _) => Failure::Again(BucketError::Unreachable { bucket, object, detail }),
            _ => Failure::Final(BucketError::Other { bucket, object, detail }),
        }
    }
}

/// An error with what is below it, each message once. The SDK's own way of printing adds whole structures.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let message = cause.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        below = cause.source();
    }
    text
}

/// The two checksums in the embedded server's message about a corrupt object.
fn checksums_of(message: &str) -> Option<(u32, u32)> {
    let mut numbers = message.split("0x").skip(1).map(|behind| u32::from_str_radix(behind.get(..8)?, 16).ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target<'static> = Target { bucket: "s3://b", object: "o" };

    #[test]
    fn statuses_mean_what_the_caller_must_do() {
        let transient = |status, code| match TARGET.refused(status, code, "") {
            Failure::Again(error) | Failure::Final(error) => Some(error.is_transient()),
            Failure::Exists(_) => None,
        };
        for (status, code) in
            [(503, "SlowDown"), (429, ""), (500, "InternalError"), (502, ""), (409, "ConditionalRequestConflict")]
        {
            assert_eq!(transient(status, code), Some(true), "{status} {code}");
        }
        for (status, code) in [(403, "AccessDenied"), (404, "NoSuchKey"), (404, "NoSuchBucket"), (400, ""), (507, "Full")] {
            assert_eq!(transient(status, code), Some(false), "{status} {code}");
        }
        assert_eq!(transient(412, "PreconditionFailed"), None);
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let Failure::Final(error) = TARGET.refused(404, "NoSuchBucket", "") else { panic!("it is final") };
        assert!(matches!(error, BucketError::Other { .. }), "{error}");
    }

    #[test]
    fn the_servers_word_about_rot_is_understood() {
        let rot = crate::store::StoreError::Corrupt { key: "o".to_owned(), expected: 0x12, found: 0xfedc_ba98 };
        let Failure::Final(error) = TARGET.refused(500, CODE_CORRUPT, &rot.to_string()) else { panic!("it is final") };
        let (bucket, object) = ("s3://b".to_owned(), "o".to_owned());
        assert_eq!(error, BucketError::Corrupt { bucket, object, expected: 0x12, found: 0xfedc_ba98 });
    }
}
