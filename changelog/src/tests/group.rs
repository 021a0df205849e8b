//! The writer thread: group commit, order, back-pressure, failure.

use super::*;
use crate::{Done, Log, LogError, QUEUE_OPERATIONS};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Longer than anything here takes; a test that hits it hangs otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(disk: &MemDisk) -> Log {
    Log::open(dir(), options(1 << 20), Arc::new(disk.clone())).unwrap().0
}

fn ticket() -> (Done, Receiver<Result<(), LogError>>) {
    let (send, receive) = channel();
    (Box::new(move |outcome| drop(send.send(outcome))), receive)
}

fn answer(receive: &Receiver<Result<(), LogError>>) -> Result<(), LogError> {
    receive.recv_timeout(PATIENCE).expect("every operation is answered")
}

fn append(log: &Log, entries: Vec<Entry>) -> Receiver<Result<(), LogError>> {
    let (done, receive) = ticket();
    log.append(entries, done);
    receive
}

fn all(log: &Log) -> Vec<Entry> {
    log.read(RaftIndex(0)..RaftIndex(u64::MAX), usize::MAX).unwrap()
}

#[test]
fn appends_that_wait_share_one_write_and_one_flush() {
    let disk = MemDisk::default();
    let log = start(&disk);
    disk.control.hold();
    let first = append(&log, entries(0..1));
    let (syncs, writes) = (disk.control.syncs.load(Ordering::SeqCst), disk.control.writes.load(Ordering::SeqCst));
    let waiting: Vec<_> = (1..500).map(|index| append(&log, entries(index..index + 1))).collect();
    assert_eq!(log.flushed(), None, "law 5: written or queued is not flushed");
    assert_eq!(all(&log), entries(0..500), "but it can be read");
    assert_eq!(first.try_recv().ok(), None, "law 24: durable before acknowledged");
    disk.control.release();
    answer(&first).unwrap();
    waiting.iter().for_each(|receive| answer(receive).unwrap());
    assert_eq!(log.flushed(), Some(RaftIndex(499)));
    // The first one alone or with others, then all that had collected.
    assert!(disk.control.syncs.load(Ordering::SeqCst) - syncs <= 3);
    assert!(disk.control.writes.load(Ordering::SeqCst) - writes <= 3);
}

#[test]
fn answers_come_in_order() {
    let disk = MemDisk::default();
    let log = start(&disk);
    let (send, receive) = channel();
    for index in 0..300 {
        let send = send.clone();
        log.append(entries(index..index + 1), Box::new(move |outcome| drop(send.send((index, outcome)))));
    }
    for index in 0..300 {
        assert_eq!(receive.recv_timeout(PATIENCE).unwrap(), (index, Ok(())));
    }
}

#[test]
fn a_restart_finds_what_was_answered() {
    let disk = MemDisk::default();
    let log = start(&disk);
    answer(&append(&log, entries(0..20))).unwrap();
    let after = disk.crash(|| false);
    drop(log);
    let log = start(&after);
    assert_eq!(all(&log), entries(0..20));
    assert_eq!((log.first(), log.last(), log.flushed()), (Some(RaftIndex(0)), Some(RaftIndex(19)), Some(RaftIndex(19))));
}

#[test]
fn truncation_and_purge_are_seen_at_once_and_are_durable_when_answered() {
    let disk = MemDisk::default();
    let log = start(&disk);
    answer(&append(&log, entries(0..20))).unwrap();
    disk.control.hold();
    let (done, cut) = ticket();
    log.truncate_after(Some(RaftIndex(9)), done);
    let other: Vec<_> = (10..15).map(|index| entry(index, 1, 30)).collect();
    let appended = append(&log, other.clone());
    let (done, purged) = ticket();
    log.purge(RaftIndex(3), done);
    let mut wanted = entries(4..10);
    wanted.extend(other);
    assert_eq!(all(&log), wanted);
    assert_eq!(log.flushed(), Some(RaftIndex(9)), "law 5: the new 10 to 14 are not flushed, though the old ones were");
    disk.control.release();
    [cut, appended, purged].iter().for_each(|receive| answer(receive).unwrap());
    assert_eq!(log.flushed(), Some(RaftIndex(14)));
    let after = disk.crash(|| false);
    let log = start(&after);
    assert_eq!(all(&log), wanted);
    assert_eq!(log.purged(), Some(RaftIndex(3)));
}

#[test]
fn what_left_the_memory_is_read_from_the_files() {
    let disk = MemDisk::default();
    let small = Options { cache_bytes: 1000, ..options(1 << 16) };
    let (log, _) = Log::open(dir(), small, Arc::new(disk.clone())).unwrap();
    for group in 0..50 {
        answer(&append(&log, entries(group * 10..group * 10 + 10))).unwrap();
    }
    disk.control.hold();
    let last = append(&log, entries(500..503));
    assert_eq!(all(&log), entries(0..503), "files and memory together");
    let some = log.read(RaftIndex(495)..RaftIndex(503), 6 * 128).unwrap();
    assert_eq!(some, entries(495..501));
    let some = log.read(RaftIndex(3)..RaftIndex(503), 6 * 128).unwrap();
    assert_eq!(some, entries(3..9));
    disk.control.release();
    answer(&last).unwrap();
    assert!(disk.segments().len() > 1);
}

