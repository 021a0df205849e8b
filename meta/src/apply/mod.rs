//! The shared state machine: one shared entry in, outcomes and changes out. Deterministic (law 4): time and ids come from
//! the entry and the header, iteration follows keys, and nothing but [`SharedTxn`] is in reach.
//!
//! Every operation checks first and writes after, so that one that fails has changed nothing. A storage error leaves the
//! transaction half-done: the caller drops it and stops the node (law 5).

mod content;
mod control;
mod issue;
mod lease;
#[cfg(test)]
mod limits;
mod op;
mod rename;
mod session;
mod tree;

use crate::change::{Applied, Changes, Event, Touched};
use crate::header::{Header, header};
use crate::inode::Inode;
use crate::key::{self, Key};
use crate::kv::{KvWrite, Space, StorageError};
use crate::row::{Usage, encode};
use crate::txn::{SharedRead, SharedTxn};
use farshore_types::{Chain, ErrorKind, Ino, LogIndex, Outcome, SessionId, SharedBody, SharedEntry, Timestamp, VolumeRecord};
use std::collections::BTreeMap;

pub use content::{MAX_COMMIT_SLICES, MAX_FILE_SIZE};
pub use control::{MAX_SESSION_TEXT, MAX_SESSIONS};
pub use issue::MAX_ALLOC_SLICES;
pub(crate) use issue::issued_range;
pub use lease::{MAX_ALLOC_INOS, MAX_GIVE_BACK, RECALL_US};
pub use op::MAX_LINKS;
use session::Talk;
pub use session::{MAX_ISSUED_RANGES, MAX_UNACKNOWLEDGED};

/// An entry with its place in the history, as the judge has assigned it (law 1).
#[derive(Clone, Copy, Debug)]
pub struct Stamped<'a> {
    /// The header's index + 1.
    pub index: LogIndex,
    /// The chain after this entry.
    pub chain: Chain,
    pub entry: &'a SharedEntry,
}

/// Why an operation was not done: a kind becomes the reply, a storage error never does (law 5).
pub(crate) enum Fail {
    Kind(ErrorKind),
    Storage(StorageError),
}

impl From<ErrorKind> for Fail {
    fn from(kind: ErrorKind) -> Self {
        Fail::Kind(kind)
    }
}

impl From<StorageError> for Fail {
    fn from(error: StorageError) -> Self {
        Fail::Storage(error)
    }
}

/// Storage errors apart from the outcome of an operation.
pub(crate) fn outcome<T>(result: Result<T, Fail>) -> Result<Result<T, ErrorKind>, StorageError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fail::Kind(kind)) => Ok(Err(kind)),
        Err(Fail::Storage(error)) => Err(error),
    }
}

/// Keys that most requests write: a create's name, inode and directory.
const KEYS_OF_A_REQUEST: usize = 3;
/// What most requests touch: a create's name and directory.
const TOUCHED_BY_A_REQUEST: usize = 2;

/// Applies the entry after the header's. The entry must be [`crate::admissible`]; state that could not hold it is a bug,
/// not an error.
pub fn apply_shared(kv: &mut dyn KvWrite, stamped: &Stamped) -> Result<Applied, StorageError> {
    let header = header(kv)?;
    assert_eq!(stamped.index, header.index.next(), "law 1: LogIndex is dense");
    let admitted = crate::admissible(&header, stamped.entry);
    assert_eq!(admitted, Ok(()), "the caller asks `admissible` before it stamps an entry");
    let mut apply = Apply::new(kv, header, stamped)?;
    let outcomes = match &stamped.entry.body {
        SharedBody::Batch(requests) => {
            let mut outcomes = Vec::with_capacity(requests.len());
            apply.txn.reserve(requests.len() * KEYS_OF_A_REQUEST);
            apply.changes.touched.reserve(requests.len() * TOUCHED_BY_A_REQUEST);
            for request in requests {
                outcomes.push(apply.request(request)?);
            }
            outcomes
        }
        SharedBody::Control(control) => vec![outcome(apply.control(control))?],
    };
    apply.finish(outcomes)
}

/// One entry being applied.
pub(crate) struct Apply<'a> {
    pub txn: SharedTxn<'a>,
    pub header: Header,
    pub usage: Usage,
    pub volume: Option<VolumeRecord>,
    pub index: LogIndex,
    /// The entry's time, never before that of an earlier entry.
    pub now: Timestamp,
    /// Whose request is being applied; `None` for a control entry.
    pub session: Option<SessionId>,
    /// Tells the pieces of one entry apart.
    pub sub: u16,
    /// The sessions whose requests the entry carries, as far as they got.
    pub talks: BTreeMap<SessionId, Talk>,
    pub changes: Changes,
}

impl<'a> Apply<'a> {
    fn new(kv: &'a mut dyn KvWrite, mut header: Header, stamped: &Stamped) -> Result<Self, StorageError> {
        let volume = crate::header::volume(kv)?;
        let txn = SharedTxn::new(kv);
        let usage = txn.row(key::USAGE)?.unwrap_or_default();
        header.index = stamped.index;
        header.chain = stamped.chain;
        header.time = header.time.max(stamped.entry.time);
        Ok(Apply {
            txn,
            volume,
            usage,
            index: stamped.index,
            now: Timestamp::from_log_time(header.time),
            header,
            session: None,
            sub: 0,
            talks: BTreeMap::new(),
            changes: Changes::default(),
        })
    }

    fn finish(mut self, outcomes: Vec<Outcome>) -> Result<Applied, StorageError> {
        self.put_talks()?;
        if self.volume.is_some() {
            self.txn.put(key::USAGE, encode(&self.usage))?;
        }
        self.txn.put(key::HEADER, self.header.row())?;
        self.txn.finish(self.index)?;
        Ok(Applied { index: self.index, outcomes, changes: self.changes })
    }

    pub fn touch(&mut self, what: Touched) {
        self.changes.touched.push((self.session, what));
    }

    pub fn event(&mut self, event: Event) {
        self.changes.events.push(event);
    }

    /// Whether no key starts with this one.
    pub fn has_none(&self, prefix: &Key) -> Result<bool, StorageError> {
        Ok(self.txn.rows(prefix, &prefix.end())?.next().transpose()?.is_none())
    }

    /// An inode whose number was issued just now.
    pub fn put_new_inode(&mut self, ino: Ino, inode: &Inode) -> Result<(), StorageError> {
        self.txn.put_new(&key::inode(ino), encode(inode))
    }

    pub fn put_inode(&mut self, ino: Ino, inode: &Inode) -> Result<(), StorageError> {
        self.txn.put(&key::inode(ino), encode(inode))
    }

    /// An inode that another row names: its absence is damage.
    pub fn named_inode(&self, ino: Ino) -> Result<Inode, StorageError> {
        let key = key::inode(ino);
        self.txn.row(&key)?.ok_or_else(|| StorageError::damaged(Space::Shared, &key, "a name leads to no inode"))
    }

    /// An inode that a client names by number; a number that is not there any more is stale.
    pub fn inode(&self, ino: Ino) -> Result<Inode, Fail> {
        Ok(self.txn.row(&key::inode(ino))?.ok_or(ErrorKind::Stale)?)
    }
}
