//! Runs of the full sync in state: what runs, what the last one found, when the next is due (control time, law 6).

use crate::ledger::Ledger;
use crate::ledger::damage::{DamageKind, DamageRow};
use crate::ledger::deletions::pending_deletion;
use crate::ledger::owed::owed_since;
use crate::ledger::writeoff::is_written_off;
use crate::rows::{self, Key, prefix};
use crate::slices;
use crate::txn::LocalTxn;
use farshore_meta::kv::{KvRead, Space, StorageError};
use farshore_types::{BlockKey, ControlTime, LogIndex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Findings that a report keeps one by one; beyond it only counts go on.
pub const FINDINGS_KEPT: u32 = 1000;
/// Longest name of a foreign object that a finding keeps, in bytes; the rest is cut.
pub const FOREIGN_NAME_MAX: usize = 1024;
/// Most findings in one entry; the comparer's caller splits what is more.
pub const GROUP_FINDINGS_MAX: usize = 4096;

/// The order of the variants is part of the persisted format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FindingKind {
    /// Live, not owed, and not in the listing.
    Missing,
    /// Live, and the object has another length.
    WrongSize,
    /// No live slice names it and it waits for its deletion: all is well.
    PendingDeletion,
    /// No live slice names it: reported and left alone (law 17).
    Unknown,
    /// Its name is no block's.
    Foreign,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    Missing(BlockKey),
    WrongSize { block: BlockKey, found: u64 },
    Unknown { block: BlockKey, found: u64 },
    Foreign { name: String, size: u64 },
}

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub run: u64,
    /// Blocks added above this index were not looked for.
    pub begin: LogIndex,
    pub started: ControlTime,
    /// `None`: it runs, or was given up.
    pub finished: Option<ControlTime>,
    /// A rewind, a reset or a bound ended it early: it proves nothing about what it did not see.
    pub partial: bool,
    /// Objects listed.
    pub listed: u64,
    pub counts: BTreeMap<FindingKind, u64>,
    /// Findings kept one by one, at most [`FINDINGS_KEPT`].
    pub kept: u32,
}

/// All that is remembered of full syncs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullSync {
    pub running: Option<Report>,
    pub last: Option<Report>,
    /// When the next one is due; `None`: not scheduled.
    pub next: Option<ControlTime>,
    pub interval: ControlTime,
    pub runs: u64,
}

/// What is remembered of full syncs.
pub fn fullsync(kv: &dyn KvRead) -> Result<FullSync, StorageError> {
    Ok(rows::get(kv, prefix::FULL_SYNC)?.unwrap_or_default())
}

/// Whether a run is due.
pub fn is_due(kv: &dyn KvRead, control: ControlTime) -> Result<bool, StorageError> {
    let state = fullsync(kv)?;
    Ok(state.running.is_none() && state.next.is_some_and(|next| next <= control))
}

/// The findings of a run that were kept one by one.
pub fn findings(kv: &dyn KvRead, run: u64) -> Result<Vec<Finding>, StorageError> {
    let (from, to) = (Key::new(prefix::FINDING).number(run).done(), Key::new(prefix::FINDING).number(run + 1).done());
    kv.scan(Space::Local, &from, Some(&to))?
        .map(|row| {
            let (key, bytes) = row?;
            rows::decode(key, bytes)
        })
        .collect()
}

fn save(txn: &mut LocalTxn<'_>, state: &FullSync) -> Result<(), StorageError> {
    rows::put(txn, prefix::FULL_SYNC, state)
}

/// Sets how often a run is due; the first is due one interval from now.
pub(crate) fn schedule(txn: &mut LocalTxn<'_>, interval: ControlTime, control: ControlTime) -> Result<(), StorageError> {
    let mut state = fullsync(txn.read())?;
    if state.next.is_none() || state.interval != interval {
        state.next = Some(ControlTime(control.0.saturating_add(interval.0)));
        state.interval = interval;
        save(txn, &state)?;
    }
    Ok(())
}

/// Starts a run, unless one runs.
pub(crate) fn start(
    txn: &mut LocalTxn<'_>,
    begin: LogIndex,
    applied: LogIndex,
    control: ControlTime,
) -> Result<Option<u64>, StorageError> {
    let mut state = fullsync(txn.read())?;
    if state.running.is_some() || begin > applied {
        return Ok(None);
    }
    state.runs += 1;
    state.running = Some(Report { run: state.runs, begin, started: control, ..Report::default() });
    save(txn, &state)?;
    Ok(Some(state.runs))
}

/// Gives a running one up: the history that it compared with was rewound or replaced. It is due again at once.
pub(crate) fn cancel(txn: &mut LocalTxn<'_>) -> Result<(), StorageError> {
    let mut state = fullsync(txn.read())?;
    let Some(mut report) = state.running.take() else { return Ok(()) };
    report.partial = true;
    state.next = Some(ControlTime(0));
    retire(txn, &mut state, report)
}

