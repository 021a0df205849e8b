//! `farshore node NAME`: one metadata node.

use crate::error::{CliError, Done, EXIT_DONE};
use crate::shutdown;
use crate::topology_file::{World, WorldArgs};
use crate::world::process;
use farshore_mirror::TailConfig;
use farshore_mirror::node::RunConfig;
use farshore_primary::NodeConfig;
use farshore_types::topology::{NodePlace, nearest};
use std::time::Duration;

/// A session that is silent for so long ends.
const SESSION_LEASE: Duration = Duration::from_secs(60);

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
    let Some(place) = world.topology.node(&args.name) else {
        let mend = match nearest(&args.name, world.topology.nodes().map(|place| place.node.name.as_str())) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "see `nodes` in the topology".to_owned(),
        };
        return Err(CliError::usage(format!("the topology has no node {:?}", args.name), mend));
    };
    let config = config_of(&world, place)?;
    if let Some(listen) = place.node.metrics {
        crate::node_metrics::serve(listen).await?;
    }
    let ran = farshore_mirror::node::run(config, shutdown::requested()).await;
    ran.map_err(|error| {
        process::note_end(&world.dir, &args.name, &error.to_string());
        CliError::failed(error.to_string(), "")
    })?;
    Ok(EXIT_DONE)
}

/// What the topology says about one node.
fn config_of(world: &World, place: NodePlace<'_>) -> Result<RunConfig, CliError> {
    let volume = world.volume(None)?;
    let (region, node) = (place.region, place.node);
    let others = world.topology.regions().iter().filter(|other| other.cluster != region.cluster);
    let tail = TailConfig {
        others: others.map(|other| (other.cluster, other.nodes.iter().map(|node| node.address()).collect())).collect(),
    };
    let config = NodeConfig {
        name: node.name.clone(),
        volume: volume.name.clone(),
        region: region.name.clone(),
        cluster: region.cluster,
        id: node.id,
        members: world.topology.peers(region.cluster),
        full_sync_every_us: volume.full_sync_every.as_micros() as u64,
        heartbeat: world.topology.raft.heartbeat,
        election: (world.topology.raft.election_min, world.topology.raft.election_max),
        checkpoint_entries: world.topology.log.checkpoint_entries,
        log_retention: world.topology.log.retention.0,
        session_lease: SESSION_LEASE,
        regions: world.topology.regions().iter().map(|region| (region.cluster, region.name.clone())).collect(),
    };
    Ok(RunConfig { node: config, listen: node.listen, directory: world.dir.node(&node.name), tail })
}
