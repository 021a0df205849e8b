//! The tail: the mirror's leader follows the primary's changelog by cursor, proposes each entry to its own Raft, and
//! acknowledges what is committed there. Checks here are an optimisation; the judge decides in apply (law 3).

use crate::snapshot;
use crate::upstream::{Upstream, UpstreamError};
use farshore_changelog::extend;
use farshore_meta::kv::{StorageError, Store};
use farshore_primary::raft::types::{Refusal, Response};
use farshore_primary::telemetry::Component;
use farshore_primary::{Node, Proposal, ProposeError, UpstreamSeen, local};
use farshore_syncer::LocalOp;
use farshore_types::{Chain, ClusterId, Digest, Lineage, LogIndex};
use farshore_wire::v1::{
    self, ChangelogFrame, TailFrame, changelog_frame::Frame as In, tail_frame::Frame as Out, tail_refused::Kind as Why,
};
use farshore_wire::{CodecError, Packing, decode, encode, header};
use futures::FutureExt;
use openraft::AsyncRuntime;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// Proposals under way at once; past it the tail waits for the oldest.
const IN_FLIGHT: usize = 512;
/// Pause between acknowledgements of an idle stream, and the longest wait for a frame.
const ACKNOWLEDGE: Duration = Duration::from_millis(100);
/// A primary that says nothing for so long is taken for gone; it beats five times a second.
const SILENCE: Duration = Duration::from_secs(3);
/// Pause between attempts to find the primary: first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Acknowledgements that may wait.
const FRAMES: usize = 16;

/// Where the other clusters are.
#[derive(Clone, Debug)]
pub struct TailConfig {
    /// Addresses of the nodes of all other clusters.
    pub others: Vec<(ClusterId, Vec<String>)>,
}

/// Why a tail ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("refused: {text}")]
    Refused { kind: Why, text: String, leader: String },
    #[error("the primary was silent for {SILENCE:?}")]
    Silent,
    #[error("the stream ended")]
    Closed,
    #[error("the judge refused entry {index}: {why:?}")]
    Judged { index: LogIndex, why: Refusal },
    #[error("this cluster differs from its primary at {0}")]
    Diverged(LogIndex),
    #[error("the primary's message is malformed: {0}")]
    Malformed(&'static str),
}

/// Starts the tail; it works while this node leads a cluster that follows another one.
pub fn spawn<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, upstream: Arc<dyn Upstream>, config: TailConfig) {
    drop(R::spawn(run(Arc::downgrade(node), upstream, config)));
}

async fn run<R: AsyncRuntime, S: Store>(node: Weak<Node<R, S>>, upstream: Arc<dyn Upstream>, config: TailConfig) {
    let (mut at, mut pause) = (0, PAUSE.0);
    let mut hint: Option<String> = None;
    loop {
        let Some(node) = node.upgrade() else { return };
        if node.hub.stop_reason().is_some() || config.others.is_empty() {
            return;
        }
        node.alive(Component::Tailer);
        if !works(&node) {
            drop(node);
            R::sleep(PAUSE.0).await;
            continue;
        }
        let addresses = addresses(&node, &config);
        let address = hint.take().unwrap_or_else(|| addresses[at % addresses.len()].clone());
        let began = node.host.boot_us();
        let ended = tail(&node, &*upstream, &address).await;
        tracing::debug!(%address, error = %ended, "the tail ended");
        // A tail that worked for a while starts again at once; one that never began waits longer each time.
        pause = if node.host.boot_us() - began > 1_000_000 { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        match &ended {
            Ended::Refused { kind: Why::NotLeader, leader, .. } if !leader.is_empty() => hint = Some(leader.clone()),
            Ended::Refused { kind: Why::Trimmed, .. } => {
                if let Err(error) = snapshot::take(&node, &*upstream, &address).await {
                    tracing::warn!(%error, "the primary's snapshot was not taken; trying again");
                }
            }
            Ended::Refused { kind: Why::Fork, text, .. } => tracing::error!(%text, "this mirror's history is not the primary's"),
            Ended::Diverged(index) => diverge(&node, *index).await,
            _ => at += 1,
        }
        drop(node);
        R::sleep(pause).await;
    }
}

/// Where the other clusters' nodes are: as they told last, then as the topology says.
fn addresses<R: AsyncRuntime, S: Store>(node: &Node<R, S>, config: &TailConfig) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    for (cluster, declared) in &config.others {
        let told = node.read().and_then(|kv| local::nodes_of(&*kv, *cluster)).unwrap_or_default();
        for address in told.iter().chain(declared) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
    }
    all
}

