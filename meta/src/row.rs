//! Values of shared rows. The leading byte is a format version (4 bits) and what the kind of row likes to put beside it (4
//! bits). Then the rows of which there are many, inodes, entries, pieces and places, are packed by hand; the others are
//! postcard. Nothing is stored that the key or another field gives: state is counted in bytes a file (decision 0032).

use crate::kv::{Space, StorageError};
use crate::packed::{self, BASE, Unpack, put_number, put_time};
use farshore_types::{BucketId, Incarnation, Ino, LogIndex, LogTime, NodeKind, RegionId, Sequence, SliceId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of every row's encoding. A row of another version is damage to this build, which then stops (law 4).
const ROW_VERSION: u8 = 5;
/// The bits below the version.
const SMALL_BITS: u32 = 4;
/// What a row's value holds.
pub(crate) trait Value: Sized {
    /// Four bits for the leading byte.
    fn small(&self) -> u8 {
        0
    }

    fn write(&self, to: &mut Vec<u8>);

    /// Takes the value from the front of `from`; `None` when that is none.
    fn read(small: u8, from: &mut Unpack) -> Option<Self>;
}

impl<T: Serialize + DeserializeOwned> Value for T {
    fn write(&self, to: &mut Vec<u8>) {
        *to =
            postcard::to_extend(self, std::mem::take(to)).expect("postcard fails only for lengths that are not known beforehand");
    }

    fn read(small: u8, from: &mut Unpack) -> Option<Self> {
        let (value, rest) = postcard::take_from_bytes(from.0).ok()?;
        from.0 = rest;
        (small == 0).then_some(value)
    }
}

/// The bytes of a row's value.
pub(crate) fn encode<T: Value>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(ROW_VERSION << SMALL_BITS | value.small());
    value.write(&mut bytes);
    bytes
}

/// The value of a row's bytes; rests, other versions and nonsense are damage.
pub(crate) fn decode<T: Value>(key: &[u8], bytes: &[u8]) -> Result<T, StorageError> {
    let damaged = |what| StorageError::damaged(Space::Shared, key, what);
    match bytes.split_first() {
        Some((first, rest)) if first >> SMALL_BITS == ROW_VERSION => {
            let mut rest = Unpack(rest);
            match T::read(first & ((1 << SMALL_BITS) - 1), &mut rest) {
                Some(value) if rest.0.is_empty() => Ok(value),
                Some(_) => Err(damaged("bytes follow the value")),
                None => Err(damaged("the value cannot be read")),
            }
        }
        Some(_) => Err(damaged("the value has a version that this build does not know")),
        None => Err(damaged("the value is empty")),
    }
}

/// A fixed-width number in the rest of a key.
pub(crate) fn key_number(key: &[u8], at: usize) -> Result<u64, StorageError> {
    crate::key::number(key, at).ok_or_else(|| StorageError::damaged(Space::Shared, key, "the key is too short"))
}

/// The packed id at `at` of a key.
pub(crate) fn key_id(key: &[u8], at: usize) -> Result<u64, StorageError> {
    let id = key.get(at..).and_then(|rest| Unpack(rest).id());
    id.ok_or_else(|| StorageError::damaged(Space::Shared, key, "the key has no id where it should"))
}

/// The chunk in the key of a piece, and the entry that laid it.
pub(crate) fn piece_key(key: &[u8]) -> Result<(u32, LogIndex), StorageError> {
    let mut ids = Unpack(key.get(1..).unwrap_or_default());
    let [_ino, chunk, added] = [ids.id(), ids.id(), ids.id()];
    let chunk = chunk.and_then(|chunk| u32::try_from(chunk).ok());
    let both = chunk.zip(added.map(LogIndex));
    both.ok_or_else(|| StorageError::damaged(Space::Shared, key, "the key of a piece names no chunk or no entry"))
}

/// A committed slice, which stands with its one piece and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub id: SliceId,
    pub time: LogTime,
    pub origin: Option<BucketId>,
    pub checksums: Vec<u32>,
}