/// Ends the run.
pub(crate) fn finish(
    txn: &mut LocalTxn<'_>,
    run: u64,
    listed: u64,
    partial: bool,
    control: ControlTime,
) -> Result<bool, StorageError> {
    let mut state = fullsync(txn.read())?;
    let Some(mut report) = state.running.take_if(|report| report.run == run) else { return Ok(false) };
    report.finished = Some(control);
    report.listed = listed;
    report.partial |= partial;
    if state.next.is_some() {
        state.next = Some(ControlTime(control.0.saturating_add(state.interval.0)));
    }
    retire(txn, &mut state, report)?;
    Ok(true)
}

/// Makes a report the last one and drops the findings of the one before.
fn retire(txn: &mut LocalTxn<'_>, state: &mut FullSync, report: Report) -> Result<(), StorageError> {
    txn.delete_range(prefix::FINDING, &Key::new(prefix::FINDING).number(report.run).done())?;
    state.last = Some(report);
    save(txn, state)
}

/// Takes findings of the running sync in. Each is judged again against the state as it is now: what was dropped or owed
/// meanwhile is no damage (hazard: expected is re-read in apply for each repair).
pub(crate) fn group(
    ledger: &mut Ledger<'_, '_>,
    run: u64,
    findings: &[Finding],
    control: ControlTime,
) -> Result<u64, StorageError> {
    let mut state = fullsync(ledger.txn.read())?;
    let Some(mut report) = state.running.take_if(|report| report.run == run) else { return Ok(0) };
    let mut damaged = 0;
    for finding in findings.iter().take(GROUP_FINDINGS_MAX) {
        let Some(kind) = judge(ledger, finding, report.begin, control)? else { continue };
        *report.counts.entry(kind).or_default() += 1;
        damaged += u64::from(matches!(kind, FindingKind::Missing | FindingKind::WrongSize));
        if kind != FindingKind::PendingDeletion && report.kept < FINDINGS_KEPT {
            let key = Key::new(prefix::FINDING).number(run).number(u64::from(report.kept)).done();
            rows::put(ledger.txn, &key, &shortened(finding))?;
            report.kept += 1;
        }
    }
    state.running = Some(report);
    save(ledger.txn, &state)?;
    Ok(damaged)
}

fn shortened(finding: &Finding) -> Finding {
    match finding {
        Finding::Foreign { name, size } => {
            Finding::Foreign { name: name[..name.floor_char_boundary(FOREIGN_NAME_MAX)].to_owned(), size: *size }
        }
        other => other.clone(),
    }
}

/// What a finding means now; `None`: nothing any more.
fn judge(
    ledger: &mut Ledger<'_, '_>,
    finding: &Finding,
    begin: LogIndex,
    control: ControlTime,
) -> Result<Option<FindingKind>, StorageError> {
    let (block, kind) = match finding {
        Finding::Missing(block) => (*block, DamageKind::Missing),
        Finding::WrongSize { block, .. } => (*block, DamageKind::WrongSize),
        Finding::Unknown { block, .. } => {
            let kv = ledger.txn.read();
            if slices::live_slice(kv, block.slice)?.is_some_and(|slice| slice.has(*block, ledger.home.block_size)) {
                return Ok(None);
            }
            let waits = pending_deletion(kv, *block)?.is_some();
            return Ok(Some(if waits { FindingKind::PendingDeletion } else { FindingKind::Unknown }));
        }
        Finding::Foreign { .. } => return Ok(Some(FindingKind::Foreign)),
    };
    Ok(damage_found(ledger, block, kind, Some(begin), control)?.then_some(match kind {
        DamageKind::Missing => FindingKind::Missing,
        _ => FindingKind::WrongSize,
    }))
}

/// Lists a live block as damaged, unless it is listed already, if it ought to be here: not owed, not written off, not hidden by the history, and
/// where a begin index is given, added by then.
pub(crate) fn damage_found(
    ledger: &mut Ledger<'_, '_>,
    block: BlockKey,
    kind: DamageKind,
    begin: Option<LogIndex>,
    control: ControlTime,
) -> Result<bool, StorageError> {
    let kv = ledger.txn.read();
    let Some(slice) = slices::live_slice(kv, block.slice)? else { return Ok(false) };
    let expected = slice.has(block, ledger.home.block_size)
        && begin.is_none_or(|begin| slice.added <= begin)
        && owed_since(kv, block)?.is_none()
        && !is_written_off(kv, block)?
        && !crate::ledger::history::history(kv)?.hides(slice.id, slice.added);
    if !expected {
        return Ok(false);
    }
    ledger.list_damage(block, DamageRow { kind, added: slice.added, found: control, tries: 0, reason: None })?;
    Ok(true)
}
