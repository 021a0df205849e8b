//! What a load does to a file system. Calls block, as a program's do.

use crate::error::CliError;

/// A file system to measure. Clones are the same one; each thread has its own.
pub trait Ground: Clone + Send + Sync + 'static {
    /// A directory that is known.
    type Dir: Clone + Send + Sync;

    /// The directory in which the load may make one of its own.
    fn top(&self) -> Self::Dir;

    fn make_dir(&self, parent: &Self::Dir, name: &str) -> Result<Self::Dir, CliError>;

    fn remove_dir(&self, parent: &Self::Dir, name: &str) -> Result<(), CliError>;

    /// Whether there is such a name.
    fn exists(&self, parent: &Self::Dir, name: &str) -> Result<bool, CliError>;

    /// Attributes of a name.
    fn stat(&self, parent: &Self::Dir, name: &str) -> Result<(), CliError>;

    /// Creates a file, writes `piece` to it `count` times, and closes it. `wrote` hears of each piece.
    fn create(
        &self,
        parent: &Self::Dir,
        name: &str,
        piece: &[u8],
        count: u64,
        wrote: &dyn Fn() -> Result<(), CliError>,
    ) -> Result<(), CliError>;

    /// Opens a file, reads it to its end in pieces of at most `piece` bytes, and closes it; answers its length.
    fn read(
        &self,
        parent: &Self::Dir,
        name: &str,
        piece: usize,
        read: &dyn Fn() -> Result<(), CliError>,
    ) -> Result<u64, CliError>;

    fn remove_file(&self, parent: &Self::Dir, name: &str) -> Result<(), CliError>;

    /// Removes a directory with all that is below it.
    fn remove_tree(&self, parent: &Self::Dir, name: &str) -> Result<(), CliError>;

    /// Forgets what caches hold, where that can be done; whether it was.
    fn drop_caches(&self) -> bool;
}
