//! What happens in the world: each action takes the cluster that acts.

use super::cluster::Cluster;
use super::{Mail, REGIONS, Step, World, demand};
use farshore_changelog::Verdict;
use farshore_meta::kv::Store;
use farshore_syncer::plant::{self, Plant};
use farshore_syncer::{Completion, LocalOp};
use farshore_types::*;

/// Names and weights: of ordinary worlds, and of those that lose clusters and come back all the time. Each seed has its
/// own pace for each action and each cluster.
pub const WEIGHTS: [(&str, u64, u64); 17] = [
    ("add", 24, 20),
    ("drop", 16, 16),
    ("propose", 24, 40),
    ("apply", 24, 40),
    ("follow", 8, 24),
    ("copy", 16, 16),
    ("answer", 14, 14),
    ("report", 10, 16),
    ("deliver", 14, 30),
    ("decide", 8, 16),
    ("execute", 5, 12),
    ("lose", 4, 8),
    ("return", 4, 10),
    ("failover", 30, 40),
    ("history", 12, 12),
    ("trim", 6, 2),
    ("promise", 4, 2),
];

/// The start and the format: what every history begins with.
const FORMATTED: LogIndex = LogIndex(2);

pub fn act(world: &mut World, action: usize, k: usize) -> Step {
    match WEIGHTS[action].0 {
        "add" => world.add(),
        "drop" => world.drop_some(),
        "propose" => {
            let skew = [1, 1, 1, 1, 1, 0, 2][world.r.below(7)];
            world.propose(k, skew, 3);
            Ok(())
        }
        "apply" => world.apply(k),
        "follow" => world.follow(k),
        "copy" => world.copy_some(k),
        "answer" => world.answer_some(),
        "report" => world.report(k),
        "deliver" => world.deliver(k),
        "decide" => world.decide(k),
        "execute" => world.execute(),
        "lose" => world.lose(),
        "return" => world.come_back(k),
        "failover" => world.failover(k),
        "history" => {
            let limit = 1 + world.r.below(3) as u32;
            if world.c[k].up {
                world.c[k].owe_history(limit);
            }
            Ok(())
        }
        "trim" => world.trim(k),
        "promise" => world.promise_anything(k),
        other => unreachable!("{other} is no action"),
    }
}

/// Up to which index two clusters have one history, as their lineages say (law 8).
pub fn common_index(a: &Cluster, b: &Cluster) -> LogIndex {
    let end = a.applied().min(b.applied());
    a.lineage().fork_index(&b.lineage()).map_or(end, |fork| fork.min(end))
}

/// The best of the reported floors, each as far as it speaks of this lineage (14).
pub fn reach(reports: &[(LogIndex, Lineage)], lineage: &Lineage) -> LogIndex {
    reports.iter().map(|(floor, of)| lineage.reach(*floor, of)).max().unwrap_or_default()
}

impl World {
    pub(super) fn roster(&self) -> Vec<ClusterId> {
        let all = 0..REGIONS;
        all.filter(|k| self.c[*k].up || !plant::is(Plant::LiveInsteadOfRoster)).map(|k| ClusterId(k as u8)).collect()
    }

    /// A mirror tails the primary; now and then the offer is a duplicate or leaves a gap.
    pub(super) fn propose(&mut self, k: usize, skew: usize, span: usize) {
        let p = self.primary;
        if k == p || !self.c[k].up || !self.c[p].up {
            return;
        }
        let at = (self.c[k].applied().0 as usize + skew).saturating_sub(1);
        let log = &self.c[p].log;
        let batch = log[at.min(log.len())..at.saturating_add(span).min(log.len())].to_vec();
        let judged = batch.first().is_some_and(|first| self.c[k].judges(first) == Verdict::Accept);
        if judged || !plant::is(Plant::JudgeOutsideApply) {
            self.c[k].queue.extend(batch);
        }
    }

    pub(super) fn apply(&mut self, k: usize) -> Step {
        for _ in 0..3 {
            let Some(record) = self.c[k].queue.pop_front() else { break };
            let judged = plant::is(Plant::JudgeOutsideApply) || self.c[k].judges(&record) == Verdict::Accept;
            if k != self.primary && judged {
                let admissible = farshore_meta::admissible(&self.c[k].header(), &record.entry);
                demand(admissible.is_ok(), 3, || format!("cluster {k} accepted {}: {admissible:?}", record.index))?;
                let control = self.control();
                self.c[k].apply(&record.entry, control);
            }
        }
        Ok(())
    }

    /// A mirror meets the primary, rewinds to the common index and follows its lineage (8, 19, 20).
    pub(super) fn follow(&mut self, k: usize) -> Step {
        let p = self.primary;
        if k == p || !self.c[k].up || !self.c[p].up {
            return Ok(());
        }
        let to = common_index(&self.c[k], &self.c[p]);
        self.rewind(k, to)?;
        self.c[k].target = self.c[p].lineage();
        self.c[k].heard = self.c[k].heard.max(self.c[p].heard);
        Ok(())
    }

