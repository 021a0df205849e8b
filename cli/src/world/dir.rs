//! The directory of a world. One `up` or `down` at a time works in it.
//!
//! ```text
//! world.json            which world this is; only a directory that carries it is ever removed
//! topology.toml         the text that the world runs on
//! lock                  held by `up` and `down` while they work
//! pids/NAME.json        a process: its pid and when it started
//! pids/NAME.ended       why a process that failed had to end
//! logs/NAME.log         what it printed
//! nodes/NAME/           a metadata node's log and state
//! buckets/REGION/       an embedded bucket's objects
//! secrets/REGION.json   its keys, readable by the owner only
//! ```

use crate::error::{CliError, io_error};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where a world lives when nothing says otherwise.
pub const DEFAULT_DIR: &str = ".farshore";
const PARTS: [&str; 5] = ["pids", "logs", "nodes", "buckets", "secrets"];

/// Paths of one world; makes nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldDir {
    root: PathBuf,
}

/// Holds the lock until dropped.
#[derive(Debug)]
pub struct WorldLock(#[allow(dead_code, reason = "the lock lives as long as the file is open")] File);

impl WorldDir {
    /// `root` becomes absolute, since the world's processes have another working directory in mind.
    pub fn new(root: impl AsRef<Path>) -> WorldDir {
        let root = root.as_ref();
        WorldDir { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn record(&self) -> PathBuf {
        self.root.join("world.json")
    }

    pub fn topology(&self) -> PathBuf {
        self.root.join("topology.toml")
    }

    pub fn pids(&self) -> PathBuf {
        self.root.join("pids")
    }

    pub fn pid_file(&self, process: &str) -> PathBuf {
        self.pids().join(format!("{process}.json"))
    }

    pub fn end_file(&self, process: &str) -> PathBuf {
        self.pids().join(format!("{process}.ended"))
    }

    pub fn log(&self, process: &str) -> PathBuf {
        self.root.join("logs").join(format!("{process}.log"))
    }

    pub fn node(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }

    pub fn bucket(&self, region: &str) -> PathBuf {
        self.root.join("buckets").join(region)
    }

    pub fn secret(&self, region: &str) -> PathBuf {
        self.root.join("secrets").join(format!("{region}.json"))
    }

    /// Whether a world lives here.
    pub fn exists(&self) -> bool {
        self.record().is_file()
    }

    /// Whether the directory holds anything that is not a world's.
    pub fn is_foreign(&self) -> bool {
        !self.exists() && fs::read_dir(&self.root).is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() != "lock"))
    }

    /// Makes the directory with its parts; private to the owner, since it holds keys and data.
    pub fn create(&self) -> Result<(), CliError> {
        let make = |path: &Path| {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| unwritable(&self.root, &error))
        };
        make(&self.root)?;
        PARTS.iter().try_for_each(|part| make(&self.root.join(part)))
    }

    /// Takes the lock, without waiting.
    pub fn lock(&self) -> Result<WorldLock, CliError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(|error| unwritable(&self.root, &error))?;
        let path = self.root.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| unwritable(&self.root, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(WorldLock(file)),
            Err(TryLockError::WouldBlock) => {
                let what = format!("another `farshore up` or `down` is at work in {}", self.root.display());
                Err(CliError::failed(what, "wait until it has ended, or name another --dir"))
            }
            Err(TryLockError::Error(error)) => Err(io_error("lock", &path, &error)),
        }
    }
}

fn unwritable(root: &Path, error: &std::io::Error) -> CliError {
    let what = format!("the directory {} cannot be written: {error}", root.display());
    CliError::failed(what, "name a directory of yours with --dir or $FARSHORE_DIR")
}

/// Writes a whole file so that it is there entirely or not at all, and stays (law 26).
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.new", std::process::id()));
    let aside = PathBuf::from(aside);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let world = WorldDir::new(dir.path().join("w"));
        let held = world.lock().unwrap();
        let error = world.lock().unwrap_err();
        assert!(error.what.contains("at work"), "{error}");
        drop(held);
        world.lock().unwrap();
        assert!(!world.is_foreign(), "a lock alone makes no foreign directory");
        std::fs::write(world.root().join("thesis.txt"), "x").unwrap();
        assert!(world.is_foreign());
    }
}
