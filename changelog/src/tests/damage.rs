//! Tears and damage are told apart (law 24).

use super::*;
use crate::format::SECTOR;
use crate::{Damage, LogError};

/// Three segments; the last batch holds entries 8 and 9 and spans two sectors.
fn sample() -> MemDisk {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    for batch in [0..2, 2..3, 3..5, 5..6, 6..8] {
        files.append(&entries(batch)).unwrap();
        files.sync().unwrap();
    }
    files.append(&[entry(8, 0, 400), entry(9, 0, 400)]).unwrap();
    files.sync().unwrap();
    assert!(disk.segments().len() >= 3);
    disk
}

fn wanted() -> Vec<Entry> {
    let mut wanted = entries(0..8);
    wanted.extend([entry(8, 0, 400), entry(9, 0, 400)]);
    wanted
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn law_24_a_last_batch_cut_at_any_byte_is_a_torn_tail_and_nothing_else_is_lost() {
    let whole = sample();
    let path = whole.segments().pop().unwrap();
    let bytes = whole.bytes(&path);
    let end = used(&bytes);
    let start = end - 2 * SECTOR;
    assert_eq!(&bytes[start..start + 4], b"FBAT");
    for cut in start..end {
        for shorten in [false, true] {
            let disk = whole.copy();
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            if shorten {
                torn.truncate(cut);
            }
            disk.replace(&path, torn);
            let (mut files, recovered) = open(&disk, 2560);
            assert_eq!(recovered.damage, None, "cut at {cut}");
            assert_eq!(recovered.torn.is_some(), cut > start, "cut at {cut}");
            assert_eq!(everything(&files), wanted()[..8], "cut at {cut}");
            files.append(&[entry(8, 1, 10)]).unwrap();
            files.sync().unwrap();
            drop(files);
            let (files, recovered) = open(&disk, 2560);
            assert_eq!((recovered.torn, recovered.damage), (None, None), "cut at {cut}");
            assert_eq!(files.last(), Some(RaftIndex(8)));
        }
    }
}

#[test]
fn law_24_a_sector_of_the_last_batch_that_was_never_written_is_a_tear() {
    let whole = sample();
    let path = whole.segments().pop().unwrap();
    let end = used(&whole.bytes(&path));
    for lost in [end - 2 * SECTOR, end - SECTOR] {
        let disk = whole.copy();
        let mut torn = disk.bytes(&path);
        torn[lost..lost + SECTOR].fill(0);
        disk.replace(&path, torn);
        let (files, recovered) = open(&disk, 2560);
        assert_eq!(recovered.damage, None);
        assert!(recovered.torn.is_some());
        assert_eq!(everything(&files), wanted()[..8]);
    }
}

#[test]
fn law_24_a_lost_sector_is_damage_if_a_later_batch_was_written_after_its_flush() {
    let whole = MemDisk::default();
    let (mut files, _) = open(&whole, 8192);
    for batch in [0..2, 2..4, 4..6] {
        files.append(&entries(batch)).unwrap();
        files.sync().unwrap();
    }
    drop(files);
    for lost in [SECTOR, 2 * SECTOR] {
        let disk = whole.copy();
        let path = disk.segments()[0].clone();
        let mut bytes = disk.bytes(&path);
        bytes[lost..lost + SECTOR].fill(0);
        disk.replace(&path, bytes);
        let (files, recovered) = open(&disk, 8192);
        let damage = recovered.damage.unwrap();
        assert_eq!((damage.last_seen, recovered.torn), (Some(RaftIndex(5)), None));
        assert_eq!(everything(&files), entries(0..damage.index.0));
    }
}

#[test]
fn law_24_a_flipped_bit_in_any_written_byte_is_damage() {
    let whole = sample();
    for path in whole.segments() {
        let bytes = whole.bytes(&path);
        let sealed = Some(&path) != whole.segments().last();
        for at in 0..bytes.len() {
            let disk = whole.copy();
            disk.flip(&path, at, 1 << (at % 8));
            let (mut files, recovered) = open(&disk, 2560);
            let place = format!("{} at {at}", path.display());
            let read = everything(&files);
            assert_eq!(read, wanted()[..read.len()], "{place}: what is read is right");
            if at < used(&bytes) {
                let damage = recovered.damage.unwrap_or_else(|| panic!("{place}: not seen"));
                assert_eq!(damage.index.0 as usize, read.len(), "{place}");
                assert_eq!(recovered.torn, None, "{place}");
                assert!(matches!(files.append(&entries(0..1)), Err(LogError::Damaged { .. })), "{place}");
            } else {
                assert_eq!(recovered.damage, None, "{place}");
                assert_eq!(recovered.torn.is_some(), !sealed, "{place}");
                assert_eq!(read, wanted(), "{place}: unused space holds no entry");
            }
        }
    }
}

fn damaged_in_the_middle() -> (MemDisk, Damage) {
    let disk = sample();
    let path = disk.segments()[0].clone();
    let bytes = disk.bytes(&path);
    disk.flip(&path, used(&bytes) - SECTOR + 60, 4);
    let (files, recovered) = open(&disk, 2560);
    let damage = recovered.damage.unwrap();
    assert!(damage.index.0 > 0 && damage.index.0 < 8);
    assert_eq!(files.last(), Some(RaftIndex(damage.index.0 - 1)));
    (disk, damage)
}

#[test]
fn law_24_damage_is_reported_again_and_again_and_says_how_far_the_log_went() {
    let (disk, damage) = damaged_in_the_middle();
    assert_eq!(damage.last_seen, Some(RaftIndex(9)));
    let before: Vec<_> = disk.segments().iter().map(|path| disk.bytes(path)).collect();
    let (_, again) = open(&disk, 2560);
    assert_eq!(again.damage, Some(damage));
    let after: Vec<_> = disk.segments().iter().map(|path| disk.bytes(path)).collect();
    assert_eq!(before, after, "opening a damaged log changes nothing");
}

#[test]
fn law_24_a_damaged_part_that_was_given_up_is_refilled_and_stays_so() {
    let (disk, damage) = damaged_in_the_middle();
    let (mut files, _) = open(&disk, 2560);
    files.discard_untrusted().unwrap();
    let refill: Vec<_> = (damage.index.0..12).map(|index| entry(index, 9, 50)).collect();
    files.append(&refill).unwrap();
    files.sync().unwrap();
    let mut expected = wanted()[..damage.index.0 as usize].to_vec();
    expected.extend(refill);
    assert_eq!(everything(&files), expected);
    drop(files);
    for _ in 0..2 {
        let (files, recovered) = open(&disk, 2560);
        assert_eq!((recovered.damage, recovered.torn), (None, None));
        assert_eq!(everything(&files), expected);
    }
    let (mut files, _) = open(&disk, 2560);
    files.purge(RaftIndex(10)).unwrap();
    drop(files);
    let (files, recovered) = open(&disk, 2560);
    assert_eq!(recovered.damage, None);
    assert_eq!(everything(&files), expected[11..]);
}

#[test]
fn law_24_a_missing_segment_is_damage() {
    for missing in 0..2 {
        let whole = sample();
        let disk = whole.copy();
        let path = disk.segments()[missing].clone();
        crate::Disk::remove(&disk, &path).unwrap();
        let (mut files, recovered) = open(&disk, 2560);
        let damage = recovered.damage.unwrap();
        assert_eq!(damage.last_seen, Some(RaftIndex(9)));
        let kept = everything(&files);
        assert_eq!(kept, wanted()[..damage.index.0 as usize]);
        files.discard_untrusted().unwrap();
        files.append(&[entry(damage.index.0, 3, 10)]).unwrap();
        files.sync().unwrap();
        drop(files);
        let (files, recovered) = open(&disk, 2560);
        assert_eq!(recovered.damage, None, "segment {missing}");
        assert_eq!(files.last(), Some(damage.index));
    }
}

#[test]
fn damage_that_appears_while_running_is_an_error_of_the_read() {
    let disk = sample();
    let (files, _) = open(&disk, 2560);
    let path = disk.segments()[0].clone();
    disk.flip(&path, SECTOR + 100, 1);
    let error = files.read(RaftIndex(0)..RaftIndex(10), usize::MAX).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
}
