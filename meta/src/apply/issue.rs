//! Slice ids: issued to sessions in ranges, used up by commits, closed by the session (law 17). A range's row is keyed by
//! its last id and holds its length: commits in order shorten it in place. An id that was named once is used up, so that
//! a late repetition cannot bring a dropped slice back.

use super::session::MAX_ISSUED_RANGES;
use super::{Apply, Fail};
use crate::key;
use crate::kv::{Space, StorageError};
use crate::row::{Window, decode, encode, key_number};
use crate::txn::SharedRead;
use farshore_types::{COUNTER_BITS, ErrorKind, Reply, SessionId, SliceId};

/// Ids of one [`farshore_types::Op::AllocSlices`], inclusive.
pub const MAX_ALLOC_SLICES: u32 = 65_536;

/// Ids `first..=last`, issued to a session and not named yet.
#[derive(Clone, Copy)]
pub(crate) struct IssuedRange {
    first: u64,
    last: u64,
}

impl IssuedRange {
    fn read((key, value): (&[u8], &[u8])) -> Result<IssuedRange, StorageError> {
        let last = key_number(key, 17)?;
        let count: u32 = decode(key, value)?;
        let first = u64::from(count).checked_sub(1).and_then(|before| last.checked_sub(before));
        let first = first.ok_or_else(|| StorageError::damaged(Space::Shared, key, "the range is empty or begins below 0"))?;
        Ok(IssuedRange { first, last })
    }
}

/// The range that holds `id`.
pub(crate) fn issued_range(
    shared: &impl SharedRead,
    session: SessionId,
    id: SliceId,
) -> Result<Option<IssuedRange>, StorageError> {
    let end = key::issued_all(session).end();
    let Some(row) = shared.rows(&key::issued(session, id), &end)?.next() else {
        return Ok(None);
    };
    let range = IssuedRange::read(row?)?;
    Ok((range.first <= id.0).then_some(range))
}

impl Apply<'_> {
    /// The first of `count` ids, 1 to `max` (inclusive), from a counter of the header on.
    pub(super) fn first_id(&self, counter: u64, count: u32, max: u32) -> Result<u64, Fail> {
        if !(1..=max).contains(&count) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if counter + u64::from(count) > 1 << COUNTER_BITS {
            return Err(ErrorKind::NoSpace.into());
        }
        Ok(self.header.slot.id(counter))
    }

    pub(super) fn alloc_slices(&mut self, session: SessionId, window: &mut Window, count: u32) -> Result<Reply, Fail> {
        let first = self.first_id(self.header.next_slice, count, MAX_ALLOC_SLICES)?;
        let mut range = IssuedRange { first, last: first + u64::from(count) - 1 };
        let all = key::issued_all(session);
        let before = self.txn.last(&all, &all.end())?.map(IssuedRange::read).transpose()?;
        let adjoining = before.filter(|before| before.last + 1 == first && range.last - before.first < u64::from(u32::MAX));
        match adjoining {
            Some(before) => {
                self.delete_range(session, window, before)?;
                range.first = before.first;
            }
            None if window.ranges >= MAX_ISSUED_RANGES => return Err(ErrorKind::InvalidArgument.into()),
            None => {}
        }
        self.put_range(session, window, range)?;
        self.header.next_slice += u64::from(count);
        Ok(Reply::Slices { first: SliceId(first), count })
    }

    pub(super) fn close_slices(&mut self, session: SessionId, window: &mut Window, below: SliceId) -> Result<Reply, Fail> {
        let closed = self.txn.keys(&key::issued_all(session), &key::issued(session, below))?;
        for key in &closed {
            self.txn.delete(key)?;
        }
        window.ranges -= closed.len() as u32;
        if let Some(range) = self.issued_range(session, below)? {
            self.shorten(session, IssuedRange { first: below.0, ..range })?;
        }
        Ok(Reply::Done)
    }

    pub(super) fn issued_range(&self, session: SessionId, id: SliceId) -> Result<Option<IssuedRange>, StorageError> {
        issued_range(&self.txn, session, id)
    }

    /// An id that was checked to be issued is named now.
    pub(super) fn consume_slice(&mut self, session: SessionId, window: &mut Window, id: SliceId) -> Result<(), StorageError> {
        let Some(range) = self.issued_range(session, id)? else {
            return Err(StorageError::damaged(Space::Shared, &key::issued(session, id), "an issued id vanished"));
        };
        if id.0 < range.last {
            self.shorten(session, IssuedRange { first: id.0 + 1, ..range })?;
        } else {
            self.delete_range(session, window, range)?;
        }
        if range.first < id.0 {
            self.put_range(session, window, IssuedRange { last: id.0 - 1, ..range })?;
        }
        Ok(())
    }

    fn shorten(&mut self, session: SessionId, range: IssuedRange) -> Result<(), StorageError> {
        assert!(range.first <= range.last, "an empty range has no row");
        let count = u32::try_from(range.last - range.first + 1).expect("ranges grow to 2^32 - 1 ids at most");
        self.txn.put(&key::issued(session, SliceId(range.last)), encode(&count))
    }

    fn put_range(&mut self, session: SessionId, window: &mut Window, range: IssuedRange) -> Result<(), StorageError> {
        window.ranges += 1;
        self.shorten(session, range)
    }

    fn delete_range(&mut self, session: SessionId, window: &mut Window, range: IssuedRange) -> Result<(), StorageError> {
        window.ranges -= 1;
        self.txn.delete(&key::issued(session, SliceId(range.last)))
    }
}
