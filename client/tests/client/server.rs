//! A cluster of one node: the real state machine in memory behind the real session service, with faults to order.

use farshore_meta::kv::{KvRead, Memory, Store};
use farshore_meta::{Applied, Event, Stamped, Touched, admissible, apply_shared, encode_entry, header, query};
use farshore_types::*;
use farshore_wire::v1::{self, client_frame::Frame as In, server_frame::Frame as Out};
use farshore_wire::{PROTOCOL, decode, encode};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

pub const BLOCK: u32 = MIN_BLOCK_SIZE;
const OUTGOING_MAX: usize = 1024;

type Sender = mpsc::Sender<Result<v1::ServerFrame, Status>>;

/// Faults that the node commits when asked to.
#[derive(Default)]
pub struct Faults {
    /// Apply so many batches of requests, answer none of them, and drop the stream.
    pub drop_after_apply: AtomicU32,
    /// Answer so many requests with `Busy`, without applying them.
    pub busy: AtomicU32,
    /// Say "not the leader" to every hello, and name this address.
    pub refer_to: Mutex<Option<String>>,
    /// Answer as a node that does not know [`v1::Request::open`].
    pub opens_nothing: AtomicBool,
    pub queries: AtomicU64,
    pub batches: AtomicU64,
    /// Take commits of slices as if their epoch were over, so often.
    pub older_epoch: AtomicU32,
    pub silent_invalidations: AtomicBool,
    /// Say in the welcome that the volume is at this version, if it is higher than its own.
    pub machine_said: AtomicU32,
    /// Leave the requests of this session where they are.
    pub deaf_to: Mutex<Option<SessionId>>,
    /// Apply this session's commits, and keep the answers back.
    pub late_to: Mutex<Option<SessionId>>,
    /// Entries are so much later than they would be, in microseconds.
    pub later_us: AtomicU64,
    /// Say in the welcome that the cluster is a mirror.
    pub mirror: AtomicBool,
}

pub struct State {
    store: Memory,
    streams: Mutex<HashMap<SessionId, (v1::hello::Kind, Sender)>>,
    pub faults: Faults,
    /// All questions, in the order in which they came.
    pub asked: Mutex<Vec<Query>>,
    pub fronts: Mutex<Vec<v1::Block>>,
    pub completions: Mutex<Vec<v1::Completion>>,
    pub listings: Mutex<Vec<v1::Listing>>,
    pub capacity: AtomicU32,
    one_at_a_time: Mutex<()>,
}

/// The node, and how to reach it.
#[derive(Clone)]
pub struct Cluster {
    pub state: Arc<State>,
    pub address: SocketAddr,
}

pub fn record() -> VolumeRecord {
    let region = |id: u8, name: &str| RegionRecord {
        id: RegionId(id),
        name: name.to_owned(),
        cluster: Some(ClusterId(id)),
        incarnation: Incarnation(0),
        bucket: Uuid([id; 16]),
    };
    VolumeRecord {
        name: "demo".to_owned(),
        uuid: Uuid([7; 16]),
        group: GroupId(7),
        block_size: BLOCK,
        compression: Compression::None,
        encrypted: false,
        trash_days: 0,
        regions: vec![region(0, "us-east"), region(1, "eu-west")],
    }
}

impl State {
    pub fn apply(&self, body: SharedBody) -> Applied {
        let _one = self.one_at_a_time.lock().unwrap();
        let mut kv = self.store.write().unwrap();
        let before = header(&*kv).unwrap();
        let epoch = match &body {
            SharedBody::Control(Control::Start { epoch, .. }) => epoch.id,
            _ => before.lineage.head_id(),
        };
        let time = 1_000_000_000_000_000 + before.index.0 * 1001 + self.faults.later_us.load(Ordering::Relaxed);
        let entry = SharedEntry { epoch, time: LogTime(time), body };
        admissible(&before, &entry).unwrap();
        let mut chain = before.chain;
        for (at, byte) in encode_entry(&entry).into_iter().enumerate() {
            chain.0[at % 32] = chain.0[at % 32].wrapping_mul(31).wrapping_add(byte);
        }
        let applied = apply_shared(&mut *kv, &Stamped { index: before.index.next(), chain, entry: &entry }).unwrap();
        kv.commit().unwrap();
        applied
    }

    fn read<T>(&self, f: impl FnOnce(&dyn KvRead) -> T) -> T {
        f(&*self.store.read().unwrap())
    }

    pub fn index(&self) -> u64 {
        self.read(|kv| header(kv).unwrap().index.0)
    }

    /// The only session there is.
    pub fn only_session(&self) -> SessionId {
        let sessions = self.read(|kv| farshore_meta::sessions(kv).unwrap());
        let [session] = sessions.as_slice() else { panic!("{sessions:?}") };
        session.id
    }

    fn knows(&self, session: SessionId) -> bool {
        self.read(|kv| farshore_meta::sessions(kv).unwrap().iter().any(|record| record.id == session))
    }

