//! The dispatcher: who copies what next. It lives in the leader's memory; when it is lost, a duplicate copy is the cost.
//!
//! Order: blocks that readers wait for, then owed blocks by add index (that advances the watermark), then damage, then
//! deletions, then the listing. A cursor remembers how far the owed rows were handed out, so that a lease costs
//! O(log n) and never a walk over the backlog; what falls back behind the cursor (an expired lease, a failed task whose
//! time has come) waits in `ready`. A block that keeps failing waits in `resting` and blocks nobody.

use crate::home;
use crate::leases::{Book, Grant, Held, Lease, TaskKind};
use crate::ledger::counters::Class;
use crate::ledger::damage::{damage, damage_after};
use crate::ledger::deletions::{deletable, pending_deletion};
use crate::ledger::owed::{owed, owed_from};
use crate::local::{self, LocalOp};
use crate::reason::Reason;
use crate::resting::{REST_MIN_US, Resting};
use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::{BlockKey, BucketId, ControlTime, LocalTime, LogIndex, SessionId, TaskId};
use std::collections::{BTreeSet, VecDeque};

/// Most leases that live at once; beyond it nobody gets more until some end.
pub const LEASES_MAX: usize = 65_536;
/// Most slots that one worker may offer; more is taken as this.
pub const SLOTS_MAX: u32 = 1024;
/// Most blocks that wait at the front for readers; at the bound further ones stay where they are in the order.
pub const FRONT_MAX: usize = 4096;
/// Most workers that may offer; a further one gets nothing.
pub const WORKERS_MAX: usize = 4096;
/// Owed, damaged or deletable rows read at a time.
const PAGE: usize = 256;
/// How long nothing is looked for among deletions and damage after nothing was found there.
const IDLE_US: LocalTime = 1_000_000;

/// What the leader may delete: handed in anew whenever floors or control time move ([`crate::gate`], law 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeletionWindow {
    pub gate: LogIndex,
    pub control: ControlTime,
    pub longest_lease: ControlTime,
}

type Place = (LogIndex, BlockKey);

/// The leader's plan.
pub struct Dispatcher {
    lease_us: LocalTime,
    /// Slots that each worker offers, in the order in which they are served; the last served goes to the back.
    workers: VecDeque<(SessionId, u32)>,
    book: Book,
    /// Owed rows up to here (exclusive) were handed out or wait in `ready` or `resting`.
    cursor: (LogIndex, Option<BlockKey>),
    page: VecDeque<Place>,
    front: VecDeque<BlockKey>,
    fronted: BTreeSet<BlockKey>,
    ready: BTreeSet<Place>,
    resting: Resting,
    damage_after: Option<BlockKey>,
    repairs: VecDeque<BlockKey>,
    repairs_idle_until: LocalTime,
    window: DeletionWindow,
    deletions: VecDeque<BlockKey>,
    deletions_idle_until: LocalTime,
    /// After a failed deletion all of them rest: they are never urgent, and the next one would most likely fail as well.
    deletions_rest_until: LocalTime,
    listing: Option<(u64, Option<String>)>,
}

impl Dispatcher {
    /// `lease_us`: how long a worker has for a task.
    pub fn new(lease_us: LocalTime) -> Dispatcher {
        assert!(lease_us > 0, "a lease lasts");
        Dispatcher {
            lease_us,
            workers: VecDeque::new(),
            book: Book::default(),
            cursor: (LogIndex(0), None),
            page: VecDeque::new(),
            front: VecDeque::new(),
            fronted: BTreeSet::new(),
            ready: BTreeSet::new(),
            resting: Resting::default(),
            damage_after: None,
            repairs: VecDeque::new(),
            repairs_idle_until: 0,
            window: DeletionWindow::default(),
            deletions: VecDeque::new(),
            deletions_idle_until: 0,
            deletions_rest_until: 0,
            listing: None,
        }
    }

