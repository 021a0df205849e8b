//! Rows that a transaction has written and its store does not know yet, over those that it has stored.

use super::Row;
use foldhash::fast::FixedState;
use indexmap::IndexMap;
use std::cmp::Ordering;
use std::iter::Peekable;
use std::vec::IntoIter;

/// Rows held back: one that is written again and again is stored once. A row that is absent, `None`, is to be deleted.
#[derive(Default)]
pub(super) struct Held(IndexMap<Vec<u8>, Option<Vec<u8>>, FixedState>);

impl Held {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What the key was written to last; `None`: it was not.
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.0.get(key).map(Option::as_deref)
    }

    pub fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        match (self.0.get_mut(key), value) {
            (Some(Some(held)), Some(value)) => {
                held.clear();
                held.extend_from_slice(value);
            }
            (Some(held), value) => *held = value.map(<[u8]>::to_vec),
            (None, value) => drop(self.0.insert(key.to_vec(), value.map(<[u8]>::to_vec))),
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// In no order.
    pub fn rows(&self) -> impl Iterator<Item = Written<'_>> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}

/// A key that was written, and its value; `None`: it was deleted.
pub(crate) type Written<'a> = (&'a [u8], Option<&'a [u8]>);

/// Rows that were written, the newest first, become those that count, in order of keys.
pub(super) fn newest(mut rows: Vec<Written<'_>>) -> Vec<Written<'_>> {
    rows.sort_by_key(|(key, _)| *key);
    rows.dedup_by_key(|(key, _)| *key);
    rows
}

/// Stored rows with `written` ones over them; both come in one order of keys, `Less` for the smallest first.
pub(crate) fn over<'a>(
    stored: Box<dyn Iterator<Item = Row<'a>> + 'a>,
    written: Vec<Written<'a>>,
    order: Ordering,
) -> Box<dyn Iterator<Item = Row<'a>> + 'a> {
    if written.is_empty() {
        return stored;
    }
    Box::new(Over { stored: stored.peekable(), written: written.into_iter().peekable(), order })
}

struct Over<'a> {
    stored: Peekable<Box<dyn Iterator<Item = Row<'a>> + 'a>>,
    written: Peekable<IntoIter<Written<'a>>>,
    order: Ordering,
}

impl<'a> Iterator for Over<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        loop {
            let Some((key, _)) = self.written.peek() else { return self.stored.next() };
            match self.stored.peek() {
                Some(Ok((stored, _))) if stored.cmp(key) == self.order => return self.stored.next(),
                Some(Ok((stored, _))) if stored == key => drop(self.stored.next()),
                Some(Err(_)) => return self.stored.next(),
                _ => {}
            }
            if let Some((key, Some(value))) = self.written.next() {
                return Some(Ok((key, value)));
            }
        }
    }
}
