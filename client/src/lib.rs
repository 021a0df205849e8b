//! A client of a volume: session, caches, data path, and the worker that executes leased copies.
//!
//! - [`Volume`] is the file system by inode, for the FUSE adapter and for path commands ([`paths`]).
//! - `session` speaks with the cluster's leader: one stream, batched frames, exactly once (law 10), and never an old
//!   session's operation in a new one.
//! - `write` and `read` move data: blocks first, metadata after; checksums at every read (law 16).
//! - [`Worker`] copies, deletes and lists for the ledger of each cluster of the volume.
//! - [`FsError`] is the only place in the house that knows errno.

mod backoff;
mod config;
mod counters;
mod error;
pub mod fuse;
mod invalidation;
mod layout;
pub mod paths;
mod read;
mod session;
mod stores;
mod volume;
mod worker;
mod write;

pub use config::{ClientConfig, ClusterEndpoints, Durable, MetadataChoice, RegionBucket};
pub use counters::Counters;
pub use error::{ConnectError, FsError, FsErrorKind};
pub use invalidation::{Invalidation, InvalidationStream};
pub use session::{OpError, Session};
pub use volume::{FileHandle, OpenFlags, READ_MAX, SetAttr, StatFs, Volume};
pub use worker::{Worker, WorkerError, WorkerOptions};
