//! A session with the cluster that leads the volume.
//!
//! Owns the exactly-once promise of the client's side (law 10): every operation has a sequence, operations without an
//! answer are sent again under the same one, and when the session ends those in doubt end with it: a new session never
//! sends an old one's. Owns also which inodes are held open, since every connection begins with that list.
//!
//! One task drives the stream (`driver`); callers talk to it through bounded queues and wait for their answer, at most
//! as long as their deadline. `answers` says what each answer means, `window` keeps the sequences, `link` finds the leader and shakes hands.

mod answers;
mod driver;
pub(crate) mod link;
mod window;

pub(crate) use driver::SessionConfig;

use farshore_types::{BlockKey, ErrorKind, Ino, LEASES_VERSION, LogIndex, Op, Query, QueryReply, Reply, VolumeRecord};
use farshore_wire::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Operations, or queries, that wait to be taken by the driver; beyond it callers wait.
const QUEUE_MAX: usize = 1024;
/// Reports that expect no answer and wait to be sent; beyond it they are dropped, since they are hints.
const NOTES_MAX: usize = 4096;

/// Why an operation or a query has no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    #[error("refused: {0}")]
    Refused(ErrorKind),
    #[error("no answer in time; whether it was done is unknown")]
    Unknown,
    #[error("the session ended first; whether it was done is unknown")]
    SessionLost,
    #[error("the client was shut down")]
    Closed,
}

/// What the session tells the caches. Calls come from the driver's task, in stream order.
pub(crate) trait Observer: Send + Sync + 'static {
    fn invalidated(&self, items: Vec<crate::Invalidation>);
    /// Messages may have been lost: a new connection (law 29).
    fn reset(&self);
    /// The session ended; a new one follows. Its handles are stale (law 9).
    fn session_lost(&self);
}

/// What an operation came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub reply: Reply,
    pub index: LogIndex,
    /// The session that holds open what was made, if it was asked to and does.
    pub opened: Option<u64>,
}

type OpAnswer = Result<Done, OpError>;
type QueryAnswer = Result<(QueryReply, LogIndex), OpError>;

pub(crate) struct OpRequest {
    pub op: Op,
    pub waiter: OpWaiter,
}

/// Who waits for an operation's answer.
#[derive(Debug)]
pub(crate) struct OpWaiter {
    pub answer: oneshot::Sender<OpAnswer>,
    /// What the operation makes is to be held open.
    pub open: bool,
    /// It means something in this session only.
    pub of_session: Option<u64>,
}

pub(crate) struct QueryRequest {
    pub query: Query,
    pub answer: oneshot::Sender<QueryAnswer>,
}

/// What the driver and the handle share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Counts sessions, from 1; a handle belongs to one of them.
    generation: AtomicU64,
    /// How often each inode is held open, in this generation.
    opens: Mutex<BTreeMap<Ino, u32>>,
    /// Inodes that were closed, and of which the cluster does not know it yet.
    closing: Mutex<BTreeSet<Ino>>,
    /// Says that the first of them was put in.
    closed: Notify,
    /// When the cluster said something last, in milliseconds since `began`.
    heard_ms: AtomicU64,
    began: Instant,
    /// How often the stream was established.
    connections: AtomicU64,
    /// The highest index seen in any answer (law 9).
    highest_index: AtomicU64,
    /// The volume's version of the state machine, as far as it is known.
    machine: AtomicU32,
}

impl Shared {
    fn opens(&self) -> MutexGuard<'_, BTreeMap<Ino, u32>> {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closing(&self) -> MutexGuard<'_, BTreeSet<Ino>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_soon(&self, ino: Ino) {
        self.closing().insert(ino);
        self.closed.notify_one();
    }

    fn end_open(&self, ino: Ino, generation: u64) {
        if self.count_close(ino, generation) {
            self.close_soon(ino);
        }
    }

    fn heard(&self) {
        self.heard_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Release);
    }

    fn learn_machine(&self, machine: u32) {
        self.machine.fetch_max(machine, Ordering::AcqRel);
    }

    fn count_open(&self, ino: Ino) -> u64 {
        let mut opens = self.opens();
        *opens.entry(ino).or_default() += 1;
        self.generation.load(Ordering::Acquire)
    }

    fn count_close(&self, ino: Ino, generation: u64) -> bool {
        let mut opens = self.opens();
        if generation != self.generation.load(Ordering::Acquire) {
            return false;
        }
        let Some(count) = opens.get_mut(&ino) else { return false };
        *count -= 1;
        if *count == 0 {
            opens.remove(&ino);
            return true;
        }
        false
    }
}

/// A handle on the session; all clones of an `Arc` of it share one stream.
#[derive(Debug)]
pub struct Session {
    ops: mpsc::Sender<OpRequest>,
    queries: mpsc::Sender<QueryRequest>,
    notes: mpsc::Sender<BlockKey>,
    closed: watch::Sender<bool>,
    shared: Arc<Shared>,
    call_timeout: Duration,
}

impl Session {
    /// Starts the driver. The first connection is made in the background; callers wait for it.
    pub(crate) fn start(config: SessionConfig, observer: Arc<dyn Observer>, call_timeout: Duration) -> Session {
        let (ops, ops_rx) = mpsc::channel(QUEUE_MAX);
        let (queries, queries_rx) = mpsc::channel(QUEUE_MAX);
        let (notes, notes_rx) = mpsc::channel(NOTES_MAX);
        let (closed, closed_rx) = watch::channel(false);
        let shared = Arc::new(Shared {
            generation: AtomicU64::new(1),
            opens: Mutex::default(),
            closing: Mutex::default(),
            closed: Notify::new(),
            heard_ms: AtomicU64::new(0),
            began: Instant::now(),
            connections: AtomicU64::new(0),
            highest_index: AtomicU64::new(0),
            machine: AtomicU32::new(0),
        });
        let driver = driver::Driver::new(config, observer, shared.clone(), ops_rx, queries_rx, notes_rx, closed_rx);
        tokio::spawn(driver.run());
        Session { ops, queries, notes, closed, shared, call_timeout }
    }