    /// Law 20: before-images reach down to the lowest floor known.
    fn rewind(&mut self, k: usize, to: LogIndex) -> Step {
        let (lineage, applied) = (self.c[k].lineage(), self.c[k].applied());
        let all: Vec<ClusterId> = (0..REGIONS as u8).map(ClusterId).collect();
        let lowest = self.c[k].read(|kv| farshore_syncer::lowest_floor(kv, &lineage, &all).unwrap());
        demand(to >= lowest.min(applied), 20, || format!("{k} rewinds to {to}, its before-images end at {lowest}"))?;
        self.c[k].rewind(to).map_err(|broken| format!("law 20: {k} cannot rewind: {broken}"))
    }

    /// HEAD first where unverified (20); then from any bucket that has it, with evidence (16).
    pub(super) fn copy_some(&mut self, k: usize) -> Step {
        let owed = self.c[k].owed();
        match self.r.pick(&owed) {
            Some((block, unverified)) if self.c[k].up => self.copy(k, block, unverified),
            _ => Ok(()),
        }
    }

    pub(super) fn copy(&mut self, k: usize, block: BlockKey, unverified: bool) -> Step {
        let incarnation = self.c[k].incarnation;
        if unverified && !self.bucket[k].contains(&block) {
            self.c[k].local(&LocalOp::Absent { blocks: vec![block], incarnation });
            return Ok(());
        }
        if !self.bucket.iter().any(|bucket| bucket.contains(&block)) {
            return Ok(());
        }
        self.bucket[k].insert(block);
        let crc32c = self.crc[&block];
        let proof = Completion { task: TaskId([0; 16]), block, length: block.size, crc32c, incarnation };
        if self.r.chance(10) {
            let before = self.c[k].owed();
            let wrong = if self.r.chance(50) {
                Completion { crc32c: !crc32c, ..proof }
            } else {
                Completion { length: block.size + 1, ..proof }
            };
            let outcome = self.c[k].local(&LocalOp::Completions(vec![wrong]));
            demand(outcome.rejected.len() == 1 && self.c[k].owed() == before, 16, || {
                format!("{k} took false evidence for {block}")
            })?;
        }
        self.answers.push((k, proof));
        if self.r.chance(60) { self.answer(self.answers.len() - 1) } else { Ok(()) }
    }

    /// Completions arrive late and in any order, in whatever epoch (16).
    pub(super) fn answer_some(&mut self) -> Step {
        if self.answers.is_empty() {
            return Ok(());
        }
        let at = self.r.below(self.answers.len());
        if self.c[self.answers[at].0].up { self.answer(at) } else { Ok(()) }
    }

    pub(super) fn answer(&mut self, at: usize) -> Step {
        let (k, proof) = self.answers.swap_remove(at);
        let outcome = self.c[k].local(&LocalOp::Completions(vec![proof]));
        demand(outcome.rejected.is_empty(), 16, || format!("{k} rejected the truth about {}", proof.block))?;
        if outcome.copied > 0 {
            self.c[k].have.insert(proof.block);
        }
        Ok(())
    }

    /// Law 14: the floor is committed, then reported, with its lineage.
    pub(super) fn report(&mut self, k: usize) -> Step {
        let (synced, floor, lineage) = (self.c[k].data_synced(), self.c[k].floor(), self.c[k].lineage());
        let Some(index) = synced.filter(|index| self.c[k].up && *index >= floor) else { return Ok(()) };
        let outcome = self.c[k].local(&LocalOp::CommitFloor { floor: index });
        let planted = plant::is(Plant::NoNullAfterRewind);
        demand(outcome.floor == Some(index) || planted, 14, || format!("{k} may not promise its data_synced {index}"))?;
        self.reported[k].push((index, lineage.clone()));
        let said = if plant::is(Plant::DeleteAtAck) { self.c[k].applied() } else { index };
        for to in (0..REGIONS).filter(|to| *to != k) {
            self.mail.push(Mail { to, from: k, floor: said, lineage: lineage.clone() });
        }
        Ok(())
    }

    /// Whatever is asked for, only a complete index is promised.
    fn promise_anything(&mut self, k: usize) -> Step {
        let floor = LogIndex(self.r.below(self.c[k].applied().0 as usize + 3) as u64);
        if !self.c[k].up || plant::is(Plant::FloorNotCommitted) {
            return Ok(());
        }
        let outcome = self.c[k].local(&LocalOp::CommitFloor { floor });
        if outcome.floor.is_some() {
            demand(floor <= self.c[k].applied(), 14, || format!("{k} promised {floor}, which it has not applied"))?;
            let absent = self.absent_at(k, floor);
            demand(absent.is_empty(), 14, || format!("{k} promised {floor} without {absent:?}"))?;
            let lineage = self.c[k].lineage();
            self.reported[k].push((floor, lineage));
        }
        Ok(())
    }

