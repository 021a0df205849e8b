//! The verbs as clap sees them, the ones of a later version included.

use crate::commands::{self, later};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// One POSIX file system on every shore: multi-region replication and mirroring.
#[derive(Debug, Parser)]
#[command(name = "farshore", version, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start every node, bucket server and the console of a topology on this machine
    Up(commands::up::Args),
    /// Stop what `up` started; the data stays
    Down(commands::down::Args),
    /// The main job, told step by step on a world of its own
    Demo(commands::demo::Args),
    /// Nodes, buckets, volumes and sessions
    Status(commands::status::Args),
    /// How far behind each region is
    Lag(commands::lag::Args),
    /// What each region still owes; pause and resume copying
    Replication(commands::replication::Args),
    /// Full sync of the buckets against the metadata, now
    Heal(commands::heal::Args),
    /// Make a declared volume
    Format(commands::format::Args),
    /// Mount a volume on a directory
    Mount(commands::mount::Args),
    /// Unmount
    Umount(commands::umount::Args),
    /// List a directory: VOLUME:/PATH
    Ls(commands::paths::LsArgs),
    /// Print files
    Cat(commands::paths::CatArgs),
    /// Copy files into a volume, or out of it
    Cp(commands::paths::CpArgs),
    /// Remove files
    Rm(commands::paths::RmArgs),
    /// Attributes of a file
    Stat(commands::paths::StatArgs),
    /// A client that only copies blocks
    Worker(commands::worker::Args),
    /// Write and read big and small files, on a mount or by sessions
    Bench(commands::bench::Args),
    /// Make, stat and remove directories and files, on a mount or by sessions
    Mdtest(commands::mdtest::Args),
    /// Run a metadata node; add, remove, replace, restart nodes
    Node(commands::node::Args),
    /// Run the server of an embedded bucket
    #[command(hide = true)]
    Bucket(commands::bucket::Args),
    /// Run the console
    #[command(hide = true)]
    Console(commands::console::Args),
    /// Have several clients do random things at once, and write down what they were answered
    #[command(hide = true)]
    History(commands::history::Args),
}

/// What the command line asks for.
pub enum Asked {
    Now(Box<Command>),
    /// A verb of a later version, by its name.
    Later(String),
}

/// Reads the command line; prints help and usage errors (exit code 2) by itself.
pub fn parse() -> Asked {
    let mut cli = Cli::command();
    for (name, about) in later::LATER {
        cli = cli.subcommand(later::command(name, about));
    }
    let matches = cli.get_matches();
    match matches.subcommand_name() {
        Some(name) if later::is_later(name) => Asked::Later(name.to_owned()),
        _ => Asked::Now(Box::new(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command)),
    }
}
