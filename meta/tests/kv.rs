//! One conformance suite over both stores, and both against each other.
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::{KvRead, KvWrite, Lmdb, MAX_KEY_LENGTH, Memory, Space, Store};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{Either, on_both, rows};

fn put(store: &impl Store, space: Space, keys: &[&str]) {
    let mut kv = store.write().unwrap();
    for key in keys {
        kv.put(space, key.as_bytes(), key.to_uppercase().as_bytes()).unwrap();
    }
    kv.commit().unwrap();
}

fn keys(kv: &dyn KvRead, from: &str, to: Option<&str>, back: bool) -> String {
    let to = to.map(str::as_bytes);
    let rows = if back { kv.scan_back(Space::Shared, from.as_bytes(), to) } else { kv.scan(Space::Shared, from.as_bytes(), to) };
    rows.unwrap().map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_write_sees_itself_and_others_see_it_after_commit_only() {
    on_both(|new| {
        let store = new();
        put(&store, Space::Shared, &["a"]);
        let before = store.read().unwrap();
        let mut kv = store.write().unwrap();
        kv.put(Space::Shared, b"b", b"1").unwrap();
        kv.delete(Space::Shared, b"a").unwrap();
        kv.delete(Space::Shared, b"never there").unwrap();
        assert_eq!(kv.get(Space::Shared, b"b").unwrap(), Some(b"1".as_slice()));
        assert_eq!(kv.get(Space::Shared, b"a").unwrap(), None);
        assert_eq!(keys(&*kv, "", None, false), "b");
        assert_eq!(keys(&*store.read().unwrap(), "", None, false), "a");
        kv.commit().unwrap();
        assert_eq!(keys(&*store.read().unwrap(), "", None, false), "b");
        assert_eq!(keys(&*before, "", None, false), "a", "a read transaction is a snapshot");
    });
}

#[test]
fn a_dropped_write_leaves_nothing() {
    on_both(|new| {
        let store = new();
        put(&store, Space::Shared, &["a"]);
        let mut kv = store.write().unwrap();
        kv.clear(Space::Shared).unwrap();
        kv.put(Space::Shared, b"b", b"1").unwrap();
        drop(kv);
        assert_eq!(keys(&*store.read().unwrap(), "", None, false), "a");
    });
}

#[test]
fn spaces_are_apart_and_clones_share() {
    on_both(|new| {
        let store = new();
        for space in Space::ALL {
            put(&store.clone(), space, &["k"]);
        }
        let mut kv = store.write().unwrap();
        kv.delete(Space::Undo, b"k").unwrap();
        kv.clear(Space::Local).unwrap();
        kv.commit().unwrap();
        let counts = Space::ALL.map(|space| rows(&*store.read().unwrap(), space).len());
        assert_eq!(counts, [1, 0, 0]);
    });
}

#[test]
fn scans_take_from_inclusive_to_exclusive_in_both_directions() {
    on_both(|new| {
        let store = new();
        put(&store, Space::Shared, &["a", "ab", "b", "c", "d"]);
        let kv = store.read().unwrap();
        assert_eq!(keys(&*kv, "ab", Some("c"), false), "ab b");
        assert_eq!(keys(&*kv, "ab", Some("c"), true), "b ab");
        assert_eq!(keys(&*kv, "bb", None, false), "c d");
        assert_eq!(keys(&*kv, "", Some("b"), true), "ab a");
        assert_eq!(keys(&*kv, "c", Some("c"), false), "");
        assert_eq!(keys(&*kv, "d", Some("a"), true), "");
        assert_eq!(kv.get(Space::Shared, b"").unwrap(), None);
    });
}

#[test]
fn keys_of_a_wrong_length_are_refused_and_not_found() {
    on_both(|new| {
        let store = new();
        let longest = [b'k'; MAX_KEY_LENGTH];
        let too_long = [b'k'; MAX_KEY_LENGTH + 1];
        let mut kv = store.write().unwrap();
        kv.put(Space::Local, &longest, b"").unwrap();
        for key in [b"".as_slice(), &too_long] {
            assert!(kv.put(Space::Local, key, b"").is_err());
            kv.delete(Space::Local, key).unwrap();
            assert_eq!(kv.get(Space::Local, key).unwrap(), None);
        }
        assert_eq!(kv.scan(Space::Local, &too_long, None).unwrap().count(), 0);
        assert_eq!(kv.scan_back(Space::Local, b"k", Some(&too_long)).unwrap().count(), 1);
        assert_eq!(rows(&*kv, Space::Local), [(longest.to_vec(), vec![])]);
    });
}

#[test]
fn law_26_the_store_on_disk_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Lmdb::open(directory.path()).unwrap();
    put(&store, Space::Local, &["x"]);
    assert!(Lmdb::open(directory.path()).is_err(), "one environment is open once in a process");
    put(&store, Space::Local, &["y"]);
    drop(store);
    let again = Lmdb::open(directory.path()).unwrap();
    assert_eq!(rows(&*again.read().unwrap(), Space::Local).len(), 2);
}

