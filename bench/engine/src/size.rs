//! What many files cost: bytes on disk by space and kind, resident memory, the start of a node, lookups, and the stall of a
//! checkpoint. The state is filled through apply, not through a cluster, which would take hours.

use crate::cluster::{Cluster, US};
use crate::error::{Doing, EngineError};
use crate::load::{Load, LoadArgs, Shape};
use crate::node::{self, Start};
use crate::rates::{Rate, rate};
use crate::reads::{self, Reads};
use crate::stall::{self, Stall};
use crate::usage::{self, Usage};
use farshore_primary::boot;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A fresh directory is made in it and removed at the end
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    #[arg(long, default_value_t = 10_000_000)]
    files: u64,
    /// Keep the node's directory, and say where it is
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Serialize)]
pub struct Size {
    load: LoadArgs,
    fill: Rate,
    usage: Usage,
    /// Checkpoints beside the state; a node keeps two.
    checkpoint_bytes: u64,
    checkpoint_seconds: f64,
    /// With the state's pages in memory, as after a restart of the process; then from a checkpoint, as after a restart of
    /// the machine.
    start: Start,
    start_from_checkpoint: Start,
    reads: Reads,
    stall: Stall,
    kept: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<Size, EngineError> {
    let fresh = tempfile::Builder::new().prefix("farshore-engine.").tempdir_in(&args.dir).doing("make a directory")?;
    let directory = fresh.path().to_owned();
    let mut load = args.load.clone();
    load.shape = Shape::Files;
    let (fill, checkpoint_seconds) = fill(&directory, &load, args.files)?;
    let state = directory.join("state");
    let usage = usage::measure(&state, args.files)?;
    let reads = reads::run(&state, &load, args.files, reads::QUESTIONS)?;
    let start = node::start(&directory).await?;
    let stall = stall::run(&directory).await?;
    let checkpoint_bytes = largest(&directory.join("checkpoints"))?;
    // As after a restart of the machine: the mark is of another boot.
    std::fs::remove_file(directory.join("state.mark")).doing("forget this boot")?;
    let start_from_checkpoint = node::start(&directory).await?;
    let kept = args.keep.then(|| fresh.keep());
    Ok(Size { load, fill, usage, checkpoint_bytes, checkpoint_seconds, start, start_from_checkpoint, reads, stall, kept })
}

/// A node's directory with so many files, and a checkpoint of it, from which its empty log goes on.
fn fill(directory: &Path, load: &LoadArgs, files: u64) -> Result<(Rate, f64), EngineError> {
    let disk = boot::open(directory, &node::identity(), true, true).doing("make the node's directory")?;
    let mut cluster = Cluster::new(US, disk.store, true, "127.0.0.1:9");
    let made = Load::begin(load.clone(), &mut cluster)?.run(&mut cluster, files)?;
    let begun = Instant::now();
    disk.checkpoints.take(&cluster.store).doing("take a checkpoint")?;
    Ok((rate(made, cluster.took, cluster.trimming), begun.elapsed().as_secs_f64()))
}

fn largest(directory: &Path) -> Result<u64, EngineError> {
    let mut largest = 0;
    for entry in std::fs::read_dir(directory).doing("look at the checkpoints")? {
        let about = entry.and_then(|entry| entry.metadata()).doing("look at the checkpoints")?;
        largest = largest.max(about.len());
    }
    Ok(largest)
}
