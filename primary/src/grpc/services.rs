//! One listener, four services: peers, sessions, changelog, operators.

use crate::node::Node;
use crate::raft::{APPENDS_UNDER_WAY, PeerCall};
use farshore_meta::kv::Store;
use farshore_wire::admin::AdminCall;
use farshore_wire::v1::{self, admin_server, changelog_server, peer_server, raft_request::Kind, session_server};
use farshore_wire::{MAX_MESSAGE_BYTES, check_header};
use openraft::AsyncRuntime;
use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Frames that may wait on each side of a stream; past it the peer waits, or a slow client is let go.
const FRAMES: usize = 1024;
/// Chunks of a snapshot that may wait.
const CHUNKS: usize = 8;

/// The listener could not be opened, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    #[error("the listener failed: {0}")]
    Serve(tonic::transport::Error),
}

/// A listener that is open; nothing is served yet.
pub struct BoundNode {
    listener: TcpListener,
}

/// Opens the listener, so that a port in use is found before anything is created.
pub async fn bind(address: SocketAddr) -> Result<BoundNode, ServeError> {
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Bind { address, error })?;
    Ok(BoundNode { listener })
}

impl BoundNode {
    /// Serves a node until `shutdown`.
    pub async fn serve<R: AsyncRuntime, S: Store>(
        self,
        node: Arc<Node<R, S>>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let service = NodeService(node);
        let incoming = TcpListenerStream::new(self.listener).map(|stream| {
            stream.inspect(|stream| {
                // Without it small frames wait for each other's acknowledgements.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was not set");
                }
            })
        });
        Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_service(
                peer_server::PeerServer::new(service.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(session_server::SessionServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(changelog_server::ChangelogServer::new(service.clone()).max_encoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(admin_server::AdminServer::new(service).max_encoding_message_size(MAX_MESSAGE_BYTES))
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await
            .map_err(ServeError::Serve)
    }
}

/// All services of a node.
struct NodeService<R: AsyncRuntime, S: Store>(Arc<Node<R, S>>);

impl<R: AsyncRuntime, S: Store> Clone for NodeService<R, S> {
    fn clone(&self) -> Self {
        NodeService(self.0.clone())
    }
}

impl<R: AsyncRuntime, S: Store> NodeService<R, S> {
    fn check_peer(&self, header: Option<&v1::Header>, cluster: u32, target: u64) -> Result<(), Status> {
        check_header(header, &self.0.config.volume, 0).map_err(|error| Status::failed_precondition(error.to_string()))?;
        if cluster != u32::from(self.0.config.cluster.0) {
            let text = format!("this node is of cluster {}, the peer means {cluster}: check the topology", self.0.config.cluster);
            return Err(Status::failed_precondition(text));
        }
        let own = self.0.config.id;
        if target != 0 && target != own.0 {
            // Who lost its directory must not vote, or say what it holds, in the name of the node that it was.
            return Err(Status::failed_precondition(format!("this is node {own}, the peer means {target}")));
        }
        Ok(())
    }
}

/// Feeds a gRPC stream into a channel of `frames` places until either side is gone.
pub fn pump<T: Send + 'static>(mut stream: Streaming<T>, frames: usize) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(frames);
    tokio::spawn(async move {
        while let Ok(Some(message)) = stream.message().await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// A channel's messages as a gRPC answer.
type Frames<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

fn frames<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> Response<Frames<T>> {
    Response::new(Box::pin(ReceiverStream::new(receiver).map(Ok)))
}

fn call_of(kind: Kind) -> PeerCall {
    match kind {
        Kind::Append => PeerCall::Append,
        Kind::Vote => PeerCall::Vote,
        Kind::PreVote => PeerCall::PreVote,
        Kind::TransferLeader => PeerCall::TransferLeader,
        Kind::Heal => PeerCall::Heal,
        Kind::Found => PeerCall::Found,
        Kind::Standing => PeerCall::Standing,
        Kind::Entries => PeerCall::Entries,
        Kind::Confirm => PeerCall::Confirm,
    }
}

#[tonic::async_trait]
impl<R: AsyncRuntime, S: Store> peer_server::Peer for NodeService<R, S> {
    async fn raft(&self, request: Request<v1::RaftRequest>) -> Result<Response<v1::RaftReply>, Status> {
        let request = request.into_inner();
        self.check_peer(request.header.as_ref(), request.cluster, request.target)?;
        let body =
            self.0.handle_peer(call_of(request.kind()), &request.body).await.map_err(|error| Status::unavailable(error.0))?;
        Ok(Response::new(v1::RaftReply { body: body.into() }))
    }

    type AppendsStream = Frames<v1::RaftReply>;

    async fn appends(&self, request: Request<Streaming<v1::RaftRequest>>) -> Result<Response<Self::AppendsStream>, Status> {
        let service = self.clone();
        let mut checked = false;
        let requests = request.into_inner().map(move |message| {
            let message = message?;
            if !checked {
                service.check_peer(message.header.as_ref(), message.cluster, message.target)?;
                checked = true;
            }
            let call = call_of(message.kind());
            if !matches!(call, PeerCall::Append | PeerCall::Confirm) {
                return Err(Status::invalid_argument(format!("{call:?} is no stream")));
            }
            Ok::<_, Status>((service.0.clone(), call, message.body))
        });
        // Each is begun in its turn, and answered in its turn: what follows does not wait for its flush.
        let replies = futures::StreamExt::buffered(
            futures::StreamExt::map(requests, |request| async move {
                let (node, call, body) = request?;
                let body = node.handle_peer(call, &body).await.map_err(|error| Status::unavailable(error.0))?;
                Ok(v1::RaftReply { body: body.into() })
            }),
            APPENDS_UNDER_WAY,
        );
        Ok(Response::new(Box::pin(replies)))
    }

    async fn snapshot(&self, request: Request<Streaming<v1::SnapshotChunk>>) -> Result<Response<v1::RaftReply>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("a snapshot begins with its position"))?;
        self.check_peer(first.header.as_ref(), first.cluster, first.target)?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            loop {
                let chunk = match chunks.message().await {
                    Ok(Some(chunk)) => Ok(chunk.data),
                    Ok(None) => return,
                    Err(status) => Err(io::Error::other(status.message().to_owned())),
                };
                let broken = chunk.is_err();
                if sender.send(chunk).await.is_err() || broken {
                    return;
                }
            }
        });
        let reader = ChunkReader { receiver, chunk: Default::default() };
        let body = self.0.handle_snapshot(&first.meta, Box::new(reader)).await;
        let body = body.map_err(|error| Status::unavailable(error.0))?;
        Ok(Response::new(v1::RaftReply { body: body.into() }))
    }
}

/// A stream of chunks as a reader, for a thread of its own.
struct ChunkReader {
    receiver: mpsc::Receiver<Result<prost::bytes::Bytes, io::Error>>,
    chunk: prost::bytes::Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.chunk.len());
        out[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

#[tonic::async_trait]
impl<R: AsyncRuntime, S: Store> session_server::Session for NodeService<R, S> {
    type OpenStream = Frames<v1::ServerFrame>;

    async fn open(&self, request: Request<Streaming<v1::ClientFrame>>) -> Result<Response<Self::OpenStream>, Status> {
        let (output, receiver) = mpsc::channel(FRAMES);
        let input = pump(request.into_inner(), FRAMES);
        let node = self.0.clone();
        tokio::spawn(async move { node.serve_session(input, output).await });
        Ok(frames(receiver))
    }
}

#[tonic::async_trait]
impl<R: AsyncRuntime, S: Store> changelog_server::Changelog for NodeService<R, S> {
    type TailStream = Frames<v1::ChangelogFrame>;
    type SnapshotStream = Frames<v1::SnapshotChunk>;

    async fn tail(&self, request: Request<Streaming<v1::TailFrame>>) -> Result<Response<Self::TailStream>, Status> {
        let (output, receiver) = mpsc::channel(CHUNKS);
        let input = pump(request.into_inner(), FRAMES);
        let node = self.0.clone();
        tokio::spawn(async move { node.serve_tail(input, output).await });
        Ok(frames(receiver))
    }

    async fn snapshot(&self, request: Request<v1::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let request = request.into_inner();
        check_header(request.header.as_ref(), &self.0.config.volume, 0)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let (output, receiver) = mpsc::channel(CHUNKS);
        let node = self.0.clone();
        tokio::spawn(async move { node.serve_shared_snapshot(output).await });
        Ok(frames(receiver))
    }
}

#[tonic::async_trait]
impl<R: AsyncRuntime, S: Store> admin_server::Admin for NodeService<R, S> {
    async fn call(&self, request: Request<v1::AdminRequest>) -> Result<Response<v1::AdminReply>, Status> {
        let request = request.into_inner();
        check_header(request.header.as_ref(), &self.0.config.volume, 0)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let call: AdminCall = serde_json::from_slice(&request.call)
            .map_err(|error| Status::invalid_argument(format!("this node does not know the call: {error}")))?;
        let answer = self.0.admin(call).await;
        let answer = serde_json::to_vec(&answer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::AdminReply { answer: answer.into() }))
    }
}