#[test]
fn law_24_a_failed_flush_refuses_everything_that_waits_and_all_that_follows() {
    let disk = MemDisk::default();
    let log = start(&disk);
    answer(&append(&log, entries(0..2))).unwrap();
    disk.control.hold();
    disk.control.fail_next_sync.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (2..50).map(|index| append(&log, entries(index..index + 1))).collect();
    disk.control.release();
    for receive in &waiting {
        assert!(matches!(answer(receive), Err(LogError::Poisoned { .. })));
    }
    assert!(matches!(answer(&append(&log, entries(2..3))), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.failure(), Some(LogError::Poisoned { .. })));
    assert_eq!((log.last(), log.flushed()), (Some(RaftIndex(1)), Some(RaftIndex(1))));
    assert_eq!(all(&log), entries(0..2));
    drop(log);
    let (_, recovered) = Log::open(dir(), options(1 << 20), Arc::new(disk)).unwrap();
    assert_eq!(recovered.failure.unwrap().untrusted_from, RaftIndex(2));
}

#[test]
fn law_24_a_damaged_log_refuses_appends_until_the_damage_is_given_up() {
    let disk = MemDisk::default();
    let log = start(&disk);
    answer(&append(&log, entries(0..2))).unwrap();
    answer(&append(&log, entries(2..4))).unwrap();
    drop(log);
    disk.flip(&disk.segments()[0], 600, 1);
    let log = start(&disk);
    assert!(matches!(answer(&append(&log, entries(0..1))), Err(LogError::Damaged { .. })));
    let (done, receive) = ticket();
    log.discard_untrusted(done);
    answer(&receive).unwrap();
    answer(&append(&log, entries(0..6))).unwrap();
    assert_eq!(log.failure(), None);
    drop(log);
    assert_eq!(all(&start(&disk)), entries(0..6));
}

#[test]
fn a_refused_append_leaves_the_log_as_it_was() {
    let disk = MemDisk::default();
    let log = start(&disk);
    let refused = answer(&append(&log, entries(1..2)));
    assert_eq!(refused, Err(LogError::NotNext { expected: RaftIndex(0), got: RaftIndex(1) }));
    let refused = answer(&append(&log, vec![entry(0, 0, 2 << 20)]));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    answer(&append(&log, entries(0..1))).unwrap();
    assert_eq!(log.failure(), None);
}

#[test]
fn law_27_a_full_queue_makes_the_next_append_wait() {
    let disk = MemDisk::default();
    let log = Arc::new(start(&disk));
    disk.control.hold();
    // Purges do not join a group, so the writer holds exactly one of them.
    let answers: Vec<_> = (0..=QUEUE_OPERATIONS as u64)
        .map(|index| {
            let (done, receive) = ticket();
            log.purge(RaftIndex(index), done);
            receive
        })
        .collect();
    let (send, over) = channel();
    let other = log.clone();
    let thread = std::thread::spawn(move || {
        let (done, receive) = ticket();
        other.purge(RaftIndex(99_999), done);
        send.send(()).unwrap();
        receive
    });
    assert_eq!(over.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Timeout));
    disk.control.release();
    over.recv_timeout(PATIENCE).unwrap();
    answers.iter().for_each(|receive| answer(receive).unwrap());
    answer(&thread.join().unwrap()).unwrap();
    assert_eq!(log.next(), RaftIndex(100_000));
}

#[test]
fn closing_does_what_is_queued_first() {
    let disk = MemDisk::default();
    let log = start(&disk);
    let answers: Vec<_> = (0..100).map(|index| append(&log, entries(index..index + 1))).collect();
    drop(log);
    answers.iter().for_each(|receive| answer(receive).unwrap());
    assert_eq!(all(&start(&disk.crash(|| false))), entries(0..100));
}

#[test]
fn many_threads_on_the_disk_of_the_operating_system() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(home.path(), options(1 << 18), Arc::new(crate::OsDisk)).unwrap();
    let answers: Vec<_> = (0..400).map(|index| append(&log, vec![entry(index, 0, 2000)])).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for index in 0..400 {
                    let read = log.read(RaftIndex(index)..RaftIndex(index + 1), 0).unwrap();
                    assert_eq!(read, vec![entry(index, 0, 2000)]);
                }
            });
        }
    });
    answers.iter().for_each(|receive| answer(receive).unwrap());
    drop(log);
    let (log, recovered) = Log::open(home.path(), options(1 << 18), Arc::new(crate::OsDisk)).unwrap();
    assert_eq!((recovered.torn, recovered.damage), (None, None));
    assert_eq!(all(&log), (0..400).map(|index| entry(index, 0, 2000)).collect::<Vec<_>>());
}
