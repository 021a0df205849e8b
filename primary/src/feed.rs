//! The changelog's source: streams shared entries to a mirror's leader by cursor, with heartbeats, and hears its
//! acknowledgements. Only the leader of the primary feeds, and only what it has applied, which is committed.

use crate::dispatch;
use crate::local::{self, Position};
use crate::node::Node;
use crate::observe::MirrorSeen;
use crate::proposal::Proposal;
use crate::raft::types::{Entry, EntryPayload};
use farshore_changelog::extend;
use farshore_meta::kv::{KvRead, StorageError, Store};
use farshore_syncer::LocalOp;
use farshore_types::{Chain, ClusterId, Digest, EpochId, Lineage, LogIndex};
use farshore_wire::v1::{
    self, Acknowledge, ChangelogFrame, TailFrame, TailRefused, TailStart, changelog_frame::Frame as Out, tail_frame::Frame as In,
    tail_refused::Kind as Why,
};
use farshore_wire::{Packing, check_header, decode, encode};
use openraft::AsyncRuntime;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Entries in one batch, inclusive.
const BATCH: u64 = 512;
/// Bytes of log read for one batch.
const BATCH_BYTES: usize = 1 << 20;
/// Pause between heartbeats of an idle stream.
const BEAT: Duration = Duration::from_millis(200);
/// Bytes of entries with which a batch is full.
const FULL_BYTES: usize = 64 << 10;
/// Bytes of entries after which a batch says its chain again.
const CHAINED_BYTES: usize = 4 << 10;
/// Pause after a batch that was not full: what is applied meanwhile goes together, since every frame, and every entry that comes
/// alone, has a price of its own in all nodes of the mirror. It is doubled, up to the second one, as long as there is something to
/// send behind each: a lone change is not held up, a stream of them costs a third to a half less (docs/PERFORMANCE.md).
const GATHER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));

fn refused(kind: Why, text: impl Into<String>) -> TailRefused {
    TailRefused { kind: kind.into(), text: text.into(), leader: String::new() }
}

fn storage(error: StorageError) -> TailRefused {
    refused(Why::Invalid, error.to_string())
}

/// A mirror that is being fed.
struct Tail {
    cluster: ClusterId,
    cursor: LogIndex,
    acknowledged: LogIndex,
    /// How batches are made short; `None`: the mirror takes only whole ones.
    short: Option<Short>,
}

/// How batches for one mirror are made short.
struct Short {
    packing: Packing,
    /// Bytes of entries in batches without a chain, since one with it.
    unchained: usize,
}

impl Short {
    /// The first batch has a chain.
    fn new() -> Short {
        Short { packing: Packing::default(), unchained: CHAINED_BYTES }
    }

    /// Whether the chain before entries of so many bytes goes with them. It has half the bytes of one create's batch.
    fn needs_chain(&mut self, bytes: usize) -> bool {
        let needed = self.unchained >= CHAINED_BYTES;
        self.unchained = if needed { 0 } else { self.unchained } + bytes;
        needed
    }
}

impl Tail {
    /// Of entries that have so many bytes.
    fn batch(&mut self, first: LogIndex, chain: Chain, entries: Vec<prost::bytes::Bytes>, bytes: usize) -> v1::Batch {
        let mut batch = v1::Batch { first: first.0, chain: chain.0.to_vec().into(), entries, ..Default::default() };
        let Some(short) = &mut self.short else { return batch };
        if !short.needs_chain(bytes) {
            batch.chain.clear();
        }
        if let Some((packed, length)) = short.packing.pack(&batch.entries) {
            batch.entries.clear();
            (batch.packed, batch.unpacked_bytes) = (packed.into(), length as u32);
        }
        batch
    }
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// Feeds one mirror until either side ends the stream.
    pub async fn serve_tail(self: &Arc<Self>, mut input: mpsc::Receiver<TailFrame>, output: mpsc::Sender<ChangelogFrame>) {
        let refusal = match input.recv().await {
            Some(TailFrame { frame: Some(In::Start(start)) }) => match self.tail_start(start).await {
                Ok(mut tail) => {
                    let result = self.feed(&mut tail, &mut input, &output).await;
                    if let Some(seen) = self.observations.mirrors().get_mut(&tail.cluster) {
                        seen.connected = false;
                    }
                    result.err()
                }
                Err(refusal) => Some(refusal),
            },
            _ => Some(refused(Why::Invalid, "a tail begins with TailStart")),
        };
        if let Some(refusal) = refusal {
            // A mirror that is gone need not hear it.
            let _ = output.send(ChangelogFrame { frame: Some(Out::Refused(refusal)) }).await;
        }
    }

