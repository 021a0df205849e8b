use super::*;
use farshore_wire::admin::{Health, MemberView};
use farshore_wire::view::{NodeView, RegionLag, SessionView, VolumeView};

fn topology() -> Topology {
    Topology::parse(include_str!("../../../topology.toml"), "topology.toml").unwrap()
}

fn line(region: &str, applied: Option<u64>, age: f64) -> RegionLag {
    RegionLag {
        region: region.into(),
        committed: Some(100),
        mirror_applied: applied,
        data_synced: Some(80),
        recoverable: Some(80),
        entries_behind: applied.map(|applied| 100 - applied),
        metadata_seconds_behind: Some(0.2),
        data_seconds_behind: Some(4.0),
        blocks_behind: Some(3),
        bytes_behind: Some(12),
        age_seconds: Some(age),
        ..RegionLag::default()
    }
}

fn view(observer: &str, stale: bool, age: f64) -> LagView {
    LagView {
        volume: "demo".into(),
        observer: observer.into(),
        stale,
        epoch: 1,
        primary: "us-east".into(),
        regions: vec![line("us-east", None, age), line("eu-west", Some(90), age)],
        ..LagView::default()
    }
}

fn answer(region: &str, stale: bool, line_age: f64, seconds: u64) -> LagAnswer {
    LagAnswer { region: region.into(), view: view(region, stale, line_age), age: Duration::from_secs(seconds) }
}

#[test]
fn the_primary_is_believed_and_a_newer_line_of_the_region_itself_wins() {
    let mut mirror = answer("eu-west", false, 0.1, 0);
    mirror.view.regions[1].mirror_applied = Some(97);
    let merged = merge_lag(&topology(), "demo", &[mirror, answer("us-east", false, 0.5, 0)], 0);
    assert_eq!((merged.observer.as_str(), merged.stale), ("us-east", false));
    assert_eq!((merged.regions[1].mirror_applied, merged.regions[1].entries_behind), (Some(97), Some(3)));
}

#[test]
fn law_28_without_the_primary_a_mirror_is_believed_and_marked_stale() {
    let merged = merge_lag(&topology(), "demo", &[answer("eu-west", false, 0.1, 0)], 0);
    assert_eq!((merged.observer.as_str(), merged.stale), ("eu-west", true));
    let merged = merge_lag(&topology(), "demo", &[answer("us-east", false, 0.1, 60), answer("eu-west", false, 0.1, 0)], 0);
    assert_eq!((merged.observer.as_str(), merged.stale), ("eu-west", true));
}

#[test]
fn law_28_without_any_answer_every_figure_is_null() {
    let merged = merge_lag(&topology(), "demo", &[], 0);
    assert!(merged.stale && merged.regions.len() == 2);
    for line in &merged.regions {
        assert_eq!((line.committed, line.blocks_behind, line.data_seconds_behind, line.age_seconds), (None, None, None, None));
        assert_eq!(judge(&topology(), &merged, line), Verdict::Unknown);
    }
}

#[test]
fn law_28_silence_ages_figures_and_never_shows_as_zero() {
    let merged = merge_lag(&topology(), "demo", &[answer("us-east", false, 0.5, 40)], 0);
    let mirror = &merged.regions[1];
    assert!(merged.stale && mirror.at_least);
    assert_eq!((mirror.age_seconds, mirror.data_seconds_behind), (Some(40.5), Some(44.0)));
    assert_eq!(judge(&topology(), &merged, mirror), Verdict::Unknown);
}

#[test]
fn a_region_is_judged_by_its_objectives() {
    let topology = topology();
    let merged = view("us-east", false, 0.1);
    let judged = |change: &dyn Fn(&mut RegionLag)| {
        let mut line = line("eu-west", Some(90), 0.1);
        change(&mut line);
        judge(&topology, &merged, &line)
    };
    assert_eq!(judged(&|_| ()), Verdict::Well);
    assert_eq!(judged(&|line| line.metadata_seconds_behind = Some(1.5)), Verdict::Late(Late::Metadata));
    assert_eq!(judged(&|line| line.data_seconds_behind = Some(10.5)), Verdict::Late(Late::Data));
    assert_eq!(judged(&|line| line.recoverable = None), Verdict::Late(Late::History));
    assert_eq!(judged(&|line| line.diverged = true), Verdict::Late(Late::Diverged));
    assert_eq!(judged(&|line| line.metadata_seconds_behind = None), Verdict::Unknown);
    assert_eq!(judged(&|line| line.age_seconds = None), Verdict::Unknown);
    let primary = line("us-east", None, 0.1);
    assert_eq!(judge(&topology, &merged, &primary), Verdict::Well);
}

