//! What a mirror costs and how fast it is: its processors when nothing happens, the changelog's bytes of a create, and how long it
//! takes to catch up with what was written while it was away, while the primary goes on.

use crate::cpu::Watch;
use crate::error::BenchError;
use crate::idle;
use crate::order;
use crate::world::{World, WorldArgs, directories, make};
use farshore_client::Volume;
use farshore_types::{Ino, NewNode};
use farshore_wire::admin_client::AdminClient;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Creates of a tempo start in groups this far apart.
const TICK: Duration = Duration::from_millis(5);
/// How long the mirror may take for anything.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Creates of which the bytes are counted: by one caller, and by many.
const COUNTED: [(usize, u64); 2] = [(1, 2_000), (MANY, 50_000)];
const MANY: usize = 256;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    world: WorldArgs,
    /// Creates while the mirror is away
    #[arg(long, default_value_t = 200_000)]
    backlog: u64,
    /// Callers at once who make the backlog: the fewer, the fewer creates are in an entry
    #[arg(long, default_value_t = MANY)]
    callers: usize,
    /// Creates a second while it catches up
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// How long nothing happens
    #[arg(long, default_value_t = 20.0)]
    idle_seconds: f64,
    /// The program that starts the mirror's nodes again
    #[arg(long)]
    farshore: PathBuf,
}

#[derive(Debug, Serialize)]
pub struct MirrorFigures {
    /// Share of one core when nothing happens, by kind of process; the followers of a cluster together.
    idle_share_of_a_core: BTreeMap<String, f64>,
    /// Encoded frames of the changelog by the creates in them, each with a name of 16 bytes.
    changelog_bytes_of_a_create_by_one_caller: f64,
    changelog_bytes_of_a_create_by_many_callers: f64,
    many_callers: usize,
    backlog_callers: usize,
    backlog_creates: u64,
    backlog_entries: u64,
    /// By the primary alone, with as many callers.
    primary_creates_per_second: f64,
    /// Those of the backlog and those that came meanwhile.
    mirror_creates_per_second: f64,
    mirror_times_primary: f64,
    meanwhile_creates_per_second: f64,
    /// From the first entry that the mirror applied until it had all.
    caught_up_seconds: f64,
}

/// What is asked of both clusters.
struct Sight {
    client: AdminClient,
    primary: Vec<String>,
    mirror: Vec<String>,
}

impl Sight {
    fn of(world: &World) -> Result<Sight, BenchError> {
        let client = AdminClient::new(world.volume_name(), DEADLINE);
        Ok(Sight { client, primary: world.primary_nodes(), mirror: world.mirror()?.1 })
    }

    /// What a cluster's leader has applied; `None` while nobody leads it.
    async fn applied(&self, nodes: &[String]) -> Option<u64> {
        self.client.health_of_all(nodes).await.into_iter().flatten().find(|health| health.is_leader).map(|health| health.applied)
    }

    async fn primary(&self) -> Result<u64, BenchError> {
        let applied = self.applied(&self.primary).await;
        applied.ok_or_else(|| BenchError::new("ask the primary", "nobody leads it"))
    }

