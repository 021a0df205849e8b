//! Asks every region's cluster, and makes one view of what they say.
//!
//! An [`Observer`] keeps the last answer of each region with the moment it came, so that a region which falls silent is
//! shown with its last figures and a growing age instead of vanishing. Merging is pure ([`merge_lag`], [`merge_status`]).

mod lag;
mod status;
#[cfg(test)]
mod tests;

pub use lag::{HEARD_SECONDS_MAX, LagAnswer, Late, Verdict, judge, merge_lag};
pub use status::{RegionProbe, merge_status};

use farshore_types::topology::{RegionSpec, Topology};
use farshore_wire::admin::{AdminAnswer, AdminCall, ClusterStatus, Health};
use farshore_wire::admin_client::{AdminClient, AdminError, unexpected};
use farshore_wire::view::{LagView, ReplicationView, StatusView};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one node may take to answer an observer.
pub const CALL_DEADLINE: Duration = Duration::from_millis(1500);

/// `replication status --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplicationStatus {
    pub volume: String,
    pub regions: Vec<RegionReplication>,
}

/// One region of it: its cluster's answer, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RegionReplication {
    Known(Box<ReplicationView>),
    Unknown { region: String, state: &'static str, figures: Option<u64>, error: String },
}

impl RegionReplication {
    pub fn region(&self) -> &str {
        match self {
            RegionReplication::Known(view) => &view.region,
            RegionReplication::Unknown { region, .. } => region,
        }
    }
}

/// Asks the clusters of one topology about one volume.
#[derive(Debug)]
pub struct Observer {
    topology: Topology,
    volume: String,
    client: AdminClient,
    heard: Mutex<BTreeMap<String, (Instant, LagView)>>,
    /// By region: where its cluster's nodes are, as they told last. The topology's may be gone by now.
    told: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Observer {
    pub fn new(topology: Topology, volume: impl Into<String>) -> Observer {
        let volume = volume.into();
        let client = AdminClient::new(volume.clone(), CALL_DEADLINE);
        Observer { topology, volume, client, heard: Mutex::default(), told: Mutex::default() }
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    pub fn volume(&self) -> &str {
        &self.volume
    }

    pub fn client(&self) -> &AdminClient {
        &self.client
    }

    /// Asks all regions for their lag; silent ones keep what they said last.
    pub async fn poll_lag(&self) -> LagView {
        let answers = self.ask_all(&AdminCall::Lag).await;
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for (region, answer) in answers {
            if let Ok(AdminAnswer::Lag(view)) = answer {
                heard.insert(region, (now, view));
            }
        }
        drop(heard);
        self.lag()
    }

    /// The lag by the last answers, their ages as of now.
    pub fn lag(&self) -> LagView {
        let now = Instant::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let answers: Vec<LagAnswer> = heard
            .iter()
            .map(|(region, (at, view))| LagAnswer { region: region.clone(), view: view.clone(), age: now.duration_since(*at) })
            .collect();
        merge_lag(&self.topology, &self.volume, &answers, crate::clock::now_us())
    }

    /// Seconds since each region's cluster answered last; `None`: never.
    pub fn heard_seconds(&self) -> Vec<(String, Option<f64>)> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |region: &RegionSpec| heard.get(&region.name).map(|(at, _)| at.elapsed().as_secs_f64());
        self.topology.regions().iter().map(|region| (region.name.clone(), age(region))).collect()
    }

    /// Every node and cluster, asked now. Buckets' process ids come from `pid_of` (by process name).
    pub async fn status(&self, pid_of: impl Fn(&str) -> Option<u32>) -> StatusView {
        let probes = self.topology.regions().iter().map(|region| self.probe(region));
        let probes = futures::future::join_all(probes).await;
        merge_status(&self.topology, &probes, pid_of)
    }

    /// What each region's cluster says of its own ledger, with at most `limit` owed blocks.
    pub async fn replication(&self, limit: u32) -> ReplicationStatus {
        let answers = self.ask_all(&AdminCall::ReplicationStatus { limit }).await;
        let regions = answers.into_iter().map(|(region, answer)| match answer {
            Ok(AdminAnswer::Replication(view)) => RegionReplication::Known(Box::new(view)),
            Ok(other) => unknown(&region, &unexpected(&region, &other)),
            Err(error) => unknown(&region, &error),
        });
        ReplicationStatus { volume: self.volume.clone(), regions: regions.collect() }
    }

    /// One call to each region's leader, all at once.
    pub async fn ask_all(&self, call: &AdminCall) -> Vec<(String, Result<AdminAnswer, AdminError>)> {
        let asked = self.topology.regions().iter().map(|region| async move {
            let answer = self.client.call_leader(&self.addresses(region), call).await;
            (region.name.clone(), answer.map(|(_, answer)| answer))
        });
        futures::future::join_all(asked).await
    }

    async fn probe(&self, region: &RegionSpec) -> RegionProbe {
        let addresses = self.addresses(region);
        let health = self.client.health_of_all(&addresses).await;
        let status = match self.client.call_leader(&addresses, &AdminCall::Status).await {
            Ok((_, AdminAnswer::Status(status))) => Some(status),
            _ => None::<ClusterStatus>,
        };
        let health = addresses.into_iter().zip(health).filter_map(|(address, health)| Some((address, health.ok()?)));
        let mut health: BTreeMap<String, Health> = health.collect();
        let members = status.as_ref().map(|status| status.nodes.iter().map(|node| node.address.clone()).collect::<Vec<_>>());
        // Who joined since the last look is asked in this one already.
        for address in members.iter().flatten() {
            if !health.contains_key(address)
                && let Ok(known) = self.client.health(address).await
            {
                health.insert(address.clone(), known);
            }
        }
        if let Some(members) = members {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(region.name.clone(), members);
        }
        RegionProbe { region: region.name.clone(), health, status }
    }

    /// Where to look for a region's nodes: as its cluster told last, then as the topology says.
    fn addresses(&self, region: &RegionSpec) -> Vec<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = told.get(&region.name).cloned().unwrap_or_default();
        let declared = addresses(region).into_iter().filter(|address| !all.contains(address)).collect::<Vec<_>>();
        all.extend(declared);
        all
    }
}

/// What others dial to reach a region's nodes, in the order of the file.
pub fn addresses(region: &RegionSpec) -> Vec<String> {
    region.nodes.iter().map(|node| node.address()).collect()
}

fn unknown(region: &str, error: &AdminError) -> RegionReplication {
    RegionReplication::Unknown { region: region.to_owned(), state: "unknown", figures: None, error: error.to_string() }
}
