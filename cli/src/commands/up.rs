//! `farshore up`: starts what is missing of a world, and returns when all of it is healthy.
//!
//! Everything is checked before anything is started. Repeating the command is no error and starts only what is missing.

use crate::error::{CliError, Done, EXIT_DONE};
use crate::output::{print, print_json};
use crate::shutdown;
use crate::topology_file::{World, WorldArgs};
use crate::world::process::{self, ProcessSpec};
use crate::world::record::{Change, WorldRecord};
use crate::world::{WorldDir, begin, ports, secrets};
use farshore_types::Uuid;
use farshore_types::topology::{CONSOLE_PROCESS, Topology, bucket_process};
use farshore_wire::admin_client::AdminClient;
use rand::Rng;
use serde::Serialize;
use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;
use tokio::time::Instant;

/// Until a started process must answer.
const HEALTHY_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub world: WorldArgs,
    /// Stay, and stop everything on Ctrl-C
    #[arg(long)]
    pub foreground: bool,
    /// Print what runs as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `up` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub world: String,
    pub dir: String,
    pub started: Vec<String>,
    pub running: Vec<String>,
    pub console: Option<String>,
    pub volumes: Vec<String>,
}

pub async fn run(args: Args) -> Done {
    let world = args.world.declared()?;
    // Taken before anything starts, so that an early Ctrl-C is not lost.
    let mut ended = std::pin::pin!(shutdown::requested());
    let report = tokio::select! {
        report = bring_up(&world) => report?,
        () = &mut ended, if args.foreground => {
            super::down::stop(&world.dir, false)?;
            return Err(CliError::failed("interrupted while starting; everything is stopped", ""));
        }
    };
    if args.json {
        print_json(&report);
    } else {
        print(&told(&report));
    }
    if args.foreground {
        if !args.json {
            print("Ctrl-C stops everything\n");
        }
        ended.await;
        super::down::stop(&world.dir, false)?;
    }
    Ok(EXIT_DONE)
}

fn told(report: &Report) -> String {
    let mut text = format!(
        "world {}: {} processes started, {} were running; in {}\n",
        report.world,
        report.started.len(),
        report.running.len(),
        report.dir
    );
    if let Some(console) = &report.console {
        text.push_str(&format!("console  {console}\n"));
    }
    for volume in &report.volumes {
        text.push_str(&format!("volume   {volume}: farshore mount {volume} DIR\n"));
    }
    text
}

/// Starts what is missing, waits until it is healthy, and begins the world.
pub async fn bring_up(world: &World) -> Result<Report, CliError> {
    let World { topology, dir } = world;
    if dir.is_foreign() {
        let what = format!("{} holds files, and no world", dir.root().display());
        return Err(CliError::usage(what, "name an empty directory with --dir or $FARSHORE_DIR"));
    }
    let known = WorldRecord::load(dir)?;
    let change = known.as_ref().map(|record| record.change(dir, topology)).transpose()?;
    let lock = dir.lock()?;
    ports::check_free(topology, |name| process::alive(dir, name).is_some())?;
    dir.create()?;
    let mut record = match known {
        Some(mut record) => {
            if change == Some(Change::Nodes) {
                record.declare(topology);
                record.save(dir)?;
            }
            record
        }
        None => {
            let record = WorldRecord::draw(topology, || Uuid(rand::rng().random()));
            record.save(dir)?;
            record
        }
    };
    for region in topology.regions().iter().filter(|region| region.bucket.embedded.is_some()) {
        secrets::ensure(dir, &region.name)?;
    }
    let (mut report, mut children) = start_missing(dir, topology)?;
    for spec in processes(topology) {
        healthy(dir, topology, &spec, children.iter_mut().find(|(name, _)| *name == spec.name).map(|(_, child)| child)).await?;
    }
    begin::begin(dir, topology, &record).await?;
    if record.found_all(topology) {
        record.save(dir)?;
    }
    drop(lock);
    report.world = topology.name.clone();
    report.dir = dir.root().display().to_string();
    report.console = topology.console.map(|address| format!("http://{address}/"));
    report.volumes = topology.volumes().iter().map(|volume| volume.name.clone()).collect();
    Ok(report)
}

