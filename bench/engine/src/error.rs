//! Why a measurement has no figures.

use std::fmt::Display;

/// A measurement ends at its first error: a figure with errors in it would mean nothing.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct EngineError {
    doing: &'static str,
    why: String,
}

impl EngineError {
    pub fn new(doing: &'static str, why: impl Display) -> EngineError {
        EngineError { doing, why: why.to_string() }
    }
}

/// The same for errors of others, on the way through `?`.
pub trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, EngineError>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, what: &'static str) -> Result<T, EngineError> {
        self.map_err(|error| EngineError::new(what, error))
    }
}
