use super::*;
use TopologyErrorKind as Kind;

const DEFAULT: &str = include_str!("../../../topology.toml");

fn parse(text: &str) -> Result<Topology, TopologyError> {
    Topology::parse(text, "topology.toml")
}

/// The default with one piece of text replaced by another.
fn with(from: &str, to: &str) -> Result<Topology, TopologyError> {
    assert!(DEFAULT.contains(from), "the default has no {from:?}");
    parse(&DEFAULT.replacen(from, to, 1))
}

#[track_caller]
fn refused(result: Result<Topology, TopologyError>, kind: Kind, key: &str) -> TopologyError {
    let error = result.expect_err("it was taken");
    assert_eq!((error.kind, error.key.as_str()), (kind, key), "{error}");
    assert!(!error.rule.is_empty() && !error.mend.is_empty() && error.origin == "topology.toml");
    error
}

#[test]
fn the_default_is_two_regions_on_one_machine() {
    let topology = parse(DEFAULT).unwrap();
    let names: Vec<_> = topology.regions().iter().map(|r| (r.name.as_str(), r.cluster.0, r.nodes.len())).collect();
    assert_eq!(names, [("us-east", 0, 3), ("eu-west", 1, 3)]);
    assert_eq!(topology.region("eu-west").unwrap().bucket.url, "s3+http://127.0.0.1:7441/eu-west");
    let place = topology.node("euw-b").unwrap();
    assert_eq!((place.region.name.as_str(), place.region.cluster), ("eu-west", ClusterId(1)));
    let volume = topology.volume("demo").unwrap();
    assert_eq!((volume.trash_days, volume.block_size), (0, 4 << 20));
    assert_eq!(volume.mirrors[0].rpo_data, Some(Duration::from_secs(10)));
    assert_eq!(volume.full_sync_every, Duration::from_secs(7 * 86_400));
    assert_eq!(topology.listeners().len(), 1 + 12 + 2);
}

#[test]
fn the_record_carries_the_numbers_of_the_topology() {
    let topology = parse(DEFAULT).unwrap();
    let record = topology.record("demo", Uuid([7; 16]), |region| Uuid([region.id.0; 16])).unwrap();
    assert_eq!(record.region("eu-west").unwrap().cluster, Some(ClusterId(1)));
    assert_eq!(record.region("eu-west").unwrap().bucket, Uuid([1; 16]));
    assert_ne!(group_of(Uuid([0; 16])).0, 0);
    assert!(topology.record("other", Uuid([7; 16]), |_| Uuid::default()).is_none());
}

#[test]
fn numbers_follow_the_order_of_the_file_and_not_the_alphabet() {
    let topology = parse(DEFAULT).unwrap();
    assert!(topology.cluster_of("us-east") < topology.cluster_of("eu-west"));
}

#[test]
fn an_unknown_key_is_refused_with_its_neighbour() {
    let error = refused(
        with("listen = \"127.0.0.1:7432\"", "lisen = \"127.0.0.1:7432\""),
        Kind::UnknownKey,
        "region.eu-west.nodes[1].lisen",
    );
    assert!(error.mend.contains("`listen`"), "{error}");
    refused(with("[raft]", "[rafft]"), Kind::UnknownKey, "rafft");
    refused(with("rpo_data", "rpo_date"), Kind::UnknownKey, "volume.demo.mirrors.eu-west.rpo_date");
    let far = refused(with("[raft]", "[kubernetes]"), Kind::UnknownKey, "kubernetes");
    assert!(far.mend.contains("region, volume"), "{far}");
}

