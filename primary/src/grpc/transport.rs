//! Connections to other nodes: opened when first used, kept, and given a deadline at every call.

use super::lane::Lane;
use crate::raft::snapshot::SnapshotBody;
use crate::raft::{Answers, AppendStreams, Bodies, PeerCall, PeerError, PeerStream, PeerTransport};
use farshore_types::ClusterId;
use farshore_wire::v1::{self, peer_client::PeerClient, raft_request::Kind};
use farshore_wire::{MAX_MESSAGE_BYTES, header};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest transfer of a snapshot.
const SNAPSHOT: Duration = Duration::from_secs(1800);
/// Bytes of a snapshot in one message.
const CHUNK: usize = 512 << 10;
/// Messages of a snapshot that may wait.
const CHUNKS: usize = 4;

/// Channels by address.
#[derive(Default)]
pub struct Channels(Mutex<BTreeMap<String, Channel>>);

impl Channels {
    /// A channel to `host:port`; it connects when it is first used, and again when it breaks.
    pub fn get(&self, address: &str) -> Result<Channel, PeerError> {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| PeerError(format!("`{address}` is no address: {error}")))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(4))
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let channel = endpoint.connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Raft's messages over gRPC.
pub struct GrpcTransport {
    channels: Channels,
    volume: String,
    cluster: ClusterId,
    lanes: Mutex<BTreeMap<(u64, String), Arc<Lane>>>,
}

impl GrpcTransport {
    pub fn new(volume: String, cluster: ClusterId) -> Self {
        GrpcTransport { channels: Channels::default(), volume, cluster, lanes: Mutex::default() }
    }

    fn client(&self, address: &str) -> Result<PeerClient<Channel>, PeerError> {
        let client = PeerClient::new(self.channels.get(address)?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

impl GrpcTransport {
    async fn ask_on_lane(&self, target: u64, address: &str, body: Vec<u8>, ttl: Duration) -> Result<Vec<u8>, PeerError> {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.entry((target, address.to_owned())).or_default().clone()
        };
        let open = |bodies| {
            let first = self.first(target);
            appends(self.client(address), AppendRequests { kind: Kind::Confirm, bodies: Box::pin(bodies), first })
        };
        let answer = tokio::time::timeout(ttl, lane.ask(body, open)).await;
        answer.unwrap_or_else(|_| Err(PeerError("no answer in time".to_owned())))
    }

    /// What the first request of a stream says.
    fn first(&self, target: u64) -> Option<First> {
        Some((header(&self.volume, 0), u32::from(self.cluster.0), target))
    }
}

fn failed(status: tonic::Status) -> PeerError {
    PeerError(format!("{}: {}", status.code(), status.message()))
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, PeerError>> + Send + 'a>>;

impl PeerTransport for GrpcTransport {
    fn call<'a>(&'a self, target: u64, address: &'a str, call: PeerCall, body: Vec<u8>, ttl: Duration) -> Answer<'a> {
        let kind = match call {
            PeerCall::Append => Kind::Append,
            PeerCall::Vote => Kind::Vote,
            PeerCall::PreVote => Kind::PreVote,
            PeerCall::TransferLeader => Kind::TransferLeader,
            PeerCall::Heal => Kind::Heal,
            PeerCall::Found => Kind::Found,
            PeerCall::Snapshot => return Box::pin(async { Err(PeerError("a snapshot is a stream".to_owned())) }),
            PeerCall::Standing => Kind::Standing,
            PeerCall::Entries => Kind::Entries,
            PeerCall::Confirm => return Box::pin(self.ask_on_lane(target, address, body, ttl)),
        };
        Box::pin(async move {
            let mut request = tonic::Request::new(v1::RaftRequest {
                header: Some(header(&self.volume, 0)),
                cluster: u32::from(self.cluster.0),
                kind: kind.into(),
                body: body.into(),
                target,
            });
            request.set_timeout(ttl);
            let reply = self.client(address)?.raft(request).await.map_err(failed)?;
            Ok(reply.into_inner().body.to_vec())
        })
    }

    fn streams(&self) -> Option<&dyn AppendStreams> {
        Some(self)
    }

    fn snapshot<'a>(&'a self, target: u64, address: &'a str, meta: Vec<u8>, body: SnapshotBody) -> Answer<'a> {
        Box::pin(async move {
            let (chunks, stream) = mpsc::channel(CHUNKS);
            let first = v1::SnapshotChunk {
                header: Some(header(&self.volume, 0)),
                cluster: u32::from(self.cluster.0),
                meta: meta.into(),
                target,
                ..Default::default()
            };
            let reader = std::thread::spawn(move || read_chunks(first, &body, &chunks));
            let mut request = tonic::Request::new(ReceiverStream::new(stream));
            request.set_timeout(SNAPSHOT);
            let reply = self.client(address)?.snapshot(request).await.map_err(failed);
            if reply.is_err() && reader.is_finished() {
                tracing::warn!(address, "a snapshot was not taken");
            }
            Ok(reply?.into_inner().body.to_vec())
        })
    }
}

impl AppendStreams for GrpcTransport {
    fn open<'a>(&'a self, target: u64, address: &'a str, bodies: Bodies) -> PeerStream<'a> {
        let first = self.first(target);
        Box::pin(appends(self.client(address), AppendRequests { kind: Kind::Append, bodies, first }))
    }
}

/// Header, cluster, and the node that is meant.
type First = (v1::Header, u32, u64);

/// Bodies as requests; the first says whom they are for.
struct AppendRequests {
    kind: Kind,
    bodies: Bodies,
    first: Option<First>,
}

impl futures::Stream for AppendRequests {
    type Item = v1::RaftRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<v1::RaftRequest>> {
        let body = ready!(self.bodies.as_mut().poll_next(context));
        let kind = self.kind;
        Poll::Ready(body.map(|body| {
            let request = v1::RaftRequest { kind: kind.into(), body: body.into(), ..Default::default() };
            match self.first.take() {
                Some((header, cluster, target)) => v1::RaftRequest { header: Some(header), cluster, target, ..request },
                None => request,
            }
        }))
    }
}

async fn appends(client: Result<PeerClient<Channel>, PeerError>, requests: AppendRequests) -> Result<Answers, PeerError> {
    let answers = client?.appends(requests).await.map_err(failed)?.into_inner();
    Ok(Box::pin(answers.map(body_of)))
}

fn body_of(reply: Result<v1::RaftReply, tonic::Status>) -> Result<Vec<u8>, PeerError> {
    reply.map(|reply| reply.body.to_vec()).map_err(failed)
}

/// Reads the body into messages until the receiver is gone.
fn read_chunks(first: v1::SnapshotChunk, body: &SnapshotBody, chunks: &mpsc::Sender<v1::SnapshotChunk>) {
    if chunks.blocking_send(first).is_err() {
        return;
    }
    let mut reader = match body.open() {
        Ok(reader) => reader,
        Err(error) => return tracing::error!(%error, "a checkpoint cannot be read"),
    };
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        match reader.by_ref().take(CHUNK as u64).read_to_end(&mut data) {
            Ok(0) => return,
            Ok(_) => {
                if chunks.blocking_send(v1::SnapshotChunk { data: data.into(), ..Default::default() }).is_err() {
                    return;
                }
            }
            Err(error) => return tracing::error!(%error, "a checkpoint cannot be read"),
        }
    }
}
