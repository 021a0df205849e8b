//! What a client must be told: the volume, its clusters, its buckets, and the bounds of its buffers.

use farshore_objects::{BucketUrl, Credentials};
use std::path::PathBuf;
use std::time::Duration;

/// Default bound of data written and not yet committed, in bytes.
pub const DEFAULT_BUFFER_SIZE: u64 = 300 << 20;
/// Default bound of the disk cache, in bytes.
pub const DEFAULT_CACHE_SIZE: u64 = 10 << 30;
/// Default time after which a call that got no answer is unknown (law 10).
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The metadata nodes of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEndpoints {
    pub region: String,
    /// Each `host:port`.
    pub nodes: Vec<String>,
}

/// The bucket of one region.
#[derive(Clone, Debug)]
pub struct RegionBucket {
    pub region: String,
    pub url: BucketUrl,
    /// `None`: the cloud's own credential chain (law 31).
    pub credentials: Option<Credentials>,
}

/// Whose metadata a client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataChoice {
    /// The primary's, wherever it is; the only choice of a client that writes.
    Primary,
    /// The mirror of this region, read only.
    Mirror { region: String },
}

/// When what a program did to a file's attributes is durable, and to its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durable {
    /// When each call returns.
    #[default]
    AtCall,
    /// When the file's next close or fsync returns, at the latest a second later: attributes that are set while the file is
    /// open for writing are sent with its data, in one step, and so is a new file's creation where its directory is held.
    AtClose,
}

/// Everything that a client must be told.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The volume's name; also the prefix of its objects in each bucket.
    pub volume: String,
    pub clusters: Vec<ClusterEndpoints>,
    pub buckets: Vec<RegionBucket>,
    /// The region whose bucket is written and read first.
    pub region: String,
    pub metadata: MetadataChoice,
    pub read_only: bool,
    pub durable: Durable,
    /// A bucket that takes the place of the region's own for this client only.
    pub first_bucket: Option<(BucketUrl, Option<Credentials>)>,
    /// Where blocks are cached on disk; `None`: in memory only.
    pub cache_dir: Option<PathBuf>,
    /// Bound of the disk cache in bytes.
    pub cache_size: u64,
    /// Bound of data written and not yet committed, in bytes.
    pub buffer_size: u64,
    /// Shown to operators.
    pub host: String,
    pub mount: String,
    pub options: String,
    /// Whether the client also works for the ledgers.
    pub background_jobs: bool,
    /// After this time without an answer a call's outcome is unknown.
    pub call_timeout: Duration,
}

impl ClientConfig {
    /// A client of `volume` that writes to the bucket of `region` first, with default bounds.
    pub fn new(volume: &str, region: &str, clusters: Vec<ClusterEndpoints>, buckets: Vec<RegionBucket>) -> ClientConfig {
        ClientConfig {
            volume: volume.to_owned(),
            clusters,
            buckets,
            region: region.to_owned(),
            metadata: MetadataChoice::Primary,
            read_only: false,
            durable: Durable::default(),
            first_bucket: None,
            cache_dir: None,
            cache_size: DEFAULT_CACHE_SIZE,
            buffer_size: DEFAULT_BUFFER_SIZE,
            host: String::new(),
            mount: String::new(),
            options: String::new(),
            background_jobs: true,
            call_timeout: DEFAULT_CALL_TIMEOUT,
        }
    }

    /// Whether the client may change nothing: a mirror is always read-only.
    pub fn is_read_only(&self) -> bool {
        self.read_only || matches!(self.metadata, MetadataChoice::Mirror { .. })
    }

    /// The nodes that a session of this client may try, in turn.
    pub(crate) fn session_nodes(&self) -> Vec<String> {
        let wanted = |cluster: &&ClusterEndpoints| match &self.metadata {
            MetadataChoice::Primary => true,
            MetadataChoice::Mirror { region } => cluster.region == *region,
        };
        self.clusters.iter().filter(wanted).flat_map(|cluster| cluster.nodes.clone()).collect()
    }
}
