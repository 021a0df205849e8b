//! Opening a node's directory: whose it is, what of it may be trusted, and where to start from.
//!
//! LMDB runs unsynced, so its file is trusted only by the same boot of the same machine, and only if it stands where
//! the log says; otherwise the node starts from a checkpoint and replays (section 5 of the design, hazard 7.5).

use crate::local;
use crate::raft::log::{LogFailure, RaftLog};
use crate::raft::snapshot::{CheckpointError, Checkpoints, restore};
use crate::raft::types::Entry;
use crate::raft::{DiskLog, DiskLogError, Found, stored};
use crate::standing::REMOVED;
use crate::wholeness::{PURGED, Wholeness};
use farshore_changelog::{Disk, OsDisk};
use farshore_meta::kv::{Lmdb, StorageError, Store};
use farshore_types::{ClusterId, GroupId, NodeId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whose directory it is, in that directory.
pub const IDENTITY: &str = "node.json";
const MARK: &str = "state.mark";
const STATE: &str = "state";
const LOG: &str = "log";
const CHECKPOINTS: &str = "checkpoints";
/// STATX_MNT_ID_UNIQUE; older kernels ignore it.
const MNT_ID_UNIQUE: u32 = 0x4000;

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
        "{0}: a cluster of one node has nobody to take it from; put back a copy of the whole directory, or begin anew in an \
         empty one"
    )]
    Damaged(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Read(#[from] LogFailure),
    #[error(
        "{name} was taken out of its cluster: take it out of the topology as well, or remove {directory} and take it in again as a new node \
         (`farshore node add {name}`)"
    )]
    Removed { name: String, directory: PathBuf },
}

/// Whose directory it is. The node's number is drawn with the directory and never used again. Who lost the directory heals under
/// its number if its peers still know it (law 24), and is another node to them otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub volume: String,
    pub cluster: ClusterId,
    pub node: NodeId,
    pub name: String,
}

impl Identity {
    /// Whether both are the same apart from the number.
    fn is_same_place(&self, other: &Identity) -> bool {
        (&self.volume, self.cluster, &self.name) == (&other.volume, other.cluster, &other.name)
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node `{}` ({} of cluster {}) of volume `{}`", self.name, self.node, self.cluster, self.volume)
    }
}

/// What a node on disk is made of.
pub struct OnDisk {
    /// The number that was drawn with the directory.
    pub node: NodeId,
    pub store: Lmdb,
    pub log: Arc<DiskLog>,
    pub checkpoints: Arc<Checkpoints>,
}

/// Opens or creates a node's directory; the number in `identity` counts only for one that is new, and `drawn` says that
/// nobody had it before. What cannot be trusted is
/// given up, and the node's wholeness says that it has no vote until the others have refilled it (law 24); `alone` there
/// are no others, and the node does not start.
pub fn open(directory: &Path, identity: &Identity, drawn: bool, alone: bool) -> Result<OnDisk, BootError> {
    create_dir(directory)?;
    let node = claim(directory, identity)?;
    let group = GroupId(u64::from_le_bytes(first_eight(blake3::hash(identity.volume.as_bytes()).as_bytes())));
    let logs = LogDirectory { path: directory.join(LOG), disk: Arc::new(OsDisk), group, alone };
    create_dir(&logs.path)?;
    let (log, sound) = if drawn && node == identity.node { logs.begin()? } else { logs.open()? };
    if log.load_small(REMOVED)?.is_some() {
        return Err(BootError::Removed { name: identity.name.clone(), directory: directory.to_owned() });
    }
    let checkpoints = Checkpoints::in_directory(&directory.join(CHECKPOINTS)).map_err(|error| io_of(directory, error))?;
    let mark = this_boot(directory);
    let state = directory.join(STATE);
    // Who lost bytes of one file does not believe those of another that was never flushed (hazard 7.5).
    let trusted = sound && fs::read_to_string(directory.join(MARK)).is_ok_and(|found| found == mark);
    if trusted && state.exists() {
        create_dir(&state)?;
        let store = Lmdb::open(&state)?;
        if stands_in_log(&store, &log)? {
            let applied = local::applied(&*store.read()?)?.log_id.map(|id| id.index);
            checkpoints.prove_above(applied).map_err(|error| io_of(directory, error))?;
            return Ok(OnDisk { node, store, log: Arc::new(log), checkpoints: Arc::new(checkpoints) });
        }
        tracing::warn!("the state does not stand where the log says: starting from a checkpoint");
        drop(store);
    }
    if let Some(store) = rebuild(directory, &state, &mark, &log, &checkpoints)? {
        return Ok(OnDisk { node, store, log: Arc::new(log), checkpoints: Arc::new(checkpoints) });
    }
    drop(log);
    let log = logs.begin_anew("no checkpoint can be used, and the log does not reach back to the beginning")?;
    let store = rebuild(directory, &state, &mark, &log, &checkpoints)?;
    let store = store.ok_or_else(|| BootError::Damaged("an empty log does not begin at its beginning".to_owned()))?;
    Ok(OnDisk { node, store, log: Arc::new(log), checkpoints: Arc::new(checkpoints) })
}

