//! The log as its users see it: with what is queued and not yet written. Pure bookkeeping, no disk.
//!
//! It keeps the newest entries in memory, so that consensus and changelog tails at the log's end never read the disk.
//! What is not durable yet is always here; of the rest, as much as the bound allows.
//!
//! Each queued operation has a ticket, in order. An entry is durable once the writer has completed its ticket. Tickets
//! never fall along the index, also after a truncation, so the durable entries are a prefix.

use crate::Entry;
use farshore_types::RaftIndex;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many bytes of entries are kept in memory. The oldest durable ones leave first.
pub const CACHE_BYTES: usize = 64 << 20;
/// What an entry costs beside its payload.
const ENTRY_OVERHEAD: usize = 64;

struct Cached {
    payload: Arc<[u8]>,
    ticket: u64,
}

/// Bounds, durability and cache.
pub(crate) struct View {
    cache: VecDeque<Cached>,
    cached_bytes: usize,
    max_bytes: usize,
    /// The first index that is kept.
    first: u64,
    /// The index at which the log continues.
    next: u64,
    /// Entries below this index are durable.
    flushed: u64,
    completed: u64,
}

impl View {
    /// A view of a log with the entries `first..next`, all durable.
    pub fn new(first: u64, next: u64, max_bytes: usize) -> View {
        assert!(first <= next, "the bounds of a log are in order");
        View { cache: VecDeque::new(), cached_bytes: 0, max_bytes, first, next, flushed: next, completed: 0 }
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// Entries below this index are durable.
    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    /// The first index in memory; all from there on are.
    fn cache_first(&self) -> u64 {
        self.next - self.cache.len() as u64
    }

    /// Adds entries at the end.
    pub fn append(&mut self, entries: &[Entry], ticket: u64) {
        assert!(ticket > self.completed, "tickets are given in order");
        for (index, payload) in entries {
            assert_eq!(index.0, self.next, "appends are checked before they are queued");
            self.cached_bytes += payload.len() + ENTRY_OVERHEAD;
            self.cache.push_back(Cached { payload: payload.clone(), ticket });
            self.next += 1;
        }
        self.evict();
    }

    /// Forgets the entries from `from` on.
    pub fn truncate(&mut self, from: u64) {
        assert!(from >= self.first, "a truncation stays above what is purged");
        while self.next > from {
            if let Some(cached) = self.cache.pop_back() {
                self.cached_bytes -= cached.payload.len() + ENTRY_OVERHEAD;
                self.next -= 1;
            } else {
                self.next = from;
            }
        }
        self.flushed = self.flushed.min(from);
    }

    /// Forgets the entries below `below`; beyond the end, the log continues there.
    pub fn purge(&mut self, below: u64) {
        while self.cache_first() < below && !self.cache.is_empty() {
            self.drop_oldest();
        }
        self.first = self.first.max(below);
        self.next = self.next.max(below);
        self.flushed = self.flushed.max(below);
        self.complete(self.completed);
    }

    /// Everything up to this ticket is durable.
    pub fn complete(&mut self, ticket: u64) {
        self.completed = self.completed.max(ticket);
        while self.flushed < self.next {
            let at = (self.flushed - self.cache_first()) as usize;
            if self.cache[at].ticket > self.completed {
                break;
            }
            self.flushed += 1;
        }
        self.evict();
    }

    /// Forgets everything that is not durable: the writer has failed.
    pub fn fail(&mut self) {
        self.truncate(self.flushed);
    }

    /// The entries of `from..to` that are in memory, at most `max_bytes` of them but at least one; and the index at
    /// which they start: what is before that is in the files only.
    pub fn cached(&self, from: u64, to: u64, max_bytes: usize) -> (u64, Vec<Entry>) {
        let start = from.max(self.cache_first()).min(to);
        let mut entries = Vec::new();
        let mut left = max_bytes;
        for index in start..to {
            let payload = &self.cache[(index - self.cache_first()) as usize].payload;
            let bytes = crate::batch::record_bytes(payload.len());
            if bytes > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes);
            entries.push((RaftIndex(index), payload.clone()));
        }
        (start, entries)
    }

    fn drop_oldest(&mut self) {
        if let Some(cached) = self.cache.pop_front() {
            self.cached_bytes -= cached.payload.len() + ENTRY_OVERHEAD;
        }
    }

    fn evict(&mut self) {
        while self.cached_bytes > self.max_bytes && self.cache_first() < self.flushed {
            self.drop_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
        range.map(|index| (RaftIndex(index), Arc::from(index.to_le_bytes()))).collect()
    }

    fn cached(view: &View, from: u64, to: u64) -> Vec<u64> {
        view.cached(from, to, usize::MAX).1.into_iter().map(|(index, _)| index.0).collect()
    }

    #[test]
    fn law_5_only_completed_tickets_count_as_flushed() {
        let mut view = View::new(0, 0, usize::MAX);
        view.append(&entries(0..3), 1);
        view.append(&entries(3..5), 2);
        assert_eq!(view.flushed(), 0);
        view.complete(1);
        assert_eq!(view.flushed(), 3);
        view.complete(2);
        assert_eq!(view.flushed(), 5);
    }

    #[test]
    fn law_5_a_flush_that_was_under_way_does_not_count_for_what_replaced_its_entries() {
        let mut view = View::new(0, 0, usize::MAX);
        view.append(&entries(0..5), 1);
        view.truncate(2);
        view.append(&entries(2..6), 3);
        view.complete(1);
        assert_eq!(view.flushed(), 2, "entries 2 to 4 were flushed, but those are not the ones here now");
        view.complete(3);
        assert_eq!(view.flushed(), 6);
    }

    #[test]
    fn law_27_durable_entries_leave_first_and_others_never() {
        let mut view = View::new(0, 0, 3 * (8 + ENTRY_OVERHEAD));
        view.append(&entries(0..10), 1);
        assert_eq!(cached(&view, 0, 10), (0..10).collect::<Vec<_>>(), "nothing is durable, nothing may leave");
        view.complete(1);
        assert_eq!(cached(&view, 0, 10), vec![7, 8, 9]);
        assert_eq!(view.cached(0, 10, usize::MAX).0, 7);
    }

    #[test]
    fn truncation_below_the_cache_and_purge_beyond_the_end() {
        let mut view = View::new(0, 10, usize::MAX);
        view.append(&entries(10..12), 1);
        view.truncate(4);
        assert_eq!((view.next(), view.flushed()), (4, 4));
        view.append(&entries(4..5), 2);
        assert_eq!(cached(&view, 0, 5), vec![4]);
        view.purge(20);
        assert_eq!((view.first(), view.next(), view.flushed()), (20, 20, 20));
        view.append(&entries(20..22), 3);
        view.complete(3);
        assert_eq!(view.flushed(), 22);
    }

    #[test]
    fn a_failure_hides_what_was_not_durable() {
        let mut view = View::new(0, 0, usize::MAX);
        view.append(&entries(0..3), 1);
        view.complete(1);
        view.append(&entries(3..9), 2);
        view.fail();
        assert_eq!((view.next(), view.flushed()), (3, 3));
        assert_eq!(cached(&view, 0, 3), vec![0, 1, 2]);
    }
}
