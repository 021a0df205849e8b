//! This cluster's own rows outside the ledger: keys in `Space::Local` that begin with `P`.
//!
//! `Pa` the last applied Raft entry and membership; `Pi<LogIndex>` where a shared entry stands in this node's Raft log;
//! `Pf` the followed lineage; `Pv` the volume; `Pc` counters that no rewind reaches (law 7);
//! `Pg<node>` nodes that were taken out of the cluster; `Pn<cluster>` where the nodes of another cluster are;
//! `Pd<LogIndex>` digests; `PD` where this cluster diverged; `Pz` and `Z...` a snapshot on its way (see `reset`).

use crate::raft::types::{LogId, StoredMembership};
use farshore_meta::kv::{KvRead, KvWrite, Space, StorageError};
use farshore_types::{Chain, ClusterId, Digest, Lineage, LogIndex, LogTime, NodeId, RaftIndex, VolumeRecord};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const APPLIED: &[u8] = b"Pa";
const FOLLOWED: &[u8] = b"Pf";
const COUNTERS: &[u8] = b"Pc";
const VOLUME: &[u8] = b"Pv";
const DIVERGED: &[u8] = b"PD";
const DIGEST: &[u8] = b"Pd";
const POSITION: &[u8] = b"Pi";
const GONE: &[u8] = b"Pg";
const GONE_END: &[u8] = b"Ph";
const NODES: &[u8] = b"Pn";
/// Version of these rows' encoding.
const VERSION: u8 = 1;

/// The last applied Raft entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftApplied {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

/// Counted in local state that no rewind reaches (law 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Epochs that this cluster has started.
    pub starts: u16,
    /// The highest epoch number that it has heard of.
    pub heard: u64,
}

/// Where a shared entry stands in this node's Raft log, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub raft: RaftIndex,
    pub time: LogTime,
    /// The chain at this index.
    pub chain: Chain,
}

fn load<T: DeserializeOwned>(kv: &dyn KvRead, key: &[u8]) -> Result<Option<T>, StorageError> {
    let Some(bytes) = kv.get(Space::Local, key)? else { return Ok(None) };
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            postcard::from_bytes(rest).map(Some).map_err(|_| StorageError::damaged(Space::Local, key, "cannot be decoded"))
        }
        _ => Err(StorageError::damaged(Space::Local, key, "has an unknown version")),
    }
}

fn save<T: Serialize>(kv: &mut dyn KvWrite, key: &[u8], value: &T) -> Result<(), StorageError> {
    let bytes = postcard::to_extend(value, vec![VERSION]).expect("local rows always serialise into memory");
    kv.put(Space::Local, key, &bytes)
}

pub fn applied(kv: &dyn KvRead) -> Result<RaftApplied, StorageError> {
    Ok(load(kv, APPLIED)?.unwrap_or_default())
}

pub fn set_applied(kv: &mut dyn KvWrite, applied: &RaftApplied) -> Result<(), StorageError> {
    save(kv, APPLIED, applied)
}

pub fn followed(kv: &dyn KvRead) -> Result<Lineage, StorageError> {
    Ok(load(kv, FOLLOWED)?.unwrap_or_default())
}

pub fn set_followed(kv: &mut dyn KvWrite, lineage: &Lineage) -> Result<(), StorageError> {
    save(kv, FOLLOWED, lineage)
}

/// The volume that this cluster is about, known to a mirror before it has applied the first entry.
pub fn home_volume(kv: &dyn KvRead) -> Result<Option<VolumeRecord>, StorageError> {
    load(kv, VOLUME)
}

pub fn set_home_volume(kv: &mut dyn KvWrite, volume: &VolumeRecord) -> Result<(), StorageError> {
    save(kv, VOLUME, volume)
}

pub fn counters(kv: &dyn KvRead) -> Result<Counters, StorageError> {
    Ok(load(kv, COUNTERS)?.unwrap_or_default())
}

pub fn set_counters(kv: &mut dyn KvWrite, counters: &Counters) -> Result<(), StorageError> {
    save(kv, COUNTERS, counters)
}

fn gone_key(node: NodeId) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(GONE);
    key[2..].copy_from_slice(&node.0.to_be_bytes());
    key
}

/// The name of a node that was taken out of this cluster, if it was. Such an id never comes back.
pub fn removed(kv: &dyn KvRead, node: NodeId) -> Result<Option<String>, StorageError> {
    load(kv, &gone_key(node))
}

