//! Recovery: replays the segments at open, and says what it found. It writes nothing.
//!
//! The log is append-only. A truncation is a record in it, as a purge is, and a damaged part that was given up is
//! named in the header of the segment that follows. So no written byte is ever changed, and no stale tail can come back:
//! what was cut off stays cut off by a later record, whatever a crash does.

use crate::batch::{Kind, Records};
use crate::catalogue::Catalogue;
use crate::classify::{Ending, classify};
use crate::error::LogError;
use crate::format::{SECTOR, Void, sealed};
use crate::mark::FailureMark;
use crate::reader::Window;
use crate::segment::{Found, Segment};
use farshore_types::{GroupId, RaftIndex};
use std::path::PathBuf;

/// Damage inside the log (law 24). What lies before `index` is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub segment: PathBuf,
    pub offset: u64,
    /// The first entry that is not trusted.
    pub index: RaftIndex,
    /// The highest entry seen in sound batches behind the damage: the log held at least these.
    pub last_seen: Option<RaftIndex>,
}

/// The last write before the stop did not finish; it was dropped, and nobody was told that it was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub segment: PathBuf,
    pub offset: u64,
    pub bytes: u64,
}

/// What opening the log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub torn: Option<TornTail>,
    /// The node has no vote until the log is refilled; appends are refused until `discard_untrusted` (law 24).
    pub damage: Option<Damage>,
    /// An earlier run recorded a failed write or flush (law 24). The log ends where it was last flushed, and appends are
    /// refused until `discard_untrusted`, unless that was done; the record stays until `clear_failure`.
    pub failure: Option<FailureMark>,
    /// The kept entries, those of a damaged part not counted; `None` for an empty log.
    pub first: Option<RaftIndex>,
    pub last: Option<RaftIndex>,
}

/// The state of the files after a replay.
pub(crate) struct Replay {
    pub catalogue: Catalogue,
    /// The next batch's sequence, above every one seen.
    pub sequence: u64,
    pub previous: u32,
    pub next_ordinal: u64,
    pub torn: Option<TornTail>,
    /// Where trust ends, if it ends before the log does.
    pub untrusted: Option<(Damage, Void)>,
    /// It ends there because of the failure mark, and not because of damage.
    pub marked: bool,
}

/// Where a replay had to stop: in which segment of the list, at which byte.
#[derive(Clone, Copy)]
struct Stop {
    at: usize,
    offset: u64,
}

struct Replayer<'a> {
    group: GroupId,
    found: &'a [Found],
    /// Up to which byte each segment counts.
    limits: Vec<u64>,
    /// Where the failure mark ends the replay.
    marked: Option<Stop>,
    catalogue: Catalogue,
    below: u64,
    sequence: u64,
    previous: u32,
    torn: Option<TornTail>,
}

/// Replays all segments; `found` must not be empty. Nothing at or behind `mark` is trusted, unless it was given up already.
pub(crate) fn replay(found: &[Found], group: GroupId, mark: Option<Void>) -> Result<Replay, LogError> {
    let mut limits = limits(found);
    let marked = mark.and_then(|mark| {
        let at = found.iter().position(|segment| segment.ordinal == mark.ordinal)?;
        (limits[at] > mark.offset).then_some(Stop { at, offset: mark.offset })
    });
    if let Some(stop) = marked {
        limits[stop.at] = stop.offset;
    }
    let mut replayer = Replayer {
        group,
        found,
        limits,
        marked,
        catalogue: Catalogue::default(),
        below: 0,
        sequence: 0,
        previous: 0,
        torn: None,
    };
    let stop = replayer.run()?;
    let mut replay = Replay {
        sequence: replayer.sequence,
        previous: replayer.previous,
        next_ordinal: found.last().map_or(0, |last| last.ordinal + 1),
        torn: replayer.torn,
        untrusted: None,
        marked: false,
        catalogue: replayer.catalogue,
    };
    if let Some(stop) = stop {
        end_trust(&mut replay, found, &stop)?;
        replay.marked = marked.is_some_and(|marked| marked.at == stop.at && marked.offset == stop.offset);
    }
    Ok(replay)
}

