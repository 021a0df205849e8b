//! From text to values, table by table. Rules that span tables are in `check`.

use super::error::{TopologyError, TopologyErrorKind as Kind};
use super::section::{Keys, Section, echo, error_at};
use super::{
    BucketSpec, CLUSTERS_MAX, Credentials, EmbeddedBucket, FORMAT, LogLimits, MirrorSpec, NODES_MAX, NodeSpec, RaftTimes,
    RegionSpec, TEXT_BYTES_MAX, Topology, VolumeSpec, nearest, secrets,
};
use crate::{ByteCount, ClusterId, Compression, MAX_BLOCK_SIZE, MIN_BLOCK_SIZE, RegionId};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};

const TOP: Keys = Keys {
    known: &["format", "name", "data_dir", "console", "defaults", "raft", "log", "region", "volume"],
    later: &["tls", "alerts", "clients", "limits", "full_sync"],
};
const CONSOLE: Keys = Keys { known: &["listen"], later: &[] };
const DEFAULTS: Keys = Keys { known: &["trash_days", "fencing"], later: &["witness", "retention"] };
const RAFT: Keys = Keys { known: &["heartbeat", "election_timeout"], later: &[] };
const LOG: Keys = Keys { known: &["checkpoint_entries", "retention"], later: &["format", "level"] };
const ELECTION: Keys = Keys { known: &["min", "max"], later: &[] };
const REGION: Keys = Keys { known: &["nodes", "bucket"], later: &["provider", "console", "workers_from"] };
const NODE: Keys = Keys { known: &["name", "listen", "advertise", "metrics"], later: &["failure_domain"] };
const BUCKET: Keys = Keys {
    known: &["url", "listen", "credentials"],
    later: &["aws_region", "prefix", "kms_key", "storage_class", "endpoint_from", "limits"],
};
const CREDENTIALS: Keys = Keys { known: &["file", "env"], later: &["chain"] };
const VOLUME: Keys = Keys {
    known: &["initial_primary", "mirrors", "full_sync", "block_size", "trash_days", "compression", "fencing"],
    later: &["delete_protection", "encryption", "witness", "automatic_failover", "backup", "retention", "targets"],
};
const MIRROR: Keys = Keys { known: &["rpo_metadata", "rpo_data"], later: &["at_breach", "on_divergence", "apply_delay"] };
const FULL_SYNC: Keys = Keys { known: &["every"], later: &["start", "timezone", "window", "listing", "budget"] };

/// Between two full syncs unless the volume says otherwise: a week.
const FULL_SYNC_EVERY: Duration = Duration::from_secs(7 * 86_400);
/// Shortest interval of full syncs: below it one run would not end before the next.
const FULL_SYNC_EVERY_MIN: Duration = Duration::from_secs(1);
const BLOCK_SIZE: ByteCount = ByteCount(4 << 20);
/// A follower waits for the longest election time and a random one before it stands: 0.6 to 0.8 s after the last heartbeat. One
/// hundred kills of the leader on a busy machine of two processors kept callers waiting for less than a second with these, and
/// pre-votes keep one slow node from unseating a leader.
const RAFT_TIMES: RaftTimes = RaftTimes {
    heartbeat: Duration::from_millis(75),
    election_min: Duration::from_millis(200),
    election_max: Duration::from_millis(400),
};
/// Fewest entries between two checkpoints: below it a node would do little else.
const CHECKPOINT_ENTRIES_MIN: i64 = 100;
const LOG_LIMITS: LogLimits = LogLimits { checkpoint_entries: 100_000, retention: ByteCount(8 << 30) };
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);

pub(super) fn parse(text: &str, path: &Path) -> Result<Topology, TopologyError> {
    let origin = path.display().to_string();
    if text.len() > TEXT_BYTES_MAX {
        let rule = format!("the file has more than {TEXT_BYTES_MAX} bytes");
        return Err(error_at(&origin, Kind::Syntax, "", rule, "is it a topology at all?"));
    }
    let table: Table = text.parse().map_err(|error| syntax(&origin, text, &error))?;
    secrets::refuse(&origin, &table)?;
    let top = Section::open(&origin, String::new(), &table, &TOP)?;
    check_format(&top)?;
    let name = top.required_text("name")?;
    top.check_name("name", name)?;
    let defaults_trash = defaults(&top)?;
    Ok(Topology {
        name: name.to_owned(),
        origin: path.to_owned(),
        text: text.to_owned(),
        data_dir: top.text("data_dir")?.map(PathBuf::from),
        console: top.section("console", &CONSOLE)?.map(|console| console.required_listener("listen")).transpose()?,
        raft: raft(&top)?,
        log: log(&top)?,
        regions: regions(&top)?,
        volumes: volumes(&top, defaults_trash)?,
    })
}