    /// Tells everyone but who did it (law 29).
    fn invalidate(&self, applied: &Applied) {
        if self.faults.silent_invalidations.load(Ordering::Relaxed) {
            return;
        }
        for (session, (_, out)) in self.streams.lock().unwrap().iter() {
            let touched: Vec<_> =
                applied.changes.touched.iter().filter(|(by, _)| *by != Some(*session)).map(|(_, what)| what).collect();
            let inodes = touched.iter().filter_map(|t| if let Touched::Inode(ino) = t { Some(ino.0) } else { None });
            let recalled = applied.changes.events.iter().filter_map(|event| match event {
                Event::Recalled { holder, directory } if holder == session => Some(directory.0),
                _ => None,
            });
            let inodes = inodes.chain(recalled);
            let entries = touched.iter().filter_map(|t| match t {
                Touched::Entry { parent, name } => Some(v1::TouchedEntry { parent: parent.0, name: name.clone().into() }),
                Touched::Inode(_) => None,
            });
            let (inodes, entries) = (inodes.collect(), entries.collect());
            let message = v1::Invalidations { log_index: applied.index.0, inodes, entries, reset: false };
            let _ = out.try_send(Ok(v1::ServerFrame { frame: Some(Out::Invalidations(message)) }));
        }
    }

    /// Ends every writer's session, as an expiry does, and cuts all streams.
    pub fn expire_all(&self) {
        let sessions: Vec<SessionId> =
            self.read(|kv| farshore_meta::sessions(kv).unwrap().iter().map(|record| record.id).collect());
        for session in sessions {
            self.apply(SharedBody::Control(Control::Expire { session }));
        }
        self.cut_all();
    }

    pub fn cut_all(&self) {
        self.streams.lock().unwrap().clear();
    }

    /// Sends leases to every worker; how many there are.
    pub fn lease(&self, leases: Vec<v1::Lease>) -> usize {
        let streams = self.streams.lock().unwrap();
        let workers = streams.values().filter(|(kind, _)| *kind == v1::hello::Kind::Worker);
        workers
            .filter(|(_, out)| {
                let leases = v1::Leases { leases: leases.clone() };
                out.try_send(Ok(v1::ServerFrame { frame: Some(Out::Leases(leases)) })).is_ok()
            })
            .count()
    }

    pub fn query(&self, question: Query) -> Result<QueryReply, ErrorKind> {
        self.read(|kv| query(kv, &question).unwrap())
    }
}

impl Cluster {
    pub async fn start() -> Cluster {
        let state = Arc::new(State {
            store: Memory::new(),
            streams: Default::default(),
            faults: Default::default(),
            asked: Default::default(),
            fronts: Default::default(),
            completions: Default::default(),
            listings: Default::default(),
            capacity: Default::default(),
            one_at_a_time: Default::default(),
        });
        state.apply(SharedBody::Control(Control::Format(record())));
        start_epoch(&state, 0);
        Cluster::serve(state).await
    }

    /// Another node of the same state.
    pub async fn serve(state: Arc<State>) -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = v1::session_server::SessionServer::new(Node(state.clone()));
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Cluster { state, address }
    }
}

pub fn start_epoch(state: &State, start: u16) {
    let before = state.read(|kv| header(kv).unwrap());
    let parent = before.lineage.head_id();
    // Another cluster than before: an unplanned start (law 10).
    let cluster = ClusterId(start as u8 % 2);
    let id = EpochId { number: parent.number + 1, cluster };
    let epoch = Epoch { id, parent, start: before.index, chain: before.chain };
    let slot = Slot::of(cluster, start).unwrap();
    state.apply(SharedBody::Control(Control::Start { epoch, slot }));
}

struct Node(Arc<State>);

type Frames = Pin<Box<dyn Stream<Item = Result<v1::ServerFrame, Status>> + Send>>;

fn message(frame: Out) -> Result<v1::ServerFrame, Status> {
    Ok(v1::ServerFrame { frame: Some(frame) })
}

fn refused(kind: v1::refused::Kind, leader: String) -> Result<v1::ServerFrame, Status> {
    message(Out::Refused(v1::Refused { kind: kind.into(), text: "as ordered".to_owned(), leader }))
}

#[tonic::async_trait]
impl v1::session_server::Session for Node {
    type OpenStream = Frames;