#[test]
fn what_comes_later_is_refused_and_never_ignored() {
    let top = ["[tls]\nca = \"x\"", "[clients]\nbootstrap = []", "[alerts]\n", "[[limits]]\nto = \"eu-west\"", "[full_sync]\n"];
    for text in top {
        let key = text.trim_matches(['[', '\n']).split(']').next().unwrap();
        refused(with("[raft]", &format!("{text}\n[raft]")), Kind::NotAvailableYet, key);
    }
    let volume = [
        ("delete_protection = true", "delete_protection"),
        ("encryption = { key_file = \"/k\" }", "encryption"),
        ("compression = \"zstd\"", "compression"),
        ("trash_days = 7", "trash_days"),
        ("fencing = \"witness\"", "fencing"),
        ("automatic_failover = \"on\"", "automatic_failover"),
        ("retention = { max_log_age = \"72h\" }", "retention"),
        ("targets = { gcp = {} }", "targets"),
        ("backup = {}", "backup"),
    ];
    for (line, key) in volume {
        refused(with("[volume.demo]", &format!("[volume.demo]\n{line}")), Kind::NotAvailableYet, &format!("volume.demo.{key}"));
    }
    refused(with("trash_days = 0", "trash_days = 1"), Kind::NotAvailableYet, "defaults.trash_days");
    refused(with("rpo_data", "apply_delay = \"1h\", rpo_data"), Kind::NotAvailableYet, "volume.demo.mirrors.eu-west.apply_delay");
    refused(with("every = \"7d\"", "every = \"7d\", window = \"1h\""), Kind::NotAvailableYet, "volume.demo.full_sync.window");
    refused(with("[region.us-east]", "[region.us-east]\nprovider = \"aws\""), Kind::NotAvailableYet, "region.us-east.provider");
    refused(
        with("metrics = \"127.0.0.1:7511\"", "failure_domain = \"a\""),
        Kind::NotAvailableYet,
        "region.us-east.nodes[0].failure_domain",
    );
    refused(with("embedded://us-east", "s3://example"), Kind::NotAvailableYet, "region.us-east.bucket.url");
    refused(parse(&format!("{DEFAULT}\n[volume.more]\ninitial_primary = \"us-east\"")), Kind::NotAvailableYet, "volume.more");
    let bucket_only = "[region.gcp-us]\nbucket = { url = \"embedded://gcp-us\", listen = \"127.0.0.1:7450\" }\n[volume.demo]";
    refused(with("[volume.demo]", bucket_only), Kind::NotAvailableYet, "region.gcp-us");
}

#[test]
fn what_is_missing_is_named() {
    refused(with("format = 1", ""), Kind::MissingKey, "format");
    refused(with("name = \"demo\"", ""), Kind::MissingKey, "name");
    refused(with("listen = \"127.0.0.1:7400\"", ""), Kind::MissingKey, "console.listen");
    refused(with("name = \"use-a\", ", ""), Kind::MissingKey, "region.us-east.nodes[0].name");
    refused(with("listen = \"127.0.0.1:7411\", ", ""), Kind::MissingKey, "region.us-east.nodes[0].listen");
    refused(
        with("bucket = { url = \"embedded://us-east\", listen = \"127.0.0.1:7421\" }", ""),
        Kind::MissingKey,
        "region.us-east.bucket",
    );
    refused(with(", listen = \"127.0.0.1:7421\"", ""), Kind::MissingKey, "region.us-east.bucket.listen");
    refused(with("initial_primary = \"us-east\"", ""), Kind::MissingKey, "volume.demo.initial_primary");
    refused(with("min = \"200ms\", ", ""), Kind::MissingKey, "raft.election_timeout.min");
    refused(parse("format = 1\nname = \"x\""), Kind::MissingKey, "region");
    refused(parse(DEFAULT.split("[volume.demo]").next().unwrap()), Kind::MissingKey, "volume");
}

