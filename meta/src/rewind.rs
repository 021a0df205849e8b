//! Rewind (law 20): the shared state goes back to an earlier index through before-images, in one transaction, and is then
//! byte-equal to a fresh replay up to there. RaftIndex goes on; only LogIndex goes back.

use crate::change::{Changes, Event, SliceAdded};
use crate::digest::RowHasher;
use crate::header::{digest, header, put_digest, volume};
use crate::inode::{Body, Inode};
use crate::key;
use crate::kv::{KvWrite, Space, StorageError};
use crate::row::{Held, Piece, decode, key_id, piece_key};
use crate::undo::{decode_undo, lowest_reachable, undo_key};
use farshore_types::{ClusterId, Digest, Ino, LogIndex, SessionId, SliceId, VolumeRecord};
use std::collections::BTreeMap;

/// Why a rewind was not done. Except after a storage error, the transaction is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    #[error("before-images reach down to index {lowest} only; a rewind to {to} needs a snapshot")]
    TooLow { to: LogIndex, lowest: LogIndex },
    #[error("index {to} was not reached yet; {applied} is applied")]
    Ahead { to: LogIndex, applied: LogIndex },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Undoes every entry above `to`. The changes name what lives again, what was never made, and what others must hear of;
/// everything cached of this volume is void.
pub fn rewind(kv: &mut dyn KvWrite, to: LogIndex) -> Result<Changes, RewindError> {
    let applied = header(kv)?.index;
    if to > applied {
        return Err(RewindError::Ahead { to, applied });
    }
    check_reach(kv, to, applied)?;
    let old_volume = volume(kv)?;
    let mut watched = Watched::default();
    let mut hasher = RowHasher::new(digest(kv)?);
    for index in (to.0 + 1..=applied.0).rev() {
        undo_one(kv, LogIndex(index), &mut hasher, &mut watched)?;
    }
    put_digest_of(kv, to, hasher.digest())?;
    let mut changes = compare(kv, watched, old_volume)?;
    let back = header(kv)?;
    assert_eq!(back.index, to, "law 20: the before-images lead to the index that they claim");
    changes.events.push(Event::Lineage(back.lineage));
    changes.rewound = Some(to);
    Ok(changes)
}

/// What others must hear of.
#[derive(Default)]
struct Watched {
    /// Rows as they were before the rewind.
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Slices of which there is one now and was none before, or the other way round.
    slices: BTreeMap<SliceId, Fate>,
}

/// What became of a slice.
enum Fate {
    LivesAgain(SliceAdded),
    Removed(SliceAdded),
}

impl Watched {
    /// An undone entry has brought back what it had dropped.
    fn appeared(&mut self, slice: SliceAdded) {
        // An id that was named once is never named again: what appears was never removed.
        self.slices.insert(slice.id, Fate::LivesAgain(slice));
    }

    /// An undone entry had added it.
    fn vanished(&mut self, slice: SliceAdded) {
        match self.slices.get(&slice.id) {
            // A later entry had dropped it.
            Some(Fate::LivesAgain(_)) => drop(self.slices.remove(&slice.id)),
            _ => drop(self.slices.insert(slice.id, Fate::Removed(slice))),
        }
    }
}

/// Whether every before-image from `applied` down to `to` is there.
fn check_reach(kv: &dyn crate::kv::KvRead, to: LogIndex, applied: LogIndex) -> Result<(), RewindError> {
    let mut lowest = applied;
    for row in kv.scan_back(Space::Undo, &undo_key(to.next()), Some(&undo_key(applied.next())))? {
        if row?.0 != undo_key(lowest) {
            break;
        }
        lowest = LogIndex(lowest.0 - 1);
    }
    assert!(lowest >= to, "the scan ends above `to`");
    if lowest == to { Ok(()) } else { Err(RewindError::TooLow { to, lowest: lowest.max(lowest_reachable(kv)?) }) }
}

