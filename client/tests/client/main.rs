//! The client against a cluster of one node with the real state machine, and buckets in local directories.
#![allow(clippy::unwrap_used)]

mod faults;
mod files;
mod held;
mod server;
mod steps;
mod worker;
mod world;
