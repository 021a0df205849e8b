//! Failed blocks that rest before they are tried again, longer every time, so that a poisoned block blocks nobody.

use farshore_types::{BlockKey, LocalTime, LogIndex};
use std::collections::{BTreeMap, BTreeSet};

/// Most failed blocks that rest; at the bound a further one goes back into the order, to be met again when the cursor
/// starts over.
pub const RESTING_MAX: usize = 65_536;
/// How long a failed block rests: doubled with every failure, within these bounds.
pub const REST_MIN_US: LocalTime = 1_000_000;
pub const REST_MAX_US: LocalTime = 300_000_000;
/// Doublings after which the longest rest is reached for certain; more would only overflow.
const DOUBLINGS_MAX: u32 = 20;
const _: () = assert!(REST_MIN_US << DOUBLINGS_MAX > REST_MAX_US);

#[derive(Clone, Copy, Debug)]
struct Rest {
    tries: u32,
    until: LocalTime,
    added: LogIndex,
}

/// All blocks that rest, and what is known of the failures of those that have woken and are not settled yet.
#[derive(Default)]
pub(crate) struct Resting {
    rests: BTreeMap<BlockKey, Rest>,
    wakes: BTreeSet<(LocalTime, BlockKey)>,
    /// The lowest place that the bound has put back into the order.
    spilled: Option<LogIndex>,
}

impl Resting {
    /// A task for this block failed once more: how often that makes.
    pub fn fail(&mut self, block: BlockKey, added: LogIndex, now: LocalTime) -> u32 {
        let tries = self.rests.get(&block).map_or(0, |rest| rest.tries).saturating_add(1);
        self.leave_line(block);
        if self.rests.len() >= RESTING_MAX && !self.rests.contains_key(&block) {
            self.spilled = Some(self.spilled.map_or(added, |lowest| lowest.min(added)));
            return tries;
        }
        let until = now.saturating_add((REST_MIN_US << (tries - 1).min(DOUBLINGS_MAX)).min(REST_MAX_US));
        self.rests.insert(block, Rest { tries, until, added });
        self.wakes.insert((until, block));
        tries
    }

    fn leave_line(&mut self, block: BlockKey) {
        if let Some(rest) = self.rests.get(&block) {
            self.wakes.remove(&(rest.until, block));
        }
    }

    /// Forgets a block's failures.
    pub fn forget(&mut self, block: BlockKey) {
        self.leave_line(block);
        self.rests.remove(&block);
    }

    pub fn is_resting(&self, block: BlockKey, now: LocalTime) -> bool {
        self.rests.get(&block).is_some_and(|rest| rest.until > now)
    }

    /// The next block that has rested, with its place in the order.
    pub fn wake_one(&mut self, now: LocalTime) -> Option<(LogIndex, BlockKey)> {
        let &(until, block) = self.wakes.first().filter(|(until, _)| *until <= now)?;
        self.wakes.remove(&(until, block));
        Some((self.rests.get(&block).expect("what wakes has rested").added, block))
    }

    /// From where the order must be gone through again, once nobody rests any more.
    pub fn take_spilled(&mut self) -> Option<LogIndex> {
        if self.wakes.is_empty() { self.spilled.take() } else { None }
    }
}
