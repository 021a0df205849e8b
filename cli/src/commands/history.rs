//! `farshore history VOLUME --out FILE`: several clients do random things to the same names at once, and all that they asked and
//! were answered is written down, one operation a line (`chaos/history`). Whether it is linearizable is for the reader to say.
//!
//! Clients speak by their sessions, without FUSE and its caches. Each lives through one session after the other, with several
//! callers; a third only ask. An operation whose answer did not come in time stays without one, and its caller goes on: it may
//! be done at any later time (law 10). The names stay in the root directory: this is for volumes made for it.

use crate::connect::{self, Wish};
use crate::error::{CliError, Done, EXIT_DONE, io_error};
use crate::topology_file::{World, WorldArgs};
use farshore_client::{ClientConfig, OpError, Session, Volume};
use farshore_history::{Answer, Arena, Call, Record, Request, answer_of_op, answer_of_query, lines};
use farshore_types::LogIndex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Callers of one client's session.
const CALLERS: u64 = 2;
/// Operations of one caller in one session: so many, and at most as many again.
const SESSION_OPS: u64 = 100;
/// Pause after a session that could not be opened.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Args {
    pub volume: String,
    /// Clients at once, each with a session of its own
    #[arg(long, default_value_t = 6)]
    pub clients: u64,
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// What clients do follows from it; what comes of it does not
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Milliseconds without an answer after which an operation's outcome is unknown
    #[arg(long, default_value_t = 1500)]
    pub patience: u64,
    #[arg(long)]
    pub out: PathBuf,
    #[command(flatten)]
    pub world: WorldArgs,
}

/// What all clients share.
struct Stage {
    began: Instant,
    until: Instant,
    arena: Mutex<Arena>,
    record: Mutex<Record>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

pub async fn run(args: Args) -> Done {
    let world = args.world.running()?;
    let began = Instant::now();
    // No earlier run has used these numbers: none began as late, and none draws a group a millisecond.
    let first_group = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let stage = Arc::new(Stage {
        began,
        until: began + Duration::from_secs(args.seconds),
        arena: Mutex::new(Arena::new(first_group, false)),
        record: Mutex::default(),
    });
    let mut clients = vec![];
    for number in 0..args.clients {
        let config = config(&world, &args, number)?;
        clients.push(tokio::spawn(client(stage.clone(), config, number, args.seed)));
    }
    for client in clients {
        client.await.map_err(|error| CliError::failed(format!("a client has died: {error}"), "see the message above"))?;
    }
    let record = lock(&stage.record);
    let failed = |error: std::io::Error| io_error("write", &args.out, &error);
    let mut file = std::io::BufWriter::new(std::fs::File::create(&args.out).map_err(failed)?);
    lines::write(record.operations(), &mut file).map_err(failed)?;
    Ok(EXIT_DONE)
}

fn config(world: &World, args: &Args, number: u64) -> Result<ClientConfig, CliError> {
    let volume = world.volume(Some(&args.volume))?;
    let wish = Wish { read_only: asks_only(number), ..Wish::default() };
    let mut config = connect::config(world, volume, &wish)?;
    config.options = format!("history {number}");
    config.background_jobs = false;
    config.call_timeout = Duration::from_millis(args.patience);
    // Not all first to the same node: who asks one that stands still finds no other for long.
    for cluster in config.clusters.iter_mut().filter(|cluster| !cluster.nodes.is_empty()) {
        let by = number as usize % cluster.nodes.len();
        cluster.nodes.rotate_left(by);
    }
    Ok(config)
}

fn asks_only(number: u64) -> bool {
    number % 3 == 2
}

/// One client: sessions one after the other.
async fn client(stage: Arc<Stage>, config: ClientConfig, number: u64, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number);
    while Instant::now() < stage.until {
        let volume = match Volume::connect(config.clone()).await {
            Ok(volume) => volume,
            Err(error) => {
                tracing::debug!(number, "no session: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let callers = (0..CALLERS).map(|at| {
            let random = StdRng::from_rng(&mut random);
            caller(&stage, &volume, (number * CALLERS + at) as u32, asks_only(number), random)
        });
        futures::future::join_all(callers).await;
    }
}

async fn caller(stage: &Stage, volume: &Volume, number: u32, asks_only: bool, mut random: StdRng) {
    let count = SESSION_OPS + random.random_range(0..SESSION_OPS);
    for _ in 0..count {
        if Instant::now() >= stage.until {
            return;
        }
        let (group, call) = lock(&stage.arena).next(asks_only, &mut |bound| random.random_range(0..bound));
        let id = lock(&stage.record).begin(stage.now(), number, group, call.clone());
        if let Some((answer, index)) = answer(volume.session(), group, &call).await {
            lock(&stage.record).end(stage.now(), id, answer.clone(), index.map(|index| index.0));
            lock(&stage.arena).learn(group, &answer);
        }
    }
}

/// The answer; `None`: whether it was done is unknown.
async fn answer(session: &Session, group: u64, call: &Call) -> Option<(Answer, Option<LogIndex>)> {
    match call.request(group) {
        Request::Op(op) => known(session.call(op).await, |reply| answer_of_op(&Ok(reply))),
        Request::Query(query) => known(session.query_at(query).await, |reply| answer_of_query(group, &Ok(reply))),
        // The arena was told that nobody commits.
        Request::Commit(..) => None,
    }
}

fn known<T>(result: Result<(T, LogIndex), OpError>, read: impl FnOnce(T) -> Answer) -> Option<(Answer, Option<LogIndex>)> {
    match result {
        Ok((reply, index)) => Some((read(reply), Some(index))),
        Err(OpError::Refused(kind)) => Some((Answer::Refused(kind), None)),
        Err(OpError::Unknown | OpError::SessionLost | OpError::Closed) => None,
    }
}

impl Stage {
    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}
