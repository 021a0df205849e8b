//! The log as files, without a thread: batches go in by `append` and `truncate_after`, and are durable after `sync`.
//!
//! States: open; untrusted (damage or an earlier failure found at open: refuses appends until the caller gives up what is
//! not trusted); failed (a write
//! or flush failed: refuses everything but reads until it is opened again; law 24). A failed flush is never retried.
//!
//! Truncation is a record, not an overwrite: a zeroed or shortened tail would have to be flushed before the next append,
//! and a crash between could bring half of it back. A record is as durable as the batch that carries it, costs no flush
//! of its own when appends follow, and leaves the cut-off bytes for the next purge.

mod opening;
mod upkeep;

use crate::Entry;
use crate::batch::{BatchBuilder, Kind, Record, batch_bytes, record_bytes};
use crate::catalogue::Catalogue;
use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::format::*;
use crate::mark::{FailureMark, Mark};
use crate::recover::Damage;
use crate::segment::{self, Segment};
use farshore_types::{GroupId, RaftIndex};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Room at the end of a segment that only marks may use, so that a full disk can still be purged.
const MARK_RESERVE: u64 = 2 * SECTOR as u64;

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub group: GroupId,
    /// The size of a segment, whole sectors, at least [`MIN_SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// How many bytes of the newest entries are kept in memory by [`Log`](crate::Log).
    pub cache_bytes: usize,
}

impl Options {
    /// The usual sizes.
    pub fn new(group: GroupId) -> Options {
        Options { group, segment_bytes: DEFAULT_SEGMENT_BYTES, cache_bytes: crate::view::CACHE_BYTES }
    }
}

/// A slot for a preallocated file that waits to become the next segment.
pub(crate) type Spare = Arc<Mutex<Option<Arc<dyn DiskFile>>>>;

/// What is needed to make a spare from another thread. The slot stays locked while a spare is made or used, since both
/// go by the same names.
pub(crate) struct SpareKit {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub segment_bytes: u64,
    pub slot: Spare,
}

