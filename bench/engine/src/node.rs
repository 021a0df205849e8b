//! A real node on a filled state: a process of its own, which boots, elects itself and listens as `farshore node` does.

use crate::cluster::{NODE, US, VOLUME};
use crate::error::{Doing, EngineError};
use crate::process::{Resident, resident};
use farshore_mirror::TailConfig;
use farshore_mirror::node::RunConfig;
use farshore_primary::boot::Identity;
use farshore_primary::{MACHINE_VERSION, NodeConfig};
use farshore_types::NodeId;
use farshore_wire::admin::{AdminAnswer, AdminCall};
use farshore_wire::admin_client::AdminClient;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub const NAME: &str = "engine-a";
/// Until a node must serve.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// A node's directory, as `size --keep` leaves it
    #[arg(long)]
    pub dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
}

/// The settings of `topology.toml`'s defaults, for a cluster of one.
pub fn config() -> NodeConfig {
    NodeConfig {
        name: NAME.to_owned(),
        volume: VOLUME.to_owned(),
        region: "us-east".to_owned(),
        cluster: US,
        id: NodeId(NODE),
        peers: vec![],
        machine: MACHINE_VERSION,
        full_sync_every_us: 7 * 86_400 * 1_000_000,
        heartbeat: Duration::from_millis(100),
        election: (Duration::from_millis(400), Duration::from_millis(800)),
        // No checkpoint but those that are asked for.
        checkpoint_entries: u64::MAX / 4,
        log_retention: 8 << 30,
        session_lease: Duration::from_secs(600),
        regions: BTreeMap::from([(US, "us-east".to_owned())]),
    }
}

pub fn identity() -> Identity {
    Identity { volume: VOLUME.to_owned(), cluster: US, node: NodeId(NODE), name: NAME.to_owned() }
}

/// Runs the node; only its signal ends it.
pub async fn run(args: Args) -> Result<(), EngineError> {
    let node = config();
    let config = RunConfig { node, listen: args.listen, directory: args.dir, tail: TailConfig { others: vec![] } };
    farshore_mirror::node::run(config, std::future::pending()).await.doing("run the node")
}

/// What a start took.
#[derive(Debug, Serialize)]
pub struct Start {
    /// From the start of the process until it answers as a leader that can serve.
    pub seconds: f64,
    pub resident: Resident,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a node in a process of its own, waits until it serves, and ends it.
pub async fn start(directory: &Path) -> Result<Start, EngineError> {
    let listen = free_port()?;
    let program = std::env::current_exe().doing("find this program")?;
    let begun = Instant::now();
    let mut command = Command::new(program);
    command.arg("node").arg("--dir").arg(directory).arg("--listen").arg(listen.to_string());
    let mut child = Running(command.spawn().doing("start a node")?);
    let client = AdminClient::new(VOLUME, Duration::from_secs(5));
    loop {
        let health = client.call(&listen.to_string(), &AdminCall::Health).await;
        if matches!(&health, Ok(AdminAnswer::Health(health)) if health.is_leader && health.ready) {
            break;
        }
        if let Some(status) = child.0.try_wait().doing("wait for the node")? {
            return Err(EngineError::new("start a node", format!("it ended with {status}")));
        }
        if begun.elapsed() > PATIENCE {
            return Err(EngineError::new("start a node", format!("it does not serve: {health:?}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Start { seconds, resident: resident(child.0.id()) })
}

fn free_port() -> Result<SocketAddr, EngineError> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").doing("find a port")?;
    listener.local_addr().doing("find a port")
}