/// Every process of a world, in the order in which they start.
pub fn processes(topology: &Topology) -> Vec<ProcessSpec> {
    let mut all = Vec::new();
    for region in topology.regions().iter().filter(|region| region.bucket.embedded.is_some()) {
        all.push(ProcessSpec { name: bucket_process(&region.name), verb: vec!["bucket".into(), region.name.clone()] });
    }
    for place in topology.nodes() {
        all.push(node_process(&place.node.name));
    }
    if topology.console.is_some() {
        all.push(ProcessSpec { name: CONSOLE_PROCESS.into(), verb: vec!["console".into()] });
    }
    all
}

/// The process of a metadata node.
pub fn node_process(name: &str) -> ProcessSpec {
    ProcessSpec { name: name.to_owned(), verb: vec!["node".into(), "run".into(), name.to_owned()] }
}

/// Starts one node that the topology declares, if it does not run, and waits until it answers. The file may declare other
/// nodes than the world began with.
pub async fn start_node(world: &World, name: &str) -> Result<(), CliError> {
    let World { topology, dir } = world;
    let lock = dir.lock()?;
    if let Some(mut record) = WorldRecord::load(dir)?
        && record.change(dir, topology)? == Change::Nodes
    {
        record.declare(topology);
        record.save(dir)?;
    }
    let spec = node_process(name);
    let mut child = match process::alive(dir, name) {
        Some(_) => None,
        None => {
            ports::check_free(topology, |process| process != name)?;
            Some(process::start(dir, &spec)?)
        }
    };
    healthy(dir, topology, &spec, child.as_mut()).await?;
    drop(lock);
    Ok(())
}

type Children = Vec<(String, Child)>;

fn start_missing(dir: &WorldDir, topology: &Topology) -> Result<(Report, Children), CliError> {
    let mut report = Report::default();
    let mut children = Vec::new();
    for spec in processes(topology) {
        if process::alive(dir, &spec.name).is_some() {
            report.running.push(spec.name);
            continue;
        }
        children.push((spec.name.clone(), process::start(dir, &spec)?));
        report.started.push(spec.name);
    }
    Ok((report, children))
}

/// Waits until a process answers; names it and shows the end of its log when it does not.
async fn healthy(dir: &WorldDir, topology: &Topology, spec: &ProcessSpec, mut child: Option<&mut Child>) -> Result<(), CliError> {
    let end = Instant::now() + HEALTHY_MAX;
    loop {
        if answers(topology, spec).await {
            return Ok(());
        }
        // Asking for its status also takes a dead child off the kernel's list.
        let status = child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        let gone = status.is_some() || process::alive(dir, &spec.name).is_none();
        if gone || Instant::now() >= end {
            let how = match status {
                Some(status) => format!("ended ({status})"),
                None if gone => "ended".to_owned(),
                None => format!("does not answer within {} s", HEALTHY_MAX.as_secs()),
            };
            let mend = format!(
                "mend that and repeat `farshore up`; `farshore down` stops the rest\n{}",
                process::tail(&dir.log(&spec.name))
            );
            return Err(CliError::failed(format!("{} {how}", spec.name), mend));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A node answers for itself; of the others, a connection is taken.
async fn answers(topology: &Topology, spec: &ProcessSpec) -> bool {
    if let Some(place) = topology.node(&spec.name) {
        let volume = topology.volumes().first().map(|volume| volume.name.clone()).unwrap_or_default();
        let client = AdminClient::new(volume, LOOK_DEADLINE);
        return client.health(&place.node.address()).await.is_ok_and(|health| health.name == spec.name);
    }
    let address =
        topology.listeners().into_iter().find(|listener| listener.process == spec.name).map(|listener| listener.address);
    match address {
        Some(address) => connects(address).await,
        None => true,
    }
}

async fn connects(address: SocketAddr) -> bool {
    tokio::time::timeout(LOOK_DEADLINE, tokio::net::TcpStream::connect(address)).await.is_ok_and(|stream| stream.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_of_two_regions_is_nine_processes() {
        let topology = Topology::parse(crate::topology_file::DEFAULT_TOPOLOGY, "t").unwrap();
        let names: Vec<String> = processes(&topology).into_iter().map(|spec| spec.name).collect();
        assert_eq!(names, ["bucket-us-east", "bucket-eu-west", "use-a", "use-b", "use-c", "euw-a", "euw-b", "euw-c", "console"]);
    }
}