#[test]
fn wrong_values_are_named_with_the_mend() {
    refused(with("format = 1", "format = 2"), Kind::BadValue, "format");
    refused(with("format = 1", "format = \"1\""), Kind::WrongType, "format");
    refused(with("name = \"demo\"", "name = \"De mo\""), Kind::BadValue, "name");
    refused(with("\"127.0.0.1:7411\"", "\"localhost\""), Kind::BadValue, "region.us-east.nodes[0].listen");
    refused(with("\"127.0.0.1:7411\"", "\"127.0.0.1:0\""), Kind::BadValue, "region.us-east.nodes[0].listen");
    refused(with("\"127.0.0.1:7411\"", "7411"), Kind::WrongType, "region.us-east.nodes[0].listen");
    refused(with("metrics = \"127.0.0.1:7511\"", "advertise = \"nowhere\""), Kind::BadValue, "region.us-east.nodes[0].advertise");
    refused(with("embedded://us-east", "us-east"), Kind::BadValue, "region.us-east.bucket.url");
    refused(with("embedded://us-east", "embedded://u"), Kind::BadValue, "region.us-east.bucket.url");
    refused(with("rpo_data = \"10s\"", "rpo_data = \"10\""), Kind::BadValue, "volume.demo.mirrors.eu-west.rpo_data");
    refused(with("every = \"7d\"", "every = \"1ms\""), Kind::BadValue, "volume.demo.full_sync");
    refused(with("heartbeat = \"75ms\"", "heartbeat = \"1ms\""), Kind::BadValue, "raft.heartbeat");
    refused(with("heartbeat = \"75ms\"", "heartbeat = \"900ms\""), Kind::BadValue, "raft.election_timeout");
    refused(with("max = \"400ms\"", "max = \"200ms\""), Kind::BadValue, "raft.election_timeout");
    refused(with("trash_days = 0", "trash_days = -1"), Kind::BadValue, "defaults.trash_days");
    refused(with("\"operator\"", "\"hope\""), Kind::BadValue, "defaults.fencing");
    for size in ["\"5MiB\"", "\"32KiB\"", "\"32MiB\""] {
        refused(with("[volume.demo]", &format!("[volume.demo]\nblock_size = {size}")), Kind::BadValue, "volume.demo.block_size");
    }
    refused(with("[volume.demo]", "[volume.demo]\ncompression = \"zst\""), Kind::BadValue, "volume.demo.compression");
    assert_eq!(with("[volume.demo]", "[volume.demo]\nblock_size = \"1MiB\"").unwrap().volumes()[0].block_size, 1 << 20);
}

#[test]
fn the_traps_of_the_operators_surface_are_refused() {
    refused(with("embedded://eu-west", "embedded://us-east"), Kind::Duplicate, "region.eu-west.bucket.url");
    let error = refused(with("127.0.0.1:7432", "127.0.0.1:7411"), Kind::Duplicate, "region.eu-west.nodes[1].listen");
    assert!(error.rule.contains("7411") && error.rule.contains("region.us-east.nodes[0].listen"), "{error}");
    refused(with("127.0.0.1:7531", "127.0.0.1:7400"), Kind::Duplicate, "region.eu-west.nodes[0].metrics");
    refused(with("\"euw-b\"", "\"use-b\""), Kind::Duplicate, "region.eu-west.nodes[1].name");
    refused(with("\"euw-b\"", "\"console\""), Kind::Duplicate, "region.eu-west.nodes[1].name");
    refused(with("\"euw-b\"", "\"bucket-eu-west\""), Kind::Duplicate, "region.eu-west.nodes[1].name");
    refused(
        with("initial_primary = \"us-east\"", "initial_primary = \"us-eats\""),
        Kind::UnknownName,
        "volume.demo.initial_primary",
    );
    refused(with("eu-west = {", "us-east = {"), Kind::BadValue, "volume.demo.mirrors.us-east");
    refused(with("mirrors = { eu-west = { rpo_metadata = \"1s\", rpo_data = \"10s\" } }", ""), Kind::BadValue, "region.eu-west");
    let node = "  { name = \"euw-c\", listen = \"127.0.0.1:7433\", metrics = \"127.0.0.1:7533\" },\n";
    refused(with(node, ""), Kind::BadValue, "region.eu-west.nodes");
    for open in ["0.0.0.0:7411", "10.1.1.11:7411", "[::]:7411"] {
        refused(with("127.0.0.1:7411", open), Kind::OpenListener, "region.us-east.nodes[0].listen");
    }
    refused(with("127.0.0.1:7400", "0.0.0.0:7400"), Kind::OpenListener, "console.listen");
    let (before, rest) = DEFAULT.split_once("[region.eu-west]").unwrap();
    let without = format!("{before}[region.eu-west]\nbucket{}", rest.split_once("]\nbucket").unwrap().1);
    let error = refused(parse(&without), Kind::BadValue, "volume.demo.mirrors.eu-west");
    assert!(error.rule.contains("no nodes"), "{error}");
}

