//! A directory of this machine, by the system's own calls.

use super::ground::Ground;
use crate::error::{CliError, io_error};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// A directory that is there.
#[derive(Clone, Debug)]
pub struct Local(PathBuf);

impl Local {
    pub fn open(dir: &Path) -> Result<Local, CliError> {
        let about = fs::metadata(dir).map_err(|error| io_error("measure in", dir, &error))?;
        if !about.is_dir() {
            let what = format!("{} is not a directory", dir.display());
            return Err(CliError::usage(what, "name a directory, such as a mount's, or VOLUME:/PATH"));
        }
        Ok(Local(dir.to_owned()))
    }
}

impl Ground for Local {
    type Dir = PathBuf;

    fn top(&self) -> PathBuf {
        self.0.clone()
    }

    fn make_dir(&self, parent: &PathBuf, name: &str) -> Result<PathBuf, CliError> {
        let path = parent.join(name);
        fs::create_dir(&path).map_err(|error| io_error("make", &path, &error))?;
        Ok(path)
    }

    fn remove_dir(&self, parent: &PathBuf, name: &str) -> Result<(), CliError> {
        let path = parent.join(name);
        fs::remove_dir(&path).map_err(|error| io_error("remove", &path, &error))
    }

    fn exists(&self, parent: &PathBuf, name: &str) -> Result<bool, CliError> {
        let path = parent.join(name);
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("look at", &path, &error)),
        }
    }

    fn stat(&self, parent: &PathBuf, name: &str) -> Result<(), CliError> {
        let path = parent.join(name);
        fs::symlink_metadata(&path).map(drop).map_err(|error| io_error("look at", &path, &error))
    }

    fn create(
        &self,
        parent: &PathBuf,
        name: &str,
        piece: &[u8],
        count: u64,
        wrote: &dyn Fn() -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let path = parent.join(name);
        let failed = |error| io_error("write", &path, &error);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        for _ in 0..count {
            file.write_all(piece).map_err(failed)?;
            wrote()?;
        }
        close(file).map_err(failed)
    }

    fn read(&self, parent: &PathBuf, name: &str, piece: usize, read: &dyn Fn() -> Result<(), CliError>) -> Result<u64, CliError> {
        let path = parent.join(name);
        let failed = |error| io_error("read", &path, &error);
        let mut file = File::open(&path).map_err(failed)?;
        let mut buffer = vec![0; piece.max(1)];
        let mut length = 0;
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => return Ok(length),
                count => length += count as u64,
            }
            read()?;
        }
    }

    fn remove_file(&self, parent: &PathBuf, name: &str) -> Result<(), CliError> {
        let path = parent.join(name);
        fs::remove_file(&path).map_err(|error| io_error("remove", &path, &error))
    }

    fn remove_tree(&self, parent: &PathBuf, name: &str) -> Result<(), CliError> {
        let path = parent.join(name);
        fs::remove_dir_all(&path).map_err(|error| io_error("remove", &path, &error))
    }

    /// Of the whole machine: the kernel knows no smaller way. Only root may.
    fn drop_caches(&self) -> bool {
        // SAFETY: sync has no preconditions.
        unsafe { libc::sync() };
        fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
    }
}

/// Closes a file and hears whether that failed, which `drop` would swallow: a write that is still under way may fail there.
fn close(file: File) -> std::io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is this file's own, and nothing else knows it any more.
    if unsafe { libc::close(file.into_raw_fd()) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
