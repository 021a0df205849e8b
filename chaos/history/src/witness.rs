//! A violation for people: the part of one group's history that already has no order, as short as it can be said.

use crate::search::{Found, search};
use crate::{Answered, Operation};
use std::fmt;

/// Operations of one group that have no order, by the time of their calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    pub group: u64,
    /// How many operations the group has in the history.
    pub of: usize,
    pub operations: Vec<Operation>,
}

/// Shortens what has no order. What it leaves out makes no order impossible: the end of the history (a history with an order
/// has one up to each instant), and operations that changed nothing.
pub(crate) fn of(operations: &[&Operation]) -> Witness {
    let whole: Vec<Operation> = operations.iter().copied().cloned().collect();
    let mut kept = earliest(&whole);
    let mut at = kept.len();
    while at > 0 {
        at -= 1;
        if kept[at].changes_nothing() {
            let without: Vec<&Operation> = kept[..at].iter().chain(&kept[at + 1..]).collect();
            if search(without) == Found::Violation {
                kept.remove(at);
            }
        }
    }
    kept.sort_by_key(|operation| operation.called);
    Witness { group: whole.first().map_or(0, |first| first.group), of: whole.len(), operations: kept }
}

/// The shortest beginning that has no order.
fn earliest(whole: &[Operation]) -> Vec<Operation> {
    let mut returns: Vec<u64> = whole.iter().filter_map(|operation| Some(operation.answered.as_ref()?.at)).collect();
    returns.sort_unstable();
    let (mut low, mut high) = (0, returns.len().saturating_sub(1));
    while low < high {
        let middle = (low + high) / 2;
        if search(&until(whole, returns[middle])) == Found::Violation { high = middle } else { low = middle + 1 }
    }
    returns.get(high).map_or_else(Vec::new, |at| until(whole, *at))
}

/// The history as it was known at one instant.
fn until(whole: &[Operation], at: u64) -> Vec<Operation> {
    let known = |operation: &Operation| Operation {
        answered: operation.answered.clone().filter(|answered| answered.at <= at),
        ..operation.clone()
    };
    whole.iter().filter(|operation| operation.called <= at).map(known).collect()
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |stamp: u64| stamp as f64 / 1e6;
        writeln!(f, "group {}: {} of its {} operations, times in ms:", self.group, self.operations.len(), self.of)?;
        for operation in &self.operations {
            let Operation { client, called, call, answered, .. } = operation;
            write!(f, "  client {client:<3} {:>13.4} ", ms(*called))?;
            let Some(Answered { at, answer, index }) = answered else {
                writeln!(f, "to       unknown  {call} -> unknown")?;
                continue;
            };
            write!(f, "to {:>13.4}  {call} -> {answer}", ms(*at))?;
            match index {
                Some(index) => writeln!(f, "  (index {index})")?,
                None => writeln!(f)?,
            }
        }
        let last = self
            .operations
            .iter()
            .filter_map(|operation| Some((operation.answered.as_ref()?.at, operation)))
            .max_by_key(|(at, _)| *at);
        match last {
            Some((_, last)) => write!(
                f,
                "  up to the answer of client {} to `{}` there is an order, with it there is none",
                last.client, last.call
            ),
            None => Ok(()),
        }
    }
}
