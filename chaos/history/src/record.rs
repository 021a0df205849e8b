//! What became of operations, written down as they begin and end.

use crate::{Answer, Answered, Call, Operation};

/// An operation in a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId(usize);

/// The operations of all clients of one clock.
#[derive(Debug, Default)]
pub struct Record {
    operations: Vec<Operation>,
    last: u64,
}

impl Record {
    /// A stamp after all others: what happened in this order must be told in this order, however coarse the clock is.
    fn stamp(&mut self, now: u64) -> u64 {
        self.last = now.max(self.last + 1);
        self.last
    }

    /// A client is about to ask. Before it is sent, or its effect could come before its call.
    pub fn begin(&mut self, now: u64, client: u32, group: u64, call: Call) -> RecordId {
        let called = self.stamp(now);
        self.operations.push(Operation { client, group, called, call, answered: None });
        RecordId(self.operations.len() - 1)
    }

    /// The answer came. One that never comes is not recorded: its operation stays unknown.
    pub fn end(&mut self, now: u64, id: RecordId, answer: Answer, index: Option<u64>) {
        let at = self.stamp(now);
        self.operations[id.0].answered = Some(Answered { at, answer, index });
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}
