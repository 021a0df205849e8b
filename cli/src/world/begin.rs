//! The beginning of a world: clusters made, buckets marked, volumes formatted, mirrors told whom to follow.
//!
//! Every step may be repeated: what is there already is left alone. No step ever moves a primary (law 23).

use super::dir::WorldDir;
use super::record::WorldRecord;
use super::secrets;
use crate::error::CliError;
use bytes::Bytes;
use farshore_console::observe::addresses;
use farshore_objects::{BucketError, BucketUrl};
use farshore_types::topology::{RegionSpec, Topology, VolumeSpec};
use farshore_types::{BucketIdentity, Incarnation, VolumeRecord};
use farshore_wire::admin::{AdminAnswer, AdminCall, Health, NewMember};
use farshore_wire::admin_client::{AdminClient, AdminError};
use std::time::Duration;
use tokio::time::Instant;

/// Until a cluster must have made, found or changed its leader.
const STEP_MAX: Duration = Duration::from_secs(60);
const TRY_EVERY: Duration = Duration::from_millis(100);
/// How long one node may take; formatting waits for a majority's disks.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// Does whatever is not done yet; returns when every cluster is ready.
pub async fn begin(dir: &WorldDir, topology: &Topology, record: &WorldRecord) -> Result<(), CliError> {
    for volume in topology.volumes() {
        let client = AdminClient::new(volume.name.clone(), CALL_DEADLINE);
        for region in topology.regions() {
            initialize(&client, region, record.is_founded(&region.name)).await?;
        }
        let volume_record = record_of(topology, record, &volume.name)?;
        for region in topology.regions() {
            mark_bucket(dir, topology, region, &volume_record).await?;
        }
        format(&client, topology, volume, &volume_record).await?;
        for mirror in &volume.mirrors {
            follow(&client, topology, volume, &mirror.region, &volume_record).await?;
        }
        for region in topology.regions() {
            ready(&client, region).await?;
        }
    }
    Ok(())
}

/// What `format` writes, with the ids that were drawn for this world.
pub fn record_of(topology: &Topology, record: &WorldRecord, volume: &str) -> Result<VolumeRecord, CliError> {
    let damaged = || CliError::failed(format!("world.json has no ids for volume {volume:?}"), "begin anew in another --dir");
    let (uuid, buckets) = record.ids(volume).ok_or_else(damaged)?;
    if let Some(region) = topology.regions().iter().find(|region| !buckets.contains_key(region.name.as_str())) {
        return Err(CliError::failed(
            format!("world.json has no bucket id for region {:?}", region.name),
            "begin anew in another --dir",
        ));
    }
    topology.record(volume, uuid, |region| buckets[region.name.as_str()]).ok_or_else(damaged)
}

/// Makes the cluster out of the region's nodes, and waits for a leader. One that was made before is not made again: if all
/// its nodes are new, the old ones have the metadata.
async fn initialize(client: &AdminClient, region: &RegionSpec, founded: bool) -> Result<(), CliError> {
    let addresses = addresses(region);
    let first = addresses.first().expect("every region has nodes").clone();
    let doing = format!("making the cluster of {}", region.name);
    retry(&doing, || async {
        let health = client.health_of_all(&addresses).await;
        if health.iter().flatten().any(|health| health.initialized) {
            return leader_health(client, &addresses).await.map(|_| ());
        }
        // All of them: each has drawn a number of its own, which the cluster must know.
        let health = health.into_iter().collect::<Result<Vec<Health>, _>>()?;
        if founded {
            let message =
                "it was made before, and none of these nodes belongs to it: bring its own nodes or their directories back";
            return Err(AdminError::Failed { address: first.clone(), message: message.to_owned() });
        }
        let members = health.into_iter().zip(&addresses);
        let members = members.map(|(health, address)| NewMember { id: health.node, name: health.name, address: address.clone() });
        client.call(&first, &AdminCall::Initialize { members: members.collect() }).await?;
        leader_health(client, &addresses).await.map(|_| ())
    })
    .await
}

