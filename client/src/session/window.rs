//! The operations that were sent and not answered, by sequence. Pure.
//!
//! Invariants (law 10): sequences are dense from 1 in the order in which operations were taken; everything up to
//! `acknowledged` is answered; never more than [`WINDOW_MAX`] sequences lie above it, which is also what the shared
//! state keeps replies for.

use farshore_types::Op;
use std::collections::BTreeMap;

/// Sequences that may lie above the acknowledged one; beyond it operations wait in their queue.
pub(super) const WINDOW_MAX: u64 = 1024;

/// Operations without an answer, each with whoever waits for it.
#[derive(Debug)]
pub(super) struct Window<W> {
    next: u64,
    unanswered: BTreeMap<u64, (Op, W)>,
}

impl<W> Window<W> {
    pub fn new() -> Window<W> {
        Window { next: 1, unanswered: BTreeMap::new() }
    }

    /// All sequences up to this one (inclusive) are answered.
    pub fn acknowledged(&self) -> u64 {
        self.unanswered.keys().next().map_or(self.next - 1, |lowest| lowest - 1)
    }

    /// How many operations may be taken now.
    pub fn room(&self) -> usize {
        (WINDOW_MAX - (self.next - 1 - self.acknowledged())) as usize
    }

    /// Takes an operation; its sequence is its own from now on.
    pub fn take(&mut self, op: Op, waiter: W) -> u64 {
        assert!(self.room() > 0, "the caller looks at the room first");
        let sequence = self.next;
        self.next += 1;
        self.unanswered.insert(sequence, (op, waiter));
        sequence
    }

    pub fn get(&self, sequence: u64) -> Option<&(Op, W)> {
        self.unanswered.get(&sequence)
    }

    /// The sequence that was taken last; 0 before the first.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// The answer to `sequence` came; `None` when it had come before.
    pub fn answer(&mut self, sequence: u64) -> Option<W> {
        self.unanswered.remove(&sequence).map(|(_, waiter)| waiter)
    }

    /// Everything to send again after a new connection or a gap, lowest first.
    pub fn unanswered(&self) -> Vec<u64> {
        self.unanswered.keys().copied().collect()
    }

    /// Ends the session: who waits for what is in doubt. The next session starts from 1.
    pub fn abandon(&mut self) -> Vec<W> {
        self.next = 1;
        std::mem::take(&mut self.unanswered).into_values().map(|(_, waiter)| waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::Ino;

    fn op(n: u64) -> Op {
        Op::Truncate { ino: Ino(n), size: 0 }
    }

    #[test]
    fn law_10_sequences_are_dense_and_acknowledged_only_below_the_lowest_open_one() {
        let mut window = Window::new();
        assert_eq!((window.acknowledged(), window.room()), (0, 1024));
        assert_eq!((1..=3).map(|n| window.take(op(n), n)).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(window.answer(2), Some(2));
        assert_eq!(window.acknowledged(), 0, "1 is open still");
        assert_eq!(window.unanswered(), [1, 3]);
        assert_eq!(window.answer(1), Some(1));
        assert_eq!(window.acknowledged(), 2);
        assert_eq!(window.answer(1), None, "an answer counts once");
        assert_eq!(window.get(3), Some(&(op(3), 3)));
        assert_eq!(window.last(), 3);
        assert_eq!(window.abandon(), [3]);
        assert_eq!(window.take(op(9), 9), 1, "a new session counts from 1");
    }

    #[test]
    fn law_27_an_open_sequence_bounds_all_behind_it() {
        let mut window = Window::new();
        for n in 0..WINDOW_MAX {
            window.take(op(n), ());
        }
        assert_eq!(window.room(), 0);
        for n in 2..=WINDOW_MAX {
            window.answer(n);
        }
        assert_eq!(window.room(), 0, "replies above an open sequence are kept by the cluster still");
        window.answer(1);
        assert_eq!(window.room(), WINDOW_MAX as usize);
    }
}
