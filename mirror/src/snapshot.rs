//! Taking the primary's snapshot, when the log that this mirror needs is gone: its rows travel through the mirror's own
//! Raft log, so that every node has them before any of them takes effect (hazard 5.6).

use crate::upstream::{Upstream, UpstreamError};
use farshore_meta::kv::Store;
use farshore_primary::raft::types::Response;
use farshore_primary::{Announced, Node, Proposal, ProposeError, Rows};
use openraft::AsyncRuntime;
use std::sync::Arc;

/// The snapshot was not taken; the next attempt starts afresh.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("the snapshot's stream is malformed or was cut")]
    Malformed,
    #[error("the snapshot's rows do not have the digest that was announced")]
    Digest,
}

/// Fetches a snapshot from `address` and makes it this cluster's shared state.
pub async fn take<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    upstream: &dyn Upstream,
    address: &str,
) -> Result<(), SnapshotError> {
    let mut chunks = upstream.snapshot(address, u32::from(node.config.cluster.0)).await?;
    let first = chunks.recv().await.ok_or(SnapshotError::Malformed)?;
    let announced: Announced = postcard::from_bytes(&first.meta).map_err(|_| SnapshotError::Malformed)?;
    tracing::info!(index = %announced.index, "taking a snapshot of the primary");
    let Announced { snapshot, index, chain, digest, lineage } = announced;
    node.propose(&Proposal::ResetBegin { snapshot, index, chain, digest, lineage }).await?;
    while let Some(chunk) = chunks.recv().await {
        let rows: Rows = postcard::from_bytes(&chunk.data).map_err(|_| SnapshotError::Malformed)?;
        node.propose(&Proposal::ResetRows { snapshot, rows }).await?;
    }
    match node.propose(&Proposal::ResetCommit { snapshot }).await? {
        Response::Shared { .. } => Ok(()),
        _ => Err(SnapshotError::Digest),
    }
}
