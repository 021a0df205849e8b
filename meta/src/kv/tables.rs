//! Which of LMDB's databases holds which keys.

use super::Space;
use crate::key::{ENTRY_TAG, INODE_TAG, SHELF_TAG};

/// Databases of a state.
pub(super) const TABLES: usize = 6;
/// The one with the inodes, whose rows a transaction holds back.
pub(super) const INODES: usize = 4;
/// Which database holds the shared keys from this one on, until the next; in order of keys.
const SHARED: [([u8; 1], usize); 7] = [
    ([0], Space::Shared as usize),
    ([ENTRY_TAG], 3),
    ([ENTRY_TAG + 1], Space::Shared as usize),
    ([INODE_TAG], INODES),
    ([INODE_TAG + 1], Space::Shared as usize),
    ([SHELF_TAG], 5),
    ([SHELF_TAG + 1], Space::Shared as usize),
];

/// The database that holds a key: its first byte says so.
pub(super) fn table_of(space: Space, key: &[u8]) -> usize {
    match (space, key.first()) {
        (Space::Shared, Some(tag)) => SHARED.iter().find(|([of], _)| of == tag).map_or(space as usize, |(_, table)| *table),
        _ => space as usize,
    }
}

/// A database with the keys, from (inclusive) and to (exclusive), that are asked of it.
pub(super) type Part<'r> = (usize, &'r [u8], Option<&'r [u8]>);

/// The databases that may hold a range, in order of keys, each with what it may hold of it; that may be nothing.
pub(super) fn parts<'r>(space: Space, from: &'r [u8], to: Option<&'r [u8]>) -> impl DoubleEndedIterator<Item = Part<'r>> {
    let (whole, split) =
        if space == Space::Shared { (None, SHARED.as_slice()) } else { (Some((space as usize, from, to)), &[][..]) };
    let clipped = split.iter().enumerate().map(move |(at, (start, table))| {
        let to = match (to, SHARED.get(at + 1)) {
            (Some(to), Some((end, _))) => Some(to.min(end.as_slice())),
            (None, Some((end, _))) => Some(end.as_slice()),
            (to, None) => to,
        };
        (*table, from.max(start.as_slice()), to)
    });
    whole.into_iter().chain(clipped)
}

/// The space of which a database is a part.
pub(super) fn space_of(table: usize) -> Space {
    Space::ALL.into_iter().find(|space| *space as usize == table).unwrap_or(Space::Shared)
}