    /// Sends an operation, exactly once, and waits for its answer.
    pub async fn call(&self, op: Op) -> Result<(Reply, LogIndex), OpError> {
        let done = self.call_to(op, false).await?;
        Ok((done.reply, done.index))
    }

    /// As [`Session::call`]. With `open`, for an operation that makes an inode, the session holds that open from the answer on,
    /// as if [`Session::count_open`] and [`Query::Open`] had followed, unless the answer says that it does not.
    pub(crate) async fn call_to(&self, op: Op, open: bool) -> OpAnswer {
        let (answer, waiting) = oneshot::channel();
        self.ask(&self.ops, OpRequest { op, waiter: OpWaiter { answer, open, of_session: None } }, waiting).await
    }

    /// As [`Session::call_to`], for an operation of the session `generation` alone, and waits only until it has its place in the
    /// session's order; the answer comes when it comes, to who has kept the receiver.
    pub(crate) async fn begin(&self, op: Op, open: bool, generation: u64) -> Result<oneshot::Receiver<OpAnswer>, OpError> {
        let (answer, waiting) = oneshot::channel();
        let send = self.ops.send(OpRequest { op, waiter: OpWaiter { answer, open, of_session: Some(generation) } });
        within(self.call_timeout, async { send.await.map_err(|_| OpError::Closed) }).await?;
        Ok(waiting)
    }

    /// Asks a question, as often as it takes, and waits for the answer.
    pub async fn query(&self, query: Query) -> Result<QueryReply, OpError> {
        self.query_at(query).await.map(|(reply, _)| reply)
    }

    /// As [`Session::query`], with the index of the state that answered.
    pub async fn query_at(&self, query: Query) -> QueryAnswer {
        let (answer, waiting) = oneshot::channel();
        self.ask(&self.queries, QueryRequest { query, answer }, waiting).await
    }

    async fn ask<R, T>(
        &self,
        queue: &mpsc::Sender<R>,
        request: R,
        waiting: oneshot::Receiver<Result<T, OpError>>,
    ) -> Result<T, OpError> {
        let ask = async {
            queue.send(request).await.map_err(|_| OpError::Closed)?;
            waiting.await.map_err(|_| OpError::Closed)?
        };
        within(self.call_timeout, ask).await
    }

    /// Reports that a reader had to fetch a block from another region. A hint: dropped when too many wait.
    pub(crate) fn report_fallback(&self, block: BlockKey) {
        let _ = self.notes.try_send(block);
    }

    /// The volume is at this version of the state machine, or has been.
    pub(crate) fn learn_machine(&self, machine: u32) {
        self.shared.learn_machine(machine);
    }

    /// Whether the volume has come to the version of the state machine that has leases on directories.
    pub(crate) fn knows_leases(&self) -> bool {
        self.shared.machine.load(Ordering::Acquire) >= LEASES_VERSION
    }

    /// Which session this is, counted from 1.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// How often the stream was established.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// The highest index that any answer carried.
    pub fn highest_index(&self) -> LogIndex {
        LogIndex(self.shared.highest_index.load(Ordering::Acquire))
    }

    /// Counts an open of `ino` in the list that every connection begins with; returns the session it belongs to.
    pub(crate) fn count_open(&self, ino: Ino) -> u64 {
        self.shared.count_open(ino)
    }

    /// Takes an open back; whether it was the last one of the present session.
    pub(crate) fn count_close(&self, ino: Ino, generation: u64) -> bool {
        self.shared.count_close(ino, generation)
    }

    /// Takes an open back, and tells the cluster of the last one's end soon.
    pub(crate) fn closed(&self, ino: Ino, generation: u64) {
        self.shared.end_open(ino, generation);
    }

    /// Tells the cluster soon, together with others, that the inode is not open any more, unless it is again by then.
    pub(crate) fn close_soon(&self, ino: Ino) {
        self.shared.close_soon(ino);
    }

    /// How long ago the cluster said something, at most. What it had to say of others' changes before has been heard.
    pub(crate) fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.shared.heard_ms.load(Ordering::Acquire));
        self.shared.began.elapsed().saturating_sub(heard)
    }

    /// Asks the driver to end the session, and does not wait.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Ends the session at its own wish. Waits until the driver has stopped, at most the call timeout.
    pub async fn shutdown(&self) {
        self.close();
        let _ = tokio::time::timeout(self.call_timeout, self.closed.closed()).await;
    }
}

/// A timeout is unknown, never failed.
async fn within<T>(limit: Duration, ask: impl Future<Output = Result<T, OpError>>) -> Result<T, OpError> {
    tokio::time::timeout(limit, ask).await.unwrap_or(Err(OpError::Unknown))
}

/// The volume as the cluster describes it; asked with a reader's session of its own, before a writer's can say who it is.
pub(crate) async fn fetch_record(
    volume: &str,
    nodes: &[String],
    limit: Duration,
) -> Result<(VolumeRecord, v1::Welcome), crate::ConnectError> {
    link::fetch_record(volume, nodes, limit).await
}
