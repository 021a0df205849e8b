//! `farshore status`.

use crate::output::{Table, bytes, known};
use farshore_wire::view::{StatusView, VolumeView};

pub fn status(view: &StatusView) -> String {
    let mut nodes = Table::new(&["NODE", "REGION", "ROLE", "APPLIED", "PID", "ADDRESS"]);
    for node in &view.nodes {
        let applied = known(node.applied, |index| index.to_string());
        let pid = known(node.pid, |pid| pid.to_string());
        nodes.row(vec![node.name.clone(), node.region.clone(), node.role.clone(), applied, pid, node.address.clone()]);
    }
    let mut buckets = Table::new(&["BUCKET", "PID", "URL"]);
    for bucket in &view.buckets {
        buckets.row(vec![bucket.region.clone(), known(bucket.pid, |pid| pid.to_string()), bucket.url.clone()]);
    }
    let mut text: String = view.volumes.iter().map(volume).collect();
    if view.volumes.is_empty() {
        text.push_str("no cluster tells of a volume\n");
    }
    text.push_str(&format!("\n{}\n", nodes.render()));
    let troubled = view.nodes.iter().filter_map(|node| Some((&node.name, node.trouble.as_ref()?)));
    let troubles: String = troubled.map(|(name, trouble)| format!("{name}: {trouble}\n")).collect();
    if !troubles.is_empty() {
        text.push_str(&format!("{troubles}\n"));
    }
    text.push_str(&versions(view));
    text.push_str(&buckets.render());
    if !view.sessions.is_empty() {
        let mut sessions = Table::new(&["SESSION", "KIND", "HOST", "REGION", "MOUNT", "OPTIONS"]);
        for session in &view.sessions {
            let id = session.id.chars().take(8).collect();
            let cells = [&session.kind, &session.host, &session.region, &session.mount, &session.options];
            sessions.row(std::iter::once(id).chain(cells.into_iter().map(|cell| or_dash(cell))).collect());
        }
        text.push_str(&format!("\n{}", sessions.render()));
    }
    text
}

/// Nodes that know more than what the volume is at, in the course of an upgrade.
fn versions(view: &StatusView) -> String {
    let Some(at) = view.volumes.first().map(|volume| volume.machine).filter(|at| *at > 0) else { return String::new() };
    let newer = view.nodes.iter().filter(|node| node.machine.is_some_and(|machine| machine > at));
    let names: Vec<&str> = newer.map(|node| node.name.as_str()).collect();
    let Some(highest) = view.nodes.iter().filter_map(|node| node.machine).max().filter(|_| !names.is_empty()) else {
        return String::new();
    };
    format!(
        "upgrade under way: the volume is at version {at} of the state machine, {} know up to {highest}; it is raised once all nodes of all \
         its clusters do\n\n",
        names.join(", ")
    )
}

fn volume(volume: &VolumeView) -> String {
    let mirrors = if volume.mirrors.is_empty() { "none".to_owned() } else { volume.mirrors.join(", ") };
    format!(
        "{}  epoch {}  primary {}  mirrors {}  index {}  {} in {} files\n",
        volume.name,
        volume.epoch,
        volume.primary,
        mirrors,
        volume.log_index,
        bytes(volume.used_bytes),
        volume.used_inodes
    )
}

fn or_dash(cell: &str) -> String {
    if cell.is_empty() { "-".to_owned() } else { cell.to_owned() }
}
