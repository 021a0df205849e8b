//! Values of shared rows: a leading format version, then postcard (varints). Nothing is stored that the key or another
//! field gives: state is counted in bytes a file.

use crate::kv::{Space, StorageError};
use farshore_types::{Attr, BucketId, Ino, LogIndex, LogTime, NodeKind, Sequence, SliceId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of every row's encoding. A row of another version is damage to this build, which then stops (law 4).
const ROW_VERSION: u8 = 1;
/// Size that `stat` shows for a directory.
const DIRECTORY_SIZE: u64 = 4096;

/// The bytes of a row's value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(ROW_VERSION);
    postcard::to_extend(value, bytes).expect("postcard fails only for lengths that are not known beforehand")
}

/// The value of a row's bytes; rests, other versions and nonsense are damage.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, StorageError> {
    let damaged = |what| StorageError::damaged(Space::Shared, key, what);
    match bytes.split_first() {
        Some((&ROW_VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged("bytes follow the value")),
            Err(_) => Err(damaged("the value cannot be read")),
        },
        Some(_) => Err(damaged("the value has a version that this build does not know")),
        None => Err(damaged("the value is empty")),
    }
}

/// A number in the rest of a key.
pub(crate) fn key_number(key: &[u8], at: usize) -> Result<u64, StorageError> {
    crate::key::number(key, at).ok_or_else(|| StorageError::damaged(Space::Shared, key, "the key is too short"))
}

/// What an inode is, with what only this kind has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    File { size: u64 },
    Directory,
    Symlink { target: Vec<u8> },
    Fifo,
    Socket,
    CharDevice { rdev: u32 },
    BlockDevice { rdev: u32 },
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
            Body::File { size } => (*size, 0),
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

/// A directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dentry {
    pub ino: Ino,
    pub kind: NodeKind,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
