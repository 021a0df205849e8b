//! What a lease is, and the leader's book of the leases that live.

use crate::ledger::counters::Class;
use farshore_types::{BlockKey, BucketId, LocalTime, LogIndex, SessionId, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// What a worker is asked to do. A lease carries no checksum: the worker's evidence must come from the bytes (law 16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// Bring a block into the region's bucket, from any bucket that has it. `head_first`: it is believed to be there.
    Copy { block: BlockKey, head_first: bool, class: Class },
    /// Delete a block's object. Absent is deleted.
    Delete { block: BlockKey },
    /// List the bucket from after this name (`None`: from the start), for the full sync `run`.
    List { run: u64, after: Option<String> },
}

/// A task given to a worker until a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub task: TaskId,
    pub kind: TaskKind,
    /// The bucket to work on: its incarnation comes back with the completion (law 12).
    pub bucket: BucketId,
    /// On the granting leader's clock: the worker counts its own time from before its offer (law 6).
    pub deadline_us: LocalTime,
}

/// What a lease holds, so that no other worker gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    Copy(BlockKey),
    Delete(BlockKey),
    List,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub worker: SessionId,
    pub held: Held,
    /// Where an owed block stands in the order; of other tasks 0.
    pub added: LogIndex,
    pub deadline: LocalTime,
    /// The worker has answered; its slot is free, but the block stays held until the answer is applied or time is up.
    pub answered: bool,
}

/// All leases that live. Bounded by [`crate::LEASES_MAX`].
#[derive(Default)]
pub(crate) struct Book {
    grants: BTreeMap<TaskId, Grant>,
    held: BTreeMap<Held, TaskId>,
    deadlines: BTreeSet<(LocalTime, TaskId)>,
    /// Unanswered leases of each worker.
    open: BTreeMap<SessionId, u32>,
}

impl Book {
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    pub fn is_held(&self, held: Held) -> bool {
        self.held.contains_key(&held)
    }

    pub fn open_of(&self, worker: SessionId) -> u32 {
        self.open.get(&worker).copied().unwrap_or_default()
    }

    pub fn get(&self, task: TaskId) -> Option<&Grant> {
        self.grants.get(&task)
    }

    /// Enters a lease; `false` when the id is taken (the caller draws another) or the thing is held.
    pub fn grant(&mut self, task: TaskId, grant: Grant) -> bool {
        if self.grants.contains_key(&task) || self.held.contains_key(&grant.held) {
            return false;
        }
        self.held.insert(grant.held, task);
        self.deadlines.insert((grant.deadline, task));
        *self.open.entry(grant.worker).or_default() += 1;
        self.grants.insert(task, grant);
        true
    }

    fn close(&mut self, worker: SessionId) {
        let open = self.open.get_mut(&worker).expect("a worker with a lease is counted");
        *open = open.checked_sub(1).expect("a lease is counted before it ends");
        if *open == 0 {
            self.open.remove(&worker);
        }
    }

    /// The worker has answered: its slot is free, the block stays held. `None`: no such lease, or answered before.
    pub fn answer(&mut self, task: TaskId) -> Option<Grant> {
        let grant = self.grants.get_mut(&task).filter(|grant| !grant.answered)?;
        grant.answered = true;
        let grant = *grant;
        self.close(grant.worker);
        Some(grant)
    }

    /// Ends a lease.
    pub fn end(&mut self, task: TaskId) -> Option<Grant> {
        let grant = self.grants.remove(&task)?;
        self.held.remove(&grant.held);
        self.deadlines.remove(&(grant.deadline, task));
        if !grant.answered {
            self.close(grant.worker);
        }
        Some(grant)
    }

    /// Ends what holds this thing.
    pub fn release(&mut self, held: Held) -> Option<Grant> {
        let task = *self.held.get(&held)?;
        self.end(task)
    }

    /// Ends one lease whose deadline has passed.
    pub fn expire_one(&mut self, now: LocalTime) -> Option<Grant> {
        let &(deadline, task) = self.deadlines.first()?;
        if deadline > now { None } else { self.end(task) }
    }

    /// Ends all leases of a worker.
    pub fn end_of(&mut self, worker: SessionId) -> Vec<Grant> {
        let tasks: Vec<TaskId> = self.grants.iter().filter(|(_, grant)| grant.worker == worker).map(|(task, _)| *task).collect();
        tasks.into_iter().filter_map(|task| self.end(task)).collect()
    }
}
