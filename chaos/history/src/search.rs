//! The search of Wing and Gong for one group's operations: give effect to one operation after the other that nothing must
//! precede, back out where an answer cannot be, and never visit a configuration (what has taken effect, and the state) twice.
//!
//! Three things keep it short and change no verdict. An operation that by its answer changes nothing anywhere, a question or a
//! refusal, takes effect as soon as its answer is right: whatever comes after could come with it out of the way as well.
//! Answered operations are tried before unanswered ones, the earliest to return first. An unanswered one is tried only where it
//! would change something.

use crate::model::State;
use crate::{Call, Operation};
use std::collections::HashSet;

/// Operations of one group; a longer one is not decided, which is a failure (law 27).
pub const MAX_OPERATIONS: usize = 8192;
/// Configurations visited in one group; at the bound it is not decided, which is a failure (law 27).
pub const MAX_CONFIGURATIONS: usize = 100_000;

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Linearizable {
        configurations: usize,
    },
    Violation,
    /// A bound was reached first; which, and what it is.
    Undecided(&'static str, usize),
}

/// One operation, prepared.
struct Step<'a> {
    /// Its place among the group's operations, by which the model names it.
    number: u32,
    called: u64,
    /// `u64::MAX`: unanswered.
    returned: u64,
    operation: &'a Operation,
}

/// One choice on the way: what may be next, and what was tried of it.
struct Frame {
    next: Vec<(usize, State)>,
    taken: Option<usize>,
}

/// Whether the operations of one group have an order.
pub fn search<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Found {
    let steps = prepare(operations);
    if steps.len() > MAX_OPERATIONS {
        return Found::Undecided("operations in one group", MAX_OPERATIONS);
    }
    Search::new(steps).run()
}

/// In the order of calls; an unanswered question asked nothing of the state.
fn prepare<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Vec<Step<'a>> {
    let matters = |operation: &&Operation| operation.answered.is_some() || !operation.call.is_query();
    let mut steps: Vec<Step<'a>> = operations
        .into_iter()
        .filter(matters)
        .map(|operation| {
            let returned = operation.answered.as_ref().map_or(u64::MAX, |answered| answered.at);
            Step { number: 0, called: operation.called, returned, operation }
        })
        .collect();
    steps.sort_by_key(|step| step.called);
    (0..).zip(&mut steps).for_each(|(number, step)| step.number = number);
    steps
}

struct Search<'a> {
    steps: Vec<Step<'a>>,
    /// Places of the answered ones and of the others, each in the order of calls.
    answered: Vec<usize>,
    unanswered: Vec<usize>,
    taken: Vec<u64>,
    /// Answered ones that have not taken effect.
    open: usize,
    visited: HashSet<(Vec<u64>, State)>,
}

impl<'a> Search<'a> {
    fn new(steps: Vec<Step<'a>>) -> Self {
        let (answered, unanswered): (Vec<usize>, Vec<usize>) =
            (0..steps.len()).partition(|at| steps[*at].operation.answered.is_some());
        let taken = vec![0; steps.len().div_ceil(64)];
        let open = answered.len();
        Search { steps, answered, unanswered, taken, open, visited: HashSet::new() }
    }

    fn is_taken(&self, at: usize) -> bool {
        self.taken[at / 64] & (1 << (at % 64)) != 0
    }

    fn flip(&mut self, at: usize) {
        self.taken[at / 64] ^= 1 << (at % 64);
        if self.steps[at].operation.answered.is_some() {
            if self.is_taken(at) { self.open -= 1 } else { self.open += 1 }
        }
    }

    fn run(mut self) -> Found {
        let mut frames = vec![];
        let mut entered = Some(State::default());
        loop {
            if self.open == 0 {
                return Found::Linearizable { configurations: self.visited.len() };
            }
            if let Some(state) = entered.take() {
                if self.visited.len() >= MAX_CONFIGURATIONS {
                    return Found::Undecided("configurations of one group", MAX_CONFIGURATIONS);
                }
                if self.visited.insert((self.taken.clone(), state.clone())) {
                    let next = self.candidates(&state);
                    frames.push(Frame { next, taken: None });
                }
            }
            let Some(frame) = frames.last_mut() else { return Found::Violation };
            if let Some(at) = frame.taken.take() {
                self.flip(at);
            }
            match frame.next.pop() {
                Some((at, state)) => {
                    frame.taken = Some(at);
                    self.flip(at);
                    entered = Some(state);
                }
                None => drop(frames.pop()),
            }
        }
    }

    /// What may take effect next, and the state after it; the last one is to be tried first.
    fn candidates(&self, state: &State) -> Vec<(usize, State)> {
        // Nothing may take effect that was called after another returned which has not taken effect.
        let mut first_return = u64::MAX;
        let mut open = vec![];
        for &at in self.answered.iter().filter(|at| !self.is_taken(**at)) {
            if self.steps[at].called > first_return {
                break;
            }
            first_return = first_return.min(self.steps[at].returned);
            open.push(at);
        }
        open.retain(|at| self.steps[*at].called < first_return);
        open.sort_by_key(|at| std::cmp::Reverse(self.steps[*at].returned));
        let mut next = vec![];
        let late = self.unanswered.iter().copied().filter(|at| !self.is_taken(*at) && self.steps[*at].called < first_return);
        for at in late {
            next.extend(self.after(state, at).filter(|after| after != state).map(|after| (at, after)));
        }
        for at in open {
            for after in self.after(state, at) {
                if after == *state && self.steps[at].operation.changes_nothing() {
                    return vec![(at, after)];
                }
                next.push((at, after));
            }
        }
        next
    }

    fn after(&self, state: &State, at: usize) -> impl Iterator<Item = State> + use<> {
        let Step { number, operation, .. } = &self.steps[at];
        let call: &Call = &operation.call;
        state.after(*number, call, operation.answer()).into_iter()
    }
}
