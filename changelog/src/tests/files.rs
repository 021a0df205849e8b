//! What the files keep: over segments, truncations, purges, restarts, full disks and failed flushes.

use super::*;
use crate::LogError;
use std::sync::atomic::Ordering;

#[test]
fn reads_go_across_segments_and_stop_at_the_bound() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    for index in 0..40 {
        files.append(&entries(index..index + 1)).unwrap();
    }
    files.sync().unwrap();
    assert!(disk.segments().len() > 5);
    assert_eq!(everything(&files), entries(0..40));
    assert_eq!(files.read(RaftIndex(13)..RaftIndex(29), usize::MAX).unwrap(), entries(13..29));
    assert_eq!(files.read(RaftIndex(13)..RaftIndex(29), 3 * 128).unwrap(), entries(13..16));
    assert_eq!(files.read(RaftIndex(13)..RaftIndex(29), 0).unwrap(), entries(13..14), "at least one");
    assert_eq!(files.read(RaftIndex(40)..RaftIndex(50), usize::MAX).unwrap(), vec![]);
    drop(files);
    let (files, recovered) = open(&disk, 2560);
    assert_eq!((recovered.first, recovered.last), (Some(RaftIndex(0)), Some(RaftIndex(39))));
    assert_eq!(everything(&files), entries(0..40));
    assert_eq!(files.flushed(), Some(RaftIndex(39)));
}

#[test]
fn a_large_append_becomes_several_batches() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 4096);
    files.append(&entries(0..100)).unwrap();
    files.sync().unwrap();
    assert_eq!(everything(&files), entries(0..100));
    drop(files);
    let (files, recovered) = open(&disk, 4096);
    assert_eq!((recovered.torn, recovered.damage), (None, None));
    assert_eq!(everything(&files), entries(0..100));
}

#[test]
fn entries_are_found_far_inside_a_large_segment() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 8 << 20);
    let wanted: Vec<_> = (0..600).map(|index| entry(index, 0, 3000)).collect();
    for group in wanted.chunks(7) {
        files.append(group).unwrap();
    }
    files.sync().unwrap();
    for at in [0, 1, 21, 299, 598, 599] {
        assert_eq!(files.read(RaftIndex(at)..RaftIndex(at + 1), usize::MAX).unwrap(), wanted[at as usize..=at as usize]);
    }
    assert_eq!(everything(&files), wanted);
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    files.append(&entries(0..12)).unwrap();
    files.sync().unwrap();
    files.truncate_after(Some(RaftIndex(4))).unwrap();
    assert_eq!(files.flushed(), Some(RaftIndex(4)));
    files.append(&entries(5..7)).unwrap();
    assert_eq!(files.flushed(), Some(RaftIndex(4)), "law 5: the new entries are not flushed, though the old ones were");
    files.truncate_after(Some(RaftIndex(4))).unwrap();
    files.sync().unwrap();
    assert_eq!(files.flushed(), Some(RaftIndex(4)));
    drop(files);
    let (mut files, _) = open(&disk, 2560);
    assert_eq!(everything(&files), entries(0..5));
    let other: Vec<_> = (5..9).map(|index| entry(index, 1, 80)).collect();
    files.append(&other).unwrap();
    files.sync().unwrap();
    let mut wanted = entries(0..5);
    wanted.extend(other);
    assert_eq!(everything(&files), wanted);
    drop(files);
    let (mut files, _) = open(&disk, 2560);
    assert_eq!(everything(&files), wanted);
    files.truncate_after(None).unwrap();
    files.append(&entries(0..1)).unwrap();
    files.sync().unwrap();
    drop(files);
    let (files, _) = open(&disk, 2560);
    assert_eq!(everything(&files), entries(0..1));
}

#[test]
fn the_bytes_of_the_last_entries_are_counted_over_segments() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 1 << 20);
    let entry = |index: u64| [(RaftIndex(index), vec![7; 100 << 10].into())];
    for index in 0..40 {
        files.append(&entry(index)).unwrap();
    }
    assert!(disk.segments().len() > 3);
    let all = files.bytes_from(RaftIndex(0));
    for from in [0, 1, 9, 20, 39] {
        let (bytes, expected) = (files.bytes_from(RaftIndex(from)), (39 - from) * (100 << 10));
        let slack = (disk.segments().len() as u64) * (110 << 10);
        assert!((expected..=expected + slack).contains(&bytes), "{bytes} from {from}, not {expected}");
        assert!(bytes <= all);
    }
    assert_eq!((files.bytes_from(RaftIndex(40)), files.bytes_from(RaftIndex(99))), (0, 0));
    files.sync().unwrap();
    let again = open(&disk, 1 << 20).0;
    assert_eq!(again.bytes_from(RaftIndex(20)), files.bytes_from(RaftIndex(20)), "also after a start");
    files.purge(RaftIndex(30)).unwrap();
    assert!(files.bytes_from(RaftIndex(0)) < 12 * (110 << 10), "what is purged is not counted");
}

