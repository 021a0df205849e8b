//! The declared world: regions with their metadata nodes and buckets, volumes with their mirrors, the console.
//!
//! [`Topology::parse`] is the only way to make one, so a value of this type keeps all rules: names, ports and buckets
//! are unique, every listener is on loopback, clusters have odd sizes, mirrors name regions that have nodes. What a
//! later version will honour is refused with "not available yet"; nothing in the file is silently ignored (law 28).
//! Every error names the key, the rule and the mend (law 30), and no error repeats a secret (law 31).

mod check;
mod error;
mod nearest;
mod parse;
mod rewrite;
mod secrets;
mod section;
#[cfg(test)]
mod tests;
pub mod units;

pub use error::{TopologyError, TopologyErrorKind};
pub use nearest::nearest;

use crate::{ByteCount, ClusterId, Compression, GroupId, Incarnation, RegionId, RegionRecord, SLOT_STRIPES, Uuid, VolumeRecord};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the file's format.
pub const FORMAT: i64 = 1;
/// Clusters at most: each owns a stripe of the id space (law 7).
pub const CLUSTERS_MAX: usize = SLOT_STRIPES as usize;
/// Nodes of one cluster at most.
pub const NODES_MAX: usize = 7;
/// Longest file that is read, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// A topology that keeps all rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The world's name.
    pub name: String,
    /// The file that it was read from, or what stands for it.
    pub origin: PathBuf,
    /// The text that it was read from.
    pub text: String,
    /// Where `up` keeps everything, relative to the file's directory; `None`: the caller's default.
    pub data_dir: Option<PathBuf>,
    pub console: Option<SocketAddr>,
    pub raft: RaftTimes,
    pub log: LogLimits,
    /// In the order of the file; the position is the region's and its cluster's number.
    regions: Vec<RegionSpec>,
    volumes: Vec<VolumeSpec>,
}

/// How long every node's log may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// A checkpoint is due after so many entries; the log goes up to the older of two.
    pub checkpoint_entries: u64,
    /// Past it the log no longer waits for a mirror that is away: the mirror takes a snapshot (law 25).
    pub retention: ByteCount,
}

/// Times of every cluster's Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTimes {
    pub heartbeat: Duration,
    /// Shortest and longest time without a heartbeat until a follower stands for election.
    pub election_min: Duration,
    pub election_max: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    pub name: String,
    pub id: RegionId,
    pub cluster: ClusterId,
    /// Odd in number, never empty.
    pub nodes: Vec<NodeSpec>,
    pub bucket: BucketSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Unique in the whole topology.
    pub name: String,
    /// Serves peers, clients, mirrors and operators.
    pub listen: SocketAddr,
    /// What others dial, where it differs from `listen`.
    pub advertise: Option<String>,
    /// Serves `/metrics`.
    pub metrics: Option<SocketAddr>,
}

impl NodeSpec {
    /// `host:port` that others dial.
    pub fn address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSpec {
    /// As declared.
    pub declared: String,
    /// What clients open, for example `s3+http://127.0.0.1:7421/us-east`.
    pub url: String,
    /// Of an embedded bucket: the bucket's name and where its server listens.
    pub embedded: Option<EmbeddedBucket>,
    pub credentials: Credentials,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedBucket {
    pub name: String,
    pub listen: SocketAddr,
}

/// Where a bucket's keys come from; never the keys themselves (law 31).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Made by `up` and kept under its directory.
    Generated,
    /// A JSON file with `access_key` and `secret_key`; relative to the topology's directory.
    File(PathBuf),
    /// The variables `PREFIX_ACCESS_KEY` and `PREFIX_SECRET_KEY`.
    Env(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    pub name: String,
    /// Counts once, at format (law 23).
    pub initial_primary: String,
    pub mirrors: Vec<MirrorSpec>,
    /// Between two full syncs of each region's bucket.
    pub full_sync_every: Duration,
    /// Bytes in a full block.
    pub block_size: u32,
    pub compression: Compression,
    pub trash_days: u32,
}

/// A mirror of a volume, with its recovery point objectives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSpec {
    pub region: String,
    pub rpo_metadata: Option<Duration>,
    pub rpo_data: Option<Duration>,
}

/// A node and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct NodePlace<'a> {
    pub region: &'a RegionSpec,
    pub node: &'a NodeSpec,
}