fn works<R: AsyncRuntime, S: Store>(node: &Node<R, S>) -> bool {
    let diverged = node.read().and_then(|kv| local::diverged(&*kv)).ok().flatten();
    node.is_leader() && node.follows().unwrap_or(false) && diverged.is_none()
}

/// A difference is an alarm, and stops the mirror from claiming to be one (law 2).
async fn diverge<R: AsyncRuntime, S: Store>(node: &Node<R, S>, index: LogIndex) {
    tracing::error!(%index, "the digest differs from the primary's: this cluster is no mirror any more");
    if let Err(error) = node.propose(&Proposal::Diverged { index }).await {
        tracing::warn!(%error, "the divergence was not recorded; it will be found again");
    }
}

/// The answer to a proposal that is under way.
type Answer = Pin<Box<dyn Future<Output = Result<Response, ProposeError>> + Send>>;

/// One stream's state.
struct Stream {
    out: mpsc::Sender<TailFrame>,
    /// Proposals under way, in order.
    pending: VecDeque<(LogIndex, Answer)>,
    /// The next entry that is expected, and the chain before it.
    next: LogIndex,
    chain: Chain,
    packing: Packing,
    followed: Lineage,
    acknowledged_us: u64,
}

async fn tail<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, upstream: &dyn Upstream, address: &str) -> Ended {
    match follow(node, upstream, address).await {
        Ok(()) => Ended::Closed,
        Err(ended) => ended,
    }
}

async fn follow<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, upstream: &dyn Upstream, address: &str) -> Result<(), Ended> {
    node.confirm_lead().await?;
    let (out, frames) = mpsc::channel(FRAMES);
    let mut stream = start(node, out).await?;
    let mut input = upstream.tail(address, frames).await?;
    let mut heard = node.host.boot_us();
    loop {
        node.alive(Component::Tailer);
        match R::timeout(ACKNOWLEDGE, input.recv()).await {
            Ok(Some(frame)) => {
                heard = node.host.boot_us();
                take_frame(node, &mut stream, address, frame).await?;
            }
            Ok(None) => return Ok(()),
            Err(_) if node.host.boot_us() - heard > SILENCE.as_micros() as u64 => return Err(Ended::Silent),
            Err(_) => {}
        }
        // What is under way goes on while the next frame comes.
        settle_finished(&mut stream)?;
        if !works(node) {
            return Ok(());
        }
        acknowledge(node, &mut stream).await?;
    }
}

async fn start<R: AsyncRuntime, S: Store>(node: &Node<R, S>, out: mpsc::Sender<TailFrame>) -> Result<Stream, Ended> {
    let (position, followed, group) = {
        let kv = node.read()?;
        let group = local::home_volume(&*kv)?.map_or(0, |volume| volume.group.0);
        (farshore_meta::header(&*kv)?, local::followed(&*kv)?, group)
    };
    let start = v1::TailStart {
        header: Some(header(&node.config.volume, group)),
        cluster: u32::from(node.config.cluster.0),
        cursor: position.index.0,
        chain: position.chain.0.to_vec().into(),
        lineage: encode(&position.lineage),
        takes_short: true,
    };
    let sent = out.send(TailFrame { frame: Some(Out::Start(start)) }).await;
    sent.map_err(|_| Ended::Closed)?;
    let (next, chain) = (position.index.next(), position.chain);
    Ok(Stream { out, pending: VecDeque::new(), next, chain, packing: Packing::default(), followed, acknowledged_us: 0 })
}

