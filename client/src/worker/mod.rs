//! Executes leased tasks.
#[derive(Debug, thiserror::Error)]
#[error("the worker could not start")]
pub struct WorkerError;
pub struct Worker {}
