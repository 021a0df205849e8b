//! Mounting a volume, and the life of a mount: `mount` -> serving -> ended (by [`Mounted::unmount`], by umount(8), or by
//! an abort of the connection).
//!
//! The end never hangs: what is open is committed first; a mount in use is then taken away by force, upon which the
//! kernel answers every request itself; whatever still waits on our side is answered with EIO.

use super::adapter::Adapter;
use super::kernel::{self, DEVICE, HELPER};
use super::notify::{self, Attributes, Queue};
use super::shared::Shared;
use crate::Volume;
use fuser::{Config, MountOption, Session, SessionACL};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Threads that read requests, unless told otherwise; they only copy and spawn.
const DEFAULT_THREADS: usize = 2;
/// Most threads that read requests.
const THREADS_MAX: usize = 64;
/// Longest time that an unmount waits for open files to be committed, before each attempt.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);
/// Longest time that an unmount waits for the session's threads, before and after the connection is aborted.
const END_WITHIN: Duration = Duration::from_secs(90);

/// How to mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// The kernel answers EROFS to every change at once.
    pub read_only: bool,
    /// Let users other than the one who mounts in; the kernel checks permissions either way.
    pub allow_other: bool,
    /// Threads that read requests; 0: a default.
    pub threads: usize,
    /// The source shown in the table of mounts, `farshore:VOLUME`.
    pub fsname: String,
}

/// Why a directory could not be mounted on; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("{dir} does not exist; create it with `mkdir -p {dir}`")]
    Missing { dir: PathBuf },
    #[error("{dir} is not a directory; name an empty directory")]
    NotADirectory { dir: PathBuf },
    #[error("{dir} is not empty; what is in it would be hidden: name an empty directory")]
    NotEmpty { dir: PathBuf },
    #[error("{dir} is a mount of {source_name} ({kind}) already; unmount it first with `farshore umount {dir}`")]
    Mounted { dir: PathBuf, kind: String, source_name: String },
    #[error("{dir} is a mount whose process died; clear it with `farshore umount {dir}`")]
    Dead { dir: PathBuf },
    #[error(
        "this machine has no {DEVICE}; load the module with `modprobe fuse` (in a container: --device {DEVICE} --cap-add SYS_ADMIN), or use `farshore cp` and `ls`, which need no mount"
    )]
    NoDevice,
    #[error("{DEVICE} may not be opened: {source}; run as root, or let this user read and write it")]
    DeviceRefused { source: io::Error },
    #[error("only root can mount without {HELPER}; install the package fuse3, or run as root")]
    NoHelper,
    #[error("the kernel refused the mount on {dir}: {source}; mounting needs root with CAP_SYS_ADMIN, or {HELPER}")]
    Refused { dir: PathBuf, source: io::Error },
    #[error("{dir} cannot be examined: {source}")]
    Directory { dir: PathBuf, source: io::Error },
    #[error("a mount is started from within a tokio runtime, whose threads then do its work")]
    NoRuntime,
    #[error("a thread of the mount could not be started: {source}")]
    Thread { source: io::Error },
}

/// A volume, mounted. Dropping it without [`Mounted::unmount`] takes the mount away by force.
pub struct Mounted {
    point: PathBuf,
    connection: u64,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    ended: watch::Receiver<bool>,
    forwarding: tokio::task::JoinHandle<()>,
}

