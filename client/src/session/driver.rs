//! The task behind a session: connects, sends, answers, and starts again when the stream ends.
//!
//! States: searching for the leader (callers wait in their queues), and connected. A connection begins with everything
//! that has no answer yet, under the same sequences (law 10). Outgoing frames wait in a bounded outbox of the driver, so
//! that a peer which does not read can never stop this side from reading: that would be a deadlock of both.

use super::link::{self, Finder, Link, LinkError, frame};
use super::window::Window;
use super::{Observer, OpError, OpRequest, OpWaiter, QueryAnswer, QueryRequest, Shared};
use crate::backoff;
use farshore_types::{BlockKey, EpochId, Ino, LEASES_VERSION, Query, SessionId, SessionInfo};
use farshore_wire::encode;
use farshore_wire::v1::{self, client_frame::Frame as Send};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::StreamExt;

/// Requests taken from a queue into one frame.
const BATCH_MAX: usize = 256;
/// Bytes of requests in one frame, after which it is closed: far below the wire's bound.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Frames that wait in the driver. Full: nothing more is taken from the queues.
const OUTBOX_MAX: usize = 16;
/// Queries without an answer.
const QUERIES_MAX: usize = 4096;
/// The wait before something that the cluster could not do now is sent again: first, and at most.
const RESEND_FIRST: Duration = Duration::from_millis(5);
const RESEND_MAX: Duration = Duration::from_millis(500);
/// Connections that lived shorter than this, more than so many in a row, are followed by a wait.
const SHORT_LIVED: Duration = Duration::from_secs(1);
const SHORT_LIVED_MAX: u32 = 2;
/// How long closes wait for others.
const CLOSES_WAIT: Duration = Duration::from_millis(100);
/// The lease assumed when a welcome names none.
const LEASE_MIN: Duration = Duration::from_secs(1);
/// How long a closing session tries to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a session is, for the cluster.
#[derive(Clone, Debug)]
pub(crate) struct SessionConfig {
    pub volume: String,
    pub group: u64,
    pub kind: v1::hello::Kind,
    pub info: SessionInfo,
    pub nodes: Vec<String>,
    /// Whether a mirror's leader will do; only for readers that chose a mirror.
    pub mirror: bool,
}

pub(super) struct QueryWaiter {
    query: Query,
    pub(super) answer: oneshot::Sender<QueryAnswer>,
}

/// Why a connection ended.
pub(super) enum End {
    Closed,
    /// Connect again and send again.
    Broken(String),
    /// The node said where to go, or that it does not serve.
    Moved(Option<String>),
    /// Connect again with a new session.
    SessionLost(String),
}

pub(crate) struct Driver {
    config: SessionConfig,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) shared: Arc<Shared>,
    ops: mpsc::Receiver<OpRequest>,
    queries: mpsc::Receiver<QueryRequest>,
    notes: mpsc::Receiver<BlockKey>,
    closed: watch::Receiver<bool>,
    pub(super) finder: Finder,
    session: SessionId,
    /// Whether the cluster has welcomed this session before.
    opened: bool,
    epoch: EpochId,
    pub(super) window: Window<OpWaiter>,
    /// Closes that were sent, each with the last sequence that was taken before; those of answered sequences are forgotten.
    closes: VecDeque<(u64, Ino)>,
    pub(super) asked: BTreeMap<u64, QueryWaiter>,
    next_query: u64,
    outbox: VecDeque<v1::ClientFrame>,
    /// When to tell the cluster what was closed.
    close_at: Option<Instant>,
    /// When to send everything unanswered again.
    resend_at: Option<Instant>,
    pub(super) resends: u32,
}

