//! The full sync: a bucket's listing against metadata (laws 15, 17, 18).
//!
//! [`state`] is what the cluster remembers of runs. It deletes nothing.

pub mod state;
