//! The log as files, without a thread: batches go in by `append` and `truncate_after`, and are durable after `sync`.
//!
//! States: open; damaged (found at open: refuses appends until the caller gives the damaged part up); failed (a write
//! or flush failed: refuses everything but reads until it is opened again; law 24). A failed flush is never retried.
//!
//! Truncation is a record, not an overwrite: a zeroed or shortened tail would have to be flushed before the next append,
//! and a crash between could bring half of it back. A record is as durable as the batch that carries it, costs no flush
//! of its own when appends follow, and leaves the cut-off bytes for the next purge.

use crate::Entry;
use crate::batch::{BatchBuilder, Kind, Record, batch_bytes, record_bytes};
use crate::catalogue::Catalogue;
use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::format::*;
use crate::mark::{FailureMark, Mark};
use crate::recover::{Damage, Recovered, replay};
use crate::segment::{self, Segment};
use farshore_types::{GroupId, RaftIndex};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Room at the end of a segment that only marks may use, so that a full disk can still be purged.
const MARK_RESERVE: u64 = 2 * SECTOR as u64;
/// How many zeros one write over a torn tail carries.
const ZEROS: usize = 64 << 10;

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
    damage: Option<(Damage, Void)>,
    failure: Option<LogError>,
    mark: Mark,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
            damage: None,
            failure: None,
            mark,
        };
        let mut recovered = Recovered::default();
        if found.is_empty() {
            lock(&files.catalogue).segments.clear();
            files.add_segment(None)?;
        } else {
            let replay = replay(&found, options.group)?;
            recovered.torn = replay.torn;
            recovered.damage = replay.damage.as_ref().map(|(damage, _)| damage.clone());
            *lock(&files.catalogue) = replay.catalogue;
            files.sequence = replay.sequence;
            files.previous = replay.previous;
            files.next_ordinal = replay.next_ordinal;
            files.damage = replay.damage;
            files.settle(&recovered)?;
        }
        files.flushed_sequence = files.sequence;
        files.flushed = files.next().0;
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
        self.failure.clone().or_else(|| self.damage.as_ref().map(damaged))
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
        self.flushed_sequence = self.sequence;
        self.flushed = self.next().0;
        Ok(())
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
                Ok(segment)
            }
            Err(error) => Err(self.stop(error)),
        }
    }

    /// Makes the entries up to `upto` (inclusive) unreadable for good, durably, and removes segments that hold only such.
    pub fn purge(&mut self, upto: RaftIndex) -> Result<(), LogError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let below = upto.0 + 1;
        if below <= lock(&self.catalogue).first {
            return Ok(());
        }
        self.builder.start();
        self.builder.push(Record { kind: Kind::Purge, index: below, group: self.options.group, payload: &[] });
        self.write_batch(0, None, 0)?;
        lock(&self.catalogue).purge(below);
        self.sync()?;
        // The mark is durable before the first file goes, and each removal before the next: no crash leaves a gap.
        let removable = lock(&self.catalogue).removable();
        for _ in 0..removable {
            let Some(oldest) = lock(&self.catalogue).segments.front().cloned() else { break };
            let removed = self.disk.remove(&oldest.path).and_then(|()| self.disk.sync_dir(&self.dir));
            removed.map_err(|error| LogError::io("remove", &oldest.path, &error))?;
            lock(&self.catalogue).segments.pop_front();
        }
        Ok(())
    }

    /// Gives up the damaged part found at open: the log continues at the first entry that was not trusted, and must be
    /// refilled from there. The damaged bytes stay on the disk until they are purged.
    pub fn discard_damaged(&mut self) -> Result<(), LogError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Some((_, void)) = self.damage.clone() {
            self.add_segment(Some(void))?;
            self.damage = None;
        }
        Ok(())
    }

    /// Forgets the recorded failure of an earlier run, once everything that was not trusted has been refilled and flushed.
    pub fn clear_failure(&mut self) -> Result<(), LogError> {
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None => self.mark.clear(),
        }
    }

    /// A write or flush failed. A full disk leaves nothing in doubt but what was not flushed; anything else is recorded.
    fn fail(&mut self, action: &'static str, path: &Path, error: &std::io::Error) -> LogError {
        match LogError::io(action, path, error) {
            full @ LogError::NoSpace { .. } if action == "write" => self.stop(full),
            other => {
                let mut cause = other.to_string();
                let mark = FailureMark { untrusted_from: RaftIndex(self.flushed), cause: cause.clone() };
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

    /// Whether it is time to make the next segment ready.
    pub(crate) fn is_half_full(&self) -> bool {
        lock(&self.catalogue).segments.back().is_some_and(|active| active.used > active.length / 2)
    }
}