async fn take_frame<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    stream: &mut Stream,
    address: &str,
    frame: ChangelogFrame,
) -> Result<(), Ended> {
    match frame.frame {
        Some(In::Batch(batch)) => take_batch(node, stream, batch).await,
        Some(In::Beat(beat)) => take_beat(node, stream, address, beat).await,
        Some(In::Refused(refused)) => Err(Ended::Refused { kind: refused.kind(), text: refused.text, leader: refused.leader }),
        None => Err(Ended::Malformed("an empty frame")),
    }
}

async fn take_batch<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    stream: &mut Stream,
    batch: v1::Batch,
) -> Result<(), Ended> {
    // The stream began at a chain on which both sides agreed, and has no gap: a small batch need not say it again.
    let chained = batch.chain.is_empty() || batch.chain[..] == stream.chain.0[..];
    if batch.first != stream.next.0 || !chained {
        return Err(Ended::Malformed("a batch that does not follow the last one"));
    }
    let entries = if batch.packed.is_empty() {
        stream.packing.pass(&batch.entries);
        batch.entries
    } else {
        let unpacked = stream.packing.unpack(&batch.packed, batch.unpacked_bytes as usize);
        unpacked.map_err(|error| {
            tracing::warn!(%error, "the changelog cannot be read");
            Ended::Malformed("a packed batch that cannot be read")
        })?
    };
    for canonical in entries {
        let index = stream.next;
        let epoch = farshore_meta::epoch_of_entry(&canonical).ok_or(Ended::Malformed("an entry of an unknown version"))?;
        let previous = stream.chain;
        stream.chain = extend(&previous, index, &canonical);
        stream.next = index.next();
        let proposal = Proposal::Mirrored { index, previous, epoch, canonical: canonical.to_vec() };
        let pending = node.submit(&proposal).await?;
        let proposer = node.clone();
        stream.pending.push_back((index, Box::pin(async move { proposer.finish(pending).await })));
        settle(stream, IN_FLIGHT).await?;
    }
    Ok(())
}

/// Waits until at most `left` proposals are under way, and looks at what became of the others.
async fn settle(stream: &mut Stream, left: usize) -> Result<(), Ended> {
    while stream.pending.len() > left {
        let Some((index, pending)) = stream.pending.pop_front() else { break };
        judged(index, pending.await?)?;
    }
    Ok(())
}

/// Looks at what became of the proposals that are answered already, and waits for none.
fn settle_finished(stream: &mut Stream) -> Result<(), Ended> {
    while let Some((index, pending)) = stream.pending.front_mut() {
        let Some(answer) = pending.as_mut().now_or_never() else { break };
        let index = *index;
        stream.pending.pop_front();
        judged(index, answer?)?;
    }
    Ok(())
}

fn judged(index: LogIndex, response: Response) -> Result<(), Ended> {
    match response {
        Response::Refused { why: Refusal::Duplicate, .. } | Response::Shared { .. } => Ok(()),
        Response::Refused { why, .. } => Err(Ended::Judged { index, why }),
        _ => Err(Ended::Malformed("a shared entry that was answered as a local one")),
    }
}

async fn take_beat<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    stream: &mut Stream,
    address: &str,
    beat: v1::Beat,
) -> Result<(), Ended> {
    let lineage: Lineage = decode(&beat.lineage)?;
    if lineage != stream.followed {
        node.propose(&Proposal::Follow { lineage: lineage.clone() }).await?;
        stream.followed = lineage;
    }
    learn_nodes(node, &stream.followed, &beat.nodes).await?;
    let figures = serde_json::from_slice(&beat.figures).map_err(|_| Ended::Malformed("figures"))?;
    *node.observations.upstream() = Some(UpstreamSeen {
        committed: LogIndex(beat.committed),
        behind_us: beat.behind_ms * 1000,
        figures,
        heard_us: node.host.boot_us(),
        now_us: beat.now_us,
        address: address.to_owned(),
    });
    learn_floors(node, &decode::<Vec<(ClusterId, LogIndex, Lineage)>>(&beat.floors)?).await?;
    compare_digest(node, stream, &beat).await
}

