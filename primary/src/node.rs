//! One node of a metadata cluster: its consensus, its state, and the memory of a leader. Whether it serves as primary
//! or as mirror is said by the state alone (law 23).

use crate::apply::Own;
use crate::dispatch::Dispatch;
use crate::heal::Healing;
use crate::host::SharedHost;
use crate::ingress::{Hub, Ingress};
use crate::lead::Asking;
use crate::local;
use crate::observe::Observations;
use crate::proposal::Proposal;
use crate::raft::log::RaftLog;
use crate::raft::snapshot::{Checkpoints, Meta};
use crate::raft::types::{Payload, Response, Types};
use crate::raft::{Committed, LogStore, Machine, MachineLog, Member, Network, PeerCall, PeerError, PeerTransport};
use crate::standing::Peers;
use crate::wholeness::Wholeness;
use farshore_meta::Header;
use farshore_meta::kv::{KvRead, StorageError, Store};
use farshore_types::{ClusterId, LogTime, NodeId, SharedBody, SharedEntry};
use farshore_wire::admin::NewMember;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{AsyncRuntime, Config, Raft, ReadPolicy, Snapshot, SnapshotPolicy};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Most entries in one replication message (law 27).
const APPEND_ENTRIES: u64 = 256;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub name: String,
    pub volume: String,
    pub region: String,
    pub cluster: ClusterId,
    pub id: NodeId,
    /// Addresses of the other nodes of the cluster by the topology: whom a node asks that has lost what it knew.
    pub peers: Vec<String>,
    /// The highest version of the state machine that this node knows (law 4).
    pub machine: u32,
    /// Microseconds between full syncs.
    pub full_sync_every_us: u64,
    /// Between a leader's heartbeats; also how long one replication message may take.
    pub heartbeat: Duration,
    /// A follower waits this long, drawn anew each time, before it asks for votes: at least, and at most.
    pub election: (Duration, Duration),
    /// A checkpoint is due after so many entries of the Raft log.
    pub checkpoint_entries: u64,
    /// Bytes of log kept for mirrors that are away; past it they must take a snapshot (law 25).
    pub log_retention: u64,
    /// A session that is silent for this long ends.
    pub session_lease: Duration,
    /// Names of the volume's regions by cluster, for views.
    pub regions: BTreeMap<ClusterId, String>,
}

/// What a node is made of.
pub struct NodeParts<S> {
    pub config: NodeConfig,
    pub store: S,
    pub log: Arc<dyn RaftLog>,
    pub checkpoints: Arc<Checkpoints>,
    pub transport: Arc<dyn PeerTransport>,
    pub host: SharedHost,
}

/// A running node.
pub struct Node<R: AsyncRuntime, S: Store> {
    pub config: NodeConfig,
    pub store: S,
    pub log: Arc<dyn RaftLog>,
    pub checkpoints: Arc<Checkpoints>,
    pub host: SharedHost,
    pub hub: Arc<Hub>,
    pub(crate) ingress: Ingress,
    pub(crate) dispatch: Dispatch,
    pub observations: Observations,
    pub(crate) peers: Peers,
    pub(crate) raft: Raft<Types<R>, Machine<R, S>>,
    pub(crate) transport: Arc<dyn PeerTransport>,
    pub(crate) healing: Healing,
    last_time: AtomicU64,
    pub(crate) asking: Asking,
}

/// The node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("consensus could not start: {0}")]
    Raft(String),
    #[error(transparent)]
    Log(#[from] crate::raft::log::LogFailure),
    #[error("the Raft settings contradict each other: {0}")]
    Config(String),
}

/// A proposal was not carried out, or it is not known whether it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not carried out.
    #[error("this node does not lead")]
    NotLeader { leader: Option<String> },
    /// The node stopped or lost its leadership on the way: it may have been carried out.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// The answer to a proposal that is under way.
pub type Pending<R> = openraft::alias::OneshotReceiverOf<Types<R>, ClientWriteResult<Types<R>>>;

