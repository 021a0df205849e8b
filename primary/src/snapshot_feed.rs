//! The shared state as a stream of rows, for a mirror whose log is gone here (law 25).

use crate::node::Node;
use crate::raft::snapshot::verify;
use crate::reset::Announced;
use farshore_meta::kv::{Space, Store};
use farshore_wire::v1::SnapshotChunk;
use openraft::AsyncRuntime;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Bytes of rows in one chunk, about.
const CHUNK_BYTES: usize = 256 << 10;
/// Pause while the receiver is behind.
const FULL: Duration = Duration::from_millis(2);

/// Rows of one chunk: postcard of this.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// Takes a checkpoint and streams its shared rows; the first chunk announces it. Long reads are of a file, never of
    /// a transaction. The stream just ends when something fails: the mirror sees that rows are missing, and asks again.
    pub async fn serve_shared_snapshot(self: &Arc<Self>, output: mpsc::Sender<SnapshotChunk>) {
        let node = self.clone();
        let (done, finished) = tokio::sync::oneshot::channel();
        self.host.run(Box::new(move || {
            if let Err(error) = node.stream_rows(&output) {
                tracing::warn!(%error, "a snapshot for a mirror was not streamed to its end");
            }
            // Nobody waits when the node is stopping.
            let _ = done.send(());
        }));
        // The thread's end is all there is to wait for.
        let _ = finished.await;
    }

    fn stream_rows(&self, output: &mpsc::Sender<SnapshotChunk>) -> Result<(), crate::raft::snapshot::CheckpointError> {
        let (_, body) = self.checkpoints.take(&self.store)?;
        let header = verify(&body)?;
        let lineage = farshore_meta::header(&*self.read()?)?.lineage;
        let announced =
            Announced { snapshot: self.host.random(), index: header.index, chain: header.chain, digest: header.digest, lineage };
        let meta = postcard::to_stdvec(&announced).expect("an announcement always serialises into memory");
        let mut open = push(output, SnapshotChunk { meta: meta.into(), ..Default::default() });
        let (mut rows, mut bytes): (Rows, usize) = (vec![], 0);
        farshore_meta::read_dump(&mut body.open()?, &mut |space, key, value| {
            if space == Space::Shared && open {
                bytes += key.len() + value.len();
                rows.push((key.to_vec(), value.to_vec()));
                if bytes >= CHUNK_BYTES {
                    open = push_rows(output, &mut rows);
                    bytes = 0;
                }
            }
            Ok(())
        })?;
        if open && !rows.is_empty() {
            push_rows(output, &mut rows);
        }
        Ok(())
    }
}

fn push_rows(output: &mpsc::Sender<SnapshotChunk>, rows: &mut Rows) -> bool {
    let data = postcard::to_stdvec(&std::mem::take(rows)).expect("rows always serialise into memory");
    push(output, SnapshotChunk { data: data.into(), ..Default::default() })
}

/// Whether the receiver is still there.
fn push(output: &mpsc::Sender<SnapshotChunk>, mut chunk: SnapshotChunk) -> bool {
    loop {
        match output.try_send(chunk) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(back)) => {
                chunk = back;
                std::thread::sleep(FULL);
            }
        }
    }
}