    async fn tail_start(&self, start: TailStart) -> Result<Tail, TailRefused> {
        let group = {
            let kv = self.read().map_err(storage)?;
            farshore_meta::volume(&*kv).map_err(storage)?.map_or(0, |volume| volume.group.0)
        };
        check_header(start.header.as_ref(), &self.config.volume, group)
            .map_err(|error| refused(Why::Unsupported, error.to_string()))?;
        if self.confirm_lead().await.is_err() {
            let leader = self.leader_address().await.unwrap_or_default();
            return Err(TailRefused { leader, ..refused(Why::NotLeader, "this node does not lead") });
        }
        let kv = self.read().map_err(storage)?;
        let header = farshore_meta::header(&*kv).map_err(storage)?;
        if !self.is_primary(&header) {
            return Err(refused(Why::Fenced, "this cluster is not the primary"));
        }
        let theirs: Lineage = decode(&start.lineage).map_err(|error| refused(Why::Invalid, error.to_string()))?;
        let cursor = LogIndex(start.cursor);
        if cursor > header.index || header.lineage.fork_index(&theirs).is_some_and(|fork| fork < cursor) {
            return Err(refused(Why::Fork, format!("the mirror is at {cursor} of another history")));
        }
        let chain = chain_at(&*kv, cursor).map_err(storage)?;
        if chain.is_some_and(|chain| chain.0[..] != start.chain[..]) {
            return Err(refused(Why::Fork, format!("the mirror's chain at {cursor} is another one")));
        }
        if chain.is_none() || (cursor < header.index && local::position(&*kv, cursor.next()).map_err(storage)?.is_none()) {
            let first = local::first_position(&*kv).map_err(storage)?.unwrap_or(header.index);
            return Err(refused(Why::Trimmed, format!("the log begins at {first}, the mirror is at {cursor}")));
        }
        let cluster = ClusterId(u8::try_from(start.cluster).map_err(|_| refused(Why::Invalid, "no such cluster"))?);
        let short = start.takes_short.then(Short::new);
        Ok(Tail { cluster, cursor, acknowledged: cursor, short })
    }

    async fn feed(
        self: &Arc<Self>,
        tail: &mut Tail,
        input: &mut mpsc::Receiver<TailFrame>,
        output: &mpsc::Sender<ChangelogFrame>,
    ) -> Result<(), TailRefused> {
        let mut beaten: Option<(u64, EpochId)> = None;
        let mut pause = GATHER.0;
        loop {
            while let Ok(frame) = input.try_recv() {
                self.hear(tail, frame)?;
            }
            if !self.is_leader() || self.hub.stop_reason().is_some() {
                return Err(refused(Why::NotLeader, "this node does not lead any more"));
            }
            // The beat goes first: the mirror must know the lineage before it judges an entry of a new epoch.
            let (now, head) = (self.host.boot_us(), self.header().map_err(storage)?.lineage.head_id());
            if beaten.is_none_or(|(last, told)| now - last >= BEAT.as_micros() as u64 || told != head) {
                beaten = Some((now, head));
                let beat = self.beat(tail).map_err(storage)?;
                if output.send(ChangelogFrame { frame: Some(Out::Beat(beat)) }).await.is_err() {
                    return Ok(());
                }
            }
            // Before the state is read: what is applied in between must wake this loop.
            let moved = self.hub.changed.notified();
            let next = self.next_batch(tail).await?;
            let idle = next.is_none();
            if let Some((batch, unpacked)) = next {
                let full = unpacked >= FULL_BYTES;
                let frame = ChangelogFrame { frame: Some(Out::Batch(batch)) };
                let bytes = frame.encoded_len() as u64;
                if output.send(frame).await.is_err() {
                    return Ok(());
                }
                self.tell_changelog_sent(tail.cluster, bytes);
                if !full {
                    R::sleep(pause).await;
                    pause = (pause * 2).min(GATHER.1);
                }
            }
            if idle {
                pause = GATHER.0;
                let next = async {
                    tokio::select! {
                        biased;
                        frame = input.recv() => Some(frame),
                        _ = moved => None,
                    }
                };
                match R::timeout(BEAT, next).await {
                    Ok(Some(Some(frame))) => self.hear(tail, frame)?,
                    Ok(Some(None)) => return Ok(()),
                    Ok(None) | Err(_) => {}
                }
            }
        }
    }

