//! A store in memory, for the simulator and the models.
//!
//! Committed maps are shared with readers by reference count: a read transaction is a snapshot because a commit copies a
//! map that a reader still holds. A write transaction keeps its changes in an overlay of its own, which a commit merges
//! and a drop forgets. A second writer waits for the first one.

use super::{KvRead, KvWrite, Row, Space, StorageError, Store, bounds, check_key};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

type Bytes = Arc<[u8]>;
type Map = BTreeMap<Bytes, Bytes>;
type Overlay = BTreeMap<Bytes, Option<Bytes>>;

#[derive(Default)]
struct Inner {
    maps: RwLock<[Arc<Map>; 3]>,
    writer: Mutex<()>,
}

/// The store in memory.
#[derive(Clone, Default)]
pub struct Memory {
    inner: Arc<Inner>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Memory::default()
    }

    fn maps(&self) -> [Arc<Map>; 3] {
        self.inner.maps.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Store for Memory {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        Ok(Box::new(Reader { maps: self.maps() }))
    }

    fn write(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        let guard = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(Writer {
            base: self.maps(),
            overlay: Default::default(),
            cleared: [false; 3],
            store: &self.inner,
            _guard: guard,
        }))
    }

    fn replace(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        let mut kv = self.write()?;
        Space::ALL.into_iter().try_for_each(|space| kv.clear(space))?;
        Ok(kv)
    }
}

struct Reader {
    maps: [Arc<Map>; 3],
}

impl KvRead for Reader {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        Ok(self.maps[space as usize].get(key).map(|value| &**value))
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        let rows = bounds(from, to).map(|range| self.maps[space as usize].range::<[u8], _>(range));
        Ok(Box::new(rows.into_iter().flatten().map(|(key, value)| Ok((&**key, &**value)))))
    }

    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        let rows = bounds(from, to).map(|range| self.maps[space as usize].range::<[u8], _>(range).rev());
        Ok(Box::new(rows.into_iter().flatten().map(|(key, value)| Ok((&**key, &**value)))))
    }
}

struct Writer<'s> {
    base: [Arc<Map>; 3],
    overlay: [Overlay; 3],
    /// A cleared space reads as its overlay alone.
    cleared: [bool; 3],
    store: &'s Inner,
    _guard: MutexGuard<'s, ()>,
}

impl Writer<'_> {
    fn merged<'a>(&'a self, space: Space, from: &[u8], to: Option<&[u8]>, back: bool) -> Box<dyn Iterator<Item = Row<'a>> + 'a> {
        let Some(range) = bounds(from, to) else {
            return Box::new(std::iter::empty());
        };
        let at = space as usize;
        let base = (!self.cleared[at]).then(|| self.base[at].range::<[u8], _>(range)).into_iter().flatten();
        let base = base.map(|(key, value)| (&**key, &**value));
        let over = self.overlay[at].range::<[u8], _>(range).map(|(key, value)| (&**key, value.as_deref()));
        if back {
            Box::new(Merge { base: base.rev().peekable(), over: over.rev().peekable(), back })
        } else {
            Box::new(Merge { base: base.peekable(), over: over.peekable(), back })
        }
    }
}

impl KvRead for Writer<'_> {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        let at = space as usize;
        Ok(match self.overlay[at].get(key) {
            Some(changed) => changed.as_deref(),
            None if self.cleared[at] => None,
            None => self.base[at].get(key).map(|value| &**value),
        })
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        Ok(self.merged(space, from, to, false))
    }

    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        Ok(self.merged(space, from, to, true))
    }
}

impl KvWrite for Writer<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check_key(key)?;
        self.overlay[space as usize].insert(key.into(), Some(value.into()));
        Ok(())
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        self.overlay[space as usize].insert(key.into(), None);
        Ok(())
    }

    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        self.overlay[space as usize].clear();
        self.cleared[space as usize] = true;
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let Writer { base, overlay, cleared, store, _guard } = *self;
        // Without our own references a map that no reader holds is changed in place.
        drop(base);
        let mut maps = store.maps.write().unwrap_or_else(PoisonError::into_inner);
        for ((map, changes), cleared) in maps.iter_mut().zip(overlay).zip(cleared) {
            if cleared {
                *map = Arc::default();
            }
            if changes.is_empty() {
                continue;
            }
            let map = Arc::make_mut(map);
            for (key, value) in changes {
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
        }
        Ok(())
    }
}

/// Rows of the base with those of the overlay laid over them, both in the same direction.
struct Merge<B: Iterator, O: Iterator> {
    base: std::iter::Peekable<B>,
    over: std::iter::Peekable<O>,
    back: bool,
}

impl<'a, B, O> Iterator for Merge<B, O>
where
    B: Iterator<Item = (&'a [u8], &'a [u8])>,
    O: Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
{
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        loop {
            let Some((changed, _)) = self.over.peek() else {
                return self.base.next().map(Ok);
            };
            if let Some((kept, _)) = self.base.peek() {
                if kept == changed {
                    self.base.next();
                } else if (kept < changed) != self.back {
                    return self.base.next().map(Ok);
                }
            }
            if let Some((key, Some(value))) = self.over.next() {
                return Some(Ok((key, value)));
            }
        }
    }
}
