//! Executes leased tasks.
use crate::config::ClientConfig;
use tokio::sync::watch;
#[derive(Debug, thiserror::Error)]
#[error("the worker could not start")]
pub struct WorkerError;
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions { pub slots: u32 , pub bandwidth: Option<u64>}
pub struct Worker {}
impl Worker { pub async fn run(_c: ClientConfig, _o: WorkerOptions, _s: watch::Receiver<bool>) -> Result<(), WorkerError> { Ok(()) } }
