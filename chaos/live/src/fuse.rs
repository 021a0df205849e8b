//! What the machine has of FUSE, and the watchdog over a connection.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// Set in CI: a machine without FUSE is then a failure and not a reason to skip.
pub const REQUIRE: &str = "FARSHORE_REQUIRE_FUSE";

/// Whether mounts can be tested here. If not, says so loudly, and fails when [`REQUIRE`] is set to 1.
#[must_use = "a test that cannot run must return"]
pub fn require_fuse() -> bool {
    let missing = if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else if !is_root() {
        "the tests mount and abort connections, which needs root"
    } else if !control_files() {
        "the control files of FUSE cannot be mounted on /sys/fs/fuse/connections"
    } else {
        return true;
    };
    assert!(std::env::var(REQUIRE).as_deref() != Ok("1"), "{REQUIRE}=1 and {missing}");
    eprintln!("\n*** SKIPPED, NOT PASSED: {missing}. Set {REQUIRE}=1 to make this a failure. ***\n");
    false
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whether the control files are there; mounts them if they are not.
fn control_files() -> bool {
    let mounted = || mounts().iter().any(|mount| mount.kind == "fusectl");
    if mounted() {
        return true;
    }
    // SAFETY: all strings are literals that end with a zero byte.
    unsafe {
        libc::mount(c"fusectl".as_ptr(), c"/sys/fs/fuse/connections".as_ptr(), c"fusectl".as_ptr(), 0, std::ptr::null());
    }
    mounted()
}

/// A mount of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub connection: u64,
    pub point: PathBuf,
    pub kind: String,
}

/// All mounts, as the kernel lists them; paths without octal escapes only, which is all that tests make.
pub fn mounts() -> Vec<Mounted> {
    parse(&std::fs::read_to_string("/proc/self/mountinfo").expect("the kernel lists its mounts"))
}

fn parse(text: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let fields: Vec<&str> = front.split(' ').collect();
        Some(Mounted {
            connection: fields.get(2)?.split_once(':')?.1.parse().ok()?,
            point: PathBuf::from(fields.get(4)?),
            kind: back.split(' ').next()?.to_owned(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// The mount of Farshore on a directory.
pub fn mounted_on(point: &Path) -> Option<Mounted> {
    mounts().into_iter().rfind(|mount| mount.point == point && mount.kind.starts_with("fuse"))
}

/// Takes a mount away, whatever it does.
pub fn detach(point: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let target = std::ffi::CString::new(point.as_os_str().as_bytes()).expect("paths of tests have no zero byte");
    // SAFETY: the string lives until the call returns.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
}

/// Aborts a connection: everything that waits for it gets an error.
pub fn abort(connection: u64) {
    if let Err(error) = std::fs::write(format!("{CONNECTIONS}/{connection}/abort"), "1") {
        eprintln!("connection {connection} could not be aborted: {error}");
    }
}

/// Aborts a connection after a deadline, unless it is dropped before.
#[derive(Debug)]
pub struct Watchdog {
    state: Arc<(Mutex<bool>, Condvar)>,
    fired: Arc<AtomicBool>,
}

impl Watchdog {
    pub fn over(connection: u64, deadline: Duration) -> Watchdog {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let fired = Arc::new(AtomicBool::new(false));
        let (watched, bites) = (state.clone(), fired.clone());
        std::thread::spawn(move || {
            let (over, changed) = &*watched;
            let over = over.lock().expect("nobody panics with this lock");
            let (over, _) = changed.wait_timeout_while(over, deadline, |over| !*over).expect("nobody panics with this lock");
            if !*over {
                bites.store(true, Ordering::SeqCst);
                eprintln!("*** WATCHDOG: connection {connection} is aborted after {} s ***", deadline.as_secs());
                abort(connection);
            }
        });
        Watchdog { state, fired }
    }

    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Ok(mut over) = self.state.0.lock() {
            *over = true;
        }
        self.state.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let text =
            "36 35 98:0 / /mnt rw master:1 - ext4 /dev/root rw\n75 30 0:57 / /tmp/x/m rw - fuse.farshore farshore:demo rw\nx\n";
        let expected = Mounted { connection: 57, point: "/tmp/x/m".into(), kind: "fuse.farshore".into() };
        assert_eq!(parse(text)[1], expected);
        assert_eq!(parse(text).len(), 2);
    }

    #[test]
    fn a_watchdog_that_is_dropped_in_time_does_not_bite() {
        let watchdog = Watchdog::over(u64::MAX, Duration::from_secs(3600));
        assert!(!watchdog.has_fired());
        let fired = watchdog.fired.clone();
        drop(watchdog);
        assert!(!fired.load(Ordering::SeqCst));
        let watchdog = Watchdog::over(u64::MAX, Duration::ZERO);
        crate::wait_for("the watchdog to bite", Duration::from_secs(10), || watchdog.has_fired().then_some(()));
    }
}
