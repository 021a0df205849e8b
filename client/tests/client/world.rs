//! Two regions' buckets in a temporary directory, a cluster, and clients of it.

use crate::server::{Cluster, record};
use bytes::Bytes;
use farshore_client::{ClientConfig, ClusterEndpoints, FileHandle, OpenFlags, RegionBucket, Volume};
use farshore_objects::{Bucket, BucketUrl};
use farshore_types::{BucketIdentity, Ino};
use std::sync::Arc;
use std::time::Duration;

/// A test that hangs fails instead.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub cluster: Cluster,
    dir: tempfile::TempDir,
}

pub const READ_WRITE: OpenFlags = OpenFlags::READ_WRITE;

impl World {
    pub async fn start() -> World {
        let world = World { cluster: Cluster::start().await, dir: tempfile::tempdir().unwrap() };
        for region in record().regions {
            let identity = BucketIdentity {
                volume: record().uuid,
                region: region.name.clone(),
                incarnation: region.incarnation.0,
                bucket: region.bucket,
            };
            let json = serde_json::to_vec(&identity).unwrap();
            world.bucket(&region.name).await.put_replace("demo/farshore_identity", json.into()).await.unwrap();
        }
        world
    }

    pub fn url(&self, region: &str) -> BucketUrl {
        let directory = self.path(region);
        if !directory.exists() {
            std::fs::create_dir_all(&directory).unwrap();
        }
        BucketUrl::parse(&format!("file://{}", directory.display())).unwrap()
    }

    pub fn path(&self, region: &str) -> std::path::PathBuf {
        self.dir.path().join(region)
    }

    pub async fn bucket(&self, region: &str) -> Arc<dyn Bucket> {
        farshore_objects::open(&self.url(region), None).await.unwrap()
    }

    pub fn cache_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("cache")
    }

    pub fn config(&self, region: &str) -> ClientConfig {
        let bucket = |name: &str| RegionBucket { region: name.to_owned(), url: self.url(name), credentials: None };
        let nodes = vec![self.cluster.address.to_string()];
        let cluster = ClusterEndpoints { region: "us-east".to_owned(), nodes };
        let mut config = ClientConfig::new("demo", region, vec![cluster], vec![bucket("us-east"), bucket("eu-west")]);
        config.background_jobs = false;
        config.call_timeout = PATIENCE;
        config
    }

    pub async fn client(&self, region: &str) -> Arc<Volume> {
        Volume::connect(self.config(region)).await.unwrap()
    }

    /// Names of all blocks in a region's bucket.
    pub async fn blocks(&self, region: &str) -> Vec<String> {
        let page = self.bucket(region).await.list("demo/chunks/", None, 10_000).await.unwrap();
        page.objects.into_iter().map(|object| object.name).collect()
    }

    /// Moves all blocks from one bucket to the other.
    pub async fn move_blocks(&self, from: &str, to: &str) {
        let (source, target) = (self.bucket(from).await, self.bucket(to).await);
        for name in self.blocks(from).await {
            let (data, meta) = source.get(&name).await.unwrap();
            target.put_new(&name, data, meta.crc32c.unwrap()).await.unwrap();
            source.delete(&name).await.unwrap();
        }
    }
}

pub async fn create(volume: &Volume, name: &str) -> FileHandle {
    volume.create(Ino::ROOT, name.as_bytes(), 0o644, (0, 0), READ_WRITE).await.unwrap().0
}

pub async fn open(volume: &Volume, name: &str) -> FileHandle {
    let attr = volume.lookup(Ino::ROOT, name.as_bytes()).await.unwrap();
    let flags = if volume.is_read_only() { OpenFlags { read: true, ..OpenFlags::default() } } else { READ_WRITE };
    volume.open(attr.ino, flags).await.unwrap().0
}

pub async fn write_all(volume: &Arc<Volume>, name: &str, data: &[u8]) {
    let handle = create(volume, name).await;
    volume.write(&handle, 0, Bytes::copy_from_slice(data)).await.unwrap();
    volume.release(handle).await.unwrap();
}

pub async fn read_all(volume: &Arc<Volume>, name: &str) -> Vec<u8> {
    let handle = open(volume, name).await;
    let mut all = Vec::new();
    loop {
        let data = volume.read(&handle, all.len() as u64, 100_000).await.unwrap();
        if data.is_empty() {
            volume.release(handle).await.unwrap();
            return all;
        }
        all.extend_from_slice(&data);
    }
}

/// Bytes that tell where they are.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// Waits for something that another task brings about.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
