//! What clients ask: mutating operations ([`Op`], exactly once, law 10) and queries ([`Query`], read only).
//!
//! The order of the variants is part of the persisted and wire formats: append, never reorder.

use crate::{Attr, ErrorKind, Ino, NodeKind, SliceId, SliceView, Timestamp};
use serde::{Deserialize, Serialize};

/// Longest name of a directory entry in bytes, inclusive.
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link in bytes, inclusive.
pub const MAX_SYMLINK: usize = 4096;

/// What [`Op::Make`] creates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewNode {
    File,
    Directory,
    Symlink(#[serde(with = "serde_bytes_vec")] Vec<u8>),
    Fifo,
    Socket,
    CharDevice(u32),
    BlockDevice(u32),
}

impl NewNode {
    /// The kind of inode that it makes.
    pub fn kind(&self) -> NodeKind {
        match self {
            NewNode::File => NodeKind::File,
            NewNode::Directory => NodeKind::Directory,
            NewNode::Symlink(_) => NodeKind::Symlink,
            NewNode::Fifo => NodeKind::Fifo,
            NewNode::Socket => NodeKind::Socket,
            NewNode::CharDevice(_) => NodeKind::CharDevice,
            NewNode::BlockDevice(_) => NodeKind::BlockDevice,
        }
    }
}

/// renameat2's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// A new value of a file time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeChange {
    /// The time of the entry that carries the operation.
    Now,
    At(Timestamp),
}

/// A slice that a client has uploaded and now names in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSlice {
    /// Which chunk of the file, from 0.
    pub chunk: u32,
    /// Where the slice starts inside the chunk, in bytes.
    pub position: u32,
    pub id: SliceId,
    /// Length in bytes; `position + size <= CHUNK_SIZE`.
    pub size: u32,
    /// CRC-32C of each block, in order.
    pub checksums: Vec<u32>,
}

/// A mutating operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Creates a name. `mode` holds permission, set-id and sticky bits (umask already taken off).
    Make {
        parent: Ino,
        #[serde(with = "serde_bytes_vec")]
        name: Vec<u8>,
        node: NewNode,
        mode: u16,
        uid: u32,
        gid: u32,
    },
    Unlink {
        parent: Ino,
        #[serde(with = "serde_bytes_vec")]
        name: Vec<u8>,
    },
    Rmdir {
        parent: Ino,
        #[serde(with = "serde_bytes_vec")]
        name: Vec<u8>,
    },
    Rename {
        parent: Ino,
        #[serde(with = "serde_bytes_vec")]
        name: Vec<u8>,
        new_parent: Ino,
        #[serde(with = "serde_bytes_vec")]
        new_name: Vec<u8>,
        mode: RenameMode,
    },
    Link {
        ino: Ino,
        new_parent: Ino,
        #[serde(with = "serde_bytes_vec")]
        new_name: Vec<u8>,
    },
    /// Changes attributes; `None` leaves one as it is.
    SetAttr {
        ino: Ino,
        mode: Option<u16>,
        uid: Option<u32>,
        gid: Option<u32>,
        atime: Option<TimeChange>,
        mtime: Option<TimeChange>,
    },
    /// Sets a file's length; what lies beyond is dropped, what is added reads as zeros.
    Truncate { ino: Ino, size: u64 },
    /// Names uploaded slices in a file and lengthens it where they reach beyond its end. Idempotent by slice id.
    /// `clear_set_id` drops the set-user-id and set-group-id bits, as a write by an ordinary user does.
    CommitSlices { ino: Ino, slices: Vec<NewSlice>, clear_set_id: bool },
    /// Issues `count` (1..=65536) consecutive slice ids to the session.
    AllocSlices { count: u32 },
    /// Says that the session will name no slice id below this any more (law 17).
    CloseSlices { below: SliceId },
    /// As [`Op::Make`]: the inode has the number `ino`, of those that the session holds; with `lease`, the session is the new
    /// directory's holder.
    MakeAs {
        parent: Ino,
        #[serde(with = "serde_bytes_vec")]
        name: Vec<u8>,
        node: NewNode,
        mode: u16,
        uid: u32,
        gid: u32,
        ino: Option<Ino>,
        lease: bool,
    },
    /// Issues `count` (1..=65536) consecutive inode numbers to the session, which uses them in ascending order. Those that
    /// it had before are void.
    AllocInos { count: u32 },
    /// The session holds none of these directories (1..=1024) any more, if it did.
    GiveBack { dirs: Vec<Ino> },
    /// Another session is to give back the lease on the directory, and that on the directory which `name` leads to in it: the
    /// holder is told. With `take`, of one who has waited for a second since it heard that this was done before, the lease ends.
    Recall {
        dir: Ino,
        #[serde(with = "serde_bytes_vec")]
        name: Vec<u8>,
        take: bool,
    },
}