/// The node stopped because something failed: what was not flushed is not believed at the next start (hazard 7.5).
pub fn distrust(directory: &Path) {
    match fs::remove_file(directory.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the state's mark could not be removed; the next start will look at the chain only");
        }
        _ => {}
    }
}

/// Where a node's log lies.
struct LogDirectory {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    group: GroupId,
    alone: bool,
}

impl LogDirectory {
    /// The first log under a number that is new: no earlier life can have voted under it.
    fn begin(&self) -> Result<(DiskLog, bool), BootError> {
        DiskLog::give_up(&self.path, &self.disk, &Wholeness::Member)?;
        Ok((DiskLog::open(&self.path, self.group, self.disk.clone())?.0, true))
    }

    /// Opens the log; and whether everything that was found could be trusted.
    fn open(&self) -> Result<(DiskLog, bool), BootError> {
        let found = DiskLog::look(&self.path, &self.disk)?;
        let given_up = self.give_up_what_is_lost(&found)?;
        let (log, recovered) = DiskLog::open(&self.path, self.group, self.disk.clone())?;
        if let Some(torn) = &recovered.torn {
            tracing::info!(?torn, "the log ended in an incomplete batch, which was never acknowledged");
        }
        let damage = recovered
            .damage
            .as_ref()
            .map(|damage| format!("the log was damaged in {} at byte {}", damage.segment.display(), damage.offset));
        // What followed the last good flush cannot be trusted, also where it reads well.
        let failure = recovered.failure.as_ref().map(|failure| format!("an earlier flush had failed: {}", failure.cause));
        let Some(why) = damage.or(failure) else { return Ok((log, !given_up)) };
        self.must_have_peers(&why)?;
        tracing::error!(%why, "what follows is given up, and taken from the other nodes");
        if !matches!(Wholeness::load(&log)?, Wholeness::Lost { .. }) {
            Wholeness::healing(why).store(&log)?;
        }
        log.discard_untrusted()?;
        Ok((log, false))
    }

    fn must_have_peers(&self, why: &str) -> Result<(), BootError> {
        if self.alone { Err(BootError::Damaged(why.to_owned())) } else { Ok(()) }
    }

    /// Whether small files, or the whole log, are lost; then they are given up. A new directory says that it is new.
    fn give_up_what_is_lost(&self, found: &Found) -> Result<bool, BootError> {
        if let Some(path) = found.damaged.first() {
            let why = format!("both copies in {} were damaged", path.display());
            self.must_have_peers(&why)?;
            let vote_is_kept = found.vote.is_some() && found.wholeness.is_some();
            let wholeness = if vote_is_kept { Wholeness::healing(why) } else { Wholeness::lost(why) };
            self.give_up(&self.of(found, wholeness))?;
            return Ok(true);
        }
        if found.segments {
            return Ok(false);
        }
        if found.wholeness.is_none() && found.vote.is_none() {
            self.give_up(&Wholeness::lost("its directory was empty"))?;
            return Ok(false);
        }
        if matches!(found.wholeness.as_deref().map(Wholeness::decode).transpose()?, Some(Wholeness::Lost { .. })) {
            return Ok(false);
        }
        let why = format!("the log in {} was gone", self.path.display());
        self.must_have_peers(&why)?;
        let wholeness = if found.vote.is_some() { Wholeness::healing(why) } else { Wholeness::lost(why) };
        self.give_up(&wholeness)?;
        Ok(true)
    }

