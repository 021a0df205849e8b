//! Values of shared rows. The leading byte is a format version (4 bits) and what the kind of row likes to put beside it (4
//! bits). Then the rows of which there is one a file, inodes, entries and slices, are packed by hand; the others are
//! postcard. Nothing is stored that the key or another field gives: state is counted in bytes a file (decision 0032).

use crate::kv::{Space, StorageError};
use crate::packed::{self, BASE, Unpack, put_number, put_time};
use farshore_types::{Attr, BucketId, Incarnation, Ino, LogIndex, LogTime, NodeKind, RegionId, Sequence, SliceId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of every row's encoding. A row of another version is damage to this build, which then stops (law 4).
const ROW_VERSION: u8 = 2;
/// The bits below the version.
const SMALL_BITS: u32 = 4;
/// Size that `stat` shows for a directory.
const DIRECTORY_SIZE: u64 = 4096;

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

/// What an inode is, with what only this kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    File { size: u64, ground: Option<Ground> },
    Directory,
    Symlink { target: Vec<u8> },
    Fifo,
    Socket,
    CharDevice { rdev: u32 },
    BlockDevice { rdev: u32 },
}

/// A file's piece at its first byte, when no piece of chunk 0 lies below it. Most files have one block and this one piece,
/// and so no row for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ground {
    /// Never a hole.
    pub slice: SliceId,
    /// All of the slice, in bytes.
    pub length: u32,
}

impl Ground {
    pub fn piece(self) -> Piece {
        Piece { position: 0, length: self.length, offset: 0, slice: self.slice }
    }
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub body: Body,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// The directory that names it. Of an inode with several links the `l` rows tell, and this is stale.
    pub parent: Ino,
    pub version: LogIndex,
    pub ctime: Timestamp,
    /// `None`: equal to `ctime`.
    pub mtime: Option<Timestamp>,
    /// `None`: equal to `ctime`.
    pub atime: Option<Timestamp>,
}

impl Inode {
    pub fn kind(&self) -> NodeKind {
        match self.body {
            Body::File { .. } => NodeKind::File,
            Body::Directory => NodeKind::Directory,
            Body::Symlink { .. } => NodeKind::Symlink,
            Body::Fifo => NodeKind::Fifo,
            Body::Socket => NodeKind::Socket,
            Body::CharDevice { .. } => NodeKind::CharDevice,
            Body::BlockDevice { .. } => NodeKind::BlockDevice,
        }
    }

    pub fn is_directory(&self) -> bool {
        self.body == Body::Directory
    }

    pub fn atime(&self) -> Timestamp {
        self.atime.unwrap_or(self.ctime)
    }

    pub fn mtime(&self) -> Timestamp {
        self.mtime.unwrap_or(self.ctime)
    }

    /// Sets all three times; equal ones are stored once.
    pub fn set_times(&mut self, atime: Timestamp, mtime: Timestamp, ctime: Timestamp) {
        self.ctime = ctime;
        self.atime = (atime != ctime).then_some(atime);
        self.mtime = (mtime != ctime).then_some(mtime);
    }

    /// Its attributes changed at `now`, its content did not.
    pub fn changed(&mut self, now: Timestamp, version: LogIndex) {
        self.set_times(self.atime(), self.mtime(), now);
        self.version = version;
    }

    /// Its content changed at `now`.
    pub fn modified(&mut self, now: Timestamp, version: LogIndex) {
        self.set_times(self.atime(), now, now);
        self.version = version;
    }