#[test]
fn law_31_a_secret_is_refused_by_its_key_and_never_repeated() {
    let secret = "hunter2-hunter2";
    let cases = [
        (format!("[raft]\npassword = \"{secret}\""), "raft.password"),
        (format!("[raft]\nsecret-key = \"{secret}\""), "raft.secret-key"),
        (format!("[tls]\ntoken = \"{secret}\"\n[raft]"), "tls.token"),
        (format!("[clients]\nurl = \"https://me:{secret}@host/\"\n[raft]"), "clients.url"),
        (format!("[clients]\nurls = [\"https://h/?sig={secret}\"]\n[raft]"), "clients.urls[0]"),
    ];
    for (text, key) in cases {
        let error = refused(with("[raft]", &text), Kind::LiteralSecret, key);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let broken = parse(&format!("format = 1\nsecret_key = \"{secret}\nname = 1")).unwrap_err();
    assert_eq!(broken.kind, Kind::Syntax);
    assert!(broken.rule.contains("line 2") && !format!("{broken:?}").contains("hunter2"), "{broken}");
}

#[test]
fn law_30_no_broken_text_panics() {
    for cut in 0..DEFAULT.len() {
        if DEFAULT.is_char_boundary(cut) {
            let _ = parse(&DEFAULT[..cut]);
        }
    }
    for text in ["", "[", "region = 5", "format = 1\nname = \"x\"\nregion = {}\n", "\u{0}"] {
        assert!(parse(text).is_err(), "{text:?} was taken");
    }
    assert_eq!(parse(&"#".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().kind, Kind::Syntax);
}

#[test]
fn a_world_moves_to_other_ports_and_stays_the_same_otherwise() {
    let topology = parse(DEFAULT).unwrap();
    let moved = topology.readdressed(|old| SocketAddr::new(old.ip(), old.port() + 1000)).unwrap();
    assert_eq!(moved.regions().len(), 2);
    for (old, new) in topology.listeners().iter().zip(moved.listeners()) {
        assert_eq!((&old.key, &old.process, old.address.port() + 1000), (&new.key, &new.process, new.address.port()));
    }
    assert_eq!(moved.region("us-east").unwrap().bucket.url, "s3+http://127.0.0.1:8421/us-east");
    assert_eq!((moved.volumes(), moved.raft), (topology.volumes(), topology.raft));
}

#[test]
fn a_bucket_of_another_server_needs_a_source_of_keys() {
    let old = "bucket = { url = \"embedded://us-east\", listen = \"127.0.0.1:7421\" }";
    let new = |rest: &str| with(old, &format!("bucket = {{ url = \"s3+http://127.0.0.1:9000/mine\"{rest} }}"));
    refused(new(""), Kind::MissingKey, "region.us-east.bucket.credentials");
    refused(new(", credentials = {}"), Kind::BadValue, "region.us-east.bucket.credentials");
    refused(new(", credentials = { chain = \"aws\" }"), Kind::NotAvailableYet, "region.us-east.bucket.credentials.chain");
    refused(new(", listen = \"127.0.0.1:7421\""), Kind::BadValue, "region.us-east.bucket.listen");
    let topology = new(", credentials = { file = \"keys.json\" }").unwrap();
    assert_eq!(topology.region("us-east").unwrap().bucket.credentials, Credentials::File("keys.json".into()));
}

#[test]
fn the_log_has_limits_with_defaults() {
    let default = parse(DEFAULT).unwrap().log;
    assert_eq!((default.checkpoint_entries, default.retention.0), (100_000, 8 << 30));
    let own = with("[raft]", "[log]\ncheckpoint_entries = 200\nretention = \"1MiB\"\n[raft]").unwrap().log;
    assert_eq!((own.checkpoint_entries, own.retention.0), (200, 1 << 20));
    refused(with("[raft]", "[log]\ncheckpoint_entries = 7\n[raft]"), Kind::BadValue, "log.checkpoint_entries");
    refused(with("[raft]", "[log]\nformat = \"json\"\n[raft]"), Kind::NotAvailableYet, "log.format");
}