#[test]
fn purge_removes_whole_segments_and_remembers_the_exact_point() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    for index in 0..40 {
        files.append(&entries(index..index + 1)).unwrap();
    }
    files.sync().unwrap();
    let (many, bytes) = (disk.segments().len(), files.retained_bytes());
    files.purge(RaftIndex(20)).unwrap();
    assert!(disk.segments().len() < many && files.retained_bytes() < bytes);
    assert_eq!(everything(&files), entries(21..40));
    files.purge(RaftIndex(10)).unwrap();
    drop(files);
    let (mut files, recovered) = open(&disk, 2560);
    assert_eq!(recovered.damage, None);
    assert_eq!((recovered.first, files.purged()), (Some(RaftIndex(21)), Some(RaftIndex(20))));
    assert_eq!(everything(&files), entries(21..40));
    let error = files.truncate_after(Some(RaftIndex(19))).unwrap_err();
    assert!(matches!(error, LogError::BelowPurged { .. }), "{error}");
}

#[test]
fn purge_beyond_the_end_lets_the_log_continue_behind_a_snapshot() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    files.append(&entries(0..12)).unwrap();
    files.purge(RaftIndex(99)).unwrap();
    assert_eq!((files.first(), files.last(), files.next()), (None, None, RaftIndex(100)));
    assert_eq!(disk.segments().len(), 1);
    drop(files);
    let (mut files, recovered) = open(&disk, 2560);
    assert_eq!((recovered.damage, recovered.last), (None, None));
    assert_eq!((files.next(), files.purged()), (RaftIndex(100), Some(RaftIndex(99))));
    files.append(&entries(100..120)).unwrap();
    files.sync().unwrap();
    drop(files);
    let (files, recovered) = open(&disk, 2560);
    assert_eq!(recovered.damage, None);
    assert_eq!(everything(&files), entries(100..120));
}

#[test]
fn appends_that_do_not_fit_the_log_are_refused_and_leave_no_trace() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    files.append(&entries(0..2)).unwrap();
    let error = files.append(&entries(3..4)).unwrap_err();
    assert_eq!(error, LogError::NotNext { expected: RaftIndex(2), got: RaftIndex(3) });
    let error = files.append(&[entry(2, 0, 10), entry(3, 0, 100_000)]).unwrap_err();
    assert!(matches!(error, LogError::TooLarge { .. }), "{error}");
    assert_eq!(everything(&files), entries(0..2));
    files.append(&entries(2..3)).unwrap();
    let largest = files.entry_bytes_max();
    files.append(&[entry(3, 0, largest)]).unwrap();
    files.write(Some(RaftIndex(3)), &[entry(3, 1, largest)]).unwrap();
    files.sync().unwrap();
    drop(files);
    let (files, _) = open(&disk, 2560);
    assert_eq!(files.read(RaftIndex(3)..RaftIndex(4), 0).unwrap(), vec![entry(3, 1, largest)]);
}

#[test]
fn law_24_a_failed_flush_poisons_the_log_and_the_next_start_knows() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    files.append(&entries(0..3)).unwrap();
    files.sync().unwrap();
    files.append(&entries(3..6)).unwrap();
    disk.control.fail_next_sync.store(true, Ordering::SeqCst);
    assert!(matches!(files.sync(), Err(LogError::Poisoned { .. })));
    assert!(matches!(files.sync(), Err(LogError::Poisoned { .. })), "not retried as if it had not failed");
    assert!(matches!(files.append(&entries(3..4)), Err(LogError::Poisoned { .. })));
    assert!(matches!(files.purge(RaftIndex(0)), Err(LogError::Poisoned { .. })));
    assert_eq!((files.flushed(), files.last()), (Some(RaftIndex(2)), Some(RaftIndex(2))));
    assert_eq!(everything(&files), entries(0..3));
    drop(files);
    for _ in 0..2 {
        let (mut files, recovered) = open(&disk, 2560);
        let mark = recovered.failure.unwrap();
        assert_eq!(mark.untrusted_from, RaftIndex(3), "though the bytes may read well");
        assert!(mark.cause.contains("planted flush error"), "{}", mark.cause);
        assert_eq!((recovered.damage, recovered.last), (None, Some(RaftIndex(2))));
        assert_eq!(everything(&files), entries(0..3));
        assert!(matches!(files.append(&entries(3..4)), Err(LogError::Damaged { index: RaftIndex(3), .. })));
        assert!(matches!(files.clear_failure(), Err(LogError::Damaged { .. })), "nothing was refilled");
    }
    let (mut files, _) = open(&disk, 2560);
    files.discard_untrusted().unwrap();
    files.append(&entries(3..9)).unwrap();
    files.sync().unwrap();
    // The pages of the failed flush never reach the disk, though they read well until the power cut.
    let disk = disk.crash(|| false);
    let (mut files, recovered) = open(&disk, 2560);
    assert_eq!((recovered.torn, recovered.damage), (None, None));
    assert_eq!(recovered.failure.unwrap().untrusted_from, RaftIndex(3), "until it is cleared");
    assert_eq!(everything(&files), entries(0..9));
    files.clear_failure().unwrap();
    drop(files);
    let (files, recovered) = open(&disk, 2560);
    assert_eq!(recovered.failure, None);
    assert_eq!(everything(&files), entries(0..9));
}