    /// A worker says how many tasks it will hold at once; 0 takes the offer back and leaves its leases.
    pub fn offer(&mut self, worker: SessionId, capacity: u32) {
        let capacity = capacity.min(SLOTS_MAX);
        match self.workers.iter().position(|(known, _)| *known == worker) {
            Some(at) if capacity == 0 => drop(self.workers.remove(at)),
            Some(at) => self.workers[at].1 = capacity,
            None if capacity > 0 && self.workers.len() < WORKERS_MAX => self.workers.push_back((worker, capacity)),
            None => {}
        }
    }

    /// A worker is gone: what it held is leased again at once.
    pub fn withdraw(&mut self, worker: SessionId) {
        self.offer(worker, 0);
        for grant in self.book.end_of(worker) {
            self.fall_back(&grant);
        }
    }

    /// A reader waits for this block: it goes first, if it is owed and nobody has it yet.
    pub fn move_to_front(&mut self, block: BlockKey) {
        if self.front.len() < FRONT_MAX && !self.book.is_held(Held::Copy(block)) && self.fronted.insert(block) {
            self.front.push_back(block);
        }
    }

    /// Blocks became owed from this add index on, perhaps behind the cursor (a rewind, history, an undone write-off).
    pub fn owed_again(&mut self, lowest: LogIndex) {
        if (lowest, None) < self.cursor {
            self.cursor = (lowest, None);
            self.page.clear();
        }
    }

    /// What may be deleted from now on.
    pub fn allow_deletions(&mut self, window: DeletionWindow) {
        if window != self.window {
            self.window = window;
            self.deletions.clear();
            self.deletions_idle_until = 0;
        }
    }

    /// Damage was listed: look for it at once.
    pub fn damage_listed(&mut self) {
        self.repairs_idle_until = 0;
    }

    /// The full sync `run` needs the listing from after this name; `None`: no listing is needed.
    pub fn want_listing(&mut self, listing: Option<(u64, Option<String>)>) {
        self.book.release(Held::List);
        self.listing = listing;
    }

    /// Leases that live.
    pub fn leases(&self) -> usize {
        self.book.len()
    }

    /// Tasks that a worker holds unanswered.
    pub fn held_by(&self, worker: SessionId) -> u32 {
        self.book.open_of(worker)
    }

    /// Who holds a task, and until when; `None`: it ended.
    pub fn holder(&self, task: TaskId) -> Option<(SessionId, LocalTime)> {
        self.book.get(task).map(|grant| (grant.worker, grant.deadline))
    }

    /// A worker says that a task is done. Its slot is free; the block stays held until [`Dispatcher::settled`] says that
    /// the completion was applied, or until the lease ends, and then it is leased again if it is still owed.
    pub fn done(&mut self, task: TaskId) -> bool {
        self.book.answer(task).is_some()
    }

    /// Answers about these blocks were applied (copied, absent, deleted or rejected).
    pub fn settled(&mut self, block: BlockKey) {
        let copy = self.book.release(Held::Copy(block));
        self.book.release(Held::Delete(block));
        self.resting.forget(block);
        if let Some(grant) = copy {
            self.fall_back(&grant);
        }
    }

    /// A task failed: its block rests, longer every time, and blocks nobody. Returns the entry that makes the failure
    /// visible, now and then: at the first failure and whenever the number of tries has doubled.
    pub fn failed(&mut self, task: TaskId, reason: Reason, now: LocalTime) -> Option<LocalOp> {
        let grant = self.book.end(task)?;
        if let Held::Delete(_) = grant.held {
            self.deletions_rest_until = now.saturating_add(REST_MIN_US);
        }
        let Held::Copy(block) = grant.held else { return None };
        let tries = self.resting.fail(block, grant.added, now);
        tries.is_power_of_two().then_some(LocalOp::Failing { block, reason, tries })
    }