/// What later segments declared void does not count.
fn limits(found: &[Found]) -> Vec<u64> {
    let mut limits = vec![u64::MAX; found.len()];
    for (at, later) in found.iter().enumerate() {
        let Some(void) = later.header.and_then(|header| header.void) else { continue };
        for (limit, earlier) in limits.iter_mut().zip(&found[..at]) {
            if earlier.ordinal == void.ordinal {
                *limit = (*limit).min(void.offset);
            } else if earlier.ordinal > void.ordinal {
                *limit = 0;
            }
        }
    }
    limits
}

impl Replayer<'_> {
    /// Replays; where it had to stop for damage, if it had to.
    fn run(&mut self) -> Result<Option<Stop>, LogError> {
        let mut begun = false;
        for at in 0..self.found.len() {
            let counts = self.limits[at] > 0;
            if counts && let Some(stop) = self.enter(at, begun) {
                return Ok(Some(stop));
            }
            let found = &self.found[at];
            self.catalogue.add_segment(Segment {
                ordinal: found.ordinal,
                path: found.path.clone(),
                file: found.file.clone(),
                used: SECTOR as u64,
                length: found.length,
            });
            if counts {
                begun = true;
                if let Some(offset) = self.scan(at)? {
                    return Ok(Some(Stop { at, offset }));
                }
                if let Some(marked) = self.marked.filter(|marked| marked.at == at) {
                    return Ok(Some(marked));
                }
            }
        }
        let lost = self.catalogue.first > self.below && self.catalogue.first > 0;
        self.catalogue.purge(self.below);
        if lost {
            // The oldest segments are gone although they were not purged.
            self.catalogue.truncate(self.below);
            return Ok(Some(Stop { at: 0, offset: 0 }));
        }
        Ok(None)
    }

    /// Checks that a segment continues what is before it.
    fn enter(&mut self, at: usize, begun: bool) -> Option<Stop> {
        let Some(header) = self.found[at].header else { return Some(Stop { at, offset: 0 }) };
        if !begun {
            let segments = std::mem::take(&mut self.catalogue.segments);
            self.catalogue = Catalogue::starting_at(header.first);
            self.catalogue.segments = segments;
        } else if header.void.is_none() {
            let before = &self.found[at - 1];
            let continues = header.ordinal == before.ordinal + 1
                && header.sequence == self.sequence
                && header.previous == self.previous
                && header.first == self.catalogue.next;
            if !continues {
                // The end of the segment before is missing, or whole segments.
                let used = self.catalogue.segments.back().map_or(0, |segment| segment.used);
                return Some(Stop { at: at - 1, offset: used });
            }
        } else if header.first != self.catalogue.next {
            return Some(Stop { at, offset: 0 });
        }
        self.sequence = header.sequence;
        self.previous = header.previous;
        self.below = self.below.max(header.below);
        None
    }

    /// Replays the batches of a segment; where damage starts, if there is any.
    fn scan(&mut self, at: usize) -> Result<Option<u64>, LogError> {
        let found = &self.found[at];
        let failed = |error: std::io::Error| LogError::io("read", &found.path, &error);
        let limit = self.limits[at];
        let mut window = Window::new(found.file.as_ref(), found.length.min(limit));
        let mut offset = SECTOR as u64;
        while offset < limit {
            let batch = window.batch(offset).map_err(failed)?;
            let Some(length) = batch.and_then(|(header, bytes)| self.take(&header, bytes, offset)) else { break };
            offset += length;
            self.catalogue.segments.back_mut().expect("the segment was added").used = offset;
        }
        if limit != u64::MAX {
            return Ok((offset != limit).then_some(offset));
        }
        if at + 1 < self.found.len() {
            // Whether anything is missing at the end of a sealed segment, the next one's header says.
            return Ok(None);
        }
        match classify(found.file.as_ref(), offset, found.length, self.sequence).map_err(failed)? {
            Ending::Clean => Ok(None),
            Ending::Torn { bytes } => {
                self.torn = Some(TornTail { segment: found.path.clone(), offset, bytes });
                Ok(None)
            }
            Ending::Damage => Ok(Some(offset)),
        }
    }

    /// Takes a batch if it is sound and continues the log: its length, if so. All or nothing.
    fn take(&mut self, header: &crate::format::BatchHeader, bytes: &[u8], offset: u64) -> Option<u64> {
        let crc = sealed(bytes)?;
        if header.sequence != self.sequence || header.previous != self.previous {
            return None;
        }
        let mut next = self.catalogue.next;
        for record in Records::of(header, bytes) {
            let record = record.filter(|record| record.group == self.group)?;
            next = match record.kind {
                Kind::Entry if record.index == next => next + 1,
                Kind::Entry => return None,
                Kind::Truncate if record.index <= next => record.index,
                Kind::Truncate => return None,
                Kind::Purge => next.max(record.index),
            };
        }
        for record in Records::of(header, bytes).flatten() {
            match record.kind {
                Kind::Entry => self.catalogue.add_entries(1, offset),
                Kind::Truncate => self.catalogue.truncate(record.index),
                Kind::Purge => {
                    self.below = self.below.max(record.index);
                    self.catalogue.purge(record.index);
                }
            }
        }
        assert_eq!(self.catalogue.next, next, "the check and the replay agree");
        self.sequence += 1;
        self.previous = crc;
        Some(u64::from(header.length))
    }
}

