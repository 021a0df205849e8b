//! One status view out of what nodes and leaders say. Pure.

use farshore_types::topology::{RegionSpec, Topology, bucket_process};
use farshore_wire::admin::{ClusterStatus, Health};
use farshore_wire::view::{BucketView, NodeView, SessionView, StatusView, VolumeView};

/// What a region's nodes answered.
#[derive(Clone, Debug, Default)]
pub struct RegionProbe {
    pub region: String,
    /// One for each node, in the order of the topology; `None`: no answer.
    pub health: Vec<Option<Health>>,
    /// By its leader.
    pub status: Option<ClusterStatus>,
}

/// All nodes of the topology, the ones without an answer as `down`; the volume as its primary tells it.
pub fn merge_status(topology: &Topology, probes: &[RegionProbe], pid_of: impl Fn(&str) -> Option<u32>) -> StatusView {
    let regions = || topology.regions().iter();
    let probe_of = |region: &RegionSpec| probes.iter().find(|probe| probe.region == region.name);
    let nodes = regions().flat_map(|region| nodes_of(region, probe_of(region))).collect();
    let buckets = regions().map(|region| BucketView {
        region: region.name.clone(),
        url: region.bucket.url.clone(),
        pid: pid_of(&bucket_process(&region.name)),
    });
    StatusView { nodes, buckets: buckets.collect(), volumes: volume(probes).into_iter().collect(), sessions: sessions(probes) }
}

fn nodes_of(region: &RegionSpec, probe: Option<&RegionProbe>) -> Vec<NodeView> {
    let view = |(at, node): (usize, &farshore_types::topology::NodeSpec)| {
        let health = probe.and_then(|probe| probe.health.get(at)).and_then(Option::as_ref);
        NodeView {
            name: node.name.clone(),
            region: region.name.clone(),
            role: role(health).to_owned(),
            pid: health.map(|health| health.pid),
            address: node.address(),
            applied: health.map(|health| health.applied),
            digest: health.and_then(|health| health.digest.clone()),
            trouble: health.and_then(|health| health.trouble.clone()),
        }
    };
    region.nodes.iter().enumerate().map(view).collect()
}

fn role(health: Option<&Health>) -> &'static str {
    match health {
        None => "down",
        Some(health) => match (health.mirror, health.is_leader) {
            (false, true) => "leader",
            (false, false) => "follower",
            (true, true) => "mirror-leader",
            (true, false) => "mirror-follower",
        },
    }
}

/// The newest epoch's word; of one epoch, the primary's own.
fn volume(probes: &[RegionProbe]) -> Option<VolumeView> {
    let told = probes.iter().filter_map(|probe| Some((&probe.region, probe.status.as_ref()?.volume.as_ref()?)));
    told.max_by_key(|(region, volume)| (volume.epoch, volume.primary == **region, volume.log_index))
        .map(|(_, volume)| volume.clone())
}

/// Every session once: a mirror tells of its own readers, and of the writers that it has from the primary.
fn sessions(probes: &[RegionProbe]) -> Vec<SessionView> {
    let mut all: Vec<SessionView> = Vec::new();
    for session in probes.iter().filter_map(|probe| probe.status.as_ref()).flat_map(|status| &status.sessions) {
        if !all.iter().any(|known| known.id == session.id) {
            all.push(session.clone());
        }
    }
    all
}
