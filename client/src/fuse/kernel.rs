//! The system calls around a mount: mounting, unmounting, and what is mounted where.
//!
//! As root we call mount(2) ourselves: fuser's own call drops the subtype and unmounts the directory again when its
//! session ends, even if somebody else has mounted on it meanwhile. Others go through fuser to `fusermount3`.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kernel's door.
pub(super) const DEVICE: &str = "/dev/fuse";
/// The helper by which an ordinary user mounts.
pub(super) const HELPER: &str = "fusermount3";
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Shown after `fuse.` as the type of the mount.
pub(super) const SUBTYPE: &str = "farshore";

/// Why a directory could not be unmounted.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    #[error("{dir} is not a mount point")]
    NotMounted { dir: PathBuf },
    #[error("{dir} is a mount of type {kind}, not one of Farshore; use umount(8)")]
    NotOurs { dir: PathBuf, kind: String },
    #[error(
        "{dir} is in use; close what is open below it (`fuser -vm {dir}` lists it), or unmount with --force, after which open files answer with an error"
    )]
    Busy { dir: PathBuf },
    #[error("{dir} may be unmounted by root or by who mounted it, with fusermount3 of the package fuse3: {source}")]
    Refused { dir: PathBuf, source: io::Error },
    #[error("{dir} cannot be unmounted: {source}")]
    Failed { dir: PathBuf, source: io::Error },
}

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountLine {
    /// Minor number of the device, which is the number of a FUSE connection.
    pub device_minor: u64,
    pub point: PathBuf,
    pub kind: String,
    pub source: String,
}

/// Where a mount would be: the directory's own path without asking the file system that may be mounted on it, since a
/// dead one answers nothing.
pub(super) fn mount_point(dir: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => absolute.canonicalize(),
    }
}

/// The uppermost mount on a directory, if there is one.
pub(super) fn mounted_on(point: &Path) -> io::Result<Option<MountLine>> {
    Ok(parse_mountinfo(&std::fs::read(MOUNTINFO)?).into_iter().rfind(|line| line.point == point))
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw`, with octal escapes; lines of another shape are skipped.
fn parse_mountinfo(text: &[u8]) -> Vec<MountLine> {
    let line = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let device = std::str::from_utf8(fields.get(2)?).ok()?;
        let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
        Some(MountLine {
            device_minor: device.split_once(':')?.1.parse().ok()?,
            point: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
            kind: text(fields.get(dash + 1)?),
            source: text(fields.get(dash + 2)?),
        })
    };
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Whether this process is root's.
pub(super) fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Mounts on `point` as root; the descriptor is the connection.
pub(super) fn mount_as_root(point: &Path, source: &str, read_only: bool, allow_other: bool) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open(DEVICE)?;
    // SAFETY: getuid and getgid have no preconditions and cannot fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let mut options = format!("fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions", device.as_raw_fd());
    if allow_other {
        options.push_str(",allow_other");
    }
    let mut flags = libc::MS_NODEV | libc::MS_NOSUID;
    if read_only {
        flags |= libc::MS_RDONLY;
    }
    let source = c_string(OsStr::new(source))?;
    let target = c_string(point.as_os_str())?;
    let kind = c_string(OsStr::new(&format!("fuse.{SUBTYPE}")))?;
    let options = c_string(OsStr::new(&options))?;
    // SAFETY: all four are strings that live until the call returns.
    let done = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) };
    if done == 0 { Ok(device.into()) } else { Err(io::Error::last_os_error()) }
}

/// umount2(2); `flags` of 0 refuses while something below is open.
pub(super) fn unmount_point(point: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = c_string(point.as_os_str())?;
    // SAFETY: the string lives until the call returns.
    let done = unsafe { libc::umount2(target.as_ptr(), flags | libc::UMOUNT_NOFOLLOW) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Unmounts through the helper, as an ordinary user must.
pub(super) fn unmount_by_helper(point: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new(HELPER);
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(point).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") { Err(io::Error::from_raw_os_error(libc::EBUSY)) } else { Err(io::Error::other(said)) }
}

/// Writes back the dirty pages of mappings below a mount, so that nothing is lost when it is taken away from under them.
pub(super) fn write_back(point: &Path) -> io::Result<()> {
    let directory = File::open(point)?;
    // SAFETY: the descriptor is open until the call returns.
    if unsafe { libc::syncfs(directory.as_raw_fd()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends a connection from outside, where the kernel's control files are mounted. All its requests are answered with an error.
pub(super) fn abort_connection(number: u64) -> io::Result<()> {
    std::fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1")
}

/// Unmounts a directory on which Farshore is mounted, by this process or another, alive or dead. With `force` also while
/// files are open below it.
pub fn unmount_dir(dir: &Path, force: bool) -> Result<(), UnmountError> {
    let failed = |source| UnmountError::Failed { dir: dir.to_owned(), source };
    let point = mount_point(dir).map_err(failed)?;
    let Some(line) = mounted_on(&point).map_err(failed)? else {
        return Err(UnmountError::NotMounted { dir: dir.to_owned() });
    };
    if line.kind != format!("fuse.{SUBTYPE}") {
        return Err(UnmountError::NotOurs { dir: dir.to_owned(), kind: line.kind });
    }
    // A mount whose process died answers nothing and holds nothing worth waiting for.
    let lazy = force || is_dead(&point);
    let flags = if lazy { libc::MNT_DETACH } else { 0 };
    let mut outcome = unmount_point(&point, flags);
    if matches!(&outcome, Err(error) if error.raw_os_error() == Some(libc::EPERM)) {
        outcome = unmount_by_helper(&point, lazy);
        if let Err(source) = outcome {
            if source.raw_os_error() == Some(libc::EBUSY) {
                return Err(UnmountError::Busy { dir: dir.to_owned() });
            }
            return Err(UnmountError::Refused { dir: dir.to_owned(), source });
        }
    }
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(UnmountError::Busy { dir: dir.to_owned() }),
        Err(source) => Err(failed(source)),
    }
}

/// Whether a mount's process is gone.
pub(super) fn is_dead(point: &Path) -> bool {
    matches!(std::fs::symlink_metadata(point), Err(error) if error.raw_os_error() == Some(libc::ENOTCONN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_optional_fields_and_escapes() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            75 30 0:57 / /srv/a\\040b\\134c rw,nosuid shared:1 master:2 - fuse.farshore farshore:demo rw,user_id=0\n\
            garbage\n\
            76 30 x:y / /bad rw - ext4 a b\n";
        let lines = parse_mountinfo(text);
        assert_eq!(lines.len(), 2);
        let expected = MountLine {
            device_minor: 57,
            point: PathBuf::from("/srv/a b\\c"),
            kind: "fuse.farshore".into(),
            source: "farshore:demo".into(),
        };
        assert_eq!(lines[1], expected);
    }

    #[test]
    fn a_directory_that_is_no_mount_is_said_to_be_none() {
        let dir = std::env::temp_dir();
        let inner = dir.join(format!("farshore-no-mount-{}", std::process::id()));
        std::fs::create_dir_all(&inner).unwrap();
        let error = unmount_dir(&inner, false).unwrap_err();
        assert!(matches!(error, UnmountError::NotMounted { .. }), "{error}");
        assert!(error.to_string().contains("is not a mount point"));
        std::fs::remove_dir(&inner).unwrap();
    }

    #[test]
    fn another_file_system_is_left_alone() {
        let error = unmount_dir(Path::new("/proc"), true).unwrap_err();
        assert!(matches!(&error, UnmountError::NotOurs { kind, .. } if kind == "proc"), "{error}");
    }
}
