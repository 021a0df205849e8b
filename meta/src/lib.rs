//! The metadata state machine: namespace, slices, sessions, volume control; before-images and rewind.
//!
//! Everything here is values in, effects out: no async, no clock, no randomness (law 4). A caller opens one write
//! transaction of a [`kv::Store`], applies a shared entry with [`apply_shared`], hands the returned [`Changes`] to the
//! ledger in the same transaction, and commits. A [`kv::StorageError`] stops the node, it never becomes a reply (law 5).

mod change;
pub mod kv;

pub use change::{Applied, Changes, Event, SliceAdded, SliceDropped, Touched};