/// The log's files.
pub struct LogFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    catalogue: Arc<Mutex<Catalogue>>,
    spare: Spare,
    builder: BatchBuilder,
    /// The next batch's sequence.
    sequence: u64,
    /// The checksum of the last batch.
    previous: u32,
    next_ordinal: u64,
    /// Batches below this sequence are durable.
    flushed_sequence: u64,
    /// Entries below this index are durable.
    flushed: u64,
    /// Where the last flush ended.
    flushed_to: Void,
    untrusted: Option<(Damage, Void)>,
    /// The segment for whose successor a spare was asked.
    spare_asked: Option<u64>,
    failure: Option<LogError>,
    mark: Mark,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogFiles {
    /// The first kept entry.
    pub fn first(&self) -> Option<RaftIndex> {
        let catalogue = lock(&self.catalogue);
        (catalogue.first < catalogue.next).then_some(RaftIndex(catalogue.first))
    }

    /// The last entry, flushed or not.
    pub fn last(&self) -> Option<RaftIndex> {
        let catalogue = lock(&self.catalogue);
        (catalogue.first < catalogue.next).then(|| RaftIndex(catalogue.next - 1))
    }

    /// The index at which the log continues.
    pub fn next(&self) -> RaftIndex {
        RaftIndex(lock(&self.catalogue).next)
    }

    /// The last entry purged.
    pub fn purged(&self) -> Option<RaftIndex> {
        lock(&self.catalogue).first.checked_sub(1).map(RaftIndex)
    }

    /// The last entry that is durable (law 5).
    pub fn flushed(&self) -> Option<RaftIndex> {
        self.flushed.checked_sub(1).map(RaftIndex)
    }

    /// The bytes that the entries from `from` on take, to 64 KiB.
    pub fn bytes_from(&self, from: RaftIndex) -> u64 {
        lock(&self.catalogue).bytes_from(from.0)
    }

    /// The bytes that the segments take on the disk.
    pub fn retained_bytes(&self) -> u64 {
        lock(&self.catalogue).bytes()
    }

    /// Why the log refuses appends, if it does.
    pub fn failure(&self) -> Option<LogError> {
        let damaged = |(damage, _): &(Damage, Void)| LogError::Damaged {
            segment: damage.segment.clone(),
            offset: damage.offset,
            index: damage.index,
        };
        self.failure.clone().or_else(|| self.untrusted.as_ref().map(damaged))
    }

    /// Reads entries of `range` (end exclusive), as many as there are and fit into `max_bytes`; at least one if there is one.
    pub fn read(&self, range: Range<RaftIndex>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        let from = range.start.0.max(lock(&self.catalogue).first);
        crate::reader::read(&self.catalogue, from, range.end.0, max_bytes)
    }

    /// Writes entries behind the log's end. They are durable after [`LogFiles::sync`].
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        self.write(None, entries)
    }

    /// Makes all entries after `last` void (all of them for `None`). Durable after [`LogFiles::sync`].
    pub fn truncate_after(&mut self, last: Option<RaftIndex>) -> Result<(), LogError> {
        self.write(Some(RaftIndex(last.map_or(0, |last| last.0 + 1))), &[])
    }

    /// A truncation from an index on, if there is one, and the entries after it, in as few batches as their bound allows.
    pub(crate) fn write(&mut self, cut: Option<RaftIndex>, entries: &[Entry]) -> Result<(), LogError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let mut cut = self.check(cut, entries)?;
        let mut rest = entries;
        while cut.is_some() || !rest.is_empty() {
            let group = self.options.group;
            self.builder.start();
            let mut body = 0;
            if let Some(from) = cut {
                self.builder.push(Record { kind: Kind::Truncate, index: from.0, group, payload: &[] });
                body += record_bytes(0);
            }
            let mut count = 0;
            for (index, payload) in rest {
                body += record_bytes(payload.len());
                if batch_bytes(body) > self.batch_bytes_max() {
                    break;
                }
                self.builder.push(Record { kind: Kind::Entry, index: index.0, group, payload });
                count += 1;
            }
            assert!(cut.is_some() || count > 0, "the size of entries was checked");
            self.write_batch(if count > 0 { MARK_RESERVE } else { 0 }, cut.take(), count as u64)?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn batch_bytes_max(&self) -> usize {
        let room = self.options.segment_bytes - SECTOR as u64 - MARK_RESERVE;
        (MAX_BATCH_BYTES as u64).min(room) as usize
    }

    /// The largest entry that fits into a batch of its own, with a truncation before it.
    pub(crate) fn entry_bytes_max(&self) -> usize {
        MAX_ENTRY_BYTES.min(self.batch_bytes_max() - batch_bytes(2 * record_bytes(0)))
    }

    /// Refuses what would break the log, before anything is written. A truncation that cuts nothing is none.
    fn check(&self, cut: Option<RaftIndex>, entries: &[Entry]) -> Result<Option<RaftIndex>, LogError> {
        let (first, next) = {
            let catalogue = lock(&self.catalogue);
            (RaftIndex(catalogue.first), RaftIndex(catalogue.next))
        };
        if let Some(from) = cut.filter(|from| *from < first) {
            return Err(LogError::BelowPurged { from, first });
        }
        let cut = cut.filter(|from| *from < next);
        let mut expected = cut.unwrap_or(next);
        for (index, payload) in entries {
            if *index != expected {
                return Err(LogError::NotNext { expected, got: *index });
            }
            let max = self.entry_bytes_max();
            if payload.len() > max {
                return Err(LogError::TooLarge { bytes: payload.len() as u64, max: max as u64 });
            }
            expected = RaftIndex(expected.0 + 1);
        }
        Ok(cut)
    }

    /// Writes the batch that was built: one write.
    fn write_batch(&mut self, reserve: u64, cut: Option<RaftIndex>, count: u64) -> Result<(), LogError> {
        let length = self.builder.length() as u64;
        let active = self.active();
        let active = if active.used + length + reserve <= active.length { active } else { self.roll()? };
        let (bytes, crc) = self.builder.finish(self.sequence, self.flushed_sequence, self.previous);
        if let Err(error) = active.file.write_at(active.used, bytes) {
            return Err(self.fail("write", &active.path, &error));
        }
        self.sequence += 1;
        self.previous = crc;
        let mut catalogue = lock(&self.catalogue);
        if let Some(from) = cut {
            catalogue.truncate(from.0);
            self.flushed = self.flushed.min(from.0);
        }
        catalogue.add_entries(count, active.used);
        catalogue.segments.back_mut().expect("there is an active segment").used += length;
        Ok(())
    }

    fn active(&self) -> Segment {
        lock(&self.catalogue).segments.back().cloned().expect("an open log has a segment")
    }

    /// Makes everything written so far durable: one fdatasync. After a failure the log is poisoned.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.flushed_sequence == self.sequence {
            return Ok(());
        }
        let active = self.active();
        if let Err(error) = active.file.sync_data() {
            return Err(self.fail("flush", &active.path, &error));
        }
        self.note_flushed();
        Ok(())
    }

    /// Everything written so far is durable.
    fn note_flushed(&mut self) {
        let active = self.active();
        self.flushed_sequence = self.sequence;
        self.flushed = self.next().0;
        self.flushed_to = Void { ordinal: active.ordinal, offset: active.used };
    }

    /// Seals the active segment and makes the next one. The sealed one is flushed first: only the last can be torn.
    fn roll(&mut self) -> Result<Segment, LogError> {
        self.sync()?;
        self.add_segment(None)
    }

    fn add_segment(&mut self, void: Option<Void>) -> Result<Segment, LogError> {
        let (first, below) = {
            let catalogue = lock(&self.catalogue);
            (catalogue.next, catalogue.first)
        };
        let header = SegmentHeader {
            group: self.options.group,
            ordinal: self.next_ordinal,
            first,
            below,
            sequence: self.sequence,
            previous: self.previous,
            void,
        };
        let made = {
            let mut slot = lock(&self.spare);
            let spare = match slot.take() {
                Some(spare) => Ok(spare),
                None => segment::make_spare(self.disk.as_ref(), &self.dir, self.options.segment_bytes),
            };
            spare.and_then(|spare| segment::create(self.disk.as_ref(), &self.dir, header, spare))
        };
        match made {
            Ok(segment) => {
                self.next_ordinal += 1;
                lock(&self.catalogue).add_segment(segment.clone());
                assert_eq!(self.flushed_sequence, self.sequence, "only the last segment holds what is not flushed");
                self.note_flushed();
                Ok(segment)
            }
            Err(error) => Err(self.stop(error)),
        }
    }

    /// A write or flush failed. A full disk leaves nothing in doubt but what was not flushed; anything else is recorded.
    fn fail(&mut self, action: &'static str, path: &Path, error: &std::io::Error) -> LogError {
        match LogError::io(action, path, error) {
            full @ LogError::NoSpace { .. } if action == "write" => self.stop(full),
            other => {
                let mut cause = other.to_string();
                let Void { ordinal: segment, offset } = self.flushed_to;
                let untrusted_from = RaftIndex(self.flushed);
                let mark = FailureMark { untrusted_from, cause: cause.clone(), segment, offset };
                if let Err(error) = self.mark.record(&mark) {
                    // Nothing more can be done: the cause tells the operator that the next start will not know.
                    cause = format!("{cause}; and the failure could not be recorded: {error}");
                }
                self.stop(LogError::Poisoned { cause })
            }
        }
    }

    /// Refuses everything from now on; what was not flushed is not shown any more.
    fn stop(&mut self, error: LogError) -> LogError {
        lock(&self.catalogue).truncate(self.flushed);
        self.failure = Some(error.clone());
        error
    }

    pub(crate) fn catalogue(&self) -> Arc<Mutex<Catalogue>> {
        self.catalogue.clone()
    }

    pub(crate) fn spare_kit(&self) -> SpareKit {
        SpareKit {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            segment_bytes: self.options.segment_bytes,
            slot: self.spare.clone(),
        }
    }

    /// Whether it is time to make the next segment ready; says so once a segment.
    pub(crate) fn is_spare_due(&mut self) -> bool {
        let active = self.active();
        let due = active.used > active.length / 2 && self.spare_asked != Some(active.ordinal);
        if due {
            self.spare_asked = Some(active.ordinal);
        }
        due
    }
}
