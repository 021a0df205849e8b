//! Faults that only the kernel could make otherwise: a flush that fails once, and two nodes that do not reach each other
//! while everybody else reaches both. A library stands in front of libc in the nodes' processes; it is written in C, and the
//! machine's C compiler makes it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, and the directory in which faults are asked of it.
#[derive(Debug)]
pub(crate) struct Faults {
    library: PathBuf,
    directory: PathBuf,
}

impl Faults {
    /// Makes the library in a directory of its own in `root`.
    pub fn build(root: &Path) -> Faults {
        let (library, directory) = build(root, "faults");
        Faults { library, directory }
    }

    /// Puts it in front of libc in what `command` starts, and in what that starts.
    pub fn preload(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAULTS", &self.directory);
    }

    /// The next flush of this process's log fails.
    pub fn fail_flush(&self, pid: u32) {
        self.ask(&format!("flush-{pid}"));
    }

    /// Whether a flush has failed since it was asked for.
    pub fn flush_has_failed(&self, pid: u32) -> bool {
        !self.directory.join(format!("flush-{pid}")).exists()
    }

    /// This process cannot talk to those who listen on `port`.
    pub fn cut(&self, pid: u32, port: u16) {
        self.ask(&format!("cut-{pid}-{port}"));
    }

    /// Takes all cuts away.
    pub fn mend_cuts(&self) {
        let entries = std::fs::read_dir(&self.directory).expect("the directory of faults is there");
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cut-")) {
                std::fs::remove_file(path).expect("the temporary directory can be written");
            }
        }
    }

    fn ask(&self, name: &str) {
        std::fs::write(self.directory.join(name), "").expect("the temporary directory can be written");
    }
}

/// Makes a library out of `shim/NAME.c`, in the directory `root/NAME`; both are answered.
pub(crate) fn build(root: &Path, name: &str) -> (PathBuf, PathBuf) {
    let directory = root.join(name);
    std::fs::create_dir(&directory).expect("the temporary directory can be written");
    let library = directory.join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("shim/{name}.c"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source).args(["-ldl", "-lpthread"]);
    let status = command.status().unwrap_or_else(|error| panic!("{} cannot be started: {error}", compiler.display()));
    assert!(status.success(), "the library {name} was not made");
    (library, directory)
}