    /// A lease ended without a result: its block stands ready again, in its place.
    fn fall_back(&mut self, grant: &Grant) {
        if let Held::Copy(block) = grant.held
            && grant.added.0 > 0
        {
            self.ready.insert((grant.added, block));
        }
    }

    /// Ends what has run out and wakes what has rested.
    fn advance(&mut self, now: LocalTime) {
        while let Some(grant) = self.book.expire_one(now) {
            self.fall_back(&grant);
        }
        while let Some((added, block)) = self.resting.wake_one(now) {
            // Damage stands in no order; its own walk meets it again.
            if added.0 > 0 {
                self.ready.insert((added, block));
            }
        }
    }

    /// Gives free slots their next tasks, one a worker in turn, so that a large offer does not starve a small one.
    /// `random` draws task ids (law 7). While a pause is in force nobody gets anything.
    pub fn next_leases(
        &mut self,
        kv: &dyn KvRead,
        now: LocalTime,
        random: &mut dyn FnMut() -> TaskId,
    ) -> Result<Vec<(SessionId, Lease)>, StorageError> {
        self.advance(now);
        let mut leases = Vec::new();
        let Some(home) = home::home(kv)? else { return Ok(leases) };
        if local::pause(kv)?.is_some() {
            return Ok(leases);
        }
        let mut full_in_a_row = 0;
        while full_in_a_row < self.workers.len() && self.book.len() < LEASES_MAX {
            let Some((worker, slots)) = self.workers.pop_front() else { break };
            self.workers.push_back((worker, slots));
            if self.book.open_of(worker) >= slots {
                full_in_a_row += 1;
                continue;
            }
            full_in_a_row = 0;
            let Some((kind, held, added)) = self.next_task(kv, now)? else { break };
            leases.push((worker, self.grant(worker, home.bucket(), (kind, held, added), now, random)));
        }
        Ok(leases)
    }

    fn grant(
        &mut self,
        worker: SessionId,
        bucket: BucketId,
        task: (TaskKind, Held, LogIndex),
        now: LocalTime,
        random: &mut dyn FnMut() -> TaskId,
    ) -> Lease {
        const DRAWS_MAX: u32 = 8;
        let (kind, held, added) = task;
        let deadline = now.saturating_add(self.lease_us);
        for _ in 0..DRAWS_MAX {
            let task = random();
            if self.book.grant(task, Grant { worker, held, added, deadline, answered: false }) {
                return Lease { task, kind, bucket, deadline_us: deadline };
            }
        }
        unreachable!("{DRAWS_MAX} random ids of 128 bits were all taken: the source of randomness is broken");
    }

    fn next_task(&mut self, kv: &dyn KvRead, now: LocalTime) -> Result<Option<(TaskKind, Held, LogIndex)>, StorageError> {
        if let Some((block, added, head_first, class)) = self.next_copy(kv, now)? {
            return Ok(Some((TaskKind::Copy { block, head_first, class }, Held::Copy(block), added)));
        }
        if let Some(block) = self.next_repair(kv, now)? {
            let kind = TaskKind::Copy { block, head_first: true, class: Class::Repair };
            return Ok(Some((kind, Held::Copy(block), LogIndex(0))));
        }
        if let Some(block) = self.next_deletion(kv, now)? {
            return Ok(Some((TaskKind::Delete { block }, Held::Delete(block), LogIndex(0))));
        }
        match &self.listing {
            Some((run, after)) if !self.book.is_held(Held::List) => {
                Ok(Some((TaskKind::List { run: *run, after: after.clone() }, Held::List, LogIndex(0))))
            }
            _ => Ok(None),
        }
    }

