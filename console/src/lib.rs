//! The cluster as people and scripts see it: one lag page, a read-only REST API, and `/metrics`.
//!
//! Owns the merging of what the clusters say into one view ([`observe`]), which the command line shows as well. It asks,
//! it never changes anything. Every figure carries its observer and its age; a figure that is not known is `null`, an
//! absent series, a grey cell: never 0 (law 28).

pub mod clock;
pub mod http;
mod metrics;
pub mod observe;

pub use http::{ConsoleConfig, serve};
pub use metrics::render as render_metrics;
