//! Checkpoints: a dump of the whole state with its Raft position, verified when written and before it is used (law 25).
//!
//! Two are kept, so that one flipped bit in the newest does not end the node; the log is purged up to the older one. A start
//! reads their headers only: [`Checkpoints::prove`] reads the rest while the node serves, and until it is done the log is not
//! purged.

use super::member::Member;
use super::types::LeaderId;
use crate::local;
use farshore_changelog::{Disk, OsDisk};
use farshore_meta::kv::{Space, StorageError, Store};
use farshore_meta::{DumpError, DumpHeader};
use farshore_types::GroupId;
use openraft::SnapshotMeta;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How many checkpoints are kept.
const KEPT: usize = 2;
/// Bytes of a checkpoint that wait for the disk at once, about.
const STEADY: usize = 1 << 20;
/// Bytes of an old checkpoint that are freed at once, and the pause before the next ones.
const REMOVED_AT_ONCE: u64 = 16 << 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a checkpoint after which the kernel is told that they are not read again soon.
const PASSED: u64 = 8 << 20;
/// Pause after each [`STEADY`] bytes of a checkpoint that an earlier process left: who is served meanwhile needs the processor
/// and the disk.
const PROOF_PAUSE: Duration = Duration::from_millis(10);
/// Between the index and the end of a checkpoint's file name.
const SUFFIX: &str = ".checkpoint";

/// openraft's description of a snapshot.
pub type Meta = SnapshotMeta<LeaderId, u64, Member>;

/// A checkpoint's bytes.
#[derive(Clone, Debug)]
pub enum SnapshotBody {
    File(PathBuf),
    /// In the simulator.
    Memory(Arc<Vec<u8>>),
}

impl SnapshotBody {
    /// A reader over the bytes, from their beginning.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match self {
            SnapshotBody::File(path) => Ok(Box::new(BufReader::with_capacity(1 << 20, Passing::over(File::open(path)?)))),
            SnapshotBody::Memory(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone().to_vec()))),
        }
    }

    fn is(&self, other: &SnapshotBody) -> bool {
        match (self, other) {
            (SnapshotBody::File(path), SnapshotBody::File(other)) => path == other,
            (SnapshotBody::Memory(bytes), SnapshotBody::Memory(other)) => Arc::ptr_eq(bytes, other),
            _ => false,
        }
    }
}

impl std::fmt::Display for SnapshotBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapshotBody::File(path) => write!(f, "{}", path.display()),
            SnapshotBody::Memory(_) => write!(f, "one in memory"),
        }
    }
}

/// A checkpoint could not be written, or must not be trusted.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("a checkpoint could not be written or read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the checkpoint cannot be believed: {0}")]
    Dump(#[from] DumpError),
    #[error("the checkpoint's Raft position cannot be decoded: {0}")]
    Position(postcard::Error),
}

impl CheckpointError {
    /// The bytes are wrong, and will be so at every further look.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            CheckpointError::Position(_) | CheckpointError::Dump(DumpError::Damaged(_) | DumpError::OtherDigest { .. })
        )
    }
}

/// What is known of a kept checkpoint's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// An earlier process left it, and only its header was read.
    Unread,
    /// It was read whole.
    Whole,
    /// It goes as soon as another one has taken its place.
    Damaged,
}

#[derive(Clone, Debug)]
struct Kept {
    meta: Meta,
    body: SnapshotBody,
    proof: Proof,
}

/// The checkpoints of one node, newest last.
pub struct Checkpoints {
    directory: Option<PathBuf>,
    memory: Mutex<Vec<Kept>>,
    /// One was found damaged: another must take its place soon.
    lost: AtomicBool,
    /// One is taken at a time: two of the same position have the same file.
    writing: Mutex<()>,
}

impl Checkpoints {
    /// In memory only: for the simulator.
    pub fn in_memory() -> Self {
        Checkpoints { directory: None, memory: Mutex::default(), lost: AtomicBool::new(false), writing: Mutex::default() }
    }

