//! The comparison of a bucket's listing with metadata (laws 15, 17).
//!
//! A worker lists in the order of names and delivers pages. Names are gathered by directory `chunks/A/B/`, which holds
//! the blocks of 1,000 slice ids; a directory that is finished is compared with metadata read after it was listed, so
//! that an object whose commit came during the listing is not taken for unknown. Directories are contiguous in the
//! order of names, and their numbers are not in numeric order there (`10` before `2`): finished ones are remembered as
//! ranges, and what metadata names outside of them is missing as a whole, found by [`Comparer::sweep`] afterwards.
//!
//! Memory: one directory, the ranges, and one page; each with a bound. What lies beyond a bound makes the run partial and
//! is never reported as missing.

use super::state::Finding;
use crate::ledger::history::history;
use crate::ledger::owed::owed_since;
use crate::ledger::writeoff::is_written_off;
use crate::slices::{self, LiveSlice};
use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::{BlockKey, BucketIdentity, LogIndex, SliceId};
use std::collections::BTreeMap;

/// Slice ids in one directory.
pub const GROUP_SLICES: u64 = 1000;
/// Objects of one directory that are kept: 1,000 slices of 64 MiB in the smallest blocks. Beyond it the directory is not
/// compared.
pub const GROUP_OBJECTS_MAX: usize = 1000 * 1024;
/// Most names in one page.
pub const PAGE_NAMES_MAX: usize = 10_000;
/// Ranges of finished directories that are remembered; beyond it directories without any object are not looked for.
pub const RANGES_MAX: usize = 1 << 20;

/// One object of a listing.
pub type Listed = (String, u64);

/// Why a page is not taken; the listing starts again from [`Comparer::resume_after`].
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("the listing names `{name}` after `{after}`: it is not in order")]
    OutOfOrder { name: String, after: String },
    #[error("a page of {0} names is larger than {PAGE_NAMES_MAX}")]
    PageTooLarge(usize),
    #[error("the listing goes on after its end")]
    AfterEnd,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

struct Group {
    directory: u64,
    objects: Vec<(BlockKey, u64)>,
    overflowed: bool,
}

/// One run's comparison, in the leader's memory.
pub struct Comparer {
    begin: LogIndex,
    block_size: u32,
    last: Option<String>,
    group: Option<Group>,
    /// Finished directories: first -> last, inclusive, disjoint.
    finished: BTreeMap<u64, u64>,
    listed: u64,
    partial: bool,
    ended: bool,
    /// Where the sweep goes on; `None`: it is through.
    sweep_from: Option<SliceId>,
}

impl Comparer {
    /// For the run that began at `begin`: what was added later is not looked for.
    pub fn new(begin: LogIndex, block_size: u32) -> Comparer {
        assert!(block_size > 0, "a volume's block size is never 0");
        Comparer {
            begin,
            block_size,
            last: None,
            group: None,
            finished: BTreeMap::new(),
            listed: 0,
            partial: false,
            ended: false,
            sweep_from: Some(SliceId(0)),
        }
    }

