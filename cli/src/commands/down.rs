//! `farshore down`: stops what `up` started, and keeps the data.

use crate::error::{CliError, Done, EXIT_DONE, io_error};
use crate::output::{print, print_json};
use crate::topology_file::WorldArgs;
use crate::world::record::WorldRecord;
use crate::world::{WorldDir, process};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub world: WorldArgs,
    /// Remove the world's directory as well, with all data
    #[arg(long)]
    pub purge: bool,
    /// Print what was stopped as JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: Args) -> Done {
    let dir = args.world.directory()?;
    if !dir.exists() {
        let mend = "name the world's directory with --dir or $FARSHORE_DIR";
        return Err(CliError::usage(format!("no world lives in {}", dir.root().display()), mend));
    }
    let stopped = stop(&dir, args.purge)?;
    if args.json {
        print_json(&stopped);
        return Ok(EXIT_DONE);
    }
    let killed = match stopped.killed.len() {
        0 => String::new(),
        count => format!(", {count} of them killed: {}", stopped.killed.join(", ")),
    };
    let count = stopped.stopped.len() + stopped.killed.len();
    let fate = if args.purge { "removed" } else { "kept" };
    print(&format!("{count} processes stopped{killed}; {} is {fate}\n", dir.root().display()));
    Ok(EXIT_DONE)
}

/// Stops every process; with `purge`, removes the directory, which must carry a world's record.
pub fn stop(dir: &WorldDir, purge: bool) -> Result<process::Stopped, CliError> {
    let lock = dir.lock()?;
    let stopped = process::stop_all(dir)?;
    if purge {
        // Read, not only looked for: nothing that is not surely a world's is ever removed.
        WorldRecord::load(dir)?.ok_or_else(|| CliError::usage("the directory carries no world.json", "remove it by hand"))?;
        std::fs::remove_dir_all(dir.root()).map_err(|error| io_error("remove", dir.root(), &error))?;
    }
    drop(lock);
    Ok(stopped)
}
