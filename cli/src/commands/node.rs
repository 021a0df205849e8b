//! `farshore node NAME`: one metadata node.

use crate::error::{CliError, Done};
use crate::topology_file::WorldArgs;
use farshore_types::topology::nearest;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's name in the topology
    pub name: String,
    #[command(flatten)]
    pub world: WorldArgs,
    #[arg(hide = true)]
    rest: Vec<String>,
}

/// Verbs below `node` of a later version.
const LATER: [&str; 6] = ["add", "remove", "replace", "recover", "compact", "restart"];

pub async fn run(args: Args) -> Done {
    if LATER.contains(&args.name.as_str()) {
        return Err(CliError::not_yet(&format!("node {}", args.name)));
    }
    if let Some(extra) = args.rest.first() {
        return Err(CliError::usage(format!("`node` takes one name, not also {extra:?}"), "see `farshore node --help`"));
    }
    let world = args.world.running()?;
    let Some(_place) = world.topology.node(&args.name) else {
        let mend = match nearest(&args.name, world.topology.nodes().map(|place| place.node.name.as_str())) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "see `nodes` in the topology".to_owned(),
        };
        return Err(CliError::usage(format!("the topology has no node {:?}", args.name), mend));
    };
    Err(CliError::not_yet("running a metadata node"))
}
