//! A world on this machine: its directory, its processes, its beginning.
//!
//! | file | what |
//! |---|---|
//! | `dir` | the directory's layout and its lock |
//! | `record` | `world.json`: which world this is |
//! | `secrets` | generated keys of embedded buckets |
//! | `process` | starting, recognising and stopping processes |
//! | `ports` | addresses that something else holds |
//! | `begin` | clusters, identities, volumes, mirrors |

pub mod begin;
pub mod dir;
pub mod ports;
pub mod process;
pub mod record;
pub mod secrets;

pub use dir::WorldDir;
