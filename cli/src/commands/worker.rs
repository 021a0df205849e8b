//! `farshore worker VOLUME`: a client that only copies blocks.

use crate::connect::{self, Wish};
use crate::error::{CliError, Done, EXIT_DONE};
use crate::shutdown;
use crate::topology_file::WorldArgs;
use farshore_client::{Worker, WorkerOptions};
use farshore_types::topology::units;
use tokio::sync::watch;

/// Leases worked on at once.
const SLOTS: u32 = 16;
const SLOTS_MAX: u32 = 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    pub volume: String,
    /// Where this worker is [default: the primary's region]
    #[arg(long)]
    pub region: Option<String>,
    /// Leases worked on at once
    #[arg(long, default_value_t = SLOTS)]
    pub slots: u32,
    /// At most so many bytes a second, such as 50MiB
    #[arg(long, value_name = "SIZE")]
    pub bandwidth: Option<String>,
    #[command(flatten)]
    pub world: WorldArgs,
    #[arg(hide = true)]
    rest: Vec<String>,
}

pub async fn run(args: Args) -> Done {
    if matches!(args.volume.as_str(), "list" | "drain") {
        return Err(CliError::not_yet(&format!("worker {}", args.volume)));
    }
    if let Some(extra) = args.rest.first() {
        return Err(CliError::usage(format!("`worker` takes one volume, not also {extra:?}"), "see `farshore worker --help`"));
    }
    if args.slots == 0 || args.slots > SLOTS_MAX {
        return Err(CliError::usage(format!("--slots: {} is out of bounds", args.slots), format!("write 1 to {SLOTS_MAX}")));
    }
    let bandwidth = match &args.bandwidth {
        None => None,
        Some(text) => match units::parse_size(text.trim_end_matches("/s")) {
            Some(size) if size.0 > 0 => Some(size.0),
            _ => return Err(CliError::usage(format!("--bandwidth: {text:?} is not a size"), "write for example 50MiB")),
        },
    };
    let world = args.world.running()?;
    let volume = world.volume(Some(&args.volume))?;
    // A worker reads no metadata of its own; its region only says which bucket is near.
    let wish = Wish { region: None, ..Wish::default() };
    let mut config = connect::config(&world, volume, &wish)?;
    if let Some(region) = &args.region {
        config.region = world.region(region)?.name.clone();
    }
    config.options = "worker".to_owned();
    let (stop, stopped) = watch::channel(false);
    let signal = async {
        shutdown::requested().await;
        let _ = stop.send(true);
        std::future::pending::<()>().await
    };
    tokio::select! {
        done = Worker::run(config, WorkerOptions { slots: args.slots, bandwidth, ..WorkerOptions::default() }, stopped) => {
            done.map_err(|error| CliError::failed(error.to_string(), "see `farshore status`"))?;
        }
        () = signal => {}
    }
    Ok(EXIT_DONE)
}