pub fn set_removed(kv: &mut dyn KvWrite, node: NodeId, name: &str) -> Result<(), StorageError> {
    save(kv, &gone_key(node), &name.to_owned())
}

/// All nodes that were taken out.
pub fn all_removed(kv: &dyn KvRead) -> Result<Vec<NodeId>, StorageError> {
    kv.scan(Space::Local, GONE, Some(GONE_END))?.map(|row| row.map(|(key, _)| NodeId(index_of(key).0))).collect()
}

fn nodes_key(cluster: ClusterId) -> [u8; 3] {
    [NODES[0], NODES[1], cluster.0]
}

/// Addresses of the nodes of another cluster, as it told them last; empty when it never did.
pub fn nodes_of(kv: &dyn KvRead, cluster: ClusterId) -> Result<Vec<String>, StorageError> {
    Ok(load(kv, &nodes_key(cluster))?.unwrap_or_default())
}

pub fn set_nodes_of(kv: &mut dyn KvWrite, cluster: ClusterId, addresses: &[String]) -> Result<(), StorageError> {
    save(kv, &nodes_key(cluster), &addresses.to_vec())
}

fn position_key(index: LogIndex) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(POSITION);
    key[2..].copy_from_slice(&index.0.to_be_bytes());
    key
}

/// Where the shared entry at `index` stands; `None` when it is trimmed or not applied yet.
pub fn position(kv: &dyn KvRead, index: LogIndex) -> Result<Option<Position>, StorageError> {
    load(kv, &position_key(index))
}

pub fn set_position(kv: &mut dyn KvWrite, index: LogIndex, position: Position) -> Result<(), StorageError> {
    save(kv, &position_key(index), &position)
}

/// The first shared entry that this node can still read from its log.
pub fn first_position(kv: &dyn KvRead) -> Result<Option<LogIndex>, StorageError> {
    let mut rows = kv.scan(Space::Local, &position_key(LogIndex(0)), Some(b"Pj"))?;
    rows.next().map(|row| row.map(|(key, _)| index_of(key))).transpose()
}

fn index_of(key: &[u8]) -> LogIndex {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key[2..10]);
    LogIndex(u64::from_be_bytes(bytes))
}

/// Forgets the positions of entries below `below` (exclusive), and of those above `above`; at most `limit`.
pub fn forget_positions(kv: &mut dyn KvWrite, from: LogIndex, below: LogIndex, limit: usize) -> Result<usize, StorageError> {
    let doomed: Vec<Vec<u8>> = kv
        .scan(Space::Local, &position_key(from), Some(&position_key(below)))?
        .take(limit)
        .map(|row| row.map(|(key, _)| key.to_vec()))
        .collect::<Result<_, _>>()?;
    for key in &doomed {
        kv.delete(Space::Local, key)?;
    }
    Ok(doomed.len())
}

/// Digests are kept at multiples of this index, so that two clusters have some in common while both are moving.
const DIGEST_EVERY: u64 = 128;
/// How many of them are kept.
const DIGESTS: u64 = 64;

fn digest_key(index: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(DIGEST);
    key[2..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Keeps the digest at `index` if it is one of those that are compared.
pub fn note_digest(kv: &mut dyn KvWrite, index: LogIndex) -> Result<(), StorageError> {
    if !index.0.is_multiple_of(DIGEST_EVERY) {
        return Ok(());
    }
    let digest = farshore_meta::digest(kv)?;
    save(kv, &digest_key(index.0), &digest)?;
    match index.0.checked_sub(DIGESTS * DIGEST_EVERY) {
        Some(old) => kv.delete(Space::Local, &digest_key(old)),
        None => Ok(()),
    }
}

/// The digest at `index`, if it was kept.
pub fn digest_at(kv: &dyn KvRead, index: LogIndex) -> Result<Option<Digest>, StorageError> {
    load(kv, &digest_key(index.0))
}

/// The newest index at or below `index` at which digests are kept.
pub fn digest_point(index: LogIndex) -> LogIndex {
    LogIndex(index.0 - index.0 % DIGEST_EVERY)
}

/// Where this cluster was found to differ from its primary.
pub fn diverged(kv: &dyn KvRead) -> Result<Option<LogIndex>, StorageError> {
    load(kv, DIVERGED)
}

pub fn set_diverged(kv: &mut dyn KvWrite, index: LogIndex) -> Result<(), StorageError> {
    save(kv, DIVERGED, &index)
}
