//! One cluster of the world: a real store with the real shared state and ledger, its log, and what only the test knows.

use farshore_changelog::{Offer, Verdict, extend, judge};
use farshore_meta::kv::{KvRead, Memory, Store};
use farshore_meta::{Applied, Changes, Header, RewindError, Stamped};
use farshore_syncer::{Home, LedgerEffects, LocalOp, LocalOutcome, LocalTxn};
use farshore_types::*;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

pub const BLOCK_SIZE: u32 = 64 << 10;

/// An entry of the log as the changelog would carry it, and what it changed.
pub struct Record {
    pub index: LogIndex,
    pub previous: Chain,
    pub chain: Chain,
    pub entry: SharedEntry,
    pub changes: Changes,
}

pub struct Cluster {
    pub id: ClusterId,
    pub up: bool,
    pub store: Memory,
    pub log: Vec<Rc<Record>>,
    /// As the header has it; read again whenever it can have changed.
    lineage: Lineage,
    /// Proposed, not yet applied.
    pub queue: VecDeque<Rc<Record>>,
    /// The lineage that it follows.
    pub target: Lineage,
    /// Local, never rewound: starts of epochs here, the highest epoch number heard, the bucket's incarnation (law 7).
    pub starts: u16,
    pub heard: u64,
    pub incarnation: Incarnation,
    /// Blocks that are here with evidence, kept by the test's own rules.
    pub have: BTreeSet<BlockKey>,
}

/// The region of a cluster has its number.
pub fn region_of(id: ClusterId) -> RegionId {
    RegionId(id.0)
}

impl Cluster {
    pub fn new(id: ClusterId) -> Cluster {
        let cluster = Cluster {
            id,
            up: true,
            store: Memory::new(),
            log: Vec::new(),
            lineage: Lineage::default(),
            queue: VecDeque::new(),
            target: Lineage::default(),
            starts: 0,
            heard: 0,
            incarnation: Incarnation(0),
            have: BTreeSet::new(),
        };
        let home = Home { cluster: id, region: region_of(id), incarnation: Incarnation(0), block_size: BLOCK_SIZE };
        cluster.with_ledger(|txn| farshore_syncer::set_home(txn, &home).unwrap());
        cluster
    }

    pub fn read<T>(&self, f: impl FnOnce(&dyn KvRead) -> T) -> T {
        let reader = self.store.read().unwrap();
        f(&*reader)
    }

