//! Consensus: openraft over our own log, state and network. Nothing outside this room knows openraft's entry types.

mod appends;
mod applier;
pub mod log;
mod log_disk;
mod log_memory;
mod log_store;
mod machine;
mod member;
mod network;
pub mod snapshot;
pub mod types;

pub use appends::UNDER_WAY as APPENDS_UNDER_WAY;
pub use applier::Committed;
pub use log_disk::{DiskLog, DiskLogError, Found};
pub use log_memory::MemoryLog;
pub use log_store::{LogStore, stored};
pub use machine::{Machine, MachineLog, Observer};
pub use member::Member;
pub use network::{Answers, AppendStreams, Bodies, Network, PeerCall, PeerError, PeerFuture, PeerStream, PeerTransport};