fn raft_config(node: &NodeConfig, wholeness: &Wholeness) -> Result<Arc<Config>, StartError> {
    let config = Config {
        cluster_name: node.volume.clone(),
        heartbeat_interval: node.heartbeat.as_millis() as u64,
        election_timeout_min: node.election.0.as_millis() as u64,
        election_timeout_max: node.election.1.as_millis() as u64,
        max_payload_entries: APPEND_ENTRIES,
        enable_pre_vote: Some(true),
        // A leader sends entries before its own disk has them. After a crash it would otherwise lead on in the same term and
        // give the index of an entry that it lost, and a follower has, to another one: two entries under one log id.
        enable_leader_restore: Some(false),
        // Who has no vote does not ask for others' (law 24).
        enable_elect: *wholeness == Wholeness::Member,
        // Our own checkpoints decide what the log may lose: mirrors still need it (law 25).
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| StartError::Config(error.to_string()))
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// Starts consensus and the leader's tasks. The node answers once its cluster was initialised.
    pub async fn start(parts: NodeParts<S>) -> Result<Arc<Self>, StartError> {
        let NodeParts { config, store, log, checkpoints, transport, host } = parts;
        let wholeness = Wholeness::load(&*log)?;
        let hub = Arc::new(Hub::new(host.clone()));
        let flushed = Arc::new(Notify::new());
        let committed = Committed::default();
        let seen = MachineLog { log: log.clone(), flushed: flushed.clone(), committed: committed.clone() };
        let peers = Peers::new(host.boot_us());
        let own = Own { cluster: config.cluster, machine: config.machine };
        let machine = Machine::new(own, store.clone(), seen, checkpoints.clone(), hub.clone(), host.clone());
        let raft = Raft::new(
            config.id.0,
            raft_config(&config, &wholeness)?,
            Network::<R>::new(transport.clone()),
            LogStore::<R>::new(log.clone(), flushed.clone(), committed),
            machine,
        )
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;
        let (ingress, queues) = Ingress::new();
        let node = Arc::new(Node {
            ingress,
            dispatch: Dispatch::new(),
            observations: Observations::default(),
            peers,
            config,
            store,
            log,
            checkpoints,
            host,
            hub,
            raft,
            transport,
            healing: Healing::new(wholeness),
            last_time: AtomicU64::new(0),
            asking: Asking::default(),
        });
        crate::ingress::spawn(&node, queues, flushed);
        crate::duties::spawn(&node);
        crate::heal::spawn(&node);
        let (checkpoints, proving) = (node.checkpoints.clone(), Arc::downgrade(&node));
        node.host.run(Box::new(move || {
            if let Err(error) = checkpoints.prove(|| Some(proving.upgrade()?.store.clone())) {
                tracing::error!(%error, "a damaged checkpoint was not replaced");
            }
        }));
        Ok(node)
    }

    /// Makes the cluster out of these nodes; repeating it is no error.
    pub async fn initialize(&self, new: &[NewMember]) -> Result<(), String> {
        let members: BTreeMap<u64, Member> =
            new.iter().map(|member| (member.id, Member::new(&member.name, &member.address))).collect();
        if self.raft.is_initialized().await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        self.found(new).await?;
        self.raft.initialize(members).await.map_err(|error| error.to_string())
    }

    /// Why consensus no longer runs, if it does not: also when it died without saying so.
    pub async fn fatal(&self) -> Option<String> {
        self.raft.is_initialized().await.err().map(|fatal| fatal.to_string())
    }

    pub async fn is_initialized(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(false)
    }

    /// Whether this node believes that it leads; only [`Node::confirm_lead`] knows.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// The id of the leader, as far as it is known here.
    pub async fn leader(&self) -> Option<NodeId> {
        self.raft.current_leader().await.map(NodeId)
    }

    /// The leader's address, as far as it is known here.
    pub async fn leader_address(&self) -> Option<String> {
        let leader = self.leader().await?;
        self.address_of(leader)
    }

    /// Returns once this node has proven, after the call began, that it leads, and has applied all that was committed
    /// before: what is read afterwards is linearizable (ReadIndex).
    pub async fn confirm_lead(&self) -> Result<(), ProposeError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(error) => Err(ProposeError::NotLeader { leader: self.forwarded(error.to_string()).await }),
        }
    }

    async fn forwarded(&self, why: String) -> Option<String> {
        tracing::debug!(%why, "not the leader");
        if self.is_leader() { None } else { self.leader_address().await }
    }

    /// A snapshot of the state as this node has it.
    pub fn read(&self) -> Result<Box<dyn KvRead + '_>, StorageError> {
        self.store.read()
    }

    /// The shared state's header as this node has it.
    pub fn header(&self) -> Result<Header, StorageError> {
        farshore_meta::header(&*self.read()?)
    }

    /// Whether the lineage says that this cluster may write.
    pub fn is_primary(&self, header: &Header) -> bool {
        header.lineage.head().is_some_and(|epoch| epoch.id.cluster == self.config.cluster)
    }

    /// Whether this cluster follows another one: it knows a volume, and is not its primary.
    pub fn follows(&self) -> Result<bool, StorageError> {
        let kv = self.read()?;
        let header = farshore_meta::header(&*kv)?;
        Ok(local::home_volume(&*kv)?.is_some() && !self.is_primary(&header))
    }

    /// A shared entry of the present epoch, stamped with a time that never goes back (microseconds).
    pub fn entry(&self, header: &Header, body: SharedBody) -> SharedEntry {
        let floor = self.last_time.load(Ordering::Relaxed).max(header.time.0) + 1;
        let time = floor.max(self.host.wall_us());
        self.last_time.store(time, Ordering::Relaxed);
        SharedEntry { epoch: header.lineage.head_id(), time: LogTime(time), body }
    }

    /// Hands a proposal to consensus; the order of calls is the order in the log.
    pub async fn submit(&self, proposal: &Proposal) -> Result<Pending<R>, ProposeError> {
        let (responder, pending) = ProgressResponder::complete_only();
        let sent = self.raft.client_write_ff(Payload(proposal.encode()), Some(responder)).await;
        sent.map_err(|error| ProposeError::Unknown(error.to_string()))?;
        Ok(pending)
    }

    /// Waits for the answer to a submitted proposal.
    pub async fn finish(&self, pending: Pending<R>) -> Result<Response, ProposeError> {
        match pending.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                let leader = to.leader_id.and_then(|id| self.address_of(NodeId(id)));
                Err(ProposeError::NotLeader { leader })
            }
            Ok(Err(error)) => Err(ProposeError::Unknown(error.to_string())),
            Err(_) => Err(ProposeError::Unknown("the node stopped on the way".to_owned())),
        }
    }

    /// Proposes and waits until it is applied here.
    pub async fn propose(&self, proposal: &Proposal) -> Result<Response, ProposeError> {
        let pending = self.submit(proposal).await?;
        self.finish(pending).await
    }

    /// Proposes a shared entry of the present epoch.
    pub async fn propose_shared(&self, body: SharedBody) -> Result<Response, ProposeError> {
        let header = self.header().map_err(|error| ProposeError::Unknown(error.to_string()))?;
        let canonical = farshore_meta::encode_entry(&self.entry(&header, body));
        self.propose(&Proposal::Shared(canonical)).await
    }

    /// Answers one Raft call of a peer.
    pub async fn handle_peer(&self, call: PeerCall, body: &[u8]) -> Result<Vec<u8>, PeerError> {
        self.healing.admit(call)?;
        if call == PeerCall::Append {
            self.peers.heard(self.host.boot_us());
        }
        match call {
            PeerCall::Standing | PeerCall::Entries => self.answer_peer(call, body),
            PeerCall::Append => answer(self.raft.append_entries(request(body)?).await),
            PeerCall::Vote => answer(self.raft.vote(request(body)?).await),
            PeerCall::PreVote => answer(self.raft.pre_vote(request(body)?).await),
            PeerCall::TransferLeader => {
                answer(self.raft.handle_transfer_leader(request(body)?).await.map_err(RaftError::<Types<R>>::Fatal))
            }
            PeerCall::Confirm => answer(self.answer_confirm(request(body)?)),
            PeerCall::Heal => answer(self.tell(request(body)?).await),
            PeerCall::Found => answer(self.be_founded()),
            PeerCall::Snapshot => Err(PeerError("a snapshot is a stream".to_owned())),
        }
    }

    /// Installs a snapshot that a peer sends. The body is kept as a checkpoint first (hazard 7.2).
    pub async fn handle_snapshot(&self, meta: &[u8], mut from: Box<dyn std::io::Read + Send>) -> Result<Vec<u8>, PeerError> {
        self.healing.admit(PeerCall::Snapshot)?;
        let (vote, meta): (VoteOf<Types<R>>, Meta) = request(meta)?;
        self.peers.heard(self.host.boot_us());
        tracing::info!(at = ?meta.last_log_id, "receiving a snapshot from the leader");
        let (done, received) = tokio::sync::oneshot::channel();
        let (checkpoints, of) = (self.checkpoints.clone(), meta.clone());
        self.host.run(Box::new(move || drop(done.send(checkpoints.receive(&of, &mut *from)))));
        let received = received.await.map_err(|_| PeerError("the thread that receives snapshots died".to_owned()))?;
        let snapshot = received.map_err(|error| PeerError(error.to_string()))?;
        let snapshot: SnapshotOf<Types<R>, _> = Snapshot { meta, snapshot };
        answer(self.raft.install_full_snapshot(vote, snapshot).await.map_err(RaftError::<Types<R>>::Fatal))
    }

    /// Asks consensus for a checkpoint now.
    pub async fn checkpoint(&self) -> Result<(), ProposeError> {
        self.raft.trigger().snapshot().await.map_err(|error| ProposeError::Unknown(error.to_string()))
    }

    /// Lets the log go up to this index of openraft's (inclusive).
    pub async fn purge_log(&self, upto: u64) -> Result<(), ProposeError> {
        self.raft.trigger().purge_log(upto).await.map_err(|error| ProposeError::Unknown(error.to_string()))
    }

    /// openraft's metrics as they are now.
    pub fn raft_metrics(&self) -> openraft::RaftMetrics<Types<R>> {
        use openraft::async_runtime::watch::WatchReceiver;
        self.raft.metrics().borrow_watched().clone()
    }

    /// Stops consensus; the node answers nothing afterwards.
    pub async fn shutdown(&self) {
        self.hub.stop();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
    }
}

fn request<T: DeserializeOwned>(body: &[u8]) -> Result<T, PeerError> {
    postcard::from_bytes(body).map_err(|error| PeerError(format!("a Raft message cannot be decoded: {error}")))
}

fn answer<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Result<Vec<u8>, PeerError> {
    let value = result.map_err(|error| PeerError(error.to_string()))?;
    Ok(postcard::to_stdvec(&value).expect("Raft's messages always serialise into memory"))
}