    /// The next entries after the cursor, and their bytes; `None` when the mirror has all.
    async fn next_batch(&self, tail: &mut Tail) -> Result<Option<(v1::Batch, usize)>, TailRefused> {
        let Some((chain, positions)) = self.next_positions(tail.cursor)? else { return Ok(None) };
        let mut entries = self.canonical(&positions)?;
        if entries.is_empty() {
            entries = self.canonical_of_peers(tail.cursor, chain, &positions).await?;
        }
        let first = tail.cursor.next();
        tail.cursor = LogIndex(tail.cursor.0 + entries.len() as u64);
        let bytes = entries.iter().map(|entry| entry.len()).sum();
        Ok(Some((tail.batch(first, chain, entries, bytes), bytes)))
    }

    /// The chain at the cursor, and where the entries after it stand; `None` when there are none.
    fn next_positions(&self, cursor: LogIndex) -> Result<Option<(Chain, Vec<Position>)>, TailRefused> {
        let kv = self.read().map_err(storage)?;
        let header = farshore_meta::header(&*kv).map_err(storage)?;
        if header.index <= cursor {
            return Ok(None);
        }
        let last = LogIndex(header.index.0.min(cursor.0 + BATCH));
        let mut positions: Vec<Position> = vec![];
        for index in cursor.next().0..=last.0 {
            match local::position(&*kv, LogIndex(index)).map_err(storage)? {
                Some(position) => positions.push(position),
                None => return Err(refused(Why::Trimmed, format!("the log no longer holds {index}"))),
            }
        }
        let chain = chain_at(&*kv, cursor).map_err(storage)?;
        let chain = chain.ok_or_else(|| refused(Why::Trimmed, format!("the log no longer holds {cursor}")))?;
        Ok(Some((chain, positions)))
    }

    /// The canonical bytes at these positions, or of as many of the first as one read yields; none when this node's log
    /// begins later.
    fn canonical(&self, positions: &[Position]) -> Result<Vec<prost::bytes::Bytes>, TailRefused> {
        let (Some(first), Some(last)) = (positions.first(), positions.last()) else { return Ok(vec![]) };
        let records =
            self.log.read(first.raft, last.raft, BATCH_BYTES).map_err(|error| refused(Why::Trimmed, error.to_string()))?;
        let mut wanted = positions.iter().peekable();
        let mut entries = vec![];
        for (index, bytes) in records {
            if wanted.next_if(|position| position.raft == index).is_none() {
                continue;
            }
            entries.push(
                canonical_of(&bytes)
                    .ok_or_else(|| refused(Why::Invalid, format!("the log's entry {index} is not a shared one")))?,
            );
        }
        Ok(entries)
    }

    /// The same out of the other members' logs, for a leader that began with a snapshot: the mirror need not take one as
    /// well. The chain, which came with the snapshot, proves every entry.
    async fn canonical_of_peers(
        &self,
        cursor: LogIndex,
        mut chain: Chain,
        positions: &[Position],
    ) -> Result<Vec<prost::bytes::Bytes>, TailRefused> {
        let (Some(first), Some(last)) = (positions.first(), positions.last()) else { return Ok(vec![]) };
        let mut wanted = positions.iter().peekable();
        let (mut index, mut entries) = (cursor, vec![]);
        for (at, bytes) in self.entries_of_peers(first.raft, last.raft).await {
            let Some(position) = wanted.next_if(|position| position.raft == at) else { continue };
            let Some(canonical) = canonical_of(&bytes) else { break };
            index = index.next();
            chain = extend(&chain, index, &canonical);
            if chain != position.chain {
                tracing::error!(%index, "a peer's log holds another entry than this cluster's history");
                break;
            }
            entries.push(canonical);
        }
        if entries.is_empty() {
            return Err(refused(Why::Trimmed, format!("no node's log holds the entries after {cursor} any more")));
        }
        Ok(entries)
    }

    /// Whether the log of some member still holds the entry at this position.
    pub(crate) async fn is_held_by_peers(&self, at: farshore_types::RaftIndex) -> bool {
        !self.entries_of_peers(at, at).await.is_empty()
    }

