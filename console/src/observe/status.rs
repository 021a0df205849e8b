//! One status view out of what nodes and leaders say. Pure.

use farshore_types::topology::{RegionSpec, Topology, bucket_process};
use farshore_wire::admin::{ClusterStatus, Health};
use farshore_wire::view::{BucketView, NodeView, SessionView, StatusView, VolumeView};
use std::collections::BTreeMap;

/// What a region's nodes answered.
#[derive(Clone, Debug, Default)]
pub struct RegionProbe {
    pub region: String,
    /// By address, of those that answer.
    pub health: BTreeMap<String, Health>,
    /// By its leader.
    pub status: Option<ClusterStatus>,
}

/// All nodes of the topology and all members of the clusters, the ones without an answer as `down`; the volume as its
/// primary tells it.
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

/// The topology's nodes in its order, then members that it does not declare any more, or not yet.
fn nodes_of(region: &RegionSpec, probe: Option<&RegionProbe>) -> Vec<NodeView> {
    let members: &[NodeView] = probe.and_then(|probe| probe.status.as_ref()).map_or(&[], |status| &status.nodes);
    let mut nodes: Vec<(String, String)> = region.nodes.iter().map(|node| (node.name.clone(), node.address())).collect();
    for member in members {
        if !nodes.iter().any(|(name, address)| *name == member.name || *address == member.address) {
            nodes.push((member.name.clone(), member.address.clone()));
        }
    }
    let view = |(name, address): (String, String)| {
        let health = probe.and_then(|probe| probe.health.get(&address)).filter(|health| health.name == name);
        NodeView {
            role: role(health).to_owned(),
            pid: health.map(|health| health.pid),
            applied: health.map(|health| health.applied),
            digest: health.and_then(|health| health.digest.clone()),
            trouble: health.and_then(|health| health.trouble.clone()),
            machine: health.map(|health| health.machine).filter(|machine| *machine > 0),
            region: region.name.clone(),
            name,
            address,
        }
    };
    nodes.into_iter().map(view).collect()
}

/// A node that its cluster does not have, or not yet, says so.
fn role(health: Option<&Health>) -> &'static str {
    let Some(health) = health else { return "down" };
    let own = health.members.iter().find(|member| member.id == health.node);
    match (own, health.mirror, health.is_leader) {
        // An older node does not tell who the members are.
        (None, ..) if !health.members.is_empty() || !health.initialized => "no-member",
        (Some(own), ..) if !own.voter => "learner",
        (_, false, true) => "leader",
        (_, false, false) => "follower",
        (_, true, true) => "mirror-leader",
        (_, true, false) => "mirror-follower",
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
