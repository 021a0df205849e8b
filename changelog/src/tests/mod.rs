//! Tests of the log on a disk that loses, tears, fails and fills up.

mod crash;
mod damage;
mod disk;
mod files;
mod golden;
mod group;
mod small;

use crate::{Entry, LogFiles, Options, Recovered};
use disk::MemDisk;
use farshore_types::{GroupId, RaftIndex};
use std::path::Path;
use std::sync::Arc;

const GROUP: GroupId = GroupId(0x1122_3344_5566_7788);

fn dir() -> &'static Path {
    Path::new("/node/log")
}

fn options(segment_bytes: u64) -> Options {
    Options { group: GROUP, segment_bytes, cache_bytes: 1 << 20 }
}

/// An entry whose payload is of this length and follows from index and version, without zeros.
fn entry(index: u64, version: u8, length: usize) -> Entry {
    let bytes: Vec<u8> = (0..length).map(|at| ((index as usize * 31 + at * 7 + version as usize * 13) % 255 + 1) as u8).collect();
    (RaftIndex(index), Arc::from(bytes))
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(index, 0, 100)).collect()
}

fn open(disk: &MemDisk, segment_bytes: u64) -> (LogFiles, Recovered) {
    LogFiles::open(dir(), options(segment_bytes), Arc::new(disk.clone())).unwrap()
}

fn everything(files: &LogFiles) -> Vec<Entry> {
    files.read(RaftIndex(0)..RaftIndex(u64::MAX), usize::MAX).unwrap()
}