    fn beat(&self, tail: &Tail) -> Result<v1::Beat, StorageError> {
        let kv = self.read()?;
        let header = farshore_meta::header(&*kv)?;
        let now = self.host.wall_us();
        let oldest = if tail.acknowledged < header.index { local::position(&*kv, tail.acknowledged.next())? } else { None };
        let (digest_index, digest) = digest_to_compare(&*kv, tail.acknowledged, header.index)?;
        let mut floors = vec![(self.config.cluster, farshore_syncer::floor(&*kv, &header.lineage)?, header.lineage.clone())];
        for cluster in dispatch::roster(&*kv)?.into_iter().filter(|cluster| *cluster != self.config.cluster) {
            floors.push((cluster, farshore_syncer::known_floor(&*kv, cluster, &header.lineage)?, header.lineage.clone()));
        }
        Ok(v1::Beat {
            committed: header.index.0,
            behind_ms: oldest.map_or(0, |position| now.saturating_sub(position.time.0) / 1000),
            lineage: encode(&header.lineage),
            digest_index: digest_index.0,
            digest: digest.map(|digest| digest.0.to_be_bytes().to_vec()).unwrap_or_default().into(),
            floors: encode(&floors),
            figures: serde_json::to_vec(&self.figures()?).expect("figures always serialise").into(),
            now_us: now,
            nodes: self.member_addresses(),
        })
    }

    fn hear(self: &Arc<Self>, tail: &mut Tail, frame: TailFrame) -> Result<(), TailRefused> {
        let Some(In::Acknowledge(acknowledge)) = frame.frame else {
            return Err(refused(Why::Invalid, "a mirror sends acknowledgements"));
        };
        let applied = LogIndex(acknowledge.applied);
        tail.acknowledged = applied;
        let seen = self.mirror_seen(&acknowledge)?;
        let floor = (seen.floor, seen.lineage.clone());
        self.observations.mirrors().insert(tail.cluster, seen);
        let known = {
            let kv = self.read().map_err(storage)?;
            farshore_syncer::known_floor(&*kv, tail.cluster, &floor.1).map_err(storage)?
        };
        if floor.0 > known {
            let (node, cluster) = (self.clone(), tail.cluster);
            drop(R::spawn(async move {
                let op = LocalOp::KnownFloors(vec![(cluster, floor.0, floor.1)]);
                if let Err(error) = node.propose(&Proposal::Local(op)).await {
                    tracing::debug!(%error, "a reported floor was not kept; it comes again");
                }
            }));
        }
        Ok(())
    }

    fn mirror_seen(&self, acknowledge: &Acknowledge) -> Result<MirrorSeen, TailRefused> {
        let invalid = |error: String| refused(Why::Invalid, error);
        Ok(MirrorSeen {
            applied: LogIndex(acknowledge.applied),
            floor: LogIndex(acknowledge.floor),
            lineage: decode(&acknowledge.lineage).map_err(|error| invalid(error.to_string()))?,
            figures: serde_json::from_slice(&acknowledge.figures).map_err(|error| invalid(error.to_string()))?,
            machine: acknowledge.machine,
            heard_us: self.host.boot_us(),
            connected: true,
        })
    }
}

/// The chain at an index; `None` when it is trimmed.
fn chain_at(kv: &dyn KvRead, index: LogIndex) -> Result<Option<Chain>, StorageError> {
    let header = farshore_meta::header(kv)?;
    if index == LogIndex(0) {
        return Ok(Some(Chain::default()));
    }
    if index == header.index {
        return Ok(Some(header.chain));
    }
    Ok(local::position(kv, index)?.map(|position| position.chain))
}

/// The newest digest that the mirror, which has acknowledged `acknowledged`, can compare.
fn digest_to_compare(
    kv: &dyn KvRead,
    acknowledged: LogIndex,
    index: LogIndex,
) -> Result<(LogIndex, Option<Digest>), StorageError> {
    if acknowledged == index {
        return Ok((index, Some(farshore_meta::digest(kv)?)));
    }
    let point = local::digest_point(acknowledged);
    Ok((point, local::digest_at(kv, point)?))
}

/// The canonical bytes inside a Raft entry; `None` when it carries no shared entry.
fn canonical_of(bytes: &[u8]) -> Option<prost::bytes::Bytes> {
    let entry: Entry = postcard::from_bytes(bytes).ok()?;
    let EntryPayload::Normal(payload) = entry.payload else { return None };
    match Proposal::decode(&payload.0).ok()? {
        Proposal::Shared(canonical) | Proposal::Mirrored { canonical, .. } => Some(canonical.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_with_the_first_batch_and_with_every_fourth_kibibyte() {
        let mut short = Short::new();
        let chained = (0..1000).filter(|_| short.needs_chain(40)).count();
        assert_eq!(chained, 1000usize.div_ceil(CHAINED_BYTES.div_ceil(40)));
        assert_eq!((0..10).filter(|_| short.needs_chain(CHAINED_BYTES)).count(), 9, "all behind a large one");
    }
}
