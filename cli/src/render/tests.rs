//! Golden text of each table.

use super::*;
use farshore_console::observe::{RegionReplication, ReplicationStatus};
use farshore_types::topology::Topology;
use farshore_wire::view::*;

fn topology() -> Topology {
    Topology::parse(crate::topology_file::DEFAULT_TOPOLOGY, "t").unwrap()
}

fn lag_view() -> LagView {
    let primary = RegionLag {
        region: "us-east".into(),
        role: "primary".into(),
        committed: Some(11377),
        data_synced: Some(11377),
        recoverable: Some(11377),
        data_seconds_behind: Some(0.0),
        blocks_behind: Some(0),
        bytes_behind: Some(0),
        age_seconds: Some(0.1),
        ..RegionLag::default()
    };
    let mirror = RegionLag {
        region: "eu-west".into(),
        role: "mirror".into(),
        mirror_applied: Some(11365),
        data_synced: Some(22),
        recoverable: Some(22),
        entries_behind: Some(12),
        metadata_seconds_behind: Some(0.1),
        data_seconds_behind: Some(41.2),
        blocks_behind: Some(3184),
        bytes_behind: Some(12_777_728_409),
        failing_blocks: Some(2),
        ..primary.clone()
    };
    LagView {
        volume: "demo".into(),
        observer: "us-east".into(),
        observed_at: "2026-11-20T14:02:31Z".into(),
        stale: false,
        epoch: 7,
        primary: "us-east".into(),
        leader: Some("use-b".into()),
        regions: vec![primary, mirror],
    }
}

#[test]
fn lag_live() {
    let expected = "\
demo  epoch 7  primary us-east (leader use-b)  2026-11-20T14:02:31Z  asked us-east: live

REGION   ROLE     HEARD  META BEHIND  DATA BEHIND      OWED      RECOVERABLE TO  RPO
us-east  primary  yes    -            0 blk / 0.0 s    0 B       11377 now       -
eu-west  mirror   yes    12 / 0.1 s   3184 blk / 41 s  11.9 GiB  22              LATE

eu-west  ! 2 blocks failing: see `farshore replication status`
If us-east were lost now, eu-west could go on: --at metadata loses 12 entries; --at data loses 11355 entries (to 22)
";
    assert_eq!(lag(&topology(), &lag_view()), expected);
}

#[test]
fn law_28_lag_stale_and_unknown_shows_no_zero() {
    let mut view = lag_view();
    view.stale = true;
    view.observer = "eu-west".into();
    view.regions[0] = RegionLag { region: "us-east".into(), role: "unknown".into(), ..RegionLag::default() };
    view.regions[1].at_least = true;
    view.regions[1].failing_blocks = None;
    let expected = "\
demo  epoch 7  primary us-east NOT HEARD  2026-11-20T14:02:31Z  asked eu-west: STALE

REGION   ROLE     HEARD  META BEHIND   DATA BEHIND        OWED      RECOVERABLE TO  RPO
us-east  unknown  never  -             -                  -         -               UNKNOWN
eu-west  mirror   yes    >=12 / 0.1 s  >=3184 blk / 41 s  11.9 GiB  22?             LATE
If us-east were lost now, eu-west could go on: --at metadata loses at least 12 entries; --at data loses at least 11355 entries (to 22)
";
    assert_eq!(lag(&topology(), &view), expected);
}

#[test]
fn status_table() {
    let node = |name: &str, role: &str, pid| NodeView {
        name: name.into(),
        region: "us-east".into(),
        role: role.into(),
        pid,
        address: "127.0.0.1:7411".into(),
        applied: pid.map(|_| 9),
        trouble: (role == "down").then(|| "no space left on the disk".to_owned()),
        digest: None,
        machine: pid.map(|_| 8),
    };
    let mut view = StatusView {
        nodes: vec![node("use-a", "leader", Some(12)), node("use-b", "down", None)],
        buckets: vec![BucketView { region: "us-east".into(), url: "s3+http://127.0.0.1:7421/us-east".into(), pid: None }],
        volumes: vec![VolumeView {
            name: "demo".into(),
            epoch: 1,
            primary: "us-east".into(),
            mirrors: vec!["eu-west".into()],
            log_index: 9,
            used_bytes: 4 << 20,
            used_inodes: 3,
            machine: 8,
            ..VolumeView::default()
        }],
        sessions: vec![SessionView {
            id: "0123456789abcdef".into(),
            kind: "writer".into(),
            host: "h".into(),
            ..SessionView::default()
        }],
    };
    let expected = "\
demo  epoch 1  primary us-east  mirrors eu-west  index 9  4.0 MiB in 3 files

NODE   REGION   ROLE    APPLIED  PID  ADDRESS
use-a  us-east  leader  9        12   127.0.0.1:7411
use-b  us-east  down    -        -    127.0.0.1:7411

use-b: no space left on the disk

BUCKET   PID  URL
us-east  -    s3+http://127.0.0.1:7421/us-east

SESSION   KIND    HOST  REGION  MOUNT  OPTIONS
01234567  writer  h     -       -      -
";
    assert_eq!(status(&view), expected);
    view.nodes[0].machine = Some(9);
    let upgrading = "upgrade under way: the volume is at version 8 of the state machine, use-a know up to 9; it is raised once all nodes of all \
                     its clusters do\n\nBUCKET";
    assert_eq!(status(&view), expected.replace("BUCKET", upgrading));
    assert!(status(&StatusView::default()).starts_with("no cluster tells of a volume"));
}

#[test]
fn replication_table() {
    let figures =
        RegionFigures { blocks_behind: 2, bytes_behind: 8 << 20, blocks_failing: 1, workers: 1, ..RegionFigures::default() };
    let owed = OwedBlock {
        block: "chunks/0/0/7_0_4194304".into(),
        path: Some("/a/b".into()),
        bytes: 4 << 20,
        class: "live".into(),
        tries: 3,
        reason: Some("SourceAbsent".into()),
        ..OwedBlock::default()
    };
    let view = ReplicationView {
        region: "eu-west".into(),
        state: "running".into(),
        figures,
        owed: vec![owed],
        more: true,
        full_sync: FullSyncView { next_in_seconds: Some(7200), ..FullSyncView::default() },
        ..ReplicationView::default()
    };
    let silent =
        RegionReplication::Unknown { region: "us-east".into(), state: "unknown", figures: None, error: "no answer".into() };
    let status = ReplicationStatus { volume: "demo".into(), regions: vec![silent, RegionReplication::Known(Box::new(view))] };
    let expected = "\
TARGET   STATE    OWED blk  OWED     FAILING  DAMAGED  UNVERIFIED  WORKERS  COPIED  FALLBACK blk
us-east  unknown  -         -        -        -        -           -        -       -
eu-west  running  2         8.0 MiB  1        0        0           1        0 B     0

us-east  ! not heard: no answer

OWED     BLOCK                   BYTES    CLASS  TRIES  REASON        FILE
eu-west  chunks/0/0/7_0_4194304  4.0 MiB  live   3      SourceAbsent  /a/b
more are owed than listed; --limit N lists more

FULL SYNC eu-west  never finished yet; next in 2h00m
";
    assert_eq!(replication(&status), expected);
}
