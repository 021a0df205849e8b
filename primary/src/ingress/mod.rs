//! Where clients come in: one stream a client, requests of all sessions share entries, queries share read
//! confirmations. Only the leader answers; everybody else names it.

mod batcher;
mod client;
mod hub;
mod reader;
mod refuse;
mod session;
mod watch;

pub use batcher::Queued;
pub use client::Client;
pub use hub::Hub;
pub use reader::Asked;
pub use refuse::{not_leader, refused};

use crate::node::Node;
use farshore_meta::kv::Store;
use openraft::AsyncRuntime;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// Requests and queries that may wait, each; past it a session's stream is not read any further (law 27).
const QUEUE: usize = 8192;

/// The senders of the leader's queues.
pub struct Ingress {
    pub requests: mpsc::Sender<Queued>,
    pub queries: mpsc::Sender<Asked>,
}

/// The receivers, for the tasks that [`spawn`] starts.
pub struct Queues {
    requests: mpsc::Receiver<Queued>,
    queries: mpsc::Receiver<Asked>,
}

impl Ingress {
    pub fn new() -> (Self, Queues) {
        let (requests, requests_in) = mpsc::channel(QUEUE);
        let (queries, queries_in) = mpsc::channel(QUEUE);
        (Ingress { requests, queries }, Queues { requests: requests_in, queries: queries_in })
    }
}

/// Starts the tasks that empty the queues; `flushes` is notified at the end of each of the log's. They end when the node is dropped.
pub fn spawn<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, queues: Queues, flushes: Arc<Notify>) {
    drop(R::spawn(batcher::run(Arc::downgrade(node), queues.requests, flushes)));
    drop(R::spawn(reader::run(Arc::downgrade(node), queues.queries)));
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// Serves one client's stream until either side ends it.
    pub async fn serve_session(
        self: &Arc<Self>,
        input: mpsc::Receiver<farshore_wire::v1::ClientFrame>,
        output: mpsc::Sender<farshore_wire::v1::ServerFrame>,
    ) {
        session::serve(self, input, output).await;
    }
}
