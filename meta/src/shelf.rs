//! Where the live slices are. A slice stands with its one piece, in a file's inode or in a piece's row, and nowhere else; a
//! row of its own would cost a file of one block a third of its bytes. From its id to there leads a shelf: one row for
//! [`SHELF_IDS`] ids that follow each other, which mostly are a session's, of files that follow each other as well.

use crate::inode::{Body, Inode};
use crate::key;
use crate::kv::{KvRead, Space, StorageError};
use crate::packed::{self, Unpack, put_number, put_signed};
use crate::row::{Held, Piece, Value, decode, key_id};
use crate::txn::SharedRead;
use farshore_types::{BucketId, COUNTER_BITS, Ino, LogIndex, LogTime, SliceId};

/// Bits of an id that tell the slices of one shelf apart.
const AT_BITS: u32 = 5;
/// Ids of one shelf.
const SHELF_IDS: u64 = 1 << AT_BITS;
/// Beside the place on the shelf: the slice has a piece's row.
const HAS_ROW: u8 = 1 << AT_BITS;

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

/// Where a live slice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub ino: Ino,
    /// `None`: it is the ground, in the inode itself.
    pub row: Option<PieceRow>,
}

/// The rest of a piece's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PieceRow {
    pub chunk: u32,
    pub added: LogIndex,
    pub sub: u16,
}

/// The live slices of one shelf, in order of their places on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shelf(Vec<(u8, Place)>);

/// The shelf of a slice, in the order of ids, and the slice's place on it.
pub(crate) fn shelf_of(id: SliceId) -> (u64, u8) {
    let counter = id.0 & ((1 << COUNTER_BITS) - 1);
    let number = id.0 >> COUNTER_BITS << COUNTER_BITS | counter >> AT_BITS;
    (number, (counter % SHELF_IDS) as u8)
}

fn id_on(number: u64, at: u8) -> SliceId {
    let counter = number & ((1 << COUNTER_BITS) - 1);
    SliceId(number >> COUNTER_BITS << COUNTER_BITS | counter << AT_BITS | u64::from(at))
}

impl Shelf {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, at: u8) -> Result<usize, usize> {
        self.0.binary_search_by_key(&at, |(at, _)| *at)
    }

    pub fn get(&self, at: u8) -> Option<Place> {
        self.find(at).ok().map(|found| self.0[found].1)
    }

    pub fn put(&mut self, at: u8, place: Place) {
        match self.find(at) {
            Ok(found) => self.0[found].1 = place,
            Err(before) => self.0.insert(before, (at, place)),
        }
    }

    pub fn remove(&mut self, at: u8) -> Option<Place> {
        self.find(at).ok().map(|found| self.0.remove(found).1)
    }
}

/// For each slice the place on the shelf, with [`HAS_ROW`]; its inode, after the first as the distance from the one before;
/// and the rest of its piece's key.
impl Value for Shelf {
    fn write(&self, to: &mut Vec<u8>) {
        let mut before: Option<Ino> = None;
        for (at, Place { ino, row }) in &self.0 {
            to.push(at | if row.is_some() { HAS_ROW } else { 0 });
            match before {
                None => to.extend_from_slice(&packed::id(ino.0)),
                Some(before) => put_signed(to, ino.0.wrapping_sub(before.0) as i64),
            }
            before = Some(*ino);
            if let Some(PieceRow { chunk, added, sub }) = row {
                put_number(to, *chunk);
                put_number(to, added.0);
                put_number(to, *sub);
            }
        }
    }

    fn read(small: u8, from: &mut Unpack) -> Option<Shelf> {
        let mut slices: Vec<(u8, Place)> = Vec::new();
        while !from.0.is_empty() {
            let first = from.byte().filter(|first| *first < HAS_ROW << 1)?;
            let at = first & !HAS_ROW;
            let ino = match slices.last() {
                None => Ino(from.id()?),
                Some((before, _)) if *before >= at => return None,
                Some((_, before)) => Ino(before.ino.0.wrapping_add(from.signed()? as u64)),
            };
            let row = match first & HAS_ROW {
                0 => None,
                _ => Some(PieceRow { chunk: from.number()?, added: LogIndex(from.number()?), sub: from.number()? }),
            };
            slices.push((at, Place { ino, row }));
        }
        (small == 0 && !slices.is_empty()).then_some(Shelf(slices))
    }
}

/// A live slice, with the position of its piece in its chunk; `None` when no file names it.
pub(crate) fn find(shared: &impl SharedRead, id: SliceId) -> Result<Option<(SliceRecord, u32)>, StorageError> {
    let (number, at) = shelf_of(id);
    let shelf: Option<Shelf> = shared.row(&key::shelf(number))?;
    shelf.and_then(|shelf| shelf.get(at)).map(|place| at_place(shared, id, place)).transpose()
}

