//! A mirror: tails a primary's changelog and feeds it to its own cluster's Raft, where apply judges every entry; and
//! the composition of a whole node, which serves in either role by what its state says.

pub mod node;
mod snapshot;
mod tail;
mod upstream;

pub use tail::{TailConfig, spawn};
pub use upstream::{GrpcUpstream, Upstream, UpstreamError, UpstreamFuture};
