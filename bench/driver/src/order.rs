//! Commands that a measurement gives.

use crate::error::BenchError;
use crate::world::World;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a command and waits for it; what it prints is not looked at.
fn order(command: &mut Command) -> Result<(), BenchError> {
    let what = format!("run {command:?}");
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(|error| BenchError::new(&what, error))?;
    if status.success() { Ok(()) } else { Err(BenchError::new(what, status)) }
}

/// Kills a process with SIGKILL.
pub fn kill(pid: u32) -> Result<(), BenchError> {
    order(Command::new("kill").args(["-9", &pid.to_string()]))
}

/// Starts what is missing of a world; `farshore` is the program.
pub fn up(farshore: &Path, world: &World) -> Result<(), BenchError> {
    let topology = world.dir().join("topology.toml");
    order(Command::new(farshore).arg("up").arg("--dir").arg(world.dir()).arg("--topology").arg(topology))
}
