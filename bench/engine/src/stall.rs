//! How long a running workload stands still while a checkpoint is taken: a node in this process, whose log is synced as
//! always, and callers that each propose one create at a time.

use crate::cluster::VOLUME;
use crate::error::{Doing, EngineError};
use crate::node::{config, identity};
use farshore_meta::kv::Lmdb;
use farshore_primary::grpc::GrpcTransport;
use farshore_primary::host::OsHost;
use farshore_primary::raft::types::Response;
use farshore_primary::{Node, NodeParts, boot};
use farshore_types::{Control, Ino, NewNode, Op, Sequence, SessionId, SessionInfo, SessionRequest, SharedBody};
use openraft::TokioRuntime;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Running = Arc<Node<TokioRuntime, Lmdb>>;

/// Callers that create.
const CALLERS: u8 = 16;
/// Without a checkpoint, before it: what the machine itself does.
const QUIET: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(10);

/// A part of the run.
#[derive(Debug, Default, Serialize)]
pub struct Part {
    pub seconds: f64,
    pub creates: u64,
    /// The longest time in which no caller had an answer.
    pub longest_silence_ms: f64,
    /// The longest wait of one caller.
    pub longest_wait_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct Stall {
    pub callers: u8,
    pub quiet: Part,
    pub checkpoint: Part,
}

/// Opens the node in `directory`, works, and takes a checkpoint.
pub async fn run(directory: &Path) -> Result<Stall, EngineError> {
    let config = config();
    let disk = boot::open(directory, &identity(), false, true).doing("open the node's directory")?;
    let transport = Arc::new(GrpcTransport::new(VOLUME.to_owned(), config.cluster));
    let parts =
        NodeParts { config, store: disk.store, log: disk.log, checkpoints: disk.checkpoints, transport, host: Arc::new(OsHost) };
    let node: Running = Node::start(parts).await.doing("start a node")?;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS).map(|number| tokio::spawn(call(node.clone(), number, stop.clone()))).collect();
    let begun = Instant::now();
    until(|| node.is_leader()).await?;
    tokio::time::sleep(QUIET).await;
    let asked = Instant::now();
    let newest = || node.checkpoints.newest().and_then(|(meta, _)| meta.last_log_id);
    let before = newest();
    node.checkpoint().await.doing("ask for a checkpoint")?;
    // The oldest one is removed behind it, which is part of the cost.
    let removed =
        || std::fs::read_dir(directory.join("checkpoints")).is_ok_and(|files| files.count() == node.checkpoints.all().len());
    until(|| newest() != before && removed()).await?;
    let taken = Instant::now();
    stop.store(true, Ordering::Relaxed);
    let mut answers = vec![];
    for caller in callers {
        answers.extend(caller.await.doing("create")??);
    }
    node.shutdown().await;
    answers.sort_unstable_by_key(|answer: &(Instant, Instant)| answer.1);
    // The first second belongs to the election and to sessions.
    let quiet = part(&answers, begun + Duration::from_secs(1), asked);
    Ok(Stall { callers: CALLERS, quiet, checkpoint: part(&answers, asked, taken) })
}

async fn until(done: impl Fn() -> bool) -> Result<(), EngineError> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > PATIENCE {
            return Err(EngineError::new("wait for the node", "it takes too long"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// When each create was asked and answered.
async fn call(node: Running, number: u8, stop: Arc<AtomicBool>) -> Result<Vec<(Instant, Instant)>, EngineError> {
    // Others than those of an earlier run on the same directory.
    let run = SystemTime::now().duration_since(UNIX_EPOCH).doing("read the clock")?.as_nanos();
    let session = SessionId((run << 8 | u128::from(number)).to_be_bytes());
    let info = SessionInfo { host: format!("caller-{number}"), mount: String::new(), options: String::new(), bucket: None };
    let begun = Instant::now();
    while node.propose_shared(SharedBody::Control(Control::OpenSession { session, info: info.clone() })).await.is_err() {
        if begun.elapsed() > PATIENCE {
            return Err(EngineError::new("open a session", "the node does not lead"));
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut answers = vec![];
    while !stop.load(Ordering::Relaxed) {
        let sequence = answers.len() as u64 + 1;
        let name = format!("caller-{number}-{run}-{sequence:012}").into_bytes();
        let op = Op::Make { parent: Ino::ROOT, name, node: NewNode::File, mode: 0o644, uid: 0, gid: 0 };
        let request = SessionRequest { session, sequence: Sequence(sequence), acknowledged: Sequence(sequence - 1), op };
        let asked = Instant::now();
        match node.propose_shared(SharedBody::Batch(vec![request])).await.doing("create")? {
            Response::Shared { outcomes, .. } if outcomes.iter().all(Result::is_ok) => {}
            other => return Err(EngineError::new("create", format!("{other:?}"))),
        }
        answers.push((asked, Instant::now()));
    }
    Ok(answers)
}

fn part(answers: &[(Instant, Instant)], from: Instant, to: Instant) -> Part {
    let inside: Vec<_> = answers.iter().filter(|(_, answered)| (from..to).contains(answered)).collect();
    let mut last = from;
    let mut part = Part { seconds: (to - from).as_secs_f64(), creates: inside.len() as u64, ..Part::default() };
    for (asked, answered) in inside {
        part.longest_silence_ms = part.longest_silence_ms.max((*answered - last).as_secs_f64() * 1e3);
        part.longest_wait_ms = part.longest_wait_ms.max((*answered - *asked).as_secs_f64() * 1e3);
        last = *answered;
    }
    part
}