/// Keeps where the primary's nodes are, for whoever leads this cluster next.
async fn learn_nodes<R: AsyncRuntime, S: Store>(node: &Node<R, S>, followed: &Lineage, told: &[String]) -> Result<(), Ended> {
    let Some(primary) = followed.head().map(|epoch| epoch.id.cluster) else { return Ok(()) };
    {
        let kv = node.read()?;
        if told.is_empty() || local::nodes_of(&*kv, primary)? == told {
            return Ok(());
        }
    }
    node.propose(&Proposal::Nodes { cluster: primary, addresses: told.to_vec() }).await?;
    Ok(())
}

/// What the others promised; needed for the deletions in this region's own bucket (law 14).
async fn learn_floors<R: AsyncRuntime, S: Store>(
    node: &Node<R, S>,
    floors: &[(ClusterId, LogIndex, Lineage)],
) -> Result<(), Ended> {
    let news: Vec<_> = {
        let kv = node.read()?;
        let mut news = vec![];
        for (cluster, floor, lineage) in floors.iter().filter(|(cluster, ..)| *cluster != node.config.cluster) {
            if *floor > farshore_syncer::known_floor(&*kv, *cluster, lineage)? {
                news.push((*cluster, *floor, lineage.clone()));
            }
        }
        news
    };
    if !news.is_empty() {
        node.propose(&Proposal::Local(LocalOp::KnownFloors(news))).await?;
    }
    Ok(())
}

async fn compare_digest<R: AsyncRuntime, S: Store>(node: &Node<R, S>, stream: &mut Stream, beat: &v1::Beat) -> Result<(), Ended> {
    let Ok(theirs) = <[u8; 16]>::try_from(&beat.digest[..]).map(u128::from_be_bytes).map(Digest) else { return Ok(()) };
    settle(stream, 0).await?;
    let index = LogIndex(beat.digest_index);
    let kv = node.read()?;
    let ours = if farshore_meta::header(&*kv)?.index == index {
        Some(farshore_meta::digest(&*kv)?)
    } else {
        local::digest_at(&*kv, index)?
    };
    match ours {
        Some(ours) if ours != theirs => Err(Ended::Diverged(index)),
        _ => Ok(()),
    }
}

/// Everything acknowledged is committed in this cluster's own Raft: it was applied by its leader.
async fn acknowledge<R: AsyncRuntime, S: Store>(node: &Node<R, S>, stream: &mut Stream) -> Result<(), Ended> {
    let now = node.host.boot_us();
    if now - stream.acknowledged_us < ACKNOWLEDGE.as_micros() as u64 / 2 {
        return Ok(());
    }
    stream.acknowledged_us = now;
    let frame = {
        let kv = node.read()?;
        let position = farshore_meta::header(&*kv)?;
        let floor = match farshore_syncer::home(&*kv)? {
            Some(_) => farshore_syncer::floor(&*kv, &position.lineage)?,
            None => LogIndex(0),
        };
        let figures = node.figures()?;
        v1::Acknowledge {
            applied: position.index.0,
            floor: floor.0,
            lineage: encode(&position.lineage),
            diverged: figures.diverged,
            figures: serde_json::to_vec(&figures).expect("figures always serialise").into(),
            digest_index: position.index.0,
            digest: farshore_meta::digest(&*kv)?.0.to_be_bytes().to_vec().into(),
            machine: node.machine_of_all(now).unwrap_or(0),
        }
    };
    let sent = stream.out.send(TailFrame { frame: Some(Out::Acknowledge(frame)) }).await;
    sent.map_err(|_| Ended::Closed)
}
