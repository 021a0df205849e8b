//! From what a person asks for to a client of the volume: whose metadata, which bucket first, whose keys.

use crate::error::CliError;
use crate::topology_file::World;
use crate::world::secrets;
use farshore_client::{ClientConfig, ClusterEndpoints, MetadataChoice, RegionBucket, Volume};
use farshore_console::observe::addresses;
use farshore_objects::{BucketUrl, Credentials};
use farshore_types::topology::VolumeSpec;
use std::sync::Arc;

/// Where a client is, and what it may do.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub region: Option<String>,
    pub read_only: bool,
    pub flip: bool,
    pub bucket: Option<String>,
    pub keys: Option<Credentials>,
}

/// The configuration of a client; nothing is asked over the network.
pub fn config(world: &World, volume: &VolumeSpec, wish: &Wish) -> Result<ClientConfig, CliError> {
    let place = place(world, volume, wish)?;
    let clusters =
        world.topology.regions().iter().map(|region| ClusterEndpoints { region: region.name.clone(), nodes: addresses(region) });
    let mut buckets = Vec::new();
    for region in world.topology.regions() {
        let keys = secrets::of_region(&world.dir, &world.topology, region)?;
        buckets.push(RegionBucket { region: region.name.clone(), url: url(&region.bucket.url)?, credentials: Some(keys) });
    }
    let mut config = ClientConfig::new(&volume.name, &place.region, clusters.collect(), buckets);
    config.metadata = place.metadata;
    config.read_only = place.read_only;
    config.first_bucket = wish.bucket.as_deref().map(|text| first_bucket(world, text, wish.keys.as_ref())).transpose()?;
    config.host = hostname();
    Ok(config)
}