    /// The name after which a listing goes on, when its worker is lost.
    pub fn resume_after(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Objects seen.
    pub fn listed(&self) -> u64 {
        self.listed
    }

    /// Ranges of finished directories that are remembered, at most [`RANGES_MAX`].
    pub fn ranges(&self) -> usize {
        self.finished.len()
    }

    /// Whether a bound left something out.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Takes a page. `end`: nothing follows it. `kv` must be read after the page was delivered. A page that is refused
    /// changes nothing.
    pub fn page(&mut self, kv: &dyn KvRead, page: &[Listed], end: bool) -> Result<Vec<Finding>, CompareError> {
        self.check_page(page)?;
        let mut findings = Vec::new();
        for (name, size) in page {
            self.listed += 1;
            match BlockKey::parse(name) {
                Ok(block) => self.object(kv, block, *size, &mut findings)?,
                Err(_) if name == BucketIdentity::OBJECT => {}
                Err(_) => findings.push(Finding::Foreign { name: name.clone(), size: *size }),
            }
        }
        if let Some((name, _)) = page.last() {
            self.last = Some(name.clone());
        }
        if end {
            self.finish_group(kv, &mut findings)?;
            self.ended = true;
        }
        Ok(findings)
    }

    fn check_page(&self, page: &[Listed]) -> Result<(), CompareError> {
        if self.ended {
            return Err(CompareError::AfterEnd);
        }
        if page.len() > PAGE_NAMES_MAX {
            return Err(CompareError::PageTooLarge(page.len()));
        }
        let mut after = self.last.as_deref();
        for (name, _) in page {
            if let Some(after) = after.filter(|after| *after >= name.as_str()) {
                return Err(CompareError::OutOfOrder { name: name.clone(), after: after.to_owned() });
            }
            after = Some(name);
        }
        Ok(())
    }

    fn object(&mut self, kv: &dyn KvRead, block: BlockKey, size: u64, findings: &mut Vec<Finding>) -> Result<(), StorageError> {
        let directory = block.slice.0 / GROUP_SLICES;
        if self.group.as_ref().is_some_and(|group| group.directory != directory) {
            self.finish_group(kv, findings)?;
        }
        let group = self.group.get_or_insert_with(|| Group { directory, objects: Vec::new(), overflowed: false });
        if group.objects.len() < GROUP_OBJECTS_MAX {
            group.objects.push((block, size));
        } else {
            group.overflowed = true;
        }
        Ok(())
    }

    fn finish_group(&mut self, kv: &dyn KvRead, findings: &mut Vec<Finding>) -> Result<(), StorageError> {
        let Some(mut group) = self.group.take() else { return Ok(()) };
        self.remember(group.directory);
        if group.overflowed {
            self.partial = true;
            return Ok(());
        }
        group.objects.sort_unstable();
        self.compare(kv, group.directory, &group.objects, findings)
    }

    /// Remembers a directory as finished, joined with its neighbours.
    fn remember(&mut self, directory: u64) {
        let mut range = (directory, directory);
        if let Some((&first, &last)) = self.finished.range(..=directory).next_back() {
            if last >= directory {
                return;
            }
            if last + 1 == directory {
                range.0 = first;
            }
        }
        if let Some(last) = directory.checked_add(1).and_then(|next| self.finished.remove(&next)) {
            range.1 = last;
        }
        if self.finished.len() >= RANGES_MAX && !self.finished.contains_key(&range.0) {
            self.partial = true;
            return;
        }
        self.finished.insert(range.0, range.1);
    }

    /// One directory: objects in order of blocks, against the live slices of its ids.
    fn compare(
        &self,
        kv: &dyn KvRead,
        directory: u64,
        objects: &[(BlockKey, u64)],
        findings: &mut Vec<Finding>,
    ) -> Result<(), StorageError> {
        let (from, to) = group_bounds(directory);
        let mut objects = objects.iter().peekable();
        for slice in slices::live_slices_in(kv, from, to, GROUP_SLICES as usize)? {
            for block in slice.blocks(self.block_size) {
                while let Some((other, found)) = objects.next_if(|(other, _)| *other < block) {
                    findings.push(Finding::Unknown { block: *other, found: *found });
                }
                match objects.next_if(|(other, _)| *other == block) {
                    Some((_, found)) if *found == u64::from(block.size) => {}
                    Some((_, found)) => findings.push(Finding::WrongSize { block, found: *found }),
                    None if self.is_missing(kv, &slice, block)? => findings.push(Finding::Missing(block)),
                    None => {}
                }
            }
        }
        findings.extend(objects.map(|(block, found)| Finding::Unknown { block: *block, found: *found }));
        Ok(())
    }

    /// Whether a block that is not listed ought to be. Asked again in apply ([`crate::LocalOp::FullSyncGroup`]).
    fn is_missing(&self, kv: &dyn KvRead, slice: &LiveSlice, block: BlockKey) -> Result<bool, StorageError> {
        let expected = slice.added <= self.begin && owed_since(kv, block)?.is_none() && !is_written_off(kv, block)?;
        Ok(expected && !history(kv)?.hides(slice.id, slice.added))
    }

    /// After the end of the listing: looks through at most `groups` more directories that had no object at all. `None`
    /// when it is through. With a bound exceeded nothing is looked for, since what is unknown is not missing.
    pub fn sweep(&mut self, kv: &dyn KvRead, groups: usize) -> Result<Option<Vec<Finding>>, StorageError> {
        assert!(self.ended, "the sweep comes after the end of the listing");
        if self.partial {
            self.sweep_from = None;
        }
        if self.sweep_from.is_none() {
            return Ok(None);
        }
        let mut findings = Vec::new();
        for _ in 0..groups.max(1) {
            let Some(from) = self.sweep_from else { break };
            let Some(slice) = slices::live_slices_in(kv, from, None, 1)?.pop() else {
                self.sweep_from = None;
                break;
            };
            let directory = slice.id.0 / GROUP_SLICES;
            let covered = self.finished.range(..=directory).next_back().filter(|(_, last)| **last >= directory);
            let through = match covered {
                Some((_, last)) => *last,
                None => {
                    self.compare(kv, directory, &[], &mut findings)?;
                    directory
                }
            };
            self.sweep_from = group_bounds(through).1;
        }
        Ok(Some(findings))
    }
}

/// The slice ids of a directory: from (inclusive), to (exclusive; `None`: to the last).
fn group_bounds(directory: u64) -> (SliceId, Option<SliceId>) {
    let from = directory * GROUP_SLICES;
    (SliceId(from), from.checked_add(GROUP_SLICES).map(SliceId))
}
