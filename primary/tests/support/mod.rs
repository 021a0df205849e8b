//! What tests of checkpoints and of starts share.

use farshore_meta::kv::Store;
use farshore_primary::local::{self, RaftApplied};
use farshore_primary::raft::types::{LeaderId, LogId};

/// The state has applied openraft's entry `index`.
pub fn stand_at(store: &impl Store, index: u64) {
    let log_id = Some(LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index });
    let mut kv = store.write().unwrap();
    local::set_applied(&mut *kv, &RaftApplied { log_id, ..RaftApplied::default() }).unwrap();
    kv.commit().unwrap();
}
