//! What the writer and the readers know of the files: the segments, and where in them an index is to be found.
//!
//! The index is sparse, a point for each `POINT_EVERY` bytes of batches, so that a log of 8 GiB needs 3 MB of it. Points
//! cover live entries only: from a point, entries follow without a gap until the next point's first index, and all of
//! them lie in the point's segment. What a truncation made void lies between the end of one point's range and the next
//! point, where no reader comes by.

use crate::segment::Segment;
use std::collections::VecDeque;

/// A reader scans at most this many bytes (and one batch) to find its first entry.
const POINT_EVERY: u64 = 64 << 10;

/// Where the batch starts that holds the entry `first`, and from there on those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    first: u64,
    ordinal: u64,
    offset: u64,
}

/// A run of live entries `first..end` in one segment.
pub(crate) struct Run {
    pub segment: Segment,
    pub offset: u64,
    /// Exclusive: the run ends before this index.
    pub end: u64,
}

/// Segments, points and bounds of the log as it is in the files.
#[derive(Default)]
pub(crate) struct Catalogue {
    pub segments: VecDeque<Segment>,
    points: VecDeque<Point>,
    /// The first index that is kept.
    pub first: u64,
    /// The index at which the log continues.
    pub next: u64,
    /// The next entry gets a point of its own, wherever it lies.
    point_due: bool,
}

impl Catalogue {
    /// A catalogue of an empty log that continues at `next`.
    pub fn starting_at(next: u64) -> Catalogue {
        Catalogue { first: next, next, point_due: true, ..Catalogue::default() }
    }

    /// Adds a segment behind the others.
    pub fn add_segment(&mut self, segment: Segment) {
        if let Some(last) = self.segments.back() {
            assert!(last.ordinal < segment.ordinal, "segments are added in order");
        }
        self.segments.push_back(segment);
        self.point_due = true;
    }

    /// Notes `count` entries, from the log's end on, of a batch at `offset` of the last segment.
    pub fn add_entries(&mut self, count: u64, offset: u64) {
        if count == 0 {
            return;
        }
        let ordinal = self.segments.back().expect("a batch lies in a segment").ordinal;
        let far = self.points.back().is_none_or(|point| point.ordinal != ordinal || offset - point.offset >= POINT_EVERY);
        if self.point_due || far {
            self.points.push_back(Point { first: self.next, ordinal, offset });
            self.point_due = false;
        }
        self.next += count;
    }

    /// Forgets the entries from `from` on.
    pub fn truncate(&mut self, from: u64) {
        while self.points.back().is_some_and(|point| point.first >= from) {
            self.points.pop_back();
        }
        self.next = self.next.min(from);
        self.first = self.first.min(from);
        self.point_due = true;
    }

    /// Forgets the entries below `below`; beyond the end, the log continues there.
    pub fn purge(&mut self, below: u64) {
        self.first = self.first.max(below);
        if below > self.next {
            self.next = below;
            self.point_due = true;
        }
        while self.points.get(1).is_some_and(|second| second.first <= self.first) {
            self.points.pop_front();
        }
        if self.first == self.next {
            self.points.clear();
            self.point_due = true;
        }
    }

    /// How many of the oldest segments hold no entry that is kept. The last segment always stays.
    pub fn removable(&self) -> usize {
        let keep = self.points.front().map(|point| point.ordinal);
        let last = self.segments.len().saturating_sub(1);
        self.segments.iter().take(last).take_while(|segment| keep.is_none_or(|keep| segment.ordinal < keep)).count()
    }

    /// The run that holds `index`; `None` if the files do not have it.
    pub fn locate(&self, index: u64) -> Option<Run> {
        if index < self.first || index >= self.next {
            return None;
        }
        let after = self.points.partition_point(|point| point.first <= index);
        let point = self.points.get(after.checked_sub(1)?)?;
        let end = self.points.get(after).map_or(self.next, |next| next.first);
        let at = self.segments.binary_search_by_key(&point.ordinal, |segment| segment.ordinal).ok()?;
        Some(Run { segment: self.segments[at].clone(), offset: point.offset, end })
    }

    /// The bytes that the entries from `from` on take, to one distance of points.
    pub fn bytes_from(&self, from: u64) -> u64 {
        let after = self.points.partition_point(|point| point.first <= from);
        let (Some(begin), Some(end)) = (self.points.get(after.saturating_sub(1)), self.points.back()) else { return 0 };
        let between = self.segments.iter().filter(|segment| (begin.ordinal..end.ordinal).contains(&segment.ordinal));
        (between.map(|segment| segment.length).sum::<u64>() + end.offset).saturating_sub(begin.offset)
    }

    /// The bytes of all segment files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }
}
