//! Opening a node's directory after what disks do: a flush that failed once, damage in the log or in the small files, a log
//! that is gone (law 24). Nothing of it is believed, and the node knows that it has no vote.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod support;

use farshore_changelog::{Disk, DiskFile, LogFiles, Options, OsDisk};
use farshore_meta::kv::{Memory, Store};
use farshore_primary::boot::{self, BootError, Identity};
use farshore_primary::local;
use farshore_primary::raft::DiskLog;
use farshore_primary::raft::log::RaftLog;
use farshore_primary::raft::types::{LeaderId, LogId};
use farshore_primary::wholeness::{PURGED, VOTE, Wholeness};
use farshore_types::{ClusterId, GroupId, NodeId, RaftIndex};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::stand_at;

const ENTRIES: u64 = 20;

fn identity() -> Identity {
    Identity { volume: "demo".to_owned(), cluster: ClusterId(0), node: NodeId(2), name: "use-b".to_owned() }
}

/// A directory of this test's own, removed with it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Directory {
    /// Of a member that has voted and whose log has [`ENTRIES`] entries.
    fn of_member(name: &str) -> Directory {
        let directory = Directory(std::env::temp_dir().join(format!("farshore-boot-{name}-{}", std::process::id())));
        let opened = boot::open(&directory.0, &identity(), false, false).unwrap();
        assert!(matches!(Wholeness::load(&*opened.log).unwrap(), Wholeness::Lost { .. }), "new directories know no vote");
        Wholeness::Member.store(&*opened.log).unwrap();
        opened.log.store_small(VOTE, b"a vote").unwrap();
        drop(opened);
        let mut files = directory.files(Arc::new(OsDisk));
        for index in 0..ENTRIES {
            files.append(&[(RaftIndex(index), vec![7; 300].into())]).unwrap();
            files.sync().unwrap();
        }
        directory
    }

    fn files(&self, disk: Arc<dyn Disk>) -> LogFiles {
        LogFiles::open(&self.0.join("log/segments"), Options::new(self.group()), disk).unwrap().0
    }

    fn group(&self) -> GroupId {
        let hash = blake3::hash(b"demo");
        GroupId(u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()))
    }

    fn open(&self) -> (Wholeness, u64, Option<Vec<u8>>) {
        let opened = boot::open(&self.0, &identity(), false, false).unwrap();
        (Wholeness::load(&*opened.log).unwrap(), opened.log.last().0, opened.log.load_small(VOTE).unwrap())
    }

    fn alone(&self) -> BootError {
        boot::open(&self.0, &identity(), false, true).err().expect("a cluster of one cannot be refilled")
    }

    fn segment(&self) -> PathBuf {
        let names = fs::read_dir(self.0.join("log/segments")).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|ext| ext == "seg")).min().unwrap()
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn is_healing(wholeness: &Wholeness, because: &str) -> bool {
    matches!(wholeness, Wholeness::Healing { why, until: None } if why.contains(because))
}

/// The operating system's disk, whose next flush of a file's contents fails once.
struct FailsOnce {
    armed: Arc<AtomicBool>,
}

struct File {
    file: Arc<dyn DiskFile>,
    armed: Arc<AtomicBool>,
}

impl DiskFile for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.armed.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("planted flush error"));
        }
        self.file.sync_data()
    }
    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.file.preallocate(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

impl FailsOnce {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(File { file, armed: self.armed.clone() })
    }
}

impl Disk for FailsOnce {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        OsDisk.open(path).map(|file| self.wrap(file))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        OsDisk.create(path).map(|file| self.wrap(file))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
}

#[test]
fn law_24_a_flush_that_failed_once_is_not_believed_though_the_bytes_read_well() {
    let directory = Directory::of_member("flush");
    let armed = Arc::new(AtomicBool::new(false));
    let mut files = directory.files(Arc::new(FailsOnce { armed: armed.clone() }));
    files.append(&[(RaftIndex(ENTRIES), vec![8; 300].into())]).unwrap();
    armed.store(true, Ordering::SeqCst);
    assert!(files.sync().is_err());
    // The disk would take it now; the log does not ask again.
    assert!(files.sync().is_err() && files.append(&[(RaftIndex(ENTRIES), vec![8; 300].into())]).is_err());
    drop(files);
    assert!(matches!(directory.alone(), BootError::Damaged(why) if why.contains("an earlier flush had failed")));
    for _ in 0..2 {
        let (wholeness, last, vote) = directory.open();
        assert!(is_healing(&wholeness, "planted flush error"), "{wholeness:?}");
        assert_eq!((last, vote.as_deref()), (ENTRIES, Some(&b"a vote"[..])));
    }
}