/// Mounts a volume on a directory and serves it on the runtime that this is called in.
pub fn mount(volume: Arc<Volume>, dir: &Path, options: MountOptions) -> Result<Mounted, MountError> {
    let runtime = Handle::try_current().map_err(|_| MountError::NoRuntime)?;
    let point = check_directory(dir)?;
    check_device()?;
    let shared = Shared::new(volume.clone(), runtime.clone());
    // Subscribed before the first request, so that nothing that the kernel caches can change unheard.
    let invalidations = volume.subscribe();
    let session = start_session(Adapter { shared: shared.clone() }, &point, &options)?;
    let thread = |source| MountError::Thread { source };
    let queue = Arc::new(Queue::default());
    notify::start(queue.clone(), session.notifier(), shared.versions.clone()).map_err(thread)?;
    let attributes = Attributes::start(session.notifier()).map_err(thread)?;
    assert!(shared.attributes.set(attributes).is_ok(), "a mount has one session");
    let connection = kernel::mounted_on(&point).ok().flatten().map_or(0, |line| line.device_minor);
    let (end, ended) = watch::channel(false);
    let (serving, queue_of_session) = (shared.clone(), queue.clone());
    let serve = move || {
        if let Err(error) = session.run() {
            tracing::warn!("the mount's session ended with an error: {error}");
        }
        serving.close();
        queue_of_session.close();
        end.send_replace(true);
    };
    std::thread::Builder::new().name("farshore-fuse".into()).spawn(serve).map_err(thread)?;
    let forward_to = queue.clone();
    let forwarding = runtime.spawn(async move {
        loop {
            forward_to.push(invalidations.next().await);
        }
    });
    Ok(Mounted { point, connection, shared, queue, ended, forwarding })
}

/// The directory's path as the kernel shows it, if it can be mounted on.
fn check_directory(dir: &Path) -> Result<PathBuf, MountError> {
    let dir = dir.to_owned();
    let metadata = match std::fs::metadata(&dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountError::Missing { dir }),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => return Err(MountError::Dead { dir }),
        Err(source) => return Err(MountError::Directory { dir, source }),
    };
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory { dir });
    }
    let examined = || -> io::Result<_> {
        // Links on the way are followed, also at the end: the mount is on the directory itself.
        let point = dir.canonicalize()?;
        let line = kernel::mounted_on(&point)?;
        let is_empty = std::fs::read_dir(&point)?.next().is_none();
        Ok((point, line, is_empty))
    };
    match examined() {
        Ok((_, Some(line), _)) => Err(MountError::Mounted { dir, kind: line.kind, source_name: line.source }),
        Ok((_, None, false)) => Err(MountError::NotEmpty { dir }),
        Ok((point, None, true)) => Ok(point),
        Err(source) => Err(MountError::Directory { dir, source }),
    }
}

fn check_device() -> Result<(), MountError> {
    match std::fs::File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
            Err(MountError::NoDevice)
        }
        Err(source) => Err(MountError::DeviceRefused { source }),
    }
}

