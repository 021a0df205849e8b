//! The state machine of a node without a network: what apply, a mirror, rewind and a large state cost. It prints figures
//! as JSON and judges nothing.
//!
//! `rates` feeds encoded entries to `primary`'s apply on LMDB, as a node's apply thread does; `size` fills a node's
//! directory that way and starts a real node on it.

mod clock;
mod cluster;
mod error;
mod load;
mod node;
mod process;
mod rates;
mod reads;
mod size;
mod skip;
mod stall;
#[cfg(test)]
mod tests;
mod usage;

use clap::{Parser, Subcommand};
use error::{Doing, EngineError};
use serde::Serialize;
use std::process::ExitCode;

/// As in the product's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "Measures Farshore's metadata engine without a network")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Entries per second of one core: apply, before-images, a mirror, rewind
    Rates(rates::Args),
    /// Fills a state, weighs it, starts a node on it and takes a checkpoint under load
    Size(size::Args),
    /// Lookups and stats on the state of a kept directory
    Reads(reads::Args),
    /// Starts a node on a kept directory, and says how long that took
    Start(node::StartArgs),
    /// Takes a checkpoint of a kept directory under load, and says how long the callers stood still
    Stall(node::StartArgs),
    /// Runs one node on a filled directory
    #[command(hide = true)]
    Node(node::Args),
}

fn main() -> ExitCode {
    match run(Args::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<(), EngineError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().doing("start")?;
    match verb {
        Verb::Rates(args) => print(&rates::run(&args)?),
        Verb::Size(args) => print(&runtime.block_on(size::run(args))?),
        Verb::Reads(args) => print(&reads::measure(&args)?),
        Verb::Start(args) => print(&runtime.block_on(node::start(&args.dir))?),
        Verb::Stall(args) => print(&runtime.block_on(stall::run(&args.dir))?),
        Verb::Node(args) => runtime.block_on(node::run(args))?,
    }
    Ok(())
}

fn print(figures: &impl Serialize) {
    println!("{}", serde_json::to_string(figures).expect("figures are plain data"));
}