#[test]
fn silent_nodes_are_down_and_the_primary_tells_of_the_volume() {
    let topology = topology();
    let health = |name: &str, is_leader, mirror| {
        let address = topology.node(name).unwrap().node.address();
        let initialized = true;
        (address, Health { name: name.into(), is_leader, mirror, initialized, pid: 7, applied: 5, ..Health::default() })
    };
    let status = |primary: &str, used_bytes, sessions: &[&str]| ClusterStatus {
        volume: Some(VolumeView { name: "demo".into(), epoch: 1, primary: primary.into(), used_bytes, ..VolumeView::default() }),
        sessions: sessions.iter().map(|id| SessionView { id: (*id).into(), ..SessionView::default() }).collect(),
        ..ClusterStatus::default()
    };
    let probes = [
        RegionProbe {
            region: "eu-west".into(),
            health: [health("euw-a", true, true), health("euw-b", false, true)].into(),
            status: Some(status("us-east", 1, &["a", "b"])),
        },
        RegionProbe {
            region: "us-east".into(),
            health: [health("use-b", true, false)].into(),
            status: Some(status("us-east", 2, &["a"])),
        },
    ];
    let merged = merge_status(&topology, &probes, |name| (name == "bucket-eu-west").then_some(9));
    let roles: Vec<&str> = merged.nodes.iter().map(|node| node.role.as_str()).collect();
    assert_eq!(roles, ["down", "leader", "down", "mirror-leader", "mirror-follower", "down"]);
    assert_eq!((merged.nodes[0].pid, merged.nodes[0].applied), (None, None));
    assert_eq!((merged.buckets[0].pid, merged.buckets[1].pid), (None, Some(9)));
    assert_eq!(merged.volumes[0].used_bytes, 2);
    assert_eq!(merged.sessions.len(), 2);
}

#[tokio::test]
async fn a_world_that_is_down_is_shown_as_down() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut port = closed.port();
    let topology = topology().readdressed(|mut address| {
        address.set_port(port);
        port = if port > 1100 { port - 1 } else { 65_000 };
        address
    });
    let observer = Observer::new(topology.unwrap(), "demo");
    assert!(observer.poll_lag().await.stale);
    assert!(observer.heard_seconds().iter().all(|(_, age)| age.is_none()));
    assert!(observer.status(|_| None).await.nodes.iter().all(|node| node.role == "down"));
    let replication = observer.replication(5).await;
    let json = serde_json::to_value(&replication).unwrap();
    assert_eq!(json["regions"][0]["state"], "unknown");
    assert!(json["regions"][0]["figures"].is_null());
}

#[test]
fn nodes_that_come_and_go_are_shown_beside_the_declared_ones() {
    let member = |id, name: &str, voter| MemberView { id, name: name.into(), voter, ..MemberView::default() };
    let members = vec![member(1, "use-a", true), member(4, "use-d", false)];
    let health = |node, name: &str, address: &str| {
        let (name, members) = (name.to_owned(), members.clone());
        (address.to_owned(), Health { node, name, members, initialized: true, ..Health::default() })
    };
    let node = |name: &str, address: &str| NodeView { name: name.into(), address: address.into(), ..NodeView::default() };
    let status = ClusterStatus { nodes: vec![node("use-a", "127.0.0.1:7411"), node("use-d", "h:1")], ..Default::default() };
    let health = [health(1, "use-a", "127.0.0.1:7411"), health(9, "use-b", "127.0.0.1:7412"), health(4, "use-d", "h:1")];
    let probe = RegionProbe { region: "us-east".into(), health: health.into(), status: Some(status) };
    let merged = merge_status(&topology(), &[probe], |_| None);
    let roles: Vec<_> = merged.nodes.iter().take(4).map(|node| (node.name.as_str(), node.role.as_str())).collect();
    assert_eq!(roles, [("use-a", "follower"), ("use-b", "no-member"), ("use-c", "down"), ("use-d", "learner")]);
}
