//! The reference: the one history of the volume, replayed by itself into a store of its own, without ledger, consensus or
//! network. What a node has at an index must be what the reference has there, and what a region may claim of its blocks
//! follows from the intervals kept here by brute force (law 13).

use farshore_changelog::extend;
use farshore_meta::Stamped;
use farshore_meta::kv::{Memory, Store};
use farshore_types::{BlockKey, BucketId, Chain, Digest, LogIndex, Outcome, Sequence, SessionId, SharedBody, blocks_of};
use std::collections::BTreeMap;

/// Bytes in a full block of the simulated volume.
pub const BLOCK_SIZE: u32 = farshore_types::MIN_BLOCK_SIZE;

/// One entry of the history.
pub struct Known {
    pub canonical: Vec<u8>,
    pub chain: Chain,
    pub digest: Digest,
}

/// When a block lived, and what it must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub added: LogIndex,
    /// `None`: it lives.
    pub dropped: Option<LogIndex>,
    pub origin: Option<BucketId>,
    pub crc32c: u32,
}

impl Interval {
    pub fn lives_at(&self, index: LogIndex) -> bool {
        self.added <= index && self.dropped.is_none_or(|dropped| index < dropped)
    }

    /// Whether it lives at some index that is not below `index`.
    pub fn lives_from(&self, index: LogIndex) -> bool {
        self.dropped.is_none_or(|dropped| index < dropped)
    }
}

/// The reference.
#[derive(Default)]
pub struct Model {
    pub store: Memory,
    pub history: Vec<Known>,
    pub blocks: BTreeMap<BlockKey, Interval>,
    /// The answer of each request's first and only application.
    pub outcomes: BTreeMap<(SessionId, Sequence), Outcome>,
}

impl Model {
    /// The last index of the history.
    pub fn last(&self) -> LogIndex {
        LogIndex(self.history.len() as u64)
    }

    /// The entry at an index from 1.
    pub fn at(&self, index: LogIndex) -> Option<&Known> {
        self.history.get((index.0 as usize).checked_sub(1)?)
    }

    pub fn chain(&self, index: LogIndex) -> Option<Chain> {
        if index.0 == 0 { Some(Chain::default()) } else { self.at(index).map(|known| known.chain) }
    }

    /// Applies the next entry of the history.
    pub fn take(&mut self, canonical: Vec<u8>) -> Result<(), String> {
        let index = self.last().next();
        let chain = extend(&self.chain(self.last()).unwrap_or_default(), index, &canonical);
        let entry = farshore_meta::decode_entry(&canonical).map_err(|_| format!("entry {index} cannot be decoded"))?;
        let mut kv = self.store.write().map_err(|error| error.to_string())?;
        let header = farshore_meta::header(&*kv).map_err(|error| error.to_string())?;
        farshore_meta::admissible(&header, &entry).map_err(|why| format!("entry {index} was taken: {why:?}"))?;
        let applied =
            farshore_meta::apply_shared(&mut *kv, &Stamped { index, chain, entry: &entry }).map_err(|error| error.to_string())?;
        let digest = farshore_meta::digest(&*kv).map_err(|error| error.to_string())?;
        kv.commit().map_err(|error| error.to_string())?;
        self.note_outcomes(&entry.body, &applied.outcomes);
        let checksums = checksums_of(&entry.body);
        for slice in &applied.changes.added {
            let crcs = checksums.get(&slice.id.0).cloned().unwrap_or_default();
            for (block, crc32c) in blocks_of(slice.id, slice.size, BLOCK_SIZE).zip(crcs) {
                let interval = Interval { added: slice.added, dropped: None, origin: slice.origin, crc32c };
                self.blocks.insert(block, interval);
            }
        }
        for slice in &applied.changes.dropped {
            for block in blocks_of(slice.id, slice.size, BLOCK_SIZE) {
                let interval = self.blocks.get_mut(&block).ok_or_else(|| format!("{block} was dropped and never added"))?;
                interval.dropped = Some(slice.dropped);
            }
        }
        self.history.push(Known { canonical, chain, digest });
        Ok(())
    }

    fn note_outcomes(&mut self, body: &SharedBody, outcomes: &[Outcome]) {
        let SharedBody::Batch(requests) = body else { return };
        for (request, outcome) in requests.iter().zip(outcomes) {
            let passes = outcome.as_ref().is_err_and(|kind| kind.is_retryable());
            if !passes {
                self.outcomes.entry((request.session, request.sequence)).or_insert_with(|| outcome.clone());
            }
        }
    }

    /// A store that has replayed the history up to an index, and nothing else.
    pub fn replayed(&self, upto: LogIndex) -> Result<Memory, String> {
        let mut fresh = Model::default();
        for known in &self.history[..upto.0 as usize] {
            fresh.take(known.canonical.clone())?;
        }
        Ok(fresh.store)
    }
}

fn checksums_of(body: &SharedBody) -> BTreeMap<u64, Vec<u32>> {
    let SharedBody::Batch(requests) = body else { return BTreeMap::new() };
    let slices = requests.iter().flat_map(|request| match &request.op {
        farshore_types::Op::CommitSlices { slices, .. } => slices.clone(),
        _ => vec![],
    });
    slices.map(|slice| (slice.id.0, slice.checksums)).collect()
}