fn undo_one(kv: &mut dyn KvWrite, index: LogIndex, hasher: &mut RowHasher, watched: &mut Watched) -> Result<(), StorageError> {
    let undo = undo_key(index);
    let row = kv.get(Space::Undo, &undo)?.ok_or_else(|| StorageError::damaged(Space::Undo, &undo, "the row vanished"))?.to_vec();
    for image in decode_undo(&undo, &row)? {
        let new = kv.get(Space::Shared, image.key)?;
        if is_watched(image.key) && !watched.rows.contains_key(image.key) {
            watched.rows.insert(image.key.to_vec(), new.map(<[u8]>::to_vec));
        }
        let (was, is) = (slice_in(image.key, new)?, slice_in(image.key, image.value)?);
        if was != is {
            was.into_iter().for_each(|slice| watched.vanished(slice));
            is.into_iter().for_each(|slice| watched.appeared(slice));
        }
        if let Some(new) = new {
            hasher.subtract(image.key, new);
        }
        match image.value {
            Some(old) => {
                hasher.add(image.key, old);
                kv.put(Space::Shared, image.key, old)?;
            }
            None => kv.delete(Space::Shared, image.key)?,
        }
    }
    kv.delete(Space::Undo, &undo)
}

/// The empty history has no digest row, as a fresh store has none.
fn put_digest_of(kv: &mut dyn KvWrite, to: LogIndex, digest: Digest) -> Result<(), StorageError> {
    if to == LogIndex(0) {
        assert_eq!(digest, Digest::default(), "law 2: the empty state has the empty sum");
        return kv.delete(Space::Shared, key::DIGEST);
    }
    put_digest(kv, digest)
}

fn is_watched(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(key::SESSION_TAG | key::ORPHAN_TAG | key::ROSTER_TAG)))
}

/// What became of the watched rows.
fn compare(kv: &dyn KvWrite, watched: Watched, old_volume: Option<VolumeRecord>) -> Result<Changes, StorageError> {
    let mut changes = Changes::default();
    for fate in watched.slices.into_values() {
        match fate {
            Fate::LivesAgain(slice) => changes.added.push(slice),
            Fate::Removed(slice) => changes.removed.push(slice),
        }
    }
    for (key, was) in watched.rows {
        let is = kv.get(Space::Shared, &key)?;
        let appeared = match (&was, is) {
            (None, Some(_)) => true,
            (Some(_), None) => false,
            _ => continue,
        };
        match key.first() {
            Some(&key::SESSION_TAG) => {
                let id = key.get(1..17).and_then(|id| id.try_into().ok()).map(SessionId);
                let id = id.ok_or_else(|| StorageError::damaged(Space::Shared, &key, "the key is no session's"))?;
                changes.events.push(if appeared { Event::SessionOpened(id) } else { Event::SessionEnded(id) });
            }
            Some(&key::ORPHAN_TAG) if appeared => changes.events.push(Event::Orphaned(Ino(key_id(&key, 1)?))),
            Some(&key::ROSTER_TAG) => {
                let cluster = ClusterId(key.get(1).copied().unwrap_or_default());
                changes.events.push(Event::Roster { cluster, on: appeared });
            }
            _ => {}
        }
    }
    for old in old_volume.iter().flat_map(|volume| &volume.regions) {
        if volume(kv)?.is_some_and(|new| new.region_by_id(old.id).is_some_and(|new| new != old)) {
            changes.events.push(Event::BucketReplaced(old.id));
        }
    }
    Ok(changes)
}

/// The slice that stands in a row.
fn slice_in(key: &[u8], value: Option<&[u8]>) -> Result<Option<SliceAdded>, StorageError> {
    let Some(value) = value else { return Ok(None) };
    let (Held { id, time, origin, .. }, size, added) = match key.first() {
        Some(&key::INODE_TAG) => match decode::<Inode>(key, value)?.body {
            Body::File { ground: Some(ground), .. } => (ground.slice, ground.length, ground.added),
            _ => return Ok(None),
        },
        Some(&key::PIECE_TAG) => match decode::<Piece>(key, value)? {
            Piece { slice: Some(slice), length, .. } => (slice, length, piece_key(key)?.1),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(SliceAdded { id, size, added, time, origin }))
}