/// Connects; the error says what to look at.
pub async fn connect(config: ClientConfig) -> Result<Arc<Volume>, CliError> {
    Volume::connect(config).await.map_err(|error| {
        CliError::failed(error.to_string(), "see `farshore status`; is the world up (`farshore up`), and is this its topology?")
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Whose bucket comes first; a region's name, so that it keeps its meaning after a promotion.
    region: String,
    metadata: MetadataChoice,
    read_only: bool,
}

fn place(world: &World, volume: &VolumeSpec, wish: &Wish) -> Result<Place, CliError> {
    if let Some(region) = &wish.region {
        world.region(region)?;
    }
    if wish.flip && wish.read_only {
        return Err(CliError::usage("--flip and --read-only exclude each other", "--flip is for writing in the other region"));
    }
    let primary = &volume.initial_primary;
    let region = match (&wish.region, wish.flip) {
        (Some(region), true) if region == primary => {
            return Err(CliError::usage(
                format!("--flip: {region} is the primary itself"),
                "name the other region, or leave --flip out",
            ));
        }
        (Some(region), _) => region.clone(),
        (None, false) => primary.clone(),
        (None, true) => only_other(world, primary)?,
    };
    let writes_at_primary = wish.flip || region == *primary;
    let metadata = if writes_at_primary { MetadataChoice::Primary } else { MetadataChoice::Mirror { region: region.clone() } };
    if !writes_at_primary && !wish.read_only {
        let mend = format!("read there with --read-only, or write from there with --flip (the primary is {primary})");
        return Err(CliError::usage(format!("{region} is a mirror of {}, which is read-only", volume.name), mend));
    }
    Ok(Place { region, metadata, read_only: wish.read_only })
}

fn only_other(world: &World, primary: &str) -> Result<String, CliError> {
    let others: Vec<&str> =
        world.topology.regions().iter().map(|region| region.name.as_str()).filter(|name| *name != primary).collect();
    match others.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(CliError::usage("--flip: there is no other region", "leave --flip out")),
        _ => Err(CliError::usage(
            "--flip: there is more than one other region",
            format!("say which with --region: {}", others.join(", ")),
        )),
    }
}

/// `--bucket`: a declared bucket's URL brings its own keys; another one takes those given, or the cloud's chain.
fn first_bucket(world: &World, text: &str, keys: Option<&Credentials>) -> Result<(BucketUrl, Option<Credentials>), CliError> {
    let plain = text.trim_end_matches('/');
    let declared = world
        .topology
        .regions()
        .iter()
        .find(|region| region.bucket.url == plain || region.bucket.declared.trim_end_matches('/') == plain);
    match (declared, keys) {
        (Some(region), None) => Ok((url(&region.bucket.url)?, Some(secrets::of_region(&world.dir, &world.topology, region)?))),
        (Some(region), Some(keys)) => Ok((url(&region.bucket.url)?, Some(keys.clone()))),
        (None, keys) => Ok((url(plain)?, keys.cloned())),
    }
}

fn url(text: &str) -> Result<BucketUrl, CliError> {
    BucketUrl::parse(text).map_err(|error| CliError::usage(format!("{} is no bucket: {}", error.url, error.rule), error.fix))
}

/// This machine's name, for operators.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology_file::WorldArgs;
    use crate::world::WorldDir;

    fn world(root: &std::path::Path) -> World {
        let mut world = WorldArgs { topology: None, dir: Some(root.to_owned()) }.declared().unwrap();
        world.dir = WorldDir::new(root);
        world.dir.create().unwrap();
        ["us-east", "eu-west"].iter().for_each(|region| secrets::ensure(&world.dir, region).unwrap());
        world
    }

    fn wish(region: Option<&str>, read_only: bool, flip: bool) -> Wish {
        Wish { region: region.map(str::to_owned), read_only, flip, ..Wish::default() }
    }

    #[test]
    fn the_place_follows_from_region_flip_and_read_only() {
        let temp = tempfile::tempdir().unwrap();
        let world = world(temp.path());
        let volume = world.volume(None).unwrap();
        let placed = |wish: Wish| place(&world, volume, &wish).map(|place| (place.region, place.metadata, place.read_only));
        let mirror = MetadataChoice::Mirror { region: "eu-west".into() };
        assert_eq!(placed(wish(None, false, false)).unwrap(), ("us-east".into(), MetadataChoice::Primary, false));
        assert_eq!(placed(wish(None, false, true)).unwrap(), ("eu-west".into(), MetadataChoice::Primary, false));
        assert_eq!(placed(wish(Some("eu-west"), false, true)).unwrap(), ("eu-west".into(), MetadataChoice::Primary, false));
        assert_eq!(placed(wish(Some("eu-west"), true, false)).unwrap(), ("eu-west".into(), mirror, true));
        assert_eq!(placed(wish(Some("us-east"), true, false)).unwrap(), ("us-east".into(), MetadataChoice::Primary, true));
        for bad in [
            wish(Some("eu-west"), false, false),
            wish(Some("us-east"), false, true),
            wish(None, true, true),
            wish(Some("x"), false, false),
        ] {
            let error = placed(bad).unwrap_err();
            assert_eq!(error.exit, 2);
            assert!(!error.mend.is_empty(), "{error}");
        }
    }

    #[test]
    fn a_declared_bucket_brings_its_own_keys() {
        let temp = tempfile::tempdir().unwrap();
        let world = world(temp.path());
        for text in ["s3+http://127.0.0.1:7441/eu-west", "s3+http://127.0.0.1:7441/eu-west/", "embedded://eu-west"] {
            let (url, keys) = first_bucket(&world, text, None).unwrap();
            assert_eq!(url.to_string(), "s3+http://127.0.0.1:7441/eu-west");
            assert!(keys.is_some());
        }
        assert!(first_bucket(&world, "s3+http://127.0.0.1:9/other", None).unwrap().1.is_none());
        assert_eq!(first_bucket(&world, "http://x", None).unwrap_err().exit, 2);
        let config = config(&world, world.volume(None).unwrap(), &wish(None, false, true)).unwrap();
        assert_eq!((config.region.as_str(), config.buckets.len(), config.clusters.len()), ("eu-west", 2, 2));
    }
}
