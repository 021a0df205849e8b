//! Executes the tasks that the ledgers lease: copies, deletions, listings.
//!
//! One worker's session for each cluster of the volume, since each region's cluster keeps the ledger of its own bucket
//! (law 15). A lease counts from its receipt, on this machine's clock, and is dropped when it is over (law 6); what was done
//! then is a fact still, but another worker may be at it, so nothing is reported. Evidence is computed over the bytes that
//! went through this worker (law 16). A source that lacks a block is no failure of the task while another has it.
//!
//! `session` keeps the stream, `task` does the work, `throttle` bounds bytes in flight and bandwidth.

mod session;
mod task;
mod throttle;

use crate::config::ClientConfig;
use crate::counters::Counters;
use crate::error::ConnectError;
use crate::stores::Stores;
use farshore_types::SessionInfo;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a worker looks for the volume's record before it says that it cannot, and tries again.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of blocks in memory at once, unless the options say otherwise.
pub const DEFAULT_INFLIGHT_BYTES: u64 = 256 << 20;

/// The bounds of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Leases worked on at once, in each cluster.
    pub slots: u32,
    /// Bytes a second that are read from sources; `None`: no bound.
    pub bandwidth: Option<u64>,
    /// Bytes of blocks in memory at once.
    pub inflight_bytes: u64,
}

impl Default for WorkerOptions {
    fn default() -> WorkerOptions {
        WorkerOptions { slots: 16, bandwidth: None, inflight_bytes: DEFAULT_INFLIGHT_BYTES }
    }
}

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("a worker with 0 slots does nothing; give it at least 1")]
    NoSlots,
}

/// A client that executes leased tasks.
pub struct Worker;

impl Worker {
    /// Runs until `shutdown` turns true. Clusters that cannot be reached are tried again; none keeps the others waiting.
    pub async fn run(
        mut config: ClientConfig,
        options: WorkerOptions,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), WorkerError> {
        if options.slots == 0 {
            return Err(WorkerError::NoSlots);
        }
        // A mount's own first bucket is its own affair: the ledgers mean the regions' buckets.
        config.first_bucket = None;
        let counters = Arc::new(Counters::new(&config.region));
        let stores = Arc::new(Stores::open(&config, &counters).await?);
        let nodes: Vec<String> = config.clusters.iter().flat_map(|cluster| cluster.nodes.clone()).collect();
        let record = loop {
            let asked = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
                asked = crate::session::fetch_record(&config.volume, &nodes, RECORD_TIMEOUT) => asked,
            };
            match asked {
                Ok((record, _)) => break record,
                Err(ConnectError::NoLeader { last, .. }) => tracing::debug!(last, "no metadata node answers yet"),
                Err(error) => return Err(error.into()),
            }
        };
        let block_size = u64::from(record.block_size);
        let throttle = Arc::new(throttle::Throttle::new(options.inflight_bytes.max(block_size), options.bandwidth));
        let tasks = Arc::new(task::Tasks { volume: config.volume.clone(), record, stores, throttle });
        let info =
            SessionInfo { host: config.host.clone(), mount: config.mount.clone(), options: config.options.clone(), bucket: None };
        let each = config.clusters.iter().filter(|cluster| !cluster.nodes.is_empty()).map(|cluster| {
            let session = session::WorkerSession {
                volume: config.volume.clone(),
                nodes: cluster.nodes.clone(),
                info: info.clone(),
                slots: options.slots,
                tasks: tasks.clone(),
            };
            session.run(shutdown.clone())
        });
        futures::future::join_all(each).await;
        Ok(())
    }
}