    pub fn attr(&self, ino: Ino) -> Attr {
        let (size, rdev) = match &self.body {
            Body::File { size, .. } => (*size, 0),
            Body::Directory => (DIRECTORY_SIZE, 0),
            Body::Symlink { target } => (target.len() as u64, 0),
            Body::CharDevice { rdev } | Body::BlockDevice { rdev } => (0, *rdev),
            Body::Fifo | Body::Socket => (0, 0),
        };
        Attr {
            ino,
            kind: self.kind(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size,
            rdev,
            atime: self.atime(),
            mtime: self.mtime(),
            ctime: self.ctime,
            version: self.version,
        }
    }
}

/// Kinds by their number in rows.
const KINDS: [NodeKind; 7] = [
    NodeKind::File,
    NodeKind::Directory,
    NodeKind::Symlink,
    NodeKind::Fifo,
    NodeKind::Socket,
    NodeKind::CharDevice,
    NodeKind::BlockDevice,
];

fn kind_number(kind: NodeKind) -> u8 {
    KINDS.iter().position(|of_number| *of_number == kind).expect("all kinds have a number") as u8
}

/// What an inode's row has beyond the usual.
mod has {
    /// Another count of links than a new inode of its kind.
    pub const LINKS: u8 = 1 << 0;
    pub const MTIME: u8 = 1 << 1;
    pub const ATIME: u8 = 1 << 2;
    pub const GROUND: u8 = 1 << 3;
    /// The ground ends elsewhere than the file.
    pub const GROUND_LENGTH: u8 = 1 << 4;
    pub const ALL: u8 = (1 << 5) - 1;
}

/// A new file's row is so many bytes longer than it need be, as it will be once its content is committed: LMDB has filled the
/// page, and a row that grows splits it. The bytes are zeros.
const ROOM: [u8; 12] = [0; 12];

/// Links of a new inode.
fn usual_links(kind: NodeKind) -> u32 {
    if kind == NodeKind::Directory { 2 } else { 1 }
}

/// Kind beside the version. Then a byte of [`has`]; mode, owner and group; parent; version; ctime, and as distances from it
/// mtime and atime; links; what only this kind has.
impl Value for Inode {
    fn small(&self) -> u8 {
        kind_number(self.kind())
    }

    fn write(&self, to: &mut Vec<u8>) {
        let at = to.len();
        let mut more = 0;
        to.push(more);
        put_number(to, self.mode);
        put_number(to, self.uid);
        put_number(to, self.gid);
        to.extend_from_slice(&packed::id(self.parent.0));
        put_number(to, self.version.0);
        put_time(to, BASE, self.ctime);
        for (time, bit) in [(self.mtime, has::MTIME), (self.atime, has::ATIME)] {
            if let Some(time) = time {
                more |= bit;
                put_time(to, self.ctime.secs, time);
            }
        }
        if self.nlink != usual_links(self.kind()) {
            more |= has::LINKS;
            put_number(to, self.nlink);
        }
        match &self.body {
            Body::File { size, ground } => {
                put_number(to, *size);
                if *size == 0 && ground.is_none() {
                    to.extend_from_slice(&ROOM);
                }
                if let Some(ground) = ground {
                    more |= has::GROUND;
                    to.extend_from_slice(&packed::id(ground.slice.0));
                    if u64::from(ground.length) != *size {
                        more |= has::GROUND_LENGTH;
                        put_number(to, ground.length);
                    }
                }
            }
            Body::Symlink { target } => to.extend_from_slice(target),
            Body::CharDevice { rdev } | Body::BlockDevice { rdev } => put_number(to, *rdev),
            Body::Directory | Body::Fifo | Body::Socket => {}
        }
        to[at] = more;
    }

