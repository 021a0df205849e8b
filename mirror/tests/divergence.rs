//! A mirror whose state differs from its primary's says so and stops claiming to be one (law 2): two clusters of one node
//! each in this process, over the real nodes, tail and judge.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use farshore_meta::kv::{Memory, Space, Store};
use farshore_mirror::{TailConfig, Upstream, UpstreamFuture};
use farshore_primary::host::OsHost;
use farshore_primary::raft::snapshot::{Checkpoints, SnapshotBody};
use farshore_primary::raft::{MemoryLog, PeerCall, PeerError, PeerTransport};
use farshore_primary::{Node, NodeConfig, NodeParts, local};
use farshore_types::{
    ClusterId, Compression, Control, GroupId, Incarnation, Ino, NewNode, NodeId, Op, RegionId, RegionRecord, Sequence, SessionId,
    SessionInfo, SessionRequest, SharedBody, Uuid, VolumeRecord,
};
use farshore_wire::admin::{AdminAnswer, AdminCall, NewMember};
use farshore_wire::v1::{ChangelogFrame, SnapshotChunk, TailFrame};
use openraft::TokioRuntime;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

type TestNode = Node<TokioRuntime, Memory>;
const SESSION: SessionId = SessionId([7; 16]);

/// A cluster of one node has nobody to talk to.
struct Alone;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, PeerError>> + Send + 'a>>;

impl PeerTransport for Alone {
    fn call<'a>(&'a self, _: u64, _: &'a str, _: PeerCall, _: Vec<u8>, _: Duration) -> Answer<'a> {
        Box::pin(async { Err(PeerError("there is no peer".to_owned())) })
    }

    fn snapshot<'a>(&'a self, _: u64, _: &'a str, _: Vec<u8>, _: SnapshotBody) -> Answer<'a> {
        Box::pin(async { Err(PeerError("there is no peer".to_owned())) })
    }
}

/// Streams by function call.
struct Direct(Arc<TestNode>);

impl Upstream for Direct {
    fn tail<'a>(&'a self, _: &'a str, frames: mpsc::Receiver<TailFrame>) -> UpstreamFuture<'a, ChangelogFrame> {
        Box::pin(async move {
            let (out, receiver) = mpsc::channel(8);
            let node = self.0.clone();
            tokio::spawn(async move { node.serve_tail(frames, out).await });
            Ok(receiver)
        })
    }

    fn snapshot<'a>(&'a self, _: &'a str, _: u32) -> UpstreamFuture<'a, SnapshotChunk> {
        Box::pin(async move {
            let (out, receiver) = mpsc::channel(8);
            let node = self.0.clone();
            tokio::spawn(async move { node.serve_shared_snapshot(out).await });
            Ok(receiver)
        })
    }
}

fn volume() -> VolumeRecord {
    let region = |id: u8, name: &str| RegionRecord {
        id: RegionId(id),
        name: name.to_owned(),
        cluster: Some(ClusterId(id)),
        incarnation: Incarnation(0),
        bucket: Uuid([id + 1; 16]),
    };
    VolumeRecord {
        name: "v".to_owned(),
        uuid: Uuid([9; 16]),
        group: GroupId(5),
        block_size: 4 << 20,
        compression: Compression::None,
        encrypted: false,
        trash_days: 0,
        regions: vec![region(0, "us"), region(1, "eu")],
    }
}

async fn node(cluster: u8, region: &str) -> (Arc<TestNode>, Memory) {
    let store = Memory::new();
    let config = NodeConfig {
        name: format!("{region}-a"),
        volume: "v".to_owned(),
        region: region.to_owned(),
        cluster: ClusterId(cluster),
        id: NodeId(1),
        peers: vec![],
        machine: farshore_meta::MACHINE_VERSION,
        full_sync_every_us: 1 << 50,
        heartbeat: Duration::from_millis(50),
        election: (Duration::from_millis(200), Duration::from_millis(400)),
        checkpoint_entries: 1_000_000,
        log_retention: 1 << 40,
        session_lease: Duration::from_secs(60),
        regions: BTreeMap::from([(ClusterId(0), "us".to_owned()), (ClusterId(1), "eu".to_owned())]),
    };
    let parts = NodeParts {
        config,
        store: store.clone(),
        log: Arc::new(MemoryLog::default()),
        checkpoints: Arc::new(Checkpoints::in_memory()),
        transport: Arc::new(Alone),
        host: Arc::new(OsHost),
    };
    let node = Node::start(parts).await.unwrap();
    let member = NewMember { id: 1, name: format!("{region}-a"), address: region.to_owned() };
    node.initialize(&[member]).await.unwrap();
    until("the only node to lead", || node.is_leader()).await;
    (node, store)
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("waited in vain for {what}");
}

