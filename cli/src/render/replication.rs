//! `farshore replication status`, and what a full sync found.

use crate::output::{Table, bytes, seconds};
use farshore_console::clock::rfc3339;
use farshore_console::observe::{RegionReplication, ReplicationStatus};
use farshore_wire::view::{FullSyncView, ReplicationView};

pub fn replication(status: &ReplicationStatus) -> String {
    let head = ["TARGET", "STATE", "OWED blk", "OWED", "FAILING", "DAMAGED", "UNVERIFIED", "WORKERS", "COPIED", "FALLBACK blk"];
    let mut table = Table::new(&head);
    for region in &status.regions {
        match region {
            RegionReplication::Known(view) => table.row(known_row(view)),
            RegionReplication::Unknown { region, .. } => {
                let unknown = std::iter::repeat_n("-".to_owned(), head.len() - 2);
                table.row([region.clone(), "unknown".to_owned()].into_iter().chain(unknown).collect());
            }
        }
    }
    let mut text = table.render();
    for region in &status.regions {
        match region {
            RegionReplication::Known(view) => text.push_str(&details(view)),
            RegionReplication::Unknown { region, error, .. } => text.push_str(&format!("\n{region}  ! not heard: {error}\n")),
        }
    }
    text
}

fn known_row(view: &ReplicationView) -> Vec<String> {
    let figures = &view.figures;
    let counts = [figures.blocks_failing, figures.blocks_damaged, figures.blocks_unverified, figures.workers];
    let mut row = vec![view.region.clone(), view.state.clone(), figures.blocks_behind.to_string(), bytes(figures.bytes_behind)];
    row.extend(counts.map(|count| count.to_string()));
    row.extend([bytes(figures.copied_bytes_total), figures.fallback_blocks_total.to_string()]);
    row
}

fn details(view: &ReplicationView) -> String {
    let mut text = String::new();
    if !view.owed.is_empty() {
        let mut owed = Table::new(&["OWED", "BLOCK", "BYTES", "CLASS", "TRIES", "REASON", "FILE"]);
        for block in &view.owed {
            owed.row(vec![
                view.region.clone(),
                block.block.clone(),
                bytes(block.bytes),
                block.class.clone(),
                block.tries.to_string(),
                block.reason.clone().unwrap_or_else(|| "-".into()),
                block.path.clone().unwrap_or_else(|| "(no path any more)".into()),
            ]);
        }
        text.push_str(&format!("\n{}", owed.render()));
        if view.more {
            text.push_str("more are owed than listed; --limit N lists more\n");
        }
    }
    if !view.workers.is_empty() {
        let mut workers = Table::new(&["WORKER", "FOR", "HOST", "SLOTS", "LEASES", "DONE", "REJECTED"]);
        for worker in &view.workers {
            let id = worker.id.chars().take(8).collect();
            let figures = [u64::from(worker.slots), u64::from(worker.leases), worker.done, worker.rejected];
            workers
                .row([id, view.region.clone(), worker.host.clone()].into_iter().chain(figures.map(|n| n.to_string())).collect());
        }
        text.push_str(&format!("\n{}", workers.render()));
    }
    text.push_str(&format!("\n{}", full_sync(&view.region, &view.full_sync)));
    text
}

/// One line on a region's full sync, and its first findings.
pub fn full_sync(region: &str, view: &FullSyncView) -> String {
    let last = match view.last_finished_us {
        Some(at) => format!(
            "last {}: {} listed, {} missing, {} repaired, {} unknown, {} damaged, {} unrepairable",
            rfc3339(at),
            view.listed,
            view.missing,
            view.repaired,
            view.unknown,
            view.damaged,
            view.unrepairable
        ),
        None => "never finished yet".to_owned(),
    };
    let now = match (view.running, view.progress) {
        (true, Some(progress)) => format!("; running, {:.0} %", progress * 100.0),
        (true, None) => "; running".to_owned(),
        (false, _) => view.next_in_seconds.map(|next| format!("; next in {}", seconds(next as f64))).unwrap_or_default(),
    };
    let findings: String = view.findings.iter().map(|finding| format!("  {finding}\n")).collect();
    format!("FULL SYNC {region}  {last}{now}\n{findings}")
}
