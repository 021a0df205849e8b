//! Segment files: their names, how one is made, how its header is read.
//!
//! A segment gets its final name only when it is whole: preallocated, headed and flushed under another name. So a file
//! with a segment's name and without a valid header is damage, never a half-made segment.
//!
//! The name is `<ordinal>-<first index>.seg`. The ordinal comes first because the first index alone is not unique: after
//! a truncation a later segment may start at the index of an earlier one, or below it.

use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::format::{BadHeader, SECTOR, SegmentHeader, VERSION};
use farshore_types::GroupId;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A preallocated file without a header, ready to become the next segment.
const SPARE: &str = "spare";
/// A file that is being preallocated.
const UNFINISHED: &str = "unfinished.tmp";

/// One segment that is part of the log.
#[derive(Clone)]
pub(crate) struct Segment {
    pub ordinal: u64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    /// Where its batches end.
    pub used: u64,
    /// The file's length.
    pub length: u64,
}

/// The name of a segment.
pub(crate) fn name(ordinal: u64, first: u64) -> String {
    format!("{ordinal:010}-{first:020}.seg")
}

/// The ordinal in a segment's name; `None` if it is none.
pub(crate) fn ordinal(name: &str) -> Option<u64> {
    let (ordinal, first) = name.strip_suffix(".seg")?.split_once('-')?;
    first.parse::<u64>().ok()?;
    ordinal.parse().ok()
}

/// Makes a spare: all its blocks are written as zeros and flushed. Slow; meant for a thread that nobody waits for.
pub(crate) fn make_spare(disk: &dyn Disk, dir: &Path, bytes: u64) -> Result<Arc<dyn DiskFile>, LogError> {
    let unfinished = dir.join(UNFINISHED);
    let fill = || {
        let file = disk.create(&unfinished)?;
        file.preallocate(bytes)?;
        file.sync_data()?;
        disk.rename(&unfinished, &dir.join(SPARE))?;
        Ok(file)
    };
    fill().map_err(|error| {
        // The space goes back at once; a leftover that cannot be removed now is removed at the next open.
        let _ = disk.remove(&unfinished);
        LogError::io("preallocate", &unfinished, &error)
    })
}

/// Removes what an earlier run left half-made.
pub(crate) fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let names = disk.list(dir).map_err(|error| LogError::io("list", dir, &error))?;
    for leftover in names.iter().filter(|name| *name == SPARE || *name == UNFINISHED) {
        let path = dir.join(leftover);
        disk.remove(&path).map_err(|error| LogError::io("remove", &path, &error))?;
    }
    Ok(())
}

/// Turns a spare into the segment with this header, durable with its name.
pub(crate) fn create(disk: &dyn Disk, dir: &Path, header: SegmentHeader, spare: Arc<dyn DiskFile>) -> Result<Segment, LogError> {
    let path = dir.join(name(header.ordinal, header.first));
    let step = || {
        spare.write_at(0, &header.encode())?;
        spare.sync_data()?;
        disk.rename(&dir.join(SPARE), &path)?;
        disk.sync_dir(dir)?;
        spare.len()
    };
    let length = step().map_err(|error| LogError::io("create", &path, &error))?;
    Ok(Segment { ordinal: header.ordinal, path, file: spare, used: SECTOR as u64, length })
}

/// A segment file as found at open.
pub(crate) struct Found {
    pub ordinal: u64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub length: u64,
    /// `None`: the header is damaged.
    pub header: Option<SegmentHeader>,
}

/// Opens all segments of a directory, in order.
pub(crate) fn find(disk: &dyn Disk, dir: &Path, group: GroupId) -> Result<Vec<Found>, LogError> {
    let names = disk.list(dir).map_err(|error| LogError::io("list", dir, &error))?;
    let mut found = Vec::new();
    for name in names {
        let Some(ordinal) = ordinal(&name) else { continue };
        let path = dir.join(&name);
        let file = disk.open(&path).map_err(|error| LogError::io("open", &path, &error))?;
        let mut sector = [0u8; SECTOR];
        file.read_at(0, &mut sector).map_err(|error| LogError::io("read", &path, &error))?;
        let header = match SegmentHeader::decode(&sector) {
            Ok(header) if header.group != group => {
                return Err(LogError::OtherGroup { path, found: header.group, expected: group });
            }
            Ok(header) if header.ordinal == ordinal => Some(header),
            Ok(_) | Err(BadHeader::Damaged) => None,
            Err(BadHeader::Version(found)) => {
                return Err(LogError::UnknownVersion { path, found, known: VERSION });
            }
        };
        let length = file.len().map_err(|error| LogError::io("measure", &path, &error))?;
        found.push(Found { ordinal, path, file, length, header });
    }
    found.sort_by_key(|found| found.ordinal);
    Ok(found)
}
