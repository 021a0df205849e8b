//! Commands that a measurement gives.

use crate::error::BenchError;
use std::process::{Command, Stdio};

/// Runs a command and waits for it; what it prints is not looked at.
pub fn order(command: &mut Command) -> Result<(), BenchError> {
    let what = format!("run {command:?}");
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(|error| BenchError::new(&what, error))?;
    if status.success() { Ok(()) } else { Err(BenchError::new(what, status)) }
}
