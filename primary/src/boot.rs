//! Opening a node's directory: whose it is, what of it may be trusted, and where to start from.
//!
//! LMDB runs unsynced, so its file is trusted only by the same boot of the same machine, and only if it stands where
//! the log says; otherwise the node starts from a checkpoint and replays (section 5 of the design, hazard 7.5).

use crate::local;
use crate::raft::log::RaftLog;
use crate::raft::snapshot::{CheckpointError, Checkpoints, restore};
use crate::raft::types::Entry;
use crate::raft::{DiskLog, DiskLogError, stored};
use farshore_changelog::OsDisk;
use farshore_meta::kv::{Lmdb, StorageError, Store};
use farshore_types::{ClusterId, GroupId, NodeId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const IDENTITY: &str = "node.json";
const MARK: &str = "state.mark";
const STATE: &str = "state";
const LOG: &str = "log";
const CHECKPOINTS: &str = "checkpoints";

/// A node's directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} belongs to {theirs}, this is {ours}: give each node a directory of its own")]
    OtherNode { path: PathBuf, theirs: String, ours: String },
    #[error("{path} cannot be read: {error}")]
    Identity { path: PathBuf, error: serde_json::Error },
    #[error(transparent)]
    Log(#[from] DiskLogError),
    #[error(
        "the log is damaged ({0}): leave this node stopped, its two peers go on; replacing a node is not available yet, \
         and an emptied directory would forget this node's vote"
    )]
    Damaged(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "no checkpoint can be used and the log begins at {0}: leave this node stopped, its two peers go on; replacing a node is not available yet"
    )]
    NoStart(u64),
    #[error(transparent)]
    Read(#[from] crate::raft::log::LogFailure),
}

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub volume: String,
    pub cluster: ClusterId,
    pub node: NodeId,
    pub name: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node `{}` ({} of cluster {}) of volume `{}`", self.name, self.node, self.cluster, self.volume)
    }
}

/// What a node on disk is made of.
pub struct OnDisk {
    pub store: Lmdb,
    pub log: Arc<DiskLog>,
    pub checkpoints: Arc<Checkpoints>,
}

/// Opens or creates a node's directory.
pub fn open(directory: &Path, identity: &Identity) -> Result<OnDisk, BootError> {
    create_dir(directory)?;
    claim(directory, identity)?;
    let group = GroupId(u64::from_le_bytes(first_eight(blake3::hash(identity.volume.as_bytes()).as_bytes())));
    let (log, recovered) = DiskLog::open(&directory.join(LOG), group, Arc::new(OsDisk))?;
    if let Some(damage) = &recovered.damage {
        return Err(BootError::Damaged(format!("{damage:?}")));
    }
    if let Some(failure) = &recovered.failure {
        // What followed the last good flush cannot be trusted, also where it reads well (law 24).
        return Err(BootError::Damaged(format!("an earlier flush failed: {failure:?}")));
    }
    if let Some(torn) = &recovered.torn {
        tracing::info!(?torn, "the log ended in an incomplete batch, which was never acknowledged");
    }
    let checkpoints = Checkpoints::in_directory(&directory.join(CHECKPOINTS)).map_err(|error| io_of(directory, error))?;
    let mark = this_boot();
    let state = directory.join(STATE);
    let trusted = fs::read_to_string(directory.join(MARK)).is_ok_and(|found| found == mark);
    if trusted && state.exists() {
        create_dir(&state)?;
        let store = Lmdb::open(&state)?;
        if stands_in_log(&store, &log)? {
            return Ok(OnDisk { store, log: Arc::new(log), checkpoints: Arc::new(checkpoints) });
        }
        tracing::warn!("the state does not stand where the log says: starting from a checkpoint");
        drop(store);
    }
    let store = rebuild(directory, &state, &mark, &log, &checkpoints)?;
    Ok(OnDisk { store, log: Arc::new(log), checkpoints: Arc::new(checkpoints) })
}

