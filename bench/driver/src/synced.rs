//! Waits until the buckets owe nothing, and says how long that took.

use crate::error::BenchError;
use crate::world::WorldArgs;
use farshore_wire::admin::{AdminAnswer, AdminCall};
use farshore_wire::admin_client::AdminClient;
use serde::Serialize;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    world: WorldArgs,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 600.0)]
    at_most: f64,
    /// Only say what is owed now
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Serialize)]
pub struct SyncedFigures {
    /// From the start of this command.
    seconds: f64,
    /// Owed by the mirror's bucket at the first look, and at the last.
    blocks_first: u64,
    bytes_first: u64,
    blocks_last: u64,
}

pub async fn run(args: Args) -> Result<SyncedFigures, BenchError> {
    let begun = Instant::now();
    let world = args.world.open()?;
    let (region, nodes) = world.mirror()?;
    let client = AdminClient::new(world.volume_name(), DEADLINE);
    let failed = |why: String| BenchError::new(format!("wait for the bucket of {region}"), why);
    let mut first = None;
    loop {
        // The region's own ledger is the authority on what its bucket owes (law 15).
        let asked = client.call_leader(&nodes, &AdminCall::Status).await;
        let (_, answer) = asked.map_err(|error| failed(error.to_string()))?;
        let AdminAnswer::Status(status) = answer else { return Err(failed("another answer than a status".to_owned())) };
        let figures = status.figures.ok_or_else(|| failed("its cluster has no figures".to_owned()))?;
        let (blocks_first, bytes_first) = *first.get_or_insert((figures.blocks_behind, figures.bytes_behind));
        if args.once || (figures.blocks_behind == 0 && !figures.history_pending) {
            let blocks_last = figures.blocks_behind;
            return Ok(SyncedFigures { seconds: begun.elapsed().as_secs_f64(), blocks_first, bytes_first, blocks_last });
        }
        if begun.elapsed().as_secs_f64() > args.at_most {
            return Err(failed(format!("{} blocks are owed still", figures.blocks_behind)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
