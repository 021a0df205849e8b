//! Opening the files: replay, then make sure that what was found is durable and that the rest of the segment is zeros.

use super::{LogFiles, Options, Spare, lock};
use crate::batch::BatchBuilder;
use crate::disk::Disk;
use crate::error::LogError;
use crate::format::{MIN_SEGMENT_BYTES, SECTOR, Void};
use crate::mark::Mark;
use crate::recover::{Recovered, replay};
use crate::segment;
use std::path::Path;
use std::sync::Arc;

/// How many zeros one write over a torn tail carries.
const ZEROS: usize = 64 << 10;

impl LogFiles {
    /// Opens the log in `dir`, making it if there is none. A torn tail is dropped and reported; damage is reported.
    pub fn open(dir: &Path, options: Options, disk: Arc<dyn Disk>) -> Result<(LogFiles, Recovered), LogError> {
        if options.segment_bytes < MIN_SEGMENT_BYTES || !options.segment_bytes.is_multiple_of(SECTOR as u64) {
            let rule = "a multiple of 512 and at least 2560";
            return Err(LogError::BadOption { name: "segment_bytes", value: options.segment_bytes, rule });
        }
        disk.create_dir_all(dir).map_err(|error| LogError::io("create", dir, &error))?;
        segment::remove_leftovers(disk.as_ref(), dir)?;
        let mark = Mark::open(disk.clone(), dir)?;
        let found = segment::find(disk.as_ref(), dir, options.group)?;
        let mut files = LogFiles {
            disk,
            dir: dir.to_owned(),
            options,
            catalogue: Arc::default(),
            spare: Spare::default(),
            builder: BatchBuilder::default(),
            sequence: 0,
            previous: 0,
            next_ordinal: 0,
            flushed_sequence: 0,
            flushed: 0,
            flushed_to: Void { ordinal: 0, offset: 0 },
            untrusted: None,
            spare_asked: None,
            failure: None,
            mark,
        };
        let mut recovered = Recovered::default();
        if found.is_empty() {
            lock(&files.catalogue).segments.clear();
            files.add_segment(None)?;
        } else {
            let place = files.mark.load().map(|mark| mark.place());
            let replay = replay(&found, options.group, place)?;
            recovered.torn = replay.torn;
            let damage = replay.untrusted.as_ref().filter(|_| !replay.marked);
            recovered.damage = damage.map(|(damage, _)| damage.clone());
            *lock(&files.catalogue) = replay.catalogue;
            files.sequence = replay.sequence;
            files.previous = replay.previous;
            files.next_ordinal = replay.next_ordinal;
            files.untrusted = replay.untrusted;
            files.settle(&recovered)?;
        }
        files.note_flushed();
        recovered.failure = files.mark.load();
        recovered.first = files.first();
        recovered.last = files.last();
        Ok((files, recovered))
    }

    /// Makes durable what a killed process may have left in the page cache only, and zeros a torn tail.
    fn settle(&self, recovered: &Recovered) -> Result<(), LogError> {
        let Some(active) = lock(&self.catalogue).segments.back().cloned() else { return Ok(()) };
        if let Some(torn) = &recovered.torn {
            assert_eq!(torn.segment, active.path, "only the last segment can be torn");
            let zeros = vec![0u8; ZEROS];
            let end = torn.offset + torn.bytes;
            let mut offset = torn.offset;
            while offset < end {
                let part = (end - offset).min(ZEROS as u64);
                let written = active.file.write_at(offset, &zeros[..part as usize]);
                written.map_err(|error| LogError::io("clear the torn end of", &active.path, &error))?;
                offset += part;
            }
        }
        active.file.sync_data().map_err(|error| LogError::io("flush", &active.path, &error))?;
        self.disk.sync_dir(&self.dir).map_err(|error| LogError::io("flush", &self.dir, &error))
    }
}
