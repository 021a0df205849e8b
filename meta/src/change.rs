//! What an applied entry changed, for the ledger, the invalidations and the leader's memory.

use farshore_types::{BucketId, ClusterId, Ino, Lineage, LogIndex, LogTime, Outcome, SessionId, SliceId};

/// A slice that became live: its blocks live from `added` on (law 13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceAdded {
    pub id: SliceId,
    /// Length in bytes.
    pub size: u32,
    pub added: LogIndex,
    pub time: LogTime,
    /// The bucket that holds its blocks already; derived from the session (law 12).
    pub origin: Option<BucketId>,
}

/// A slice that no file names any more: its blocks lived in `[added, dropped)`.
/// An entry of several requests may add and drop one slice: it is in both lists, and the interval is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceDropped {
    pub id: SliceId,
    pub size: u32,
    pub added: LogIndex,
    pub dropped: LogIndex,
    pub origin: Option<BucketId>,
}

/// What other clients may have cached and must forget.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// Attributes or content of an inode.
    Inode(Ino),
    /// The entry of this name in a directory.
    Entry { parent: Ino, name: Vec<u8> },
}

impl Touched {
    /// The inode, or the directory of the entry.
    pub fn ino(&self) -> Ino {
        match self {
            Touched::Inode(ino) | Touched::Entry { parent: ino, .. } => *ino,
        }
    }
}

/// What the parts around the state machine must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    SessionOpened(SessionId),
    SessionEnded(SessionId),
    /// An unlinked inode waits for a purge.
    Orphaned(Ino),
    /// Others want a directory that this session holds; it hears of that as of any change, whatever it has seen of it.
    Recalled {
        holder: SessionId,
        directory: Ino,
    },
    /// A new epoch, or a rewind: the lineage as it now is.
    Lineage(Lineage),
    Roster {
        cluster: ClusterId,
        on: bool,
    },
    Formatted,
    BucketReplaced(farshore_types::RegionId),
}

/// Everything that one entry changed. After a rewind `added` holds the slices that are live again and `removed` those
/// that were never made; after an ordinary entry `removed` is empty and `rewound` is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<SliceAdded>,
    pub dropped: Vec<SliceDropped>,
    /// Slices whose add was undone by a rewind.
    pub removed: Vec<SliceAdded>,
    /// Each with the session that caused it, which never receives it (law 29).
    pub touched: Vec<(Option<SessionId>, Touched)>,
    pub events: Vec<Event>,
    /// Set by a rewind: the index that is now the last one.
    pub rewound: Option<LogIndex>,
}

/// The result of applying one shared entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub index: LogIndex,
    /// One for each request of a batch; exactly one for a control entry.
    pub outcomes: Vec<Outcome>,
    pub changes: Changes,
}