impl Topology {
    /// Reads a topology; `origin` names the text in errors and anchors relative paths.
    pub fn parse(text: &str, origin: impl AsRef<Path>) -> Result<Topology, TopologyError> {
        let topology = parse::parse(text, origin.as_ref())?;
        check::check(&topology)?;
        Ok(topology)
    }

    /// In the order of the file.
    pub fn regions(&self) -> &[RegionSpec] {
        &self.regions
    }

    pub fn region(&self, name: &str) -> Option<&RegionSpec> {
        self.regions.iter().find(|region| region.name == name)
    }

    pub fn region_of_cluster(&self, cluster: ClusterId) -> Option<&RegionSpec> {
        self.regions.iter().find(|region| region.cluster == cluster)
    }

    pub fn volumes(&self) -> &[VolumeSpec] {
        &self.volumes
    }

    pub fn volume(&self, name: &str) -> Option<&VolumeSpec> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// All nodes of all regions, in the order of the file.
    pub fn nodes(&self) -> impl Iterator<Item = NodePlace<'_>> {
        self.regions.iter().flat_map(|region| region.nodes.iter().map(move |node| NodePlace { region, node }))
    }

    /// The node of this name, with its region (and so its cluster's number; its own is drawn with its directory).
    pub fn node(&self, name: &str) -> Option<NodePlace<'_>> {
        self.nodes().find(|place| place.node.name == name)
    }

    pub fn cluster_of(&self, region: &str) -> Option<ClusterId> {
        self.region(region).map(|region| region.cluster)
    }

    /// The directory that relative paths in the file start from.
    pub fn base_dir(&self) -> &Path {
        self.origin.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The volume record that `format` writes: region and cluster numbers as in this topology, first incarnations.
    /// `bucket` gives the uuid in each region's identity object. `None` for a volume that is not declared.
    pub fn record(&self, volume: &str, uuid: Uuid, mut bucket: impl FnMut(&RegionSpec) -> Uuid) -> Option<VolumeRecord> {
        let spec = self.volume(volume)?;
        let regions = self.regions.iter().map(|region| RegionRecord {
            id: region.id,
            name: region.name.clone(),
            cluster: Some(region.cluster),
            incarnation: Incarnation(0),
            bucket: bucket(region),
        });
        Some(VolumeRecord {
            name: spec.name.clone(),
            uuid,
            group: group_of(uuid),
            block_size: spec.block_size,
            compression: spec.compression,
            encrypted: false,
            trash_days: spec.trash_days,
            regions: regions.collect(),
        })
    }

    /// The same file with every listener's address passed through `address`; comments are lost. For worlds on ports of
    /// their own.
    pub fn readdressed(&self, address: impl FnMut(SocketAddr) -> SocketAddr) -> Result<Topology, TopologyError> {
        rewrite::readdress(self, address)
    }

    /// Every listener: its key, what it belongs to, its address.
    pub fn listeners(&self) -> Vec<Listener> {
        check::listeners(self)
    }
}

/// The group of a volume: the first half of its uuid, never 0 (0 means "not known yet" on the wire).
pub fn group_of(uuid: Uuid) -> GroupId {
    let mut half = [0u8; 8];
    half.copy_from_slice(&uuid.0[..8]);
    GroupId(u64::from_be_bytes(half).max(1))
}

/// An address that a process of the world listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// For example `region.us-east.nodes[0].listen`.
    pub key: String,
    /// The process: a node's name, `bucket-REGION`, or `console`.
    pub process: String,
    pub address: SocketAddr,
}

/// The name of the process that serves a region's embedded bucket.
pub fn bucket_process(region: &str) -> String {
    format!("bucket-{region}")
}

/// The name of the console's process.
pub const CONSOLE_PROCESS: &str = "console";
