//! The volume record: what `format` fixes for the life of a volume.

use crate::{ClusterId, GroupId, Incarnation, RegionId, Uuid};
use serde::{Deserialize, Serialize};

/// How blocks are compressed. Only `None` is honoured so far; `format` refuses the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    #[default]
    None,
    Lz4,
    Zstd,
}

/// A region of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionRecord {
    pub id: RegionId,
    pub name: String,
    /// The metadata cluster of this region; `None` for a region that has only a bucket.
    pub cluster: Option<ClusterId>,
    /// The bucket's present incarnation and the uuid in its identity object (law 12).
    pub incarnation: Incarnation,
    pub bucket: Uuid,
}

/// A volume: what every cluster must know to honour it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub name: String,
    pub uuid: Uuid,
    pub group: GroupId,
    /// Bytes in a full block: a power of two, MIN_BLOCK_SIZE..=MAX_BLOCK_SIZE.
    pub block_size: u32,
    pub compression: Compression,
    /// Whether blocks are encrypted. Not honoured so far; `format` refuses `true`.
    pub encrypted: bool,
    /// Days that removed files are kept in the trash. Only 0 is honoured so far; `format` refuses others.
    pub trash_days: u32,
    pub regions: Vec<RegionRecord>,
}

impl VolumeRecord {
    /// The region with this name.
    pub fn region(&self, name: &str) -> Option<&RegionRecord> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// The region with this id.
    pub fn region_by_id(&self, id: RegionId) -> Option<&RegionRecord> {
        self.regions.iter().find(|region| region.id == id)
    }

    /// The region in which a cluster lives.
    pub fn region_of(&self, cluster: ClusterId) -> Option<&RegionRecord> {
        self.regions.iter().find(|region| region.cluster == Some(cluster))
    }
}

/// The content of a bucket's identity object (law 12), stored as JSON at [`BucketIdentity::OBJECT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketIdentity {
    pub volume: Uuid,
    pub region: String,
    pub incarnation: u32,
    pub bucket: Uuid,
}

impl BucketIdentity {
    /// The identity object's name below the volume's prefix.
    pub const OBJECT: &'static str = "farshore_identity";
}