fn start_session(adapter: Adapter, point: &Path, options: &MountOptions) -> Result<Session<Adapter>, MountError> {
    let mut config = Config::default();
    config.n_threads = Some(if options.threads == 0 { DEFAULT_THREADS } else { options.threads.min(THREADS_MAX) });
    config.clone_fd = true;
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let refused = |source| MountError::Refused { dir: point.to_owned(), source };
    if kernel::is_root() {
        let device = kernel::mount_as_root(point, &options.fsname, options.read_only, options.allow_other).map_err(refused)?;
        let acl = config.acl;
        return Session::from_fd(adapter, device, acl, config).map_err(|source| {
            // The mount is there and nobody serves it: better to take it away than to leave a dead one.
            let _ = kernel::unmount_point(point, libc::MNT_DETACH);
            refused(source)
        });
    }
    if std::process::Command::new(HELPER).arg("-V").output().is_err() {
        return Err(MountError::NoHelper);
    }
    config.mount_options = vec![
        MountOption::FSName(options.fsname.clone()),
        MountOption::Subtype(kernel::SUBTYPE.into()),
        MountOption::DefaultPermissions,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    Session::new(adapter, point, &config).map_err(refused)
}

impl Mounted {
    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The connection's number: `/sys/fs/fuse/connections/N`; 0 when the system does not tell.
    pub fn connection_id(&self) -> u64 {
        self.connection
    }

    /// Returns when the mount has ended, by whomever, and all open files were committed as far as that was possible.
    pub async fn wait(&self) {
        // An error means that the session's thread is gone, which is an end as well.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Commits what is open, unmounts, and returns when the session has ended. Files that are still open below the
    /// mount answer with an error from then on. May be called more than once.
    pub async fn unmount(&self) {
        if !*self.ended.borrow() {
            self.commit().await;
            if let Err(error) = self.detach(false).await {
                tracing::debug!("{} is in use ({error}): it is unmounted by force", self.point.display());
                self.write_back().await;
                self.commit().await;
                if let Err(error) = self.detach(true).await {
                    tracing::warn!("{} could not be unmounted: {error}", self.point.display());
                }
            }
            self.shared.close();
            if tokio::time::timeout(END_WITHIN, self.wait()).await.is_err() {
                tracing::warn!("the mount on {} did not end; its connection is aborted", self.point.display());
                if let Err(error) = kernel::abort_connection(self.connection) {
                    tracing::warn!("the connection could not be aborted: {error}");
                }
                let _ = tokio::time::timeout(END_WITHIN, self.wait()).await;
            }
        }
        self.queue.close();
        self.forwarding.abort();
    }

    async fn commit(&self) {
        if tokio::time::timeout(FLUSH_WITHIN, self.shared.flush_all()).await.is_err() {
            tracing::error!("open files were not all committed within {} s of the unmount", FLUSH_WITHIN.as_secs());
        }
    }

    /// Dirty pages of mappings; the kernel's requests for it are answered by us, so it may not run on a thread of ours.
    async fn write_back(&self) {
        let point = self.point.clone();
        let work = tokio::task::spawn_blocking(move || kernel::write_back(&point));
        match tokio::time::timeout(FLUSH_WITHIN, work).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!("writing back the pages of {}: {error}", self.point.display()),
            _ => tracing::error!("pages of {} were not all written back before the unmount", self.point.display()),
        }
    }

    /// Takes the mount away; with `force` also from under open files.
    async fn detach(&self, force: bool) -> io::Result<()> {
        let (point, connection) = (self.point.clone(), self.connection);
        let work = tokio::task::spawn_blocking(move || detach(&point, connection, force));
        work.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Unmounts this connection and no other that may have come to the same place.
fn detach(point: &Path, connection: u64, force: bool) -> io::Result<()> {
    match kernel::mounted_on(point)? {
        Some(line) if connection == 0 || line.device_minor == connection => {}
        _ => return Ok(()),
    }
    // By force the connection is aborted and the mount detached: no request stays without an answer.
    let flags = if force { libc::MNT_FORCE | libc::MNT_DETACH } else { 0 };
    match kernel::unmount_point(point, flags) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => kernel::unmount_by_helper(point, force),
        other => other,
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.forwarding.abort();
        if *self.ended.borrow() {
            return;
        }
        self.shared.close();
        if let Err(error) = detach(&self.point, self.connection, true) {
            tracing::warn!("{} could not be unmounted: {error}", self.point.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_30_a_directory_that_cannot_serve_gets_a_sentence_with_the_mend() {
        let base = std::env::temp_dir().join(format!("farshore-mount-{}", std::process::id()));
        std::fs::create_dir_all(base.join("full/inner")).unwrap();
        std::fs::create_dir_all(base.join("empty")).unwrap();
        std::fs::write(base.join("file"), "x").unwrap();
        let said = |name: &str| check_directory(&base.join(name)).unwrap_err().to_string();
        assert!(said("missing").contains("mkdir -p"), "{}", said("missing"));
        assert!(said("file").contains("not a directory"));
        assert!(said("full").contains("not empty"));
        assert_eq!(check_directory(&base.join("empty")).unwrap(), base.canonicalize().unwrap().join("empty"));
        let proc = check_directory(Path::new("/proc")).unwrap_err();
        assert!(matches!(proc, MountError::Mounted { .. }), "{proc}");
        std::fs::remove_dir_all(&base).unwrap();
    }
}
