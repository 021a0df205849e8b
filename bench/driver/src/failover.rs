//! How long nobody's call is answered after the leader was killed with SIGKILL, many times over.
//!
//! A few callers create files without a pause. The figure of one kill is the time from just before the signal to the
//! first answer to a create that began after it was sent. In between the killed node is started again, and waited for until all have caught up.

use crate::error::BenchError;
use crate::order;
use crate::times::Times;
use crate::world::{World, WorldArgs, directories, make};
use farshore_client::Volume;
use farshore_types::{Ino, NewNode};
use farshore_wire::admin::{AdminAnswer, AdminCall};
use farshore_wire::admin_client::AdminClient;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const LOOK_EVERY: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a cluster may take to be whole, and a create to be answered.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two creates of one caller: the callers are there to notice a pause, not to fill the processors.
const PACE: Duration = Duration::from_millis(2);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    world: WorldArgs,
    #[arg(long, default_value_t = 100)]
    kills: usize,
    #[arg(long, default_value_t = 4)]
    callers: usize,
    /// The program that starts a killed node again
    #[arg(long)]
    farshore: std::path::PathBuf,
}

#[derive(Debug, Serialize)]
pub struct FailoverFigures {
    kills: usize,
    callers: usize,
    creates: u64,
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p99_ms: Option<f64>,
    max_ms: Option<f64>,
    min_ms: Option<f64>,
    /// Of each kill, in their order.
    all_ms: Vec<f64>,
}

/// What the callers tell.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    creates: AtomicU64,
    /// The kill that is measured, and the first answer to a create that began after it.
    kill: Mutex<Option<(Instant, Option<Instant>)>>,
}

impl Seen {
    fn answered(&self, began: Instant) {
        self.creates.fetch_add(1, Ordering::Relaxed);
        let mut kill = self.kill.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, first @ None)) = &mut *kill
            && began > *at
        {
            *first = Some(Instant::now());
        }
    }

    fn killed(&self, at: Instant) {
        *self.kill.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, None));
    }

    fn first_answer(&self) -> Option<Instant> {
        self.kill.lock().unwrap_or_else(PoisonError::into_inner).and_then(|(_, first)| first)
    }
}

pub async fn run(args: Args) -> Result<FailoverFigures, BenchError> {
    let world = args.world.open()?;
    let volume = world.connect().await?;
    let parents = directories(&volume, args.callers).await?;
    let seen = Arc::new(Seen::default());
    let mut callers = JoinSet::new();
    for parent in parents {
        callers.spawn(create_until_stopped(volume.clone(), parent, seen.clone()));
    }
    let mut each = vec![];
    let done = kill_all(&args, &world, &seen, &mut each).await;
    seen.stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.map_err(|error| BenchError::new("create", error))??;
    }
    done?;
    volume.session().shutdown().await;
    let mut times = Times::default();
    each.iter().for_each(|took| times.add(*took));
    Ok(FailoverFigures {
        kills: times.count(),
        callers: args.callers,
        creates: seen.creates.load(Ordering::Relaxed),
        p50_ms: times.quantile_ms(0.5),
        p90_ms: times.quantile_ms(0.9),
        p99_ms: times.quantile_ms(0.99),
        max_ms: times.quantile_ms(1.0),
        min_ms: times.quantile_ms(0.0),
        all_ms: each.iter().map(|took| (took.as_secs_f64() * 1e3).round()).collect(),
    })
}

async fn kill_all(args: &Args, world: &World, seen: &Seen, times: &mut Vec<Duration>) -> Result<(), BenchError> {
    let client = AdminClient::new(world.volume_name(), DEADLINE);
    let nodes = world.primary_nodes();
    for number in 0..args.kills {
        let pid = leader_of_whole(&client, &nodes).await?;
        // Not always at the same phase of heartbeats and checkpoints.
        tokio::time::sleep(Duration::from_millis(100 + number as u64 * 37 % 400)).await;
        let at = Instant::now();
        order::kill(pid)?;
        seen.killed(Instant::now());
        let took = loop {
            if let Some(first) = seen.first_answer() {
                break first - at;
            }
            if at.elapsed() > PATIENCE {
                return Err(BenchError::new("fail over", format!("kill {number} was followed by no answer in {PATIENCE:?}")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        times.push(took);
        order::up(&args.farshore, world)?;
    }
    Ok(())
}

/// The leader's pid, once every voter answers it and has caught up.
async fn leader_of_whole(client: &AdminClient, nodes: &[String]) -> Result<u32, BenchError> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Ok((address, AdminAnswer::Members(view))) = client.call_leader(nodes, &AdminCall::Members).await
            && view.lacking().is_none()
            && let Ok(AdminAnswer::Health(health)) = client.call(&address, &AdminCall::Health).await
        {
            return Ok(health.pid);
        }
        if Instant::now() > end {
            return Err(BenchError::new("wait for the cluster", format!("it was not whole within {PATIENCE:?}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn create_until_stopped(volume: Arc<Volume>, parent: Ino, seen: Arc<Seen>) -> Result<(), BenchError> {
    let mut number = 0_u64;
    while !seen.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        make(&volume, parent, format!("file-{number}"), NewNode::File).await?;
        seen.answered(began);
        number += 1;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_create_that_began_after_the_kill_ends_the_pause() {
        let seen = Seen::default();
        let before = Instant::now();
        seen.answered(before);
        assert_eq!(seen.first_answer(), None, "nothing was killed");
        std::thread::sleep(Duration::from_millis(2));
        seen.killed(Instant::now());
        seen.answered(before);
        assert_eq!(seen.first_answer(), None, "it was answered by the one that was killed");
        std::thread::sleep(Duration::from_millis(2));
        seen.answered(Instant::now());
        let first = seen.first_answer();
        assert!(first.is_some());
        seen.answered(Instant::now());
        assert_eq!(seen.first_answer(), first, "the first one counts");
    }
}