/// More than one transaction's share of a replacement.
fn put_many(kv: &mut dyn KvWrite) {
    let value = vec![7; 1 << 20];
    for row in 0..40 {
        kv.put(Space::Shared, &[b'i', row], &value).unwrap();
    }
}

#[test]
fn a_replacement_is_seen_at_its_commit_and_as_a_whole() {
    on_both(|new| {
        let store = new();
        for round in 0..3 {
            for space in Space::ALL {
                put(&store, space, &["a", "old"]);
            }
            let before = store.read().unwrap();
            let mut kv = store.replace().unwrap();
            assert_eq!(kv.get(Space::Shared, b"a").unwrap(), None, "round {round}");
            put_many(&mut *kv);
            kv.put(Space::Local, b"new", b"1").unwrap();
            assert_eq!(kv.get(Space::Shared, &[b'i', 0]).unwrap().map(<[u8]>::len), Some(1 << 20), "an earlier part");
            assert_eq!(kv.scan(Space::Shared, b"i", Some(b"j")).unwrap().count(), 40);
            assert_eq!(rows(&*store.read().unwrap(), Space::Local), rows(&*before, Space::Local), "nothing is seen yet");
            kv.commit().unwrap();
            assert!(rows(&*before, Space::Undo).len() == 2, "a read transaction is a snapshot");
            drop(before);
            let after = store.read().unwrap();
            assert_eq!(Space::ALL.map(|space| rows(&*after, space).len()), [40, 0, 1], "round {round}");
        }
    });
}

#[test]
fn a_dropped_replacement_leaves_nothing_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Lmdb::open(directory.path()).unwrap();
    put(&store, Space::Shared, &["a"]);
    for round in 0..4 {
        let mut kv = store.replace().unwrap();
        put_many(&mut *kv);
        drop(kv);
        if round % 2 == 1 {
            drop(store);
            store = Lmdb::open(directory.path()).unwrap();
        }
        assert_eq!(keys(&*store.read().unwrap(), "", None, false), "a", "round {round}");
    }
    let mut kv = store.replace().unwrap();
    kv.put(Space::Shared, b"b", b"1").unwrap();
    kv.commit().unwrap();
    drop(store);
    let store = Lmdb::open(directory.path()).unwrap();
    assert_eq!(keys(&*store.read().unwrap(), "", None, false), "b");
    // A few parts, and not one for each replacement that was dropped.
    let bytes = std::fs::metadata(directory.path().join("data.mdb")).unwrap().len();
    assert!(bytes < 150 << 20, "{bytes}");
}

/// A key in each of LMDB's databases. The first holds the transaction's number, each other one that of the last that put it.
const EVERYWHERE: [(Space, &[u8]); 6] = [
    (Space::Local, b"l"),
    (Space::Shared, b"a"),
    (Space::Shared, b"e"),
    (Space::Shared, b"i"),
    (Space::Shared, b"s"),
    (Space::Undo, b"u"),
];

/// What the place holds after the transaction `number`.
fn held(place: usize, number: u64) -> u64 {
    let others = EVERYWHERE.len() as u64 - 1;
    let turn = place as u64 % others;
    if place == 0 { number } else { (number + others - turn) / others * others + turn - others }
}

fn number_of(kv: &dyn KvRead) -> u64 {
    let found = EVERYWHERE.map(|(space, key)| u64::from_le_bytes(kv.get(space, key).unwrap().unwrap().try_into().unwrap()));
    let expected: Vec<u64> = (0..EVERYWHERE.len()).map(|place| held(place, found[0])).collect();
    assert_eq!(found.as_slice(), expected, "parts of several transactions are seen");
    assert_eq!(Space::ALL.map(|space| rows(kv, space).len()), [4, 1, 1]);
    found[0]
}

fn put_number(kv: &mut dyn KvWrite, number: u64, all: bool) {
    for (place, (space, key)) in EVERYWHERE.iter().enumerate() {
        if all || held(place, number) == number {
            kv.put(*space, key, &held(place, number).to_le_bytes()).unwrap();
        }
    }
}