/// Writes the identity object of the region's bucket (law 12), or finds its own there.
async fn mark_bucket(dir: &WorldDir, topology: &Topology, region: &RegionSpec, volume: &VolumeRecord) -> Result<(), CliError> {
    let keys = secrets::of_region(dir, topology, region)?;
    let place = volume.region(&region.name).expect("the record was made of this topology");
    let identity = BucketIdentity {
        volume: volume.uuid,
        region: region.name.clone(),
        incarnation: place.incarnation.0,
        bucket: place.bucket,
    };
    assert_eq!(place.incarnation, Incarnation(0), "a world begins with the first buckets");
    let failed = |error: BucketError| {
        let mend = "is its server up, and are its keys right? See `credentials` in the topology";
        CliError::failed(format!("cannot mark the bucket of {}: {error}", region.name), mend)
    };
    let url = BucketUrl::parse(&format!("{}/{}", region.bucket.url, volume.name)).map_err(|error| failed(error.into()))?;
    let bucket = farshore_objects::open(&url, Some(keys)).await.map_err(failed)?;
    let bytes = Bytes::from(serde_json::to_vec(&identity).expect("plain data always serialises"));
    let checksum = crc32c::crc32c(&bytes);
    let end = Instant::now() + STEP_MAX;
    loop {
        match bucket.put_new(BucketIdentity::OBJECT, bytes.clone(), checksum).await {
            Ok(_) => return Ok(()),
            Err(BucketError::Conflict { .. }) => return check_identity(&*bucket, region, &identity).await,
            Err(error) if error.is_transient() && Instant::now() < end => tokio::time::sleep(TRY_EVERY).await,
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The bucket carries an identity already; a later incarnation of this volume's bucket is fine, another's is not.
async fn check_identity(
    bucket: &dyn farshore_objects::Bucket,
    region: &RegionSpec,
    ours: &BucketIdentity,
) -> Result<(), CliError> {
    let read = bucket.get(BucketIdentity::OBJECT).await;
    let theirs = read.ok().and_then(|(bytes, _)| serde_json::from_slice::<BucketIdentity>(&bytes).ok());
    match theirs {
        Some(theirs) if theirs.volume == ours.volume && theirs.region == ours.region => Ok(()),
        Some(theirs) => {
            let what = format!(
                "the bucket of {} belongs to region {} of another volume ({})",
                region.name, theirs.region, theirs.volume
            );
            Err(CliError::failed(what, format!("give `region.{}.bucket.url` a bucket of its own", region.name)))
        }
        None => {
            let what = format!("the bucket of {} carries an identity that cannot be read", region.name);
            Err(CliError::failed(what, format!("look at the object `{}` in it", BucketIdentity::OBJECT)))
        }
    }
}

/// The first entry of the volume. A cluster that has it, from whomever, is left alone (law 23).
pub async fn format(
    client: &AdminClient,
    topology: &Topology,
    volume: &VolumeSpec,
    record: &VolumeRecord,
) -> Result<(), CliError> {
    let primary = topology.region(&volume.initial_primary).expect("the topology was checked");
    let addresses = addresses(primary);
    retry(&format!("formatting volume {}", volume.name), || async {
        let health = leader_health(client, &addresses).await?;
        if health.formatted {
            return Ok(());
        }
        client.call_leader(&addresses, &AdminCall::Format { volume: record.clone() }).await.map(|_| ())
    })
    .await
}

/// Tells the mirror whom to follow, and the primary that it holds its deletions from now on (law 14).
async fn follow(
    client: &AdminClient,
    topology: &Topology,
    volume: &VolumeSpec,
    region: &str,
    record: &VolumeRecord,
) -> Result<(), CliError> {
    let mirror = topology.region(region).expect("the topology was checked");
    let primary = topology.region(&volume.initial_primary).expect("the topology was checked");
    let (mirrors, primaries) = (addresses(mirror), addresses(primary));
    retry(&format!("telling {region} to follow {}", primary.name), || async {
        let health = leader_health(client, &mirrors).await?;
        if health.mirror || health.formatted {
            return Ok(());
        }
        client.call_leader(&mirrors, &AdminCall::Follow { volume: record.clone() }).await.map(|_| ())
    })
    .await?;
    retry(&format!("adding {region} to the roster"), || async {
        if leader_health(client, &primaries).await?.mirror {
            // It is no longer the primary; whoever is keeps the roster.
            return Ok(());
        }
        client.call_leader(&primaries, &AdminCall::RosterAdd { cluster: mirror.cluster.0 }).await.map(|_| ())
    })
    .await
}

async fn ready(client: &AdminClient, region: &RegionSpec) -> Result<(), CliError> {
    let addresses = addresses(region);
    retry(&format!("waiting for {} to serve", region.name), || async {
        let health = leader_health(client, &addresses).await?;
        if health.ready {
            return Ok(());
        }
        let detail = format!("its leader {} is not ready yet", health.name);
        Err(AdminError::NoLeader { asked: addresses.join(", "), detail })
    })
    .await
}

async fn leader_health(client: &AdminClient, addresses: &[String]) -> Result<Health, AdminError> {
    match client.call_leader(addresses, &AdminCall::Health).await? {
        (_, AdminAnswer::Health(health)) if health.is_leader => Ok(health),
        (address, AdminAnswer::Health(health)) => Err(AdminError::NotLeader { address, leader: health.leader_address }),
        (address, other) => Err(farshore_wire::admin_client::unexpected(&address, &other)),
    }
}

/// Repeats a step while it may still succeed, at most [`STEP_MAX`].
async fn retry<F: Future<Output = Result<(), AdminError>>>(doing: &str, step: impl Fn() -> F) -> Result<(), CliError> {
    let end = Instant::now() + STEP_MAX;
    loop {
        match step().await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() && Instant::now() < end => tokio::time::sleep(TRY_EVERY).await,
            Err(error) => {
                let what = format!("{doing} failed: {error}");
                return Err(CliError::failed(
                    what,
                    "see `farshore status` and the logs in the world's directory, then repeat the command",
                ));
            }
        }
    }
}
