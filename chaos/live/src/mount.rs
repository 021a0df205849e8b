//! A mount as a process of its own, under a watchdog.

use crate::fuse::{self, Watchdog};
use crate::world::SOON;
use crate::{World, process, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// After this a test that still uses a mount has failed.
const WATCHDOG: Duration = Duration::from_secs(300);
/// Until a mount that was told to end must have ended.
const END_WITHIN: Duration = Duration::from_secs(60);

/// How to mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountSpec<'a> {
    /// Name of the directory, unique among the mounts that a test has at a time.
    pub name: &'a str,
    pub region: Option<&'a str>,
    /// For example `["--read-only"]`.
    pub flags: &'a [&'a str],
    /// How long it may be used; `None`: as long as a test may take.
    pub within: Option<Duration>,
}

/// A mount; unmounted when dropped.
pub struct Mount {
    point: PathBuf,
    child: Option<Child>,
    connection: u64,
    watchdog: Watchdog,
}

impl Mount {
    pub(crate) fn start(world: &World, spec: MountSpec<'_>) -> Mount {
        let point = world.scratch(&format!("mount-{}", spec.name));
        let cache = world.scratch(&format!("cache-{}", spec.name));
        let mut command = world.command(&["mount", "demo"]);
        command.arg(&point).arg("--cache-dir").arg(&cache);
        if let Some(region) = spec.region {
            command.args(["--region", region]);
        }
        command.args(spec.flags);
        let log = world.log(&format!("mount-{}", spec.name));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor can be shared")).stderr(log);
        let mut child = command.spawn().expect("the program can be started");
        let mounted = wait_for(&format!("the mount {}", spec.name), SOON, || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!("`farshore mount` ended at once ({status}):\n{}", world.client_logs());
            }
            fuse::mounted_on(&point)
        });
        let watchdog = Watchdog::over(mounted.connection, spec.within.unwrap_or(WATCHDOG));
        // The table of mounts has it before it serves; the first answer says that it does.
        std::fs::metadata(&point).unwrap_or_else(|error| panic!("{} does not serve: {error}", point.display()));
        Mount { point, child: Some(child), connection: mounted.connection, watchdog }
    }

    /// The directory that it is mounted on.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// A path inside.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.point.join(path)
    }

    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// The process that serves it.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a mount that was not ended has its process").id()
    }

    /// Ends it as a user does, with SIGTERM, and waits until everything is written and the mount is gone.
    pub fn unmount(mut self) {
        let mut child = self.child.take().expect("a mount is ended once");
        assert!(process::signal(child.id(), libc::SIGTERM), "the mount's process ended by itself");
        let status = wait_for("the mount to end", END_WITHIN, || child.try_wait().expect("a child can be asked"));
        assert!(status.success(), "the mount ended with {status}");
        assert_eq!(fuse::mounted_on(&self.point), None, "the mount is there after its process ended");
        assert!(!self.watchdog.has_fired(), "the watchdog aborted the mount");
    }

    /// `kill -9` of the process; the mount stays behind, dead.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let fired = self.watchdog.has_fired();
        if let Some(child) = &mut self.child {
            process::signal(child.id(), libc::SIGTERM);
            let end = std::time::Instant::now() + END_WITHIN;
            while !std::thread::panicking() && std::time::Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            if fuse::mounted_on(&self.point).is_some_and(|mounted| mounted.connection == self.connection) {
                fuse::abort(self.connection);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if fuse::mounted_on(&self.point).is_some() {
            fuse::detach(&self.point);
        }
        assert!(std::thread::panicking() || !fired, "the watchdog aborted the mount on {}", self.point.display());
    }
}