async fn request(node: &TestNode, sequence: u64, op: Op) {
    let request = SessionRequest { session: SESSION, sequence: Sequence(sequence), acknowledged: Sequence(sequence - 1), op };
    node.propose_shared(SharedBody::Batch(vec![request])).await.unwrap();
}

fn make(name: &str) -> Op {
    Op::Make { parent: Ino::ROOT, name: name.into(), node: NewNode::File, mode: 0o644, uid: 0, gid: 0 }
}

fn applied(node: &TestNode) -> u64 {
    node.header().unwrap().index.0
}

fn diverged(node: &TestNode) -> bool {
    local::diverged(&*node.read().unwrap()).unwrap().is_some()
}

async fn two_clusters() -> (Arc<TestNode>, Arc<TestNode>, Memory) {
    let (us, _) = node(0, "us").await;
    let (eu, store) = node(1, "eu").await;
    assert_eq!(us.admin(AdminCall::Format { volume: volume() }).await, AdminAnswer::Done);
    assert_eq!(eu.admin(AdminCall::Follow { volume: volume() }).await, AdminAnswer::Done);
    assert_eq!(us.admin(AdminCall::RosterAdd { cluster: 1 }).await, AdminAnswer::Done);
    let upstream = Arc::new(Direct(us.clone()));
    farshore_mirror::spawn(&eu, upstream, TailConfig { others: vec![(ClusterId(0), vec!["us".to_owned()])] });
    let info = SessionInfo { host: "h".into(), mount: String::new(), options: String::new(), bucket: None };
    us.propose_shared(SharedBody::Control(Control::OpenSession { session: SESSION, info })).await.unwrap();
    (us, eu, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_2_a_mirror_that_differs_says_so_and_is_not_recoverable() {
    let (us, eu, store) = two_clusters().await;
    request(&us, 1, make("kept")).await;
    request(&us, 2, make("lost")).await;
    until("the mirror to have all", || applied(&eu) == applied(&us)).await;
    assert!(!diverged(&eu));
    // A row of the mirror's shared state is lost, as by a fault of its machine; the entries that come after it find out.
    let key = {
        let kv = store.read().unwrap();
        let mut rows = kv.scan(Space::Shared, b"e", Some(b"f")).unwrap();
        rows.find_map(|row| row.ok().filter(|(key, _)| key.ends_with(b"lost")).map(|(key, _)| key.to_vec())).unwrap()
    };
    let mut kv = store.write().unwrap();
    kv.delete(Space::Shared, &key).unwrap();
    kv.commit().unwrap();
    request(&us, 3, Op::Unlink { parent: Ino::ROOT, name: b"lost".to_vec() }).await;
    until("the difference to be found", || diverged(&eu)).await;
    let figures = eu.figures().unwrap();
    assert!(figures.diverged && figures.recoverable.is_none() && figures.data_synced.is_none(), "{figures:?}");
    let before = applied(&eu);
    request(&us, 4, make("later")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(applied(&eu), before, "it follows no longer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_2_a_mirror_that_does_not_differ_compares_and_goes_on() {
    let (us, eu, _) = two_clusters().await;
    for at in 1..=300 {
        request(&us, at, make(&format!("file-{at}"))).await;
    }
    until("the mirror to have all", || applied(&eu) == applied(&us)).await;
    let digest = |node: &TestNode| farshore_meta::digest(&*node.read().unwrap()).unwrap();
    assert_eq!(digest(&us), digest(&eu));
    assert!(!diverged(&eu));
}
