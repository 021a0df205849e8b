//! A rewind of the mirror in the middle of everything: its shared state must be that of a fresh replay up to that index
//! (law 20), and afterwards it follows again.

use crate::common::Common;
use crate::disk::rows;
use crate::nodes::{self, EU, US};
use crate::store::SimStore;
use farshore_meta::kv::{Space, Store};
use farshore_primary::Proposal;
use farshore_primary::raft::types::Response;
use farshore_types::LogIndex;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the rewind's entry.
const PATIENCE: Duration = Duration::from_secs(2);

/// Rewinds the mirror, if it has a leader, to an index that its before-images reach, not below the lowest floor.
pub async fn rewind_mirror(common: &Arc<Common>) -> Result<(), String> {
    let Some(life) = nodes::leader(&common.net, EU).and_then(|at| common.net.life(at)) else { return Ok(()) };
    let (low, high, lineage) = {
        let kv = life.node.read().map_err(|error| error.to_string())?;
        let header = farshore_meta::header(&*kv).map_err(|error| error.to_string())?;
        let reach = farshore_meta::lowest_reachable(&*kv).map_err(|error| error.to_string())?;
        // Half of them go below the mirror's own floor, as a bystander of a failover must: its figures are null then.
        let own = common.judge.floor(EU)?;
        let floor = if common.dice.chance(500) { own } else { own.min(common.judge.floor(US)?) };
        (reach.max(floor), header.index, header.lineage)
    };
    if low >= high
        || farshore_syncer::home(&*life.node.read().map_err(|error| error.to_string())?).is_ok_and(|home| home.is_none())
    {
        return Ok(());
    }
    let to = LogIndex(common.dice.between(low.0, high.0));
    common.trace.say(format!("the mirror is to rewind from {high} to {to}"));
    let proposal = Proposal::Rewind { to, lineage };
    let answer = SimRuntime::timeout(PATIENCE, life.node.propose(&proposal)).await;
    if !matches!(answer, Ok(Ok(Response::Shared { index, .. })) if index == to) {
        common.trace.say(format!("the rewind was not answered: {answer:?}"));
        return Ok(());
    }
    compare(common, &life.node.store, to)
}

/// A fresh replay to the index at which the state stands has the same shared rows.
fn compare(common: &Common, store: &SimStore, to: LogIndex) -> Result<(), String> {
    let kv = store.read().map_err(|error| error.to_string())?;
    let index = farshore_meta::header(&*kv).map_err(|error| error.to_string())?.index;
    common.trace.say(format!("the mirror has rewound to {to} and stands at {index}"));
    let fresh = common.judge.model().replayed(index)?;
    let fresh = fresh.read().map_err(|error| error.to_string())?;
    let both = |space| -> Result<_, farshore_meta::kv::StorageError> { Ok((rows(&*kv, space)?, rows(&*fresh, space)?)) };
    let (ours, theirs) = both(Space::Shared).map_err(|error| error.to_string())?;
    if ours != theirs {
        return Err(format!("law 20: after a rewind to {to} the state at {index} is not that of a fresh replay"));
    }
    // Before-images may be trimmed; those that are there are the same.
    let (ours, theirs) = both(Space::Undo).map_err(|error| error.to_string())?;
    match ours.iter().find(|(key, value)| theirs.get(*key) != Some(value)) {
        Some((key, _)) => Err(format!("law 20: after a rewind to {to} the before-images at {key:?} are not those of a replay")),
        None => Ok(()),
    }
}
