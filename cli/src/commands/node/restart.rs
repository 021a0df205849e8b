//! `farshore node restart`: nodes of this machine, one after another. Each hands the leadership over before it stops, and
//! the next one waits until it has caught up, so that no call fails.

use super::RestartArgs;
use crate::commands::up;
use crate::error::{CliError, Done, EXIT_DONE};
use crate::output::{print, print_json};
use crate::topology_file::World;
use crate::world::process;
use farshore_console::observe::addresses;
use farshore_types::topology::NodePlace;
use farshore_wire::admin::{AdminAnswer, AdminCall};
use farshore_wire::admin_client::AdminClient;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(100);
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Until a restarted node must have caught up.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(600);

#[derive(Debug, Serialize)]
struct Restarted {
    name: String,
    seconds: f64,
}

pub async fn run(args: &RestartArgs) -> Done {
    let world = args.world.running()?;
    if !world.dir.exists() {
        let what = format!("no world lives in {}", world.dir.root().display());
        return Err(CliError::usage(
            what,
            "name the world's directory with --dir; elsewhere, `systemctl restart` does it: a node hands over first",
        ));
    }
    let names: Vec<String> = match args.all {
        true => world.topology.nodes().map(|place| place.node.name.clone()).collect(),
        false => args.names.clone(),
    };
    let mut places = Vec::new();
    for name in &names {
        let place = world.topology.node(name);
        places.push(place.ok_or_else(|| CliError::usage(format!("the topology has no node {name:?}"), "see `farshore status`"))?);
    }
    let mut done = Vec::new();
    for place in places {
        let began = Instant::now();
        whole(&world, place, "before").await?;
        process::stop_one(&world.dir, &place.node.name)?;
        up::start_node(&world, &place.node.name).await?;
        whole(&world, place, "after").await?;
        let restarted = Restarted { name: place.node.name.clone(), seconds: began.elapsed().as_secs_f64() };
        if !args.json {
            print(&format!("{} restarted in {:.1} s\n", restarted.name, restarted.seconds));
        }
        done.push(restarted);
    }
    if args.json {
        print_json(&serde_json::json!({ "restarted": done }));
    }
    Ok(EXIT_DONE)
}

/// Waits until every voter of the node's cluster answers and has caught up: without that, stopping one might stop all.
async fn whole(world: &World, place: NodePlace<'_>, when: &str) -> Result<(), CliError> {
    let client = AdminClient::new(world.volume(None)?.name.clone(), CALL_DEADLINE);
    let addresses = addresses(place.region);
    let end = Instant::now() + CAUGHT_UP_WITHIN;
    loop {
        let looked = client.call_leader(&addresses, &AdminCall::Members).await;
        let missing = match looked {
            Ok((_, AdminAnswer::Members(view))) => view.lacking().map(|member| member.name.clone()),
            Ok((address, other)) => return Err(farshore_wire::admin_client::unexpected(&address, &other).into()),
            Err(error) if error.is_transient() => Some(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let Some(missing) = missing else { return Ok(()) };
        // Its own node may be the one that is down: then it is to be started.
        if when == "before" && missing == place.node.name {
            return Ok(());
        }
        if Instant::now() >= end {
            let what = format!("{when} the restart of {}, not all of {} is well: {missing}", place.node.name, place.region.name);
            return Err(CliError::failed(what, "see `farshore status`; repeat the command when all its nodes answer"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
