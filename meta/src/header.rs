//! The header: where in the history a state stands, and what the next entry continues from.

use crate::key;
use crate::kv::{KvRead, KvWrite, Space, StorageError};
use crate::row::{decode, encode};
use farshore_types::{
    Chain, ClusterId, ControlTime, Digest, Epoch, LEASES_VERSION, Lineage, LogIndex, LogTime, Slot, VolumeRecord,
};
use serde::{Deserialize, Serialize};

/// The version of the state machine at which a volume begins.
pub const FIRST_VERSION: u32 = 10;
/// The highest version of the state machine that this build knows; a volume is raised to it once every node of every
/// cluster on the roster has announced it (law 4). What came with each version:
///
/// 10. Kept replies are told as differences. No volume of an earlier version left this project; none is read (decision 0041).
/// 11. A session may hold a directory, and numbers for what it makes there.
pub const MACHINE_VERSION: u32 = LEASES_VERSION;
/// First counter of inode numbers: 1 is the root, 0 is none.
const FIRST_INO: u64 = 2;
/// First counter of slice ids: 0 is the hole.
const FIRST_SLICE: u64 = 1;

/// The position of a state and what every entry needs of it; decoded once for each entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last entry applied; 0 for the empty history.
    pub index: LogIndex,
    /// The chain at `index`.
    pub chain: Chain,
    pub lineage: Lineage,
    /// The slot of each epoch of the lineage, and the slice counter at which it started.
    pub slots: Vec<(Slot, u64)>,
    /// The version of the state machine that applies.
    pub version: u32,
    /// The largest time of an entry so far.
    pub time: LogTime,
    pub control: ControlTime,
    /// Whether only a start is admissible (law 21).
    pub frozen: bool,
    /// The slot of new ids: that of the lineage's head (law 7).
    pub slot: Slot,
    /// Counter of the next inode number.
    pub next_ino: u64,
    /// Counter of the next slice id.
    pub next_slice: u64,
    /// Open sessions.
    pub sessions: u32,
}

impl Default for Header {
    fn default() -> Self {
        Header {
            index: LogIndex(0),
            chain: Chain::default(),
            lineage: Lineage::default(),
            slots: Vec::new(),
            version: FIRST_VERSION,
            time: LogTime(0),
            control: ControlTime(0),
            frozen: false,
            slot: Slot(0),
            next_ino: FIRST_INO,
            next_slice: FIRST_SLICE,
            sessions: 0,
        }
    }
}

/// The header without what changes at a start only.
#[derive(Serialize, Deserialize)]
struct HeaderRow {
    index: LogIndex,
    chain: Chain,
    version: u32,
    time: LogTime,
    control: ControlTime,
    frozen: bool,
    next_ino: u64,
    next_slice: u64,
    sessions: u32,
}

/// An epoch with its slot.
#[derive(Serialize, Deserialize)]
struct LineageRow {
    epochs: Vec<(Epoch, Slot, u64)>,
}

impl Header {
    /// Whether slices issued under `slot` may still be committed: after an unplanned start, only those issued since
    /// (law 10). A start by another cluster than its parent's counts as unplanned.
    pub fn slot_is_open(&self, slot: Slot) -> bool {
        let epochs = self.lineage.0.iter().zip(&self.slots).rev();
        let mut next_owner: Option<ClusterId> = None;
        for (epoch, (of_epoch, _)) in epochs {
            if next_owner.is_some_and(|owner| owner != epoch.id.cluster) {
                return false;
            }
            if *of_epoch == slot {
                return true;
            }
            next_owner = Some(epoch.id.cluster);
        }
        false
    }

    /// Whether this history has issued the slice id with this slot and counter.
    pub fn has_issued(&self, slot: Slot, counter: u64) -> bool {
        let ends = self.slots.iter().skip(1).map(|(_, first)| *first).chain([self.next_slice]);
        self.slots.iter().zip(ends).any(|((of_epoch, first), end)| *of_epoch == slot && (*first..end).contains(&counter))
    }

    pub(crate) fn row(&self) -> Vec<u8> {
        encode(&HeaderRow {
            index: self.index,
            chain: self.chain,
            version: self.version,
            time: self.time,
            control: self.control,
            frozen: self.frozen,
            next_ino: self.next_ino,
            next_slice: self.next_slice,
            sessions: self.sessions,
        })
    }

    pub(crate) fn lineage_row(&self) -> Vec<u8> {
        let epochs = self.lineage.0.iter().zip(&self.slots).map(|(epoch, (slot, first))| (*epoch, *slot, *first)).collect();
        encode(&LineageRow { epochs })
    }
}

/// The header of a state; of an empty store, that of the empty history.
pub fn header(kv: &dyn KvRead) -> Result<Header, StorageError> {
    let Some(bytes) = kv.get(Space::Shared, key::HEADER)? else {
        return Ok(Header::default());
    };
    let row: HeaderRow = decode(key::HEADER, bytes)?;
    let epochs = match kv.get(Space::Shared, key::LINEAGE)? {
        Some(bytes) => decode::<LineageRow>(key::LINEAGE, bytes)?.epochs,
        None => Vec::new(),
    };
    Ok(Header {
        index: row.index,
        chain: row.chain,
        slot: epochs.last().map_or(Slot(0), |(_, slot, _)| *slot),
        slots: epochs.iter().map(|(_, slot, first)| (*slot, *first)).collect(),
        lineage: Lineage(epochs.into_iter().map(|(epoch, ..)| epoch).collect()),
        version: row.version,
        time: row.time,
        control: row.control,
        frozen: row.frozen,
        next_ino: row.next_ino,
        next_slice: row.next_slice,
        sessions: row.sessions,
    })
}

/// The volume record; `None` before the volume is formatted.
pub fn volume(kv: &dyn KvRead) -> Result<Option<VolumeRecord>, StorageError> {
    kv.get(Space::Shared, key::VOLUME)?.map(|bytes| decode(key::VOLUME, bytes)).transpose()
}

/// A cluster on the roster: it tails the changelog and holds deletions (law 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RosterMember {
    pub cluster: ClusterId,
    /// It no longer holds the log; it still holds deletions (law 25).
    pub needs_snapshot: bool,
}

/// The roster in order of cluster ids.
pub fn roster(kv: &dyn KvRead) -> Result<Vec<RosterMember>, StorageError> {
    let all = key::Key::tag(key::ROSTER_TAG);
    let mut members = Vec::new();
    for row in kv.scan(Space::Shared, &all, Some(&all.end()))? {
        let (key, value) = row?;
        let Some(cluster) = key.get(1) else {
            return Err(StorageError::damaged(Space::Shared, key, "the key is too short"));
        };
        members.push(RosterMember { cluster: ClusterId(*cluster), needs_snapshot: decode(key, value)? });
    }
    Ok(members)
}

/// The digest of the shared state, as kept; see [`crate::digest_of`] for the one computed afresh.
pub fn digest(kv: &dyn KvRead) -> Result<Digest, StorageError> {
    Ok(kv.get(Space::Shared, key::DIGEST)?.map(|bytes| decode(key::DIGEST, bytes)).transpose()?.unwrap_or_default())
}

pub(crate) fn put_digest(kv: &mut dyn KvWrite, digest: Digest) -> Result<(), StorageError> {
    kv.put(Space::Shared, key::DIGEST, &encode(&digest))
}
