//! The invariants, judged from outside over what the buckets really hold, by brute force from the definitions.

use super::actions::{common_index, reach};
use super::cluster::{BLOCK_SIZE, Cluster};
use super::{REGIONS, Step, World, demand};
use farshore_types::*;
use std::collections::{BTreeMap, BTreeSet};

const INF: u64 = u64::MAX;

/// `[added, dropped)` of every block that a cluster's history ever named.
fn spans(c: &Cluster) -> BTreeMap<BlockKey, (u64, u64)> {
    let mut spans = BTreeMap::new();
    for record in &c.log {
        for slice in &record.changes.added {
            spans.extend(blocks_of(slice.id, slice.size, BLOCK_SIZE).map(|block| (block, (record.index.0, INF))));
        }
        for slice in &record.changes.dropped {
            spans.extend(blocks_of(slice.id, slice.size, BLOCK_SIZE).map(|block| (block, (slice.added.0, record.index.0))));
        }
    }
    spans
}

/// How many of a set of intervals cover each index.
struct Cover(Vec<i64>);

impl Cover {
    fn new(applied: LogIndex) -> Cover {
        Cover(vec![0; applied.0 as usize + 2])
    }

    fn add(&mut self, added: u64, dropped: u64) {
        let end = (self.0.len() as u64 - 1).min(dropped);
        self.0[added as usize] += 1;
        self.0[end as usize] -= 1;
    }

    fn covered(&self) -> Vec<bool> {
        let mut depth = 0;
        let steps = self.0[..self.0.len() - 1].iter();
        steps
            .map(|step| {
                depth += step;
                depth > 0
            })
            .collect()
    }
}

impl World {
    /// Blocks that were live at `index` of a cluster's history and are not in its bucket.
    pub(super) fn absent_at(&self, k: usize, index: LogIndex) -> Vec<BlockKey> {
        let live = spans(&self.c[k]).into_iter().filter(|(_, (a, d))| *a <= index.0 && index.0 < *d);
        live.map(|(block, _)| block).filter(|block| !self.bucket[k].contains(block)).collect()
    }

    pub(super) fn check(&self) -> Step {
        let p = &self.c[self.primary];
        for (k, c) in self.c.iter().enumerate() {
            let common = common_index(c, p).0 as usize;
            let same = common == 0 || c.log[common - 1].chain == p.log[common - 1].chain;
            demand(same, 3, || format!("{k} is no prefix of {}", self.primary))?;
            let header = c.header();
            demand(header.index == c.applied() && header.chain == c.chain() && header.lineage == c.lineage(), 1, || {
                format!("{k} is not dense")
            })?;
            if !self.wiped.contains(&k) {
                self.check_blocks(k)?;
            }
        }
        Ok(())
    }

    fn check_blocks(&self, k: usize) -> Step {
        let c = &self.c[k];
        let (mine, spans, lineage) = (&self.bucket[k], spans(c), c.lineage());
        let owed: BTreeSet<BlockKey> = c.owed().into_iter().map(|(block, _)| block).collect();
        let history = c.read(|kv| farshore_syncer::history(kv).unwrap());
        let floor = reach(&self.reported[k], &lineage);
        let (mut holes, mut missing) = (Cover::new(c.applied()), Cover::new(c.applied()));
        for (block, (a, d)) in &spans {
            if !c.have.contains(block) {
                holes.add(*a, *d);
            }
            if !mine.contains(block) {
                missing.add(*a, *d);
            }
            let somewhere = self.lost.contains(block) || self.bucket.iter().any(|bucket| bucket.contains(block));
            demand(*d <= floor.0 || somewhere, 14, || format!("{k}: {block} [{a},{d}) is gone everywhere, floor {floor}"))?;
            let hidden = history.pending && history.cursor.is_none_or(|cursor| block.slice > cursor);
            let accounted = *d < INF || mine.contains(block) || owed.contains(block) || hidden;
            demand(accounted, 20, || format!("{k}: {block} is live, absent and not owed"))?;
            demand(*d == INF || !owed.contains(block), 13, || format!("{k} owes {block}, which was dropped at {d}"))?;
        }
        self.check_figures(k, &owed)?;
        if let Some(index) = c.data_synced() {
            let at = index.0 as usize;
            demand(!missing.covered()[at], 13, || format!("{k}: at data_synced {index} its bucket lacks a block"))?;
            let exact = holes.covered().iter().rposition(|hole| !hole).expect("index 0 has no blocks");
            demand(at == exact, 13, || format!("{k}: data_synced {index}, by definition {exact}"))?;
        }
        Ok(())
    }

