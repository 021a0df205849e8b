//! The whole world in one process, from a seed: the real nodes of a primary and a mirror cluster (consensus, apply, ledger,
//! changelog feed, tail) over a virtual clock, with simulated disks, network, buckets, writers, callers and workers.
//!
//! Callers record their history, which must be linearizable (`chaos/history`).
//!
//! [`run`] runs the world of a seed: first under faults, with every property of [`invariants`] checked after each step, then
//! healed, until it has settled. The same seed is the same world, to the byte of its trace. With the cargo feature `plant`
//! one hazard at a time can be planted, so that the tests show that it would be found.

mod board;
mod bucket;
mod caller;
mod common;
mod dice;
mod disk;
mod faults;
mod host;
pub mod invariants;
mod judge;
mod model;
mod net;
mod nodes;
mod panics;
pub mod plant;
mod rewind;
mod scenario;
mod sight;
mod store;
mod talk;
mod trace;
mod upstream;
mod work;
mod worker;
mod world;
mod writer;

pub use scenario::Scenario;
pub use world::{Broken, Told, run, run_recorded};
