//! Keys of shared rows: one tag byte, then ids in their order, so that what is read together lies together. The keys of
//! which there is one a file have packed ids ([`crate::packed`]), those of sessions big-endian ones.
//!
//! | key | row |
//! |---|---|
//! | `h` | header: position, counters |
//! | `L` | lineage, and the slot of each epoch |
//! | `d` | digest of all other shared rows |
//! | `u` | usage counters |
//! | `v` | volume record |
//! | `r` cluster | member of the roster |
//! | `i` ino | inode |
//! | `e` parent name | directory entry |
//! | `l` ino parent | how many names an inode of several links has in one directory |
//! | `o` ino | unlinked inode that waits for a purge |
//! | `c` ino chunk index sub | piece of a chunk; the inode itself holds the lowest one at a file's first byte |
//! | `s` shelf | where the live slices of a shelf of ids are |
//! | `S` session | what a session said of itself |
//! | `W` session | its window of sequences |
//! | `I` session last | a range of slice ids issued to it and not named yet |
//! | `N` session | inode numbers issued to it and not used yet |
//! | `R` session last | kept replies of one entry, up to the request `last` |

use crate::packed::{self, MAX_ID};
use farshore_types::{ClusterId, Ino, LogIndex, MAX_NAME, Sequence, SessionId, SliceId};
use std::ops::Deref;

pub(crate) const HEADER: &[u8] = b"h";
pub(crate) const LINEAGE: &[u8] = b"L";
pub(crate) const DIGEST: &[u8] = b"d";
pub(crate) const USAGE: &[u8] = b"u";
pub(crate) const VOLUME: &[u8] = b"v";

pub(crate) const ROSTER_TAG: u8 = b'r';
pub(crate) const INODE_TAG: u8 = b'i';
pub(crate) const ENTRY_TAG: u8 = b'e';
pub(crate) const LINK_TAG: u8 = b'l';
pub(crate) const ORPHAN_TAG: u8 = b'o';
pub(crate) const PIECE_TAG: u8 = b'c';
pub(crate) const SHELF_TAG: u8 = b's';
pub(crate) const SESSION_TAG: u8 = b'S';
pub(crate) const WINDOW_TAG: u8 = b'W';
pub(crate) const ISSUED_TAG: u8 = b'I';
pub(crate) const NUMBERS_TAG: u8 = b'N';
pub(crate) const REPLY_TAG: u8 = b'R';

/// Longest key: a directory entry's.
const MAX_KEY: usize = 1 + MAX_ID + MAX_NAME;
const _: () = assert!(MAX_KEY <= crate::kv::MAX_KEY_LENGTH);

/// A key on the stack: apply builds several for each operation.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    bytes: [u8; MAX_KEY],
    length: usize,
}

impl Key {
    pub fn tag(tag: u8) -> Key {
        let mut bytes = [0; MAX_KEY];
        bytes[0] = tag;
        Key { bytes, length: 1 }
    }

    pub fn with(mut self, part: &[u8]) -> Key {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
        self
    }

    fn with_id(self, id: u64) -> Key {
        self.with(&packed::id(id))
    }

    /// The first key after all that start with this one; `None` when there is none.
    pub fn end(mut self) -> Key {
        while let Some(last) = self.length.checked_sub(1) {
            if self.bytes[last] < u8::MAX {
                self.bytes[last] += 1;
                return self;
            }
            self.length -= 1;
        }
        unreachable!("a key starts with a tag, and no tag is 0xFF")
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

pub(crate) fn roster(cluster: ClusterId) -> Key {
    Key::tag(ROSTER_TAG).with(&[cluster.0])
}

pub(crate) fn inode(ino: Ino) -> Key {
    Key::tag(INODE_TAG).with_id(ino.0)
}

pub(crate) fn entries(parent: Ino) -> Key {
    Key::tag(ENTRY_TAG).with_id(parent.0)
}

/// `name` must have been checked for its length.
pub(crate) fn entry(parent: Ino, name: &[u8]) -> Key {
    entries(parent).with(name)
}

pub(crate) fn links(ino: Ino) -> Key {
    Key::tag(LINK_TAG).with_id(ino.0)
}

pub(crate) fn link(ino: Ino, parent: Ino) -> Key {
    links(ino).with_id(parent.0)
}

pub(crate) fn orphan(ino: Ino) -> Key {
    Key::tag(ORPHAN_TAG).with_id(ino.0)
}

pub(crate) fn pieces(ino: Ino) -> Key {
    Key::tag(PIECE_TAG).with_id(ino.0)
}

pub(crate) fn chunk(ino: Ino, chunk: u32) -> Key {
    pieces(ino).with_id(chunk.into())
}

/// `sub` tells the pieces of one entry apart.
pub(crate) fn piece(ino: Ino, at: u32, index: LogIndex, sub: u16) -> Key {
    chunk(ino, at).with_id(index.0).with_id(sub.into())
}

/// The shelf of this number.
pub(crate) fn shelf(number: u64) -> Key {
    Key::tag(SHELF_TAG).with_id(number)
}

pub(crate) fn session(id: SessionId) -> Key {
    Key::tag(SESSION_TAG).with(&id.0)
}

pub(crate) fn window(id: SessionId) -> Key {
    Key::tag(WINDOW_TAG).with(&id.0)
}

pub(crate) fn issued_all(id: SessionId) -> Key {
    Key::tag(ISSUED_TAG).with(&id.0)
}

pub(crate) fn issued(id: SessionId, last: SliceId) -> Key {
    issued_all(id).with(&last.0.to_be_bytes())
}

pub(crate) fn numbers(id: SessionId) -> Key {
    Key::tag(NUMBERS_TAG).with(&id.0)
}

pub(crate) fn replies(id: SessionId) -> Key {
    Key::tag(REPLY_TAG).with(&id.0)
}

pub(crate) fn reply(id: SessionId, last: Sequence) -> Key {
    replies(id).with(&last.0.to_be_bytes())
}

/// The fixed-width number at `at` of a key; `None` when the key is too short.
pub(crate) fn number(key: &[u8], at: usize) -> Option<u64> {
    let bytes = key.get(at..at + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
