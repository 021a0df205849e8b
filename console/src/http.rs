//! The HTTP side: one page, a read-only API, `/metrics`. A poller asks the clusters; requests read what it found.

use crate::metrics;
use crate::observe::{Observer, ReplicationStatus};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use farshore_types::topology::Topology;
use farshore_wire::view::{LagView, StatusView};
use serde::Serialize;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Pause between two polls of the clusters' figures.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Owed blocks that the API lists for each region.
const OWED_MAX: u32 = 20;
/// How long open requests may go on after the console was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(2);
const PAGE: &str = include_str!("page.html");
/// Nothing from elsewhere runs in the page, and no other page frames it.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

/// The process id of a process of the world, by its name; `None` when it does not run.
pub type PidOf = Arc<dyn Fn(&str) -> Option<u32> + Send + Sync>;

/// What the console shows.
pub struct ConsoleConfig {
    pub topology: Topology,
    pub volume: String,
    pub pid_of: PidOf,
}

struct Console {
    observer: Observer,
    pid_of: PidOf,
    seen: watch::Receiver<Seen>,
}

#[derive(Clone, Default)]
struct Seen {
    status: Option<Arc<StatusView>>,
    replication: Option<Arc<ReplicationStatus>>,
}

/// Serves until `shutdown` resolves.
pub async fn serve(config: ConsoleConfig, listener: TcpListener, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
    let (publish, seen) = watch::channel(Seen::default());
    let observer = Observer::new(config.topology, config.volume);
    let console = Arc::new(Console { observer, pid_of: config.pid_of, seen });
    let (stop, mut stopped) = watch::channel(false);
    let server = axum::serve(listener, router(console.clone())).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which is the same wish.
        let _ = stopped.wait_for(|stop| *stop).await;
    });
    let mut server = std::pin::pin!(server.into_future());
    let poller = poll(&console, &publish);
    tokio::select! {
        result = &mut server => return result,
        () = poller => unreachable!("the poller never ends"),
        () = shutdown => {}
    }
    let _ = stop.send(true);
    // A client that holds its connection open does not hold the console.
    tokio::time::timeout(DRAIN_MAX, server).await.unwrap_or(Ok(()))
}

async fn poll(console: &Console, publish: &watch::Sender<Seen>) {
    loop {
        let status = async { console.observer.status(|name| (console.pid_of)(name)).await };
        let (_, status, replication) = tokio::join!(console.observer.poll_lag(), status, console.observer.replication(OWED_MAX));
        publish.send_replace(Seen { status: Some(Arc::new(status)), replication: Some(Arc::new(replication)) });
        tokio::time::sleep(POLL_EVERY).await;
    }
}

fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/lag", get(lag))
        .route("/api/v1/status", get(status))
        .route("/api/v1/replication", get(replication))
        .with_state(console)
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, PAGE).into_response()
}

/// The lag view, and beside it what the page needs to judge: each region's verdict and objectives.
#[derive(Serialize)]
struct LagPage {
    #[serde(flatten)]
    view: LagView,
    verdicts: Vec<RegionVerdict>,
}

#[derive(Serialize)]
struct RegionVerdict {
    region: String,
    verdict: &'static str,
    rpo_metadata_seconds: Option<f64>,
    rpo_data_seconds: Option<f64>,
}

async fn lag(State(console): State<Arc<Console>>) -> Json<LagPage> {
    let view = console.observer.lag();
    let topology = console.observer.topology();
    let verdicts = view.regions.iter().map(|line| {
        let mirrors = topology.volume(&view.volume).map(|volume| volume.mirrors.as_slice()).unwrap_or_default();
        let mirror = mirrors.iter().find(|mirror| mirror.region == line.region);
        RegionVerdict {
            region: line.region.clone(),
            verdict: crate::observe::judge(topology, &view, line).word(),
            rpo_metadata_seconds: mirror.and_then(|mirror| mirror.rpo_metadata).map(|target| target.as_secs_f64()),
            rpo_data_seconds: mirror.and_then(|mirror| mirror.rpo_data).map(|target| target.as_secs_f64()),
        }
    });
    let verdicts = verdicts.collect();
    Json(LagPage { view, verdicts })
}

async fn status(State(console): State<Arc<Console>>) -> Response {
    let seen = console.seen.borrow().status.clone();
    json_or_early(seen.as_deref())
}

async fn replication(State(console): State<Arc<Console>>) -> Response {
    let seen = console.seen.borrow().replication.clone();
    json_or_early(seen.as_deref())
}

/// Before the first poll nothing is known, which is not the same as an empty world (law 28).
fn json_or_early<T: Serialize>(seen: Option<&T>) -> Response {
    match seen {
        Some(seen) => Json(seen).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "not observed yet; ask again in a second\n").into_response(),
    }
}

async fn metrics_text(State(console): State<Arc<Console>>) -> Response {
    let Seen { status, replication } = console.seen.borrow().clone();
    let text = metrics::render(&console.observer, status.as_deref(), replication.as_deref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn fetch(address: &str, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn page_api_and_metrics_answer_without_any_cluster() {
        let topology = Topology::parse(include_str!("../../topology.toml"), "topology.toml").unwrap();
        let mut next = 2;
        let topology = topology.readdressed(|mut address| {
            // Low ports on which nobody listens here.
            address.set_port(next);
            next += 1;
            address
        });
        let config = ConsoleConfig { topology: topology.unwrap(), volume: "demo".into(), pid_of: Arc::new(|_| None) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = tokio::spawn(serve(config, listener, async {
            let _ = stopped.await;
        }));
        let page = fetch(&address, "/").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("content-security-policy") && page.contains("/api/v1/lag"));
        let lag = fetch(&address, "/api/v1/lag").await;
        assert!(lag.contains("\"stale\":true") && lag.contains("\"committed\":null") && lag.contains("UNKNOWN"), "{lag}");
        let metrics = fetch(&address, "/metrics").await;
        assert!(metrics.contains("farshore_build_info") && !metrics.contains("farshore_log_committed_index"), "{metrics}");
        assert!(fetch(&address, "/nothing").await.starts_with("HTTP/1.1 404"));
        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for foreign in ["http://", "https://", "src=", "@import", "innerHTML"] {
            assert!(!PAGE.contains(foreign), "the page has {foreign}");
        }
    }
}