    fn with_ledger<T>(&self, f: impl FnOnce(&mut LocalTxn<'_>) -> T) -> T {
        let mut kv = self.store.write().unwrap();
        let done = f(&mut LocalTxn::new(&mut *kv));
        kv.commit().unwrap();
        done
    }

    pub fn header(&self) -> Header {
        self.read(|kv| farshore_meta::header(kv).unwrap())
    }

    pub fn applied(&self) -> LogIndex {
        LogIndex(self.log.len() as u64)
    }

    pub fn chain(&self) -> Chain {
        self.log.last().map(|record| record.chain).unwrap_or_default()
    }

    pub fn lineage(&self) -> Lineage {
        self.lineage.clone()
    }

    pub fn bucket(&self) -> BucketId {
        BucketId { region: region_of(self.id), incarnation: self.incarnation }
    }

    pub fn data_synced(&self) -> Option<LogIndex> {
        let lineage = self.lineage();
        self.read(|kv| {
            let marks = farshore_syncer::watermarks(kv, self.applied(), &lineage).unwrap();
            assert_eq!(
                marks.data_synced,
                farshore_syncer::data_synced(kv, self.applied(), &lineage).unwrap(),
                "two ways to one figure"
            );
            marks.data_synced
        })
    }

    pub fn floor(&self) -> LogIndex {
        let lineage = self.lineage();
        self.read(|kv| farshore_syncer::floor(kv, &lineage).unwrap())
    }

    /// Owed blocks, and whether each is unverified.
    pub fn owed(&self) -> Vec<(BlockKey, bool)> {
        let rows = self.read(|kv| farshore_syncer::owed_from(kv, (LogIndex(0), None), usize::MAX).unwrap());
        rows.into_iter().map(|(_, block, row)| (block, row.unverified)).collect()
    }

    /// The judge inside apply (law 3).
    pub fn judges(&self, record: &Record) -> Verdict {
        let offer = Offer { index: record.index, previous: record.previous, epoch: record.entry.epoch };
        judge(self.applied(), &self.chain(), &self.target, &offer)
    }

    /// Shared entry and ledger in one transaction. `index` and `chain` follow from what is applied here (law 1).
    pub fn apply(&mut self, entry: &SharedEntry, control: ControlTime) -> (Applied, LedgerEffects) {
        let (previous, index) = (self.chain(), self.applied().next());
        let chain = extend(&previous, index, &farshore_meta::encode_entry(entry));
        let mut kv = self.store.write().unwrap();
        let applied = farshore_meta::apply_shared(&mut *kv, &Stamped { index, chain, entry }).unwrap();
        let effects = farshore_syncer::apply_changes(&mut LocalTxn::new(&mut *kv), &applied.changes, index, control).unwrap();
        kv.commit().unwrap();
        if matches!(entry.body, SharedBody::Control(Control::Start { .. })) {
            self.lineage = self.header().lineage;
        }
        self.follow_blocks(&applied.changes);
        self.log.push(Rc::new(Record { index, previous, chain, entry: entry.clone(), changes: applied.changes.clone() }));
        (applied, effects)
    }

    /// What the test believes to be here with evidence; written without a look at the ledger.
    fn follow_blocks(&mut self, changes: &Changes) {
        for slice in &changes.added {
            let own = slice.origin == Some(self.bucket());
            let believed = farshore_syncer::plant::is(farshore_syncer::plant::Plant::OriginIsARegion)
                && slice.origin.is_some_and(|origin| origin.region == region_of(self.id));
            if own || believed {
                self.have.extend(blocks_of(slice.id, slice.size, BLOCK_SIZE));
            }
        }
    }

    pub fn local(&mut self, op: &LocalOp) -> LocalOutcome {
        assert!(op.is_within_bounds());
        let op = LocalOp::decode(&op.encode()).unwrap();
        let (applied, lineage) = (self.applied(), self.lineage());
        self.with_ledger(|txn| farshore_syncer::apply_local(txn, &op, applied, &lineage).unwrap())
    }

    /// Law 20, through the real before-images.
    pub fn rewind(&mut self, to: LogIndex) -> Result<(), RewindError> {
        if to == self.applied() {
            return Ok(());
        }
        let mut kv = self.store.write().unwrap();
        let changes = farshore_meta::rewind(&mut *kv, to)?;
        farshore_syncer::apply_changes(&mut LocalTxn::new(&mut *kv), &changes, to, ControlTime(0)).unwrap();
        kv.commit().unwrap();
        self.lineage = self.header().lineage;
        let planted = farshore_syncer::plant::is(farshore_syncer::plant::Plant::RewindWithoutReowing);
        for record in self.log.split_off(to.0 as usize) {
            let added = record.changes.added.iter().map(|slice| (slice.id, slice.size));
            let dropped = record.changes.dropped.iter().map(|slice| (slice.id, slice.size)).filter(|_| !planted);
            for (id, size) in added.chain(dropped) {
                self.have.retain(|block| block.slice != id || block.size > size);
            }
        }
        Ok(())
    }

    /// The bucket was replaced by an empty one with another identity (law 12).
    pub fn replace_bucket(&mut self) {
        self.incarnation.0 += 1;
        let (incarnation, applied) = (self.incarnation, self.applied());
        assert!(self.with_ledger(|txn| farshore_syncer::replace_bucket(txn, incarnation, applied).unwrap()));
        self.have.clear();
    }

    /// Owes one page of the history; `false` when it is through.
    pub fn owe_history(&mut self, limit: u32) -> bool {
        let history = self.read(|kv| farshore_syncer::history(kv).unwrap());
        if history.pending {
            self.local(&LocalOp::OweHistory { cursor: history.cursor, limit });
            // The same page a second time is a no-op.
            assert_eq!(self.local(&LocalOp::OweHistory { cursor: history.cursor, limit }).owed, 0);
        }
        history.pending
    }
}
