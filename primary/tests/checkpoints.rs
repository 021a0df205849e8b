//! Checkpoints are believed only when their rows give the digest that the state keeps (law 25).
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use farshore_meta::kv::{Memory, Space, Store};
use farshore_primary::raft::snapshot::Checkpoints;
use std::fs;
use support::stand_at;

fn names(directory: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn put(store: &Memory, key: &[u8]) {
    let mut kv = store.write().unwrap();
    kv.put(Space::Shared, key, b"a row that no entry wrote").unwrap();
    kv.commit().unwrap();
}

#[test]
fn law_25_a_state_with_a_flipped_bit_gives_no_checkpoint_and_the_older_ones_stay() {
    let directory = std::env::temp_dir().join(format!("farshore-checkpoints-{}", std::process::id()));
    let checkpoints = Checkpoints::in_directory(&directory).unwrap();
    let store = Memory::new();
    checkpoints.take(&store).unwrap();
    let before = names(&directory);
    assert_eq!(before.len(), 1);
    put(&store, b"i");
    let error = checkpoints.take(&store).unwrap_err();
    assert!(error.to_string().contains("a bit of the state has flipped"), "{error}");
    assert_eq!(checkpoints.all().len(), 1);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn law_25_a_damaged_checkpoint_is_found_after_the_start_and_replaced() {
    let directory = std::env::temp_dir().join(format!("farshore-damaged-{}", std::process::id()));
    let store = Memory::new();
    Checkpoints::in_directory(&directory).unwrap().take(&store).unwrap();
    let path = directory.join(&names(&directory)[0]);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1 << (at % 8);
        fs::write(&path, &bent).unwrap();
        match Checkpoints::in_directory(&directory) {
            // The header is read by the start itself.
            Ok(found) if found.all().is_empty() => {
                assert!(found.lost_one(), "byte {at}");
                assert_eq!(names(&directory), Vec::<String>::new(), "byte {at}");
            }
            Ok(found) => {
                found.prove(|| Some(store.clone())).unwrap();
                assert!(found.all().len() == 1 && !found.lost_one(), "byte {at}");
                assert_eq!(fs::read(&path).unwrap(), bytes, "byte {at}");
            }
            // A version that this build does not know is not for it to remove.
            Err(error) => assert!(error.to_string().contains("version"), "byte {at}: {error}"),
        }
    }
    fs::write(&path, &bytes).unwrap();
    let found = Checkpoints::in_directory(&directory).unwrap();
    found.prove(|| Some(store.clone())).unwrap();
    assert!(found.all().len() == 1 && !found.lost_one());
    fs::remove_dir_all(&directory).unwrap();
}

/// Two checkpoints of a state that stands at another entry in each.
fn two(directory: &std::path::Path) -> Memory {
    let checkpoints = Checkpoints::in_directory(directory).unwrap();
    let store = Memory::new();
    for index in 1..=2 {
        stand_at(&store, index);
        checkpoints.take(&store).unwrap();
    }
    store
}

#[test]
fn law_25_the_log_is_not_purged_before_both_checkpoints_of_an_earlier_process_were_read() {
    let directory = std::env::temp_dir().join(format!("farshore-unread-{}", std::process::id()));
    let store = two(&directory);
    let found = Checkpoints::in_directory(&directory).unwrap();
    assert_eq!(found.purgeable(), None);
    found.prove(|| Some(store.clone())).unwrap();
    assert_eq!(found.purgeable(), Some(1));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn law_25_a_damaged_newest_checkpoint_gives_way_to_the_older_one_until_it_is_replaced() {
    let directory = std::env::temp_dir().join(format!("farshore-newest-{}", std::process::id()));
    let store = two(&directory);
    let path = directory.join(&names(&directory)[1]);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = Checkpoints::in_directory(&directory).unwrap();
    // A state that cannot be dumped: the damaged one stays, behind the older one, and another is asked for.
    let mut kv = store.write().unwrap();
    kv.put(Space::Shared, b"i", b"a row that no entry wrote").unwrap();
    kv.commit().unwrap();
    found.prove(|| Some(store.clone())).unwrap_err();
    let indices =
        |found: &Checkpoints| -> Vec<_> { found.all().iter().map(|(meta, _)| meta.last_log_id.unwrap().index).collect() };
    assert_eq!(indices(&found), [1, 2]);
    assert_eq!(found.newest().unwrap().0.last_log_id.unwrap().index, 1);
    assert!(found.lost_one() && found.purgeable().is_none());
    let mut kv = store.write().unwrap();
    kv.delete(Space::Shared, b"i").unwrap();
    kv.commit().unwrap();
    stand_at(&store, 3);
    found.take(&store).unwrap();
    assert_eq!(indices(&found), [3, 1]);
    assert!(!found.lost_one() && !path.exists());
    fs::remove_dir_all(&directory).unwrap();
}