#[test]
fn law_24_a_damaged_log_ends_before_the_damage_and_its_node_has_no_vote() {
    let directory = Directory::of_member("damage");
    let bytes = fs::read(directory.segment()).unwrap();
    let batches: Vec<usize> = (512..bytes.len()).step_by(512).filter(|at| bytes[*at..].starts_with(b"FBAT")).collect();
    flip(&directory.segment(), batches[12] + 100);
    assert!(matches!(directory.alone(), BootError::Damaged(why) if why.contains("the log was damaged in")));
    let (wholeness, last, vote) = directory.open();
    assert!(is_healing(&wholeness, "the log was damaged in"), "{wholeness:?}");
    assert!(last == 12 && vote.is_some(), "{last}");
    // It stays so through a restart, and takes entries where it ends.
    let opened = boot::open(&directory.0, &identity(), false, false).unwrap();
    let (done, flushed) = std::sync::mpsc::channel();
    opened.log.append(vec![(RaftIndex(13), vec![9; 10].into())], Box::new(move |result| done.send(result).unwrap()));
    flushed.recv().unwrap().unwrap();
    drop(opened);
    let (wholeness, last, _) = directory.open();
    assert!(is_healing(&wholeness, "the log was damaged in") && last == 13);
}

#[test]
fn law_24_a_lost_log_keeps_the_vote_and_a_lost_vote_keeps_nothing() {
    let directory = Directory::of_member("gone");
    fs::remove_dir_all(directory.0.join("log/segments")).unwrap();
    let (wholeness, last, vote) = directory.open();
    assert!(is_healing(&wholeness, "was gone") && last == 0 && vote.is_some(), "{wholeness:?}");
    for (name, path) in [("vote", "log/vote"), ("word", "log/wholeness")] {
        let directory = Directory::of_member(name);
        flip(&directory.0.join(path), 100);
        assert_eq!(directory.open().0, Wholeness::Member, "one copy of two is enough");
        flip(&directory.0.join(path), 4096 + 100);
        let (wholeness, last, vote) = directory.open();
        assert!(matches!(&wholeness, Wholeness::Lost { why } if why.contains("were damaged")), "{wholeness:?}");
        assert_eq!((last, vote), (0, None), "{name}");
    }
}

#[test]
fn law_25_a_purge_that_was_broken_off_is_finished_and_the_log_goes_on_behind_it() {
    let directory = Directory::of_member("purge");
    let opened = boot::open(&directory.0, &identity(), false, false).unwrap();
    // The point is noted and the log is not cut yet: a snapshot of 50 was installed, then the node was killed.
    let point = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index: 50 };
    opened.log.store_small(PURGED, &postcard::to_stdvec(&point).unwrap()).unwrap();
    drop(opened);
    let mut files = directory.files(Arc::new(OsDisk));
    assert_eq!(files.next(), RaftIndex(ENTRIES));
    files.sync().unwrap();
    drop(files);
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let (log, _) = DiskLog::open(&directory.0.join("log"), directory.group(), disk).unwrap();
    let (done, flushed) = std::sync::mpsc::channel();
    log.append(vec![(RaftIndex(52), vec![9; 10].into())], Box::new(move |result| done.send(result).unwrap()));
    flushed.recv().unwrap().unwrap();
    assert_eq!((log.last(), log.flushed()), (RaftIndex(52), RaftIndex(52)));
}

/// Bends the last byte of the newest checkpoint: its header stays sound.
fn bend_newest(directory: &Path) {
    let names = fs::read_dir(directory.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let newest = names.max().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(newest, bytes).unwrap();
}

#[test]
fn law_25_a_damaged_checkpoint_is_gone_before_consensus_takes_it_for_the_state() {
    let directory = Directory::of_member("damaged-newest");
    let opened = boot::open(&directory.0, &identity(), false, false).unwrap();
    for index in 1..=2 {
        stand_at(&opened.store, index);
        opened.checkpoints.take(&opened.store).unwrap();
    }
    drop(opened);
    bend_newest(&directory.0);
    fs::write(directory.0.join("state.mark"), "another boot").unwrap();
    let opened = boot::open(&directory.0, &identity(), false, false).unwrap();
    let index = |log_id: Option<LogId>| log_id.map(|id| id.index);
    assert_eq!(index(local::applied(&*opened.store.read().unwrap()).unwrap().log_id), Some(1), "the older one was taken");
    assert_eq!(opened.checkpoints.newest().map(|(meta, _)| index(meta.last_log_id)), Some(Some(1)));
    assert!(opened.checkpoints.lost_one());
}

#[test]
fn law_25_a_damaged_snapshot_that_was_not_installed_before_a_crash_is_gone() {
    let directory = Directory::of_member("damaged-received");
    let opened = boot::open(&directory.0, &identity(), false, false).unwrap();
    // As if received from a leader: it stands above the state, which this boot left and trusts.
    let leaders = Memory::new();
    stand_at(&leaders, 5);
    opened.checkpoints.take(&leaders).unwrap();
    drop(opened);
    bend_newest(&directory.0);
    let opened = boot::open(&directory.0, &identity(), false, false).unwrap();
    assert!(opened.checkpoints.newest().is_none() && opened.checkpoints.lost_one());
}
