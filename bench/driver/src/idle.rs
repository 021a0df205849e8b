//! What processes use when nothing is asked of them.

use crate::cpu::{Cpu, Watch};
use crate::error::BenchError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Processes of one kind, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pids: Vec<u32>,
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

#[derive(Debug, Serialize)]
pub struct IdleFigures {
    processes: usize,
    seconds: f64,
    /// Of all processes together.
    share_of_a_core: f64,
}

pub async fn run(args: Args) -> Result<IdleFigures, BenchError> {
    let watch = Watch::of(args.pids.iter().map(|pid| (pid.to_string(), *pid)).collect());
    let shares = shares(&watch, args.seconds).await;
    let share_of = |pid: &u32| {
        shares.get(&pid.to_string()).copied().ok_or_else(|| BenchError::new("watch", format!("process {pid} is gone")))
    };
    let share_of_a_core = args.pids.iter().map(share_of).sum::<Result<f64, _>>()?;
    Ok(IdleFigures { processes: args.pids.len(), seconds: args.seconds, share_of_a_core })
}

/// Waits, and says which share of one core each kind of process used meanwhile.
pub async fn shares(watch: &Watch, seconds: f64) -> BTreeMap<String, f64> {
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let micros = began.elapsed().as_secs_f64() * 1e6;
    let share = |(kind, Cpu { user_us, system_us })| (kind, (user_us + system_us) / micros);
    watch.per_op(1).into_iter().map(share).collect()
}
