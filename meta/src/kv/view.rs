//! Reads of LMDB's databases, with rows laid over them that are not stored yet: a transaction's own, and [the front](super::front).

use super::ahead::{Ahead, will_need};
use super::front::{Front, Rows};
use super::held::{Held, Written, newest, over};
use super::lmdb::{Tables, backend};
use super::tables::{parts, table_of};
use super::{Bounds, KvRead, Row, Space, StorageError, bounds, check_key};
use heed::{AnyTls, RoTxn, WithoutTls};
use std::cmp::Ordering;
use std::ops::Bound;

fn get<'a>(tables: &Tables, txn: &'a RoTxn<'_, AnyTls>, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
    // LMDB calls a key of a wrong length an error; here it is one that no row has.
    if check_key(key).is_err() { Ok(None) } else { tables[table_of(space, key)].get(txn, key).map_err(backend) }
}

type Found<'a> = Box<dyn Iterator<Item = Row<'a>> + 'a>;

fn scan<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_, AnyTls>,
    space: Space,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Found<'a>, StorageError> {
    let mut rows: Option<Found> = None;
    for (table, from, to) in parts(space, from, to) {
        let Some(range) = bounds(from, to) else { continue };
        let more = tables[table].range(txn, &unbound_empty(range)).map_err(backend)?.map(|row| row.map_err(backend));
        rows = Some(behind(rows, more));
    }
    Ok(rows.unwrap_or_else(|| Box::new(std::iter::empty())))
}

fn scan_back<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_, AnyTls>,
    space: Space,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Found<'a>, StorageError> {
    let mut rows: Option<Found> = None;
    for (table, from, to) in parts(space, from, to).rev() {
        let Some(range) = bounds(from, to) else { continue };
        let more = tables[table].rev_range(txn, &unbound_empty(range)).map_err(backend)?.map(|row| row.map_err(backend));
        rows = Some(behind(rows, more));
    }
    Ok(rows.unwrap_or_else(|| Box::new(std::iter::empty())))
}

/// One database's rows, or behind those of another.
fn behind<'a>(rows: Option<Found<'a>>, more: impl Iterator<Item = Row<'a>> + 'a) -> Found<'a> {
    match rows {
        Some(rows) => Box::new(rows.chain(more)),
        None => Box::new(more),
    }
}

/// LMDB refuses to seek to an empty key: from the empty key means from the first.
fn unbound_empty(range: Bounds<'_>) -> Bounds<'_> {
    match range {
        (Bound::Included([]), to) => (Bound::Unbounded, to),
        range => range,
    }
}

/// A transaction of any kind, as its reads need it.
pub(super) trait View {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError>;

    /// What it has written, and has not stored.
    fn own(&self) -> Option<&Rows> {
        None
    }

    /// What others had committed and was not stored when it began.
    fn front(&self) -> Option<&Front> {
        None
    }

    /// Whether what lies around the rows of a scan is read as well.
    fn reads_ahead(&self) -> bool {
        false
    }
}

/// A database's rows that are not stored, the newest first.
fn held(view: &impl View, table: usize) -> impl Iterator<Item = &Held> {
    let front = view.front().into_iter().flat_map(Front::newest_first);
    view.own().into_iter().chain(front).map(move |rows| &rows[table])
}

impl<T: View> KvRead for T {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        let (tables, txn) = self.view()?;
        let found = held(self, table_of(space, key)).find_map(|held| held.get(key));
        found.map_or_else(|| get(tables, txn, space, key), Ok)
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        let (tables, txn) = self.view()?;
        let rows = over(scan(tables, txn, space, from, to)?, written(self, space, from, to), Ordering::Less);
        if !self.reads_ahead() {
            return Ok(rows);
        }
        let mut ahead = Ahead::new(will_need);
        Ok(Box::new(rows.inspect(move |row| row.iter().for_each(|(key, _)| ahead.at(key.as_ptr().expose_provenance())))))
    }

    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        let (tables, txn) = self.view()?;
        let mut rows = written(self, space, from, to);
        rows.reverse();
        Ok(over(scan_back(tables, txn, space, from, to)?, rows, Ordering::Greater))
    }
}

/// What is not stored of a range, in order of keys.
fn written<'a>(view: &'a impl View, space: Space, from: &[u8], to: Option<&[u8]>) -> Vec<Written<'a>> {
    let mut rows = vec![];
    for (table, from, to) in parts(space, from, to).filter(|(_, from, to)| bounds(from, *to).is_some()) {
        rows.extend(held(view, table).flat_map(Held::rows).filter(|(key, _)| from <= *key && to.is_none_or(|to| *key < to)));
    }
    newest(rows)
}

/// A snapshot of a store.
pub(super) struct Reader<'s> {
    pub txn: RoTxn<'s, WithoutTls>,
    pub tables: &'s Tables,
    pub front: Front,
    /// It scans all of a state, which is not in memory perhaps.
    pub ahead: bool,
}

impl View for Reader<'_> {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError> {
        Ok((self.tables, &self.txn))
    }

    fn front(&self) -> Option<&Front> {
        Some(&self.front)
    }

    fn reads_ahead(&self) -> bool {
        self.ahead
    }
}
