//! Checkpoints: a dump of the whole state with its Raft position, verified when written and before it is used (law 25).
//!
//! Two are kept, so that one flipped bit in the newest does not end the node; the log is purged up to the older one.

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
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many checkpoints are kept.
const KEPT: usize = 2;
/// Bytes of a checkpoint that wait for the disk at once, about.
const STEADY: usize = 1 << 20;
/// Bytes of an old checkpoint that are freed at once, and the pause before the next ones.
const REMOVED_AT_ONCE: u64 = 16 << 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);
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
            SnapshotBody::File(path) => Ok(Box::new(BufReader::new(File::open(path)?))),
            SnapshotBody::Memory(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone().to_vec()))),
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
    fn is_damage(&self) -> bool {
        matches!(
            self,
            CheckpointError::Position(_) | CheckpointError::Dump(DumpError::Damaged(_) | DumpError::OtherDigest { .. })
        )
    }
}

/// The checkpoints of one node, newest last.
pub struct Checkpoints {
    directory: Option<PathBuf>,
    memory: Mutex<Vec<(Meta, SnapshotBody)>>,
    /// One was found damaged: another must take its place soon.
    lost: AtomicBool,
}

impl Checkpoints {
    /// In memory only: for the simulator.
    pub fn in_memory() -> Self {
        Checkpoints { directory: None, memory: Mutex::default(), lost: AtomicBool::new(false) }
    }

    /// In a directory, which is created. What is unfinished or damaged is removed.
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
        let (mut found, mut lost) = (vec![], false);
        for path in names {
            match read_meta(&SnapshotBody::File(path.clone())) {
                Ok(meta) => found.push((meta, SnapshotBody::File(path))),
                Err(error) if error.is_damage() => {
                    tracing::error!(path = %path.display(), %error, "a checkpoint is damaged and is removed");
                    fs::remove_file(&path)?;
                    lost = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Checkpoints { directory: Some(directory.to_owned()), memory: Mutex::new(found), lost: AtomicBool::new(lost) })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<(Meta, SnapshotBody)>> {
        self.memory.lock().expect("no one panics while holding the list of checkpoints")
    }

    /// The newest one.
    pub fn newest(&self) -> Option<(Meta, SnapshotBody)> {
        self.kept().last().cloned()
    }

    /// All, newest first.
    pub fn all(&self) -> Vec<(Meta, SnapshotBody)> {
        self.kept().iter().rev().cloned().collect()
    }

    /// Whether one was lost and none was taken since.
    pub fn lost_one(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Up to which Raft index (openraft's) the log may go: the older of two checkpoints (law 25).
    pub fn purgeable(&self) -> Option<u64> {
        let kept = self.kept();
        if kept.len() < KEPT { None } else { kept.first().and_then(|(meta, _)| meta.last_log_id).map(|id| id.index) }
    }

    /// Writes a checkpoint of the state as it is now, reads it back and verifies it, and forgets the oldest.
    pub fn take<S: Store>(&self, store: &S) -> Result<(Meta, SnapshotBody), CheckpointError> {
        let kv = store.read()?;
        let applied = local::applied(&*kv)?;
        let meta = Meta { last_log_id: applied.log_id, last_membership: applied.membership };
        let raft = postcard::to_stdvec(&meta).expect("Raft's messages always serialise into memory");
        let header = farshore_meta::header(&*kv)?;
        let digest = farshore_meta::digest(&*kv)?;
        let group = farshore_meta::volume(&*kv)?.map_or(GroupId(0), |volume| volume.group);
        let spaces = Space::ALL.to_vec();
        let dump = DumpHeader { group, raft, index: header.index, chain: header.chain, digest, spaces: spaces.clone() };
        // The view of the state goes with the closure, before the dump is verified: as long as it lasts, no page is reused.
        let body = self.write(&meta, move |out| Ok(farshore_meta::write_dump(&*kv, &spaces, &dump, out)?))?;
        Ok((meta, body))
    }

    /// Keeps a checkpoint that a peer sent: verified, and durable when this returns (hazard 7.2).
    pub fn receive(&self, meta: &Meta, from: &mut dyn Read) -> Result<SnapshotBody, CheckpointError> {
        self.write(meta, |out| {
            io::copy(from, out)?;
            Ok(())
        })
    }

    fn write(
        &self,
        meta: &Meta,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), CheckpointError>,
    ) -> Result<SnapshotBody, CheckpointError> {
        let body = match &self.directory {
            None => {
                let mut bytes = vec![];
                fill(&mut bytes)?;
                SnapshotBody::Memory(Arc::new(bytes))
            }
            Some(directory) => SnapshotBody::File(write_file(directory, meta, fill)?),
        };
        // Read back from the disk: what is kept is what was meant, and the state's rows give the digest that it keeps. A
        // mismatch is damage of the state that was dumped, or of the one that a peer sent.
        if let Err(error) = farshore_meta::verify_dump(&mut body.open()?) {
            if let SnapshotBody::File(path) = &body {
                fs::remove_file(path)?;
            }
            return Err(error.into());
        }
        self.lost.store(false, Ordering::Relaxed);
        let mut old = vec![];
        {
            let mut kept = self.kept();
            kept.retain(|(other, _)| other.last_log_id != meta.last_log_id);
            kept.push((meta.clone(), body.clone()));
            kept.sort_by_key(|(meta, _)| meta.last_log_id.map(|id| id.index));
            while kept.len() > KEPT {
                old.push(kept.remove(0).1);
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
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write_file(
    directory: &Path,
    meta: &Meta,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), CheckpointError>,
) -> Result<PathBuf, CheckpointError> {
    let index = meta.last_log_id.map_or(0, |id| id.index);
    let path = directory.join(format!("{index:020}{SUFFIX}"));
    let aside = directory.join(format!("{index:020}.writing"));
    let mut out = BufWriter::with_capacity(1 << 20, Steady { file: File::create(&aside)?, unsynced: 0 });
    fill(&mut out)?;
    let Steady { file, .. } = out.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
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

fn meta_of(header: &DumpHeader) -> Result<Meta, CheckpointError> {
    postcard::from_bytes(&header.raft).map_err(CheckpointError::Position)
}

fn read_meta(body: &SnapshotBody) -> Result<Meta, CheckpointError> {
    meta_of(&verify(body)?)
}

/// Replaces a store's whole content by a checkpoint, in one transaction.
pub fn restore<S: Store>(store: &S, body: &SnapshotBody) -> Result<Meta, CheckpointError> {
    meta_of(&farshore_meta::load_into(store, &mut body.open()?)?)
}

/// [`restore`] into a store that nobody trusts before this returns: in many transactions, and so in little memory.
pub fn restore_untrusted<S: Store>(store: &S, body: &SnapshotBody) -> Result<Meta, CheckpointError> {
    meta_of(&farshore_meta::load_untrusted(store, &mut body.open()?)?)
}
