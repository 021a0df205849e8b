//! `farshore lag`.

use crate::output::{Table, bytes, known, seconds};
use farshore_console::observe::{HEARD_SECONDS_MAX, judge};
use farshore_types::topology::Topology;
use farshore_wire::view::{LagView, RegionLag};

pub fn lag(topology: &Topology, view: &LagView) -> String {
    let state = if view.stale { "STALE" } else { "live" };
    let primary = match (view.primary.as_str(), &view.leader, view.stale) {
        ("", _, _) => "no primary known".to_owned(),
        (primary, _, true) => format!("primary {primary} NOT HEARD"),
        (primary, Some(leader), false) => format!("primary {primary} (leader {leader})"),
        (primary, None, false) => format!("primary {primary}"),
    };
    let mut text =
        format!("{}  epoch {}  {primary}  {}  asked {}: {state}\n\n", view.volume, view.epoch, view.observed_at, view.observer);
    let head = ["REGION", "ROLE", "HEARD", "META BEHIND", "DATA BEHIND", "OWED", "RECOVERABLE TO", "RPO"];
    let mut table = Table::new(&head);
    for line in &view.regions {
        table.row(row(topology, view, line));
    }
    text.push_str(&table.render());
    let notes: Vec<String> = view.regions.iter().flat_map(notes).collect();
    if !notes.is_empty() {
        text.push_str(&format!("\n{}\n", notes.join("\n")));
    }
    text.push_str(&losses(view));
    text
}

fn row(topology: &Topology, view: &LagView, line: &RegionLag) -> Vec<String> {
    let primary = line.region == view.primary;
    let least = if line.at_least { ">=" } else { "" };
    let meta = match (primary, line.entries_behind, line.metadata_seconds_behind) {
        (true, _, _) | (_, None, None) => "-".to_owned(),
        (_, entries, age) => format!("{least}{} / {}", known(entries, |n| n.to_string()), known(age, seconds)),
    };
    let data = match (line.blocks_behind, line.data_seconds_behind) {
        (None, None) => "-".to_owned(),
        (blocks, age) => format!("{least}{} blk / {}", known(blocks, |n| n.to_string()), known(age, seconds)),
    };
    let heard = match line.age_seconds {
        Some(age) if age <= HEARD_SECONDS_MAX => "yes".to_owned(),
        Some(age) => format!("{} ago", seconds(age)),
        None => "never".to_owned(),
    };
    let doubt = if line.at_least || view.stale { "?" } else { "" };
    let recoverable = match line.recoverable {
        Some(index) if line.committed == Some(index) => format!("{index}{doubt} now"),
        Some(index) => format!("{index}{doubt}"),
        None if line.age_seconds.is_none() => "-".to_owned(),
        None => "none yet".to_owned(),
    };
    let verdict =
        if primary && line.age_seconds.is_some() { "-".to_owned() } else { judge(topology, view, line).word().to_owned() };
    let role = if line.role.is_empty() { "-".to_owned() } else { line.role.clone() };
    vec![line.region.clone(), role, heard, meta, data, known(line.bytes_behind, bytes), recoverable, verdict]
}

fn notes(line: &RegionLag) -> Vec<String> {
    let mut notes = Vec::new();
    if line.diverged {
        notes.push(format!("{}  ! is no prefix of its primary: it may not be promoted", line.region));
    }
    if let Some(failing) = line.failing_blocks.filter(|count| *count > 0) {
        notes.push(format!("{}  ! {failing} blocks failing: see `farshore replication status`", line.region));
    }
    notes
}

/// What would be gone if the primary's region were lost now.
fn losses(view: &LagView) -> String {
    let mut text = String::new();
    for line in view.regions.iter().filter(|line| line.region != view.primary) {
        let (Some(committed), Some(applied)) = (line.committed, line.mirror_applied) else { continue };
        let least = if view.stale || line.at_least { "at least " } else { "" };
        let data = known(line.recoverable, |index| {
            format!("; --at data loses {least}{} entries (to {index})", committed.saturating_sub(index))
        });
        let data = if data == "-" { "; --at data is not possible yet" } else { data.as_str() };
        text.push_str(&format!(
            "If {} were lost now, {} could go on: --at metadata loses {least}{} entries{data}\n",
            view.primary,
            line.region,
            committed.saturating_sub(applied)
        ));
    }
    text
}
