//! Views as people read them. Pure: a view in, text out.

mod lag;
mod replication;
mod status;
#[cfg(test)]
mod tests;

pub use lag::lag;
pub use replication::{full_sync, replication};
pub use status::status;
