//! A volume by its sessions, without FUSE: each call is what a mount would ask for, with no kernel in between.

use super::ground::Ground;
use crate::error::CliError;
use crate::files::{Remote, failed};
use bytes::Bytes;
use farshore_client::{FsError, OpenFlags, Volume, paths};
use farshore_types::{ErrorKind, Ino, NewNode};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Mode of directories and files before anyone's umask.
const DIRECTORY: u16 = 0o755;
const FILE: u16 = 0o644;

/// A directory of a volume that is there, and the session that this thread uses.
#[derive(Clone)]
pub struct Session {
    volume: Arc<Volume>,
    runtime: Handle,
    top: Ino,
    shown: Arc<Remote>,
}

impl Session {
    /// `top` is the inode of `shown`. Its calls block, so they may come from no thread of the runtime.
    pub fn new(volume: Arc<Volume>, top: Ino, shown: Arc<Remote>) -> Session {
        Session { volume, runtime: Handle::current(), top, shown }
    }

    fn wait<T>(&self, name: &str, asked: impl Future<Output = Result<T, FsError>>) -> Result<T, CliError> {
        self.runtime.block_on(asked).map_err(|error| self.failed(name, &error))
    }

    fn failed(&self, name: &str, error: &FsError) -> CliError {
        failed(&format!("{}/.../{name}", self.shown.shown()), error)
    }

    fn make(&self, parent: Ino, name: &str, node: NewNode, mode: u16) -> Result<Ino, CliError> {
        let (uid, gid) = owner();
        Ok(self.wait(name, self.volume.make(parent, name.as_bytes(), node, mode, uid, gid))?.ino)
    }
}

fn owner() -> (u32, u32) {
    // SAFETY: neither has preconditions, and neither can fail.
    unsafe { (libc::getuid(), libc::getgid()) }
}

impl Ground for Session {
    type Dir = Ino;

    fn top(&self) -> Ino {
        self.top
    }

    fn make_dir(&self, parent: &Ino, name: &str) -> Result<Ino, CliError> {
        self.make(*parent, name, NewNode::Directory, DIRECTORY)
    }

    fn remove_dir(&self, parent: &Ino, name: &str) -> Result<(), CliError> {
        self.wait(name, self.volume.rmdir(*parent, name.as_bytes()))
    }

    fn exists(&self, parent: &Ino, name: &str) -> Result<bool, CliError> {
        match self.runtime.block_on(self.volume.lookup(*parent, name.as_bytes())) {
            Ok(_) => Ok(true),
            Err(error) if error.is(ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    fn stat(&self, parent: &Ino, name: &str) -> Result<(), CliError> {
        self.wait(name, self.volume.lookup(*parent, name.as_bytes())).map(drop)
    }

    fn create(
        &self,
        parent: &Ino,
        name: &str,
        piece: &[u8],
        count: u64,
        wrote: &dyn Fn() -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let created = self.volume.create(*parent, name.as_bytes(), FILE, owner(), OpenFlags::READ_WRITE);
        let (handle, _) = self.wait(name, created)?;
        let mut done = Ok(());
        let mut offset = 0;
        for _ in 0..count {
            let written = self.volume.write(&handle, offset, Bytes::copy_from_slice(piece));
            done = self.wait(name, written).map(drop).and_then(|()| wrote());
            if done.is_err() {
                break;
            }
            offset += piece.len() as u64;
        }
        // What close does: flush, whose failure is the caller's, then release.
        let flushed = self.wait(name, self.volume.flush(&handle));
        let released = self.wait(name, self.volume.release(handle));
        done.and(flushed).and(released)
    }

    fn read(&self, parent: &Ino, name: &str, piece: usize, read: &dyn Fn() -> Result<(), CliError>) -> Result<u64, CliError> {
        let ino = self.wait(name, self.volume.lookup(*parent, name.as_bytes()))?.ino;
        let flags = OpenFlags { read: true, ..OpenFlags::default() };
        let (handle, _) = self.wait(name, self.volume.open(ino, flags))?;
        let mut length = 0;
        let done = loop {
            let data = match self.wait(name, self.volume.read(&handle, length, piece.max(1) as u32)) {
                Ok(data) => data,
                Err(error) => break Err(error),
            };
            if data.is_empty() {
                break Ok(());
            }
            length += data.len() as u64;
            if let Err(error) = read() {
                break Err(error);
            }
        };
        let released = self.wait(name, self.volume.release(handle));
        done.and(released).map(|()| length)
    }

    fn remove_file(&self, parent: &Ino, name: &str) -> Result<(), CliError> {
        self.wait(name, self.volume.unlink(*parent, name.as_bytes()))
    }

    fn remove_tree(&self, _parent: &Ino, name: &str) -> Result<(), CliError> {
        // Only the load's own directory is removed so, and that lies in the top.
        let path = self.shown.join(name);
        let removed = self.runtime.block_on(paths::remove(&self.volume, &path.inside(), true));
        removed.map(drop).map_err(|error| CliError::failed(format!("{}: {error}", path.shown()), ""))
    }

    /// Nothing is cached between a session's calls but blocks in memory, which this client was the last to write.
    fn drop_caches(&self) -> bool {
        false
    }
}
