//! Starting, killing and restarting the nodes of a world, and asking their leaders.

use crate::common::{Common, VOLUME};
use crate::dice::Dice;
use crate::disk::{SimDisk, copy_checkpoints};
use crate::host::SimHost;
use crate::judge::Stage;
use crate::net::{Life, Net, SimNode, SimTransport};
use crate::plant::{self, Hazard};
use crate::store::SimStore;
use crate::upstream::SimUpstream;
use farshore_meta::kv::Store;
use farshore_mirror::TailConfig;
use farshore_primary::raft::log::RaftLog;
use farshore_primary::raft::snapshot::Checkpoints;
use farshore_primary::raft::stored;
use farshore_primary::wholeness::Wholeness;
use farshore_primary::{Node, NodeConfig, NodeParts, local};
use farshore_types::{ClusterId, NodeId, RaftIndex};
use farshore_wire::admin::{AdminAnswer, AdminCall, NewMember};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The clusters of every world: the primary, and its mirror.
pub const US: ClusterId = ClusterId(0);
pub const EU: ClusterId = ClusterId(1);
/// Nodes of a cluster.
const NODES: u64 = 3;
/// A session that is silent for this long ends.
const SESSION_LEASE: Duration = Duration::from_secs(5);
/// Between heartbeats, and how long a follower waits before it asks for votes: at least, at most.
const HEARTBEAT: Duration = Duration::from_millis(100);
const ELECTION: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(900));
/// Attempts to find a leader that carries out a call, and the pause between them.
const ATTEMPTS: usize = 400;
const PAUSE: Duration = Duration::from_millis(100);

/// Name and cluster of every node.
pub fn names() -> Vec<(String, ClusterId)> {
    [(US, "us"), (EU, "eu")]
        .into_iter()
        .flat_map(|(cluster, region)| (1..=NODES).map(move |id| (format!("{region}-{id}"), cluster)))
        .collect()
}

/// An empty disk for each node.
pub fn stages(net: &Net) -> Vec<Stage> {
    let stage = |(name, cluster)| Stage {
        name,
        cluster,
        running: false,
        store: SimStore::new(net.dice.clone()),
        disk: SimDisk::new(net.dice.clone()),
        checkpoints: Arc::new(Checkpoints::in_memory()),
        looked: Default::default(),
    };
    names().into_iter().map(stage).collect()
}

/// The nodes that a cluster is made of.
pub fn founders(cluster: ClusterId) -> Vec<NewMember> {
    let of_cluster = names().into_iter().filter(|(_, other)| *other == cluster).enumerate();
    of_cluster.map(|(id, (name, _))| NewMember { id: id as u64 + 1, address: name.clone(), name }).collect()
}

fn config(at: usize, full_sync_every_us: u64, machine: u32) -> NodeConfig {
    let (name, cluster) = names()[at].clone();
    let id = founders(cluster).iter().find(|member| member.name == name).map_or(NodeId(0), |member| NodeId(member.id));
    NodeConfig {
        region: if cluster == US { "us".to_owned() } else { "eu".to_owned() },
        name,
        volume: VOLUME.to_owned(),
        cluster,
        id,
        peers: founders(cluster).into_iter().filter(|member| member.id != id.0).map(|member| member.address).collect(),
        machine,
        full_sync_every_us,
        checkpoint_entries: 100_000,
        log_retention: 8 << 30,
        session_lease: SESSION_LEASE,
        heartbeat: HEARTBEAT,
        election: ELECTION,
        regions: BTreeMap::from([(US, "us".to_owned()), (EU, "eu".to_owned())]),
    }
}

/// Starts the node at a place on what its disk holds.
pub async fn start(common: &Arc<Common>, at: usize, full_sync_every_us: u64) -> Result<(), String> {
    let (store, disk, checkpoints) = {
        let mut stages = common.judge.stages();
        let stage = &mut stages[at];
        stage.running = true;
        (stage.store.clone(), stage.disk.clone(), stage.checkpoints.clone())
    };
    let net = common.net.clone();
    let dead = Arc::new(AtomicBool::new(false));
    let parts = NodeParts {
        config: config(at, full_sync_every_us, common.machine(at)),
        store,
        log: Arc::new(disk),
        checkpoints,
        transport: Arc::new(SimTransport { net: net.clone(), from: at, dead: dead.clone() }),
        host: Arc::new(SimHost::new(common.dice.clone())),
    };
    let node: Arc<SimNode> = Node::start(parts).await.map_err(|error| format!("{} does not start: {error}", net.name(at)))?;
    let life = Life::new(node.clone(), dead.clone());
    let own = Arc::new(OnceLock::from(life.clone()));
    let others = names().into_iter().filter(|(_, cluster)| *cluster != net.cluster(at)).map(|(name, _)| name).collect();
    let other = if net.cluster(at) == US { EU } else { US };
    let upstream = Arc::new(SimUpstream { net: net.clone(), from: at, dead, own });
    farshore_mirror::spawn(&node, upstream, TailConfig { others: vec![(other, others)] });
    net.set_life(at, Some(life));
    common.trace.say(format!("{} starts", net.name(at)));
    Ok(())
}