/// The line and what the parser expected; never the line's text, which may hold a secret (law 31).
fn syntax(origin: &str, text: &str, error: &toml::de::Error) -> TopologyError {
    let line = error.span().map(|span| text.as_bytes()[..span.start.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1);
    let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let first = error.message().lines().next().unwrap_or("no TOML").to_owned();
    error_at(origin, Kind::Syntax, "", format!("{at}{first}"), "mend the TOML syntax there")
}

fn check_format(top: &Section) -> Result<(), TopologyError> {
    match top.integer("format")? {
        Some(FORMAT) => Ok(()),
        None => Err(top.error(Kind::MissingKey, "format", "is missing", "add `format = 1`")),
        Some(other) => {
            let rule = format!("is {other}; this version reads format {FORMAT}");
            Err(top.error(Kind::BadValue, "format", rule, "use the version of farshore that wrote it, or write it in format 1"))
        }
    }
}

fn defaults(top: &Section) -> Result<u32, TopologyError> {
    let Some(defaults) = top.section("defaults", &DEFAULTS)? else { return Ok(0) };
    fencing(&defaults)?;
    trash_days(&defaults, 0)
}

/// The only fencing so far is the operator's word.
fn fencing(section: &Section) -> Result<(), TopologyError> {
    match section.text("fencing")? {
        None | Some("operator") => Ok(()),
        Some("witness") => Err(section.error(
            Kind::NotAvailableYet,
            "fencing",
            "\"witness\" is not available yet",
            "write \"operator\", or remove it",
        )),
        Some(other) => {
            Err(section.error(Kind::BadValue, "fencing", format!("is no fencing{}", echo(other)), "write \"operator\""))
        }
    }
}

fn trash_days(section: &Section, default: u32) -> Result<u32, TopologyError> {
    match section.integer("trash_days")? {
        None => Ok(default),
        Some(0) => Ok(0),
        Some(days) if days < 0 => Err(section.error(Kind::BadValue, "trash_days", "is negative", "write 0")),
        Some(_) => {
            let mend = "write 0 (removed files are gone at once), or remove it: the default is 0 until the trash is there";
            Err(section.error(Kind::NotAvailableYet, "trash_days", "other than 0 is not available yet", mend))
        }
    }
}

fn raft(top: &Section) -> Result<RaftTimes, TopologyError> {
    let mut times = RAFT_TIMES;
    let Some(raft) = top.section("raft", &RAFT)? else { return Ok(times) };
    if let Some(heartbeat) = raft.duration("heartbeat")? {
        times.heartbeat = heartbeat;
    }
    if times.heartbeat < HEARTBEAT_MIN {
        return Err(raft.error(Kind::BadValue, "heartbeat", "is below 10ms", "write 10ms or more"));
    }
    if let Some(election) = raft.section("election_timeout", &ELECTION)? {
        times.election_min = election.duration("min")?.ok_or_else(|| election.missing("min"))?;
        times.election_max = election.duration("max")?.ok_or_else(|| election.missing("max"))?;
    }
    if times.election_min < times.heartbeat * 2 {
        let mend = "leave room for one lost heartbeat: write min as twice the heartbeat or more";
        return Err(raft.error(Kind::BadValue, "election_timeout", "has a min below two heartbeats", mend));
    }
    if times.election_max <= times.election_min {
        let mend = "write a larger max: equal times make nodes stand at once, and no one wins";
        return Err(raft.error(Kind::BadValue, "election_timeout", "has a max that is not above its min", mend));
    }
    Ok(times)
}

fn log(top: &Section) -> Result<LogLimits, TopologyError> {
    let mut limits = LOG_LIMITS;
    let Some(log) = top.section("log", &LOG)? else { return Ok(limits) };
    match log.integer("checkpoint_entries")? {
        Some(entries) if entries < CHECKPOINT_ENTRIES_MIN => {
            let mend = format!("write {CHECKPOINT_ENTRIES_MIN} or more; the default is {}", LOG_LIMITS.checkpoint_entries);
            return Err(log.error(Kind::BadValue, "checkpoint_entries", format!("is {entries}"), mend));
        }
        Some(entries) => limits.checkpoint_entries = entries as u64,
        None => {}
    }
    limits.retention = log.size("retention")?.unwrap_or(limits.retention);
    Ok(limits)
}

fn regions(top: &Section) -> Result<Vec<RegionSpec>, TopologyError> {
    let missing = || top.error(Kind::MissingKey, "region", "is missing", "declare at least one, as [region.NAME]");
    let named = top.named("region")?.ok_or_else(missing)?;
    let names: Vec<&str> = named.names().collect();
    if names.is_empty() {
        return Err(missing());
    }
    if names.len() > CLUSTERS_MAX {
        let rule = format!("has {} regions; a volume has at most {CLUSTERS_MAX}", names.len());
        return Err(top.error(Kind::BadValue, "region", rule, "remove some"));
    }
    names.iter().enumerate().map(|(at, name)| region(&named, name, at)).collect()
}

fn region(regions: &Section, name: &str, at: usize) -> Result<RegionSpec, TopologyError> {
    let number = u8::try_from(at).expect("there are at most CLUSTERS_MAX regions");
    let section = regions.section(name, &REGION)?.expect("the name came from the table");
    let bucket = match section.section("bucket", &BUCKET)? {
        Some(bucket) => bucket_spec(&bucket)?,
        None => {
            return Err(section.error(
                Kind::MissingKey,
                "bucket",
                "is missing",
                "give the region a bucket: bucket = { url = ... }",
            ));
        }
    };
    let nodes = nodes(&section)?;
    Ok(RegionSpec { name: name.to_owned(), id: RegionId(number), cluster: ClusterId(number), nodes, bucket })
}

/// May be empty: `check` tells a mirror without nodes from a bucket-only region.
fn nodes(region: &Section) -> Result<Vec<NodeSpec>, TopologyError> {
    let items = region.array("nodes")?.unwrap_or_default();
    if items.len() > NODES_MAX {
        return Err(region.error(
            Kind::BadValue,
            "nodes",
            format!("has {} nodes", items.len()),
            format!("use at most {NODES_MAX}"),
        ));
    }
    if !items.is_empty() && items.len() % 2 == 0 {
        let rule = format!("has {} nodes; an even cluster bears no more failures than one with a node less", items.len());
        return Err(region.error(Kind::BadValue, "nodes", rule, "use 1, 3, 5 or 7"));
    }
    items.iter().enumerate().map(|(at, item)| node(region, at, item)).collect()
}

fn node(region: &Section, at: usize, item: &Value) -> Result<NodeSpec, TopologyError> {
    let key = format!("{}[{at}]", region.key("nodes"));
    let Some(table) = item.as_table() else {
        let rule = format!("is a {}", item.type_str());
        return Err(error_at(region.origin, Kind::WrongType, key, rule, "write { name = ..., listen = ..., metrics = ... }"));
    };
    let section = Section::open(region.origin, key, table, &NODE)?;
    let name = section.required_text("name")?;
    section.check_name("name", name)?;
    let advertise = section.text("advertise")?;
    if let Some(text) = advertise
        && !text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    {
        let rule = format!("is no address{}", echo(text));
        return Err(section.error(Kind::BadValue, "advertise", rule, "write HOST:PORT, as others dial it"));
    }
    Ok(NodeSpec {
        name: name.to_owned(),
        listen: section.required_listener("listen")?,
        advertise: advertise.map(str::to_owned),
        metrics: section.listener("metrics")?,
    })
}

fn bucket_spec(section: &Section) -> Result<BucketSpec, TopologyError> {
    let declared = section.required_text("url")?;
    let (scheme, rest) = declared.split_once("://").unwrap_or_default();
    match scheme {
        "embedded" => embedded(section, declared, rest),
        "s3+http" => remote(section, declared, rest),
        "s3" | "s3+https" | "gs" | "azure" | "az" | "file" => {
            let rule = format!("with {scheme}:// is not available yet");
            Err(section.error(
                Kind::NotAvailableYet,
                "url",
                rule,
                "use embedded://NAME with a `listen`, or s3+http://HOST:PORT/BUCKET",
            ))
        }
        _ => {
            let rule = format!("is no bucket{}", echo(declared));
            Err(section.error(
                Kind::BadValue,
                "url",
                rule,
                "write embedded://NAME with a `listen`, or s3+http://HOST:PORT/BUCKET",
            ))
        }
    }
}

fn embedded(section: &Section, declared: &str, name: &str) -> Result<BucketSpec, TopologyError> {
    section.check_name("url", name)?;
    if name.len() < 3 {
        return Err(section.error(
            Kind::BadValue,
            "url",
            "names a bucket of fewer than 3 letters",
            "use a longer name, as S3 asks",
        ));
    }
    if section.has("credentials") {
        let mend = "remove it: `up` makes the keys of an embedded bucket";
        return Err(section.error(Kind::BadValue, "credentials", "is not for an embedded bucket", mend));
    }
    let listen = section.required_listener("listen")?;
    Ok(BucketSpec {
        declared: declared.to_owned(),
        url: format!("s3+http://{listen}/{name}"),
        embedded: Some(EmbeddedBucket { name: name.to_owned(), listen }),
        credentials: Credentials::Generated,
    })
}

fn remote(section: &Section, declared: &str, rest: &str) -> Result<BucketSpec, TopologyError> {
    let well_formed =
        rest.split_once('/').is_some_and(|(host, bucket)| !host.is_empty() && !bucket.trim_end_matches('/').is_empty());
    if !well_formed {
        let rule = format!("is no bucket{}", echo(declared));
        return Err(section.error(Kind::BadValue, "url", rule, "write s3+http://HOST:PORT/BUCKET"));
    }
    if section.has("listen") {
        let mend = "remove it, or use url = \"embedded://NAME\"";
        return Err(section.error(Kind::BadValue, "listen", "is for embedded buckets only", mend));
    }
    let credentials = section.section("credentials", &CREDENTIALS)?.ok_or_else(|| section.missing("credentials"))?;
    let credentials = match (credentials.text("file")?, credentials.text("env")?) {
        (Some(file), None) => Credentials::File(PathBuf::from(file)),
        (None, Some(env)) => Credentials::Env(env.to_owned()),
        _ => {
            let mend = "write { file = \"PATH\" } or { env = \"PREFIX\" }";
            return Err(section.error(Kind::BadValue, "credentials", "names not exactly one source", mend));
        }
    };
    let url = declared.trim_end_matches('/').to_owned();
    Ok(BucketSpec { declared: declared.to_owned(), url, embedded: None, credentials })
}

fn volumes(top: &Section, default_trash: u32) -> Result<Vec<VolumeSpec>, TopologyError> {
    let missing = || top.error(Kind::MissingKey, "volume", "is missing", "declare one, as [volume.NAME]");
    let named = top.named("volume")?.ok_or_else(missing)?;
    let names: Vec<&str> = named.names().collect();
    match names.as_slice() {
        [] => Err(missing()),
        [name] => Ok(vec![volume(&named, name, default_trash)?]),
        [_, second, ..] => Err(named.error(
            Kind::NotAvailableYet,
            second,
            "is a second volume, which is not available yet",
            "declare one volume a world",
        )),
    }
}

fn volume(volumes: &Section, name: &str, default_trash: u32) -> Result<VolumeSpec, TopologyError> {
    let section = volumes.section(name, &VOLUME)?.expect("the name came from the table");
    fencing(&section)?;
    let every = match section.section("full_sync", &FULL_SYNC)? {
        Some(full_sync) => full_sync.duration("every")?.unwrap_or(FULL_SYNC_EVERY),
        None => FULL_SYNC_EVERY,
    };
    if every < FULL_SYNC_EVERY_MIN {
        return Err(section.error(Kind::BadValue, "full_sync", "has `every` below 1s", "write 1s or more; 7d is usual"));
    }
    Ok(VolumeSpec {
        name: name.to_owned(),
        initial_primary: section.required_text("initial_primary")?.to_owned(),
        mirrors: mirrors(&section)?,
        full_sync_every: every,
        block_size: block_size(&section)?,
        compression: compression(&section)?,
        trash_days: trash_days(&section, default_trash)?,
    })
}

fn mirrors(volume: &Section) -> Result<Vec<MirrorSpec>, TopologyError> {
    let Some(named) = volume.named("mirrors")? else { return Ok(Vec::new()) };
    let read = |name: &str| {
        let mirror = named.section(name, &MIRROR)?.expect("the name came from the table");
        let (rpo_metadata, rpo_data) = (mirror.duration("rpo_metadata")?, mirror.duration("rpo_data")?);
        Ok(MirrorSpec { region: name.to_owned(), rpo_metadata, rpo_data })
    };
    named.names().map(read).collect()
}

fn block_size(volume: &Section) -> Result<u32, TopologyError> {
    let size = volume.size("block_size")?.unwrap_or(BLOCK_SIZE).0;
    match u32::try_from(size) {
        Ok(size) if size.is_power_of_two() && (MIN_BLOCK_SIZE..=MAX_BLOCK_SIZE).contains(&size) => Ok(size),
        _ => {
            let mend = "write a power of two from 64KiB to 16MiB; 4MiB is usual";
            Err(volume.error(Kind::BadValue, "block_size", format!("is {size} bytes"), mend))
        }
    }
}

fn compression(volume: &Section) -> Result<Compression, TopologyError> {
    const KNOWN: [&str; 3] = ["none", "lz4", "zstd"];
    match volume.text("compression")? {
        None | Some("none") => Ok(Compression::None),
        Some(later @ ("lz4" | "zstd")) => {
            let rule = format!("{later:?} is not available yet");
            Err(volume.error(Kind::NotAvailableYet, "compression", rule, "write \"none\", or remove it"))
        }
        Some(other) => {
            let near = nearest(other, KNOWN).unwrap_or("none");
            Err(volume.error(
                Kind::BadValue,
                "compression",
                format!("is no compression{}", echo(other)),
                format!("did you mean {near:?}?"),
            ))
        }
    }
}
