//! One file a verb.

pub mod bucket;
pub mod console;
pub mod down;
pub mod format;
pub mod heal;
pub mod lag;
pub mod later;
pub mod node;
pub mod replication;
pub mod status;
pub mod up;