    async fn open(&self, request: Request<Streaming<v1::ClientFrame>>) -> Result<Response<Frames>, Status> {
        let (out, frames) = mpsc::channel(OUTGOING_MAX);
        tokio::spawn(serve(self.0.clone(), request.into_inner(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }
}

async fn serve(state: Arc<State>, mut inbound: Streaming<v1::ClientFrame>, out: Sender) {
    let Some(Ok(v1::ClientFrame { frame: Some(In::Hello(hello)) })) = inbound.next().await else { return };
    if let Some(leader) = state.faults.refer_to.lock().unwrap().clone() {
        let _ = out.try_send(refused(v1::refused::Kind::NotLeader, leader));
        return;
    }
    let session = SessionId(hello.session.as_ref().try_into().unwrap());
    if hello.kind() == v1::hello::Kind::Writer {
        if hello.resumes {
            if !state.knows(session) {
                let _ = out.try_send(refused(v1::refused::Kind::SessionLost, String::new()));
                return;
            }
        } else {
            let info = decode::<SessionInfo>(&hello.info).unwrap();
            state.apply(SharedBody::Control(Control::OpenSession { session, info })).outcomes[0].clone().unwrap();
        }
    }
    let epoch = state.read(|kv| header(kv).unwrap().lineage.head_id());
    let welcome = v1::Welcome {
        protocol: PROTOCOL,
        epoch_number: epoch.number,
        epoch_cluster: epoch.cluster.0.into(),
        log_index: state.index(),
        lease_ms: 10_000,
        volume: encode(&record()),
        mirror: state.faults.mirror.load(Ordering::Relaxed),
        machine: state.read(|kv| header(kv).unwrap().version).max(state.faults.machine_said.load(Ordering::Relaxed)),
        ..Default::default()
    };
    out.try_send(message(Out::Welcome(welcome))).unwrap();
    // The table holds the only lasting sender: taking it out cuts the stream.
    state.streams.lock().unwrap().insert(session, (hello.kind(), out.clone()));
    let weak = out.downgrade();
    drop(out);
    while let Some(Ok(message)) = inbound.next().await {
        let Some(out) = weak.upgrade() else { return };
        if !answer(&state, session, message.frame.unwrap(), &out).await {
            state.streams.lock().unwrap().remove(&session);
            return;
        }
    }
}

/// Whether the stream goes on.
async fn answer(state: &State, session: SessionId, frame: In, out: &Sender) -> bool {
    match frame {
        In::Requests(requests) => return requested(state, session, requests, out).await,
        In::Queries(queries) => {
            state.faults.queries.fetch_add(queries.queries.len() as u64, Ordering::Relaxed);
            for question in &queries.queries {
                state.asked.lock().unwrap().push(decode(&question.query).unwrap());
            }
            let answers = queries.queries.into_iter().map(|question| {
                let result = state.query(decode(&question.query).unwrap());
                v1::Answer { id: question.id, log_index: state.index(), result: encode(&result) }
            });
            let answers = v1::Answers { answers: answers.collect() };
            return out.send(message(Out::Answers(answers))).await.is_ok();
        }
        In::Front(front) => state.fronts.lock().unwrap().extend(front.blocks),
        In::Completions(completions) => state.completions.lock().unwrap().extend(completions.completions),
        In::Listing(listing) => state.listings.lock().unwrap().push(listing),
        In::Capacity(capacity) => state.capacity.store(capacity.slots, Ordering::Relaxed),
        In::Goodbye(_) => {
            if state.knows(session) {
                state.apply(SharedBody::Control(Control::CloseSession { session }));
            }
            return false;
        }
        In::Renew(_) | In::Hello(_) => {}
    }
    true
}

fn ordered(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

async fn requested(state: &State, session: SessionId, requests: v1::Requests, out: &Sender) -> bool {
    while *state.faults.deaf_to.lock().unwrap() == Some(session) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    state.faults.batches.fetch_add(1, Ordering::Relaxed);
    let reply =
        |sequence, index, outcome: &Outcome| v1::Reply { sequence, log_index: index, outcome: encode(outcome), opened: false };
    let mut replies = Vec::new();
    if ordered(&state.faults.busy) {
        replies = requests.requests.iter().map(|r| reply(r.sequence, 0, &Err(ErrorKind::Busy))).collect();
    } else {
        let ops: Vec<Op> = requests.requests.iter().map(|request| decode(&request.op).unwrap()).collect();
        let batch = requests.requests.iter().zip(&ops).map(|(request, op)| SessionRequest {
            session,
            sequence: Sequence(request.sequence),
            acknowledged: Sequence(requests.acknowledged),
            op: op.clone(),
        });
        let commits = ops.iter().any(|op| matches!(op, Op::CommitSlices { .. }));
        if commits && ordered(&state.faults.older_epoch) {
            // A new epoch begins just before the commit arrives.
            let count = state.read(|kv| header(kv).unwrap().lineage.0.len()) as u16;
            start_epoch(state, count);
        }
        let applied = state.apply(SharedBody::Batch(batch.collect()));
        for (request, outcome) in requests.requests.iter().zip(&applied.outcomes) {
            // As a node: what has no name any more when the entry is answered is for the client to find out.
            let there = |ino| matches!(state.query(Query::GetAttr { ino }), Ok(QueryReply::Attr(attr)) if attr.nlink > 0);
            let made = matches!(outcome, Ok(Reply::Attr(attr)) if there(attr.ino));
            let opened = request.open && made && !state.faults.opens_nothing.load(Ordering::Relaxed);
            replies.push(v1::Reply { opened, ..reply(request.sequence, applied.index.0, outcome) });
        }
        if ordered(&state.faults.drop_after_apply) {
            return false;
        }
        state.invalidate(&applied);
        while commits && *state.faults.late_to.lock().unwrap() == Some(session) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    out.send(message(Out::Replies(v1::Replies { replies }))).await.is_ok()
}