    fn read(small: u8, from: &mut Unpack) -> Option<Inode> {
        let kind = *KINDS.get(usize::from(small))?;
        let more = from.byte().filter(|more| more & !has::ALL == 0)?;
        let (mode, uid, gid) = (from.number()?, from.number()?, from.number()?);
        let parent = Ino(from.id()?);
        let version = LogIndex(from.number()?);
        let ctime = from.time(BASE)?;
        let mtime = if more & has::MTIME != 0 { Some(from.time(ctime.secs)?) } else { None };
        let atime = if more & has::ATIME != 0 { Some(from.time(ctime.secs)?) } else { None };
        let nlink = if more & has::LINKS != 0 { from.number()? } else { usual_links(kind) };
        let body = match kind {
            NodeKind::File => {
                let size = from.number()?;
                if size == 0 && more & has::GROUND == 0 && from.rest() != ROOM {
                    return None;
                }
                let ground = if more & has::GROUND != 0 { Some(read_ground(more, size, from)?) } else { None };
                Body::File { size, ground }
            }
            NodeKind::Directory => Body::Directory,
            NodeKind::Symlink => Body::Symlink { target: from.rest().to_vec() },
            NodeKind::Fifo => Body::Fifo,
            NodeKind::Socket => Body::Socket,
            NodeKind::CharDevice => Body::CharDevice { rdev: from.number()? },
            NodeKind::BlockDevice => Body::BlockDevice { rdev: from.number()? },
        };
        Some(Inode { body, mode, uid, gid, nlink, parent, version, ctime, mtime, atime })
    }
}

fn read_ground(more: u8, size: u64, from: &mut Unpack) -> Option<Ground> {
    let slice = SliceId(from.id()?);
    let length = if more & has::GROUND_LENGTH != 0 { from.number()? } else { size.try_into().ok()? };
    Some(Ground { slice, length })
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

/// A piece of a chunk: later keys lie above earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub position: u32,
    pub length: u32,
    pub offset: u32,
    pub slice: SliceId,
}

/// A committed slice, as every ledger and full sync needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceRecord {
    /// The entry that committed it.
    pub added: LogIndex,
    pub time: LogTime,
    /// Length in bytes.
    pub size: u32,
    /// The bucket that held its blocks first (law 12).
    pub origin: Option<BucketId>,
    /// CRC-32C of each block, in order.
    pub checksums: Vec<u32>,
    pub ino: Ino,
    pub chunk: u32,
}

/// What a slice's row has: an origin; another chunk than the first.
const HAS_ORIGIN: u8 = 1 << 0;
const HAS_CHUNK: u8 = 1 << 1;
/// Bytes of a block's checksum.
const CHECKSUM: usize = 4;

/// What it has beside the version; the checksums are the rest of the row.
impl Value for SliceRecord {
    fn small(&self) -> u8 {
        let origin = if self.origin.is_some() { HAS_ORIGIN } else { 0 };
        origin | if self.chunk != 0 { HAS_CHUNK } else { 0 }
    }

    fn write(&self, to: &mut Vec<u8>) {
        put_number(to, self.added.0);
        put_time(to, BASE, Timestamp::from_log_time(self.time));
        put_number(to, self.size);
        if let Some(BucketId { region, incarnation }) = self.origin {
            to.push(region.0);
            put_number(to, incarnation.0);
        }
        to.extend_from_slice(&packed::id(self.ino.0));
        if self.chunk != 0 {
            put_number(to, self.chunk);
        }
        self.checksums.iter().for_each(|checksum| to.extend_from_slice(&checksum.to_be_bytes()));
    }

    fn read(small: u8, from: &mut Unpack) -> Option<SliceRecord> {
        if small & !(HAS_ORIGIN | HAS_CHUNK) != 0 {
            return None;
        }
        let added = LogIndex(from.number()?);
        let time = from.time(BASE)?.to_log_time()?;
        let size = from.number()?;
        let origin = if small & HAS_ORIGIN != 0 {
            Some(BucketId { region: RegionId(from.byte()?), incarnation: Incarnation(from.number()?) })
        } else {
            None
        };
        let ino = Ino(from.id()?);
        let chunk = if small & HAS_CHUNK != 0 { from.number()? } else { 0 };
        let (checksums, []) = from.rest().as_chunks::<CHECKSUM>() else { return None };
        let checksums = checksums.iter().map(|checksum| u32::from_be_bytes(*checksum)).collect();
        Some(SliceRecord { added, time, size, origin, checksums, ino, chunk })
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

/// What the volume holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Bytes of all committed slices.
    pub bytes: u64,
    /// Inodes, those that wait for a purge included.
    pub inodes: u64,
}
