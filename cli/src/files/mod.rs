//! The file system without a mount: paths `VOLUME:/PATH`, and the tree walks of `ls`, `cat`, `cp`, `rm` and `stat`.

mod copy_in;
mod copy_out;
mod path;

pub use copy_in::copy_in;
pub use copy_out::{cat, copy_out};
pub use path::{Remote, is_remote, parent_of, parse, remove, resolve, resolve_followed, uploaded_as};

use crate::error::CliError;
use farshore_client::FsError;
use farshore_types::ErrorKind;

/// Files copied at once.
pub const FILES_AT_ONCE: usize = 16;
/// Bytes moved by one read or write.
pub const PIECE: usize = 4 << 20;
/// Directory entries asked for at once.
pub const ENTRIES_AT_ONCE: u32 = 1000;
/// Directories waiting in a walk at most; a tree that is wider than this at one moment is refused.
pub const WAITING_MAX: usize = 1 << 20;

/// A failed operation with the path it was about.
pub fn failed(path: &str, error: &FsError) -> CliError {
    let mend = if error.is(ErrorKind::NotFound) {
        "is the path right? `farshore ls` shows what is there"
    } else if error.is(ErrorKind::ReadOnly) {
        "write at the primary, or from here with `farshore mount --flip`"
    } else {
        ""
    };
    CliError::failed(format!("{path}: {error}"), mend)
}

/// stdin or stdout for the runtime: reads and writes go to threads that may block.
pub fn standard(stream: impl std::os::fd::AsFd) -> Result<tokio::fs::File, CliError> {
    let owned = stream.as_fd().try_clone_to_owned();
    let owned = owned.map_err(|error| CliError::failed(format!("cannot use stdin or stdout: {error}"), "is it closed?"))?;
    Ok(tokio::fs::File::from_std(owned.into()))
}

/// What a copy moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub files: u64,
    pub bytes: u64,
}