/// Kinds by their number in rows.
pub(crate) const KINDS: [NodeKind; 7] = [
    NodeKind::File,
    NodeKind::Directory,
    NodeKind::Symlink,
    NodeKind::Fifo,
    NodeKind::Socket,
    NodeKind::CharDevice,
    NodeKind::BlockDevice,
];

pub(crate) fn kind_number(kind: NodeKind) -> u8 {
    KINDS.iter().position(|of_number| *of_number == kind).expect("all kinds have a number") as u8
}

pub(crate) fn put_origin(to: &mut Vec<u8>, origin: Option<BucketId>) {
    if let Some(BucketId { region, incarnation }) = origin {
        to.push(region.0);
        put_number(to, incarnation.0);
    }
}

pub(crate) fn read_origin(has: bool, from: &mut Unpack) -> Option<Option<BucketId>> {
    if !has {
        return Some(None);
    }
    Some(Some(BucketId { region: RegionId(from.byte()?), incarnation: Incarnation(from.number()?) }))
}

/// Bytes of a block's checksum.
const CHECKSUM: usize = 4;

pub(crate) fn put_checksums(to: &mut Vec<u8>, checksums: &[u32]) {
    checksums.iter().for_each(|checksum| to.extend_from_slice(&checksum.to_be_bytes()));
}

/// They are the rest of a row.
pub(crate) fn read_checksums(from: &mut Unpack) -> Option<Vec<u32>> {
    let (checksums, []) = from.rest().as_chunks::<CHECKSUM>() else { return None };
    Some(checksums.iter().map(|checksum| u32::from_be_bytes(*checksum)).collect())
}

/// A directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dentry {
    pub ino: Ino,
    pub kind: NodeKind,
}

/// Kind beside the version.
impl Value for Dentry {
    fn small(&self) -> u8 {
        kind_number(self.kind)
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&packed::id(self.ino.0));
    }

    fn read(small: u8, from: &mut Unpack) -> Option<Dentry> {
        Some(Dentry { kind: *KINDS.get(usize::from(small))?, ino: Ino(from.id()?) })
    }
}

/// A piece of a chunk: later keys lie above earlier ones. The key says which entry laid it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub position: u32,
    pub length: u32,
    /// All of it; `None`: a hole.
    pub slice: Option<Held>,
}

/// What a piece has, if it is no hole: a slice; or one of which a bucket is the origin.
const HAS_SLICE: u8 = 1;
const HAS_SLICE_FROM: u8 = 2;

/// What it has beside the version. Then position and length, and the slice: its id, time, origin and checksums.
impl Value for Piece {
    fn small(&self) -> u8 {
        match &self.slice {
            None => 0,
            Some(Held { origin: None, .. }) => HAS_SLICE,
            Some(Held { origin: Some(_), .. }) => HAS_SLICE_FROM,
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        put_number(to, self.position);
        put_number(to, self.length);
        if let Some(Held { id, time, origin, checksums }) = &self.slice {
            to.extend_from_slice(&packed::id(id.0));
            put_time(to, BASE, Timestamp::from_log_time(*time));
            put_origin(to, *origin);
            put_checksums(to, checksums);
        }
    }

    fn read(small: u8, from: &mut Unpack) -> Option<Piece> {
        let (position, length) = (from.number()?, from.number()?);
        let slice = match small {
            0 => None,
            HAS_SLICE | HAS_SLICE_FROM => {
                let (id, time) = (SliceId(from.id()?), from.time(BASE)?.to_log_time()?);
                let origin = read_origin(small == HAS_SLICE_FROM, from)?;
                Some(Held { id, time, origin, checksums: read_checksums(from)? })
            }
            _ => return None,
        };
        Some(Piece { position, length, slice })
    }
}

/// How far a session's requests got (law 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Replies up to this one (inclusive) are dropped.
    pub acknowledged: Sequence,
    /// The last request that was done.
    pub high: Sequence,
    /// How many `I` rows the session has.
    pub ranges: u32,
}

/// Inode numbers that a session may use still: `next..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    pub next: u64,
    pub end: u64,
}

/// What the volume holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Bytes of all committed slices.
    pub bytes: u64,
    /// Inodes, those that wait for a purge included.
    pub inodes: u64,
}
