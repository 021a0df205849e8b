//! `farshore node`: runs one metadata node, and changes which nodes a region's cluster has.
//!
//! The topology is the declared world, the membership the cluster's own state. The file is edited first; these verbs bring
//! the cluster to it, step by step by what they see: each can be interrupted and repeated.

mod change;
mod plan;
mod restart;
mod run;

use crate::error::{CliError, Done};
use crate::topology_file::WorldArgs;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Run this node of the topology; the same as `node run NAME`
    name: Option<String>,
    #[command(flatten)]
    world: WorldArgs,
    #[arg(hide = true)]
    rest: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run one metadata node
    Run(RunArgs),
    /// Take a node that the topology declares into its region's cluster
    Add(AddArgs),
    /// Take a node out of its cluster, for ever
    Remove(RemoveArgs),
    /// Put a node in the place of another one
    Replace(ReplaceArgs),
    /// Restart nodes of this machine one after another, the leadership handed over first
    Restart(RestartArgs),
    /// (not available yet) make a cluster of the nodes that survived
    Recover(LaterArgs),
    /// (not available yet) free a node's disk
    Compact(LaterArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The node's name in the topology
    name: String,
    #[command(flatten)]
    world: WorldArgs,
}

/// What the verbs that change a cluster have in common.
#[derive(Debug, clap::Args)]
struct ChangeArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Longest wait for the node to catch up; repeating the command waits on
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The node's name in the topology
    name: String,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The node's name
    name: String,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
struct ReplaceArgs {
    /// The node that goes
    old: String,
    /// The node that comes, by its name in the topology; the same name for a node that lost its directory
    #[arg(long = "with", value_name = "NAME")]
    new: String,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
struct RestartArgs {
    /// The nodes' names, in this order
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// Every node of the topology
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    world: WorldArgs,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct LaterArgs {
    #[arg(hide = true, num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

impl Args {
    /// Whether this is a service, which says what it does.
    pub fn is_service(&self) -> bool {
        matches!(self.verb, None | Some(Verb::Run(_)))
    }
}

pub async fn run(args: Args) -> Done {
    match args.verb {
        Some(Verb::Run(RunArgs { name, world })) => run::run(&name, &world).await,
        Some(Verb::Add(AddArgs { name, change })) => change::add(&name, &change).await,
        Some(Verb::Remove(RemoveArgs { name, change })) => change::remove(&name, &change).await,
        Some(Verb::Replace(ReplaceArgs { old, new, change })) => change::replace(&old, &new, &change).await,
        Some(Verb::Restart(args)) => restart::run(&args).await,
        Some(Verb::Recover(_)) => Err(CliError::not_yet("node recover")),
        Some(Verb::Compact(_)) => Err(CliError::not_yet("node compact")),
        None => match (args.name, args.rest.first()) {
            (Some(name), None) => run::run(&name, &args.world).await,
            (Some(_), Some(extra)) => {
                Err(CliError::usage(format!("`node` takes one name, not also {extra:?}"), "see `farshore node --help`"))
            }
            (None, _) => Err(CliError::usage("`node` takes the name of a node, or a verb", "see `farshore node --help`")),
        },
    }
}