/// However rows reach the file, a reader sees whole transactions, all of them up to one, and never an older one than before.
#[test]
fn readers_see_whole_transactions_while_they_are_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = Lmdb::open(directory.path()).unwrap();
    const FIRST: u64 = 10;
    const LAST: u64 = 3000;
    let done = AtomicU64::new(FIRST);
    let mut kv = store.write().unwrap();
    put_number(&mut *kv, FIRST, true);
    kv.commit().unwrap();
    std::thread::scope(|scope| {
        for ahead in [false, true] {
            let (store, done) = (store.clone(), &done);
            scope.spawn(move || {
                let mut seen = 0;
                while seen < LAST {
                    let committed = done.load(Ordering::Acquire);
                    let number = number_of(&*if ahead { store.read_through() } else { store.read() }.unwrap());
                    assert!(number >= seen.max(committed), "{number} after {seen}, {committed} was committed");
                    seen = number;
                }
            });
        }
        for number in FIRST + 1..=LAST {
            let mut kv = match number % 512 {
                7 => store.write().unwrap(),
                8 => store.replace().unwrap(),
                _ => store.write_light().unwrap(),
            };
            if number % 512 != 8 {
                assert_eq!(number_of(&*kv), number - 1, "a writer sees what the last one wrote");
            }
            put_number(&mut *kv, number, number % 512 == 8);
            kv.commit().unwrap();
            done.store(number, Ordering::Release);
        }
    });
    drop(store);
    let again = Lmdb::open(directory.path()).unwrap();
    assert_eq!(number_of(&*again.read().unwrap()), LAST, "what was not stored yet is, when the store is closed");
}

#[derive(Clone, Debug)]
enum Action {
    Put(u8, u8),
    PutAbsent(u8, u8),
    Delete(u8),
    Clear,
    /// What the next transaction is: a light one.
    Commit(bool),
    Drop(bool),
    /// What is not stored yet is stored.
    Store,
    Scan(u8, Option<u8>, bool),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Action::Put(key % 32, value)),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Action::PutAbsent(key % 32, value)),
        4 => any::<u8>().prop_map(|key| Action::Delete(key % 32)),
        1 => Just(Action::Clear),
        4 => any::<bool>().prop_map(Action::Commit),
        1 => any::<bool>().prop_map(Action::Drop),
        1 => Just(Action::Store),
        4 => (any::<u8>(), any::<Option<u8>>(), any::<bool>()).prop_map(|(from, to, back)| Action::Scan(from % 32, to.map(|to| to % 32), back)),
    ]
}

/// Keys in order of their numbers, on both sides of those that LMDB keeps in databases of their own, and among them.
fn key(number: u8) -> Vec<u8> {
    match number / 4 {
        // Entries of two directories.
        0 => [b'e', [8, 9][usize::from(number / 2 % 2)], 1, number % 2].to_vec(),
        first => [b"ehijrstv"[usize::from(first)], number % 4].to_vec(),
    }
}

fn scanned(kv: &dyn KvRead, from: u8, to: Option<u8>, back: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (from, to) = (key(from), to.map(key));
    let to = to.as_deref();
    let rows = if back { kv.scan_back(Space::Shared, &from, to) } else { kv.scan(Space::Shared, &from, to) };
    rows.unwrap().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn both_stores_answer_alike(actions in prop::collection::vec(action(), 1..120)) {
        let directory = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let stores = [Either::Memory(Memory::new()), Either::Lmdb(Lmdb::open(directory.path()).unwrap(), directory.clone())];
        let open = |light| stores.each_ref().map(|store| if light { store.write_light() } else { store.write() }.unwrap());
        let mut writes: [Box<dyn KvWrite>; 2] = open(true);
        for action in actions {
            match action {
                Action::Put(number, value) => writes.iter_mut().for_each(|kv| kv.put(Space::Shared, &key(number), &[value]).unwrap()),
                Action::PutAbsent(number, value) => {
                    let [memory, lmdb] = writes.each_mut().map(|kv| kv.put_absent(Space::Shared, &key(number), &[value]).unwrap());
                    prop_assert_eq!(memory, lmdb);
                }
                Action::Delete(number) => writes.iter_mut().for_each(|kv| kv.delete(Space::Shared, &key(number)).unwrap()),
                Action::Clear => writes.iter_mut().for_each(|kv| kv.clear(Space::Shared).unwrap()),
                Action::Commit(light) => {
                    writes.into_iter().for_each(|kv| kv.commit().unwrap());
                    writes = open(light);
                }
                Action::Drop(light) => {
                    drop(writes);
                    writes = open(light);
                }
                Action::Store => stores.iter().for_each(|store| drop(store.read_through().unwrap())),
                Action::Scan(from, to, back) => {
                    let [memory, lmdb] = writes.each_ref().map(|kv| scanned(&**kv, from, to, back));
                    prop_assert_eq!(memory, lmdb);
                    let reads = stores.each_ref().map(|store| scanned(&*store.read().unwrap(), from, to, back));
                    prop_assert_eq!(&reads[0], &reads[1]);
                }
            }
        }
    }
}
