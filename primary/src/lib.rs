//! A node of a metadata cluster: ingress, consensus, apply (metadata and ledger in one transaction), changelog feed.
//!
//! The same node serves in the primary and in a mirror; `farshore-mirror` adds the tail. Everything but [`grpc`],
//! [`boot`] and [`host::OsHost`] is generic over runtime and store and takes clock, randomness, disk and network as
//! arguments, so that the simulator runs the real code.

pub mod admin;
mod apply;
pub mod boot;
mod dispatch;
mod duties;
mod feed;
pub mod grpc;
mod heal;
pub mod host;
pub mod ingress;
mod lead;
mod listing;
pub mod local;
pub mod members;
mod node;
mod observe;
pub mod plant;
mod proposal;
pub mod raft;
mod reset;
mod snapshot_feed;
mod standing;
pub mod telemetry;
pub mod wholeness;

pub use apply::{ApplyError, Effect, Own, apply};
pub use farshore_meta::MACHINE_VERSION;
pub use lead::ConfirmAsk;
pub use node::{Node, NodeConfig, NodeParts, Pending, ProposeError, StartError};
pub use observe::{MirrorSeen, Observations, SILENT_US, UpstreamSeen, rfc3339};
pub use proposal::{Proposal, ProposalError};
pub use reset::Announced;
pub use snapshot_feed::Rows;
pub use standing::REMOVED;
