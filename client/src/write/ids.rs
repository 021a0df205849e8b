//! Slice ids, taken from the cluster in ranges. An id belongs to the session that it was issued to (law 17), so a new
//! session begins with a new range.

use crate::session::{OpError, Session};
use farshore_types::{ErrorKind, Op, Reply, SliceId};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Ids taken at once.
const RANGE: u32 = 256;
/// How often a range may turn out to be an ended session's before the caller hears of it.
const ATTEMPTS_MAX: u32 = 4;

/// An id, and the session that may name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Issued {
    pub id: SliceId,
    pub generation: u64,
}

#[derive(Debug, Default)]
struct Range {
    next: u64,
    left: u32,
    generation: u64,
}

#[derive(Debug)]
pub(super) struct SliceIds {
    session: Arc<Session>,
    range: Mutex<Range>,
}

impl SliceIds {
    pub fn new(session: Arc<Session>) -> SliceIds {
        SliceIds { session, range: Mutex::default() }
    }

    /// An id that was never given to anyone.
    pub async fn next(&self) -> Result<Issued, OpError> {
        let mut range = self.range.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let generation = self.session.generation();
            if range.left > 0 && range.generation == generation {
                let issued = Issued { id: SliceId(range.next), generation };
                range.next += 1;
                range.left -= 1;
                return Ok(issued);
            }
            match self.session.call(Op::AllocSlices { count: RANGE }).await {
                Ok((Reply::Slices { first, count }, _)) => {
                    *range = Range { next: first.0, left: count, generation };
                }
                Ok(_) => return Err(OpError::Refused(ErrorKind::Io)),
                // Ids that nobody heard of are never used: nothing is in doubt.
                Err(OpError::SessionLost) => {}
                Err(error) => return Err(error),
            }
        }
        Err(OpError::SessionLost)
    }

    /// The present range is of no use: its epoch is over.
    pub async fn discard(&self) {
        self.range.lock().await.left = 0;
    }
}