#[test]
fn law_24_a_failed_write_poisons_as_well() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    files.append(&entries(0..1)).unwrap();
    files.sync().unwrap();
    disk.control.fail_next_write.store(true, Ordering::SeqCst);
    assert!(matches!(files.append(&entries(1..2)), Err(LogError::Poisoned { .. })));
    drop(files);
    let (mut files, recovered) = open(&disk, 2560);
    assert_eq!(recovered.failure.unwrap().untrusted_from, RaftIndex(1));
    assert_eq!(everything(&files), entries(0..1));
    files.discard_untrusted().unwrap();
    files.append(&entries(1..3)).unwrap();
    files.sync().unwrap();
    disk.control.fail_next_write.store(true, Ordering::SeqCst);
    assert!(matches!(files.append(&entries(3..4)), Err(LogError::Poisoned { .. })));
    let (files, recovered) = open(&disk, 2560);
    assert_eq!(recovered.failure.unwrap().untrusted_from, RaftIndex(3), "the second failure counts");
    assert_eq!(everything(&files), entries(0..3));
}

#[test]
fn law_30_a_full_disk_is_said_clearly_and_nothing_is_half_visible() {
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, 2560);
    files.append(&entries(0..4)).unwrap();
    files.sync().unwrap();
    *disk.control.space.lock().unwrap() = Some(100);
    let error = (4..40).find_map(|index| files.append(&entries(index..index + 1)).err()).unwrap();
    assert!(matches!(error, LogError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("no space left"), "{error}");
    *disk.control.space.lock().unwrap() = None;
    let next = files.next().0;
    assert_eq!(files.append(&entries(next..next + 1)).unwrap_err(), error, "until it is opened again");
    *disk.control.space.lock().unwrap() = Some(100);
    let durable = files.flushed().unwrap();
    assert_eq!(files.last(), Some(durable));
    assert_eq!(everything(&files), entries(0..durable.0 + 1));
    drop(files);
    let (mut files, recovered) = open(&disk, 2560);
    assert_eq!((recovered.failure, recovered.damage), (None, None), "no byte is in doubt");
    assert_eq!(files.last(), Some(durable));
    // The reserve lets a purge through, and the purge makes the room.
    *disk.control.space.lock().unwrap() = Some(2560);
    files.append(&entries(durable.0 + 1..durable.0 + 3)).unwrap();
    files.sync().unwrap();
    *disk.control.space.lock().unwrap() = Some(0);
    files.purge(durable).unwrap();
    assert_eq!(disk.segments().len(), 1);
    files.append(&entries(durable.0 + 3..durable.0 + 9)).unwrap();
    files.sync().unwrap();
    assert_eq!(everything(&files), entries(durable.0 + 1..durable.0 + 9));
}

#[test]
fn another_group_or_version_is_refused() {
    let disk = MemDisk::default();
    drop(open(&disk, 2560));
    let other = Options { group: GroupId(1), ..options(2560) };
    let error = LogFiles::open(dir(), other, Arc::new(disk.clone())).err().unwrap();
    assert!(matches!(error, LogError::OtherGroup { found: GROUP, .. }), "{error}");
    let path = disk.segments()[0].clone();
    let mut bytes = disk.bytes(&path);
    bytes[6] = 9;
    let crc = crc32c::crc32c(&bytes[..504]);
    bytes[504..508].copy_from_slice(&crc.to_le_bytes());
    disk.replace(&path, bytes);
    let error = LogFiles::open(dir(), options(2560), Arc::new(disk)).err().unwrap();
    assert!(matches!(error, LogError::UnknownVersion { found: 9, known: 1, .. }), "{error}");
    let error = LogFiles::open(dir(), options(1000), Arc::new(MemDisk::default())).err().unwrap();
    assert!(matches!(error, LogError::BadOption { name: "segment_bytes", .. }), "{error}");
}

#[test]
fn on_the_disk_of_the_operating_system() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let disk: Arc<dyn crate::Disk> = Arc::new(crate::OsDisk);
    let (mut files, _) = LogFiles::open(&dir, options(1 << 20), disk.clone()).unwrap();
    for index in 0..50 {
        files.append(&[entry(index, 0, 50_000)]).unwrap();
    }
    files.purge(RaftIndex(24)).unwrap();
    drop(files);
    let (files, recovered) = LogFiles::open(&dir, options(1 << 20), disk).unwrap();
    assert_eq!((recovered.torn, recovered.damage), (None, None));
    assert_eq!(everything(&files), (25..50).map(|index| entry(index, 0, 50_000)).collect::<Vec<_>>());
    let segments = std::fs::read_dir(&dir).unwrap().count() as u64;
    assert_eq!(files.retained_bytes(), segments << 20);
}