impl Op {
    /// How many verbs there are.
    pub const VERBS: usize = 14;

    /// Which verb it is: 0 to [`Op::VERBS`] (exclusive), in the order of the variants. Whoever walks all verbs fails to compile, or
    /// misses one, when another is added.
    pub fn verb(&self) -> usize {
        match self {
            Op::Make { .. } => 0,
            Op::Unlink { .. } => 1,
            Op::Rmdir { .. } => 2,
            Op::Rename { .. } => 3,
            Op::Link { .. } => 4,
            Op::SetAttr { .. } => 5,
            Op::Truncate { .. } => 6,
            Op::CommitSlices { .. } => 7,
            Op::AllocSlices { .. } => 8,
            Op::CloseSlices { .. } => 9,
            Op::MakeAs { .. } => 10,
            Op::AllocInos { .. } => 11,
            Op::GiveBack { .. } => 12,
            Op::Recall { .. } => 13,
        }
    }
}

/// The answer to an [`Op`] that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// The inode after the operation (of [`Op::Make`], [`Op::MakeAs`], [`Op::Link`], [`Op::SetAttr`], [`Op::Truncate`], [`Op::CommitSlices`]).
    Attr(Attr),
    /// The first of the issued ids and how many.
    Slices {
        first: SliceId,
        count: u32,
    },
    /// The first of the issued numbers and how many.
    Inos {
        first: Ino,
        count: u32,
    },
}

/// The answer to an [`Op`].
pub type Outcome = Result<Reply, ErrorKind>;

/// A read-only question, answered from one consistent state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    Lookup {
        parent: Ino,
        #[serde(with = "serde_bytes_vec")]
        name: Vec<u8>,
    },
    GetAttr {
        ino: Ino,
    },
    /// GetAttr, and the session holds the inode open from now on, until [`Query::Close`] or its end.
    Open {
        ino: Ino,
    },
    Close {
        ino: Ino,
    },
    ReadLink {
        ino: Ino,
    },
    /// Entries after the name `after` (exclusive; `None` from the first), at most `limit`, in byte order of names.
    ReadDir {
        ino: Ino,
        after: Option<Vec<u8>>,
        limit: u32,
    },
    /// The slices of one chunk, in commit order.
    Slices {
        ino: Ino,
        chunk: u32,
    },
    StatFs,
    /// `..` of a directory.
    Parent {
        ino: Ino,
    },
    /// One path of an inode, for messages to people; `None` when it has no name any more.
    PathOf {
        ino: Ino,
    },
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    #[serde(with = "serde_bytes_vec")]
    pub name: Vec<u8>,
    pub attr: Attr,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryReply {
    Done,
    Attr(Attr),
    Target(#[serde(with = "serde_bytes_vec")] Vec<u8>),
    /// `more`: whether entries follow the last one.
    Entries {
        entries: Vec<DirEntry>,
        more: bool,
    },
    Slices(Vec<SliceView>),
    StatFs {
        used_bytes: u64,
        used_inodes: u64,
        block_size: u32,
    },
    Parent(Ino),
    Path(Option<String>),
}

/// Byte strings as length and bytes, not as sequences of numbers.
mod serde_bytes_vec {
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}
