//! A small disk of a node's own: an ext4 file system in a file. It can be filled, turn read-only, and lose its power.

use crate::fuse::REQUIRE;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// EXT4_IOC_SHUTDOWN, and its flag for "as if the power was cut": what was not flushed is gone, the journal's part too.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
const NO_LOG_FLUSH: u32 = 2;
/// Until nobody uses a disk that was unmounted.
const LET_GO: Duration = Duration::from_secs(30);

/// Whether such disks can be made here. If not, says so loudly, and fails where mounts are required.
#[must_use = "a test that cannot run must return"]
pub fn require_loop_disks() -> bool {
    let probe = Command::new("losetup").arg("--find").output();
    if probe.is_ok_and(|probe| probe.status.success()) && Path::new("/usr/sbin/mkfs.ext4").exists() {
        return true;
    }
    assert!(std::env::var(REQUIRE).as_deref() != Ok("1"), "{REQUIRE}=1 and there are no loop devices, or no mkfs.ext4");
    eprintln!("\n*** SKIPPED, NOT PASSED: no loop devices, or no mkfs.ext4. ***\n");
    false
}

/// The disk, mounted until it is dropped.
pub struct LoopDisk {
    image: PathBuf,
    point: PathBuf,
    /// The file system behind a thin one.
    host: Option<PathBuf>,
}

fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(ended.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// Writes a file until there is no space.
fn fill(ballast: &Path) {
    use std::io::Write;
    let mut file = File::create(ballast).expect("the disk can be written");
    for size in [1 << 20, 4096] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the test's own paths are UTF-8")
}

impl LoopDisk {
    /// Makes an empty disk of so many MiB and mounts it on a directory.
    pub fn new(image: &Path, mebibytes: u64, point: &Path) -> LoopDisk {
        LoopDisk { image: image.to_owned(), point: point.to_owned(), host: None }.made(mebibytes, &[])
    }

    /// Makes an empty disk whose device has less room than it says, as a thin volume has: what is written to a block for the first
    /// time fails once [`LoopDisk::fill_device`] took the rest. The device lies in `host`, an empty directory; of it, so many MiB
    /// are there.
    pub fn thin(host: &Path, mebibytes: u64, point: &Path) -> LoopDisk {
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs", text(host)]);
        let disk = LoopDisk { image: host.join("image"), point: point.to_owned(), host: Some(host.to_owned()) };
        // Without a journal: nothing but the blocks of files is written.
        disk.made(4 * mebibytes, &["-O", "^has_journal"])
    }

    /// Makes the file system, and mounts it.
    fn made(self, mebibytes: u64, options: &[&str]) -> LoopDisk {
        File::create(&self.image).and_then(|file| file.set_len(mebibytes << 20)).expect("the image's directory can be written");
        run("mkfs.ext4", &[&["-q", "-F"], options, &[text(&self.image)]].concat());
        self.mount();
        self
    }

    fn mount(&self) {
        run("mount", &["-o", "loop,errors=remount-ro", text(&self.image), text(&self.point)]);
    }

    fn ballast(&self) -> PathBuf {
        self.point.join("ballast")
    }

    fn ballast_of_device(&self) -> PathBuf {
        self.image.with_extension("ballast")
    }

    /// Takes all the space there is.
    pub fn fill(&self) {
        fill(&self.ballast());
    }

    /// Gives the space back.
    pub fn empty(&self) {
        fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    /// Takes all the space behind a thin disk.
    pub fn fill_device(&self) {
        fill(&self.ballast_of_device());
    }

    /// Gives the space back.
    pub fn empty_device(&self) {
        fs::remove_file(self.ballast_of_device()).expect("the ballast is there");
    }

    /// Every further write and flush fails, as after an error of the disk.
    pub fn turn_read_only(&self) {
        run("mount", &["-o", "remount,abort", text(&self.point)]);
    }

    /// What was not flushed is lost, and nothing more is written.
    pub fn cut_power(&self) {
        let file = File::open(&self.point).expect("the disk is mounted");
        // SAFETY: the call reads one u32, which outlives it.
        let failed = unsafe { libc::ioctl(file.as_raw_fd(), SHUTDOWN as _, &NO_LOG_FLUSH) };
        assert_eq!(failed, 0, "the disk cannot be shut down: {}", std::io::Error::last_os_error());
    }

    /// Mounts the disk anew with what is on it; nobody may use it meanwhile.
    pub fn mend(&self) {
        run("umount", &[text(&self.point)]);
        // Mounted again while the last mount still lives somewhere, it would be the same one, as broken as before.
        crate::wait_for("the disk to be let go", LET_GO, || {
            let users = Command::new("losetup").args(["-j", text(&self.image)]).output().ok()?;
            users.stdout.is_empty().then_some(())
        });
        self.mount();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        for place in [Some(&self.point), self.host.as_ref()].into_iter().flatten() {
            // Lazily: the node that uses it is killed later, with its world.
            let ended = Command::new("umount").arg("-l").arg(place).status();
            if !ended.is_ok_and(|status| status.success()) {
                eprintln!("{} stays mounted", place.display());
            }
        }
    }
}
