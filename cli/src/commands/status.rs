//! `farshore status`.

use crate::error::{Done, EXIT_DONE, EXIT_FAILED};
use crate::output::{print, print_json};
use crate::render;
use crate::topology_file::WorldArgs;
use crate::world::process;
use farshore_console::observe::Observer;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume [default: the topology's only one]
    pub volume: Option<String>,
    #[command(flatten)]
    pub world: WorldArgs,
    #[arg(long)]
    pub json: bool,
}

/// Exits with 1 when a node did not answer; what is known is printed all the same.
pub async fn run(args: Args) -> Done {
    let world = args.world.running()?;
    let volume = world.volume(args.volume.as_deref())?.name.clone();
    let observer = Observer::new(world.topology.clone(), volume);
    let mut view = observer.status(|name| process::alive(&world.dir, name).map(|file| file.pid)).await;
    for node in view.nodes.iter_mut().filter(|node| node.role == "down") {
        node.trouble = process::end_of(&world.dir, &node.name);
    }
    if args.json {
        print_json(&view);
    } else {
        print(&render::status(&view));
    }
    let silent = view.nodes.iter().any(|node| node.role == "down");
    Ok(if silent { EXIT_FAILED } else { EXIT_DONE })
}
