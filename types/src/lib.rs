//! The vocabulary of Farshore: ids and units as newtypes, operations, replies, error kinds, and the topology.
//!
//! This crate owns no behaviour beyond parsing and formatting. It depends on `std` and `serde` only, so that every
//! room of the house can use it. All figures that leave a cluster are [`LogIndex`] (law 1).

mod attr;
mod block;
mod entry;
mod epoch;
mod error;
mod ids;
mod op;
pub mod topology;
mod volume;

pub use attr::{Attr, NodeKind, SET_GID, Timestamp};
pub use block::{BlockKey, BlockKeyError, CHUNK_SIZE, MAX_BLOCK_SIZE, MIN_BLOCK_SIZE, ParseRegion, Slice, SliceView, blocks_of};
pub use entry::{Control, LEASES_VERSION, LocalTime, SessionInfo, SessionRequest, SharedBody, SharedEntry};
pub use epoch::{Chain, Epoch, EpochId, Lineage};
pub use error::ErrorKind;
pub use ids::*;
pub use op::{DirEntry, MAX_NAME, MAX_SYMLINK, NewNode, NewSlice, Op, Outcome, Query, QueryReply, RenameMode, Reply, TimeChange};
pub use volume::{BucketIdentity, Compression, RegionRecord, VolumeRecord};