    /// In a directory, which is created. What is unfinished, or has a damaged header, is removed; the rest of the bytes is
    /// for [`Checkpoints::prove`].
    pub fn in_directory(directory: &Path) -> Result<Self, CheckpointError> {
        OsDisk.create_dir_all(directory)?;
        let mut names: Vec<PathBuf> = vec![];
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            match path.to_str() {
                Some(name) if name.ends_with(SUFFIX) => names.push(path),
                _ => fs::remove_file(&path)?,
            }
        }
        names.sort();
        let checkpoints = Checkpoints { directory: Some(directory.to_owned()), ..Checkpoints::in_memory() };
        for body in names.into_iter().map(SnapshotBody::File) {
            match read_meta(&body) {
                Ok(meta) => checkpoints.kept().push(Kept { meta, body, proof: Proof::Unread }),
                Err(error) if error.is_damage() => checkpoints.discard(&body, &error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(checkpoints)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.memory.lock().expect("no one panics while holding the list of checkpoints")
    }

    /// The newest one.
    pub fn newest(&self) -> Option<(Meta, SnapshotBody)> {
        self.all().into_iter().next()
    }

    /// All that are not known to be damaged, newest first; then those, since a reader of them learns it for itself.
    pub fn all(&self) -> Vec<(Meta, SnapshotBody)> {
        let mut all: Vec<Kept> = self.kept().iter().rev().cloned().collect();
        all.sort_by_key(|kept| kept.proof == Proof::Damaged);
        all.into_iter().map(|kept| (kept.meta, kept.body)).collect()
    }

    /// Whether one was lost and none was taken since.
    pub fn lost_one(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Up to which Raft index (openraft's) the log may go: the older of two checkpoints, both proven (law 25).
    pub fn purgeable(&self) -> Option<u64> {
        let kept = self.kept();
        let enough = kept.len() >= KEPT && kept.iter().all(|kept| kept.proof == Proof::Whole);
        kept.first().filter(|_| enough).and_then(|kept| kept.meta.last_log_id).map(|id| id.index)
    }

    /// Reads what an earlier process left, to its last byte. If one is damaged, another one is taken of the state at once, if there
    /// still is one, and takes its place.
    pub fn prove<S: Store>(&self, store: impl Fn() -> Option<S>) -> Result<(), CheckpointError> {
        let unread: Vec<Kept> = self.kept().iter().filter(|kept| kept.proof == Proof::Unread).cloned().collect();
        let mut first_error = Ok(());
        for Kept { body, .. } in unread {
            // The others are read all the same.
            first_error = first_error.and(self.prove_one(&body, &store));
        }
        first_error
    }

    fn prove_one<S: Store>(&self, body: &SnapshotBody, store: impl Fn() -> Option<S>) -> Result<(), CheckpointError> {
        let error = match verify_slowly(body) {
            Ok(()) => {
                self.note(body, Proof::Whole);
                return Ok(());
            }
            Err(error) if error.is_damage() => error,
            Err(error) => return Err(error),
        };
        // One that was forgotten meanwhile goes bit by bit, and reads like a damaged one.
        if !self.note(body, Proof::Damaged) {
            return Ok(());
        }
        tracing::error!(checkpoint = %body, %error, "a checkpoint is damaged; another one takes its place");
        self.lost.store(true, Ordering::Relaxed);
        store().map_or(Ok(()), |store| self.take(&store).map(drop))
    }

    /// Reads those whole that stand above openraft's index `applied`: consensus takes them for the state when it starts. A damaged
    /// one is removed.
    pub fn prove_above(&self, applied: Option<u64>) -> Result<(), CheckpointError> {
        let above = |kept: &&Kept| kept.meta.last_log_id.map(|id| id.index) > applied;
        let above: Vec<Kept> = self.kept().iter().filter(above).cloned().collect();
        for Kept { body, .. } in above {
            match verify(&body) {
                Ok(_) => drop(self.note(&body, Proof::Whole)),
                Err(error) if error.is_damage() => self.discard(&body, &error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes one that its reader found damaged, before anything else can take it for good.
    pub fn discard(&self, body: &SnapshotBody, error: &CheckpointError) -> Result<(), CheckpointError> {
        tracing::error!(checkpoint = %body, %error, "a checkpoint is damaged and is removed");
        self.lost.store(true, Ordering::Relaxed);
        self.kept().retain(|kept| !kept.body.is(body));
        if let SnapshotBody::File(path) = body {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Notes what was found out of an unread checkpoint; whether it is still kept.
    fn note(&self, body: &SnapshotBody, proof: Proof) -> bool {
        let mut kept = self.kept();
        let unread = kept.iter_mut().find(|kept| kept.body.is(body) && kept.proof == Proof::Unread);
        unread.map(|kept| kept.proof = proof).is_some()
    }

    /// Writes a checkpoint of the state as it is now, reads it back and verifies it, and forgets the oldest.
    pub fn take<S: Store>(&self, store: &S) -> Result<(Meta, SnapshotBody), CheckpointError> {
        // Before the view of the state begins: as long as that lasts, no page is reused.
        let _writing = self.writing();
        let kv = store.read_through()?;
        let applied = local::applied(&*kv)?;
        let meta = Meta { last_log_id: applied.log_id, last_membership: applied.membership };
        let raft = postcard::to_stdvec(&meta).expect("Raft's messages always serialise into memory");
        let header = farshore_meta::header(&*kv)?;
        let digest = farshore_meta::digest(&*kv)?;
        let group = farshore_meta::volume(&*kv)?.map_or(GroupId(0), |volume| volume.group);
        let spaces = Space::ALL.to_vec();
        let dump = DumpHeader { group, raft, index: header.index, chain: header.chain, digest, spaces: spaces.clone() };
        // The view goes with the closure, before the dump is verified.
        let body = self.write(&meta, "writing", move |out| Ok(farshore_meta::write_dump(&*kv, &spaces, &dump, out)?))?;
        Ok((meta, body))
    }

    /// Keeps a checkpoint that a peer sent: verified, and durable when this returns (hazard 7.2).
    pub fn receive(&self, meta: &Meta, from: &mut dyn Read) -> Result<SnapshotBody, CheckpointError> {
        // Not one at a time with those that are taken: a sender may take as long as it likes. Two senders at once write one
        // file, which is refused then.
        self.write(meta, "receiving", |out| {
            io::copy(from, out)?;
            Ok(())
        })
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().expect("no one panics while writing a checkpoint")
    }

    /// `aside` ends the file's name until it is proven.
    fn write(
        &self,
        meta: &Meta,
        aside: &str,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), CheckpointError>,
    ) -> Result<SnapshotBody, CheckpointError> {
        let body = match &self.directory {
            None => {
                let mut bytes = vec![];
                fill(&mut bytes)?;
                let body = SnapshotBody::Memory(Arc::new(bytes));
                believe(&body)?;
                body
            }
            Some(directory) => SnapshotBody::File(write_file(directory, meta, aside, fill)?),
        };
        self.lost.store(false, Ordering::Relaxed);
        let mut old = vec![];
        {
            let mut kept = self.kept();
            kept.retain(|other| other.meta.last_log_id != meta.last_log_id);
            old.extend(kept.extract_if(.., |other| other.proof == Proof::Damaged).map(|damaged| damaged.body));
            kept.push(Kept { meta: meta.clone(), body: body.clone(), proof: Proof::Whole });
            kept.sort_by_key(|kept| kept.meta.last_log_id.map(|id| id.index));
            while kept.len() > KEPT {
                old.push(kept.remove(0).body);
            }
        }
        for body in old {
            if let SnapshotBody::File(path) = body {
                remove_steadily(&path)?;
            }
        }
        Ok(body)
    }

    /// Where a peer's snapshot may be collected; `None` in memory.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

/// A file whose bytes go to the disk as they come. Written at once at the end they would fill the disk's queue, and every
/// flush of the log, which a commit waits for, would wait behind all of them.
struct Steady {
    file: File,
    unsynced: usize,
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= STEADY {
            self.file.sync_data()?;
            self.unsynced = 0;
            pass_over(&self.file, 0);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that is read from its beginning to its end, once: what was read makes no room for itself in the kernel's cache,
/// where the state's own pages are.
struct Passing {
    file: File,
    read: u64,
    passed: u64,
}

impl Passing {
    fn over(file: File) -> Passing {
        Passing { file, read: 0, passed: 0 }
    }
}

impl Read for Passing {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        self.read += read as u64;
        if self.read - self.passed >= PASSED || read == 0 {
            pass_over(&self.file, self.read);
            self.passed = self.read;
        }
        Ok(read)
    }
}

/// Tells the kernel that the file's bytes before `end` (0: all of them) are not read again soon. It may not listen.
fn pass_over(file: &File, end: u64) {
    let length = libc::off_t::try_from(end).expect("no file is longer than its offsets can say");
    // SAFETY: the descriptor is open as long as `file` is borrowed, and the call touches no memory of this process.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, length, libc::POSIX_FADV_DONTNEED) };
}

fn write_file(
    directory: &Path,
    meta: &Meta,
    aside: &str,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), CheckpointError>,
) -> Result<PathBuf, CheckpointError> {
    let index = meta.last_log_id.map_or(0, |id| id.index);
    let path = directory.join(format!("{index:020}{SUFFIX}"));
    let aside = directory.join(format!("{index:020}.{aside}"));
    if let Err(error) = write_proven(&aside, fill) {
        // It may have filled the disk.
        if let Err(error) = fs::remove_file(&aside) {
            tracing::warn!(path = %aside.display(), %error, "an unfinished checkpoint stays until the next start");
        }
        return Err(error);
    }
    // Only now, since another one of the same position may be there.
    fs::rename(&aside, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

fn write_proven(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<(), CheckpointError>) -> Result<(), CheckpointError> {
    let mut out = BufWriter::with_capacity(1 << 20, Steady { file: File::create(path)?, unsynced: 0 });
    fill(&mut out)?;
    let Steady { file, .. } = out.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    pass_over(&file, 0);
    believe(&SnapshotBody::File(path.to_owned()))
}

/// Read back from the disk: what is kept is what was meant, and the state's rows give the digest that it keeps. A mismatch is
/// damage of the state that was dumped, or of the one that a peer sent.
fn believe(body: &SnapshotBody) -> Result<(), CheckpointError> {
    farshore_meta::verify_dump(&mut body.open()?)?;
    Ok(())
}

/// Removes a checkpoint bit by bit: a file system frees all blocks of a large file at once, and flushes of the log wait.
fn remove_steadily(path: &Path) -> io::Result<()> {
    // Under a name that the next start removes: what is left of it is no checkpoint.
    let aside = path.with_extension("removing");
    fs::rename(path, &aside)?;
    let file = File::options().write(true).open(&aside)?;
    let mut length = file.metadata()?.len();
    while length > REMOVED_AT_ONCE {
        length -= REMOVED_AT_ONCE;
        file.set_len(length)?;
        std::thread::sleep(REMOVAL_PAUSE);
    }
    fs::remove_file(&aside)
}

/// Reads every block of a checkpoint against its checksums.
pub fn verify(body: &SnapshotBody) -> Result<DumpHeader, CheckpointError> {
    Ok(farshore_meta::read_dump(&mut body.open()?, &mut |_, _, _| Ok(()))?)
}

/// [`verify`], at a hundred megabytes a second at most.
fn verify_slowly(body: &SnapshotBody) -> Result<(), CheckpointError> {
    let mut bytes = 0;
    farshore_meta::read_dump(&mut body.open()?, &mut |_, key, value| {
        bytes += key.len() + value.len();
        if bytes >= STEADY {
            bytes = 0;
            std::thread::sleep(PROOF_PAUSE);
        }
        Ok(())
    })?;
    Ok(())
}

fn meta_of(header: &DumpHeader) -> Result<Meta, CheckpointError> {
    postcard::from_bytes(&header.raft).map_err(CheckpointError::Position)
}

fn read_meta(body: &SnapshotBody) -> Result<Meta, CheckpointError> {
    meta_of(&farshore_meta::read_dump_header(&mut body.open()?)?)
}

/// Replaces a store's whole content by a checkpoint: all or nothing.
pub fn restore<S: Store>(store: &S, body: &SnapshotBody) -> Result<Meta, CheckpointError> {
    meta_of(&farshore_meta::load_into(store, &mut body.open()?)?)
}