    fn next_copy(&mut self, kv: &dyn KvRead, now: LocalTime) -> Result<Option<(BlockKey, LogIndex, bool, Class)>, StorageError> {
        while let Some(block) = self.front.pop_front() {
            self.fronted.remove(&block);
            if let Some((added, row)) = self.leasable(kv, block, now)? {
                self.ready.remove(&(added, block));
                return Ok(Some((block, added, row, Class::Reader)));
            }
        }
        while let Some((_, block)) = self.ready.pop_first() {
            if let Some((added, head_first)) = self.leasable(kv, block, now)? {
                return Ok(Some((block, added, head_first, self.class_of(kv, block)?)));
            }
        }
        while let Some((_, block)) = self.next_in_order(kv)? {
            if let Some((added, head_first)) = self.leasable(kv, block, now)? {
                return Ok(Some((block, added, head_first, self.class_of(kv, block)?)));
            }
        }
        Ok(None)
    }

    fn class_of(&self, kv: &dyn KvRead, block: BlockKey) -> Result<Class, StorageError> {
        Ok(owed(kv, block)?.map_or(Class::Live, |(_, row)| row.class))
    }

    /// An owed block that nobody holds and that does not rest: its add index, and whether HEAD comes first.
    fn leasable(&self, kv: &dyn KvRead, block: BlockKey, now: LocalTime) -> Result<Option<(LogIndex, bool)>, StorageError> {
        if self.book.is_held(Held::Copy(block)) || self.resting.is_resting(block, now) {
            return Ok(None);
        }
        Ok(owed(kv, block)?.map(|(added, row)| (added, row.unverified)))
    }

    /// The next owed row after the cursor. A spilled block makes the cursor start over once nothing else is left.
    fn next_in_order(&mut self, kv: &dyn KvRead) -> Result<Option<Place>, StorageError> {
        if self.page.is_empty() {
            let rows = owed_from(kv, self.cursor, PAGE)?;
            self.page = rows
                .into_iter()
                .map(|(added, block, _)| (added, block))
                .filter(|place| (place.0, Some(place.1)) != self.cursor)
                .collect();
            if self.page.is_empty()
                && let Some(lowest) = self.resting.take_spilled()
            {
                self.cursor = (lowest, None);
            }
        }
        let next = self.page.pop_front();
        if let Some((added, block)) = next {
            self.cursor = (added, Some(block));
        }
        Ok(next)
    }

    fn next_repair(&mut self, kv: &dyn KvRead, now: LocalTime) -> Result<Option<BlockKey>, StorageError> {
        if self.repairs.is_empty() && now >= self.repairs_idle_until {
            let rows = damage_after(kv, self.damage_after, PAGE)?;
            self.damage_after = rows.last().map(|(block, _)| *block);
            self.repairs = rows.into_iter().map(|(block, _)| block).collect();
            if self.repairs.len() < PAGE {
                self.damage_after = None;
                self.repairs_idle_until = now.saturating_add(IDLE_US);
            }
        }
        while let Some(block) = self.repairs.pop_front() {
            let free = !self.book.is_held(Held::Copy(block)) && !self.resting.is_resting(block, now);
            if free && damage(kv, block)?.is_some() {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    fn next_deletion(&mut self, kv: &dyn KvRead, now: LocalTime) -> Result<Option<BlockKey>, StorageError> {
        if now < self.deletions_rest_until {
            return Ok(None);
        }
        if self.deletions.is_empty() && now >= self.deletions_idle_until {
            let DeletionWindow { gate, control, longest_lease } = self.window;
            // Those that are under way still stand at the head of the queue: read past them.
            let limit = PAGE + self.book.len();
            let found = deletable(kv, gate, control, longest_lease, limit)?;
            self.deletions = found.into_iter().filter(|block| !self.book.is_held(Held::Delete(*block))).collect();
            if self.deletions.is_empty() {
                self.deletions_idle_until = now.saturating_add(IDLE_US);
            }
        }
        while let Some(block) = self.deletions.pop_front() {
            let free = !self.book.is_held(Held::Delete(block)) && !self.book.is_held(Held::Copy(block));
            // A rewind may have moved the drop beyond the gate since the page was read.
            if free && pending_deletion(kv, block)?.is_some_and(|dropped| dropped <= self.window.gate) {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }
}
