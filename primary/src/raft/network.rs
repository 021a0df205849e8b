//! openraft's network over a [`PeerTransport`]: gRPC between nodes, a function call with a delay in the simulator.

use super::appends;
use super::member::Member;
use super::snapshot::SnapshotBody;
use super::types::{LeaderId, Types};
use futures::Stream;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::BoxFuture;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AsyncRuntime, OptionalSend, RaftNetworkFactory, RaftNetworkV2, SnapshotMeta};
use serde::{Serialize, de::DeserializeOwned};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

/// Which call of Raft a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerCall {
    Append,
    Vote,
    PreVote,
    TransferLeader,
    /// A snapshot; it has a call of its own.
    Snapshot,
    /// A node without a vote asks what the others know (law 24).
    Heal,
    /// A cluster is about to be made.
    Found,
    /// How the node stands, and how it says that the asking one does.
    Standing,
    /// Entries of its log, for a leader whose own log begins later.
    Entries,
    /// Whether the node knows no vote above the asking leader's.
    Confirm,
}

/// The peer did not answer, or answered that it cannot.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PeerError(pub String);

/// A future of a transport.
pub type PeerFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, PeerError>> + Send + 'a>>;

/// Encoded messages on their way.
pub type Bodies = Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>;
/// The answers to them, in their order.
pub type Answers = Pin<Box<dyn Stream<Item = Result<Vec<u8>, PeerError>> + Send>>;
/// A stream of calls that is being opened.
pub type PeerStream<'a> = Pin<Box<dyn Future<Output = Result<Answers, PeerError>> + Send + 'a>>;

/// A transport whose next append leaves before the last is answered.
pub trait AppendStreams: Send + Sync {
    /// Opens a stream of [`PeerCall::Append`]s.
    fn open<'a>(&'a self, target: u64, address: &'a str, requests: Bodies) -> PeerStream<'a>;
}

/// Carries Raft's messages to the other nodes of the cluster.
pub trait PeerTransport: Send + Sync + 'static {
    /// Sends one call and waits for its answer, no longer than `ttl`.
    fn call<'a>(
        &'a self,
        target: u64,
        address: &'a str,
        call: PeerCall,
        body: Vec<u8>,
        ttl: std::time::Duration,
    ) -> PeerFuture<'a>;
    /// The same transport, if it can stream appends; else each is a call of its own.
    fn streams(&self) -> Option<&dyn AppendStreams> {
        None
    }
    /// Sends a whole snapshot and waits until it is installed.
    fn snapshot<'a>(&'a self, target: u64, address: &'a str, meta: Vec<u8>, body: SnapshotBody) -> PeerFuture<'a>;
}

/// openraft's network factory.
pub struct Network<R> {
    transport: Arc<dyn PeerTransport>,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Network<R> {
    pub fn new(transport: Arc<dyn PeerTransport>) -> Self {
        Network { transport, runtime: PhantomData }
    }
}

/// openraft's connection to one peer.
pub struct Connection<R> {
    transport: Arc<dyn PeerTransport>,
    target: u64,
    address: String,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = Connection<R>;

    async fn new_client(&mut self, target: u64, node: &Member) -> Connection<R> {
        Connection { transport: self.transport.clone(), target, address: node.address.clone(), runtime: PhantomData }
    }
}

/// What a peer's failure is for openraft.
pub(super) fn unreachable<R: AsyncRuntime>(error: PeerError) -> RPCError<Types<R>> {
    RPCError::Unreachable(Unreachable::new(&error))
}

/// A stream of appends that is being opened.
type Appending<'s, R> = BoxFuture<'s, Result<appends::Appended<'s, R>, RPCError<Types<R>>>>;

impl<R: AsyncRuntime> Connection<R> {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: PeerCall,
        request: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError<Types<R>>> {
        let body = postcard::to_stdvec(request).expect("Raft's messages always serialise into memory");
        let answer = self.transport.call(self.target, &self.address, call, body, option.hard_ttl()).await.map_err(unreachable)?;
        postcard::from_bytes(&answer).map_err(|error| unreachable(PeerError(format!("the answer cannot be decoded: {error}"))))
    }
}

impl<R: AsyncRuntime> RaftNetworkV2<Types<R>> for Connection<R> {
    type SnapshotData = SnapshotBody;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        self.call(PeerCall::Append, &rpc, &option).await
    }

    fn stream_append<'s, S>(&'s mut self, input: S, option: RPCOption) -> Appending<'s, R>
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
    {
        if self.transport.streams().is_none() {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let streams = self.transport.streams().expect("it was asked just now");
            appends::stream::<R, S>(streams, (self.target, &self.address), input, option.hard_ttl()).await
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        self.call(PeerCall::Vote, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        self.call(PeerCall::PreVote, &rpc, &option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        self.call(PeerCall::TransferLeader, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types<R>>,
        snapshot: SnapshotOf<Types<R>, SnapshotBody>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let meta: (VoteOf<Types<R>>, SnapshotMeta<LeaderId, u64, Member>) = (vote, snapshot.meta);
        let meta = postcard::to_stdvec(&meta).expect("Raft's messages always serialise into memory");
        let unreachable = |error: PeerError| StreamingError::Unreachable(Unreachable::new(&error));
        let answer = self.transport.snapshot(self.target, &self.address, meta, snapshot.snapshot).await.map_err(unreachable)?;
        postcard::from_bytes(&answer).map_err(|error| unreachable(PeerError(format!("the answer cannot be decoded: {error}"))))
    }
}
