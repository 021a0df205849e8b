//! Creates per second: callers in a closed loop on one session, each in its own directory.

use crate::error::BenchError;
use crate::times::{LoadFigures, Times};
use crate::world::{WorldArgs, directories, make};
use farshore_types::NewNode;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    world: WorldArgs,
    /// Callers at once, each with one create at a time
    #[arg(long, default_value_t = 64)]
    callers: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

pub async fn run(args: Args) -> Result<LoadFigures, BenchError> {
    let volume = args.world.open()?.connect().await?;
    let parents = directories(&volume, args.callers).await?;
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(args.seconds);
    let callers = parents.into_iter().map(|parent| {
        let volume = volume.clone();
        tokio::spawn(async move {
            let mut times = Times::default();
            while Instant::now() < until {
                let asked = Instant::now();
                make(&volume, parent, format!("file-{}", times.count()), NewNode::File).await?;
                times.add(asked.elapsed());
            }
            Ok::<Times, BenchError>(times)
        })
    });
    let mut all = Times::default();
    for caller in futures::future::join_all(callers).await {
        all.extend(caller.map_err(|error| BenchError::new("create", error))??);
    }
    let ran = begun.elapsed();
    volume.session().shutdown().await;
    Ok(all.load(args.callers, ran))
}
