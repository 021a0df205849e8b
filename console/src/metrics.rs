//! Prometheus text. A figure that is not known is an absent series, never 0 (law 28).

use crate::clock;
use crate::observe::{Observer, RegionReplication, ReplicationStatus};
use farshore_types::topology::Topology;
use farshore_wire::view::{LagView, RegionLag, StatusView};
use std::fmt::Write;

/// Figures older than this are left out; their age stays (`farshore_observation_age_seconds`).
const FIGURE_SECONDS_MAX: f64 = 60.0;

/// The families of one line of the lag view: name, help, figure.
type Figure = fn(&RegionLag) -> Option<f64>;
const LINE_FAMILIES: [(&str, &str, Figure); 8] = [
    ("farshore_log_committed_index", "LogIndex committed at the primary.", |line| index(line.committed)),
    ("farshore_mirror_applied_index", "LogIndex applied by the mirror.", |line| index(line.mirror_applied)),
    ("farshore_data_synced_index", "LogIndex up to which the region's bucket has all blocks.", |line| index(line.data_synced)),
    ("farshore_recoverable_index", "LogIndex that the region can be recovered to.", |line| index(line.recoverable)),
    ("farshore_replication_entries_behind", "Entries not applied by the mirror.", |line| index(line.entries_behind)),
    ("farshore_replication_pending_blocks", "Blocks that the region's bucket owes.", |line| index(line.blocks_behind)),
    ("farshore_replication_pending_bytes", "Bytes that the region's bucket owes.", |line| index(line.bytes_behind)),
    ("farshore_replication_failing_blocks", "Owed blocks whose copies fail.", |line| index(line.failing_blocks)),
];

fn index(figure: Option<u64>) -> Option<f64> {
    figure.map(|figure| figure as f64)
}

/// Everything that `/metrics` shows.
pub fn render(observer: &Observer, status: Option<&StatusView>, replication: Option<&ReplicationStatus>) -> String {
    let mut text = Text::default();
    text.family("farshore_build_info", "Version of this process.", &[(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)]);
    lag(&mut text, observer.topology(), &observer.lag());
    heartbeats(&mut text, observer);
    targets(&mut text, observer.topology());
    if let Some(status) = status {
        nodes(&mut text, status);
    }
    if let Some(replication) = replication {
        states(&mut text, replication);
    }
    text.0
}

fn lag(text: &mut Text, topology: &Topology, view: &LagView) {
    let shown = || view.regions.iter().filter(|line| line.age_seconds.is_some_and(|age| age <= FIGURE_SECONDS_MAX));
    let labels = |line: &'_ RegionLag| {
        vec![("volume", view.volume.clone()), ("region", line.region.clone()), ("observer", view.observer.clone())]
    };
    for (name, help, figure) in LINE_FAMILIES {
        let samples: Vec<_> = shown().filter_map(|line| Some((labels(line), figure(line)?))).collect();
        text.family(name, help, &samples);
    }
    let mut seconds = Vec::new();
    for line in shown() {
        for (kind, figure) in [("metadata", line.metadata_seconds_behind), ("data", line.data_seconds_behind)] {
            if let Some(figure) = figure {
                let mut labels = labels(line);
                labels.push(("kind", kind.to_owned()));
                seconds.push((labels, figure));
            }
        }
    }
    text.family("farshore_replication_lag_seconds", "Age of the oldest entry not applied, or block owed.", &seconds);
    let ages: Vec<_> = view.regions.iter().filter_map(|line| Some((labels(line), line.age_seconds?))).collect();
    text.family("farshore_observation_age_seconds", "Seconds since the region's figures were observed.", &ages);
    if view.observer != "none" {
        let labels = vec![("volume", view.volume.clone()), ("observer", view.observer.clone())];
        text.family("farshore_volume_epoch", "Number of the volume's epoch.", &[(labels.clone(), view.epoch as f64)]);
        text.family("farshore_volume_stale", "1 while the primary is not heard.", &[(labels, f64::from(u8::from(view.stale)))]);
    }
    let verdicts = view.regions.iter().map(|line| {
        let mut labels = labels(line);
        labels.push(("verdict", crate::observe::judge(topology, view, line).word().to_ascii_lowercase()));
        (labels, 1.0)
    });
    let verdicts: Vec<_> = verdicts.collect();
    text.family("farshore_volume_verdict_info", "How each region stands against its objectives.", &verdicts);
}

/// When the console, and the leader of each region as seen from here, were alive last.
fn heartbeats(text: &mut Text, observer: &Observer) {
    let now = clock::now_us() as f64 / 1e6;
    let mut samples = vec![(vec![("component", "console".to_owned()), ("region", String::new())], now)];
    for (region, age) in observer.heard_seconds() {
        if let Some(age) = age {
            samples.push((vec![("component", "leader".to_owned()), ("region", region)], now - age));
        }
    }
    text.family("farshore_component_heartbeat_timestamp_seconds", "When each part was alive last.", &samples);
}

