//! Loads on a file system for `farshore mdtest` and `farshore bench`: the same work on any directory of this machine, whoever
//! has mounted it, and on a volume by its sessions, without FUSE.
//!
//! [`ground`] is what a load does to a file system; [`local`] and [`remote`] are its two implementations. [`crew`] is the
//! threads that work, with one progress bar and one way to be interrupted. [`tree`] and [`files`] are the loads. Everything
//! lies below one directory that must not exist before, and is gone afterwards, also after an interruption or a failure.

pub mod crew;
pub mod files;
mod ground;
mod local;
mod place;
mod remote;
pub mod table;
#[cfg(test)]
mod tests;
pub mod tree;

pub use place::{Place, run};
