//! Drives a running world, or an etcd, without FUSE, and prints what it saw as JSON. It judges nothing.
//!
//! `creates`, `lookups`, `stats` and `lag` speak to the volume as every client does, by its session; `failover` kills leaders
//! meanwhile; `mirror` kills the mirror's nodes and lets them catch up; `profile` samples where the time goes; `synced` waits for
//! the ledger; `etcd-puts` is the same load on etcd; `report` makes the committed files out of the parts of a run.

mod cpu;
mod error;
mod etcd;
mod failover;
mod idle;
mod lag;
mod load;
mod mirror;
mod order;
mod profile;
mod report;
mod synced;
mod times;
mod tree;
mod world;

use clap::{Parser, Subcommand};
use error::BenchError;
use load::What;
use serde::Serialize;
use std::num::NonZero;
use std::process::ExitCode;

/// As in the product's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "Measures a running Farshore world, and an etcd beside it")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Creates files, each caller in a directory of its own, as fast as answers come
    Creates(load::Args),
    /// Looks names up, as fast as answers come
    Lookups(load::Args),
    /// Asks for attributes, as fast as answers come
    Stats(load::Args),
    /// Creates files at a fixed rate and watches how far the mirror's metadata is behind
    Lag(lag::Args),
    /// Kills the leader again and again, and measures until the next create is answered
    Failover(failover::Args),
    /// Measures the mirror: idle, by the changelog's bytes, and catching up with a backlog
    Mirror(mirror::Args),
    /// Tells what processes use when nothing is asked of them
    Idle(idle::Args),
    /// Tells where the processor time of a create goes, by Linux's perf
    Profile(profile::Args),
    /// Waits until no region's bucket owes a block
    Synced(synced::Args),
    /// Puts values into an etcd, as fast as answers come
    EtcdPuts(etcd::Args),
    /// Writes a tree of small files, the same in each run
    Tree(tree::Args),
    /// Writes the result files from the parts of a run
    Report(report::Args),
}

/// Threads that run tasks. A session stands for a client, whose process has half of the processors for them.
fn workers(verb: &Verb) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    match verb {
        Verb::Creates(load) | Verb::Lookups(load) | Verb::Stats(load) => {
            processors.min(usize::from(load.sessions) * processors.div_ceil(2))
        }
        _ => processors,
    }
}

fn main() -> ExitCode {
    let verb = Args::parse().verb;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers(&verb)).enable_all().build();
    let done = runtime.map_err(|error| BenchError::new("start", error)).and_then(|runtime| runtime.block_on(run(verb)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> Result<(), BenchError> {
    match verb {
        Verb::Creates(args) => print(&load::run(args, What::Creates).await?),
        Verb::Lookups(args) => print(&load::run(args, What::Lookups).await?),
        Verb::Stats(args) => print(&load::run(args, What::Stats).await?),
        Verb::Lag(args) => print(&lag::run(args).await?),
        Verb::Idle(args) => print(&idle::run(args).await?),
        Verb::Failover(args) => print(&failover::run(args).await?),
        Verb::Mirror(args) => print(&mirror::run(args).await?),
        Verb::Profile(args) => print(&profile::run(args).await?),
        Verb::Synced(args) => print(&synced::run(args).await?),
        Verb::EtcdPuts(args) => print(&etcd::run(args).await?),
        Verb::Tree(args) => print(&tree::run(&args)?),
        Verb::Report(args) => report::run(&args)?,
    }
    Ok(())
}

fn print(figures: &impl Serialize) {
    println!("{}", serde_json::to_string(figures).expect("figures are plain data"));
}