/// What a node loses when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// What its log had not flushed, and its state had not stored.
    Unflushed,
    /// Also its state, but for checkpoints: its power was cut.
    State,
    /// Also its log from some entry on, which it had flushed: damage was found in it.
    Log,
    /// Everything: its disk was replaced.
    Disk,
}

/// Kills the node at a place.
pub fn kill(common: &Arc<Common>, at: usize, loss: Loss) -> Result<(), String> {
    let Some(life) = common.net.life(at) else { return Ok(()) };
    // What was applied so far is history, also when this disk is about to forget it.
    common.judge.look(vec![]);
    life.kill();
    common.net.set_life(at, None);
    let mut stages = common.judge.stages();
    let stage = &mut stages[at];
    stage.running = false;
    lose(stage, &common.dice, loss)?;
    drop(stages);
    // The dead process goes on in a world of its own until its tasks have ended.
    drop(SimRuntime::spawn(async move { life.node.shutdown().await }));
    common.trace.say(format!("{} is killed and loses {loss:?}", common.net.name(at)));
    Ok(())
}

fn lose(stage: &mut Stage, dice: &Arc<Dice>, loss: Loss) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let forgets = plant::is(Hazard::VoteAfterLoss);
    if loss == Loss::Disk {
        stage.disk = SimDisk::new(dice.clone());
        stage.store = SimStore::new(dice.clone());
        stage.checkpoints = Arc::new(Checkpoints::in_memory());
        stage.looked = Default::default();
        return if forgets { Wholeness::Member.store(&stage.disk).map_err(|error| text(&error)) } else { Ok(()) };
    }
    stage.disk = stage.disk.survivor();
    let checkpoints = copy_checkpoints(&stage.checkpoints).map_err(|error| text(&error))?;
    if loss == Loss::Unflushed {
        stage.store = stage.store.survivor().map_err(|error| text(&error))?;
        let kv = stage.store.read().map_err(|error| text(&error))?;
        stage.looked = stage.looked.min(farshore_meta::header(&*kv).map_err(|error| text(&error))?.index);
    } else {
        stage.store = SimStore::rebuilt(dice.clone(), &checkpoints).map_err(|error| text(&error))?;
        stage.looked = Default::default();
    }
    if loss == Loss::Log {
        let wholeness = if forgets { Wholeness::Member } else { Wholeness::healing("the log was damaged") };
        let from = RaftIndex(dice.between(1, stage.disk.durable().0.max(1) + 1));
        stage.disk.lose_from(from, &wholeness).map_err(|error| text(&error))?;
        // As consensus does at its start: what a checkpoint has, the log need not have.
        let applied = local::applied(&*stage.store.read().map_err(|error| text(&error))?).map_err(|error| text(&error))?;
        if let Some(applied) = applied.log_id.map(|id| stored(id.index)).filter(|applied| *applied > stage.disk.durable()) {
            stage.disk.purge(applied).map_err(|error| text(&error))?;
        }
    }
    stage.checkpoints = Arc::new(checkpoints);
    Ok(())
}

/// Whether every other node of its cluster has all that it ever acknowledged: then this one may lose something.
pub fn others_are_whole(common: &Common, at: usize) -> bool {
    let stages = common.judge.stages();
    let cluster = stages[at].cluster;
    stages.iter().enumerate().all(|(other, stage)| other == at || stage.cluster != cluster || stage.disk.is_whole())
}

/// The place whose node believes to lead a cluster, if there is one.
pub fn leader(net: &Net, cluster: ClusterId) -> Option<usize> {
    net.places(cluster).into_iter().find(|at| net.life(*at).is_some_and(|life| life.node.is_leader()))
}

/// Asks a cluster's leader, whoever that is, until one has carried out the call.
pub async fn ask(common: &Arc<Common>, cluster: ClusterId, call: AdminCall) -> Result<AdminAnswer, String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        for at in common.net.places(cluster) {
            let Some(life) = common.net.life(at) else { continue };
            match life.node.admin(call.clone()).await {
                AdminAnswer::NotLeader { .. } => {}
                AdminAnswer::Failed { message } => last = message,
                answer => return Ok(answer),
            }
        }
        SimRuntime::sleep(PAUSE).await;
    }
    Err(format!("liveness: cluster {cluster} did not carry out {call:?}: {last}"))
}