impl Driver {
    pub fn new(
        config: SessionConfig,
        observer: Arc<dyn Observer>,
        shared: Arc<Shared>,
        ops: mpsc::Receiver<OpRequest>,
        queries: mpsc::Receiver<QueryRequest>,
        notes: mpsc::Receiver<BlockKey>,
        closed: watch::Receiver<bool>,
    ) -> Driver {
        let finder = Finder::new(config.nodes.clone());
        Driver {
            config,
            observer,
            shared,
            ops,
            queries,
            notes,
            closed,
            finder,
            session: link::new_session_id(),
            opened: false,
            epoch: EpochId::default(),
            window: Window::new(),
            closes: VecDeque::new(),
            asked: BTreeMap::new(),
            next_query: 1,
            outbox: VecDeque::new(),
            close_at: None,
            resend_at: None,
            resends: 0,
        }
    }

    /// Runs until the session is closed.
    pub async fn run(mut self) {
        let mut closed = self.closed.clone();
        let mut short_lived = 0;
        loop {
            let link = tokio::select! {
                _ = closed.wait_for(|closed| *closed) => return,
                link = self.connect() => link,
            };
            let connected = Instant::now();
            let mut wait = Duration::ZERO;
            match self.serve(link).await {
                End::Closed => return,
                // The node may be well: it is asked again first, after which the others are.
                End::Broken(reason) => {
                    tracing::debug!(volume = self.config.volume, reason, "session stream ended, connecting again")
                }
                End::Moved(leader) => wait = self.finder.failed(leader.as_deref()),
                End::SessionLost(reason) => self.lose_session(&reason),
            }
            // A node that welcomes and drops at once is not asked in a tight loop.
            short_lived = if connected.elapsed() < SHORT_LIVED { short_lived + 1 } else { 0 };
            if short_lived > SHORT_LIVED_MAX {
                wait = wait.max(backoff::delay(RESEND_FIRST, RESEND_MAX, short_lived - SHORT_LIVED_MAX));
            }
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => return,
                _ = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn connect(&mut self) -> Link {
        loop {
            let node = self.finder.node();
            match link::open(&node, self.hello()).await {
                Ok(link) if link.welcome.mirror && !self.config.mirror => {
                    tracing::debug!(volume = self.config.volume, node, "leads a mirror, the primary is wanted");
                    tokio::time::sleep(self.finder.failed(None)).await;
                }
                Ok(link) => {
                    self.finder.served();
                    self.finder.learn(&link.welcome.nodes);
                    return link;
                }
                Err(error) => {
                    let wait = self.refused(&node, &error);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn refused(&mut self, node: &str, error: &LinkError) -> Duration {
        tracing::debug!(volume = self.config.volume, "no session: {}", error.text(node));
        if let LinkError::Refused(refused) = error
            && matches!(refused.kind(), v1::refused::Kind::SessionLost | v1::refused::Kind::Stale)
            && self.opened
        {
            self.lose_session(&refused.text);
            return Duration::ZERO;
        }
        if !self.opened {
            // Whether this hello opened a session is unknown; an id is never said twice as new.
            self.session = link::new_session_id();
        }
        self.finder.failed(Finder::hint_of(error))
    }

    fn hello(&self) -> v1::Hello {
        let mut hello =
            link::hello(&self.config.volume, self.config.group, self.session, self.config.kind, encode(&self.config.info));
        hello.epoch_number = self.epoch.number;
        hello.epoch_cluster = u32::from(self.epoch.cluster.0);
        hello.highest_index = self.shared.highest_index.load(Ordering::Acquire);
        // Only a writer's session is shared state that must still exist; a reader's lives in one leader's memory.
        hello.resumes = self.opened && self.config.kind == v1::hello::Kind::Writer;
        hello.machine = LEASES_VERSION;
        hello.open = self.shared.opens().keys().map(|ino| ino.0).collect();
        hello
    }

    /// Law 10: what is in doubt ends with its session. Law 9: its handles are stale, all caches are dropped.
    fn lose_session(&mut self, reason: &str) {
        tracing::warn!(volume = self.config.volume, reason, "the session ended; a new one is opened");
        for waiter in self.window.abandon() {
            let _ = waiter.answer.send(Err(OpError::SessionLost));
        }
        self.closes.clear();
        self.shared.closing().clear();
        self.session = link::new_session_id();
        self.opened = false;
        self.epoch = EpochId::default();
        self.shared.highest_index.store(0, Ordering::Release);
        {
            let mut opens = self.shared.opens();
            opens.clear();
            self.shared.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.observer.session_lost();
    }

    async fn serve(&mut self, mut link: Link) -> End {
        self.welcome(&link.welcome);
        let lease = Duration::from_millis(u64::from(link.welcome.lease_ms)).max(LEASE_MIN);
        let mut renew = tokio::time::interval(lease / 3);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut ops, mut queries, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut closed = self.closed.clone();
        let shared = self.shared.clone();
        loop {
            let room = self.outbox.len() < OUTBOX_MAX;
            let op_room = if room { self.window.room().min(BATCH_MAX) } else { 0 };
            let query_room = if room { QUERIES_MAX.saturating_sub(self.asked.len()).min(BATCH_MAX) } else { 0 };
            let resend_at = self.resend_at.unwrap_or_else(Instant::now);
            let close_at = self.close_at.unwrap_or_else(Instant::now);
            tokio::select! {
                received = link.inbound.next() => match received {
                    Some(Ok(message)) => {
                        self.shared.heard();
                        if let Some(end) = self.received(message) { return end }
                    }
                    Some(Err(status)) => return End::Broken(status.to_string()),
                    None => return End::Broken("the node closed the stream".to_owned()),
                },
                permit = link.out.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => permit.send(self.outbox.pop_front().expect("guarded by the branch's condition")),
                    Err(_) => return End::Broken("the stream takes no more frames".to_owned()),
                },
                taken = self.ops.recv_many(&mut ops, op_room), if op_room > 0 => {
                    if taken == 0 { return End::Closed }
                    self.send_new(ops.drain(..));
                }
                taken = self.queries.recv_many(&mut queries, query_room), if query_room > 0 => {
                    if taken == 0 { return End::Closed }
                    self.ask_new(queries.drain(..));
                }
                taken = self.notes.recv_many(&mut notes, BATCH_MAX), if room => {
                    if taken == 0 { return End::Closed }
                    let blocks = notes.drain(..).map(|b: BlockKey| v1::Block { slice: b.slice.0, index: b.index, size: b.size });
                    self.outbox.push_back(frame(Send::Front(v1::Front { blocks: blocks.collect() })));
                }
                _ = renew.tick(), if room => self.outbox.push_back(frame(Send::Renew(v1::Renew {}))),
                _ = tokio::time::sleep_until(resend_at), if self.resend_at.is_some() => self.resend_all(),
                () = shared.closed.notified(), if self.close_at.is_none() => self.close_at = Some(Instant::now() + CLOSES_WAIT),
                _ = tokio::time::sleep_until(close_at), if self.close_at.is_some() && room => self.tell_closes(),
                _ = closed.wait_for(|closed| *closed) => break,
            }
        }
        say_goodbye(link).await;
        End::Closed
    }

    /// A new connection: invalidations may have been lost in between, so caches go (law 29); what has no answer is sent
    /// again (law 10).
    fn welcome(&mut self, welcome: &v1::Welcome) {
        self.epoch = EpochId { number: welcome.epoch_number, cluster: farshore_types::ClusterId(welcome.epoch_cluster as u8) };
        self.saw(welcome.log_index);
        self.shared.learn_machine(welcome.machine);
        let first = !self.opened;
        self.opened = true;
        self.shared.connections.fetch_add(1, Ordering::AcqRel);
        if !first {
            self.observer.reset();
        }
        self.outbox.clear();
        self.resends = 0;
        self.resend_all();
    }

    pub(super) fn saw(&self, index: u64) {
        self.shared.highest_index.fetch_max(index, Ordering::AcqRel);
    }

    fn resend_all(&mut self) {
        self.resend_at = None;
        let sequences = self.window.unanswered();
        self.send_sequences(&sequences);
        self.asked.retain(|_, waiter| !waiter.answer.is_closed());
        let ids: Vec<u64> = self.asked.keys().copied().collect();
        self.ask_ids(&ids);
    }

    pub(super) fn resend_later(&mut self) {
        if self.resend_at.is_none() {
            self.resend_at = Some(Instant::now() + backoff::delay(RESEND_FIRST, RESEND_MAX, self.resends));
            self.resends = self.resends.saturating_add(1);
        }
    }

    fn send_new(&mut self, requests: impl Iterator<Item = OpRequest>) {
        let mut sequences = Vec::new();
        let generation = self.shared.generation.load(Ordering::Acquire);
        for request in requests {
            if request.waiter.of_session.is_some_and(|of| of != generation) {
                let _ = request.waiter.answer.send(Err(OpError::SessionLost));
                continue;
            }
            // Who gave up before the operation was sent must not have it done behind their back.
            if !request.waiter.answer.is_closed() {
                sequences.push(self.window.take(request.op, request.waiter));
            }
        }
        self.send_sequences(&sequences);
    }

    fn send_sequences(&mut self, sequences: &[u64]) {
        let mut requests = Vec::new();
        let mut bytes = 0;
        for &sequence in sequences {
            let (op, waiter) = self.window.get(sequence).expect("only unanswered sequences are sent");
            let (op, open) = (encode(op), waiter.open);
            bytes += op.len();
            requests.push(v1::Request { sequence, op, open });
            if requests.len() == BATCH_MAX || bytes >= BATCH_BYTES_MAX {
                self.push_requests(std::mem::take(&mut requests));
                bytes = 0;
            }
        }
        self.push_requests(requests);
    }

    fn push_requests(&mut self, requests: Vec<v1::Request>) {
        if !requests.is_empty() {
            let acknowledged = self.window.acknowledged();
            self.outbox.push_back(frame(Send::Requests(v1::Requests { acknowledged, requests })));
        }
    }

    fn ask_new(&mut self, requests: impl Iterator<Item = QueryRequest>) {
        let mut ids = Vec::new();
        for request in requests {
            if let Query::Close { ino } = request.query {
                self.note_close(ino);
            }
            let id = self.next_query;
            self.next_query += 1;
            self.asked.insert(id, QueryWaiter { query: request.query, answer: request.answer });
            ids.push(id);
        }
        self.ask_ids(&ids);
    }

    fn ask_ids(&mut self, ids: &[u64]) {
        for ids in ids.chunks(BATCH_MAX) {
            let queries = ids.iter().map(|id| v1::QueryRequest { id: *id, query: encode(&self.asked[id].query) }).collect();
            self.outbox.push_back(frame(Send::Queries(v1::Queries { queries })));
        }
    }
}

impl Driver {
    fn note_close(&mut self, ino: Ino) {
        let answered = self.window.acknowledged();
        while self.closes.front().is_some_and(|(last, _)| *last <= answered) {
            self.closes.pop_front();
        }
        self.closes.push_back((self.window.last(), ino));
    }

    /// The session holds open what this operation made. Not where a close of it was sent before the answer came, which another
    /// handle of this client can have caused by then: the cluster may have heard that one last.
    pub(super) fn opened(&mut self, sequence: u64, ino: Ino) -> Option<u64> {
        let crossed = self.closes.iter().any(|(last, closed)| *last >= sequence && *closed == ino);
        (!crossed).then(|| self.shared.count_open(ino))
    }

    fn tell_closes(&mut self) {
        self.close_at = None;
        let closing = std::mem::take(&mut *self.shared.closing());
        // What was opened again meanwhile is open; its Open comes after this, in the driver's order.
        let closed: Vec<Ino> = {
            let opens = self.shared.opens();
            closing.into_iter().filter(|ino| !opens.contains_key(ino)).collect()
        };
        let nobody = || oneshot::channel().0;
        self.ask_new(closed.into_iter().map(|ino| QueryRequest { query: Query::Close { ino }, answer: nobody() }));
    }
}

/// Lets the cluster end the session now instead of after its lease.
async fn say_goodbye(mut link: Link) {
    let goodbye = link.out.send(frame(Send::Goodbye(v1::Goodbye {})));
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    drop(link.out);
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, link.inbound.next()).await;
}
