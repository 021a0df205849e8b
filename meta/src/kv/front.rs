//! The front: rows that are committed and not stored in LMDB yet.
//!
//! A transaction of LMDB copies each page that it touches and writes it to the file at its commit. Of a leader's entry, whose
//! creates lie in as many directories, that is a page or two for each, and who made them waits for it. Such a transaction
//! ([`Light`]) lays its rows over those of the file instead, in memory, and whoever reads sees both. A thread stores the rows of many
//! such transactions in one of LMDB's, without keeping anybody waiting (decision 0047). What a process takes with it when it is killed
//! is in the log, as all that is not applied is.

use super::background::{Background, Signals};
use super::held::Held;
use super::lmdb::{Inner, Tables};
use super::tables::{TABLES, table_of};
use super::view::{Reader, View};
use super::{KvRead, KvWrite, Space, StorageError, check_key};
use heed::{AnyTls, RoTxn};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

/// How long rows gather before they are stored.
const GATHER: Duration = Duration::from_millis(50);
/// With so many transactions they are stored at once: whoever reads looks through all of them.
const GATHERED: usize = 16;
/// With so many rows they are stored at once: more of them in one of LMDB's transactions are no cheaper.
const GATHERED_ROWS: usize = 8192;
/// A writer who finds so many times as much waits until it is stored.
const FULL: usize = 4;

/// What a transaction has written of each database.
pub(super) type Rows = [Held; TABLES];

/// Rows of transactions that are committed and not stored. A clone is another view of them, and cheap.
#[derive(Clone, Default)]
pub(super) struct Front {
    /// The oldest first.
    layers: Arc<Vec<Arc<Rows>>>,
    rows: usize,
}

fn count(rows: &Rows) -> usize {
    rows.iter().map(Held::len).sum()
}

impl Front {
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Each transaction's rows, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Rows> {
        self.layers.iter().rev().map(|rows| &**rows)
    }

    /// One more transaction has committed.
    pub fn lay(&mut self, rows: Rows) {
        self.rows += count(&rows);
        Arc::make_mut(&mut self.layers).push(Arc::new(rows));
    }

    /// These, the oldest of all, are stored. Returned is what nobody may need any more, to be dropped where nobody waits.
    pub fn forget(&mut self, stored: &Front) -> Vec<Arc<Rows>> {
        self.rows -= stored.rows;
        Arc::make_mut(&mut self.layers).drain(..stored.layers.len()).collect()
    }

    fn holds(&self, times: usize) -> bool {
        self.layers.len() >= times * GATHERED || self.rows >= times * GATHERED_ROWS
    }

    /// Whether it is worth storing now.
    pub fn has_gathered(&self) -> bool {
        self.holds(1)
    }

    /// Whether it takes no further transaction.
    pub fn is_full(&self) -> bool {
        self.holds(FULL)
    }
}

/// A transaction whose rows go to the front.
pub(super) struct Light<'s> {
    base: Reader<'s>,
    own: Rows,
    store: &'s Inner,
    settler: &'s Settler,
    _writing: MutexGuard<'s, ()>,
}

impl<'s> Light<'s> {
    pub fn new(store: &'s Inner, settler: &'s Settler, writing: MutexGuard<'s, ()>) -> Result<Light<'s>, StorageError> {
        Ok(Light { base: store.reader()?, own: Rows::default(), store, settler, _writing: writing })
    }
}

impl View for Light<'_> {
    fn view(&self) -> Result<(&Tables, &RoTxn<'_, AnyTls>), StorageError> {
        self.base.view()
    }

    fn own(&self) -> Option<&Rows> {
        Some(&self.own)
    }

    fn front(&self) -> Option<&Front> {
        self.base.front()
    }
}

impl KvWrite for Light<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check_key(key)?;
        self.own[table_of(space, key)].set(key, Some(value));
        Ok(())
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        if check_key(key).is_ok() {
            self.own[table_of(space, key)].set(key, None);
        }
        Ok(())
    }

    /// Row by row: who clears a space has no light transaction.
    fn clear(&mut self, space: Space) -> Result<(), StorageError> {
        let keys: Result<Vec<Vec<u8>>, _> = self.scan(space, &[], None)?.map(|row| row.map(|(key, _)| key.to_vec())).collect();
        keys?.iter().try_for_each(|key| self.delete(space, key))
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let Light { base, own, store, settler, _writing } = *self;
        drop(base);
        settler.gathers(store.lay(own));
        Ok(())
    }
}

/// The thread that stores the front. Ends when it is dropped, and stores what there is before.
pub(super) struct Settler {
    thread: Background,
    /// What waits is stored now, and not in a while.
    now: Arc<AtomicBool>,
}

