//! Why a measurement has no figures.

use std::fmt::Display;

/// A measurement ends at its first error: a figure with errors in it would mean nothing.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct BenchError {
    doing: String,
    why: String,
}

impl BenchError {
    pub fn new(doing: impl Into<String>, why: impl Display) -> BenchError {
        BenchError { doing: doing.into(), why: why.to_string() }
    }
}
