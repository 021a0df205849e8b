//! `farshore format VOLUME`: what `up` does for a declared volume, on a world whose nodes run.

use crate::error::{CliError, Done, EXIT_DONE};
use crate::output::{print, print_json};
use crate::topology_file::WorldArgs;
use crate::world::begin;
use crate::world::record::WorldRecord;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A volume of the topology
    pub volume: String,
    #[command(flatten)]
    pub world: WorldArgs,
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: Args) -> Done {
    let world = args.world.running()?;
    let volume = world.volume(Some(&args.volume))?.name.clone();
    let record = WorldRecord::load(&world.dir)?.ok_or_else(|| {
        let what = format!("no world lives in {}", world.dir.root().display());
        CliError::usage(what, "`farshore up` makes it; name its directory with --dir or $FARSHORE_DIR")
    })?;
    record.change(&world.dir, &world.topology)?;
    begin::begin(&world.dir, &world.topology, &record).await?;
    let made = begin::record_of(&world.topology, &record, &volume)?;
    if args.json {
        print_json(&made);
    } else {
        print(&format!("volume {volume} is there: {}\n", made.uuid));
    }
    Ok(EXIT_DONE)
}
