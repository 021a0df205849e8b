//! Scenarios with real processes. One binary, so that it links once; worlds run one at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod buckets;
mod demo;
mod disks;
mod documents;
mod heal;
mod kills;
mod lag;
mod leases;
mod linear;
mod measure;
mod members;
mod mirror;
mod once;
mod posix;
mod power;
mod restart;
mod rewind;
mod snapshots;
