//! The verdict on a whole history: group by group, and whether the groups are as independent as that asks.

use crate::Operation;
use crate::search::{Found, search};
use crate::witness::{self, Witness};
use std::collections::BTreeMap;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub operations: usize,
    /// Of these, without an answer.
    pub unanswered: usize,
    pub groups: usize,
    /// Operations of the largest group.
    pub largest: usize,
    /// Configurations that were visited in all groups.
    pub configurations: usize,
}

/// A history that does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Of several groups that have no order, the one with the fewest operations.
    #[error("not linearizable: {bad} of {groups} groups have no order; the smallest:\n{witness}")]
    Violation { bad: usize, groups: usize, witness: Witness },
    /// A bound was reached before there was a verdict, which is no pass (law 27).
    #[error("not decided: group {group} needs more than {bound} {what}; ask for shorter groups or fewer clients")]
    Undecided { group: u64, what: &'static str, bound: usize },
    /// One inode in two groups: groups are not independent then, and a verdict on each says nothing of the whole.
    #[error("inode #{ino} was seen in group {first} and in group {second}: no number is issued twice (law 7)")]
    Shared { ino: u64, first: u64, second: u64 },
    /// Stamps that no clock gave.
    #[error("the history is damaged: in group {group} client {client} was answered before it called, at {called}")]
    Damaged { group: u64, client: u32, called: u64 },
}

/// Whether the history is linearizable.
pub fn check(history: &[Operation]) -> Result<Checked, Failure> {
    let mut groups: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    let mut homes: BTreeMap<u64, u64> = BTreeMap::new();
    let mut checked = Checked { operations: history.len(), ..Checked::default() };
    for operation in history {
        let group = operation.group;
        groups.entry(group).or_default().push(operation);
        let Some(answered) = &operation.answered else {
            checked.unanswered += 1;
            continue;
        };
        if answered.at <= operation.called {
            return Err(Failure::Damaged { group, client: operation.client, called: operation.called });
        }
        for seen in answered.answer.inodes() {
            let first = *homes.entry(seen.ino).or_insert(group);
            if first != group {
                return Err(Failure::Shared { ino: seen.ino, first, second: group });
            }
        }
    }
    checked.groups = groups.len();
    let mut bad: Vec<&[&Operation]> = vec![];
    let mut undecided = None;
    for (group, operations) in &groups {
        checked.largest = checked.largest.max(operations.len());
        match search(operations.iter().copied()) {
            Found::Linearizable { configurations } => checked.configurations += configurations,
            Found::Violation => bad.push(operations),
            Found::Undecided(what, bound) => undecided = Some(Failure::Undecided { group: *group, what, bound }),
        }
    }
    match bad.iter().min_by_key(|operations| operations.len()) {
        Some(smallest) => Err(Failure::Violation { bad: bad.len(), groups: groups.len(), witness: witness::of(smallest) }),
        None => undecided.map_or(Ok(checked), Err),
    }
}
