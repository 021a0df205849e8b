//! `farshore node run NAME`: one metadata node, as systemd runs it.

use crate::error::{CliError, Done, EXIT_DONE};
use crate::shutdown;
use crate::topology_file::{World, WorldArgs};
use crate::world::process;
use crate::world::record::WorldRecord;
use farshore_mirror::TailConfig;
use farshore_mirror::node::RunConfig;
use farshore_primary::boot::IDENTITY;
use farshore_primary::{MACHINE_VERSION, NodeConfig};
use farshore_types::NodeId;
use farshore_types::topology::{NodePlace, nearest};
use farshore_wire::admin::Health;
use farshore_wire::admin_client::AdminClient;
use std::time::Duration;
use tokio::time::Instant;

/// How long one of the others may take to say who the members are, the pause between two rounds, and when a node without a
/// directory begins as a new one.
const FORMER_ASK: Duration = Duration::from_secs(1);
const FORMER_EVERY: Duration = Duration::from_millis(100);
const FORMER_WITHIN: Duration = Duration::from_secs(5);
/// A session that is silent for so long ends.
const SESSION_LEASE: Duration = Duration::from_secs(60);

/// Runs the node until it is asked to stop, or until its cluster has taken it out.
pub async fn run(name: &str, world: &WorldArgs) -> Done {
    let world = world.running()?;
    let Some(place) = world.topology.node(name) else {
        let mend = match nearest(name, world.topology.nodes().map(|place| place.node.name.as_str())) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "see `nodes` in the topology".to_owned(),
        };
        return Err(CliError::usage(format!("the topology has no node {name:?}"), mend));
    };
    let config = config_of(&world, place, former(&world, place).await?)?;
    if let Some(listen) = place.node.metrics {
        crate::node_metrics::serve(listen).await?;
    }
    let ran = farshore_mirror::node::run(config, shutdown::requested()).await;
    ran.map_err(|error| {
        process::note_end(&world.dir, name, &error.to_string());
        CliError::failed(error.to_string(), "")
    })?;
    Ok(EXIT_DONE)
}

/// The number that a node without a directory had in its cluster, by the word of the others: under it, it takes back what it
/// lost (law 24). 0 when it has a directory, or when nobody knows it: then a number is drawn.
async fn former(world: &World, place: NodePlace<'_>) -> Result<NodeId, CliError> {
    let name = &place.node.name;
    let others: Vec<String> =
        place.region.nodes.iter().filter(|other| other.name != *name).map(|other| other.address()).collect();
    // A cluster that `up` has yet to make has no members.
    let unfounded = WorldRecord::load(&world.dir)?.is_some_and(|record| !record.is_founded(&place.region.name));
    if others.is_empty() || unfounded || world.dir.node(name).join(IDENTITY).exists() {
        return Ok(NodeId(0));
    }
    let client = AdminClient::new(world.volume(None)?.name.clone(), FORMER_ASK);
    let end = Instant::now() + FORMER_WITHIN;
    loop {
        let health: Vec<Health> = client.health_of_all(&others).await.into_iter().flatten().collect();
        let members: Vec<_> = health.iter().flat_map(|health| &health.members).collect();
        if let Some(own) = members.iter().find(|member| member.name == *name) {
            return Ok(NodeId(own.id));
        }
        if !members.is_empty() || Instant::now() >= end {
            return Ok(NodeId(0));
        }
        tokio::time::sleep(FORMER_EVERY).await;
    }
}

/// What the topology says about one node.
fn config_of(world: &World, place: NodePlace<'_>, id: NodeId) -> Result<RunConfig, CliError> {
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
        id,
        peers: region.nodes.iter().filter(|other| other.name != node.name).map(|other| other.address()).collect(),
        machine: MACHINE_VERSION,
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
