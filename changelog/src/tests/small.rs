//! Small durable values survive power cuts and damage to either copy, and never go back to an older value.

use super::*;
use crate::{MAX_SMALL_BYTES, SmallFile, SmallFileError};
use std::sync::atomic::Ordering;

fn path() -> &'static Path {
    Path::new("/node/vote")
}

fn small(disk: &MemDisk) -> SmallFile {
    SmallFile::open(Arc::new(disk.clone()), path()).unwrap()
}

fn stored(values: &[&[u8]]) -> MemDisk {
    let disk = MemDisk::default();
    let mut file = small(&disk);
    for value in values {
        file.store(value).unwrap();
        assert_eq!(file.load(), Some(*value));
    }
    disk
}

#[test]
fn a_value_is_found_again_and_an_absent_one_is_absent() {
    assert_eq!(small(&MemDisk::default()).load(), None);
    let disk = stored(&[b"one", b"", b"three"]);
    assert_eq!(small(&disk).load(), Some(&b"three"[..]));
    assert!(!small(&disk).damaged_copy());
    small(&disk).remove().unwrap();
    assert_eq!(small(&disk).load(), None);
    assert_eq!(disk.files(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_stored_value_survives_a_power_cut() {
    let disk = stored(&[b"one", b"two"]).crash(|| false);
    assert_eq!(small(&disk).load(), Some(&b"two"[..]));
}

#[test]
fn law_24_no_flipped_bit_brings_an_older_value_back() {
    let whole = stored(&[b"older", b"newer"]);
    for at in 0..8192 {
        let disk = whole.copy();
        disk.flip(path(), at, 1 << (at % 8));
        let mut file = small(&disk);
        assert_eq!(file.load(), Some(&b"newer"[..]), "byte {at}");
        assert!(file.damaged_copy(), "byte {at}");
        file.store(b"newest").unwrap();
        assert!(!small(&disk).damaged_copy());
    }
}

#[test]
fn law_24_two_damaged_copies_are_an_error_not_an_absence() {
    let disk = stored(&[b"value"]);
    disk.flip(path(), 0, 1);
    disk.flip(path(), 5000, 1);
    assert!(matches!(SmallFile::open(Arc::new(disk), path()), Err(SmallFileError::Damaged { .. })));
    let disk = stored(&[b"value"]);
    disk.replace(path(), Vec::new());
    assert!(matches!(SmallFile::open(Arc::new(disk), path()), Err(SmallFileError::Damaged { .. })));
}

#[test]
fn a_store_that_breaks_off_leaves_the_old_value_or_the_new_one() {
    // The first write fails half-way, then the second; a cut keeps any part of what was not flushed.
    for nth in 0..2 {
        for seed in 0..50u64 {
            let disk = stored(&[b"old"]);
            let mut file = small(&disk);
            if nth == 0 {
                disk.control.fail_next_write.store(true, Ordering::SeqCst);
            } else {
                disk.control.fail_next_sync.store(true, Ordering::SeqCst);
            }
            assert!(matches!(file.store(b"new"), Err(SmallFileError::Io { .. })));
            assert!(matches!(file.store(b"new"), Err(SmallFileError::Poisoned { .. })), "never retried (law 24)");
            let mut turn = seed;
            let after = disk.crash(|| {
                turn = turn.rotate_right(1);
                turn & 1 == 1
            });
            let file = small(&after);
            let value = file.load().unwrap();
            assert!(value == b"old" || value == b"new", "{value:?}");
        }
    }
}

#[test]
fn law_27_a_value_that_is_too_large_is_refused() {
    let disk = MemDisk::default();
    let mut file = small(&disk);
    file.store(&vec![1; MAX_SMALL_BYTES]).unwrap();
    let error = file.store(&vec![1; MAX_SMALL_BYTES + 1]).unwrap_err();
    assert!(matches!(error, SmallFileError::TooLarge { .. }));
    assert_eq!(small(&disk).load().map(<[u8]>::len), Some(MAX_SMALL_BYTES));
}
