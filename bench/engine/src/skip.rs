//! A transaction that keeps no before-images: what they cost is the difference to one that does. It spares writing and
//! trimming their rows; the old values are read all the same, since the digest needs them.

use farshore_meta::kv::{KvRead, KvWrite, Row, Space, StorageError};

pub struct SkipUndo<'a>(pub Box<dyn KvWrite + 'a>);

impl KvRead for SkipUndo<'_> {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        self.0.get(space, key)
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        self.0.scan(space, from, to)
    }

    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        self.0.scan_back(space, from, to)
    }
}

impl KvWrite for SkipUndo<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        if space == Space::Undo { Ok(()) } else { self.0.put(space, key, value) }
    }

    fn put_absent(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<bool, StorageError> {
        self.0.put_absent(space, key, value)
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        self.0.delete(space, key)
    }

    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        self.0.clear(space)
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        self.0.commit()
    }
}
