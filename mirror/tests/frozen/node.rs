//! A node in this process, whose cluster is silent.

use crate::messages::VOLUME;
use farshore_meta::kv::Memory;
use farshore_primary::host::OsHost;
use farshore_primary::raft::snapshot::{Checkpoints, SnapshotBody};
use farshore_primary::raft::{MemoryLog, PeerCall, PeerError, PeerFuture, PeerTransport};
use farshore_primary::wholeness::Wholeness;
use farshore_primary::{MACHINE_VERSION, Node, NodeConfig, NodeParts};
use farshore_types::{ClusterId, NodeId};
use openraft::TokioRuntime;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub type TestNode = Node<TokioRuntime, Memory>;

struct Silent;

impl PeerTransport for Silent {
    fn call<'a>(&'a self, _: u64, _: &'a str, _: PeerCall, _: Vec<u8>, _: Duration) -> PeerFuture<'a> {
        Box::pin(async { Err(PeerError("there is no peer".to_owned())) })
    }

    fn snapshot<'a>(&'a self, _: u64, _: &'a str, _: Vec<u8>, _: SnapshotBody) -> PeerFuture<'a> {
        Box::pin(async { Err(PeerError("there is no peer".to_owned())) })
    }
}

/// Node 1 of the cluster of `us`, with nothing in its log.
pub async fn start() -> Arc<TestNode> {
    let config = NodeConfig {
        name: "us-a".to_owned(),
        volume: VOLUME.to_owned(),
        region: "us".to_owned(),
        cluster: ClusterId(0),
        id: NodeId(1),
        peers: vec![],
        machine: MACHINE_VERSION,
        full_sync_every_us: 1 << 50,
        heartbeat: Duration::from_millis(50),
        election: (Duration::from_millis(200), Duration::from_millis(400)),
        checkpoint_entries: 1_000_000,
        log_retention: 1 << 40,
        session_lease: Duration::from_secs(60),
        regions: BTreeMap::from([(ClusterId(0), "us".to_owned()), (ClusterId(1), "eu".to_owned())]),
    };
    // A node of a cluster that was made: an empty disk alone would be one that lost its vote (law 24).
    let log = Arc::new(MemoryLog::default());
    Wholeness::Member.store(&*log).unwrap();
    let parts = NodeParts {
        config,
        store: Memory::new(),
        log,
        checkpoints: Arc::new(Checkpoints::in_memory()),
        transport: Arc::new(Silent),
        host: Arc::new(OsHost),
    };
    Node::start(parts).await.unwrap()
}

pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("waited in vain for {what}");
}
