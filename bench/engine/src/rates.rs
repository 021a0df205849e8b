//! What one core of a node's state machine does in a second: creates with and without before-images, files of one block,
//! the same entries in a mirror, and rewind. Each load begins on a fresh state; nothing is synced, as in a node.

use crate::clock::{Took, time};
use crate::cluster::{Cluster, EU, US, volume};
use crate::error::{Doing, EngineError};
use crate::load::{Load, LoadArgs};
use farshore_changelog::extend;
use farshore_meta::kv::{Lmdb, Store};
use farshore_primary::raft::types::Response;
use farshore_primary::{MACHINE_VERSION, Own, Proposal, apply};
use farshore_types::{Chain, Lineage, LogIndex, RaftIndex};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A fresh directory is made in it and removed at the end
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Files of each load
    #[arg(long, default_value_t = 500_000)]
    files: u64,
    #[command(flatten)]
    load: LoadArgs,
    /// Only apply, and nothing after it: for a profiler
    #[arg(long)]
    apply_only: bool,
}

/// One load's rate.
#[derive(Debug, Serialize)]
pub struct Rate {
    pub files: u64,
    #[serde(flatten)]
    pub took: Took,
    /// By CPU time, so that others on the machine do not count.
    pub files_per_core_second: f64,
    pub files_per_second: f64,
    pub cpu_us_per_file: f64,
    /// Of the trims of before-images and positions, which come on top.
    pub trim_cpu_us_per_file: f64,
}

/// How fast a rewind goes.
#[derive(Debug, Serialize)]
pub struct RewindRate {
    pub entries: u64,
    pub files: u64,
    #[serde(flatten)]
    pub took: Took,
    pub entries_per_second: f64,
    pub files_per_second: f64,
}

#[derive(Debug, Serialize)]
pub struct Rates {
    load: LoadArgs,
    apply: Option<Rate>,
    apply_without_before_images: Option<Rate>,
    /// What before-images cost: their share of apply's and their trims' CPU time.
    before_images_share: Option<f64>,
    /// The same entries through a mirror's judge, apply and ledger.
    mirror: Option<Rate>,
    mirror_times_primary: Option<f64>,
    changelog_bytes_per_file: Option<f64>,
    rewind: Option<RewindRate>,
}

pub fn run(args: &Args) -> Result<Rates, EngineError> {
    let fresh = tempfile::Builder::new().prefix("farshore-engine.").tempdir_in(&args.dir).doing("make a directory")?;
    let place = |name: &str| {
        let path = fresh.path().join(name);
        std::fs::create_dir(&path).and(Ok(path)).doing("make a directory")
    };
    let (mut with, entries) = primary(args, place("with")?, true)?;
    let apply = with.rate;
    if args.apply_only {
        return Ok(Rates {
            load: args.load.clone(),
            apply: Some(apply),
            apply_without_before_images: None,
            before_images_share: None,
            mirror: None,
            mirror_times_primary: None,
            changelog_bytes_per_file: None,
            rewind: None,
        });
    }
    let (without, _) = primary(args, place("without")?, false)?;
    let bytes: usize = entries.iter().map(Vec::len).sum();
    let mirror = mirror(args, place("mirror")?, &with.cluster, entries, apply.files)?;
    let rewind = rewind(&mut with.cluster)?;
    // Both trim positions; only one of them has before-images to trim.
    let cost = |rate: &Rate| rate.cpu_us_per_file + rate.trim_cpu_us_per_file;
    Ok(Rates {
        load: args.load.clone(),
        before_images_share: Some(1.0 - cost(&without.rate) / cost(&apply)),
        mirror_times_primary: Some(mirror.files_per_core_second / apply.files_per_core_second),
        changelog_bytes_per_file: Some(bytes as f64 / apply.files as f64),
        apply: Some(apply),
        apply_without_before_images: Some(without.rate),
        mirror: Some(mirror),
        rewind: Some(rewind),
    })
}

struct Fed {
    cluster: Cluster,
    rate: Rate,
}

fn primary(args: &Args, path: PathBuf, keep_undo: bool) -> Result<(Fed, Vec<Vec<u8>>), EngineError> {
    let store = Lmdb::open(&path).doing("open the store")?;
    let mut cluster = Cluster::new(US, store, keep_undo, "");
    cluster.entries = (keep_undo && !args.apply_only).then(Vec::new);
    let mut load = Load::begin(args.load.clone(), &mut cluster)?;
    cluster.took = Took::default();
    let files = load.run(&mut cluster, args.files)?;
    let rate = rate(files, cluster.took, cluster.trimming);
    let entries = cluster.entries.take().unwrap_or_default();
    Ok((Fed { cluster, rate }, entries))
}