    /// Acknowledgements arrive late and in any order.
    pub(super) fn deliver(&mut self, k: usize) -> Step {
        let mine: Vec<usize> = (0..self.mail.len()).filter(|at| self.mail[*at].to == k).collect();
        if let Some(at) = self.r.pick(&mine).filter(|_| self.c[k].up) {
            let mail = self.mail.swap_remove(at);
            self.c[k].local(&LocalOp::KnownFloors(vec![(ClusterId(mail.from as u8), mail.floor, mail.lineage)]));
        }
        Ok(())
    }

    /// Law 14: what every cluster on the roster has promised to stay above. Law 18: in its own bucket.
    pub(super) fn decide(&mut self, k: usize) -> Step {
        const LONGEST_LEASE: ControlTime = ControlTime(3);
        if !self.c[k].up {
            return Ok(());
        }
        let (lineage, roster, control) = (self.c[k].lineage(), self.roster(), self.control());
        let mut gate = self.c[k].read(|kv| farshore_syncer::gate(kv, &lineage, &roster).unwrap());
        if plant::is(Plant::FloorNotCommitted) {
            gate = gate.min(reach(&self.reported[k], &lineage));
        }
        let due = self.c[k].read(|kv| farshore_syncer::deletable(kv, gate, control, LONGEST_LEASE, usize::MAX).unwrap());
        let incarnation = self.c[k].incarnation;
        for block in due {
            if !self.deletions.contains(&(k, incarnation, block)) {
                self.deletions.push((k, incarnation, block));
            }
        }
        Ok(())
    }

    /// Object stores know no epochs: a deleter is as late as it likes, whatever has happened to its cluster.
    pub(super) fn execute(&mut self) -> Step {
        if self.deletions.is_empty() {
            return Ok(());
        }
        let at = self.r.below(self.deletions.len());
        let (k, incarnation, block) = self.deletions.swap_remove(at);
        if incarnation == self.c[k].incarnation {
            self.bucket[k].remove(&block);
            self.c[k].have.remove(&block);
        }
        if self.c[k].up {
            self.c[k].local(&LocalOp::Deleted { blocks: vec![block], incarnation });
        }
        Ok(())
    }

    fn lose(&mut self) -> Step {
        let k = self.primary;
        if !self.c[k].up {
            return Ok(());
        }
        self.c[k].up = false;
        self.c[k].queue.clear();
        if self.r.chance(30) {
            let others: Vec<usize> = (0..REGIONS).filter(|other| *other != k).collect();
            let gone = std::mem::take(&mut self.bucket[k]);
            self.lost.extend(gone.into_iter().filter(|block| !others.iter().any(|other| self.bucket[*other].contains(block))));
            self.wiped.insert(k);
        }
        Ok(())
    }

    /// A new, empty bucket has another identity (12) and owes its history again (13).
    pub(super) fn come_back(&mut self, k: usize) -> Step {
        if self.wiped.remove(&k) {
            self.c[k].replace_bucket();
        }
        self.c[k].up = true;
        Ok(())
    }

    fn failover(&mut self, k: usize) -> Step {
        let at_data = self.r.chance(50);
        let rank = |c: &Cluster| (c.lineage().head_id().number, c.applied());
        let c = &self.c[k];
        let to = if at_data { c.data_synced() } else { Some(c.applied()) };
        // Below the format entry there is no volume to promote.
        let is_volume = |to: &LogIndex| *to >= FORMATTED;
        let Some(to) = to.filter(is_volume).filter(|_| !self.c[self.primary].up && c.up) else { return Ok(()) };
        let best = self.c.iter().filter(|c| c.up).map(rank).max();
        // Law 14: never below a floor that it reported; law 22: behind another reachable one only when forced.
        if to < c.floor() || (best > Some(rank(c)) && self.r.chance(60)) {
            return Ok(());
        }
        let promised = reach(&self.reported[k], &c.lineage());
        demand(to >= promised, 14, || format!("{k} starts at {to}, below its reported floor {promised}"))?;
        self.rewind(k, to)?;
        if at_data {
            let absent = self.absent_at(k, to);
            demand(absent.is_empty(), 13, || format!("{k} promoted at data {to} without {absent:?}"))?;
        }
        self.c[k].heard =
            self.c.iter().filter(|c| c.up).map(|c| c.heard.max(c.lineage().head_id().number)).max().unwrap_or_default();
        self.c[k].queue.clear();
        self.start_epoch(k)
    }

    /// Before-images below the lowest floor go; a rewind that would need them is a broken law 20.
    fn trim(&mut self, k: usize) -> Step {
        if self.c[k].up {
            let lineage = self.c[k].lineage();
            let all: Vec<ClusterId> = (0..REGIONS as u8).map(ClusterId).collect();
            let lowest = self.c[k].read(|kv| farshore_syncer::lowest_floor(kv, &lineage, &all).unwrap());
            let mut kv = self.c[k].store.write().unwrap();
            farshore_meta::trim_undo(&mut *kv, lowest.min(LogIndex(self.c[k].log.len() as u64))).unwrap();
            kv.commit().unwrap();
        }
        Ok(())
    }
}
