//! One file a verb.

pub mod bench;
pub mod bucket;
pub mod console;
pub mod demo;
pub mod down;
pub mod format;
pub mod heal;
pub mod history;
pub mod lag;
pub mod later;
pub mod mdtest;
pub mod mount;
pub mod node;
pub mod paths;
pub mod replication;
pub mod status;
pub mod umount;
pub mod up;
pub mod worker;