pub fn rate(files: u64, took: Took, trimming: Took) -> Rate {
    let count = files as f64;
    Rate {
        files,
        took,
        files_per_core_second: count / took.cpu_seconds,
        files_per_second: count / took.seconds,
        cpu_us_per_file: took.cpu_seconds * 1e6 / count,
        trim_cpu_us_per_file: trimming.cpu_seconds * 1e6 / count,
    }
}

/// A mirror takes all entries of the primary's life: the load's, and the few before it.
fn mirror(args: &Args, path: PathBuf, primary: &Cluster, entries: Vec<Vec<u8>>, files: u64) -> Result<Rate, EngineError> {
    let store = Lmdb::open(&path).doing("open the store")?;
    let mut mirror = Cluster::new(EU, store, true, "");
    let lineage = lineage(primary)?;
    mirror.apply(&[Proposal::Home { volume: volume() }.encode(), Proposal::Follow { lineage: lineage.clone() }.encode()])?;
    let epoch = lineage.head_id();
    let mut chain = Chain::default();
    let mut offers: Vec<Arc<[u8]>> = vec![];
    for (at, canonical) in entries.into_iter().enumerate() {
        let index = LogIndex(at as u64 + 1);
        let next = extend(&chain, index, &canonical);
        offers.push(Proposal::Mirrored { index, previous: chain, epoch, canonical }.encode());
        chain = next;
    }
    mirror.took = Took::default();
    for group in offers.chunks(args.load.group()) {
        for response in mirror.apply(group)? {
            if !matches!(response, Response::Shared { .. }) {
                return Err(EngineError::new("apply in a mirror", format!("{response:?}")));
            }
        }
    }
    let same = |cluster: &Cluster| {
        let kv = cluster.store.read().doing("read the digest")?;
        farshore_meta::digest(&*kv).doing("read the digest")
    };
    if same(primary)? != same(&mirror)? {
        return Err(EngineError::new("compare the digests", "the mirror is not what its primary is"));
    }
    Ok(rate(files, mirror.took, Took::default()))
}

fn lineage(cluster: &Cluster) -> Result<Lineage, EngineError> {
    let kv = cluster.store.read().doing("read the header")?;
    Ok(farshore_meta::header(&*kv).doing("read the header")?.lineage)
}

/// Undoes half of what before-images still reach, in one transaction.
fn rewind(cluster: &mut Cluster) -> Result<RewindRate, EngineError> {
    let (applied, to, lineage) = {
        let kv = cluster.store.read().doing("read the header")?;
        let header = farshore_meta::header(&*kv).doing("read the header")?;
        let lowest = farshore_meta::lowest_reachable(&*kv).doing("read the before-images")?;
        (header.index, LogIndex(header.index.0 - (header.index.0 - lowest.0) / 2), header.lineage)
    };
    let before = inodes(cluster)?;
    let proposal = Proposal::Rewind { to, lineage }.encode();
    let (done, took) = time(|| {
        let mut kv = cluster.store.write().doing("begin a transaction")?;
        let effect = apply(&mut *kv, Own { cluster: US, machine: MACHINE_VERSION }, RaftIndex(u64::MAX >> 1), &proposal, None)
            .doing("rewind")?;
        kv.commit().doing("commit")?;
        Ok::<_, EngineError>(effect.response)
    });
    match done? {
        Response::Shared { .. } => {}
        other => return Err(EngineError::new("rewind", format!("{other:?}"))),
    }
    let entries = applied.0 - to.0;
    let files = before - inodes(cluster)?;
    Ok(RewindRate {
        entries,
        files,
        took,
        entries_per_second: entries as f64 / took.cpu_seconds,
        files_per_second: files as f64 / took.cpu_seconds,
    })
}

fn inodes(cluster: &Cluster) -> Result<u64, EngineError> {
    let kv = cluster.store.read().doing("read the usage")?;
    match farshore_meta::query(&*kv, &farshore_types::Query::StatFs).doing("read the usage")? {
        Ok(farshore_types::QueryReply::StatFs { used_inodes, .. }) => Ok(used_inodes),
        other => Err(EngineError::new("read the usage", format!("{other:?}"))),
    }
}