fn targets(text: &mut Text, topology: &Topology) {
    let mut samples = Vec::new();
    for volume in topology.volumes() {
        for mirror in &volume.mirrors {
            for (kind, target) in [("metadata", mirror.rpo_metadata), ("data", mirror.rpo_data)] {
                if let Some(target) = target {
                    let labels =
                        vec![("volume", volume.name.clone()), ("region", mirror.region.clone()), ("kind", kind.to_owned())];
                    samples.push((labels, target.as_secs_f64()));
                }
            }
        }
    }
    text.family("farshore_replication_rpo_target_seconds", "The declared recovery point objective.", &samples);
}

fn nodes(text: &mut Text, status: &StatusView) {
    let samples: Vec<_> = status
        .nodes
        .iter()
        .map(|node| (vec![("node", node.name.clone()), ("region", node.region.clone()), ("role", node.role.clone())], 1.0))
        .collect();
    text.family("farshore_node_role_info", "The role of each node.", &samples);
}

fn states(text: &mut Text, replication: &ReplicationStatus) {
    let (mut states, mut workers) = (Vec::new(), Vec::new());
    for region in &replication.regions {
        let labels = || vec![("volume", replication.volume.clone()), ("region", region.region().to_owned())];
        let mut stated = labels();
        match region {
            RegionReplication::Known(view) => {
                stated.push(("state", view.state.clone()));
                let mut active = labels();
                active.push(("state", "active".to_owned()));
                workers.push((active, view.figures.workers as f64));
            }
            RegionReplication::Unknown { .. } => stated.push(("state", "unknown".to_owned())),
        }
        states.push((stated, 1.0));
    }
    text.family("farshore_replication_state", "State of each region's replication.", &states);
    text.family("farshore_workers", "Clients that offer capacity.", &workers);
}

#[derive(Default)]
struct Text(String);

impl Text {
    /// One family of gauges; without samples, nothing at all.
    fn family<V: AsRef<str>>(&mut self, name: &str, help: &str, samples: &[(Vec<(&str, V)>, f64)]) {
        if samples.is_empty() {
            return;
        }
        let out = &mut self.0;
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, figure) in samples {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value.as_ref()))).collect();
            let _ = writeln!(out, "{name}{{{}}} {figure}", labels.join(","));
        }
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_28_unknown_figures_are_absent_series() {
        let topology = Topology::parse(include_str!("../../topology.toml"), "topology.toml").unwrap();
        let known = RegionLag {
            region: "us-east".into(),
            committed: Some(7),
            blocks_behind: Some(0),
            age_seconds: Some(0.5),
            ..RegionLag::default()
        };
        let old = RegionLag { region: "eu-west".into(), committed: Some(7), age_seconds: Some(90.0), ..RegionLag::default() };
        let view =
            LagView { volume: "de\"mo".into(), observer: "us-east".into(), regions: vec![known, old], ..LagView::default() };
        let mut text = Text::default();
        lag(&mut text, &topology, &view);
        let has = |line: &str| text.0.lines().any(|l| l == line);
        assert!(has(r#"farshore_log_committed_index{volume="de\"mo",region="us-east",observer="us-east"} 7"#), "{}", text.0);
        assert!(has(r#"farshore_replication_pending_blocks{volume="de\"mo",region="us-east",observer="us-east"} 0"#));
        assert!(has(r#"farshore_observation_age_seconds{volume="de\"mo",region="eu-west",observer="us-east"} 90"#));
        assert!(!text.0.contains("farshore_recoverable_index") && !text.0.contains("lag_seconds"), "{}", text.0);
        assert!(!text.0.lines().any(|l| l.starts_with("farshore_log_committed_index") && l.contains("eu-west")));
    }

    #[test]
    fn targets_come_from_the_topology() {
        let topology = Topology::parse(include_str!("../../topology.toml"), "topology.toml").unwrap();
        let mut text = Text::default();
        targets(&mut text, &topology);
        assert!(text.0.contains(r#"{volume="demo",region="eu-west",kind="data"} 10"#), "{}", text.0);
    }

    #[test]
    fn every_family_has_one_type_line_and_every_line_parses() {
        let topology = Topology::parse(include_str!("../../topology.toml"), "topology.toml").unwrap();
        let observer = Observer::new(topology, "demo");
        let text = render(&observer, Some(&StatusView::default()), None);
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let unique: std::collections::BTreeSet<&&str> = types.iter().collect();
        assert_eq!(types.len(), unique.len());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, figure) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with("farshore_") && series.ends_with('}'), "{line}");
            assert!(figure.parse::<f64>().is_ok(), "{line}");
        }
    }
}