/// Says where trust ends, and keeps the files behind it listed: nothing of them is removed before a purge.
fn end_trust(replay: &mut Replay, found: &[Found], stop: &Stop) -> Result<(), LogError> {
    let listed = replay.catalogue.segments.back().map(|segment| segment.ordinal);
    for later in found.iter().filter(|later| listed.is_none_or(|listed| later.ordinal > listed)) {
        replay.catalogue.add_segment(Segment {
            ordinal: later.ordinal,
            path: later.path.clone(),
            file: later.file.clone(),
            used: SECTOR as u64,
            length: later.length,
        });
    }
    let mut last_seen = None;
    for (at, later) in found.iter().enumerate().skip(stop.at) {
        let from = if at == stop.at { stop.offset } else { 0 };
        let (index, sequence) = salvage(later, from)?;
        last_seen = last_seen.max(index);
        replay.sequence = replay.sequence.max(sequence);
    }
    let damage =
        Damage { segment: found[stop.at].path.clone(), offset: stop.offset, index: RaftIndex(replay.catalogue.next), last_seen };
    replay.untrusted = Some((damage, Void { ordinal: found[stop.at].ordinal, offset: stop.offset }));
    replay.torn = None;
    Ok(())
}

/// Looks at every sector behind damage for sound batches: the highest entry in them, and a sequence above theirs.
fn salvage(found: &Found, from: u64) -> Result<(Option<RaftIndex>, u64), LogError> {
    let mut window = Window::new(found.file.as_ref(), found.length);
    let mut offset = from.next_multiple_of(SECTOR as u64).max(SECTOR as u64);
    let (mut last_seen, mut sequence) = (None, 0);
    while offset < found.length {
        let batch = window.batch(offset).map_err(|error| LogError::io("read", &found.path, &error))?;
        match batch.filter(|(_, bytes)| sealed(bytes).is_some()) {
            Some((header, bytes)) => {
                let entries = Records::of(&header, bytes).flatten().filter(|record| record.kind == Kind::Entry);
                last_seen = last_seen.max(entries.map(|record| RaftIndex(record.index)).max());
                sequence = sequence.max(header.sequence + 1);
                offset += u64::from(header.length);
            }
            None => offset += SECTOR as u64,
        }
    }
    Ok((last_seen, sequence))
}
