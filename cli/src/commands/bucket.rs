//! `farshore bucket REGION`: the server of a region's embedded bucket.

use crate::error::{CliError, Done, EXIT_DONE};
use crate::topology_file::WorldArgs;
use crate::{shutdown, world::secrets};
use farshore_bucket::BucketConfig;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The region whose bucket is served
    pub region: String,
    #[command(flatten)]
    pub world: WorldArgs,
}

pub async fn run(args: Args) -> Done {
    let world = args.world.running()?;
    let region = world.region(&args.region)?;
    let Some(embedded) = &region.bucket.embedded else {
        let what = format!("the bucket of {} is not embedded: {}", region.name, region.bucket.declared);
        return Err(CliError::usage(what, "its own service runs it"));
    };
    let config = BucketConfig {
        directory: world.dir.bucket(&region.name),
        listen: embedded.listen,
        bucket_name: embedded.name.clone(),
        credentials: secrets::of_region(&world.dir, &world.topology, region)?,
    };
    let served = farshore_bucket::serve(config, shutdown::requested()).await;
    served.map_err(|error| CliError::failed(error.to_string(), ""))?;
    Ok(EXIT_DONE)
}
