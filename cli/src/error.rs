//! The one error of the command line, and the one place that prints errors.

use farshore_types::topology::TopologyError;
use farshore_wire::admin_client::AdminError;
use std::fmt;

/// Exit codes that scripts rely on.
pub const EXIT_DONE: u8 = 0;
pub const EXIT_FAILED: u8 = 1;
pub const EXIT_USAGE: u8 = 2;
/// Of `--check` only.
pub const EXIT_LATE: u8 = 3;
/// Of `--check` only.
pub const EXIT_UNKNOWN: u8 = 4;

/// What went wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    pub exit: u8,
    pub what: String,
    pub mend: String,
}

pub type Done = Result<u8, CliError>;

impl CliError {
    /// It was asked for rightly, and could not be done.
    pub fn failed(what: impl Into<String>, mend: impl Into<String>) -> CliError {
        CliError { exit: EXIT_FAILED, what: what.into(), mend: mend.into() }
    }

    /// Bad usage or input.
    pub fn usage(what: impl Into<String>, mend: impl Into<String>) -> CliError {
        CliError { exit: EXIT_USAGE, what: what.into(), mend: mend.into() }
    }

    pub fn not_yet(what: &str) -> CliError {
        CliError::usage(format!("{what}: not available yet"), "see `farshore help` for what is there")
    }

    /// Tells the person, once, where the error is consumed.
    pub fn print(&self) {
        eprintln!("{self}");
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        self.mend.lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl From<TopologyError> for CliError {
    fn from(error: TopologyError) -> CliError {
        CliError::usage(error.what(), error.mend)
    }
}

impl From<AdminError> for CliError {
    fn from(error: AdminError) -> CliError {
        let mend = match &error {
            AdminError::Failed { .. } => "",
            AdminError::Malformed { .. } => "`farshore status` shows all nodes",
            _ => "see `farshore status`; is the world up (`farshore up`), and is this its topology?",
        };
        CliError::failed(error.to_string(), mend)
    }
}

/// A failed file operation, with its path.
pub fn io_error(doing: &str, path: &std::path::Path, error: &std::io::Error) -> CliError {
    let mend = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "give yourself the right to it, or name another place",
        std::io::ErrorKind::StorageFull => "make room on the disk",
        std::io::ErrorKind::NotFound => "is the path right?",
        _ => "",
    };
    CliError::failed(format!("cannot {doing} {}: {error}", path.display()), mend)
}