impl Settler {
    pub fn of(store: Arc<Inner>) -> io::Result<Settler> {
        let now: Arc<AtomicBool> = Arc::default();
        let theirs = now.clone();
        let thread = Background::start("farshore-settle", move |signals| rounds(signals, &theirs, &store))?;
        Ok(Settler { thread, now })
    }

    /// There is one more transaction; `enough` says that they are worth storing now.
    fn gathers(&self, enough: bool) {
        self.thread.ask();
        if enough && !self.now.swap(true, Ordering::AcqRel) {
            self.thread.wake();
        }
    }

    /// Refuses once rows could not be stored.
    pub fn check(&self) -> Result<(), StorageError> {
        self.thread.check()
    }
}

fn rounds(signals: &Signals, now: &AtomicBool, store: &Inner) {
    while !signals.is_ending() {
        if !signals.take_asked() {
            std::thread::park();
            continue;
        }
        signals.pause_until(Instant::now() + GATHER, || now.swap(false, Ordering::AcqRel));
        if let Err(error) = store.settle() {
            return signals.fail(error.to_string());
        }
    }
    if let Err(error) = store.settle() {
        tracing::warn!(%error, "what was applied last is not stored; it will be applied again");
    }
}

#[cfg(test)]
mod tests {
    use super::super::lmdb::MAP_SIZE;
    use super::super::steady::Steady;
    use super::super::{Lmdb, Store};
    use super::*;
    use std::path::Path;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn open(directory: &Path, map_size: usize) -> Lmdb {
        Lmdb::open_with(directory, map_size, |file| Ok(Steady::over(file).unwrap())).unwrap()
    }

    fn put(store: &Lmdb, key: u32, value: &[u8]) -> Result<(), StorageError> {
        let mut kv = store.write_light()?;
        kv.put(Space::Local, &key.to_be_bytes(), value)?;
        kv.commit()
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn few_rows_are_stored_after_a_while_and_many_transactions_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), MAP_SIZE);
        let stored = || Reader { front: Front::default(), ..store.inner.reader().unwrap() };
        let kept_from_storing = store.inner.settling.lock().unwrap();
        put(&store, 0, b"few").unwrap();
        assert_eq!(store.inner.seen().front.rows, 1, "who commits does not wait for its being stored");
        drop(kept_from_storing);
        until("it is stored", || store.inner.seen().front.is_empty());
        assert_eq!(stored().get(Space::Local, &[0; 4]).unwrap(), Some(b"few".as_slice()));
        let all = 10 * FULL * GATHERED;
        for key in 0..all as u32 {
            put(&store, key, b"many").unwrap();
            assert!(store.inner.seen().front.layers.len() <= FULL * GATHERED, "law 27");
        }
        until("all are stored", || store.inner.seen().front.is_empty());
        assert_eq!(stored().scan(Space::Local, &[], None).unwrap().count(), all);
    }

    #[test]
    fn law_27_the_front_has_a_bound_in_transactions_and_in_rows() {
        let of = |rows: usize| {
            let mut all = Rows::default();
            (0..rows).for_each(|key| all[0].set(&key.to_be_bytes(), None));
            all
        };
        for (rows, gathered, full) in [(1, GATHERED, FULL * GATHERED), (GATHERED_ROWS / 2, 2, 2 * FULL)] {
            let mut front = Front::default();
            for transactions in 1..=full {
                assert!(!front.is_full());
                front.lay(of(rows));
                assert_eq!((front.has_gathered(), front.rows), (transactions >= gathered, transactions * rows));
            }
            assert!(front.is_full());
            let stored = front.clone();
            front.lay(of(3));
            assert_eq!(front.forget(&stored).len(), full);
            assert_eq!((front.layers.len(), front.rows, stored.rows), (1, 3, full * rows), "what is being read stays");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_shown_and_the_store_takes_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), 1 << 20);
        put(&store, 7, &[1; 2 << 20]).unwrap();
        until("it is noticed", || store.check().is_err());
        let refused = [put(&store, 8, b"more"), store.write().map(drop), store.replace().map(drop), store.check()];
        for refused in refused {
            let why = refused.unwrap_err().to_string();
            assert!(why.contains("MDB_MAP_FULL"), "{why}");
        }
        let kv = store.read().unwrap();
        assert_eq!(kv.get(Space::Local, &7u32.to_be_bytes()).unwrap().map(<[u8]>::len), Some(2 << 20));
        assert!(store.read_through().is_err(), "a checkpoint would be behind what is shown");
    }
}