    /// A vote that was lost before is not found again.
    fn of(&self, found: &Found, wholeness: Wholeness) -> Wholeness {
        match found.wholeness.as_deref().map(Wholeness::decode) {
            Some(Ok(lost @ Wholeness::Lost { .. })) => lost,
            _ => wholeness,
        }
    }

    fn give_up(&self, wholeness: &Wholeness) -> Result<(), BootError> {
        if let Some(trouble) = wholeness.trouble() {
            tracing::warn!(%trouble, "the log in this directory begins anew");
        }
        Ok(DiskLog::give_up(&self.path, &self.disk, wholeness)?)
    }

    /// An empty log under the same vote.
    fn begin_anew(&self, why: &str) -> Result<DiskLog, BootError> {
        self.must_have_peers(why)?;
        let found = DiskLog::look(&self.path, &self.disk)?;
        let wholeness = if found.vote.is_some() { Wholeness::healing(why) } else { Wholeness::lost(why) };
        self.give_up(&self.of(&found, wholeness))?;
        Ok(DiskLog::open(&self.path, self.group, self.disk.clone())?.0)
    }
}

fn first_eight(bytes: &[u8; 32]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    eight
}

fn create_dir(path: &Path) -> Result<(), BootError> {
    OsDisk.create_dir_all(path).map_err(|error| BootError::Io { path: path.to_owned(), error })
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

fn claim(directory: &Path, identity: &Identity) -> Result<NodeId, BootError> {
    let path = directory.join(IDENTITY);
    match fs::read(&path) {
        Ok(bytes) => {
            let theirs: Identity =
                serde_json::from_slice(&bytes).map_err(|error| BootError::Identity { path: path.clone(), error })?;
            if !theirs.is_same_place(identity) {
                return Err(BootError::OtherNode { path, theirs: theirs.to_string(), ours: identity.to_string() });
            }
            Ok(theirs.node)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_durably(&path, &serde_json::to_vec_pretty(identity).expect("an identity always serialises"))?;
            Ok(identity.node)
        }
        Err(error) => Err(BootError::Io { path, error }),
    }
}

/// Names this boot of this machine, and this mount of the directory; all must be unchanged for unsynced pages to be what
/// was written. A disk that failed and was mended without a reboot has been mounted anew.
fn this_boot(directory: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mount = mount_of(directory).map_or_else(|error| format!("unknown ({error})"), |id| id.to_string());
    format!("{} {} {mount}\n", read("/proc/sys/kernel/random/boot_id"), read("/etc/machine-id"))
}

/// The kernel's number for the mount that holds a directory; since Linux 6.8 no number is given twice.
fn mount_of(directory: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: all bytes zero are a valid `statx`, the path ends in a zero byte, and the kernel fills no more than the structure.
    let (failed, stat) = unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        let failed = libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_MNT_ID | MNT_ID_UNIQUE, &mut stat);
        (failed, stat)
    };
    if failed == 0 { Ok(stat.stx_mnt_id) } else { Err(io::Error::last_os_error()) }
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

/// Builds the state anew from the newest checkpoint that holds, or from nothing when the log is whole; `None`: neither.
fn rebuild(
    directory: &Path,
    state: &Path,
    mark: &str,
    log: &DiskLog,
    checkpoints: &Checkpoints,
) -> Result<Option<Lmdb>, BootError> {
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
            Err(error) if error.is_damage() => checkpoints.discard(&body, &error).map_err(|error| io_of(directory, error))?,
            Err(error) => tracing::error!(%error, "a checkpoint cannot be used; trying the older one"),
        }
    }
    let begins = first_of(log)?.is_none_or(|first| first <= 1) && log.load_small(PURGED)?.is_none();
    if !restored && !begins {
        return Ok(None);
    }
    write_durably(&mark_path, mark.as_bytes())?;
    Ok(Some(store))
}
