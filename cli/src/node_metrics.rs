//! `/metrics` of one node, in Prometheus' text format, at its `metrics` address in the topology.

use crate::error::CliError;
use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use std::net::SocketAddr;

/// Upper bounds, in seconds, of the buckets of every duration.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// Installs the recorder and serves it until the process ends.
pub async fn serve(listen: SocketAddr) -> Result<(), CliError> {
    let failed = |what: String| CliError::failed(what, "change the node's `metrics` key to a free address of this machine");
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BOUNDS)
        .and_then(|builder| builder.install_recorder())
        .map_err(|error| failed(format!("metrics cannot be recorded: {error}")))?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| failed(format!("cannot listen on {listen} for metrics: {error}")))?;
    metrics::gauge!("farshore_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let router = Router::new().route("/metrics", get(move || std::future::ready(recorder.render())));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the node's /metrics ended");
        }
    });
    Ok(())
}