    /// The figures agree with the rows that they count.
    fn check_figures(&self, k: usize, owed: &BTreeSet<BlockKey>) -> Step {
        let (c, lineage) = (&self.c[k], self.c[k].lineage());
        let marks = c.read(|kv| farshore_syncer::watermarks(kv, c.applied(), &lineage).unwrap());
        let bytes: u64 = owed.iter().map(|block| u64::from(block.size)).sum();
        let unverified = c.owed().iter().filter(|(_, unverified)| *unverified).count() as u64;
        let agree = marks.blocks_behind == owed.len() as u64 + marks.damaged && marks.unverified == unverified;
        demand(agree && (marks.bytes_behind.0 == bytes || marks.damaged > 0), 13, || {
            format!("{k}: {marks:?} but {} owed, {bytes} bytes", owed.len())
        })
    }

    /// Everything returns, is applied, copied and reported: then all are equal and nothing is owed.
    pub(super) fn quiesce(&mut self) -> Step {
        for k in 0..REGIONS {
            self.come_back(k)?;
        }
        for k in (0..REGIONS).chain(0..REGIONS) {
            self.follow(k)?;
            for span in [0, usize::MAX] {
                self.propose(k, 1, span);
                while !self.c[k].queue.is_empty() {
                    self.apply(k)?;
                }
            }
            while self.c[k].owe_history(7) {}
            for _ in 0..2 {
                for (block, unverified) in self.c[k].owed() {
                    self.copy(k, block, unverified)?;
                }
                while !self.answers.is_empty() {
                    self.answer(0)?;
                }
            }
            self.settle_floors(k)?;
        }
        self.now += 100;
        for k in (0..REGIONS).chain(0..REGIONS) {
            self.settle_floors(k)?;
        }
        while !self.deletions.is_empty() {
            self.execute()?;
        }
        self.check()?;
        (0..REGIONS).try_for_each(|k| self.check_rest(k))
    }

    fn settle_floors(&mut self, k: usize) -> Step {
        self.report(k)?;
        while self.mail.iter().any(|mail| mail.to == k) {
            self.deliver(k)?;
        }
        self.decide(k)
    }

    fn check_rest(&self, k: usize) -> Step {
        let (c, p) = (&self.c[k], &self.c[self.primary]);
        let digest = |c: &Cluster| c.read(|kv| (farshore_meta::digest(kv).unwrap(), farshore_meta::digest_of(kv).unwrap()));
        demand(c.chain() == p.chain() && c.applied() == p.applied(), 3, || {
            format!("{k} at {} differs from the primary at {}", c.applied(), p.applied())
        })?;
        demand(digest(c) == digest(p), 2, || format!("{k} and the primary have other shared states"))?;
        let all = c.owed();
        let owed: Vec<&BlockKey> = all.iter().map(|(block, _)| block).filter(|block| !self.lost.contains(block)).collect();
        demand(owed.is_empty(), 13, || format!("{k} still owes {owed:?}"))?;
        let synced = c.data_synced();
        demand(!all.is_empty() || synced == Some(c.applied()), 13, || {
            format!("{k}: data_synced {synced:?} of {}, nothing owed", c.applied())
        })?;
        self.check_deleted(k)
    }

    /// Where every floor has passed, no object of a dropped block is left.
    fn check_deleted(&self, k: usize) -> Step {
        if (0..REGIONS).any(|other| self.c[other].data_synced() != Some(self.c[other].applied())) {
            return Ok(());
        }
        let spans = spans(&self.c[k]);
        let left: Vec<&BlockKey> =
            spans.iter().filter(|(block, (_, d))| *d < INF && self.bucket[k].contains(block)).map(|(block, _)| block).collect();
        demand(left.is_empty(), 14, || format!("{k} holds {left:?}, which were dropped"))
    }
}