fn at_place(shared: &impl SharedRead, id: SliceId, place: Place) -> Result<(SliceRecord, u32), StorageError> {
    let lost = |key: &[u8]| StorageError::damaged(Space::Shared, key, "a slice ought to be here and is not");
    let record = |slice: Held, size, added, chunk| {
        let Held { time, origin, checksums, .. } = slice;
        SliceRecord { added, time, size, origin, checksums, ino: place.ino, chunk }
    };
    match place.row {
        None => {
            let key = key::inode(place.ino);
            match shared.row::<Inode>(&key)?.map(|inode| inode.body) {
                Some(Body::File { ground: Some(ground), .. }) if ground.slice.id == id => {
                    Ok((record(ground.slice, ground.length, ground.added, 0), 0))
                }
                _ => Err(lost(&key)),
            }
        }
        Some(PieceRow { chunk, added, sub }) => {
            let key = key::piece(place.ino, chunk, added, sub);
            match shared.row::<Piece>(&key)? {
                Some(Piece { position, length, slice: Some(slice) }) if slice.id == id => {
                    Ok((record(slice, length, added, chunk), position))
                }
                _ => Err(lost(&key)),
            }
        }
    }
}

/// A live slice; `None` when no file names it.
pub fn slice_record(kv: &dyn KvRead, id: SliceId) -> Result<Option<SliceRecord>, StorageError> {
    Ok(find(&kv, id)?.map(|(record, _)| record))
}

/// The live slices from `from` (inclusive) to `to` (exclusive; `None`: to the last), in order of ids.
pub fn live_slices<'a>(
    kv: &'a dyn KvRead,
    from: SliceId,
    to: Option<SliceId>,
) -> Result<impl Iterator<Item = Result<(SliceId, SliceRecord), StorageError>> + 'a, StorageError> {
    let end = match to {
        Some(to) => key::shelf(shelf_of(to).0).end(),
        None => key::Key::tag(key::SHELF_TAG).end(),
    };
    let rows = kv.scan(Space::Shared, &key::shelf(shelf_of(from).0), Some(&end))?;
    let slices = rows.flat_map(|row| match row.and_then(|(key, value)| Ok((key_id(key, 1)?, decode(key, value)?))) {
        Ok((number, Shelf(slices))) => slices.into_iter().map(|(at, place)| Ok((id_on(number, at), place))).collect(),
        Err(error) => vec![Err(error)],
    });
    let wanted = slices.filter(move |slice| match slice {
        Ok((id, _)) => *id >= from && to.is_none_or(|to| *id < to),
        Err(_) => true,
    });
    Ok(wanted.map(move |slice| {
        let (id, place) = slice?;
        Ok((id, at_place(&kv, id, place)?.0))
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::row::encode;

    #[test]
    fn a_shelf_comes_back_and_is_a_few_bytes_a_slice() {
        let mut shelf = Shelf::default();
        let slot = 1 << COUNTER_BITS;
        for at in (0..32u8).rev() {
            shelf.put(at, Place { ino: Ino(slot + 1_000_000 + 4 * u64::from(at)), row: None });
        }
        let bytes = encode(&shelf);
        assert!(bytes.len() < 32 * 2 + 8, "{} bytes", bytes.len());
        assert_eq!(decode::<Shelf>(b"s", &bytes).unwrap(), shelf);
        let far = Place { ino: Ino(u64::MAX), row: Some(PieceRow { chunk: 7, added: LogIndex(1 << 40), sub: 3 }) };
        let near = Place { ino: Ino(1), row: None };
        for (at, place) in [(3, far), (4, near), (31, far)] {
            shelf.put(at, place);
        }
        assert_eq!(shelf.remove(5), Some(Place { ino: Ino(slot + 1_000_020), row: None }));
        assert_eq!((shelf.remove(5), shelf.get(5), shelf.get(4)), (None, None, Some(near)));
        assert_eq!(decode::<Shelf>(b"s", &encode(&shelf)).unwrap(), shelf);
    }

    #[test]
    fn what_is_no_shelf_is_damage() {
        let mut shelf = Shelf::default();
        shelf.put(7, Place { ino: Ino(300), row: None });
        shelf.put(9, Place { ino: Ino(301), row: Some(PieceRow { chunk: 0, added: LogIndex(5), sub: 1 }) });
        let bytes = encode(&shelf);
        for cut in 0..bytes.len() {
            let whole = decode::<Shelf>(b"s", &bytes[..cut]).is_ok();
            // Behind the first slice ends another shelf.
            assert_eq!(whole, cut == 5, "cut after {cut} of {} bytes", bytes.len());
        }
        for (at, byte) in [(1, 0x47), (1, 9), (5, 0x29 - 2)] {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            assert!(decode::<Shelf>(b"s", &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn shelves_are_in_the_order_of_ids() {
        let slot = 3 << COUNTER_BITS;
        for id in [0, 31, 32, slot - 1, slot, slot + 33, u64::MAX] {
            let (number, at) = shelf_of(SliceId(id));
            assert_eq!(id_on(number, at), SliceId(id));
        }
        assert!(shelf_of(SliceId(slot - 1)).0 < shelf_of(SliceId(slot)).0);
        assert_eq!(shelf_of(SliceId(slot + 33)), (slot + 1, 1));
    }
}
