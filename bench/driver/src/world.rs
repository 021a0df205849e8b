//! A running world, by its directory alone: the topology that it runs on, and the keys of its buckets.

use crate::error::BenchError;
use farshore_client::{ClientConfig, ClusterEndpoints, RegionBucket, Volume};
use farshore_objects::{BucketUrl, Credentials};
use farshore_types::topology::{self, Topology, VolumeSpec};
use farshore_types::{Attr, Ino, LogIndex, NewNode, Op, Reply};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which world, on every verb that needs one.
#[derive(Debug, clap::Args)]
pub struct WorldArgs {
    /// The world's directory, as given to `farshore up`
    #[arg(long)]
    dir: PathBuf,
    /// The volume [default: the first of the topology]
    #[arg(long)]
    volume: Option<String>,
}

pub struct World {
    dir: PathBuf,
    topology: Topology,
    volume: VolumeSpec,
}

/// What is needed of a process's file in the world's directory.
#[derive(serde::Deserialize)]
struct PidFile {
    pid: u32,
    verb: Vec<String>,
}

impl WorldArgs {
    pub fn open(&self) -> Result<World, BenchError> {
        let path = self.dir.join("topology.toml");
        let failed = |why: String| BenchError::new(format!("read {}", path.display()), why);
        let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let topology = Topology::parse(&text, &path).map_err(|error| failed(error.to_string()))?;
        let volume = match &self.volume {
            Some(name) => topology.volume(name),
            None => topology.volumes().first(),
        };
        let volume = volume.ok_or_else(|| failed("it declares no such volume".to_owned()))?.clone();
        Ok(World { dir: self.dir.clone(), topology, volume })
    }
}

impl World {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn volume_name(&self) -> &str {
        &self.volume.name
    }

    /// The metadata nodes of the region where the volume began as primary.
    pub fn primary_nodes(&self) -> Vec<String> {
        self.nodes(&self.volume.initial_primary)
    }

    /// Where those serve their metrics.
    pub fn primary_metrics(&self) -> Vec<String> {
        let region = self.topology.region(&self.volume.initial_primary);
        let nodes = region.into_iter().flat_map(|region| &region.nodes);
        nodes.filter_map(|node| node.metrics.map(|address| address.to_string())).collect()
    }

    /// The metadata nodes of every region.
    pub fn all_nodes(&self) -> Vec<String> {
        self.topology.regions().iter().flat_map(|region| self.nodes(&region.name)).collect()
    }

    /// The world's processes on this machine: what each runs, and its pid.
    pub fn processes(&self) -> Vec<(String, u32)> {
        let files = std::fs::read_dir(self.dir.join("pids")).into_iter().flatten().flatten();
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(path).ok()?;
            let PidFile { pid, verb } = serde_json::from_str(&text).ok()?;
            Some((verb.into_iter().next()?, pid))
        };
        files.filter_map(|file| read(file.path())).collect()
    }

    /// The first mirror's region and its metadata nodes.
    pub fn mirror(&self) -> Result<(String, Vec<String>), BenchError> {
        let mirror = self.volume.mirrors.first().ok_or_else(|| BenchError::new("find the mirror", "the volume has none"))?;
        Ok((mirror.region.clone(), self.nodes(&mirror.region)))
    }

    fn nodes(&self, region: &str) -> Vec<String> {
        self.topology.region(region).map(|region| region.nodes.iter().map(|node| node.address()).collect()).unwrap_or_default()
    }

    /// A client at the primary that copies nothing.
    pub async fn connect(&self) -> Result<Arc<Volume>, BenchError> {
        let failed = |why: String| BenchError::new(format!("connect to {}", self.volume.name), why);
        let mut clusters = Vec::new();
        let mut buckets = Vec::new();
        for region in self.topology.regions() {
            clusters.push(ClusterEndpoints { region: region.name.clone(), nodes: self.nodes(&region.name) });
            let keys = match &region.bucket.credentials {
                topology::Credentials::Generated => Credentials::from_file(&secret(&self.dir, &region.name)),
                topology::Credentials::File(path) => Credentials::from_file(&self.topology.base_dir().join(path)),
                topology::Credentials::Env(prefix) => Credentials::from_env(prefix),
            };
            let keys = keys.map_err(|error| failed(error.to_string()))?;
            let url = BucketUrl::parse(&region.bucket.url).map_err(|error| failed(error.rule.to_string()))?;
            buckets.push(RegionBucket { region: region.name.clone(), url, credentials: Some(keys) });
        }
        let mut config = ClientConfig::new(&self.volume.name, &self.volume.initial_primary, clusters, buckets);
        config.background_jobs = false;
        config.options = "bench".to_owned();
        Volume::connect(config).await.map_err(|error| failed(error.to_string()))
    }
}

fn secret(dir: &Path, region: &str) -> PathBuf {
    dir.join("secrets").join(format!("{region}.json"))
}

/// Makes a file or a directory; answers the inode and the index of its entry.
pub async fn make(volume: &Volume, parent: Ino, name: String, node: NewNode) -> Result<(Attr, LogIndex), BenchError> {
    let failed = |why: String| BenchError::new("create a name", why);
    let op = Op::Make { parent, name: name.into_bytes(), node, mode: 0o755, uid: 0, gid: 0 };
    match volume.session().call(op).await.map_err(|error| failed(error.to_string()))? {
        (Reply::Attr(attr), index) => Ok((attr, index)),
        (other, _) => Err(failed(format!("unexpected answer {other:?}"))),
    }
}

/// A directory of its own for each caller, in one directory of this measurement.
pub async fn directories(volume: &Volume, count: usize) -> Result<Vec<Ino>, BenchError> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let (top, _) = make(volume, Ino::ROOT, format!("bench-{stamp}"), NewNode::Directory).await?;
    let made = (0..count).map(|number| make(volume, top.ino, format!("caller-{number}"), NewNode::Directory));
    let made = futures::future::try_join_all(made).await?;
    Ok(made.into_iter().map(|(attr, _)| attr.ino).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_found_by_its_directory() {
        let temp = tempfile::tempdir().unwrap();
        let args = |volume: Option<&str>| WorldArgs { dir: temp.path().to_owned(), volume: volume.map(str::to_owned) };
        assert!(args(None).open().is_err(), "no world is no world");
        std::fs::write(temp.path().join("topology.toml"), include_str!("../../../topology.toml")).unwrap();
        let world = args(None).open().unwrap();
        assert_eq!((world.volume_name(), world.primary_nodes().len()), ("demo", 3));
        let (region, nodes) = world.mirror().unwrap();
        assert_eq!((region.as_str(), nodes.len()), ("eu-west", 3));
        assert!(args(Some("dem")).open().is_err());
    }
}
