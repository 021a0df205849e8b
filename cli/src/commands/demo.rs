//! `farshore demo`: the main job, told step by step on a world of its own, with a verdict. The exit code is the verdict.

use crate::demo;
use crate::error::{Done, EXIT_DONE, EXIT_FAILED};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The figures as JSON
    #[arg(long)]
    pub json: bool,
    /// Keep the world's directory for a look at it; everything is stopped all the same
    #[arg(long)]
    pub keep: bool,
}

pub fn run(args: &Args) -> Done {
    let passed = demo::tell(args.json, args.keep)?;
    Ok(if passed { EXIT_DONE } else { EXIT_FAILED })
}
