//! Buckets behind one trait and one conformance suite.
//!
//! Owns how objects are named, stored and verified in S3 and in a local directory. Only those that move data use this
//! crate: clients, and the command line. Metadata never does.
//!
//! - [`Bucket`] is the trait; [`open`] makes one of a [`BucketUrl`] and [`Credentials`], without touching the network.
//! - One module a cloud: `s3`; `local` and `memory` beside it. All pass `conformance`.
//! - [`store`] is the directory of objects below `local` and the embedded S3 server.
//!
//! Law 16 is kept here: every object carries the CRC-32C of its content, every read of a whole object verifies it, and a
//! conditional write that finds the object there succeeds only if length and checksum agree.

mod bucket;
#[cfg(feature = "conformance")]
pub mod conformance;
mod credentials;
mod error;
mod local;
mod memory;
mod open;
pub mod percent;
#[cfg(feature = "s3")]
mod s3;
pub mod store;
mod url;

pub use bucket::{Bucket, ListPage, ObjectMeta, PutOutcome};
pub use credentials::{Credentials, CredentialsError};
pub use error::BucketError;
pub use local::LocalBucket;
pub use memory::MemoryBucket;
pub use open::open;
#[cfg(feature = "s3")]
pub use s3::S3Bucket;
pub use url::{BucketUrl, BucketUrlError, Scheme};
