//! Checkpoints: a dump of the whole state with its Raft position, verified when written and before it is used (law 25).
//!
//! Two are kept, so that one flipped bit in the newest does not end the node; the log is purged up to the older one.

use super::member::Member;
use super::types::LeaderId;
use crate::local;
use farshore_meta::kv::{Space, StorageError, Store};
use farshore_meta::{DumpError, DumpHeader};
use farshore_types::GroupId;
use openraft::SnapshotMeta;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How many checkpoints are kept.
const KEPT: usize = 2;
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
        fs::create_dir_all(directory)?;
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
        let body = self.write(&meta, &mut |out| Ok(farshore_meta::write_dump(&*kv, &spaces, &dump, out)?))?;
        Ok((meta, body))
    }

    /// Keeps a checkpoint that a peer sent: verified, and durable when this returns (hazard 7.2).
    pub fn receive(&self, meta: &Meta, from: &mut dyn Read) -> Result<SnapshotBody, CheckpointError> {
        self.write(meta, &mut |out| {
            io::copy(from, out)?;
            Ok(())
        })
    }

    fn write(
        &self,
        meta: &Meta,
        fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), CheckpointError>,
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
        let mut kept = self.kept();
        kept.retain(|(other, _)| other.last_log_id != meta.last_log_id);
        kept.push((meta.clone(), body.clone()));
        kept.sort_by_key(|(meta, _)| meta.last_log_id.map(|id| id.index));
        while kept.len() > KEPT {
            if let (_, SnapshotBody::File(path)) = kept.remove(0) {
                fs::remove_file(path)?;
            }
        }
        Ok(body)
    }

    /// Where a peer's snapshot may be collected; `None` in memory.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

fn write_file(
    directory: &Path,
    meta: &Meta,
    fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), CheckpointError>,
) -> Result<PathBuf, CheckpointError> {
    let index = meta.last_log_id.map_or(0, |id| id.index);
    let path = directory.join(format!("{index:020}{SUFFIX}"));
    let aside = directory.join(format!("{index:020}.writing"));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&aside)?);
    fill(&mut out)?;
    let file = out.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Reads every block of a checkpoint against its checksums.
pub fn verify(body: &SnapshotBody) -> Result<DumpHeader, CheckpointError> {
    Ok(farshore_meta::read_dump(&mut body.open()?, &mut |_, _, _| Ok(()))?)
}

fn read_meta(body: &SnapshotBody) -> Result<Meta, CheckpointError> {
    let header = verify(body)?;
    postcard::from_bytes(&header.raft).map_err(CheckpointError::Position)
}

/// Replaces a store's whole content by a checkpoint, in one transaction.
pub fn restore<S: Store>(store: &S, body: &SnapshotBody) -> Result<Meta, CheckpointError> {
    let header = farshore_meta::load_into(store, &mut body.open()?)?;
    postcard::from_bytes(&header.raft).map_err(CheckpointError::Position)
}