    /// Waits until the mirror has everything that the primary had at some moment after this was called; returns when the
    /// mirror was first seen beyond `from`, and the moment that it had all.
    async fn caught_up(&self, from: u64) -> Result<(Instant, Instant), BenchError> {
        let (began, mut first) = (Instant::now(), None);
        while began.elapsed() < PATIENCE {
            if let Some(applied) = self.applied(&self.mirror).await {
                let now = Instant::now();
                if applied > from {
                    first.get_or_insert(now);
                }
                if applied >= self.primary().await? {
                    return Ok((first.unwrap_or(now), now));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(BenchError::new("wait for the mirror", format!("it had not caught up after {PATIENCE:?}")))
    }
}

pub async fn run(args: Args) -> Result<MirrorFigures, BenchError> {
    let world = args.world.open()?;
    let sight = Sight::of(&world)?;
    sight.caught_up(0).await?;
    let idle_share_of_a_core = idle::shares(&Watch::of_world(&world).await, args.idle_seconds).await;
    let volume = world.connect().await?;
    let mut bytes = vec![];
    for (callers, count) in COUNTED {
        let parents = directories(&volume, callers).await?;
        sight.caught_up(0).await?;
        let before = changelog_bytes(&world).await?;
        create(&volume, &parents, count).await?;
        sight.caught_up(0).await?;
        bytes.push((changelog_bytes(&world).await? - before) / count as f64);
    }
    let parents = directories(&volume, args.callers).await?;
    sight.caught_up(0).await?;
    let known = sight.primary().await?;
    kill_mirror(&sight).await?;
    let began = Instant::now();
    create(&volume, &parents, args.backlog).await?;
    let primary_creates_per_second = args.backlog as f64 / began.elapsed().as_secs_f64();
    let backlog_entries = sight.primary().await? - known;
    let (stop, meanwhile) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn(create_at(volume.clone(), parents, args.rate, stop.clone(), meanwhile.clone()));
    let started = tokio::task::spawn_blocking(move || order::up(&args.farshore, &world));
    let (first, all) = sight.caught_up(known).await?;
    let took = (all - first).as_secs_f64();
    let came = meanwhile.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    let joined = |error: tokio::task::JoinError| BenchError::new("run a task", error);
    let meanwhile_creates_per_second = load.await.map_err(joined)??;
    started.await.map_err(joined)??;
    volume.session().shutdown().await;
    let mirror_creates_per_second = (args.backlog + came) as f64 / took;
    Ok(MirrorFigures {
        idle_share_of_a_core,
        changelog_bytes_of_a_create_by_one_caller: bytes[0],
        changelog_bytes_of_a_create_by_many_callers: bytes[1],
        many_callers: MANY,
        backlog_callers: args.callers,
        backlog_creates: args.backlog,
        backlog_entries,
        primary_creates_per_second,
        mirror_creates_per_second,
        mirror_times_primary: mirror_creates_per_second / primary_creates_per_second,
        meanwhile_creates_per_second,
        caught_up_seconds: took,
    })
}

/// Each parent has one caller; they share `count` creates.
async fn create(volume: &Arc<Volume>, parents: &[Ino], count: u64) -> Result<(), BenchError> {
    let next = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for parent in parents.iter().copied() {
        let (volume, next) = (volume.clone(), next.clone());
        callers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<(), BenchError>(());
                }
                make(&volume, parent, name_of(number), NewNode::File).await?;
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.map_err(|error| BenchError::new("create", error))??;
    }
    Ok(())
}

/// 16 bytes.
fn name_of(number: u64) -> String {
    format!("file-{number:011}")
}

/// Creates in the tempo of `rate` until `stop`; returns how many a second those were.
async fn create_at(
    volume: Arc<Volume>,
    parents: Vec<Ino>,
    rate: u64,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
) -> Result<f64, BenchError> {
    let began = Instant::now();
    let mut callers = JoinSet::new();
    let mut due = 0;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(TICK).await;
        let wanted = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        for number in due..wanted {
            let (volume, parent, made) = (volume.clone(), parents[number as usize % parents.len()], made.clone());
            callers.spawn(async move {
                make(&volume, parent, format!("meanwhile-{number}"), NewNode::File).await?;
                made.fetch_add(1, Ordering::Relaxed);
                Ok::<(), BenchError>(())
            });
        }
        due = wanted;
        while let Some(caller) = callers.try_join_next() {
            caller.map_err(|error| BenchError::new("create", error))??;
        }
    }
    while let Some(caller) = callers.join_next().await {
        caller.map_err(|error| BenchError::new("create", error))??;
    }
    Ok(made.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

async fn kill_mirror(sight: &Sight) -> Result<(), BenchError> {
    for health in sight.client.health_of_all(&sight.mirror).await {
        let health = health.map_err(|error| BenchError::new("find the mirror's processes", error))?;
        order::kill(health.pid)?;
    }
    Ok(())
}

/// Sent by all nodes of the primary since their start.
async fn changelog_bytes(world: &World) -> Result<f64, BenchError> {
    let mut sum = 0.0;
    for address in world.primary_metrics() {
        let failed = |error: std::io::Error| BenchError::new(format!("read the metrics of {address}"), error);
        let mut stream = TcpStream::connect(&address).await.map_err(failed)?;
        let ask = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.map_err(failed)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(failed)?;
        sum += sum_of(&text, "farshore_changelog_sent_bytes_total");
    }
    Ok(sum)
}

/// The sum of a metric's series.
fn sum_of(text: &str, metric: &str) -> f64 {
    let of = |line: &str| line.strip_prefix(metric)?.rsplit_once(' ')?.1.trim().parse::<f64>().ok();
    text.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_metric_are_summed_and_others_are_not() {
        let text = "# TYPE a counter\na{to=\"x\"} 3\na{to=\"y\"} 4.5\r\nb 7\n";
        assert_eq!(sum_of(text, "a"), 7.5);
        assert_eq!(sum_of(text, "c"), 0.0);
    }

    #[test]
    fn names_have_16_bytes() {
        assert_eq!((name_of(0).len(), name_of(99_999_999_999).len()), (16, 16));
    }
}
