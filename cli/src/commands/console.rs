//! `farshore console`: the lag page, its API, and `/metrics`.

use crate::error::{CliError, Done, EXIT_DONE};
use crate::topology_file::WorldArgs;
use crate::{shutdown, world::process};
use farshore_console::ConsoleConfig;
use std::sync::Arc;
use tokio::net::TcpListener;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub world: WorldArgs,
}

pub async fn run(args: Args) -> Done {
    let world = args.world.running()?;
    let Some(address) = world.topology.console else {
        return Err(CliError::usage("the topology has no console", "add [console] listen = \"127.0.0.1:7400\""));
    };
    let failed = |error: std::io::Error| {
        CliError::failed(format!("`console.listen`: cannot listen on {address}: {error}"), "free the port, or change the key")
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let dir = world.dir.clone();
    let volume = world.volume(None)?.name.clone();
    let pid_of = Arc::new(move |name: &str| process::alive(&dir, name).map(|file| file.pid));
    let config = ConsoleConfig { topology: world.topology, volume, pid_of };
    tracing::info!(%address, "the console listens");
    farshore_console::serve(config, listener, shutdown::requested()).await.map_err(failed)?;
    Ok(EXIT_DONE)
}
