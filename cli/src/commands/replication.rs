//! `farshore replication status|pause|resume`.

use crate::error::{CliError, Done, EXIT_DONE, EXIT_FAILED};
use crate::output::{print, print_json};
use crate::render;
use crate::topology_file::{World, WorldArgs};
use farshore_console::observe::{Observer, RegionReplication, addresses};
use farshore_types::topology::{nearest, units};
use farshore_wire::admin::AdminCall;
use serde::Serialize;
use std::time::Duration;

/// Owed blocks listed for each region.
const LIMIT: u32 = 20;
/// How long a pause lasts unless said otherwise: a pause that nobody ends is worse than one that ends too early.
const PAUSE: Duration = Duration::from_secs(3600);
const KNOWN: [&str; 3] = ["status", "pause", "resume"];
const LATER: [&str; 6] = ["enable", "disable", "limit", "retry", "write-off", "policy"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// status, pause or resume (enable, disable, limit, retry, write-off, policy: not available yet)
    pub action: String,
    /// The volume [default: the topology's only one]
    pub volume: Option<String>,
    /// Only this region
    #[arg(long, value_name = "REGION")]
    pub target: Option<String>,
    /// Owed blocks listed for each region
    #[arg(long, default_value_t = LIMIT)]
    pub limit: u32,
    /// How long a pause lasts, such as 30m; it ends by itself
    #[arg(long = "for", value_name = "DURATION")]
    pub length: Option<String>,
    /// Why, for those who find it paused
    #[arg(long)]
    pub reason: Option<String>,
    #[command(flatten)]
    pub world: WorldArgs,
    #[arg(long)]
    pub json: bool,
    #[arg(long, hide = true)]
    pub bandwidth: Option<String>,
}

#[derive(Serialize)]
struct Change {
    region: String,
    done: bool,
    error: Option<String>,
}

pub async fn run(args: Args) -> Done {
    if LATER.contains(&args.action.as_str()) {
        return Err(CliError::not_yet(&format!("replication {}", args.action)));
    }
    if args.bandwidth.is_some() {
        return Err(CliError::not_yet("replication --bandwidth"));
    }
    let world = args.world.running()?;
    let volume = world.volume(args.volume.as_deref())?.name.clone();
    if let Some(target) = &args.target {
        world.region(target)?;
    }
    let observer = Observer::new(world.topology.clone(), volume);
    match args.action.as_str() {
        "status" => status(&args, &observer).await,
        "pause" => change(&args, &world, &observer, &pause(&args)?).await,
        "resume" => change(&args, &world, &observer, &AdminCall::ReplicationResume).await,
        other => {
            let near = nearest(other, KNOWN.into_iter().chain(LATER));
            let mend = near.map_or("write status, pause or resume".to_owned(), |near| format!("did you mean {near:?}?"));
            Err(CliError::usage(format!("`replication` has no action {other:?}"), mend))
        }
    }
}

async fn status(args: &Args, observer: &Observer) -> Done {
    let mut status = observer.replication(args.limit).await;
    status.regions.retain(|region| args.target.as_deref().is_none_or(|target| region.region() == target));
    if args.json {
        print_json(&status);
    } else {
        print(&render::replication(&status));
    }
    let silent = status.regions.iter().any(|region| matches!(region, RegionReplication::Unknown { .. }));
    Ok(if silent { EXIT_FAILED } else { EXIT_DONE })
}

fn pause(args: &Args) -> Result<AdminCall, CliError> {
    let length = match args.length.as_deref() {
        None => PAUSE,
        Some(text) => units::parse_duration(text).filter(|length| length.as_secs() > 0).ok_or_else(|| {
            CliError::usage(format!("--for: {text:?} is not a duration of a second or more"), "write for example 30m")
        })?,
    };
    let by = std::env::var("USER").unwrap_or_else(|_| "operator".to_owned());
    let reason = args.reason.clone().unwrap_or_default();
    Ok(AdminCall::ReplicationPause { seconds: Some(length.as_secs()), reason, by })
}

/// Asks each region's cluster; each one pauses the copying into its own bucket.
async fn change(args: &Args, world: &World, observer: &Observer, call: &AdminCall) -> Done {
    let mut changes = Vec::new();
    for region in world.topology.regions() {
        if args.target.as_deref().is_none_or(|target| region.name == target) {
            let error = observer.client().call_leader(&addresses(region), call).await.err().map(|error| error.to_string());
            changes.push(Change { region: region.name.clone(), done: error.is_none(), error });
        }
    }
    if args.json {
        print_json(&changes);
    } else {
        for Change { region, error, .. } in &changes {
            let outcome =
                error.as_ref().map_or_else(|| format!("{}d", args.action), |error| format!("not {}d: {error}", args.action));
            print(&format!("{region}  {outcome}\n"));
        }
    }
    Ok(if changes.iter().all(|change| change.done) { EXIT_DONE } else { EXIT_FAILED })
}
