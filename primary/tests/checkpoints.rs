//! Checkpoints are believed only when their rows give the digest that the state keeps (law 25).
#![allow(clippy::unwrap_used, reason = "these are tests")]

use farshore_meta::kv::{Memory, Space, Store};
use farshore_primary::raft::snapshot::Checkpoints;
use std::fs;

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
fn law_25_a_damaged_checkpoint_is_removed_at_the_next_start_and_asked_for_again() {
    let directory = std::env::temp_dir().join(format!("farshore-damaged-{}", std::process::id()));
    Checkpoints::in_directory(&directory).unwrap().take(&Memory::new()).unwrap();
    let path = directory.join(&names(&directory)[0]);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1 << (at % 8);
        fs::write(&path, &bent).unwrap();
        match Checkpoints::in_directory(&directory) {
            Ok(found) => {
                assert!(found.all().is_empty() && found.lost_one(), "byte {at}");
                assert_eq!(names(&directory), Vec::<String>::new(), "byte {at}");
            }
            // A version that this build does not know is not for it to remove.
            Err(error) => assert!(error.to_string().contains("version"), "byte {at}: {error}"),
        }
    }
    fs::write(&path, &bytes).unwrap();
    let found = Checkpoints::in_directory(&directory).unwrap();
    assert!(found.all().len() == 1 && !found.lost_one());
    fs::remove_dir_all(&directory).unwrap();
}
