//! A flush of a node's log that fails once, as that of a disk with a bad block does: by a library that is preloaded into
//! the node's process. It is written in C, since it stands in front of libc's own functions; the machine's C compiler
//! makes it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, and the directory in which it is armed.
pub struct FailingFlush {
    library: PathBuf,
    directory: PathBuf,
}

impl FailingFlush {
    /// Makes the library in `directory`.
    pub fn build(directory: &Path) -> FailingFlush {
        let library = directory.join("failing_flush.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/failing_flush.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(&compiler);
        command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source).arg("-ldl");
        let status = command.status().unwrap_or_else(|error| panic!("{} cannot be started: {error}", compiler.display()));
        assert!(status.success(), "the library with the failing flush was not made");
        FailingFlush { library, directory: directory.to_owned() }
    }

    /// Puts it in front of libc in what `command` starts, and in what that starts.
    pub fn preload<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("LD_PRELOAD", &self.library).env("FAILING_FLUSH", &self.directory)
    }

    /// The next flush of this process's log fails.
    pub fn arm(&self, pid: u32) {
        std::fs::write(self.armed(pid), "").expect("the temporary directory can be written");
    }

    /// Whether a flush has failed since it was armed.
    pub fn has_failed(&self, pid: u32) -> bool {
        !self.armed(pid).exists()
    }

    fn armed(&self, pid: u32) -> PathBuf {
        self.directory.join(pid.to_string())
    }
}
