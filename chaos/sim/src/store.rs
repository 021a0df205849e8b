//! A node's state on a simulated disk. What is committed is seen at once; of light transactions it is stored some time later, in
//! their order (decision 0047), and a kill takes what was not stored yet. The real store of a node, `kv::Lmdb`, is shown to be like it
//! by its own tests.

use crate::dice::Dice;
use crate::plant::{self, Hazard};
use farshore_meta::kv::{KvRead, KvWrite, Memory, Row, Space, StorageError, Store};
use farshore_primary::raft::snapshot::{CheckpointError, Checkpoints, restore};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often all that is committed is stored with a light transaction, and how many may wait at most: the bound of the real front.
const STORED_PERMILLE: u64 = 120;
const MOST: usize = 64;

/// A change of one row, or of all of a space.
enum Change {
    Set(Space, Vec<u8>, Option<Vec<u8>>),
    Clear(Space),
}

type Changes = Vec<Change>;

/// The store. Clones share it.
#[derive(Clone)]
pub struct SimStore {
    /// What its readers see.
    seen: Memory,
    /// What a kill leaves.
    stored: Memory,
    /// Transactions that are seen and not stored, the oldest first.
    waiting: Arc<Mutex<Vec<Changes>>>,
    dice: Arc<Dice>,
}

impl SimStore {
    /// An empty one.
    pub fn new(dice: Arc<Dice>) -> Self {
        SimStore { seen: Memory::new(), stored: Memory::new(), waiting: Arc::default(), dice }
    }

    /// What a kill leaves: a state of its own, so that tasks of the dead process change it no more.
    pub fn survivor(&self) -> Result<Self, StorageError> {
        let survivor = SimStore::new(self.dice.clone());
        copy(&self.stored, &survivor.seen)?;
        copy(&self.stored, &survivor.stored)?;
        Ok(survivor)
    }

    /// What a loss of power leaves: the newest checkpoint, or nothing; the log tells the rest.
    pub fn rebuilt(dice: Arc<Dice>, checkpoints: &Checkpoints) -> Result<Self, CheckpointError> {
        let store = SimStore::new(dice);
        if let Some((_, body)) = checkpoints.newest() {
            restore(&store, &body)?;
        }
        Ok(store)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Changes>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores all that is seen, in one transaction.
    fn settle(&self) -> Result<(), StorageError> {
        let mut waiting = std::mem::take(&mut *self.waiting());
        if plant::is(Hazard::StoredWithGaps) {
            waiting.drain(..waiting.len().saturating_sub(1));
        }
        let mut kv = self.stored.write()?;
        for change in waiting.into_iter().flatten() {
            match change {
                Change::Set(space, key, Some(value)) => kv.put(space, &key, &value)?,
                Change::Set(space, key, None) => kv.delete(space, &key)?,
                Change::Clear(space) => kv.clear(space)?,
            }
        }
        kv.commit()
    }

    fn recorder(&self, light: bool) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        Ok(Box::new(Recorder { kv: self.seen.write()?, changes: vec![], light, store: self }))
    }
}

fn copy(from: &Memory, to: &Memory) -> Result<(), StorageError> {
    let (from, mut to) = (from.read()?, to.write()?);
    for space in Space::ALL {
        for row in from.scan(space, &[], None)? {
            let (key, value) = row?;
            to.put(space, key, value)?;
        }
    }
    to.commit()
}

impl Store for SimStore {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        self.seen.read()
    }

    fn read_through(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        self.settle()?;
        self.seen.read()
    }

    fn write(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        self.recorder(false)
    }

    fn write_light(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        self.recorder(true)
    }

    fn replace(&self) -> Result<Box<dyn KvWrite + '_>, StorageError> {
        let mut kv = self.write()?;
        Space::ALL.into_iter().try_for_each(|space| kv.clear(space))?;
        Ok(kv)
    }
}

/// A transaction that remembers what it has changed.
struct Recorder<'s> {
    kv: Box<dyn KvWrite + 's>,
    changes: Changes,
    light: bool,
    store: &'s SimStore,
}

impl KvRead for Recorder<'_> {
    fn get<'a>(&'a self, space: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        self.kv.get(space, key)
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        self.kv.scan(space, from, to)
    }

    fn scan_back<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, StorageError> {
        self.kv.scan_back(space, from, to)
    }
}

impl KvWrite for Recorder<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.kv.put(space, key, value)?;
        self.changes.push(Change::Set(space, key.to_vec(), Some(value.to_vec())));
        Ok(())
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        self.kv.delete(space, key)?;
        self.changes.push(Change::Set(space, key.to_vec(), None));
        Ok(())
    }

    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        self.kv.clear(space)?;
        self.changes.push(Change::Clear(space));
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let Recorder { kv, changes, light, store } = *self;
        kv.commit()?;
        let waiting = {
            let mut waiting = store.waiting();
            waiting.push(changes);
            waiting.len()
        };
        match light && waiting < MOST && !store.dice.chance(STORED_PERMILLE) {
            true => Ok(()),
            false => store.settle(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kv: Result<Box<dyn KvWrite + '_>, StorageError>, key: u8) {
        let mut kv = kv.unwrap();
        kv.put(Space::Local, &[key], b"value").unwrap();
        kv.commit().unwrap();
    }

    fn keys(store: &SimStore) -> Vec<u8> {
        let kv = store.read().unwrap();
        kv.scan(Space::Local, &[], None).unwrap().map(|row| row.unwrap().0[0]).collect()
    }

    #[test]
    fn a_kill_leaves_the_transactions_up_to_one_and_all_before_a_heavy_one_or_a_checkpoint() {
        let mut behind = 0;
        for seed in 0..100 {
            let store = SimStore::new(Arc::new(Dice::new(seed)));
            (0..10).for_each(|key| put(store.write_light(), key));
            assert_eq!(keys(&store), (0..10).collect::<Vec<_>>(), "what is committed is seen");
            let left = keys(&store.survivor().unwrap());
            assert_eq!(left, (0..left.len() as u8).collect::<Vec<_>>());
            behind += usize::from(left.len() < 10);
            put(store.write(), 10);
            assert_eq!(keys(&store.survivor().unwrap()), (0..11).collect::<Vec<_>>());
            put(store.write_light(), 11);
            drop(store.read_through().unwrap());
            assert_eq!(keys(&store.survivor().unwrap()), (0..12).collect::<Vec<_>>());
            store.replace().unwrap().commit().unwrap();
            assert!(keys(&store.survivor().unwrap()).is_empty(), "what replaces all is stored at once");
        }
        assert!((50..100).contains(&behind), "most of them are behind: {behind}");
    }

    #[test]
    fn no_more_wait_than_fit_into_the_front() {
        let store = SimStore::new(Arc::new(Dice::new(1)));
        for key in 0..=u8::MAX {
            put(store.write_light(), key);
            assert!(store.waiting().len() < MOST);
        }
    }
}