fn first_eight(bytes: &[u8; 32]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    eight
}

fn create_dir(path: &Path) -> Result<(), BootError> {
    fs::create_dir_all(path).map_err(|error| BootError::Io { path: path.to_owned(), error })
}

fn io_of(path: &Path, error: CheckpointError) -> BootError {
    BootError::Io { path: path.to_owned(), error: io::Error::other(error) }
}

/// Writes a small file durably: aside, synced, renamed.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), BootError> {
    let failed = |error| BootError::Io { path: path.to_owned(), error };
    let aside = path.with_extension("writing");
    let mut file = File::create(&aside).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&aside, path).map_err(failed)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn claim(directory: &Path, identity: &Identity) -> Result<(), BootError> {
    let path = directory.join(IDENTITY);
    match fs::read(&path) {
        Ok(bytes) => {
            let theirs: Identity =
                serde_json::from_slice(&bytes).map_err(|error| BootError::Identity { path: path.clone(), error })?;
            if theirs != *identity {
                return Err(BootError::OtherNode { path, theirs: theirs.to_string(), ours: identity.to_string() });
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_durably(&path, &serde_json::to_vec_pretty(identity).expect("an identity always serialises"))
        }
        Err(error) => Err(BootError::Io { path, error }),
    }
}

/// Names this boot of this machine; both must be unchanged for unsynced pages to be what was written.
fn this_boot() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    format!("{} {}\n", read("/proc/sys/kernel/random/boot_id"), read("/etc/machine-id"))
}

/// Whether the state's last applied entry is the one that the log holds there.
fn stands_in_log(store: &Lmdb, log: &DiskLog) -> Result<bool, BootError> {
    let applied = local::applied(&*store.read()?)?;
    let Some(at) = applied.log_id else { return Ok(log.last().0 == 0 || first_of(log)?.is_some_and(|first| first <= 1)) };
    let index = stored(at.index);
    if index > log.flushed() {
        // Law 5 forbids this: the state would be ahead of its own log. Only an empty log above a snapshot may be.
        return Ok(log.last().0 == 0);
    }
    match log.read(index, index, 1)?.first() {
        Some((_, bytes)) => Ok(postcard::from_bytes::<Entry>(bytes).is_ok_and(|entry| entry.log_id == at)),
        None => Ok(true),
    }
}

fn first_of(log: &DiskLog) -> Result<Option<u64>, BootError> {
    Ok(log.read(stored(0), log.last(), 1)?.first().map(|(index, _)| index.0))
}

/// Builds the state anew from the newest checkpoint that holds, or from nothing when the log is whole.
fn rebuild(directory: &Path, state: &Path, mark: &str, log: &DiskLog, checkpoints: &Checkpoints) -> Result<Lmdb, BootError> {
    let mark_path = directory.join(MARK);
    // The mark goes first: a crash on the way must not leave a half-built state trusted.
    if mark_path.exists() {
        fs::remove_file(&mark_path).map_err(|error| BootError::Io { path: mark_path.clone(), error })?;
    }
    if state.exists() {
        fs::remove_dir_all(state).map_err(|error| BootError::Io { path: state.to_owned(), error })?;
    }
    create_dir(state)?;
    let store = Lmdb::open(state)?;
    let mut restored = false;
    for (_, body) in checkpoints.all() {
        match restore(&store, &body) {
            Ok(meta) => {
                tracing::info!(at = ?meta.last_log_id, "the state was rebuilt from a checkpoint");
                restored = true;
                break;
            }
            Err(error) => tracing::error!(%error, "a checkpoint cannot be used; trying the older one"),
        }
    }
    let first = first_of(log)?.unwrap_or(1);
    if !restored && first > 1 {
        return Err(BootError::NoStart(first));
    }
    write_durably(&mark_path, mark.as_bytes())?;
    Ok(store)
}
