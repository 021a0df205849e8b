//! A whole node on this machine: directory, consensus, tail, and its listener. Its role comes from its state.

use crate::tail::{self, TailConfig};
use crate::upstream::GrpcUpstream;
use farshore_primary::boot::{self, BootError, Identity};
use farshore_primary::grpc::{self, GrpcTransport, ServeError};
use farshore_primary::host::{Host, OsHost};
use farshore_primary::{Node, NodeConfig, NodeParts, StartError};
use farshore_types::NodeId;
use openraft::TokioRuntime;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a node looks whether it must stop.
const WATCH: Duration = Duration::from_millis(100);

/// How long streams have to end after the node was asked to stop.
const CLOSE: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Clone, Debug)]
pub struct RunConfig {
    pub node: NodeConfig,
    pub listen: SocketAddr,
    pub directory: PathBuf,
    pub tail: TailConfig,
}

/// The node did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the node stopped: {why}; its directory is {}", directory.display())]
    Stopped { why: String, directory: PathBuf },
}

/// The node of a real process.
pub type OsNode = Node<TokioRuntime, farshore_meta::kv::Lmdb>;

/// A number that no other node has: 53 bits, so that every reader of JSON keeps it, and never 0, which stands for none.
fn draw() -> NodeId {
    let [a, b, c, d, e, f, g, h, ..] = OsHost.random();
    NodeId((u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 11).max(1))
}

/// Before a planned stop another node takes the leadership over, so that no call waits for an election.
async fn leave(node: &OsNode) {
    node.begin_stop();
    if let Err(why) = node.hand_over().await {
        tracing::info!(%why, "the leadership was not handed over");
    }
}

/// Runs a node until `shutdown`, or until it cannot go on.
pub async fn run(config: RunConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
    // The port first: whoever holds it is found before anything is opened.
    let bound = grpc::bind(config.listen).await?;
    let RunConfig { mut node, directory, tail, .. } = config;
    let drawn = node.id == NodeId(0);
    let identity = Identity {
        volume: node.volume.clone(),
        cluster: node.cluster,
        node: if drawn { draw() } else { node.id },
        name: node.name.clone(),
    };
    let disk = boot::open(&directory, &identity, drawn, node.peers.is_empty())?;
    node.id = disk.node;
    let transport = Arc::new(GrpcTransport::new(node.volume.clone(), node.cluster));
    let upstream = Arc::new(GrpcUpstream::new(node.volume.clone()));
    let parts = NodeParts {
        config: node,
        store: disk.store,
        log: disk.log,
        checkpoints: disk.checkpoints,
        transport,
        host: Arc::new(OsHost),
    };
    let node: Arc<OsNode> = Node::start(parts).await?;
    tail::spawn(&node, upstream, tail);
    tracing::info!(name = %node.config.name, listen = %config.listen, "the node runs");
    let asked = AtomicBool::new(false);
    let stopped = async {
        loop {
            tokio::time::sleep(WATCH).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if let Some(why) = node.hub.stop_reason() {
                return why;
            }
            if let Some(fatal) = node.fatal().await {
                return fatal;
            }
        }
    };
    let (close, closing) = tokio::sync::oneshot::channel::<()>();
    let serving = bound.serve(node.clone(), async {
        shutdown.await;
        asked.store(true, Ordering::Relaxed);
        leave(&node).await;
        // Streams end first: the listener waits for them.
        node.hub.stop();
        let _ = close.send(());
    });
    let overdue = async {
        match closing.await {
            Ok(()) => tokio::time::sleep(CLOSE).await,
            Err(_) => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        biased;
        served = serving => served.map_err(RunError::from),
        () = overdue => Ok(()),
        why = stopped => if node.is_removed() { Ok(()) } else { Err(RunError::Stopped { why, directory: directory.clone() }) },
    };
    node.shutdown().await;
    if matches!(result, Err(RunError::Stopped { .. })) {
        boot::distrust(&directory);
    }
    result
}
